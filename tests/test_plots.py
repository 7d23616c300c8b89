"""The figures take any class names; what they show is looked at by eye, in the notebooks."""

import io

import numpy as np
import pytest
import torch

from ltkd import lessons, plots, score_plots

NAMES = ["$x^{ and $", "鳄鱼 تمساح 🐘", f"a name that is {40 * 'very '}long", "_under", "100 %"]

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # as style.py asks for


def drawn(figure) -> list[str]:
    """The texts of a figure that can be saved without a warning."""
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return [text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))]


def test_names_are_no_formulas_and_are_cut_where_they_are_long():
    counts = np.array([50, 20, 9, 4, 2])
    said = drawn(plots.class_counts(counts, NAMES))
    assert r"\$x^{ and \$" in said and "a name that is very ver…" in said and "_under" in said
    scores = {"Teacher": {"confusion": np.eye(5).tolist()}}
    assert r"\$x^{ and \$" in drawn(score_plots.confusion(scores, NAMES, counts))
    pictures = np.zeros((5, 3, 8, 8), np.uint8)
    assert r"\$x^{ and \$" in drawn(plots.image_grid(pictures, NAMES))
    logits, head = torch.arange(5.0), torch.tensor([True, True, False, False, False])
    assert r"\$x^{ and \$" in drawn(lessons.three_terms(logits, logits, head, NAMES))
