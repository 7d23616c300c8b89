"""Where the images come from: each source finds its files and reads the rows it is asked for.

A source knows every label without decoding an image, so the cut comes first and only the chosen
images are decoded.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .class_folders import DataError, check_apart, class_files, class_folders, split_folders
from .decoding import ImageStore
from .experiments import Experiment
from .files import printable, unread
from .mapped import MappedImages
from .places import from_user, home

CARS_FILES = "cars_train/, cars_test/, devkit/ and cars_test_annos_withlabels.mat"
CARS_IMAGES = 8_144, 8_041  # training and test images, as the publishers count them
CALTECH_IMAGES, CALTECH_FOLDERS, CLUTTER = 30_607, 257, ".clutter"

Images = np.ndarray | MappedImages  # uint8 (N, 3, S, S)


class Source(NamedTuple):
    """One pool of labelled images, not yet decoded.

    read(rows, size) returns images uint8 (n, 3, size, size) and readable bool (n,).
    """

    labels: np.ndarray  # int64 (N,)
    ids: np.ndarray  # (N,) place in the publisher's order, or file name
    read: Callable[[np.ndarray, int], tuple[Images, np.ndarray]]


class Sources(NamedTuple):
    """What a data set offers. Where `test` is None, `test_per_class` images are held out."""

    class_names: list[str]
    train: Source
    test: Source | None
    test_per_class: int | float = 0.2  # a number of images, or a share of each class
    root: Path | None = None  # where file names start, if a split can be written down by them
    remark: str = ""  # said at every use: what sets these files apart from the publisher's


def data_folders() -> list[Path]:
    """The folders that are searched for data: LTKD_DATA where it is set, then data/."""
    given = os.environ.get("LTKD_DATA")
    return ([from_user(given)] if given else []) + [home() / "data"]


def load_sources(experiment: Experiment) -> Sources:
    """Find the experiment's data, downloading it where torchvision can.

    Raises DataError with one sentence that says what is missing or damaged, and what to do.
    """
    return SOURCES[experiment.source](experiment)


def digits(experiment: Experiment) -> Sources:
    """scikit-learn's 1,797 scanned digits (8×8, 10 classes), enlarged to the image size.

    Every class gives 174 images, the size of the smallest, so that the cut starts from balance.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    kept = np.sort(np.concatenate([np.flatnonzero(bunch.target == c)[:174] for c in range(10)]))
    grey = np.rint(bunch.images[kept] * (255 / 16)).astype(np.uint8)  # (N, 8, 8), from 0..16

    def read(rows, size):
        enlarged = _resize(np.repeat(grey[rows, None], 3, axis=1), size)
        return enlarged, np.ones(len(rows), bool)

    names = [str(c) for c in range(10)]
    return Sources(names, Source(bunch.target[kept].astype(np.int64), kept, read), None, 64)


def cifar(experiment: Experiment) -> Sources:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009), in torchvision's layout or as class folders."""
    from torchvision import datasets

    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[experiment.source]
    for root in data_folders():
        if (root / dataset.base_folder).is_dir():
            return _cifar_files(dataset, root)
        if (root / experiment.source / "train").is_dir():
            parts = (root / experiment.source / part for part in ("train", "test"))
            found = _split_folders(experiment, root / experiment.source, *parts)
            return found._replace(root=None)  # the published cut is a matter of the seed alone
    _download(lambda root: dataset(root, download=True), dataset.__name__, dataset.url)
    return _cifar_files(dataset, data_folders()[0])


