"""The ablation as two grids: every recipe by teacher, and four recipes by what is mixed."""

from collections.abc import Iterable

import numpy as np

from .ablation import ALONE, MIXED, row_name
from .mixing import MIXES
from .objectives import RECIPES

# The teachers of ablation.teachers, as they are called in a row and in a grid.
TEACHERS = {
    "a Balanced Softmax teacher": "Balanced Softmax",
    "a cross-entropy teacher": "cross-entropy",
    "a wider teacher": "wider",
}
Grid = dict[str, dict[str, np.ndarray]]  # line → column → accuracies over seeds


def by_teacher(rows: dict[str, np.ndarray]) -> Grid:
    """Recipe → teacher → accuracies over seeds; a row that is not measured has none.

    `rows` is name of the row → accuracies over seeds, (S,). What no teacher is asked for is the
    same in every column. Recipes without any measured row are left out.

    >>> by_teacher({"none": np.array([40.0]), "kd, a wider teacher": np.array([41.0])})["kd"]
    {'Balanced Softmax': array([], dtype=float64), 'cross-entropy': array([], dtype=float64), \
'wider': array([41.])}
    """
    return _measured(
        (recipe, {short: _row(rows, recipe, name) for name, short in TEACHERS.items()})
        for recipe in (ALONE, *RECIPES)
    )


def by_mixing(rows: dict[str, np.ndarray]) -> Grid:
    """Recipe and teacher → mixing → accuracies over seeds; otherwise like `by_teacher`.

    "none" stands here once; the patches that "tail_patches" pastes for it are chosen by the first
    teacher.
    """
    lines = [("none", "none", next(iter(TEACHERS)))]
    lines += [
        (f"{r}, {short}", r, t) for t, short in TEACHERS.items() for r in MIXED if r != "none"
    ]
    return _measured(
        (line, {mix: _row(rows, recipe, teacher, mix) for mix in MIXES})
        for line, recipe, teacher in lines
    )


def _row(rows: dict[str, np.ndarray], recipe: str, teacher: str, mix: str = "none") -> np.ndarray:
    return rows.get(row_name(recipe, teacher, mix), np.array([]))


def _measured(lines: Iterable[tuple[str, dict[str, np.ndarray]]]) -> Grid:
    return {line: cells for line, cells in lines if any(map(len, cells.values()))}
