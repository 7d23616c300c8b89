"""The figures of an ablation, as matplotlib figures in style.py's look; for its grids see
ablation_grid.py."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .ablation_grid import Gains, Grid
from .style import PALETTE, figure, mean_deviation

MARKERS = ("o", 0.25), ("s", 0.0), ("D", -0.25)  # of the teachers, and how far above their line


@figure
def accuracies(grids: dict[str, Grid]) -> Figure:
    """Mean and standard deviation over seeds, a line per recipe, a colour and marker per teacher.

    `grids` is group → recipe → teacher → accuracies over seeds. What is measured with one seed is
    left out. A dotted line stands at "none", which asks no teacher.
    """
    fig, axes = plt.subplots(1, len(grids), figsize=(9, 5.6), sharey=True, squeeze=False)
    for ax, (group, grid) in zip(axes[0], grids.items(), strict=True):
        for place, (recipe, cells) in enumerate(grid.items()):
            if recipe == "none":
                values = next(iter(cells.values()))
                _point(ax, values, place, fmt="X", color="grey")
                ax.axvline(values.mean(), color="grey", linestyle=":")
                continue
            for values, colour, (marker, up) in zip(cells.values(), PALETTE, MARKERS, strict=False):
                _point(ax, values, place - up, fmt=marker, color=colour)
        ax.grid(axis="y", linestyle=":", linewidth=0.6)
        shot = "" if group == "all" else "-shot"
        ax.set(title=f"{group}{shot} classes", xlabel="validation accuracy, %")
    lines, teachers = list(grid), list(next(iter(grid.values())))
    axes[0, 0].set_yticks(range(len(lines)), lines)
    axes[0, 0].set_ylim(len(lines) - 0.5, -0.5)
    for teacher, colour, (marker, _) in zip(teachers, PALETTE, MARKERS, strict=False):
        axes[0, -1].plot([], [], marker, color=colour, label=f"{teacher} teacher")
    axes[0, -1].legend(frameon=False, fontsize=8, loc="lower right")
    return fig


def _point(ax: Axes, values: np.ndarray, place: float, **look: Any) -> None:
    if len(values) > 1:
        error = values.std(ddof=1)
        ax.errorbar(values.mean(), place, xerr=error, capsize=3, markersize=4, **look)


@figure
def grids(found: dict[str, Grid], title: str) -> Figure:
    """Heat maps side by side, the mean over seeds in every cell, ± the standard deviation.

    `found` is title → line → column → accuracies over seeds, none where it was not measured.
    """
    means = [
        np.array([[v.mean() if len(v) else np.nan for v in cells.values()] for cells in g.values()])
        for g in found.values()
    ]
    low, high = np.nanmin(np.concatenate(means, None)), np.nanmax(np.concatenate(means, None))
    fig, axes = _side_by_side(found, title, height=5.4)
    for ax, grid, values in zip(axes, found.values(), means, strict=True):
        cells = [[mean_deviation(v) for v in line.values()] for line in grid.values()]
        _heat_map(ax, grid, values, cells, cmap="rocket_r", vmin=low, vmax=high)
    return fig


@figure
def gains(found: dict[str, Gains], title: str) -> Figure:
    """Heat maps side by side, mean ± standard error in every cell.

    `found` is title → comparison → column → gain and standard error, None where it was not
    measured. What is more than two standard errors from nothing is coloured, orange where the
    control is better; the more points, the darker.
    """
    fig, axes = _side_by_side(found, title, height=7)
    for ax, grid in zip(axes, found.values(), strict=True):
        colours = np.array([[_sure(c) for c in line.values()] for line in grid.values()])
        cells = [[_gain_and_error(c) for c in line.values()] for line in grid.values()]
        _heat_map(ax, grid, colours, cells, cmap="PuOr", vmin=-3, vmax=3, linecolor="lightgrey")
    return fig


def _sure(gain: tuple[float, float] | None) -> float:
    """The gain where it is more than two standard errors, else 0; NaN where there is none."""
    if gain is None:
        return np.nan
    return gain[0] if abs(gain[0]) > 2 * gain[1] else 0.0  # an error of NaN: one seed


def _gain_and_error(gain: tuple[float, float] | None) -> str:
    if gain is None:
        return ""
    error = "" if np.isnan(gain[1]) else f" ± {gain[1]:.1f}"
    return f"{gain[0]:+z.1f}{error}"


def _side_by_side(found: dict, title: str, height: float) -> tuple[Figure, list[Axes]]:
    """Axes for the grids, as wide as they have columns."""
    widths = [len(next(iter(grid.values()))) for grid in found.values()]
    fig, axes = plt.subplots(
        1, len(found), figsize=(10.5, height), width_ratios=widths, squeeze=False
    )
    fig.suptitle(title)
    for ax, name in zip(axes[0], found, strict=True):
        ax.set_title(name, fontsize=9)
    return fig, list(axes[0])


def _heat_map(ax: Axes, grid: dict, values: np.ndarray, cells: list, **look: Any) -> None:
    columns = [name.replace("_", "_\n").replace(" ", "\n") for name in next(iter(grid.values()))]
    lines = [name.replace(" over ", "\nover ") for name in grid]
    sns.heatmap(
        values, ax=ax, cbar=False, annot=np.array(cells), fmt="", annot_kws={"fontsize": 8},
        xticklabels=columns, yticklabels=lines, linewidths=0.5, **look,
    )  # fmt: skip
    ax.tick_params(labelsize=8, length=0)
    ax.tick_params("x", rotation=0)
    ax.tick_params("y", rotation=0)
