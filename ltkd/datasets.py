"""Built data sets: cut, read and saved once, in one file."""

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .experiments import DATA_TAGS, Experiment
from .files import progress, write_atomically
from .longtail import class_groups, cut, head_classes, long_tailed_counts, sample_per_class
from .sources import DataError, Source, fingerprint, load_sources

# The totals of the published cut (Cao et al. 2019); a build that misses them is wrong.
PUBLISHED_TOTALS = {
    ("cifar100", 10): 19_573,
    ("cifar100", 50): 12_608,
    ("cifar100", 100): 10_847,
    ("cifar10", 10): 20_431,
    ("cifar10", 50): 13_996,
    ("cifar10", 100): 12_406,
}


class Split(NamedTuple):
    images: np.ndarray  # uint8 (N, 3, H, W)
    labels: np.ndarray  # int64 (N,)
    sources: np.ndarray  # (N,) place in the publisher's order, or file name


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LongTailedData:
    """A built data set: three splits, and what the training counts say about the classes."""

    name: str
    class_names: list[str]
    train: Split
    validation: Split
    test: Split

    @cached_property
    def counts(self) -> np.ndarray:
        """Training images per class, int64 (C,)."""
        return np.bincount(self.train.labels, minlength=len(self.class_names))

    @property
    def head(self) -> np.ndarray:
        return head_classes(self.counts)

    @property
    def groups(self) -> dict[str, np.ndarray]:
        return class_groups(self.counts)


def build(experiment: Experiment) -> LongTailedData:
    """Return the experiment's data, built once and then read from data/built/<name>.npz.

    Raises DataError where the data are missing or damaged, OSError where nothing can be written.
    """
    if experiment.built_file.exists():
        data = _load(experiment)
        if data is not None:
            return data
    data = _cut_and_read(experiment)
    if data.counts.min() < 1:
        empty = ", ".join(np.array(data.class_names)[data.counts < 1])
        raise DataError(f"No training image could be read of {empty}: replace the damaged files.")
    _save(experiment, data)
    return data


def _cut_and_read(experiment: Experiment) -> LongTailedData:
    names, train, test, test_per_class = load_sources(experiment)
    seed, labels = experiment.split_seed, train.labels
    rows = np.arange(len(labels))
    if test is None:
        held_out = _hold_out(names, labels, test_per_class, seed)
        rows = np.setdiff1d(rows, held_out)
    available = np.bincount(labels[rows], minlength=len(names))
    counts = long_tailed_counts(available, experiment.profile, experiment.imbalance_factor)
    kept = rows[cut(labels[rows], counts, seed)]
    total = PUBLISHED_TOTALS.get((experiment.source, experiment.imbalance_factor))
    if total and experiment.profile == "exponential" and len(kept) != total:
        raise DataError(
            f"The cut has {len(kept)} images where the published one has {total}: "
            f"the files of {experiment.source} are incomplete."
        )
    unused = np.setdiff1d(rows, kept)
    if not len(unused):  # the natural profile, say: larger classes give up a tenth
        unused = _spare(labels, kept, counts)
    validation = sample_per_class(labels, unused, experiment.validation, seed=0)
    kept = kept[~np.isin(kept, validation)]
    size = experiment.image_size
    return LongTailedData(
        experiment.data_name,
        list(names),
        _read(train, kept, size),
        _read(train, validation, size),
        _read(train, held_out, size)
        if test is None
        else _read(test, np.arange(len(test.ids)), size),
    )


def _spare(labels: np.ndarray, kept: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For validation: a tenth of the rows, at least one, of each class that can spare it.

    Those are the classes of 5 images or more; where there are none, the (first) largest.
    """
    if counts.max() < 2:
        raise DataError("Every class has a single training image, so none is left for validation.")
    large = counts >= 5 if counts.max() >= 5 else np.arange(len(counts)) == counts.argmax()
    large = kept[large[labels[kept]]]
    return sample_per_class(labels, large, 0.1, seed=0, at_least=1)


def _hold_out(names, labels: np.ndarray, per_class: int | float, seed: int) -> np.ndarray:
    """The test rows of a data set that has no official ones, fixed before the cut."""
    sizes = np.bincount(labels, minlength=len(names))
    needed = int(per_class) + 1 if per_class >= 1 else 4
    if sizes.min() < needed:
        few = [f"{names[c]} ({sizes[c]})" for c in np.flatnonzero(sizes < needed)]
        raise DataError(
            f"Every class needs at least {needed} images, some to train and some to test; too few "
            f"in {', '.join(few[:5])}{' …' if len(few) > 5 else ''}: add images, or remove or "
            f"merge these classes."
        )
    return sample_per_class(labels, np.arange(len(labels)), per_class, seed, at_least=2)


def _read(source: Source, rows: np.ndarray, size: int) -> Split:
    images, readable = source.read(rows, size)
    if not readable.all():
        print(f"{(~readable).sum()} of {len(rows)} images could not be read and are left out.")
    return Split(images[readable], source.labels[rows][readable], source.ids[rows][readable])


def _save(experiment: Experiment, data: LongTailedData) -> None:
    arrays = {
        f"{split}_{field}": array
        for split in SPLITS
        for field, array in getattr(data, split)._asdict().items()
    }
    arrays |= {"class_names": np.array(data.class_names), "counts": data.counts}
    arrays["identity"] = np.array(json.dumps(_identity(experiment)))

    def write(file):
        # np.savez would do, but LZMA saves a fourth of photographs where zlib saves a tenth
        with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_array(member, array, f"packing {name}")

    write_atomically(experiment.built_file, write)


def _write_array(file, array: np.ndarray, title: str) -> None:
    """NumPy's own format, written in pieces under a progress bar."""
    header = np.lib.format.header_data_from_array_1_0(np.asarray(array, order="C"))
    np.lib.format.write_array_header_1_0(file, header)
    pieces = np.array_split(array, max(1, array.nbytes // 2**20)) if array.ndim else [array]
    for piece in progress(pieces, desc=title, unit=" MB"):
        file.write(piece.tobytes())


def _load(experiment: Experiment) -> LongTailedData | None:
    """Read the built file, or return None (and say so) where it has to be built again."""
    path = experiment.built_file
    try:
        with np.load(path, allow_pickle=False) as archive:  # reads check the archive's checksums
            arrays = {name: archive[name] for name in archive.files}
        splits = [Split(*(arrays[f"{s}_{f}"] for f in Split._fields)) for s in SPLITS]
        data = LongTailedData(experiment.data_name, arrays["class_names"].tolist(), *splits)
        sound = np.array_equal(data.counts, arrays["counts"])
        stored, wanted = json.loads(str(arrays["identity"])), _identity(experiment)
        same = all(stored.get(key) == value for key, value in wanted.items())
    except Exception as error:  # any damage at all: the file can be made again
        print(f"{path} is damaged ({type(error).__name__}); it is built again.")
        return None
    if not (sound and same):
        print(f"{path} does not fit this experiment; it is built again.")
        return None
    return data


def _identity(experiment: Experiment) -> dict:
    """What the built file was made from; of a folder also which files it held."""
    folder = Path(experiment.folder) if experiment.folder else None
    files = {"files": fingerprint(folder)} if folder and folder.is_dir() else {}
    return files | {f: getattr(experiment, f) for f in (*DATA_TAGS, "source", "folder")}
