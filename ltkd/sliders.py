"""Sliders over a figure that also show it where no kernel runs."""

import base64
import html
import inspect
import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure


class Explorer:
    """A figure to play with: the last expression of a notebook cell.

    With a running kernel it is a row of sliders over the figure. In a saved notebook
    it is the figure drawn with the default arguments of `draw`.

    Parameters
    ----------
    draw : returns a figure; the first line of its docstring is the text for those who cannot see
        it, and its default arguments are where the sliders stand at first
    choices : for each argument the values that can be chosen: numbers for a slider, words for a
        list of choices

    Raises ValueError where a default is not among the values.

    >>> from ltkd.lessons import two_classes
    >>> Explorer(two_classes, ratio=[1, 10, 100])
    <Sliders over ratio; without a kernel the figure stands still>
    """

    def __init__(self, draw: Callable[..., Figure], **choices: Sequence):
        self.draw, self.choices = draw, choices
        self.alt = (inspect.getdoc(draw) or draw.__name__).partition("\n")[0]
        parameters = inspect.signature(draw).parameters
        self.start = {name: parameters[name].default for name in choices}
        for name, value in self.start.items():
            if value not in choices[name]:
                raise ValueError(f"{name} starts at {value!r}, which is not among its choices.")

    def __repr__(self) -> str:
        return f"<Sliders over {', '.join(self.choices)}; without a kernel the figure stands still>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict:
        still = {"text/plain": repr(self), "image/png": png(self.draw(**self.start))}
        return self.widget()._repr_mimebundle_() | still

    def widget(self) -> widgets.VBox:
        """The live form."""
        picture = widgets.HTML()
        controls = {name: _control(name, self) for name in self.choices}

        def redraw(change: object = None) -> None:
            figure = self.draw(**{name: control.value for name, control in controls.items()})
            picture.value = (
                f'<img alt="{html.escape(self.alt)}" style="max-width: 100%" '
                f'src="data:image/png;base64,{png(figure)}">'
            )

        for control in controls.values():
            control.observe(redraw, "value")
        redraw()
        return widgets.VBox([*controls.values(), picture])


def _control(name: str, explorer: Explorer) -> Any:
    values = explorer.choices[name]
    kind = widgets.Dropdown if isinstance(values[0], str) else widgets.SelectionSlider
    return kind(
        options=list(values),
        value=explorer.start[name],
        description=name.replace("_", " "),
        style={"description_width": "9em"},
        layout={"width": "32em", "max_width": "100%"},
        **({} if kind is widgets.Dropdown else {"continuous_update": False}),
    )


def png(figure: Figure) -> str:
    """A figure as base64 text of a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return base64.b64encode(file.getvalue()).decode()
