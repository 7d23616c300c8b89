"""What the tests of the panel share: pictures, uploads, clicks, and what is shown."""

import io

import ipywidgets as widgets
import numpy as np
from PIL import Image

from ltkd.classifier import Classifier
from ltkd.controls import UPLOAD
from ltkd.panel import Panel
from ltkd.uploader import Upload

NOTHING = dict.fromkeys(("many", "medium", "few"))
VALIDATION = {"all": 50.0, "groups": NOTHING, "calibration_error": 0.1, "low_confidence": None}
METRICS = {"seconds": 1.0, "parameters": 1, "validation": VALIDATION}
MODELS = {"Teacher Model": "teacher", "Student Model": "student"}


def noise(side: int = 40, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(panel: Panel, content: bytes | None, name: str = "mine.png") -> None:
    """What arrives from the browser when one file is chosen."""
    upload_all(panel, {name: content})


def upload_all(panel: Panel, files: dict[str, bytes | None]) -> None:
    panel.source.value = UPLOAD
    panel.upload.value = tuple(Upload(n, len(c or b""), c) for n, c in files.items())


def classify(panel: Panel, model: str) -> str:
    panel.model.value = model
    panel.classify.click()
    return panel.result.value


def choose(panel: Panel, name: str) -> None:
    panel.thumbnails.value = [picture.name for picture in panel.offered].index(name)


def expected(panel: Panel, model: str, image: Image.Image) -> tuple[str, str]:
    """The class and the probability, as the panel writes them, by the classifier itself."""
    prediction = Classifier.load(panel.pair.files[MODELS[model]]).predict(image)
    return f">{prediction.class_name}<", f"with {prediction.probability:.1%} probability"


def every(widget: widgets.Widget) -> list[widgets.Widget]:
    return [widget, *(w for child in getattr(widget, "children", ()) for w in every(child))]


def texts(panel: Panel) -> str:
    """All HTML that the panel shows."""
    return "".join(w.value for w in every(panel.root) if isinstance(w, widgets.HTML))


def hidden(widget: widgets.Widget) -> bool:
    return widget.layout.display == "none"
