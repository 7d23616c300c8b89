"""The panel's widgets driven in process: what is set, clicked, shown and refused."""

import html
import io
from datetime import UTC, datetime

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from ltkd.checkpoints import save_checkpoint
from ltkd.classifier import Classifier
from ltkd.images import MAX_BYTES, read_image
from ltkd.networks import ResNet
from ltkd.panel import MODELS, PREDEFINED, UPLOAD, Panel
from ltkd.runs import new_network, save_predefined_images

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>.png"


@pytest.fixture
def models(digits, quick):
    """Two different model files with random weights, and the predefined images."""
    for role in MODELS.values():
        network = new_network(quick, digits, role).eval()
        save_checkpoint(quick.model_file(role), network, digits, quick, role, {}, [])
    save_predefined_images(quick, digits)


@pytest.fixture
def panel(models, quick) -> Panel:
    return Panel(quick)


def noise(side: int = 40, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(panel: Panel, content: bytes, name: str = "mine.png") -> None:
    """What the browser does when a file is chosen."""
    panel.source.value = UPLOAD
    file = {
        "name": name,
        "type": "image/png",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime(2024, 1, 1, tzinfo=UTC),
    }
    panel.upload.value = (file,)


def classify(panel: Panel, model: str) -> str:
    panel.model.value = model
    panel.classify.click()
    return panel.result.value


def expected(panel: Panel, model: str, image: Image.Image) -> tuple[str, str]:
    """The class and the probability, as the panel writes them, by the classifier itself."""
    prediction = Classifier.load(panel.experiment.model_file(MODELS[model])).predict(image)
    return f">{prediction.class_name}<", f"with {prediction.probability:.1%} probability"


def every(widget: widgets.Widget) -> list[widgets.Widget]:
    return [widget, *(w for child in getattr(widget, "children", ()) for w in every(child))]


def texts(panel: Panel) -> str:
    """All HTML that the panel shows."""
    return "".join(w.value for w in every(panel.root) if isinstance(w, widgets.HTML))


def hidden(widget: widgets.Widget) -> bool:
    return widget.layout.display == "none"


def test_opens_on_the_first_predefined_image_with_its_preview(panel):
    first = panel.predefined.options[0][1]
    assert panel.predefined.value == first
    assert first.stem in panel.caption.value and "32 × 32 pixels" in panel.caption.value
    assert Image.open(io.BytesIO(panel.preview.value)).size == (384, 384)
    assert not hidden(panel.preview) and not panel.classify.disabled
    assert hidden(panel.upload_row) and not hidden(panel.predefined)
    assert panel.result.value == ""


def test_draws_nothing_into_output_widgets_and_has_a_logo(panel):
    kinds = every(panel.show())
    assert not [w for w in kinds if isinstance(w, widgets.Output)]
    logo = next(w for w in kinds if isinstance(w, widgets.Image))
    assert b"<svg" in bytes(logo.value)


@pytest.mark.parametrize("model", MODELS)
def test_a_predefined_image_gets_the_class_and_probability_of_predict(panel, model):
    file = panel.predefined.options[3][1]
    panel.predefined.value = file
    answer = classify(panel, model)
    for words in (model, *expected(panel, model, read_image(file.read_bytes()))):
        assert words in answer
    assert "training images of this class" in answer


@pytest.mark.parametrize("model", MODELS)
def test_an_upload_gets_the_class_and_probability_of_predict(panel, model):
    upload(panel, png(noise()))
    assert "Preview: mine.png" in panel.caption.value and "40 × 40 pixels" in panel.caption.value
    assert panel.preview.value
    for words in (model, *expected(panel, model, noise())):
        assert words in classify(panel, model)


def test_the_two_models_answer_for_themselves(panel):
    upload(panel, png(noise()))
    answers = [classify(panel, model) for model in MODELS]
    assert answers[0] != answers[1]
    assert classify(panel, "Teacher Model") == answers[0]


def test_the_toggle_shows_one_way_to_choose_an_image(panel):
    panel.source.value = UPLOAD
    assert hidden(panel.predefined) and not hidden(panel.upload_row)
    assert "No file yet." in panel.caption.value
    assert hidden(panel.preview) and panel.classify.disabled
    panel.source.value = PREDEFINED
    assert hidden(panel.upload_row) and not hidden(panel.predefined)
    assert not hidden(panel.preview) and not panel.classify.disabled


CHANGES = {
    "model": lambda panel: setattr(panel.model, "value", "Student Model"),
    "predefined image": lambda panel: setattr(panel.predefined, "index", 2),
    "source": lambda panel: setattr(panel.source, "value", UPLOAD),
    "upload": lambda panel: upload(panel, png(noise(seed=1))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_clears_the_old_result(panel, change):
    assert classify(panel, "Teacher Model")
    CHANGES[change](panel)
    assert panel.result.value == ""


def test_a_second_upload_replaces_the_first(panel):
    upload(panel, png(noise()))
    first = panel.preview.value
    upload(panel, png(noise(side=64, seed=1)), "other.png")
    assert panel.preview.value != first
    assert "other.png" in panel.caption.value and "64 × 64" in panel.caption.value


BAD = {
    "not an image": (b"These are only words.", "This is not an image that can be read"),
    "empty": (b"", "The file is empty."),
    "truncated": (png(noise())[:900], "This is not an image that can be read"),
    "too big": (bytes(MAX_BYTES + 1), "The file is larger than 8 MiB."),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_upload_gets_one_sentence_and_the_panel_goes_on(panel, kind):
    upload(panel, png(noise()))
    classify(panel, "Student Model")
    content, sentence = BAD[kind]
    upload(panel, content, "bad.png")
    assert sentence in panel.caption.value
    assert "Traceback" not in texts(panel) and "Error" not in texts(panel)
    assert panel.classify.disabled and hidden(panel.preview) and panel.result.value == ""
    panel.model.value = "Teacher Model"
    assert sentence in panel.caption.value  # still said
    upload(panel, png(noise()))
    for words in expected(panel, "Teacher Model", noise()):
        assert words in classify(panel, "Teacher Model")


@pytest.mark.parametrize("content", [png(noise()), b"words"], ids=["an image", "no image"])
def test_a_file_name_is_text_wherever_it_is_shown(panel, content):
    upload(panel, content, EVIL)
    classify(panel, "Student Model")
    assert "<script" not in texts(panel) and "<img" not in texts(panel)
    if content != b"words":
        assert html.escape(EVIL) in texts(panel)


def test_class_names_are_text_wherever_they_are_shown(panel, digits, quick):
    network = ResNet(10, depth=8, width=4, mean=(0.1, 0.2, 0.3))
    path = quick.model_file("student")
    save_checkpoint(path, network.eval(), digits, quick, "student", {}, [])
    content = torch.load(path, weights_only=True)
    content["class_names"] = [f"<b>{name}</b>" for name in content["class_names"]]
    torch.save(content, path)
    answer = classify(panel, "Student Model")
    assert "&lt;b&gt;" in answer and "<b>" not in answer


def test_a_missing_model_file_is_said_and_the_other_model_works(panel, quick):
    quick.model_file("teacher").unlink()
    answer = classify(panel, "Teacher Model")
    assert "There is no model file" in answer and "train it first" in answer
    assert "probability" in classify(panel, "Student Model")


def test_a_damaged_model_file_is_said_and_read_again_when_mended(panel, quick):
    path = quick.model_file("student")
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    assert "is damaged" in classify(panel, "Student Model")
    path.write_bytes(good)
    assert "probability" in classify(panel, "Student Model")


def test_an_unforeseen_error_is_said_in_the_panel(panel, monkeypatch):
    def fail(self, image):
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(Classifier, "predict", fail)
    answer = classify(panel, "Student Model")
    assert "could not be classified (out of &lt;memory&gt;)" in answer


def test_without_predefined_images_the_panel_says_so_and_takes_uploads(panel, quick):
    for _, file in panel.predefined.options:
        file.unlink()
    panel = Panel(quick)
    assert "no predefined images in data/images/digits-lt" in panel.caption.value
    assert hidden(panel.predefined) and panel.classify.disabled
    upload(panel, png(noise()))
    assert "probability" in classify(panel, "Student Model")


def test_predefined_images_are_png_and_jpeg_files_in_any_case(panel, quick):
    folder = quick.image_folder
    for name in ("a.PNG", "b.jpg", "c.JPG", "d.jpeg", "e.JpEg"):
        noise().save(folder / name, "PNG" if "." + name[-3:].lower() == ".png" else "JPEG")
    for name in ("f.gif", "g.txt", ".h.png"):
        (folder / name).write_bytes(b"")
    added = [file.name for _, file in Panel(quick).predefined.options][10:]
    assert added == ["a.PNG", "b.jpg", "c.JPG", "d.jpeg", "e.JpEg"]


def test_a_predefined_image_that_cannot_be_used_is_said(panel, quick):
    (label, gone), (_, damaged), (_, good) = panel.predefined.options[1:4]
    gone.unlink()
    damaged.write_bytes(b"words")
    panel.predefined.value = gone
    assert f"{label}.png in data/images/digits-lt cannot be read." in panel.caption.value
    panel.predefined.value = damaged
    assert "This is not an image that can be read" in panel.caption.value
    assert panel.classify.disabled
    panel.predefined.value = good
    assert "probability" in classify(panel, "Student Model")


def test_nothing_uploaded_is_written(panel, home):
    before = sorted(home.rglob("*"))
    upload(panel, png(noise()))
    classify(panel, "Student Model")
    assert sorted(home.rglob("*")) == before
