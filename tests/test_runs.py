"""What the jobs share: teachers, the panel's pictures, the commands that make results again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from ltkd import runs
from ltkd.datasets import Split
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


@pytest.mark.parametrize("mix", ["tail_patches", "local_crops"])
def test_a_teacher_is_not_mixed_by_what_needs_a_teacher(mix, digits, quick):
    with pytest.raises(ValueError, match=f"cannot be mixed by '{mix}'.*choose none, cutmix"):
        runs.train(replace(quick, teacher_mix=mix), digits, "teacher")


def test_networks_have_their_own_width_and_the_statistics_of_the_training_images(digits, quick):
    experiment = replace(quick, width=8, teacher_width=24)
    mean, std = digits.train.images.mean((0, 2, 3)), digits.train.images.std((0, 2, 3))
    for role, width in (("teacher", 24), ("student", 8)):
        network = runs.new_network(experiment, digits, role)
        assert network.settings["width"] == width
        assert np.allclose(network.mean.flatten(), mean, rtol=1e-4)
        assert np.allclose(network.std.flatten(), std, rtol=1e-4)
    assert not np.allclose(mean, digits.test.images.mean((0, 2, 3)), rtol=1e-4)


def test_the_teacher_has_a_depth_and_a_stride_of_its_own_where_they_are_given(digits, quick):
    experiment = replace(quick, teacher_depth=14, teacher_stem_stride=2)
    shapes = {
        role: (network.settings["depth"], network.settings["stem_stride"])
        for role in ("teacher", "student")
        for network in [runs.new_network(experiment, digits, role)]
    }
    assert shapes == {"teacher": (14, 2), "student": (quick.depth, 1)}
    larger = replace(experiment, image_size=64)
    assert runs.new_network(larger, digits, "teacher").settings["stem_stride"] == 4
    assert runs.new_network(larger, digits, "student").settings["stem_stride"] == 2


@pytest.mark.parametrize("option", ["teacher_depth", "teacher_stem_stride"])
def test_nothing_is_no_depth_and_no_stride(digits, quick, option):
    with pytest.raises(ValueError, match=r"not 0\."):
        runs.new_network(replace(quick, **{option: 0}), digits, "teacher")


def test_every_seed_and_role_starts_from_weights_of_its_own(digits, quick):
    networks = [
        runs.new_network(replace(quick, seed=seed), digits, role)
        for seed, role in ((0, "teacher"), (1, "teacher"), (0, "student"), (0, "teacher"))
    ]
    first, *others, again = (network.classifier.weight for network in networks)
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)


def test_larger_images_have_a_stem_of_a_larger_stride(digits, quick):
    sizes = {32: 1, 64: 2, 224: 7}
    for size, stride in sizes.items():
        network = runs.new_network(replace(quick, image_size=size), digits, "teacher")
        assert network.settings["stem_stride"] == stride
    with pytest.raises(ValueError, match="multiple of 32 pixels, not 40"):
        runs.new_network(replace(quick, image_size=40), digits, "teacher")


def test_a_model_of_another_schedule_or_of_other_counts_is_not_taken(digits, quick, capsys):
    """Though it lies where this one would."""
    other = replace(quick, schedule=replace(quick.schedule, learning_rate=1e-3))
    runs.train(quick, digits, "teacher")
    path = quick.model_file("teacher")
    other.model_file("teacher").parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, other.model_file("teacher"))
    assert runs.train(other, digits, "teacher")[1]["experiment"] == other.as_dict()
    fewer = replace(digits, train=Split(*(field[1:] for field in digits.train)))
    assert runs.train(quick, fewer, "teacher")[1]["counts"] == fewer.counts.tolist()
    assert capsys.readouterr().out.count("is of another experiment or other data") == 2


def test_metrics_are_those_of_the_splits_that_they_name(digits, quick):
    network, content = runs.train(quick, digits, "teacher")
    for split in ("test", "validation"):
        wanted = evaluate_network(network, getattr(digits, split), digits.groups)
        assert content["metrics"][split]["confusion"] == wanted["confusion"]
