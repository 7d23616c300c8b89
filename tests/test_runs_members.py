"""A teacher of several networks: what it says, how it is trained, saved and used."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ltkd import runs
from ltkd.checkpoints import load_checkpoint
from ltkd.classifier import ModelPair
from ltkd.evaluation import evaluate_network, predict
from ltkd.experiments import Experiment
from ltkd.files import shown
from ltkd.networks import Ensemble, ResNet
from ltkd.results import results
from ltkd.training import Trainer


@pytest.fixture
def several(narrow) -> Experiment:
    return replace(narrow, seed=3, teacher_members=2)


def member(experiment: Experiment, seed: int) -> Experiment:
    return replace(experiment, teacher_members=1, seed=seed)


def test_the_logits_are_the_mean():
    networks = [ResNet(2, depth=8, width=1) for _ in range(3)]
    for network, bias in zip(networks, ((1.0, 0.0), (2.0, 6.0), (6.0, 3.0)), strict=True):
        torch.nn.init.zeros_(network.classifier.weight)
        network.classifier.bias.data = torch.tensor(bias)
    said = Ensemble(networks).eval()(torch.zeros(1, 3, 32, 32))
    assert said.tolist() == [[[3.0, 3.0]] * 16]  # (1 + 2 + 6) / 3 and (0 + 6 + 3) / 3


def test_what_is_no_ensemble():
    with pytest.raises(ValueError, match="two members or more, not 1"):
        Ensemble([ResNet(2, depth=8)])
    with pytest.raises(ValueError, match="one shape; these have several"):
        Ensemble([ResNet(2, depth=8), ResNet(2, depth=14)])


def test_a_teacher_has_a_member_at_least(narrow):
    with pytest.raises(ValueError, match="teacher_members of an experiment is at least 1, not 0"):
        replace(narrow, teacher_members=0)


def test_the_members_are_the_teachers_of_the_next_seeds(digits, several):
    teacher, content = runs.train(several, digits, "teacher")
    alone = [runs.train(member(several, seed), digits, "teacher") for seed in (3, 4)]
    images = digits.test.images[:20]
    first, second = (predict(network, images, patches=True) for network, _ in alone)
    assert not np.allclose(first, second)
    assert predict(teacher, images, patches=True) == pytest.approx((first + second) / 2, abs=1e-5)
    metrics, theirs = content["metrics"], [own["metrics"] for _, own in alone]
    assert metrics["parameters"] == 2 * theirs[0]["parameters"]
    assert metrics["seconds"] == pytest.approx(sum(own["seconds"] for own in theirs))
    assert metrics["precision"] == theirs[0]["precision"]
    for split in ("validation", "test"):
        found = evaluate_network(teacher, getattr(digits, split), digits.groups)
        assert metrics[split]["all"] == found["all"]
    losses = [own["history"][0]["class"] for _, own in alone]
    assert [epoch["class"] for epoch in content["history"]] == [pytest.approx(np.mean(losses))]


def test_what_is_trained_already_is_not_trained_again(digits, several, monkeypatch, capsys):
    fit, trained = Trainer.fit, []

    def counting(trainer):
        trained.append(trainer.seed)
        if trained == [3, 4]:
            raise KeyboardInterrupt
        return fit(trainer)

    monkeypatch.setattr(Trainer, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        runs.train(several, digits, "teacher")
    assert not several.model_file("teacher").exists()
    for _ in range(2):
        runs.train(several, digits, "teacher")
    assert trained == [3, 4, 4]
    said = capsys.readouterr().out
    assert "The mean of these 2 networks is the teacher, saved to " in said
    assert f"The teacher is loaded from {shown(several.model_file('teacher'))}" in said


def test_a_student_learns_from_all_of_them(digits, several):
    runs.train(several, digits, "student")
    summary = results(several, digits)
    assert summary["command"].startswith("python -m ltkd student digits-lt --")
    assert "--teacher-members 2" in summary["command"]
    assert summary["teacher"]["parameters"] == 2 * summary["student"]["parameters"]
    picture = Image.fromarray(digits.test.images[0].transpose(1, 2, 0))
    said = ModelPair.of(several).classifier("teacher").predict(picture)
    teacher = load_checkpoint(several.model_file("teacher"))[0]
    (logits,) = predict(teacher, digits.test.images[:1])
    assert said.patch_logits.mean((0, 1)) == pytest.approx(logits, abs=1e-4)


def test_so_many_take_so_much_longer(digits, several, monkeypatch):
    from ltkd import estimates

    asked = []
    monkeypatch.setattr(estimates, "_step", lambda network, teacher, *_: asked.append(teacher) or 1)
    once = runs.expected_seconds(member(several, 3), digits, "teacher")
    assert runs.expected_seconds(several, digits, "teacher") == 2 * once
    assert runs.expected_seconds(several, digits, "student") == once
    assert len(asked[-1].members) == 2
