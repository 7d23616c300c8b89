"""Splits that ship with the project: the chosen file names in data/splits/, one file per cut.

Stanford Cars and Caltech-256 have no long-tailed cut that all agree on. So the names are written
down, and whoever has the publisher's files has the same images in each split.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from .class_folders import DataError
from .experiments import Experiment
from .files import shown, write_atomically
from .naming import CUT_TAGS
from .places import PROJECT, home
from .provenance import command

HEADER = """\
# {name}: imbalance factor {factor:g}, split seed {seed}
# {counts}
# One line per class: split, class, file names. Made by: {command}
"""


def split_file(experiment: Experiment) -> Path:
    """data/splits/<name>.tsv: where the experiment's split is written."""
    return home() / "data" / "splits" / f"{experiment.split_name}.tsv"


def find_split(experiment: Experiment) -> Path | None:
    """The experiment's split file: the user's own or the one that ships, None where none is."""
    shipped = PROJECT / "data" / "splits" / f"{experiment.split_name}.tsv"
    return next((f for f in (split_file(experiment), shipped) if f.is_file()), None)


def write_split(
    path: Path,
    experiment: Experiment,
    class_names: Sequence[str],
    splits: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write labels (N,) and file names (N,) of the splits, class by class.

    A name may hold no tab: none of the two publishers' does. Raises FileExistsError where the file
    holds another split, which others may use.
    """
    counts = _counts({split: len(names) for split, (_, names) in splits.items()})
    header = HEADER.format(
        name=experiment.base,
        factor=experiment.imbalance_factor,
        seed=experiment.split_seed,
        counts=counts,
        command=split_command(experiment),
    )
    lines = [
        "\t".join([split, class_name, *names[labels == label]])
        for split, (labels, names) in splits.items()
        for label, class_name in enumerate(class_names)
        if (labels == label).any()
    ]
    text = header + "\n".join(lines) + "\n"
    if path.exists() and _chosen(path.read_text("utf-8")) != _chosen(text):
        raise FileExistsError(
            f"{shown(path)} holds another split, which others may use: move it away first."
        )
    write_atomically(path, lambda file: file.write(text.encode()))


def _chosen(text: str) -> list[str]:
    """The lines of a split file that name its images."""
    return [line for line in text.splitlines() if not line.startswith("#")]


def read_split(path: Path, ids: np.ndarray, root: Path) -> dict[str, np.ndarray]:
    """The rows of each split among `ids`, the names (N,) of the files below `root`.

    Raises DataError that names the first file that is missing, or where the file is damaged.
    """
    rows = {str(name): row for row, name in enumerate(ids)}
    none = np.empty(0, np.int64)
    found = {"train": none, "validation": none}
    lines = path.read_text("utf-8", errors="replace").splitlines()
    for line in lines:
        if line.startswith("#") or not line:
            continue
        split, *named = line.split("\t")
        if split not in ("train", "validation", "test") or len(named) < 2:
            raise DataError(f"{shown(path)} is damaged at {line[:40]!r}: fetch it again.")
        missing = [name for name in named[1:] if name not in rows]
        if missing:
            raise DataError(
                f"{shown(path)} does not fit the files in {root}: {missing[0]} is missing. Fetch "
                f"the complete data set, or choose another split seed, for which the files at "
                f"hand are cut anew (--split-seed 1)."
            )
        own = np.array([rows[name] for name in named[1:]], np.int64)
        found[split] = np.concatenate([found.get(split, none), own])
    held = _counts({split: len(own) for split, own in found.items()})
    if f"# {held}" not in lines:
        raise DataError(
            f"{shown(path)} is damaged: it names {held}, which is not what its head says: fetch it "
            f"again."
        )
    return found


def _counts(sizes: dict[str, int]) -> str:
    return ", ".join(f"{size:,} {split} images" for split, size in sizes.items())


def split_command(experiment: Experiment) -> str:
    """The command that writes the split file again.

    >>> split_command(Experiment.choose("stanford-cars-lt", imbalance_factor=50))
    'python -m ltkd split stanford-cars-lt --imbalance-factor 50'
    """
    cut = {field: getattr(experiment, field) for field in CUT_TAGS}
    return command(replace(experiment.default(), **cut), ("split",))
