"""results.json: which models are evaluated, which seeds stand together, and the machine named."""

from dataclasses import replace

import pytest
import torch

from ltkd import results as module
from ltkd.calibration import calibrate
from ltkd.checkpoints import CheckpointError, load_checkpoint, write_checkpoint
from ltkd.datasets import Split
from ltkd.experiments import ROLES, Experiment
from ltkd.files import read_json, write_json
from ltkd.finished import trained_model
from ltkd.halving import halve
from ltkd.results import results


@pytest.mark.parametrize("job", [results, calibrate, halve])
def test_no_model_is_evaluated_on_images_that_it_was_trained_on(trained, digits, swapped, job):
    before = {f.name: f.read_bytes() for f in trained.model_folder.iterdir()}
    with pytest.raises(CheckpointError, match="trained on other images than the data set holds"):
        job(trained, swapped(digits))
    assert {f.name: f.read_bytes() for f in trained.model_folder.iterdir()} == before


def test_no_model_is_evaluated_as_another_experiment(trained, digits):
    """As where the defaults were others when it was trained."""
    _, content = load_checkpoint(trained.model_file("student"))
    content["experiment"]["distillation"] = "none"
    write_checkpoint(trained.model_file("student"), content)
    with pytest.raises(CheckpointError, match=r"as another experiment than .* train the student"):
        results(trained, digits)


def test_files_of_before_fingerprints_are_known_by_their_counts(trained, digits):
    path = trained.model_file("student")
    content = torch.load(path, weights_only=True)
    del content["data"]
    write_checkpoint(path, content)
    results(trained, digits)
    fewer = replace(digits, train=Split(*(field[1:] for field in digits.train)))
    with pytest.raises(CheckpointError, match="trained on other images"):
        trained_model(trained, fewer, "student")


def as_of_seed(seed: int, trained: Experiment) -> Experiment:
    """The same models under the name of another seed."""
    other = replace(trained, seed=seed)
    for role in ROLES:
        _, content = load_checkpoint(trained.model_file(role))
        write_checkpoint(other.model_file(role), content | {"experiment": other.as_dict()})
    return other


def test_seeds_of_other_images_are_not_shown_together(trained, digits):
    other = as_of_seed(1, trained)
    results(other, digits)
    assert [row["seed"] for row in results(trained, digits)["seeds"]] == [0, 1]
    file = other.model_folder / "results.json"
    content = read_json(file)
    defaults = {"experiment": replace(other, student_loss="focal").as_dict()}  # of an older ltkd
    for other_data in ({"counts": [1] * 10}, {"data": "another"}, defaults):
        write_json(file, content | other_data)
        assert [row["seed"] for row in results(trained, digits)["seeds"]] == [0]


def test_a_seed_above_nine_is_shown_too(trained, digits):
    late = as_of_seed(12, trained)
    assert [row["seed"] for row in results(late, digits)["seeds"]] == [12]


def test_the_threshold_of_the_panel_is_of_validation_images(trained, digits):
    path = trained.model_file("student")
    content = torch.load(path, weights_only=True)
    stored = content["metrics"]["validation"]
    found = results(trained, digits)["student"]
    assert found["low_confidence"] == stored["low_confidence"]
    assert found["validation"]["all"] == stored["all"] != found["all"]
    assert found["validation"]["few"] == stored["groups"]["few"]
    assert found["precision"] == "float32"


def test_results_name_the_machine_that_trained(trained, digits, monkeypatch):
    monkeypatch.setattr(module, "machine", lambda: {"device": "another one"})
    assert results(trained, digits)["machine"]["device"] != "another one"
    path = trained.model_file("student")
    content = torch.load(path, weights_only=True)
    del content["metrics"]["machine"]  # as in files of before
    write_checkpoint(path, content)
    assert results(trained, digits)["machine"]["device"] != "another one"  # said before
    trained.results_file.unlink()
    assert results(trained, digits)["machine"]["device"] == "another one"
