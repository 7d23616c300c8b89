"""Extensions that touch no file of ltkd: a loss term, a network, nothing saved."""

import itertools
import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from ltkd.evaluation import predict
from ltkd.initial import new_network
from ltkd.networks import ResNet
from ltkd.runs import train
from ltkd.training import TrainingError
from ltkd.trials import trial


class Tiny(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        self.look = nn.Conv2d(3, classes, 16, stride=16)

    def forward(self, images):
        return self.look(images / 255).flatten(2).transpose(1, 2)  # (B, 4, C)


def test_nothing_is_saved(narrow, digits, home):
    network = trial(narrow, digits)
    assert isinstance(network, ResNet) and not network.training
    assert not any(home.rglob("*.pth"))


def test_a_trial_is_the_training_of_the_experiment(narrow, digits):
    mine, theirs = trial(narrow, digits), train(narrow, digits, "teacher")[0]
    assert all(torch.equal(v, theirs.state_dict()[n]) for n, v in mine.state_dict().items())


def test_a_network_of_your_own(narrow, digits, shorten):
    mine = Tiny(10)
    before = mine.look.weight.detach().clone()
    found = trial(shorten(narrow, 2), digits, network=mine)
    assert found is mine and not torch.equal(mine.look.weight, before)
    assert predict(mine, digits.test.images[:3], patches=True).shape == (3, 4, 10)


def test_a_term_of_your_own_is_added_and_learned(narrow, digits, shorten):
    """A term that wants all logits to be 0 makes them smaller."""
    seen = []

    def small(batch, patches):
        seen.append((len(batch.labels), tuple(patches.shape[1:])))
        return {"small": 2 * patches.square().mean()}

    teacher = new_network(narrow, digits, "teacher")
    longer = shorten(narrow, 3)
    plain = trial(longer, digits, teacher)
    shrunk = trial(longer, digits, teacher, extra=small)
    sizes = [abs(predict(n, digits.test.images[:50])).mean() for n in (plain, shrunk)]
    assert sizes[1] < 0.7 * sizes[0]
    assert seen and set(seen) == {(64, (16, 10))}


def test_of_a_trial_that_fails_no_state_is_said_to_be_kept(narrow, digits, shorten):
    count = itertools.count()

    def late(batch, patches):  # the digits have five batches an epoch
        return {"late": patches.mean() * (math.nan if next(count) > 6 else 1)}

    with pytest.raises(TrainingError, match=r"step 3 of 5 in epoch 2: .* Nothing was saved\.$"):
        trial(shorten(narrow, 3), digits, extra=late)


def test_a_term_cannot_hide_another(narrow, digits):
    with pytest.raises(ValueError, match="has a term class already"):
        trial(narrow, digits, extra=lambda batch, patches: {"class": patches.mean()})


@pytest.mark.parametrize(
    "extra, said",
    [
        (lambda batch, patches: patches.mean(), "a tensor of shape (): it must give a dict"),
        (lambda batch, patches: {"mine": patches.mean((1, 2))}, "a tensor of shape (64,)"),
        (lambda batch, patches: {"mine": patches.mean()[None]}, "a tensor of shape (1,)"),
        (lambda batch, patches: {"mine": 0.0}, "a value of type float"),
    ],
)
def test_a_term_that_is_not_one_number_is_told(narrow, digits, extra, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        trial(narrow, digits, extra=extra)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda patches: patches.mean(1), "a tensor of shape (64, 10) for 64 images"),
        (lambda patches: patches[..., :7], "a tensor of shape (64, 4, 7)"),
        (lambda patches: patches[1:], "a tensor of shape (63, 4, 10)"),
        (lambda patches: (patches, patches), "a value of type tuple"),
    ],
)
def test_a_network_that_gives_no_patch_logits_is_told(narrow, digits, change, said):
    class Odd(Tiny):
        def forward(self, images):
            return change(super().forward(images))

    with pytest.raises(ValueError, match=re.escape(said) + r".*patch logits \(64, P, 10\)"):
        trial(narrow, digits, network=Odd(10))


@pytest.mark.parametrize("distillation", ["kd", "patch_informativeness"])
def test_a_network_of_your_own_may_teach(narrow, digits, distillation):
    """It has no `grid`, and as many patches as it likes."""
    mine = Tiny(10)
    kept = mine.look.weight.detach().clone()
    student = trial(replace(narrow, distillation=distillation), digits, mine, network=Tiny(10))
    assert predict(student, digits.test.images[:2], patches=True).shape == (2, 4, 10)
    assert torch.equal(mine.look.weight, kept)


def test_a_bank_is_not_shared_with_what_is_your_own(narrow, digits, home):
    experiment = replace(narrow, bank=1, distillation="kd")
    trial(experiment, digits, new_network(narrow, digits, "teacher"), Tiny(10))
    assert not list(home.rglob("teacher-outputs-*"))
