"""One style for every figure. Groups and models differ by more than colour, so grey print works."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from .longtail import GROUPS

PALETTE = sns.color_palette("colorblind")
COLOURS = dict(zip(GROUPS, PALETTE[:3], strict=True))
HATCH = ("", "//", "..", "xx")
HATCHES = dict(zip(GROUPS, HATCH, strict=False))
# Colours themselves, not names like "C3": those are looked up when the figure is saved.
ROLE_STYLES = {"Teacher": (PALETTE[0], "o", "--"), "Student": (PALETTE[3], "s", "-")}
OTHER_STYLE = (PALETTE[7], "^", ":")
# For class names in letters that matplotlib's own font lacks, where one of these is installed.
FONTS = ("Noto Sans CJK SC", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "Malgun Gothic",
         "Apple SD Gothic Neo", "Noto Sans Devanagari", "Nirmala UI", "Kohinoor Devanagari",
         "Noto Sans Thai", "Leelawadee UI", "Thonburi")  # fmt: skip
INSTALLED = sorted(set(FONTS) & set(get_font_names()), key=FONTS.index)
warnings.filterwarnings("ignore", "Glyph .* missing from font")  # else a box is drawn: no more ado


def figure(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the project's style; close the figure, so that a notebook shows it once."""

    @wraps(draw)
    def styled(*args: Any, **options: Any) -> Figure:
        style = sns.axes_style("ticks", {"axes.spines.top": False, "axes.spines.right": False})
        style |= sns.plotting_context("notebook", font_scale=0.9)
        style |= {"axes.prop_cycle": plt.cycler(color=PALETTE), "figure.dpi": 100}
        style["font.family"] = ["sans-serif", *INSTALLED]
        with plt.rc_context(style):
            result = draw(*args, **options)
            result.set_layout_engine("constrained")
            plt.close(result)
        return result

    return styled


def mean_deviation(values: np.ndarray) -> str:
    """Accuracies over seeds, (S,), as mean ± standard deviation; the mean alone of one seed.

    >>> [mean_deviation(np.array(v)) for v in ([40.0, 42.0], [40.0], [np.nan], [])]
    ['41.0 ± 1.4', '40.0', '–', '']
    """
    if not len(values):
        return ""
    if np.isnan(values).any():
        return "–"
    deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{deviation}"


def shortened(name: str, longest: int) -> str:
    """A name cut to so many letters."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def shown_name(name: str, longest: int = 24) -> str:
    """The same for a figure, where what stands between two dollars is no formula."""
    return shortened(name, longest).replace("$", r"\$")


def plain_numbers(ax: Axes) -> None:
    """A logarithmic x axis with 1, 2, 5, 10 … in place of powers of ten."""
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def show_image(ax: Axes, image: np.ndarray, title: str = "") -> None:
    """One image, uint8 (3, H, W), without axes."""
    ax.imshow(image.transpose(1, 2, 0))
    ax.axis("off")
    ax.set_title("\n".join(shown_name(line, 40) for line in title.split("\n")), fontsize=8)


def show_grid(ax: Axes, side: int, parts: int) -> None:
    """White lines between the parts × parts patches of an image of `side` pixels."""
    for place in np.arange(1, parts) * side / parts - 0.5:
        ax.axhline(place, color="white", linewidth=0.8)
        ax.axvline(place, color="white", linewidth=0.8)


def show_weights(ax: Axes, image: np.ndarray, weights: np.ndarray, top: float) -> AxesImage:
    """An image (3, H, W) under its patch weights (G, G), as colours and as numbers."""
    side, cell = image.shape[-1], image.shape[-1] / len(weights)
    show_image(ax, image)
    show_grid(ax, side, len(weights))
    shown = ax.imshow(
        weights, extent=(-0.5, side - 0.5, side - 0.5, -0.5), cmap="cividis",
        vmin=0, vmax=top, alpha=0.75,
    )  # fmt: skip
    outline = [patheffects.withStroke(linewidth=1.5, foreground="black")]
    for (row, column), value in np.ndenumerate(weights):
        place = (column + 0.5) * cell - 0.5, (row + 0.5) * cell - 0.5
        ax.text(*place, f"{value:.1f}", ha="center", va="center", fontsize=7, color="white",
                path_effects=outline)  # fmt: skip
    return shown
