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


def test_long_titles_of_small_images_are_wrapped():
    pictures, long = np.zeros((2, 3, 8, 8), np.uint8), "sweet_pepper, not aquarium_fish"
    said = drawn(plots.image_grid(pictures, [long, "8, not 0"]))
    assert "sweet_pepper, not\naquarium_fish" in said and "8, not 0" in said


def test_a_single_epoch_is_drawn_as_a_point():
    [line] = plots.training_curves({"Teacher": [{"class": 2.0}]}).axes[0].lines
    assert line.get_marker() == "o"
    [line] = plots.training_curves({"Teacher": [{"class": 2.0}, {"class": 1.0}]}).axes[0].lines
    assert line.get_marker() == "None"


def test_the_answers_over_many_classes_can_be_seen():
    """A white edge is as wide as one of a hundred bars."""
    for classes, white in ((10, True), (100, False)):
        logits, head = torch.arange(float(classes)), torch.arange(classes) < 3
        drawing = lessons.three_terms(logits, logits, head, list(map(str, range(classes))))
        edge = drawing.axes[0].containers[0][0].get_edgecolor()
        assert (edge == (1, 1, 1, 1)) == white


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