def _cifar_files(dataset: Any, root: Path) -> Sources:
    try:
        splits = [dataset(root, train=train) for train in (True, False)]
    except Exception as error:  # torchvision's own checks, or pickle's on a damaged file
        folder = root / dataset.base_folder
        _check_sound(folder, error)
        raise DataError(
            f"The files in {folder} are damaged or incomplete ({error}): delete that folder, "
            f"then fetch {dataset.url} again."
        ) from error

    def source(split: Any) -> Source:
        images = split.data.transpose(0, 3, 1, 2)  # (N, 3, 32, 32)

        def read(rows, size):
            return _resize(images[rows], size), np.ones(len(rows), bool)

        return Source(np.array(split.targets, np.int64), np.arange(len(images)), read)

    return Sources(list(splits[0].classes), source(splits[0]), source(splits[1]))


def _check_sound(folder: Path, error: Exception) -> None:
    """Raise DataError where the files may be sound, and cannot be read now."""
    if unread(error):
        raise DataError(f"{folder} cannot be read now ({error}): fix that first.") from error


def stanford_cars(experiment: Experiment) -> Sources:
    """Stanford Cars (Krause et al. 2013), in torchvision's layout. It has to be fetched by hand."""
    from torchvision.datasets import StanfordCars

    folder = _found("stanford_cars")
    if folder is None:
        raise DataError(
            f"Stanford Cars is not in {_searched()}, and its publisher no longer offers a "
            f"download: fetch a copy and unpack it as stanford_cars/ with {CARS_FILES}."
        )
    try:
        splits = [StanfordCars(folder.parent, split=split) for split in ("train", "test")]
    except Exception as error:
        _check_sound(folder, error)
        raise DataError(
            f"{folder} is damaged or incomplete ({error}). It needs {CARS_FILES}."
        ) from error
    files = [[(Path(f), c) for f, c in s._samples] for s in splits]
    missing = next((f for f, _ in (*files[0], *files[1]) if not f.is_file()), None)
    if missing:
        raise DataError(f"{folder} is incomplete: {missing.relative_to(folder)} is missing.")
    train, test = (_files(experiment, folder, some) for some in files)
    sizes = tuple(len(some) for some in files)
    remark = "" if sizes == CARS_IMAGES else (
        f"These are not all files of Stanford Cars: {sizes[0]:,} training and {sizes[1]:,} test "
        f"images, where the publisher has {CARS_IMAGES[0]:,} and {CARS_IMAGES[1]:,}. Accuracies "
        f"on them are not comparable with published ones."
    )  # fmt: skip
    return Sources(splits[0].classes, train, test, root=folder, remark=remark)


def caltech(experiment: Experiment) -> Sources:
    """Caltech-256 (Griffin et al. 2007); 20 test images a class.

    The clutter class is left out of caltech256-lt and kept in caltech257-lt. As in torchvision,
    the .jpg files of a class folder count, and not what lies in folders below it.
    """
    from torchvision.datasets import Caltech256

    place = "caltech256/256_ObjectCategories"
    folder = _found(place)
    if folder is None:
        _download(
            lambda root: Caltech256(root, download=True),
            "Caltech-256",
            "256_ObjectCategories.tar from https://data.caltech.edu/records/nyy15-4j048",
        )
        folder = _found(place)
    if folder is None:
        raise DataError(f"Caltech-256 has no folder 256_ObjectCategories in {_searched()}.")
    everything = [(f, sorted(f.glob("[!.]*.jpg"))) for f in class_folders(folder)]
    kept = class_folders(folder, skip=CLUTTER if experiment.source == "caltech256" else "\0")
    names = [f.name.partition(".")[2] or f.name for f in kept]
    files = [(file, kept.index(f)) for f, own in everything if f in kept for file in own]
    images = sum(len(own) for _, own in everything)
    remark = "" if (images, len(everything)) == (CALTECH_IMAGES, CALTECH_FOLDERS) else (
        f"These are not the files of Caltech-256: {images:,} images in {len(everything)} folders, "
        f"where the publisher has {CALTECH_IMAGES:,} in {CALTECH_FOLDERS}. Accuracies on them are "
        f"not accuracies on Caltech-256."
    )  # fmt: skip
    return Sources(names, _files(experiment, folder, files), None, 20, folder, remark)


