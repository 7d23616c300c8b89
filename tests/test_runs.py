"""What the jobs share: teachers, the panel's pictures, the commands that make results again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ltkd import runs
from ltkd.evaluation import evaluate_network
from ltkd.experiments import Experiment
from ltkd.gallery import save_predefined_images
from ltkd.images import predefined_images, read_image
from ltkd.objectives import teacher_bias
from ltkd.training import Trainer


def test_experiments_that_differ_in_the_student_share_the_teacher():
    experiment = Experiment.named("cifar10-lt")
    other = replace(experiment, distillation="kd", student_loss="focal", width=32)
    assert other.model_file("teacher") == experiment.model_file("teacher")
    assert other.model_file("student") != experiment.model_file("student")


def test_experiments_that_differ_in_the_teacher_do_not_share_it():
    experiment = Experiment.named("cifar10-lt")
    for change in ({"seed": 1}, {"teacher_width": 32}, {"imbalance_factor": 50}, {"depth": 20}):
        assert replace(experiment, **change).model_file("teacher") != experiment.model_file(
            "teacher"
        )


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


def test_only_a_biased_teacher_has_a_bias():

    counts = torch.tensor([3, 1])
    experiment = Experiment.named("digits-lt")
    assert teacher_bias(experiment, counts).exp().tolist() == [0.75, 0.25]
    focal = replace(experiment, teacher_loss="focal")
    assert teacher_bias(focal, counts).exp().tolist() == [0.75, 0.25]
    balanced = replace(experiment, teacher_loss="balanced_softmax")
    assert teacher_bias(balanced, counts).tolist() == [0, 0]


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


@pytest.mark.parametrize("field", ["teacher_loss", "student_loss", "distillation"])
def test_an_unknown_loss_is_refused_before_training(field, digits, quick, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", None)  # cannot be called
    with pytest.raises(ValueError, match=r"Unknown .* 'typo'; choose one of"):
        runs.train(replace(quick, **{field: "typo"}), digits, "student")


def test_networks_have_their_own_width_and_the_statistics_of_the_training_images(digits, quick):
    experiment = replace(quick, width=8, teacher_width=24)
    mean, std = digits.train.images.mean((0, 2, 3)), digits.train.images.std((0, 2, 3))
    for role, width in (("teacher", 24), ("student", 8)):
        network = runs.new_network(experiment, digits, role)
        assert network.settings["width"] == width
        assert np.allclose(network.mean.flatten(), mean, rtol=1e-4)
        assert np.allclose(network.std.flatten(), std, rtol=1e-4)
    assert not np.allclose(mean, digits.test.images.mean((0, 2, 3)), rtol=1e-4)


def test_metrics_are_those_of_the_splits_that_they_name(digits, quick):
    network, content = runs.train(quick, digits, "teacher")
    for split in ("test", "validation"):
        wanted = evaluate_network(network, getattr(digits, split), digits.groups)
        assert content["metrics"][split]["confusion"] == wanted["confusion"]
