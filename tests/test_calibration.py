"""Temperature scaling: the temperature by hand, and what it may and may not change."""

import json

import numpy as np
import pytest
import torch

from ltkd import calibration, halving, shipped
from ltkd.__main__ import main
from ltkd.checkpoints import CheckpointError, load_checkpoint, network_from
from ltkd.evaluation import evaluate, predict
from ltkd.files import write_json
from ltkd.networks import ResNet
from ltkd.results import results
from ltkd.runs import train


def surprise(logits, labels) -> float:
    return torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item()


def student(experiment, images):
    network, content = load_checkpoint(experiment.model_file("student"))
    return predict(network, images), content


def test_temperature_by_hand():
    """Logits 2 and 0, three of four right: 75 % is claimed where 2 / T = ln 3."""
    logits = np.tile([2.0, 0.0], (4, 1))
    assert calibration.temperature(logits, np.array([0, 0, 1, 0])) == pytest.approx(2 / np.log(3))


def test_temperature_grows_with_the_logits():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(400, 5)), generator.integers(5, size=400)
    logits[np.arange(400), labels] += 1
    once = calibration.temperature(logits, labels)
    assert calibration.temperature(3 * logits, labels) == pytest.approx(3 * once, rel=1e-4)
    assert calibration.temperature(logits / once, labels) == pytest.approx(1, rel=1e-4)
    for other in (0.9 * once, 1.1 * once):
        assert surprise(logits / once, labels) < surprise(logits / other, labels)


@pytest.mark.parametrize("case", ["none", "all right", "all wrong"])
def test_images_that_do_not_tell_the_temperature(case):
    logits = np.tile([2.0, 0.0], (0 if case == "none" else 4, 1))
    labels = np.full(len(logits), int(case == "all wrong"))
    with pytest.raises(ValueError, match=f"^{len(labels)} validation images do not tell how sure"):
        calibration.temperature(logits, labels)


def test_answers_stay_and_probabilities_move(trained, digits, capsys):
    before, old = student(trained, digits.test.images)
    teacher = trained.model_file("teacher").read_bytes()
    capsys.readouterr()
    found = calibration.calibrate(trained, digits)
    after, new = student(trained, digits.test.images)
    assert found != pytest.approx(1, abs=0.01)
    assert np.allclose(after, before / found, atol=1e-4)
    validation, _ = student(trained, digits.validation.images)
    assert calibration.temperature(validation, digits.validation.labels) == pytest.approx(1, 1e-3)
    for split in ("test", "validation"):
        assert new["metrics"][split]["all"] == old["metrics"][split]["all"]
    assert new["metrics"]["test"] == evaluate(after, digits.test.labels, digits.groups)
    assert new["metrics"]["seconds"] == old["metrics"]["seconds"]
    assert trained.model_file("teacher").read_bytes() == teacher
    was, now = (c["metrics"]["validation"]["calibration_error"] for c in (old, new))
    assert f"temperature {found:.3f}; " in (said := capsys.readouterr().out)
    assert said.rstrip().endswith(f"validation images {was:.3f}, now {now:.3f}.")


def test_twice_is_once_and_the_product_is_kept(trained, digits):
    metrics = student(trained, digits.test.images)[1]["metrics"]
    before = {s: metrics[s]["calibration_error"] for s in ("validation", "test")}
    first = calibration.calibrate(trained, digits)
    assert calibration.calibrate(trained, digits) == pytest.approx(1, rel=1e-3)
    metrics = student(trained, digits.test.images)[1]["metrics"]
    kept = metrics["temperature"]
    assert kept == pytest.approx(first, rel=1e-3)
    assert metrics["uncalibrated"] == before
    train(trained, digits, "student")  # still the experiment's student: loaded, not trained
    assert student(trained, digits.test.images)[1]["metrics"]["temperature"] == kept


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_either_kind_of_last_layer(classifier):
    network = ResNet(3, depth=8, classifier=classifier).eval()
    content = {"network": network.settings, "weights": network.state_dict()}
    content = calibration.cooled(content, 4)
    other = network_from(content["network"]).eval()
    other.load_state_dict(content["weights"])
    images = torch.rand(2, 3, 32, 32) * 255
    assert torch.allclose(4 * other(images), network(images), rtol=1e-4, atol=1e-6)


def test_after_halving(trained, digits):
    halving.halve(trained, digits)
    before, _ = student(trained, digits.test.images)
    found = calibration.calibrate(trained, digits)
    after, content = student(trained, digits.test.images)
    assert np.allclose(after, before / found, rtol=1e-4, atol=1e-4)
    assert (after.argmax(1) == before.argmax(1)).all()
    stored = torch.load(trained.model_file("student"), weights_only=True)["weights"]
    assert torch.float16 in {value.dtype for value in stored.values()}  # still
    measured = evaluate(after, digits.test.labels, digits.groups)
    assert content["metrics"]["test"]["calibration_error"] == pytest.approx(
        measured["calibration_error"], abs=1e-6
    )


def test_results_follow(trained, digits):
    file = trained.model_folder / "results.json"
    calibration.calibrate(trained, digits)
    assert not file.exists()  # nobody asked for it
    results(trained, digits)
    first = json.loads(file.read_text())
    assert " && python -m ltkd calibrate digits-lt " in first["command"]
    assert "temperature" not in first["teacher"]
    _, content = student(trained, digits.test.images)
    assert first["student"]["temperature"] == content["metrics"]["temperature"]
    report = shipped.report(trained.name)
    before = first["student"]["uncalibrated"]["test"]
    suffix = f" (before: {before:.3f}), T = {first['student']['temperature']:.2f}\n"
    assert report.count(suffix) == 1
    write_json(file, first | {"student": {}})
    calibration.calibrate(trained, digits)
    again = json.loads(file.read_text())["student"]
    assert again["temperature"] == pytest.approx(first["student"]["temperature"], rel=1e-3)


def test_nothing_is_changed_where_the_results_could_not_follow(trained, digits):
    before = trained.model_file("student").read_bytes()
    trained.model_file("teacher").unlink()
    for job in (calibration.calibrate, halving.halve):
        with pytest.raises(CheckpointError, match=r"no model file .*teacher_model.pth"):
            job(trained, digits)
    assert trained.model_file("student").read_bytes() == before


def test_the_command(trained, digits, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(calibration, "calibrate", lambda experiment, data: asked.append(experiment))
    assert main(["calibrate", "digits-lt", "--seed", "3"]) == 0
    assert [experiment.name for experiment in asked] == ["digits-lt-seed3"]
    monkeypatch.undo()
    assert main(["calibrate", "digits-lt", "--seed", "9"]) == 1
    assert "There is no model file" in capsys.readouterr().err
