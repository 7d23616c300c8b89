"""The pictures at the head of the notebooks and of the README, drawn from the models' results.

`make refresh` draws them anew; panel.png and panel-uploads.png are screenshots of the browser
test (tests/screenshots/).
"""

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from . import lessons, plots, score_plots
from .checkpoints import load_checkpoint
from .datasets import LongTailedData, build
from .evaluation import predict, scores
from .experiments import Experiment
from .files import write_atomically
from .longtail import largest_first
from .shipped import results
from .style import PALETTE, figure, plain_numbers, show_image, show_weights
from .supervision import distillation_loss


def save_all(folder: Path, experiment: Experiment) -> None:
    """Draw every picture into `folder`; teacher and results of `experiment` must be there."""
    data, summary = build(experiment), results(experiment.name)
    assert summary is not None
    pictures = {
        "01-data": long_tail(data),
        "02-teacher": lessons.moving_border(),
        "03-student": patches(experiment, data),
        "04-evaluation": score_plots.accuracy_by_class(scores(summary), data.counts),
        "how-it-works": diagram(),
    }
    for name, picture in pictures.items():
        write_atomically(folder / f"{name}.png", partial(picture.savefig, dpi=100))


@figure
def long_tail(data: LongTailedData, most: int = 10) -> Figure:
    """Training images of every class above their number: the head and its long tail."""
    order = largest_first(data.counts)[:most]
    fig, axes = plt.subplots(2, len(order), figsize=(9, 3.4), height_ratios=(3, 1))
    grid = axes[0, 0].get_gridspec()
    for ax in axes[0]:
        ax.remove()
    bars_ax = fig.add_subplot(grid[0, :])
    bars = bars_ax.bar(range(len(order)), data.counts[order], width=0.8)
    plots.paint(bars, data.counts, order)
    bars_ax.bar_label(bars)
    bars_ax.margins(y=0.12)
    bars_ax.set(xlim=(-0.5, len(order) - 0.5), xticks=[], ylabel="training images")
    bars_ax.set_title("A few classes have most of the images", loc="left")
    for ax, label in zip(axes[1], order, strict=True):
        show_image(ax, data.train.images[np.flatnonzero(data.train.labels == label)[0]])
    return fig


@figure
def patches(experiment: Experiment, data: LongTailedData) -> Figure:
    """Two images of the tail with their patch weights, and the silent tail beside them."""
    teacher, _ = load_checkpoint(experiment.model_file("teacher"), len(data.class_names))
    loss = distillation_loss(experiment, data, teacher)
    present = np.unique(data.validation.labels)
    rows = [np.flatnonzero(data.validation.labels == c)[0] for c in (present[4], present[-2])]
    images = data.validation.images[rows]
    weights = loss.patch_weights(torch.from_numpy(predict(teacher, images, patches=True))).numpy()
    side = round(weights.shape[1] ** 0.5)
    fig, axes = plt.subplots(1, 3, figsize=(9, 3), width_ratios=(2, 2, 3))
    for ax, image, weight in zip(axes, images, weights.reshape(-1, side, side), strict=False):
        shown = show_weights(ax, image, weight, max(2.0, float(weights.max())))
    axes[0].set_title("where to listen:", loc="left", fontsize=10)
    fig.colorbar(shown, ax=axes[:2], shrink=0.7, label="patch weight")
    factors = np.unique(np.geomspace(2, 500, 60).round())
    axes[2].plot(factors, [lessons.tail_share(f) for f in factors], label="plain distillation")
    axes[2].axhline(1, color=PALETTE[3], linestyle="--", label=r"decoupled: $\beta_T$ is chosen")
    axes[2].set(xscale="log", ylim=(0, 1.1), xlabel="imbalance factor",
                ylabel="coefficient of the tail's term")  # fmt: skip
    plain_numbers(axes[2])
    axes[2].set_title("how loudly the tail speaks:", loc="left", fontsize=10)
    axes[2].legend(frameon=False, fontsize=8, loc="center right")
    return fig


BOXES = {
    "long-tailed\nimages": (0.0, 0.5),
    "Teacher\n(frozen)": (2.1, 1.0),
    "Student\n(trained)": (2.1, 0.0),
    "patch logits\n$z_p^T$": (4.2, 1.0),
    "patch logits\n$z_p^S$": (4.2, 0.0),
    "patch weights $w_p$:\nwhat tells classes apart": (6.9, 1.0),
    "head or tail?\nwhich head? which tail?": (6.9, 0.0),
    "loss": (9.2, 0.0),
}
ARROWS = ((0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (3, 6), (4, 6), (5, 6), (6, 7))


@figure
def diagram() -> Figure:
    """How the student learns: boxes and arrows."""
    fig, ax = plt.subplots(figsize=(10, 2.9))
    names, places = list(BOXES), list(BOXES.values())
    widths = [0.1 * max(map(len, name.replace("$", "").split("\n"))) + 0.3 for name in names]
    widths[3] = widths[4] = 1.6
    for name, (x, y), width in zip(names, places, widths, strict=True):
        ax.add_patch(FancyBboxPatch(
            (x - width / 2, y - 0.2), width, 0.4, boxstyle="round,pad=0.03", facecolor="white",
            edgecolor="black", linestyle="--" if "Teacher" in name else "-"))  # fmt: skip
        ax.text(x, y, name, ha="center", va="center", fontsize=9)
    for a, b in ARROWS:
        (xa, ya), (xb, yb) = places[a], places[b]
        if xa == xb:
            start, end = (xa, ya - 0.25), (xb, yb + 0.25)
        else:
            start, end = (xa + widths[a] / 2 + 0.05, ya), (xb - widths[b] / 2 - 0.06, yb)
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "black"})
    ax.text(9.2, -0.3, "+ Balanced Softmax\non the labels", ha="center", va="top", fontsize=8)
    ax.set(xlim=(-1.0, 10.2), ylim=(-0.8, 1.35))
    ax.axis("off")
    return fig
