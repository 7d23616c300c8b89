"""One picture in, a prediction and its patch evidence out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ltkd.checkpoints import CheckpointError, load_checkpoint
from ltkd.classifier import Classifier, ModelPair, model_folders
from ltkd.evaluation import LOW, predict, softmax
from ltkd.experiments import Experiment
from ltkd.files import write_json
from ltkd.results import results
from ltkd.runs import train
from ltkd.supervision import distillation_loss


@pytest.fixture(scope="module")
def path(tmp_path_factory, digits) -> Path:
    """A teacher of one epoch."""
    digits_lt = Experiment.named("digits-lt")
    quick = replace(digits_lt, schedule=replace(digits_lt.schedule, epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", str(tmp_path_factory.mktemp("models")))
        train(quick, digits, "teacher")
        return quick.model_file("teacher")


@pytest.fixture(scope="module")
def classifier(path) -> Classifier:
    return Classifier.load(path)


def picture(images: np.ndarray, row: int) -> Image.Image:
    return Image.fromarray(images[row].transpose(1, 2, 0))


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def test_answers_as_evaluation_does(classifier, digits):
    logits = predict(classifier.network, digits.test.images[:40])
    for row, wanted in enumerate(softmax(logits)):
        prediction = classifier.predict(picture(digits.test.images, row))
        assert prediction.class_name == digits.class_names[wanted.argmax()]
        assert prediction.probability == pytest.approx(wanted.max(), abs=1e-5)
        found = prediction.patch_logits.mean((0, 1))
        np.testing.assert_allclose(found, logits[row], atol=1e-4)


def test_a_network_that_comes_from_training_answers_as_a_loaded_one(path, classifier):
    network, content = load_checkpoint(path)
    found = Classifier(network.train(), content).predict(noise(32, 32))
    wanted = classifier.predict(noise(32, 32))
    np.testing.assert_array_equal(found.patch_logits, wanted.patch_logits)


def test_other_work_keeps_its_threads(classifier):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        classifier.predict(noise(40, 40))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_ranking_is_sorted_has_every_class_and_sums_to_one(classifier, digits):
    prediction = classifier.predict(noise(50, 40))
    names, probabilities = zip(*prediction.ranking, strict=True)
    assert sorted(names) == sorted(digits.class_names)
    assert list(probabilities) == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert prediction.ranking[0] == (prediction.class_name, prediction.probability)


def test_evidence_sums_to_the_logit(classifier, digits):
    image = picture(digits.test.images, 3)
    prediction = classifier.predict(image)
    logits = predict(classifier.network, digits.test.images[3:4])[0]
    assert prediction.patch_logits.shape == (4, 4, 10)
    for label, logit in enumerate(logits):
        evidence = prediction.evidence(label)
        assert evidence.shape == (4, 4)
        assert evidence.sum() == pytest.approx(logit, abs=1e-4)


def test_evidence_lies_over_the_image_row_by_row(classifier, digits):
    """What changes in the top right corner changes the evidence there, not below on the left."""
    pixels = digits.test.images[0].transpose(1, 2, 0).copy()
    before = classifier.predict(Image.fromarray(pixels)).patch_logits
    pixels[:8, 24:] = 255 - pixels[:8, 24:]
    change = abs(classifier.predict(Image.fromarray(pixels)).patch_logits - before).sum(-1)
    assert change[0, 3] == change.max()
    assert change[0, 3] > 3 * change[3, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 6), (31, 33), (640, 480)])
def test_takes_pictures_of_any_size(classifier, size):
    prediction = classifier.predict(noise(*size))
    assert prediction.patch_logits.shape == (4, 4, 10)
    assert np.isfinite(prediction.patch_logits).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "LA"])
def test_takes_pictures_of_any_mode(classifier, mode):
    image = noise(40, 40, mode)
    found = classifier.predict(image)
    wanted = classifier.predict(image.convert("RGB"))
    assert found.ranking == wanted.ranking


def test_reads_the_middle_of_a_long_picture(classifier, digits):
    image = picture(digits.test.images, 0)
    wide = Image.new("RGB", (96, 32), "white")
    wide.paste(image, (32, 0))
    assert classifier.predict(wide).ranking == classifier.predict(image).ranking


def test_shots_are_the_training_counts_and_groups(classifier, digits):
    for label, name in enumerate(digits.class_names):
        count, group = classifier.shots(name)
        assert count == digits.counts[label]
        assert digits.groups[group][label]
        assert group in ("many", "medium", "few")


def test_load_refuses_what_is_no_model(path, tmp_path):
    with pytest.raises(CheckpointError, match="for 10 classes, but 3 are wanted"):
        Classifier.load(path, classes=3)
    with pytest.raises(CheckpointError, match="There is no model file"):
        Classifier.load(tmp_path / "none.pth")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits) -> Path:
    """A home with a pair of one epoch and its results."""
    home = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", str(home))
        experiment = Experiment.choose("digits-lt", epochs=1)
        train(experiment, digits, "student")
        results(experiment, digits)
    return home


@pytest.fixture
def pair(trained, monkeypatch) -> ModelPair:
    monkeypatch.setenv("LTKD_HOME", str(trained))
    return ModelPair.of(Experiment.choose("digits-lt", epochs=1))


def test_patch_weights_are_those_of_the_training(pair, digits):
    teacher = pair.classifier("teacher")
    loss = distillation_loss(pair.experiment, digits, teacher.network)
    patches = predict(teacher.network, digits.test.images[:5], patches=True)
    wanted = loss.patch_weights(torch.from_numpy(patches)).numpy()  # (5, P)
    for row in range(5):
        said = teacher.predict(picture(digits.test.images, row))
        weights = pair.patch_weights(said)
        np.testing.assert_allclose(weights, wanted[row].reshape(4, 4), atol=1e-3)
        assert weights.mean() == pytest.approx(1, abs=1e-5)


def test_no_patch_weights_where_no_patch_was_distilled(pair, digits):
    pair.experiment = replace(pair.experiment, distillation="kd")
    said = pair.classifier("teacher").predict(picture(digits.test.images, 0))
    assert pair.patch_weights(said) is None


@pytest.mark.parametrize("content", ["", "[1, 2]", "{}", '{"mean_posterior": [1.0]}'])
def test_damaged_results_are_as_none(pair, digits, content, tmp_path, monkeypatch):
    for role, file in pair.files.items():
        pair.files[role] = tmp_path / file.name
        pair.files[role].write_bytes(file.read_bytes())
    (tmp_path / "results.json").write_text(content)
    said = pair.classifier("teacher").predict(picture(digits.test.images, 0))
    assert pair.patch_weights(said) is None
    assert pair.low_confidence("student") is None and not pair.unsure("student", said)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_twentieth_of_what_is_right_is_below_the_threshold(pair, digits, role):
    classifier = pair.classifier(role)
    probabilities = softmax(predict(classifier.network, digits.validation.images))
    confidence = probabilities.max(1)
    right = confidence[probabilities.argmax(1) == digits.validation.labels]
    share = (right < pair.low_confidence(role)).mean()
    assert share == pytest.approx(LOW, abs=1 / len(right))
    lowest = classifier.predict(picture(digits.validation.images, confidence.argmin()))
    highest = classifier.predict(picture(digits.validation.images, confidence.argmax()))
    assert pair.unsure(role, lowest) and not pair.unsure(role, highest)


def test_a_pair_is_found_by_its_folder_and_knows_its_experiment(pair, trained):
    assert model_folders() == [trained / "saved_model" / "digits-lt-epochs1"]
    found = ModelPair.at(model_folders()[0])
    assert found.experiment == pair.experiment and found.files == pair.files


def test_a_model_file_without_its_experiment_is_refused(pair, tmp_path):
    content = torch.load(pair.files["student"], weights_only=True)
    del content["experiment"]["schedule"]["epochs"], content["experiment"]["base"]
    torch.save(content, tmp_path / "student_model.pth")
    with pytest.raises(CheckpointError, match="does not say which experiment"):
        ModelPair.at(tmp_path)


def test_what_is_not_available(pair, tmp_path):
    assert pair.available("teacher") and pair.any_classifier() is pair.classifier("student")
    pair = replace(pair, files=pair.files | {"student": tmp_path / "none.pth"}, loaded={})
    assert not pair.available("student")
    assert pair.any_classifier() is pair.classifier("teacher")


def test_a_teacher_that_was_trained_anew_is_not_shown_beside_the_old_student(pair, tmp_path):
    """The student's training was stopped, say, after classes or images changed."""
    content = torch.load(pair.files["teacher"], weights_only=True)
    for change in ({"class_names": ["zero", *content["class_names"][1:]]}, {"data": "other"}):
        torch.save(content | change, tmp_path / "teacher_model.pth")
        found = replace(pair, files=pair.files | {"teacher": tmp_path / "teacher_model.pth"})
        found.loaded = {}
        assert found.available("student") and not found.available("teacher")
        with pytest.raises(CheckpointError, match="on other images than the student beside it"):
            found.classifier("teacher")


def test_results_of_other_images_are_as_none(pair, tmp_path):
    for role, file in pair.files.items():
        pair.files[role] = tmp_path / file.name
        pair.files[role].write_bytes(file.read_bytes())
    content = {"experiment": pair.experiment.as_dict(), "test_images": 5}
    for data, known in ((pair.classifier("student").data, True), (None, True), ("other", False)):
        write_json(tmp_path / "results.json", content | {"data": data})
        assert bool(replace(pair, loaded={}).results) == known


def test_results_of_another_training_are_as_none(pair, tmp_path):
    """A name stays where a default has changed, and with it the folder."""
    for role, file in pair.files.items():
        pair.files[role] = tmp_path / file.name
        pair.files[role].write_bytes(file.read_bytes())
    for depth, known in ((pair.experiment.depth, True), (pair.experiment.depth + 6, False)):
        experiment = replace(pair.experiment, depth=depth).as_dict()
        write_json(tmp_path / "results.json", {"experiment": experiment})
        assert bool(replace(pair, loaded={}).results) == known


def test_loading_a_model_draws_nothing_from_the_generator(path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Classifier.load(path)
    assert torch.equal(torch.get_rng_state(), before)
