"""The classifier panel: a thin shell of widgets over classifier.py.

It sets `Image.value` and `HTML.value` and draws nothing into Output widgets, so it looks the same
in JupyterLab and in Voilà, and an error shows in the panel, not in a log.
"""

import html
from functools import partial
from pathlib import Path

import ipywidgets as widgets
from PIL import Image

from .checkpoints import CheckpointError
from .classifier import Classifier, Prediction
from .experiments import Experiment
from .files import shown
from .images import MAX_BYTES, ImageError, png_bytes, predefined_images, read_image

MODELS = {"Teacher Model": "teacher", "Student Model": "student"}
PREDEFINED, UPLOAD = "Predefined image", "Upload an image"
LIMIT = f"{MAX_BYTES // 2**20} MiB"
LOGO = Path(__file__).with_name("logo.svg")
# Colours are left to the theme; the chosen button differs in weight and by a line, too.
STYLE = """<style>
.ltkd-panel .ltkd-field label { text-align: left; margin-right: 0; }
.ltkd-panel .ltkd-field { display: flex; align-items: center; }
.ltkd-panel .ltkd-field .mod-active {
  font-weight: bold; box-shadow: inset 0 -3px var(--jp-brand-color1, #1976d2);
}
.ltkd-panel .widget-html-content { line-height: 1.5; overflow-wrap: anywhere; }
</style>"""


GAP = partial(widgets.Layout, grid_gap="12px")


