"""Muon against the decomposition it approximates, and against plain SGD."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from ltkd.networks import ResNet
from ltkd.optimizers import Muon, optimizer_for, orthogonalised
from ltkd.schedules import SCHEDULES, Schedule

MUON = Schedule("m", 1, optimizer="muon", learning_rate=0.1, muon_rate=0.05)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8)])
def test_singular_values_come_near_one_and_vectors_stay(shape, bf16, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    matrix = u @ torch.diag(s.clamp(min=0.3 * s.max().item())) @ v
    found = orthogonalised(matrix, steps=5)
    assert found.shape == shape and found.dtype == matrix.dtype
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ v).flatten(), 0) > 0.97


def test_the_size_of_the_gradient_means_nothing():
    matrix = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(orthogonalised(1024 * matrix), orthogonalised(matrix), atol=1e-6)
    assert not orthogonalised(torch.zeros(3, 4)).any()  # and not a division by zero


def test_one_step_is_a_rotation_of_the_rate():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(3 * torch.randn(8, 4, 3, 3))
    before = weight.detach() * 8**0.5 / weight.detach().norm()  # squares sum to 1 per output
    optimizer = Muon(
        [{"params": [weight], "orthogonal": True}], lr=0.1, momentum=0.9, nesterov=True
    )
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    change = (before - weight.detach()).flatten(1)
    expected = 0.1 * orthogonalised(weight.grad.flatten(1))
    assert torch.nn.functional.cosine_similarity(change.flatten(), expected.flatten(), 0) > 0.99
    assert change.norm().item() == pytest.approx(expected.norm().item(), rel=0.02)
    assert weight.grad is not None


def test_two_steps_look_ahead_as_nesterov_does():
    torch.manual_seed(0)
    weight, first, second = torch.nn.Parameter(torch.randn(8, 4, 3, 3)), *torch.randn(2, 8, 4, 3, 3)
    wanted, m = weight.detach().clone(), 0.8
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.1, momentum=m, nesterov=True)
    average = torch.zeros_like(wanted)
    for gradient in first, second:
        weight.grad = gradient
        optimizer.step()
        average = m * average + (1 - m) * gradient
        update = m * average + (1 - m) * gradient  # the average as it will be, not as it is
        wanted *= 8**0.5 / wanted.norm()
        wanted -= 0.1 * orthogonalised(update.flatten(1)).view_as(wanted)
    # the iteration rounds to bfloat16
    torch.testing.assert_close(weight.detach(), wanted, atol=2e-3, rtol=0)


def test_other_parameters_go_the_way_of_sgd():
    torch.manual_seed(0)
    start, gradient = torch.randn(5, 3), torch.randn(5, 3)
    results = []
    for kind in Muon, torch.optim.SGD:
        weight = torch.nn.Parameter(start.clone())
        conv = torch.nn.Parameter(torch.randn(4, 4, 3, 3))
        groups = [{"params": [weight]}]
        groups += [{"params": [conv], "orthogonal": True}] if kind is Muon else []
        optimizer = kind(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
        for _ in range(3):
            weight.grad, conv.grad = gradient.clone(), torch.randn_like(conv)
            optimizer.step()
        results.append(weight.detach())
    assert torch.equal(*results)


def test_every_parameter_is_in_one_group_and_the_stem_is_not_rotated():
    network = ResNet(10, depth=8)
    groups = optimizer_for(network, MUON).param_groups
    found = [id(w) for group in groups for w in group["params"]]
    assert sorted(found) == sorted(id(w) for w in network.parameters())
    rotated = [g for g in groups if g.get("orthogonal")]
    assert [g["lr"] for g in rotated] == [0.05]
    decay = {id(w): group["weight_decay"] for group in groups for w in group["params"]}
    for w in network.parameters():  # scales and biases are free, as of every BatchNorm
        assert decay[id(w)] == (0 if w.ndim == 1 else MUON.weight_decay)
    assert all(w.ndim == 4 for w in rotated[0]["params"]) and len(rotated[0]["params"]) == 6
    assert all(network.stem.weight is not w for w in rotated[0]["params"])


@pytest.mark.parametrize("schedule", [MUON, replace(MUON, optimizer="adamw")])
def test_a_single_number_is_trained_too(schedule):
    network = torch.nn.Linear(2, 2)
    network.scale = torch.nn.Parameter(torch.tensor(1.0))
    groups = optimizer_for(network, schedule).param_groups
    assert any(w is network.scale for group in groups for w in group["params"])


def test_the_state_is_saved_and_taken_up_again():
    torch.manual_seed(0)
    network, gradients = ResNet(4, depth=8, width=4), []
    for w in network.parameters():
        gradients.append(torch.randn_like(w))

    def step(optimizer, of):
        for w, gradient in zip(of.parameters(), gradients, strict=True):
            w.grad = gradient.clone()
        optimizer.step()

    first = optimizer_for(network, MUON)
    step(first, network)
    copy = ResNet(4, depth=8, width=4)
    copy.load_state_dict(network.state_dict())
    second = optimizer_for(copy, MUON)
    second.load_state_dict(deepcopy(first.state_dict()))
    step(first, network)
    step(second, copy)
    pairs = zip(network.parameters(), copy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_plain_schedules_use_sgd():
    assert type(optimizer_for(ResNet(4, depth=8), SCHEDULES["paper"])) is torch.optim.SGD
    with pytest.raises(ValueError, match=r"'adam'.*sgd, muon"):
        Schedule("x", 1, optimizer="adam")
