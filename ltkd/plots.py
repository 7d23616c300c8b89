"""The figures of data, training and benchmarks, as matplotlib figures in style.py's look."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .datasets import LongTailedData
from .longtail import class_groups, largest_first, spread
from .style import (
    COLOURS,
    HATCHES,
    figure,
    shortened,
    show_grid,
    show_image,
    show_weights,
    shown_name,
)


@figure
def class_counts(counts: np.ndarray, class_names: list[str], title: str = "") -> Figure:
    """Training images per class, (C,), largest first, with the groups and the head/tail border."""
    order, groups = largest_first(counts), class_groups(counts)
    fig, ax = plt.subplots(figsize=(9, 3.2))
    bars = ax.bar(range(len(order)), counts[order], width=0.9)
    paint(bars, counts, order)
    heads, top = int(groups["head"].sum()), 1.24 * counts.max()
    ax.axvline(heads - 0.5, color="black", linestyle=":")
    ax.annotate("head ", (heads - 0.5, top), ha="right", va="top")
    if heads < len(order):
        ax.annotate(" tail", (heads - 0.5, top), ha="left", va="top")
    if len(order) <= 20:
        ax.bar_label(bars, fontsize=8)
    _name_classes(ax, [shown_name(class_names[c]) for c in order])
    handles = [
        Patch(facecolor=COLOURS[g], hatch=HATCHES[g], edgecolor="white", label=f"{g}-shot")
        for g in COLOURS
        if groups[g].any()
    ]
    fig.legend(handles=handles, frameon=False, ncols=3, loc="outside upper right")
    ax.set_title(title or "Training images per class", loc="left")
    ax.set(ylabel="images", ylim=(0, top))
    return fig


@figure
def examples(data: LongTailedData, columns: int = 10) -> Figure:
    """One training image of each class, at most `columns` classes, largest first."""
    chosen = spread(largest_first(data.counts), columns)
    fig, axes = plt.subplots(1, len(chosen), figsize=(9, 1.7), squeeze=False)
    for ax, label in zip(axes[0], chosen, strict=True):
        title = f"{shortened(data.class_names[label], 10)}\n{data.counts[label]}"
        show_image(ax, data.train.images[np.flatnonzero(data.train.labels == label)[0]], title)
    fig.suptitle("One training image per class, and how many the class has", fontsize=10)
    return fig


@figure
def training_curves(histories: dict[str, list[dict[str, float]]]) -> Figure:
    """Mean loss terms per epoch, one panel per model."""
    fig, axes = plt.subplots(
        1, len(histories), figsize=(4.5 * len(histories), 3), squeeze=False, sharex=True
    )
    for ax, (name, history) in zip(axes[0], histories.items(), strict=True):
        for i, term in enumerate(history[0]):
            look = {"linestyle": ("-", "--", "-.", ":")[i % 4], "linewidth": 1.8 if i < 4 else 0.8}
            look |= {"marker": "o"} if len(history) == 1 else {}  # one epoch makes no line
            ax.plot(range(1, len(history) + 1), [e[term] for e in history], label=term, **look)
        ax.set(title=name, xlabel="epoch", ylabel="loss term, with its factor", yscale="log")
        ax.legend(frameon=False, fontsize=8)
    return fig


@figure
def image_grid(images: np.ndarray, titles: list[str], columns: int = 8, title: str = "") -> Figure:
    """Images uint8 (N, 3, H, W) with a title each; the last row may have empty places."""
    rows = -(-max(1, len(images)) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(1.15 * columns + 0.2, 1.6 * rows + 0.2), squeeze=False
    )
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, text in zip(axes.flat, images, titles, strict=False):
        show_image(ax, image, fill(shortened(text, 40), 18, break_long_words=False))
    fig.suptitle(title, fontsize=10)
    return fig


@figure
def patch_weights(
    images: np.ndarray,
    weights: np.ndarray,
    titles: list[str],
    label: str = "patch weight",
    top: float = 2.0,
) -> Figure:
    """Images (N, 3, H, W) above their patch weights (N, G, G); 1 is the weight of an even share.

    The colours reach to the largest weight, and at least to `top`.
    """
    fig, axes = plt.subplots(2, len(images), figsize=(1.4 * len(images) + 0.8, 3.4), squeeze=False)
    top = max(top, float(weights.max()))
    for i, (image, weight, title) in enumerate(zip(images, weights, titles, strict=True)):
        show_image(axes[0, i], image, title)
        show_grid(axes[0, i], image.shape[-1], len(weight))
        shown = show_weights(axes[1, i], image, weight, top)
    fig.colorbar(shown, ax=axes[1, :], shrink=0.8, label=label)
    return fig


@figure
def growth(rows: list[dict]) -> Figure:
    """Seconds of an epoch and peak memory against images, classes and patches (benchmark growth).

    A dotted line grows in proportion.
    """
    usual = {"images": 10_000, "classes": 100, "patches": 16}
    fig, axes = plt.subplots(2, 3, figsize=(9, 5), sharex="col", sharey="row")
    for column, varied in enumerate(usual):
        others = [name for name in usual if name != varied]
        some = [r for r in rows if r["images"] and all(r[n] == usual[n] for n in others)]
        some.sort(key=lambda row: row[varied])
        sizes = np.array([row[varied] for row in some])
        for ax, quantity in zip(axes[:, column], ("seconds", "peak MiB"), strict=True):
            values = np.array([row[quantity] for row in some])
            ax.loglog(sizes, values, "o-")
            ax.loglog(sizes, values[-1] * sizes / sizes[-1], ":", color="grey")
        ax.set_xlabel(varied)
    axes[0, 0].set_ylabel("seconds an epoch")
    axes[1, 0].set_ylabel("peak memory, MiB")
    return fig


def paint(bars: BarContainer, counts: np.ndarray, order: np.ndarray) -> None:
    """Give the bars of the classes `order` the colours and hatches of their groups."""
    groups = class_groups(counts)
    for bar, label in zip(bars, order, strict=True):
        group = next(g for g in COLOURS if groups[g][label])
        tall = counts[label] > 0.03 * counts.max()  # a hatch would hide the colour of a low bar
        bar.set(facecolor=COLOURS[group], edgecolor="white", linewidth=0)
        bar.set_hatch(HATCHES[group] if tall else "")


def _name_classes(ax: Axes, names: list[str]) -> None:
    if len(names) <= 20:
        ax.set_xticks(range(len(names)), names, rotation=30 if max(map(len, names)) > 3 else 0)
        ax.set_xlabel("class, largest first")
    else:
        ax.set_xlabel(f"{len(names)} classes, largest first")