class Panel:
    """Choose a model, choose or upload an image, see it, read the predicted class.

    Parameters
    ----------
    experiment : whose models are in saved_model/<name>/ and whose predefined images are in
        `experiment.image_folder`

    >>> Panel(Experiment.named("digits-lt")).show()  # doctest: +SKIP
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.classifiers: dict[str, Classifier] = {}
        self.image: Image.Image | None = None
        self._make_widgets()
        self._choose_image()

    def show(self) -> widgets.Widget:
        """The widget to display."""
        return self.root

    def _make_widgets(self) -> None:
        style = {"description_width": "90px"}
        wide = style | {"button_width": "168px"}
        self.model = widgets.ToggleButtons(options=list(MODELS), description="Model", style=wide)
        self.source = widgets.ToggleButtons(
            options=[PREDEFINED, UPLOAD], description="Image from", style=wide
        )
        files = predefined_images(self.experiment.image_folder)
        self.predefined = widgets.Dropdown(
            options=[(file.stem, file) for file in files],
            description="Image",
            style=style,
            layout=widgets.Layout(width="436px", max_width="98%"),
        )
        self.upload = widgets.FileUpload(accept="image/*", description="Choose a file")
        self.preview = widgets.Image(
            format="png",
            layout=widgets.Layout(max_width="192px", max_height="192px", align_self="flex-start"),
        )
        self.caption = widgets.HTML()
        self.classify = widgets.Button(
            description="Classify", button_style="primary", icon="search", disabled=True
        )
        self.result = widgets.HTML()
        for field in self.model, self.source, self.predefined:
            field.add_class("ltkd-field")
        self.model.observe(self._clear, "value")
        for chooser in self.source, self.predefined, self.upload:
            chooser.observe(self._choose_image, "value")
        self.classify.on_click(self._on_classify)
        self._arrange()

    def _arrange(self) -> None:
        logo = widgets.Image(
            value=LOGO.read_bytes(),
            format="svg+xml",
            layout=widgets.Layout(width="132px", height="48px", flex="none"),
        )
        title = widgets.HTML(
            f"{STYLE}<b style='font-size:1.3em'>Image classifier</b><br>"
            f"trained on {html.escape(self.experiment.name)}"
        )
        limit = widgets.HTML(f"up to {LIMIT}; PNG, JPEG, WebP, BMP, GIF or TIFF")
        self.upload_row = widgets.HBox(
            [self.upload, limit], layout=GAP(align_items="center", margin="0 0 0 92px")
        )
        picture = widgets.VBox([self.preview, self.caption], layout=GAP(width="220px"))
        answer = widgets.VBox([self.classify, self.result], layout=GAP(flex="1 1 280px"))
        rows = [
            widgets.HBox([logo, title], layout=GAP(align_items="center")),
            self.model,
            self.source,
            self.predefined,
            self.upload_row,
            widgets.HBox([picture, answer], layout=GAP(flex_flow="row wrap")),
        ]
        self.root = widgets.VBox(rows, layout=GAP(max_width="720px", padding="12px"))
        self.root.add_class("ltkd-panel")

    def _clear(self, change=None) -> None:
        self.result.value = ""

    def _choose_image(self, change=None) -> None:
        """Show the chosen or uploaded image, or say why there is none."""
        self._clear()
        uploading = self.source.value == UPLOAD
        self.upload_row.layout.display = "" if uploading else "none"
        offered = not uploading and self.predefined.options
        self.predefined.layout.display = "" if offered else "none"
        self.image = None
        try:
            text, content = self._content(uploading)
            self.caption.value = html.escape(text)
            if content is not None:
                self.image = read_image(content)
                width, height = self.image.size
                self.caption.value += f"<br>{width:,} × {height:,} pixels"
        except ImageError as error:
            self.caption.value = _failure(f"{error} Choose another image.")
        self.preview.layout.display = "" if self.image else "none"
        self.preview.value = png_bytes(self.image) if self.image else b""
        self.classify.disabled = self.image is None

    def _content(self, uploading: bool) -> tuple[str, bytes | None]:
        """Caption and bytes of the image; where none is chosen, what to do and None."""
        if not uploading:
            return self._predefined_content()
        if not self.upload.value:
            return f"No file yet. One of more than {LIMIT} may not arrive.", None
        chosen = self.upload.value[0]
        if chosen["size"] > MAX_BYTES:
            raise ImageError(f"The file is larger than {LIMIT}.")
        return f"Preview: {chosen['name']}", bytes(chosen["content"])

    def _predefined_content(self) -> tuple[str, bytes | None]:
        file, folder = self.predefined.value, shown(self.experiment.image_folder)
        if file is None:
            return f"There are no predefined images in {folder} yet. Upload one.", None
        try:
            return f"Preview: {file.stem}", file.read_bytes()
        except OSError as error:
            raise ImageError(f"{file.name} in {folder} cannot be read.") from error

    def _on_classify(self, button=None) -> None:
        if self.image is None:
            return
        try:
            classifier = self._classifier()
            self.result.value = _describe(
                self.model.value, classifier, classifier.predict(self.image)
            )
        except CheckpointError as error:
            self.result.value = _failure(str(error))
        except Exception as error:  # errors in callbacks show nowhere else
            self.result.value = _failure(f"The image could not be classified ({error}).")

    def _classifier(self) -> Classifier:
        name = self.model.value
        if name not in self.classifiers:
            self.classifiers[name] = Classifier.load(self.experiment.model_file(MODELS[name]))
        return self.classifiers[name]


def _failure(text: str) -> str:
    return f"<div role='status'>⚠ {html.escape(text)}</div>"


def _describe(model: str, classifier: Classifier, prediction: Prediction) -> str:
    """The result as HTML: the class, its probability, and how often it was seen in training."""
    count, group = classifier.shots(prediction.class_name)
    name = html.escape(prediction.class_name)
    others = ", ".join(f"{html.escape(n)} ({p:.1%})" for n, p in prediction.ranking[1:3])
    return (
        f"<div role='status'>{html.escape(model)} predicts<br>"
        f"<span style='font-size:1.8em;font-weight:bold'>{name}</span> "
        f"with {prediction.probability:.1%} probability<br>"
        f"{count:,} training images of this class ({group}-shot)<br>Next: {others}</div>"
    )
