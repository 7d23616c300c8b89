"""Timing: jobs called in turn, their median and spread, images that are only noise, tables."""

import time
from collections.abc import Callable, Mapping

import numpy as np

from . import datasets
from .estimates import synchronise
from .files import progress


def alternate(jobs: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of every job, called in turn again and again; the first call of each is not timed.

    >>> {name: len(times) for name, times in alternate({"a": int, "b": int}, 3).items()}
    {'a': 3, 'b': 3}
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repetition in progress(range(-1, repetitions), desc="repetitions"):
        for name, job in jobs.items():
            synchronise()
            begin = time.perf_counter()
            job()
            synchronise()
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def spread(values: list[float]) -> float:
    """Half the distance between the quartiles."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low) / 2


def synthetic(images: int, classes: int = 100) -> datasets.LongTailedData:
    """Random images of 32 × 32 with a long tail and no empty class, for timings only."""
    random = np.random.default_rng(0)
    tail = random.geometric(min(0.5, 4 / classes), images) % classes
    labels = np.concatenate([np.arange(classes), tail])[:images].astype(np.int64)
    pixels = random.integers(0, 256, (images, 3, 32, 32), np.uint8)
    some = datasets.Split(pixels[:100], labels[:100], np.arange(100))
    names = [str(label) for label in range(classes)]
    train = datasets.Split(pixels, labels, np.arange(images))
    return datasets.LongTailedData("synthetic", names, train, some, some)


def print_table(rows: list[dict]) -> None:
    """Print rows of plain values under their names."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([_shown(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
