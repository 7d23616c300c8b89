"""Where the images come from: each source finds its files and reads the rows it is asked for.

A source knows every label without decoding an image, so the cut comes first and only the chosen
images are decoded.
"""

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .experiments import Experiment, home
from .files import progress
from .images import ImageError, read_image

CARS_FILES = "cars_train/, cars_test/, devkit/ and cars_test_annos_withlabels.mat"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class DataError(Exception):
    """The data are missing, damaged or unfit; the message says what to do."""


class Source(NamedTuple):
    """One pool of labelled images, not yet decoded.

    read(rows, size) returns images uint8 (n, 3, size, size) and readable bool (n,).
    """

    labels: np.ndarray  # int64 (N,)
    ids: np.ndarray  # (N,) place in the publisher's order, or file name
    read: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


class Sources(NamedTuple):
    """What a data set offers. Where `test` is None, `test_per_class` images are held out."""

    class_names: list[str]
    train: Source
    test: Source | None
    test_per_class: int | float = 0.2  # a number of images, or a share of each class


def data_folders() -> list[Path]:
    """The folders that are searched for data: LTKD_DATA where it is set, then data/."""
    given = os.environ.get("LTKD_DATA")
    return ([Path(given).expanduser()] if given else []) + [home() / "data"]


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
            return _split_folders(root / experiment.source)
    _download(lambda root: dataset(root, download=True), dataset.__name__, dataset.url)
    return _cifar_files(dataset, data_folders()[0])


def _cifar_files(dataset, root: Path) -> Sources:
    try:
        splits = [dataset(root, train=train) for train in (True, False)]
    except Exception as error:  # torchvision's own checks, or pickle's on a damaged file
        folder = root / dataset.base_folder
        raise DataError(
            f"The files in {folder} are damaged or incomplete ({error}): delete that folder, "
            f"then fetch {dataset.url} again."
        ) from error

    def source(split) -> Source:
        images = split.data.transpose(0, 3, 1, 2)  # (N, 3, 32, 32)

        def read(rows, size):
            return _resize(images[rows], size), np.ones(len(rows), bool)

        return Source(np.array(split.targets, np.int64), np.arange(len(images)), read)

    return Sources(list(splits[0].classes), source(splits[0]), source(splits[1]))


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
        raise DataError(
            f"{folder} is damaged or incomplete ({error}). It needs {CARS_FILES}."
        ) from error
    train, test = ([(Path(f), c) for f, c in s._samples] for s in splits)
    return Sources(splits[0].classes, _files(folder, train), _files(folder, test))


def caltech256(experiment: Experiment) -> Sources:
    """Caltech-256 (Griffin et al. 2007) without its clutter class; 20 test images a class."""
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
    names, train = _class_folders(folder, skip="clutter")
    return Sources([name.partition(".")[2] or name for name in names], train, None, 20)


def folder(experiment: Experiment) -> Sources:
    """The user's own class folders: train/ and test/, or one folder that is split."""
    path = Path(experiment.folder or "").expanduser()
    if not path.is_dir():
        raise DataError(f"There is no folder {path}: give one that holds one folder per class.")
    if (path / "train").is_dir() and (path / "test").is_dir():
        return _split_folders(path)
    return Sources(*_class_folders(path), None)


def _split_folders(path: Path) -> Sources:
    names, train = _class_folders(path / "train")
    test_names, test = _class_folders(path / "test")
    if names != test_names:
        odd = sorted(set(names) ^ set(test_names))
        raise DataError(f"{path}: train/ and test/ have different class folders: {', '.join(odd)}.")
    return Sources(names, train, test)


def _class_folders(path: Path, skip: str = "\0") -> tuple[list[str], Source]:
    """One class per folder, in alphabetical order; images anywhere below it.

    Where every file is named by its place in the publisher's order, that place is its id.
    """
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    folders = [f for f in folders if skip not in f.name]
    if len(folders) < 2:
        raise DataError(f"{path} holds {len(folders)} class folders; at least 2 are needed.")
    files = []
    for label, class_folder in enumerate(folders):
        found = sorted(
            f
            for f in class_folder.rglob("*")
            if f.suffix.lower() in SUFFIXES and f.is_file() and not f.name.startswith(".")
        )
        if not found:
            raise DataError(
                f"The class folder {class_folder} holds no image ({', '.join(sorted(SUFFIXES))}): "
                f"add some, or remove the folder."
            )
        files += [(f, label) for f in found]
    return [f.name for f in folders], _files(path, files)


def _files(folder: Path, files: list[tuple[Path, int]]) -> Source:
    """A source of image files. Unreadable ones are named in a warning and left out."""
    stems = [f.stem for f, _ in files]
    if all(s.isdecimal() for s in stems) and {int(s) for s in stems} == set(range(len(stems))):
        files = sorted(files, key=lambda item: int(item[0].stem))
        ids = np.arange(len(files))
    else:
        ids = np.array([f.relative_to(folder).as_posix() for f, _ in files])

    def read(rows, size):
        images = np.zeros((len(rows), 3, size, size), np.uint8)
        readable = np.ones(len(rows), bool)
        for i, row in enumerate(progress(rows, desc="reading images", unit=" images")):
            try:
                images[i] = _square(files[row][0], size)
            except (ImageError, OSError) as error:
                readable[i] = False
                warnings.warn(f"{files[row][0]} is left out: {error}", stacklevel=2)
        return images, readable

    return Source(np.array([label for _, label in files], np.int64), ids, read)


def fingerprint(folder: Path) -> str:
    """A short text that changes when image files are added, removed or changed in size."""
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    listing = "\n".join(f"{f.relative_to(folder).as_posix()} {f.stat().st_size}" for f in files)
    return hashlib.sha256(listing.encode()).hexdigest()[:16]


def _square(path: Path, size: int) -> np.ndarray:
    """Read one file as uint8 (3, size, size): resized to cover the square, centre cropped."""
    from PIL import ImageOps

    image = ImageOps.fit(read_image(path.read_bytes()), (size, size))
    return np.asarray(image).transpose(2, 0, 1)


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (N, 3, H, W) → uint8 (N, 3, size, size), bilinear."""
    if images.shape[-1] == size:
        return np.ascontiguousarray(images)
    import torch
    from torchvision.transforms.v2.functional import resize

    return resize(torch.from_numpy(images), [size, size], antialias=True).numpy()


def _download(download: Callable[[Path], object], name: str, where: str) -> None:
    root = data_folders()[0]
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
    "caltech256": caltech256,
    "folder": folder,
}
