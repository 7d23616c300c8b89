"""Sliders: live where a kernel runs, a still figure where none does."""

import base64
import io

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from ltkd.notebooks import WIDGET, without_widgets
from ltkd.sliders import Explorer
from ltkd.style import figure

CALLS = []


@figure
def line(slope=2, kind="solid"):
    """A line <of> some slope."""
    CALLS.append((slope, kind))
    fig, ax = plt.subplots(figsize=(1, 1))
    ax.plot([0, 1], [0, slope])
    return fig


@pytest.fixture
def explorer() -> Explorer:
    CALLS.clear()
    return Explorer(line, slope=[1, 2, 3], kind=["solid", "dashed"])


def test_the_still_figure_has_the_default_arguments(explorer):
    bundle = explorer._repr_mimebundle_()
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert picture.format == "PNG" and picture.width > 50
    assert set(CALLS) == {(2, "solid")}
    assert bundle["text/plain"].startswith("<Sliders over slope, kind")
    assert WIDGET in bundle


def test_saved_output_has_the_figure_alone(explorer):
    bundle = explorer._repr_mimebundle_()
    saved = without_widgets([{"output_type": "execute_result", "data": bundle}])
    assert set(saved[0]["data"]) == {"text/plain", "image/png"}
    panel = without_widgets([{"data": {WIDGET: {}, "text/plain": "VBox()"}}])
    assert list(panel[0]["data"]) == ["text/plain"] and "VBox" not in str(panel)
    plain = [{"output_type": "stream", "text": "1"}]
    assert without_widgets(plain) == plain


def test_moving_a_slider_draws_anew(explorer):
    slope, kind, picture = explorer.widget().children
    before = picture.value
    slope.value, kind.value = 3, "dashed"
    assert CALLS[-1] == (3, "dashed") and picture.value != before
    assert 'alt="A line &lt;of&gt; some slope."' in picture.value
    assert "script" not in picture.value


def test_a_start_that_cannot_be_chosen_is_named():
    with pytest.raises(ValueError, match="slope starts at 2"):
        Explorer(line, slope=[1, 3])
