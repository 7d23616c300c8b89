"""Optimisers: SGD, and Muon for short schedules."""

from typing import Any

import torch
from torch import Tensor, nn

from .schedules import Schedule

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of Jordan et al. (2024)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 in hardware; one without is slower in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def orthogonalised(matrix: Tensor, steps: int = 4) -> Tensor:
    """Bring all singular values of `matrix`, (M, N), near 1: U Vᵀ of its U S Vᵀ, roughly.

    A Newton-Schulz iteration, in bfloat16 where the device computes in it, cheaper than the
    decomposition. Singular values that are not far below the largest end between 0.7 and 1.2
    (Jordan et al. 2024, "Muon").

    >>> values = torch.linalg.svdvals(orthogonalised(torch.diag(torch.tensor([3.0, 1.0])), 5))
    >>> bool(((values > 0.6) & (values < 1.3)).all())
    True
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if computes_in_bfloat16(matrix.device) else matrix.float()
    x = x.T if len(x) > x.shape[1] else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if len(matrix) > matrix.shape[1] else x
    return x.to(matrix.dtype)


class Muon(torch.optim.SGD):
    """SGD with Nesterov momentum; in groups with `orthogonal` the update is orthogonalised.

    Meant for convolutions before a BatchNorm, whose scale means nothing: their squares are kept
    at a sum of 1 per output, on average, so the learning rate is a rotation per step.
    torch.optim.Muon takes matrices only, not convolutions.
    """

    @torch.no_grad()
    def step(self, closure=None):
        gradients = []
        for group in self.param_groups:
            for weight in group["params"] if group.get("orthogonal") else ():
                if weight.grad is not None:
                    self._rotate(weight, weight.grad, group["lr"], group["momentum"])
                    gradients.append((weight, weight.grad))
                    weight.grad = None  # leaves the others to SGD
        loss = super().step(closure)
        for weight, gradient in gradients:
            weight.grad = gradient
        return loss

    def _rotate(self, weight: Tensor, gradient: Tensor, rate: float, momentum: float) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        update = gradient.lerp(average, momentum)
        weight.mul_(len(weight) ** 0.5 / weight.norm())
        weight.sub_(rate * orthogonalised(update.flatten(1)).view_as(weight))


def optimizer_for(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The schedule's optimiser over the network's parameters.

    All but the classifier learn at `schedule.backbone_rate` of the learning rate. Muon takes the
    convolutions that have no bias, since a BatchNorm follows those.
    """
    rate, groups = schedule.learning_rate, _groups(network, schedule)
    plain: dict[str, Any] = {"weight_decay": schedule.weight_decay}
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, **plain)
    plain |= {"momentum": schedule.momentum, "nesterov": True}
    kind = torch.optim.SGD if schedule.optimizer == "sgd" else Muon
    return kind(groups, rate, **plain)


def _groups(network: nn.Module, schedule: Schedule) -> list[dict]:
    """Parameter groups: with Muon the convolutions, the matrices and the vectors; in two halves,
    backbone and classifier, where these learn at different rates."""
    weights = [w for w in network.parameters() if w.requires_grad]
    classifier = {id(w) for name, w in network.named_parameters() if name.startswith("classifier.")}
    slow, rate = schedule.backbone_rate, schedule.learning_rate
    groups: list[dict] = [{"params": weights}]
    if schedule.optimizer != "sgd":
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        free = {id(m.weight) for m in convolutions if m.bias is None and m.weight.shape[1] > 3}
        rotated = [w for w in weights if id(w) in free and schedule.optimizer == "muon"]
        taken = {id(w) for w in rotated}
        groups = [
            {"params": rotated, "lr": schedule.muon_rate, "orthogonal": True},
            {"params": [w for w in weights if w.ndim > 1 and id(w) not in taken]},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]
    if slow != 1:
        halves = ((slow, lambda w: id(w) not in classifier), (1.0, lambda w: id(w) in classifier))
        groups = [
            group | {"params": list(filter(own, group["params"])), "lr": s * group.get("lr", rate)}
            for group in groups
            for s, own in halves
        ]
    return [group for group in groups if group["params"]]
