"""Fresh networks: their shapes, their seeds, and what is refused before any training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ltkd.initial import check_networks, new_network
from ltkd.runs import train
from ltkd.training import Trainer


def test_networks_have_their_own_width_and_the_statistics_of_the_training_images(digits, quick):
    experiment = replace(quick, width=8, teacher_width=24)
    mean, std = digits.train.images.mean((0, 2, 3)), digits.train.images.std((0, 2, 3))
    for role, width in (("teacher", 24), ("student", 8)):
        network = new_network(experiment, digits, role)
        assert network.settings["width"] == width
        assert np.allclose(network.mean.flatten(), mean, rtol=1e-4)
        assert np.allclose(network.std.flatten(), std, rtol=1e-4)
    assert not np.allclose(mean, digits.test.images.mean((0, 2, 3)), rtol=1e-4)


def test_the_teacher_has_a_depth_and_a_stride_of_its_own_where_they_are_given(digits, quick):
    experiment = replace(quick, teacher_depth=14, teacher_stem_stride=2)
    shapes = {
        role: (network.settings["depth"], network.settings["stem_stride"])
        for role in ("teacher", "student")
        for network in [new_network(experiment, digits, role)]
    }
    assert shapes == {"teacher": (14, 2), "student": (quick.depth, 1)}
    larger = replace(experiment, image_size=64)
    assert new_network(larger, digits, "teacher").settings["stem_stride"] == 4
    assert new_network(larger, digits, "student").settings["stem_stride"] == 2


@pytest.mark.parametrize("option", ["teacher_depth", "teacher_stem_stride"])
def test_nothing_is_no_depth_and_no_stride(digits, quick, option):
    with pytest.raises(ValueError, match=r"not 0\."):
        new_network(replace(quick, **{option: 0}), digits, "teacher")


def test_every_seed_and_role_starts_from_weights_of_its_own(digits, quick):
    networks = [
        new_network(replace(quick, seed=seed), digits, role)
        for seed, role in ((0, "teacher"), (1, "teacher"), (0, "student"), (0, "teacher"))
    ]
    first, *others, again = (network.classifier.weight for network in networks)
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)


def test_larger_images_have_a_stem_of_a_larger_stride(digits, quick):
    sizes = {32: 1, 64: 2, 224: 7}
    for size, stride in sizes.items():
        network = new_network(replace(quick, image_size=size), digits, "teacher")
        assert network.settings["stem_stride"] == stride
    with pytest.raises(ValueError, match="multiple of 32 pixels, not 40"):
        new_network(replace(quick, image_size=40), digits, "teacher")


def test_the_cosine_that_ldam_needs_stands_wherever_ldam_does(digits, quick):
    for change, kinds in (
        ({}, ("linear", "linear")),
        ({"teacher_loss": "ldam_drw"}, ("cosine", "linear")),
        ({"student_loss": "ldam_drw"}, ("linear", "cosine")),
        ({"student_tail_loss": "ldam_drw"}, ("linear", "cosine")),
    ):
        experiment = replace(quick, **change)
        networks = (new_network(experiment, digits, role) for role in ("teacher", "student"))
        assert tuple(n.settings["classifier"] for n in networks) == kinds


@pytest.mark.parametrize("stride, patches", [(3, (9, 16)), (4, (4, 16)), (8, (1, 16))])
def test_patches_that_do_not_fit_are_refused_before_training(
    digits, quick, stride, patches, monkeypatch
):
    monkeypatch.setattr(Trainer, "fit", None)  # cannot be called
    experiment = replace(quick, teacher_stem_stride=stride)
    said = f"sees {patches[0]} patches and the student {patches[1]}, so 'image_and_patch' cannot"
    with pytest.raises(ValueError, match=said):
        train(experiment, digits, "student")
    check_networks(replace(experiment, distillation="kd"))  # compares no patches
    check_networks(replace(quick, teacher_stem_stride=2))


def test_the_patches_of_the_small_images_have_to_fit_too(quick):
    """At 32 pixels both see 2 × 2 patches; at 24 the maps have sides of 2 and 1."""
    experiment = replace(quick, stem_stride=4, teacher_stem_stride=6)
    check_networks(experiment)
    with pytest.raises(ValueError, match=r"of 24 pixels the teacher sees 1 patches and .* 4,"):
        check_networks(replace(experiment, schedule=replace(quick.schedule, small=0.5)))


def test_a_network_that_cannot_be_built_is_refused_before_training(digits, quick, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", None)  # cannot be called
    with pytest.raises(ValueError, match=r"The depth of this ResNet is .*, not 9"):
        train(replace(quick, depth=9, teacher_depth=8), digits, "student")


def test_looking_at_the_networks_draws_no_random_number(quick):
    torch.manual_seed(0)
    check_networks(quick)
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(3))
