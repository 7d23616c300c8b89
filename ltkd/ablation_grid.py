"""The ablation as grids: every recipe by teacher, and four recipes by what is mixed.

In a cell stand accuracies over seeds, or what they are ahead of a control's by.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np

from .ablation_gains import gains_over_controls
from .ablation_rows import ALONE, BALANCED, BIASED, CONTROLS, MIXED, WIDER, row_name
from .mixing import MIXES
from .objectives import RECIPES

# How they are called in a row and, shorter, in a grid.
TEACHERS = {
    name: name.removeprefix("a ").removesuffix(" teacher") for name in (BALANCED, BIASED, WIDER)
}
COMPARED = [(recipe, control) for recipe, controls in CONTROLS.items() for control in controls]
Grid = dict[str, dict[str, np.ndarray]]  # line → column → accuracies over seeds
Gains = dict[str, dict[str, tuple[float, float] | None]]  # mean and standard error, in points


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


def gains_by_teacher(values: dict[str, dict[int, float]]) -> Gains:
    """Recipe and control → teacher → the gain and its standard error; None if not measured.

    `values` are accuracies by row and seed. Comparisons never measured are left out.

    >>> values = {"kd, a wider teacher": {0: 41.0, 1: 43.0}, "none": {0: 40.0, 1: 40.0}}
    >>> gains_by_teacher(values)
    {'kd over none': {'Balanced Softmax': None, 'cross-entropy': None, 'wider': (2.0, 1.0)}}
    """
    return _measured(
        (
            f"{recipe} over {control}",
            {short: _gain(values, recipe, control, name) for name, short in TEACHERS.items()},
        )
        for recipe, control in COMPARED
    )


def gains_by_mixing(values: dict[str, dict[int, float]]) -> Gains:
    """Recipe, control and teacher → mixing → the gain; otherwise like `gains_by_teacher`."""
    compared = [pair for pair in COMPARED if set(pair) <= set(MIXED)]
    return _measured(
        (
            f"{recipe} over {control}, {short}",
            {mix: _gain(values, recipe, control, name, mix) for mix in MIXES if mix != "none"},
        )
        for (recipe, control), (name, short) in product(compared, TEACHERS.items())
    )


def _gain(
    values: dict[str, dict[int, float]], recipe: str, control: str, teacher: str, mix: str = "none"
) -> tuple[float, float] | None:
    row = row_name(recipe, teacher, mix)
    gains = gains_over_controls(values, row) if row in values else {}
    return gains.get(row_name(control, teacher, mix))


def _measured(lines: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The lines of which one cell at least is measured, neither None nor empty."""
    return {
        line: cells
        for line, cells in lines
        if any(cell is not None and len(cell) for cell in cells.values())
    }
