"""The figures of results, as matplotlib figures in style.py's look."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.metrics import auc, roc_curve

from .longtail import largest_first
from .style import (
    HATCH,
    OTHER_STYLE,
    PALETTE,
    ROLE_STYLES,
    figure,
    plain_numbers,
    shown_name,
)


@figure
def accuracy_by_class(scores: dict[str, dict], counts: np.ndarray, of: str = "") -> Figure:
    """Per-class accuracy against the class's number of training images, one marker per class.

    `of` names the data set.
    """
    fig, ax = plt.subplots(figsize=(7, 3.4))
    order = largest_first(counts)
    for name, score in scores.items():
        colour, marker, line = ROLE_STYLES.get(name, OTHER_STYLE)
        values = np.array(score["per_class"], float)  # NaN of a class without test images
        ax.plot(
            np.asarray(counts)[order],
            values[order],
            marker,
            color=colour,
            markerfacecolor="none" if name == "Teacher" else colour,
            linestyle=line if len(order) <= 20 else "",
            alpha=0.75,
            label=f"{name} ({score['all']:.1f} overall)",
        )
    ax.set(
        xscale="log",
        xlabel="training images of the class",
        ylabel="test accuracy, %",
        title=_titled("Accuracy of every class", of),
        ylim=(-4, 104),
    )
    plain_numbers(ax)
    ax.invert_xaxis()
    ax.legend(frameon=False, loc="lower left")
    return fig


@figure
def accuracy_by_group(scores: dict[str, dict], groups: tuple[str, ...]) -> Figure:
    """Bars of accuracy: all images, then each group that has classes."""
    shown = [g for g in groups if next(iter(scores.values()))["groups"][g] is not None]
    fig, ax = plt.subplots(figsize=(8, 3.2))
    width = 0.84 / len(scores)
    for i, (name, score) in enumerate(scores.items()):
        values = [score["all"], *(score["groups"][g] for g in shown)]
        position = np.arange(len(values)) + (i - (len(scores) - 1) / 2) * width
        look = {"color": ROLE_STYLES.get(name, (PALETTE[i + 2],))[0], "hatch": HATCH[i % 4]}
        bars = ax.bar(position, values, width * 0.95, label=name, edgecolor="white", **look)
        ax.bar_label(bars, fmt="%.1f", fontsize=7)
    ax.set_xticks(range(len(shown) + 1), ["all", *shown])
    ax.set(ylabel="accuracy, %", ylim=(0, 110))
    ax.set_title("Accuracy by group", loc="left")
    ax.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return fig


@figure
def confusion(scores: dict[str, dict], class_names: list[str], counts: np.ndarray) -> Figure:
    """Confusion matrices side by side: rows are true classes, largest class first."""
    order = largest_first(counts)
    names = [shown_name(class_names[c]) for c in order]
    few = len(names) <= 20
    fig, axes = plt.subplots(1, len(scores), figsize=(4.5 * len(scores), 4.2), squeeze=False)
    for ax, (name, score) in zip(axes[0], scores.items(), strict=True):
        matrix = np.array(score["confusion"], float)[np.ix_(order, order)]
        matrix = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        sns.heatmap(
            matrix, ax=ax, cmap="rocket_r", vmin=0, vmax=100, square=True, cbar=False,
            annot=_percent(matrix) if len(names) <= 10 else None, fmt="",
            annot_kws={"fontsize": 8},
            xticklabels=names if few else False, yticklabels=names if few else False,
        )  # fmt: skip
        ax.set(title=f"{name}: % of each true class", xlabel="predicted", ylabel="true class")
        ax.tick_params("y", rotation=0)
    fig.colorbar(ax.collections[0], ax=axes, shrink=0.6, label="%")
    return fig


@figure
def reliability(curves: dict[str, dict], of: str = "") -> Figure:
    """Accuracy against confidence; below the diagonal a model claims more than it knows.

    `of` names the data set.
    """
    fig, ax = plt.subplots(figsize=(4.4, 3.8))
    ax.plot([0, 1], [0, 1], color="grey", linewidth=1, label="calibrated")
    for name, curve in curves.items():
        colour, marker, line = ROLE_STYLES.get(name, OTHER_STYLE)
        label = f"{name} (error {curve['error']:.3f})"
        ax.plot(
            *(np.array(curve[axis], float) for axis in ("confidence", "accuracy")),
            line,
            marker=marker,
            color=colour,
            label=label,
        )
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    ax.set_title(_titled("Reliability", of))
    ax.legend(frameon=False, loc="upper left", fontsize=8)
    return fig


@figure
def roc(scores: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """ROC curves: name → (scores, truth), both (N, P), over all patches of all images."""
    fig, ax = plt.subplots(figsize=(4.6, 3.8))
    ax.plot([0, 1], [0, 1], color="grey", linewidth=1, label="chance")
    for (name, (values, truth)), line in zip(scores.items(), ("-", "--", ":", "-."), strict=False):
        wrong, right, _ = roc_curve(truth.ravel(), values.ravel())
        ax.plot(wrong, right, line, label=f"{name} ({auc(wrong, right):.2f})")
    ax.set(xlabel="shared tiles above the threshold, share", title="Does the weight find them?",
           ylabel="own tiles above the threshold, share")  # fmt: skip
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return fig


def _titled(title: str, of: str) -> str:
    return f"{title}: {of}" if of else title


def _percent(matrix: np.ndarray) -> np.ndarray:
    """Whole numbers as text; what rounds to 0 is left empty."""
    return np.array([[f"{value:.0f}" if value >= 0.5 else "" for value in row] for row in matrix])
