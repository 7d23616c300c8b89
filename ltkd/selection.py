"""Which images go where: the held-out test images, the long-tailed cut, the validation images."""

from pathlib import Path

import numpy as np

from .class_folders import DataError
from .experiments import Experiment
from .longtail import cut, long_tailed_counts, sample_per_class
from .mapped import MappedImages
from .sources import Source, Sources, load_sources
from .splits import split_file, write_split

# The totals of the published cut (Cao et al. 2019); a build that misses them is wrong.
PUBLISHED_TOTALS: dict[tuple[str, float], int] = {
    ("cifar100", 10): 19_573,
    ("cifar100", 50): 12_608,
    ("cifar100", 100): 10_847,
    ("cifar10", 10): 20_431,
    ("cifar10", 50): 13_996,
    ("cifar10", 100): 12_406,
}

OTHERS = "other classes"  # the name of merged ones


def choose_rows(experiment: Experiment, sources: Sources) -> dict[str, np.ndarray]:
    """The rows of the training pool that go to each split; the test rows are fixed first."""
    names, train, test = sources[:3]
    seed, labels = experiment.split_seed, train.labels
    rows, chosen = np.arange(len(labels)), {}
    if test is None:
        chosen["test"] = _hold_out(names, labels, sources.test_per_class, seed)
        rows = np.setdiff1d(rows, chosen["test"])
    available = np.bincount(labels[rows], minlength=len(names))
    check_counts(names, available)
    counts = long_tailed_counts(available, experiment.profile, experiment.imbalance_factor)
    kept = rows[cut(labels[rows], counts, seed)]
    total = PUBLISHED_TOTALS.get((experiment.source, experiment.imbalance_factor))
    if total and experiment.profile == "exponential" and len(kept) != total:
        raise DataError(
            f"The cut has {len(kept)} images where the published one has {total}: "
            f"the files of {experiment.source} are incomplete."
        )
    unused = np.setdiff1d(rows, kept)
    if 2 * len(np.unique(labels[unused])) < len(names):  # the natural profile, say
        unused = np.union1d(unused, _spare(labels, kept, counts))
    validation = sample_per_class(labels, unused, experiment.validation, seed=0)
    kept = kept[~np.isin(kept, validation)]
    return {"train": kept, "validation": validation} | chosen


def check_counts(class_names: list[str], counts: np.ndarray) -> None:
    """Raise DataError, naming them, where classes have no training image."""
    if not np.all(counts):
        empty = ", ".join(np.array(class_names)[counts == 0])
        raise DataError(f"No training image could be read of {empty}: replace the damaged files.")


def save_split(experiment: Experiment) -> Path:
    """Cut the files at hand and write their names to data/splits/; return the file."""
    sources = load_sources(experiment)
    if sources.root is None or experiment.folder:
        raise ValueError(
            f"The cut of {experiment.base} follows from its seed alone: only the names of Stanford "
            f"Cars and Caltech-256 are written down."
        )
    labels, ids = sources.train[:2]
    splits = {split: (labels[r], ids[r]) for split, r in choose_rows(experiment, sources).items()}
    if sources.remark:
        print(sources.remark)
    write_split(split_file(experiment), experiment, sources.class_names, splits)
    return split_file(experiment)


def readable_sources(sources: Sources, size: int) -> Sources:
    """The sources without their broken images, so that these take no place in a split."""

    def sound(source: Source) -> Source:
        everything = np.arange(len(source.ids))
        images, readable = source.read(everything, size)
        assert isinstance(images, MappedImages)  # as those of a folder are
        count_broken(readable)
        rows = everything[readable]

        def read(chosen, _):
            return images.where(rows[chosen]), np.ones(len(chosen), bool)

        return Source(source.labels[rows], source.ids[rows], read)

    test = sources.test and sound(sources.test)
    return sources._replace(train=sound(sources.train), test=test)


def merged(sources: Sources, below: int) -> Sources:
    """The sources with all classes of fewer than `below` training images made into one."""
    names, train, test = sources[:3]
    small = np.bincount(train.labels, minlength=len(names)) < below
    if small.sum() < 2:
        if below:
            print(f"Fewer than two classes have fewer than {below} images: nothing is merged.")
        return sources
    kept = [name for name, s in zip(names, small, strict=True) if not s]
    others = OTHERS if OTHERS not in kept else f"{OTHERS} (merged)"
    kept.append(others)
    if len(kept) < 2:
        raise DataError(f"All classes have fewer than {below} images: merge fewer of them.")
    label = np.where(small, len(kept) - 1, np.cumsum(~small) - 1)
    print(f"{small.sum()} classes of fewer than {below} images are one class now, “{others}”.")
    return sources._replace(
        class_names=kept,
        train=train._replace(labels=label[train.labels]),
        test=test and test._replace(labels=label[test.labels]),
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


def _hold_out(
    names: list[str], labels: np.ndarray, per_class: int | float, seed: int
) -> np.ndarray:
    """The test rows of a data set that has no official ones, fixed before the cut."""
    sizes = np.bincount(labels, minlength=len(names))
    needed = int(per_class) + 1 if per_class >= 1 else 4
    if sizes.min() < needed:
        few = [f"{names[c]} ({sizes[c]})" for c in np.flatnonzero(sizes < needed)]
        raise DataError(
            f"Every class needs at least {needed} images, some to train and some to test; too few "
            f"in {', '.join(few[:5])}{' …' if len(few) > 5 else ''}: add images, remove these "
            f"classes{_merge_hint(np.sort(sizes), needed)}."
        )
    return sample_per_class(labels, np.arange(len(labels)), per_class, seed, at_least=2)


def _merge_hint(sizes: np.ndarray, needed: int) -> str:
    """How the smallest classes, `sizes` in rising order, can be merged into one of `needed`."""
    together = np.cumsum(sizes)
    for below in np.unique(sizes + 1):
        number = (sizes < below).sum()
        if 2 <= number < len(sizes) and together[number - 1] >= needed <= sizes[number]:
            return f", or make one class of the {number} smallest (--merge-below {below})"
    return ""


def count_broken(readable: np.ndarray) -> None:
    if not readable.all():
        print(f"{(~readable).sum()} of {len(readable)} images could not be read and are left out.")
