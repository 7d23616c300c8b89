"""The long-tailed cut and the class groups: NumPy only, no files."""

import numpy as np

from .options import PROFILES, check_choice

GROUPS = ("many", "medium", "few")  # that results are reported for; see class_groups


def long_tailed_counts(
    available: np.ndarray, profile: str = "exponential", imbalance_factor: float = 100
) -> np.ndarray:
    """Return how many images each class keeps, int64 (C,).

    Classes are ranked by how many images they have, ties in their own order. With n_max the size
    of the largest class and i the rank,

        exponential   n_i = int(n_max · IF^(−i/(C−1)))
        step          n_max for the first half of the classes, int(n_max / IF) for the others
        natural       what the class has

    each capped by what the class has (Cao et al., LDAM-DRW, 2019, for equal classes).

    Raises ValueError for an unknown profile, and where a class would keep no image.

    >>> long_tailed_counts(np.array([500, 500, 500]), "exponential", 100)
    array([500,  50,   5])
    >>> long_tailed_counts(np.array([20, 500, 90, 60]), "step", 10)
    array([ 20, 500,  90,  50])
    """
    check_choice("profile", profile, PROFILES)
    available = np.asarray(available)
    classes, largest = len(available), int(available.max())
    if profile == "natural":
        wanted = np.sort(available)[::-1].tolist()
    elif profile == "step":
        wanted = [largest] * (classes // 2)
        wanted += [int(largest / imbalance_factor)] * (classes - classes // 2)
    else:
        # written as the published code writes it, so that int() cuts at the same place
        shrink = 1 / imbalance_factor
        wanted = [int(largest * shrink ** (i / max(classes - 1.0, 1))) for i in range(classes)]
    order = largest_first(available)
    counts = np.empty(classes, np.int64)
    counts[order] = np.minimum(wanted, available[order])
    if counts.min() < 1:
        raise ValueError(
            f"An imbalance factor of {imbalance_factor:g} leaves some classes no image, for the "
            f"largest class has {largest}: choose a smaller factor."
        )
    return counts


def cut(labels: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows that are kept, class by class, int64 (counts.sum(),).

    Each class's rows are shuffled in turn from one stream and the first n_i kept. For CIFAR this
    is the published cut index for index: hence NumPy's legacy generator, but a local one.

    >>> cut(np.array([0, 1, 0, 1, 0]), np.array([2, 1]), seed=0)
    array([4, 2, 1])
    """
    stream = np.random.RandomState(seed)
    kept = []
    for label, count in enumerate(counts):
        rows = np.flatnonzero(labels == label)
        stream.shuffle(rows)
        kept.append(rows[:count])
    return np.concatenate(kept)


def sample_per_class(
    labels: np.ndarray, rows: np.ndarray, per_class: int | float, seed: int, at_least: int = 0
) -> np.ndarray:
    """Draw up to `per_class` of `rows` from each class (a share of them, if below 1), sorted."""
    stream = np.random.default_rng(seed)
    drawn = []
    for label in np.unique(labels[rows]):
        own = rows[labels[rows] == label]
        number = per_class if per_class >= 1 else max(at_least, int(len(own) * per_class))
        drawn.append(stream.permutation(own)[: int(number)])
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


def largest_first(counts: np.ndarray) -> np.ndarray:
    """The classes by falling count, ties in their own order, (C,).

    >>> largest_first(np.array([5, 500, 5, 50]))
    array([1, 3, 0, 2])
    """
    return np.argsort(-np.asarray(counts), kind="stable")


def spread(values: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the values, evenly spaced, the first and the last among them.

    >>> spread(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    places = np.linspace(0, len(values) - 1, min(most, len(values)))
    return values[places.round().astype(int)]


def head_classes(counts: np.ndarray) -> np.ndarray:
    """The one rule for head and tail: a head class has at least the average count, bool (C,).

    On CIFAR-100-LT at IF 100 these are 33 classes of 100; on CIFAR-10-LT, 3 of 10.

    >>> head_classes(np.array([500, 50, 5]))
    array([ True, False, False])
    """
    return np.asarray(counts) >= np.mean(counts)


def class_groups(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The groups that results are reported for; each bool (C,).

    many / medium / few: more than 100, 20 to 100, fewer than 20 training images (Liu et al. 2019).
    head / tail: `head_classes`. top / middle / bottom: thirds of the classes by rank (3/4/3 of
    ten), for data sets whose counts leave one of the first three empty.
    """
    counts = np.asarray(counts)
    rank = np.empty(len(counts), int)
    rank[largest_first(counts)] = np.arange(len(counts))
    third, head = len(counts) // 3, head_classes(counts)
    return {
        "many": counts > 100,
        "medium": (counts >= 20) & (counts <= 100),
        "few": counts < 20,
        "head": head,
        "tail": ~head,
        "top": rank < third,
        "middle": (rank >= third) & (rank < len(counts) - third),
        "bottom": rank >= len(counts) - third,
    }
