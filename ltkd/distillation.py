"""Distillation: the chain-rule split of KL, patch weights, and the published baselines.

Functions take logits (…, C) of teacher and student, image logits (B, C) or patch logits
(B, P, C), and return losses (…) over the leading axes. All are scaled by T², so that the gradient
does not shrink as the temperature T grows (Hinton et al. 2015).
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import processes
from .options import check_choice


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) over the last axis, from log-probabilities."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kd(teacher: Tensor, student: Tensor, temperature: float = 2.0) -> Tensor:
    """T² · KL(softmax(z^T/T) ‖ softmax(z^S/T)), (…) (Hinton et al. 2015).

    >>> kd(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    tensor(0.)
    """
    log_p, log_q = (F.log_softmax(z / temperature, -1) for z in (teacher, student))
    return temperature**2 * divergence(log_p, log_q)


class ChainRule(NamedTuple):
    """KL(p^T ‖ p^S) = group + head_mass · head + tail_mass · tail; each (…)."""

    group: Tensor  # KL(b^T ‖ b^S): how much mass head and tail get
    head: Tensor  # KL(p̂_H^T ‖ p̂_H^S): which head class
    tail: Tensor  # KL(p̂_T^T ‖ p̂_T^S): which tail class
    head_mass: Tensor  # b_H^T
    tail_mass: Tensor  # b_T^T


def chain_rule(
    teacher: Tensor,
    student: Tensor,
    head: Tensor,
    temperature: float = 1.0,
    head_temperature: float | None = None,
    tail_temperature: float | None = None,
) -> ChainRule:
    """Split the divergence of teacher and student between and within head and tail.

    `head` is bool (C,). The identity of `ChainRule` holds where all temperatures are the same;
    a group's own temperature softens its inner distributions only. No factor T² is applied.

    >>> z, s = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
    >>> split = chain_rule(z, s, torch.tensor([True, True, False]))
    >>> total = split.group + split.head_mass * split.head + split.tail_mass * split.tail
    >>> torch.isclose(total, kd(z, s, temperature=1.0))
    tensor(True)
    """
    tail = _others(head, _version(head))
    teacher_mass, student_mass = (
        _group_log_masses(z / temperature, [head, tail]) for z in (teacher, student)
    )
    masses = teacher_mass.exp()
    return ChainRule(
        divergence(teacher_mass, student_mass),
        _within(teacher, student, head, head_temperature or temperature),
        _within(teacher, student, tail, tail_temperature or temperature),
        masses[..., 0],
        masses[..., 1],
    )


# Which classes a group has is asked once and kept, for the answer lets a GPU wait: until the group
# changes, and in a form that can be trained with.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _others(group: Tensor, version: int) -> Tensor:
    return ~group


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _members(group: Tensor, version: int) -> slice | Tensor:
    """The places of a group's classes, as a slice where they stand side by side."""
    places = group.nonzero()[:, 0]
    first, number = (int(places[0]), len(places)) if len(places) else (0, 0)
    if number == 0 or int(places[-1]) == first + number - 1:
        return slice(first, first + number)  # a view, several times as fast
    return places


def _version(group: Tensor) -> int:
    """Another number after every change of the tensor."""
    return 0 if group.is_inference() else group._version


def _part(logits: Tensor, group: Tensor) -> Tensor:
    """The logits of the group's classes, (…, classes of the group)."""
    places = _members(group, _version(group))
    if isinstance(places, slice):
        return logits[..., places]
    return logits.index_select(-1, places)


def _group_log_masses(logits: Tensor, groups: list[Tensor]) -> Tensor:
    """log Σ_{c in group} softmax(z)_c, (…, groups)."""
    sums = [_part(logits, group).logsumexp(-1) for group in groups]
    # an empty group has mass 0; a number in place of −∞ keeps differences of two such 0, not NaN
    return F.log_softmax(torch.stack(sums, -1).clamp(min=_nothing(logits)), -1)


def _nothing(logits: Tensor) -> float:
    """The log of no probability, as a number that can be subtracted."""
    return max(-1e30, torch.finfo(logits.dtype).min / 2)


def _within(teacher: Tensor, student: Tensor, group: Tensor, temperature: float) -> Tensor:
    """KL between the two softmaxes over the group's classes alone, (…)."""
    return divergence(
        *(F.log_softmax(_part(z, group) / temperature, -1) for z in (teacher, student))
    )


def decoupled(
    teacher: Tensor,
    student: Tensor,
    head: Tensor,
    alpha: float = 1.0,
    beta_head: float | Tensor = 1.0,
    beta_tail: float | Tensor = 1.0,
    temperature: float = 2.0,
    head_temperature: float | None = None,
    tail_temperature: float | None = None,
) -> dict[str, Tensor]:
    """Decoupled distillation: α · group + β_H · head + β_T · tail, as named terms (…).

    The chain rule weighs the tail's term by b_T^T, the mass that the teacher gives to tail
    classes; a teacher trained on long-tailed data gives them little, so the term falls silent.
    Here the coefficients are chosen instead. α = 1 and β_g = b_g^T give back `kd`.
    """
    split = chain_rule(teacher, student, head, temperature, head_temperature, tail_temperature)
    t_head, t_tail = head_temperature or temperature, tail_temperature or temperature
    return {
        "group": alpha * temperature**2 * split.group,
        "head": beta_head * t_head**2 * split.head,
        "tail": beta_tail * t_tail**2 * split.tail,
    }


def dkd(
    teacher: Tensor,
    student: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation (Zhao et al. 2022): target and other classes, (B,).

    α · KL(b^T ‖ b^S) + β · KL(p̂^T ‖ p̂^S), b the mass of the label and of the rest, p̂ the
    distribution among the rest.
    """
    target = F.one_hot(labels, teacher.shape[-1]).bool()
    masses, others = [], []
    for logits in (teacher, student):
        log_p = F.log_softmax(logits / temperature, -1)
        # a number in place of −∞: the difference of two is 0, not NaN
        rest = log_p.masked_fill(target, _nothing(log_p))
        masses.append(
            torch.stack([log_p.gather(-1, labels[:, None])[:, 0], rest.logsumexp(-1)], -1)
        )
        others.append(F.log_softmax(rest, -1))
    return temperature**2 * (alpha * divergence(*masses) + beta * divergence(*others))


def bkd(
    teacher: Tensor, student: Tensor, class_weights: Tensor, temperature: float = 2.0
) -> Tensor:
    """Balanced knowledge distillation (Zhang et al. 2021), (…).

    The teacher's probabilities are multiplied by `class_weights` (C,), see
    losses.class_balanced_weights, and scaled to sum 1.
    """
    log_p = F.log_softmax(teacher / temperature + class_weights.log().to(teacher), -1)
    return temperature**2 * divergence(log_p, F.log_softmax(student / temperature, -1))


def dive(teacher: Tensor, student: Tensor, power: float = 0.5, temperature: float = 2.0) -> Tensor:
    """Distilling virtual examples (He et al. 2021): the teacher flattened by `power`, (…).

    p̃ ∝ softmax(z^T/T)^power, then T² · KL(p̃ ‖ softmax(z^S/T)).
    """
    log_p = F.log_softmax(power * teacher / temperature, -1)
    return temperature**2 * divergence(log_p, F.log_softmax(student / temperature, -1))


def ltkd(
    teacher: Tensor,
    student: Tensor,
    groups: list[Tensor],
    alpha: float = 1.0,
    beta: float = 1.0,
    temperature: float = 2.0,
) -> dict[str, Tensor]:
    """Long-tailed knowledge distillation (Kim 2025), as named terms (…).

    The teacher's mass of each of three groups (bool (C,), a third of the classes each, by rank) is
    scaled so that the groups' sums over the batch are equal, then made to sum 1 per image; the
    terms within the groups all count the same.
    """
    groups = [group for group in groups if group.any()]  # two classes leave two groups empty
    masses = _group_log_masses(teacher / temperature, groups)
    tiny = torch.finfo(masses.dtype).tiny  # a group that no image is of has no mass to share out
    sums = processes.mean(masses.exp().flatten(0, -2).sum(0)).clamp(min=tiny).log()  # (groups,)
    rebalanced = F.log_softmax(masses - sums, -1)
    student_masses = _group_log_masses(student / temperature, groups)
    parts = [_within(teacher, student, group, temperature) for group in groups]
    within = sum(parts, masses.new_zeros(()))
    return {
        "group": alpha * temperature**2 * divergence(rebalanced, student_masses),
        "within": beta * temperature**2 * within,
    }


def informativeness(posteriors: Tensor, mean: Tensor) -> Tensor:
    """I_p = KL(q_p ‖ q̄), (B, P): how far a patch's posterior is from the average patch's.

    `posteriors` (B, P, C), already freed of the class prior; `mean` (C,), class-balanced.

    >>> informativeness(torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]), torch.tensor([0.5, 0.5])).exp()
    tensor([[1., 2.]])
    """
    tiny = torch.finfo(posteriors.dtype).tiny
    ratio = posteriors.clamp(min=tiny) / mean.clamp(min=tiny)
    return torch.xlogy(posteriors, ratio).sum(-1).clamp(min=0)  # rounding can go below 0


def ambiguity(posteriors: Tensor, head: Tensor) -> Tensor:
    """s_p = 4 h_p (1 − h_p), (B, P), h_p the head mass of the patch's posterior (B, P, C).

    1 where the patch speaks for head and tail alike, 0 where for one side alone.

    >>> ambiguity(torch.tensor([[[0.5, 0.5], [1.0, 0.0]]]), torch.tensor([True, False]))
    tensor([[1., 0.]])
    """
    mass = posteriors[..., head].sum(-1)
    return 4 * mass * (1 - mass)


def patch_weights(scores: Tensor, control: str | None = None) -> Tensor:
    """Weights w_p ∝ score, mean 1 over the patches of an image, (B, P), without gradient.

    Where all scores of an image are 0, its weights are 1.

    Parameters
    ----------
    scores : (B, P), not negative
    control : None; "shuffled", the weights in random order within each image; "inverted", the
        largest weight on the patch of the smallest score, and so on. Both keep the set of weights.

    >>> patch_weights(torch.tensor([[1.0, 2.0, 3.0]]), "inverted")
    tensor([[1.5000, 1.0000, 0.5000]])
    """
    check_choice("control", control, (None, "shuffled", "inverted"))
    scores = scores.detach() + 1e-6  # above the rounding of float32
    weights = scores / scores.mean(-1, keepdim=True)
    if control is None:
        return weights
    if control == "shuffled":
        order = torch.rand(weights.shape).argsort(-1).to(weights.device)
        return weights.gather(-1, order)
    ranks = weights.argsort(-1).argsort(-1)
    return weights.sort(-1, descending=True).values.gather(-1, ranks)
