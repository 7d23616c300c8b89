"""A generated data set with a known answer: does the score of a patch find shared patches?

Every image is a 4 × 4 grid of tiles of coloured noise. A few belong to its class alone; the others
come from a pool that all classes, head and tail, draw from. It is a test of the method and never
real data.

Noise, since a tile must be seen to be known. Plain patterns can be told from their blurred colours,
which the neighbouring patches see as well: with them the weights find fewer of the shared tiles.
"""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from .datasets import LongTailedData, Split
from .longtail import long_tailed_counts

GRID, SIDE = 4, 8  # tiles a side, pixels of a tile


class Tiles(NamedTuple):
    """The data set, and the truth about its test images."""

    data: LongTailedData
    specific: np.ndarray  # bool (N, P): tiles of the test images that belong to one class alone


def tiles(
    classes: int = 10,
    largest: int = 120,
    imbalance_factor: float = 20,
    specific: int = 5,
    seed: int = 0,
) -> Tiles:
    """Generate a long-tailed data set of tiles, 32 × 32 pixels.

    Each class owns three tiles; the pool has twelve. An image holds `specific` tiles of its class,
    drawn with replacement, at random places, the others from the pool, and noise over all.

    >>> made = tiles(classes=3, largest=6, imbalance_factor=3)
    >>> made.data.counts.tolist(), made.specific.sum(1).tolist()[:2]
    ([6, 3, 2], [5, 5])
    """
    random = np.random.default_rng(seed)
    own = random.uniform(40, 215, (classes, 3, 3, SIDE, SIDE))
    pool = random.uniform(40, 215, (12, 3, SIDE, SIDE))
    counts = long_tailed_counts(np.full(classes, largest), "exponential", imbalance_factor)
    splits, masks = [], []
    for sizes in (counts, np.full(classes, 5), np.full(classes, 20)):
        labels = np.repeat(np.arange(classes), sizes)
        images, mask = _compose(random, own, pool, labels, specific)
        splits.append(Split(images, labels, np.arange(len(labels))))
        masks.append(mask)
    names = [f"tiles {label}" for label in range(classes)]
    train, validation, test = splits
    return Tiles(LongTailedData("tiles", names, train, validation, test), masks[-1])


def _compose(random, own, pool, labels, specific):
    """Images uint8 (N, 3, 32, 32) and which tiles belong to the class alone, bool (N, P)."""
    number, patches = len(labels), GRID**2
    mask = random.permuted(np.tile(np.arange(patches) < specific, (number, 1)), axis=1)
    chosen = pool[random.integers(len(pool), size=(number, patches))]
    mine = own[labels[:, None], random.integers(own.shape[1], size=(number, patches))]
    grid = np.where(mask[..., None, None, None], mine, chosen)  # (N, P, 3, SIDE, SIDE)
    grid = grid.reshape(number, GRID, GRID, 3, SIDE, SIDE).transpose(0, 3, 1, 4, 2, 5)
    images = grid.reshape(number, 3, GRID * SIDE, GRID * SIDE)
    noisy = images + random.normal(0, 12, images.shape)
    return noisy.clip(0, 255).astype(np.uint8), mask


def auroc(scores: np.ndarray, specific: np.ndarray) -> float:
    """How often a class's own tile has a larger score than a shared one: area under the ROC curve.

    Both (N, P), over all tiles of all images; 0.5 is chance, 1 is perfect.

    >>> auroc(np.array([[0.1, 0.9]]), np.array([[False, True]]))
    1.0
    """
    return float(roc_auc_score(specific.ravel(), scores.ravel()))
