"""Numbers drawn over a picture, patch by patch, quickly enough for a click."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .images import enlarged

ABOVE, BELOW = (240, 130, 20), (40, 110, 230)  # orange and blue: told apart by nearly everybody
STRONGEST = 0.7  # opacity of the largest value


def overlay(
    image: Image.Image,
    values: np.ndarray,
    low: float,
    middle: float,
    high: float,
    sign: str = "+",
    side: int = 224,
) -> Image.Image:
    """The square picture in grey, with a tinted cell and a number for each patch.

    Parameters
    ----------
    image : square, any size
    values : (G, G), row by row
    low, middle, high : the scale; `middle` has no tint, `high` is orange, `low` is blue
    sign : "+" writes the sign of positive numbers, too; "" does not
    side : of the result, in pixels

    >>> overlay(Image.new("RGB", (32, 32)), np.array([[0.0, 1.0], [-1.0, 0.0]]), -1, 0, 1).size
    (224, 224)
    """
    picture = enlarged(image.convert("L").convert("RGB"), side)
    tints = Image.fromarray(_tints(values, low, middle, high))
    tints = tints.resize(picture.size, Image.Resampling.NEAREST)
    picture.paste(tints, mask=tints.getchannel("A"))
    draw, cell = ImageDraw.Draw(picture), side / len(values)
    font = ImageFont.load_default(cell / 3.6)
    for (row, column), value in np.ndenumerate(values):
        draw.text(
            ((column + 0.5) * cell, (row + 0.5) * cell), f"{value:{sign}.2f}", "white", font,
            anchor="mm", stroke_width=2, stroke_fill="black",
        )  # fmt: skip
    return picture


def _tints(values: np.ndarray, low: float, middle: float, high: float) -> np.ndarray:
    """Colour and opacity of each value, uint8 (G, G, 4)."""
    above = values >= middle
    reach = np.where(above, high - middle, middle - low)
    strength = np.abs(values - middle) / np.maximum(reach, 1e-9)
    colours = np.where(above[..., None], ABOVE, BELOW)
    opacity = 255 * STRONGEST * np.clip(strength, 0, 1)
    return np.concatenate([colours, opacity[..., None]], -1).round().astype(np.uint8)