def folder(experiment: Experiment) -> Sources:
    """The user's own class folders: train/ and test/, or one folder that is split."""
    path = Path(experiment.folder or "").expanduser()
    if not path.is_dir():
        raise DataError(f"There is no folder {path}: give one that holds one folder per class.")
    if parts := split_folders(path):
        others = [f.name for f in class_folders(path) if f not in parts.values()]
        if others:
            print(
                f"{printable(path)} has train/ and test/: what else it holds is left out "
                f"({printable(', '.join(others[:5]))})."
            )
        return _split_folders(experiment, path, **parts)
    names, files = class_files(path)
    return Sources(names, _files(experiment, path, files), None, root=path)


def _split_folders(experiment: Experiment, path: Path, train: Path, test: Path) -> Sources:
    names, train_files = class_files(train)
    test_names, test_files = class_files(test)
    if names != test_names:
        odd = sorted(set(names) ^ set(test_names))
        raise DataError(
            f"{printable(path)}: train/ and test/ have different class folders: "
            f"{', '.join(odd[:5])}{' …' if len(odd) > 5 else ''}."
        )
    check_apart([*class_folders(train), *class_folders(test)])
    pool, held_out = (_files(experiment, path, some) for some in (train_files, test_files))
    return Sources(names, pool, held_out, root=path)


def _files(experiment: Experiment, root: Path, files: list[tuple[Path, int]]) -> Source:
    """A source of image files below `root`.

    Where every file is named by its place in the publisher's order, that place is its id.
    """
    stems = [f.stem for f, _ in files if not experiment.folder]
    if stems and all(map(str.isdecimal, stems)) and set(map(int, stems)) == set(range(len(stems))):
        files = sorted(files, key=lambda item: int(item[0].stem))
        ids = np.arange(len(files))
    else:
        ids = np.array([f.relative_to(root).as_posix() for f, _ in files])

    def read(rows, size):
        store = image_store(experiment, root, size)
        return store.read([files[row][0] for row in rows])

    return Source(np.array([label for _, label in files], np.int64), ids, read)


def image_store(experiment: Experiment, root: Path, size: int) -> ImageStore:
    """Where the images below `root` are kept decoded: one place for all cuts of them.

    Two folders of one name may hold files alike in name, size and time: each has its own place.
    """
    place = root.resolve()
    name = re.sub(r"[^\w.-]+", "-", place.name) or "images"
    if experiment.folder:
        name = f"folder-{name}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"
    return ImageStore(root, f"{name}-{size}px", size)


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (N, 3, H, W) → uint8 (N, 3, size, size), bilinear."""
    if images.shape[-1] == size:
        return np.ascontiguousarray(images)
    import torch
    from torchvision.transforms.v2.functional import resize

    return resize(torch.from_numpy(images), [size, size], antialias=True).numpy()


def _download(download: Callable[[Path], object], name: str, where: str) -> None:
    root = data_folders()[0]
    # torchvision 0.29 unpacks without a filter, so an archive could write outside the folder
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        root.mkdir(parents=True, exist_ok=True)
        download(root)
    except Exception as error:  # no network, a full disk, a server that has moved
        raise DataError(
            f"{name} is not in {_searched()} and could not be downloaded ({error}): fetch {where} "
            f"and unpack it in {root}."
        ) from error


def _found(place: str) -> Path | None:
    """The folder of that name below the first data folder that has it."""
    folders = (root / place for root in data_folders())
    return next((folder for folder in folders if folder.is_dir()), None)


def _searched() -> str:
    return " or ".join(str(folder) for folder in data_folders())


SOURCES = {
    "digits": digits,
    "cifar10": cifar,
    "cifar100": cifar,
    "stanford_cars": stanford_cars,
    "caltech256": caltech,
    "caltech257": caltech,  # with the clutter class
    "folder": folder,
}
