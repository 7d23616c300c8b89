"""Models and pictures that the panel finds, misses or cannot use."""

from dataclasses import replace

from panels import (
    METRICS,
    MODELS,
    choose,
    classify,
    noise,
    png,
    upload,
)

from ltkd.checkpoints import save_checkpoint
from ltkd.classifier import Classifier
from ltkd.controls import FEW
from ltkd.gallery import MOST
from ltkd.networks import ResNet
from ltkd.panel import Panel


def test_a_missing_model_file_is_said_and_the_other_model_works(panel, quick):
    quick.model_file("teacher").unlink()
    panel = Panel(quick)
    answer = classify(panel, "Teacher Model")
    assert "There is no model file" in answer and "train it first" in answer
    assert "probability" in classify(panel, "Student Model")
    assert "No distillation weights" in panel.evidence.value


def test_a_damaged_model_file_is_said_and_read_again_when_mended(panel, quick):
    path = quick.model_file("student")
    good = path.read_bytes()
    path.write_bytes(good[:1000])
    panel = Panel(quick)
    assert "is damaged" in classify(panel, "Student Model")
    path.write_bytes(good)
    assert "probability" in classify(panel, "Student Model")


def test_without_any_model_the_panel_says_what_to_do(home, quick):
    panel = Panel(quick)
    assert "There is no model file" in panel.result.value
    assert panel.classify.disabled
    upload(panel, png(noise()))
    assert "There is no model file" in panel.result.value


def test_an_unforeseen_error_is_said_in_the_panel(panel, monkeypatch):
    def fail(self, image):
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(Classifier, "predict", fail)
    assert "That did not work (out of &lt;memory&gt;)" in classify(panel, "Student Model")


def test_every_pair_in_saved_model_can_be_chosen(panel, digits, quick, home):
    other = quick.model_folder.with_name("other")
    other.mkdir()
    for role in MODELS.values():
        network = ResNet(10, depth=8, width=4).eval()
        save_checkpoint(other / f"{role}_model.pth", network, digits, quick, role, {}, [])
    (other.with_name("half")).mkdir()
    (other.with_name("half") / "student_model.pth").write_bytes(b"no pair")
    panel = Panel(quick)
    assert [label for label, _ in panel.models.options] == ["digits-lt-epochs1", "other"]
    classify(panel, "Student Model")
    panel.models.label = "other"
    assert panel.result.value == "" and len(panel.pictures) == 12
    classify(panel, "Student Model")
    prediction = Classifier.load(other / "student_model.pth").predict(panel.picture.seen)
    assert f"with {prediction.probability:.1%} probability" in panel.result.value


def test_a_pair_that_cannot_be_used_is_said_and_another_can_be_chosen(panel, quick):
    other = quick.model_folder.with_name("other")
    other.mkdir()
    for role in MODELS.values():
        (other / f"{role}_model.pth").write_bytes(b"damaged")
    panel = Panel(quick)
    panel.models.label = "other"
    assert "is damaged or is no model file" in panel.result.value
    assert panel.models.label == "digits-lt-epochs1"
    assert "probability" in classify(panel, "Student Model")


def test_a_student_with_another_experiments_teacher(panel, digits, quick):
    other = replace(quick, distillation="kd")
    network = ResNet(10, depth=8, width=4).eval()
    save_checkpoint(other.model_file("student"), network, digits, other, "student", METRICS, [])
    panel = Panel(other)
    answers = [classify(panel, model) for model in MODELS]
    panel.models.index = 1
    assert panel.pair.experiment == quick
    panel.models.index = 0
    assert panel.pair.experiment == other
    again = [classify(panel, model) for model in MODELS]
    assert [a.partition("Answered")[0] for a in again] == [
        a.partition("Answered")[0] for a in answers
    ]


def test_without_predefined_images_photographs_and_uploads_are_left(panel, quick):
    for file in quick.image_folder.iterdir():
        file.unlink()
    panel = Panel(quick)
    assert [picture.name for picture in panel.offered] == ["china", "flower"]
    assert "CC BY" in panel.preview.value
    panel.filter.value = FEW
    assert "no such images. Put some into data/images/digits-lt" in panel.note.value
    upload(panel, png(noise()))
    assert "probability" in classify(panel, "Student Model")


def test_more_files_than_are_offered_are_counted(panel, quick):
    for i in range(MOST):
        (quick.image_folder / f"a{i:02}.png").write_bytes(png(noise(4)))
    panel = Panel(quick)
    assert len(panel.pictures) == MOST + 2
    assert "The first 60 of 70 files in data/images/digits-lt" in panel.note.value


def test_a_predefined_image_that_cannot_be_used_is_said(panel, quick):
    files = sorted(quick.image_folder.iterdir())
    files[1].write_bytes(b"words")
    panel = Panel(quick)
    choose(panel, files[1].stem)
    assert "This is not an image that can be read" in panel.preview.value
    assert panel.classify.disabled
    choose(panel, files[2].stem)
    assert "probability" in classify(panel, "Student Model")
