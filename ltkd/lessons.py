"""The figures that explain: the two-class toy, the silent tail, three terms, selective weights.

Each has default arguments, so that sliders.Explorer can move them.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import Tensor
from torch.nn import functional as F

from .distillation import chain_rule
from .longtail import head_classes, long_tailed_counts
from .style import HATCH, PALETTE, figure, plain_numbers, show_image, show_weights, shown_name

LINES = ("-", "--", ":")


def toy_points(ratio: float, frequent: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) and labels (N,) of two classes, `ratio` times as many of class 0.

    Both are normal with variance 1 in every direction; class 0 lies around (−1, 0), class 1 around
    (1, 0).

    >>> points, labels = toy_points(ratio=4, frequent=8)
    >>> np.bincount(labels).tolist()
    [8, 2]
    """
    random = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [frequent, max(1, round(frequent / ratio))])
    points = random.standard_normal((len(labels), 2))
    points[:, 0] += 2 * labels - 1
    return points, labels


def toy_border(ratio: float) -> float:
    """Where cross-entropy puts the border of `toy_points`: x = log(ratio) / 2.

    The log-odds of class 1 are 2x from the two normal densities, less log(ratio) from the prior.

    >>> toy_border(1)
    0.0
    """
    return float(np.log(ratio) / 2)


def toy_recalls(ratio: float) -> tuple[float, float]:
    """The shares of class 0 and class 1 that lie on their own side of `toy_border`.

    >>> [round(share, 3) for share in toy_recalls(1)]
    [0.841, 0.841]
    """
    border = toy_border(ratio)
    return float(norm.cdf(border + 1)), float(norm.cdf(1 - border))


@figure
def two_classes(ratio: int = 10) -> Figure:
    """Two classes of points: the rarer one is, the further cross-entropy pushes the border in."""
    fig, (plane, recalls) = plt.subplots(1, 2, figsize=(9, 3.3), width_ratios=(3, 2))
    _draw_toy(plane, ratio)
    fig.legend(*plane.get_legend_handles_labels(), frameon=False, fontsize=8, ncols=4,
               loc="outside lower left")  # fmt: skip
    ratios = np.geomspace(1, 300, 60)
    names = "frequent class", "rare class"
    for i, (values, name) in enumerate(zip(np.transpose([*map(toy_recalls, ratios)]), names,
                                           strict=True)):  # fmt: skip
        recalls.plot(ratios, 100 * values, LINES[i], color=PALETTE[3 * i], label=name)
    recalls.plot([ratio] * 2, [100 * r for r in toy_recalls(ratio)], "ko")
    recalls.axhline(100 * toy_recalls(1)[1], color="grey", linestyle=":", label="both, corrected")
    recalls.set(xscale="log", xlabel="frequent : rare", ylabel="found (recall), %", ylim=(0, 103))
    plain_numbers(recalls)
    recalls.legend(frameon=False, fontsize=8, loc="lower left")
    return fig


@figure
def moving_border(ratios: tuple[int, ...] = (1, 10, 100)) -> Figure:
    """The two-class toy at several ratios side by side."""
    fig, axes = plt.subplots(1, len(ratios), figsize=(9, 3.4), sharey=True)
    for ax, ratio in zip(axes, ratios, strict=True):
        _draw_toy(ax, ratio)
        ax.set_title(f"{ratio} : 1\n{100 * toy_recalls(ratio)[1]:.0f} % of the rare class found")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, frameon=False, ncols=4, loc="outside lower center")
    return fig


def _draw_toy(ax: Axes, ratio: float) -> None:
    points, labels = toy_points(ratio)
    for label, (name, marker) in enumerate((("frequent", "o"), ("rare", "^"))):
        own = points[labels == label]
        ax.scatter(own[:, 0], own[:, 1], s=14 + 22 * label, marker=marker, alpha=0.5 + 0.3 * label,
                   color=PALETTE[3 * label], edgecolor=("white", "black")[label], linewidth=0.4,
                   label=f"{name} class", zorder=2 + label)  # fmt: skip
    ax.axvline(toy_border(ratio), color="black", linestyle="--", label="border of cross-entropy")
    ax.axvline(0, color="black", linewidth=2.5, label="border after correction")
    ax.set(title=f"{ratio} : 1", xlabel="$x_1$", ylabel="$x_2$", xlim=(-4, 4), ylim=(-3.5, 3.5))


def tail_share(imbalance_factor: float, classes: int = 100, largest: int = 500) -> float:
    """The tail's share of the training images of the exponential profile, 0..1.

    >>> round(tail_share(100), 2)
    0.21
    """
    counts = long_tailed_counts(np.full(classes, largest), "exponential", imbalance_factor)
    return float(counts[~head_classes(counts)].sum() / counts.sum())


