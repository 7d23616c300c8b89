"""Thumbnails as buttons: one ToggleButtons widget whose buttons get pictures by a style sheet.

A widget for each thumbnail would take seconds to appear; these can be reached by the keyboard, and
their captions are text.
"""

import base64
from itertools import chain, count

from .classifier import ModelPair
from .gallery import Picture
from .images import enlarged, png_bytes

SIDE = 62  # pixels
LONGEST = 22  # letters of a caption


def captions(pictures: list[Picture], pair: ModelPair) -> tuple[list[str], list[str]]:
    """Captions, all different, and tooltips of the pictures."""
    texts: list[str] = []
    tooltips = []
    for picture in pictures:
        text, tooltip = _caption(picture, pair)
        numbered = chain([text], (f"{text} ({n})" for n in count(2)))
        texts.append(next(t for t in numbered if t not in texts))  # buttons are told apart by it
        tooltips.append(tooltip)
    return texts, tooltips


def _caption(picture: Picture, pair: ModelPair) -> tuple[str, str]:
    name = picture.name if len(picture.name) <= LONGEST else f"{picture.name[: LONGEST - 1]}…"
    if picture.error:
        return f"⚠ {name}", picture.error
    if picture.true_class is None:
        return name, picture.credit or picture.name
    count, group = pair.any_classifier().shots(picture.true_class)
    tooltip = f"{picture.name}: true class {picture.true_class}, {count:,} training images"
    # so that a line ends before "many-shot", not in it
    return f"{picture.true_class[:LONGEST]} {group}\N{NON-BREAKING HYPHEN}shot", tooltip


def style(pictures: list[Picture], gallery: str) -> str:
    """The style sheet that puts the pictures on the buttons of `gallery`, a CSS selector."""
    rules = []
    for i, picture in enumerate(pictures, 1):
        if picture.preview:
            small = png_bytes(enlarged(picture.preview, SIDE))
            content = base64.b64encode(small).decode()
            rules.append(
                f"{gallery} button:nth-of-type({i}) "
                f"{{ background-image: url(data:image/png;base64,{content}); }}"
            )
    return f"<style>{''.join(rules)}</style>"
