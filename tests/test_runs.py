"""What the jobs share: teachers, the panel's pictures, the commands that make results again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ltkd import runs
from ltkd.checkpoints import CheckpointError, load_checkpoint, write_checkpoint
from ltkd.datasets import Split
from ltkd.evaluation import evaluate_network
from ltkd.experiments import Experiment
from ltkd.gallery import save_predefined_images
from ltkd.images import predefined_images, read_image
from ltkd.initial import new_network
from ltkd.results import results
from ltkd.training import Trainer


def test_experiments_that_differ_in_the_student_share_the_teacher():
    experiment = Experiment.named("cifar10-lt-quick")
    other = replace(
        experiment, distillation="dkd", student_loss="focal", width=32, student_epochs=40
    )
    assert other.model_file("teacher") == experiment.model_file("teacher")
    assert other.model_file("student") != experiment.model_file("student")


def test_experiments_that_differ_in_the_teacher_do_not_share_it():
    experiment = Experiment.named("cifar10-lt-quick")
    for change in ({"seed": 1}, {"teacher_width": 32}, {"imbalance_factor": 50}, {"depth": 20}):
        assert replace(experiment, **change).model_file("teacher") != experiment.model_file(
            "teacher"
        )


def test_a_student_may_be_trained_for_longer_than_its_teacher(digits, narrow, monkeypatch, capsys):
    patient = replace(narrow, student_epochs=2)
    student = runs.train(patient, digits, "student")[1]
    assert len(student["history"]) == 2
    assert len(runs.train(narrow, digits, "teacher")[1]["history"]) == 1
    said = capsys.readouterr().out
    assert f"student of {patient.name}: 2 epochs on" in said
    assert f"teacher of {narrow.owner('teacher').name}: 1 epochs on" in said
    assert "--student-epochs 2" in results(patient, digits)["command"]
    monkeypatch.setattr("ltkd.estimates._step", lambda *_: 1)
    once, twice = (runs.expected_seconds(e, digits, "student") for e in (narrow, patient))
    assert twice == 2 * once


@pytest.mark.parametrize(
    ("change", "asks"),
    [
        ({"distillation": "none"}, False),
        ({"distillation": "none", "student_mix": "tail_cutmix"}, False),
        ({"distillation": "none", "student_mix": "tail_patches"}, True),
        ({"distillation": "none", "student_mix": "local_crops"}, True),
        ({"distillation": "patch_kd"}, True),
    ],
)
def test_a_teacher_is_trained_where_the_student_asks_one(change, asks, digits, quick):
    experiment = replace(quick, **change)
    runs.train(experiment, digits, "student")
    assert experiment.model_file("student").exists()
    assert experiment.model_file("teacher").exists() == asks


def test_a_student_that_asks_no_teacher_is_the_same_beside_one(digits, quick):
    control = replace(quick, distillation="none")
    alone = runs.train(control, digits, "student")[0].state_dict()
    with pytest.raises(CheckpointError, match=r"teacher_model\.pth: train it first"):
        results(control, digits)
    runs.train(control, digits, "teacher")
    assert "ltkd teacher digits-lt" in results(control, digits)["command"]
    control.model_file("student").unlink()
    beside = runs.train(control, digits, "student")[0].state_dict()
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_predefined_images_are_test_images(digits, quick):
    folder = save_predefined_images(quick, digits, most=4)
    files = predefined_images(folder)
    assert [f.name.split("-")[0] for f in files] == ["0", "3", "6", "9"]
    first = np.asarray(read_image(files[0].read_bytes())).transpose(2, 0, 1)
    source = int(files[0].stem.rsplit("-", 1)[1])
    row = digits.test.sources.tolist().index(source)
    assert (first == digits.test.images[row]).all()


def test_the_users_own_images_are_left_alone(digits, quick):
    quick.image_folder.mkdir(parents=True)
    (quick.image_folder / "mine.JPG").write_bytes(b"mine")
    save_predefined_images(quick, digits)
    assert [f.name for f in quick.image_folder.iterdir()] == ["mine.JPG"]


def test_the_test_images_are_read_once_after_the_last_epoch(digits, quick, shorten, monkeypatch):
    order, epoch = [], Trainer._epoch

    class Watched(np.ndarray):
        def __getitem__(self, key):
            order.append("read")
            return super().__getitem__(key)

    monkeypatch.setattr(Trainer, "_epoch", lambda self, n: order.append("epoch") or epoch(self, n))
    test = digits.test._replace(images=digits.test.images.view(Watched))
    runs.train(shorten(quick, 2), replace(digits, test=test), "teacher")
    assert order == ["epoch"] * 2 + ["read"] * 2  # 640 images, 500 at a time


def test_nothing_is_lost_between_training_and_saving(digits, quick, monkeypatch, capsys):
    """Killed after the last epoch, before the model file is there: no epoch is trained again."""

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runs, "save_checkpoint", killed)
        runs.train(quick, digits, "teacher")
    monkeypatch.setattr(Trainer, "_epoch", killed)
    runs.train(quick, digits, "teacher")
    assert "Resumed the teacher after epoch 1." in capsys.readouterr().out
    assert [f.name for f in quick.model_folder.iterdir()] == ["teacher_model.pth"]
    runs.state_file(quick, "teacher").touch()  # of a process that was killed before it took it away
    runs.train(quick, digits, "teacher")
    assert [f.name for f in quick.model_folder.iterdir()] == ["teacher_model.pth"]


@pytest.mark.parametrize("field", ["teacher_loss", "student_loss", "distillation"])
def test_an_unknown_loss_is_refused_before_training(field, digits, quick, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", None)  # cannot be called
    with pytest.raises(ValueError, match=r"Unknown .* 'typo'; choose one of"):
        runs.train(replace(quick, **{field: "typo"}), digits, "student")


@pytest.mark.parametrize("mix", ["tail_patches", "local_crops"])
def test_a_teacher_is_not_mixed_by_what_needs_a_teacher(mix, digits, quick):
    with pytest.raises(ValueError, match=f"cannot be mixed by '{mix}'.*choose none, cutmix"):
        runs.train(replace(quick, teacher_mix=mix), digits, "teacher")


def test_a_model_of_another_schedule_or_of_other_counts_is_not_taken(
    digits, quick, swapped, capsys
):
    """Though it lies where this one would."""
    quick = replace(quick, teacher_width=8)
    other = replace(quick, schedule=replace(quick.schedule, learning_rate=1e-3))
    runs.train(quick, digits, "teacher")
    path = quick.model_file("teacher")
    other.model_file("teacher").parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, other.model_file("teacher"))
    assert runs.train(other, digits, "teacher")[1]["experiment"] == other.as_dict()
    fewer = replace(digits, train=Split(*(field[1:] for field in digits.train)))
    assert runs.train(quick, fewer, "teacher")[1]["counts"] == fewer.counts.tolist()
    backwards = replace(fewer, train=Split(*(field[::-1] for field in fewer.train)))
    assert backwards.fingerprint == fewer.fingerprint != digits.fingerprint
    exchanged = swapped(fewer)
    assert runs.train(quick, exchanged, "teacher")[1]["data"] == exchanged.fingerprint
    assert capsys.readouterr().out.count("is of another experiment or other data") == 3


def test_a_model_of_a_later_version_is_not_trained_over(trained, digits):
    _, content = load_checkpoint(trained.model_file("teacher"))
    write_checkpoint(trained.model_file("teacher"), content | {"version": 2})
    with pytest.raises(CheckpointError, match="later version of ltkd"):
        runs.train(trained, digits, "teacher")


def test_a_student_goes_on_with_its_own_teacher_alone(digits, quick):
    def identity(bias):
        teacher = new_network(quick, digits, "teacher").eval()
        teacher.classifier.bias.data += bias
        return runs.trainer_for(quick, digits, "student", teacher).identity

    assert identity(0) == identity(0) != identity(1)


def test_an_interrupted_training_goes_on_wherever_its_folder_is_called(digits, quick, swapped):
    """But not on other images."""

    def identity(data=digits, folder="/one/birds", **changes):
        experiment = replace(quick, base=f"folder:{folder}", folder=folder, **changes)
        return runs.trainer_for(experiment, data, "teacher").identity

    assert identity() == identity(folder="/two/birds", expected="another text")
    assert identity() != identity(data=swapped(digits))
    assert identity() != identity(seed=1)


def test_metrics_are_those_of_the_splits_that_they_name(digits, quick):
    network, content = runs.train(quick, digits, "teacher")
    for split in ("test", "validation"):
        wanted = evaluate_network(network, getattr(digits, split), digits.groups)
        assert content["metrics"][split]["confusion"] == wanted["confusion"]
