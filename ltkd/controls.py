"""The panel's widgets and where they stand; what they do is in panel.py."""

from pathlib import Path

import ipywidgets as widgets

from .images import MAX_BYTES
from .uploader import Uploader

COMPARE = "Compare both"
MODELS = {
    "Teacher Model": ["teacher"],
    "Student Model": ["student"],
    COMPARE: ["teacher", "student"],
}
PREDEFINED, UPLOAD = "Predefined image", "Upload an image"
ALL, MENDED, FEW = "All", "Teacher wrong, Student right", "Few-shot classes"
LIMIT = f"{MAX_BYTES // 2**20} MiB"
TITLE = (
    "<h2>Image classifier</h2>Which class does a picture show? Ask a Teacher, which saw a few "
    "classes often and many rarely, and the Student that was distilled from it."
)
LOGO = Path(__file__).with_name("logo.svg")
STYLE = Path(__file__).with_name("panel.css").read_text("utf-8")


class Controls:
    """All widgets of the panel, under `root`.

    Parameters
    ----------
    folders : of model pairs, to choose from; the first is chosen

    >>> Controls([Path("saved_model/digits-lt")]).models.label
    'digits-lt'
    """

    def __init__(self, folders: list[Path]):
        self._make_choosers(folders)
        self._make_answers()
        self._arrange()

    def _make_choosers(self, folders: list[Path]) -> None:
        self.models = widgets.Dropdown(
            options=[(f.name, f) for f in folders], description="Trained on", layout=_wide()
        )
        self.about, self.note = widgets.HTML(), widgets.HTML()
        self.model = widgets.ToggleButtons(options=list(MODELS), layout=_wide())
        self.source = widgets.ToggleButtons(options=[PREDEFINED, UPLOAD], layout=_wide())
        self.filter = widgets.ToggleButtons(options=[ALL, MENDED, FEW], layout=_wide())
        self.upload = Uploader()
        # Their pictures are backgrounds, see thumbnails.py; `looks` holds the style sheet.
        self.thumbnails = widgets.ToggleButtons(layout=_wide())
        self.looks = widgets.HTML(layout=widgets.Layout(display="none"))
        self.thumbnails.add_class("ltkd-gallery")
        self.thumbnails.add_class(f"ltkd-{self.thumbnails.model_id}")

    def _make_answers(self) -> None:
        self.preview, self.result = widgets.HTML(), widgets.HTML()
        self.preview.add_class("ltkd-preview")
        self.classify = widgets.Button(
            description="Classify", button_style="primary", icon="search", disabled=True
        )
        self.example = widgets.Button(
            description=f"Example: {MENDED}", icon="magic", layout=widgets.Layout(width="auto")
        )
        self.chosen_class = widgets.Dropdown(description="Evidence for class", layout=_wide())
        self.chosen_class.style.description_width = "initial"
        self.evidence, self.table = widgets.HTML(), widgets.HTML()

    def _arrange(self) -> None:
        logo = widgets.Image(
            value=LOGO.read_bytes(),
            format="svg+xml",
            layout=widgets.Layout(width="132px", height="48px", flex="none"),
        )
        title = widgets.HTML(f"<style>{STYLE}</style>{TITLE}")
        title.layout = widgets.Layout(flex="1 1 300px")
        limit = widgets.HTML(
            f"One or several; PNG, JPEG, WebP, BMP, GIF or TIFF; up to {LIMIT} each. Nothing is "
            f"stored."
        )
        self.upload_row = _row(self.upload, limit)
        answer = widgets.VBox([_row(self.classify, self.example), self.result])
        answer.layout = widgets.Layout(flex="1 1 320px", max_width="100%")
        rows = [
            _row(logo, title),
            widgets.HTML("<h3>1. Choose the models</h3>"),
            _row(self.models, self.model), self.about,
            widgets.HTML("<h3>2. Choose an image</h3>"),
            _row(self.source, self.filter, self.upload_row), self.note, self.looks, self.thumbnails,
            widgets.HTML("<h3>3. See what the model says</h3>"),
            _row(self.preview, answer, align="flex-start"),
            self.chosen_class, self.evidence, self.table,
        ]  # fmt: skip
        layout = widgets.Layout(max_width="980px", padding="12px", grid_gap="4px")
        self.root = widgets.VBox(rows, layout=layout)
        self.root.add_class("ltkd-panel")


def _wide() -> widgets.Layout:
    return widgets.Layout(max_width="100%")


def _row(*children: widgets.Widget, align: str = "center") -> widgets.HBox:
    """Widgets side by side, below each other where there is no room."""
    layout = widgets.Layout(align_items=align, grid_gap="12px", flex_flow="row wrap")
    return widgets.HBox(children, layout=layout)