@figure
def silent_tail(imbalance_factor: int = 100) -> Figure:
    """The coefficient of the tail's term falls as the imbalance grows."""
    fig, ax = plt.subplots(figsize=(7, 3.3))
    factors = np.unique(np.geomspace(2, 500, 60).round())
    shares = np.array([tail_share(factor) for factor in factors])
    here = tail_share(imbalance_factor)
    says = {10: "tail, 10 : 1", 1: "nothing", 0.01: "head, 100 : 1"}
    for (evidence, words), line in zip(says.items(), LINES, strict=True):
        curve = [evidence * s / (evidence * s + 1 - s) for s in (shares, here)]
        drawn = ax.plot(factors, curve[0], line, label=f"the image says {words}")
        ax.plot(imbalance_factor, curve[1], "o", color=drawn[0].get_color())
        ax.annotate(f"{curve[1]:.2g}", (imbalance_factor, curve[1]), xytext=(4, 5),
                    textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set(xscale="log", yscale="log", ylim=(1e-3, 1.5), xlabel="imbalance factor",
           ylabel="$b_T^T$")  # fmt: skip
    plain_numbers(ax)
    ax.set_title("The coefficient of the tail's term, 100 classes", loc="left")
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0, 0.5))
    return fig


@figure
def three_terms(
    teacher: Tensor,
    student: Tensor,
    head: Tensor,
    class_names: list[str],
    temperature: float = 2.0,
    alpha: float = 1.0,
    beta_head: float = 1.0,
    beta_tail: float = 1.0,
) -> Figure:
    """One image: the softened answers of teacher and student, and the three terms of their KL.

    `teacher` and `student` are logits (C,), `head` bool (C,). The terms are drawn with the
    coefficients of plain distillation and with the chosen ones, without the factor T².
    """
    order = torch.argsort((~head).int(), stable=True)  # the head first
    fig, (answers, terms) = plt.subplots(1, 2, figsize=(9.5, 3.3), width_ratios=(3, 2))
    places, few = np.arange(len(order)), len(order) <= 20
    for i, (name, logits) in enumerate((("teacher", teacher), ("student", student))):
        probabilities = F.softmax(logits / temperature, -1)[order].numpy()
        # white edges would leave nothing of narrow bars
        look = {"hatch": HATCH[i], "edgecolor": "white"} if few else {"edgecolor": PALETTE[3 * i]}
        answers.bar(places + 0.4 * i - 0.2, probabilities, 0.38, label=name,
                    color=PALETTE[3 * i], **look)  # fmt: skip
    answers.axvline(int(head.sum()) - 0.5, color="black", linestyle=":")
    if few:
        answers.set_xticks(places, [shown_name(class_names[c]) for c in order])
    answers.set(title=f"Answers at T = {temperature:g}", ylabel="probability",
                xlabel="head classes | tail classes", ylim=(0, 1))  # fmt: skip
    answers.legend(frameon=False, fontsize=8)
    split = chain_rule(teacher, student, head, temperature)
    plain = split.group, split.head_mass * split.head, split.tail_mass * split.tail
    chosen = alpha * split.group, beta_head * split.head, beta_tail * split.tail
    for i, (name, values) in enumerate((("plain", plain), ("decoupled", chosen))):
        bars = terms.bar(np.arange(3) + 0.4 * i - 0.2, [v.item() for v in values], 0.38,
                         label=name, hatch=HATCH[2 * i], edgecolor="white",
                         color=PALETTE[7 - 5 * i])  # fmt: skip
        terms.bar_label(bars, fmt="%.3f", fontsize=7)
    terms.set_xticks(range(3), ["head or tail?", "which head?", "which tail?"])
    terms.set(title="The three terms", ylabel="nats")
    terms.margins(y=0.15)
    terms.legend(frameon=False, fontsize=8)
    return fig


def selective(weights: np.ndarray, power: float) -> np.ndarray:
    """Patch weights (…, P) raised to `power`, mean 1 again: 0 makes them uniform.

    As the power grows, all weight goes to the patch with the largest.

    >>> selective(np.array([0.5, 1.5]), power=0).tolist()
    [1.0, 1.0]
    """
    scaled = (weights / weights.max(-1, keepdims=True)) ** power
    return scaled / scaled.mean(-1, keepdims=True)


@figure
def selective_weights(image: np.ndarray, weights: np.ndarray, power: float = 1.0) -> Figure:
    """One image and its patch weights, from uniform (power 0) to fully selective.

    `image` is uint8 (3, H, W), `weights` (G, G).
    """
    chosen = selective(weights.ravel(), power)
    fig, (plain, over, ranked) = plt.subplots(1, 3, figsize=(9, 2.9), width_ratios=(2, 2, 3))
    show_image(plain, image, "the image")
    show_weights(over, image, chosen.reshape(weights.shape), max(2.0, chosen.max()))
    over.set_title(f"weights, power {power:g}", fontsize=8)
    ranked.bar(np.arange(1, chosen.size + 1), np.sort(chosen)[::-1], color=PALETTE[0])
    ranked.axhline(1, color="black", linestyle=":", linewidth=1)
    ranked.set_xticks([1, *range(4, chosen.size + 1, 4)])
    effective = chosen.sum() ** 2 / (chosen**2).sum()
    ranked.set(xlabel="patches, largest weight first", ylabel="weight",
               title=f"as good as {effective:.1f} equal patches")  # fmt: skip
    return fig
