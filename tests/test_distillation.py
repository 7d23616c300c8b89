"""Distillation against hand values and against the papers' formulas in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax, xlogy

from ltkd import distillation as d

HEAD = torch.tensor([True, True, True, False, False, False, False])
LABELS = torch.tensor([0, 3, 6, 2, 2])
THIRDS = [[0, 1], [2, 3, 4], [5, 6]]
MASKS = [torch.tensor([c in third for c in range(7)]) for third in THIRDS]
CLASS_WEIGHTS = torch.tensor([0.1, 0.2, 0.5, 0.7, 1.0, 1.5, 3.0], dtype=torch.float64)


def logits_of(*shape, seed=0, dtype=torch.float64):
    """Teacher's and student's logits."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype))


def kl(p, q):
    """KL(p ‖ q) in float64, from probabilities."""
    return (xlogy(p, p) - xlogy(p, q)).sum(-1)


def same(found, expected, tolerance=1e-10):
    return np.allclose(found.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


def total(terms):
    return sum(terms.values()) if isinstance(terms, dict) else terms


# every loss as a function of (teacher, student), (5, 7)
LOSSES = {
    "kd": d.kd,
    "decoupled": lambda z, s: d.decoupled(z, s, HEAD),
    "dkd": lambda z, s: d.dkd(z, s, LABELS),
    "bkd": lambda z, s: d.bkd(z, s, CLASS_WEIGHTS),
    "dive": d.dive,
    "ltkd": lambda z, s: d.ltkd(z, s, MASKS),
}


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 10)])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.5])
def test_kd_in_float64(shape, temperature):
    teacher, student = logits_of(*shape)
    p, q = (softmax(z.numpy() / temperature, axis=-1) for z in (teacher, student))
    assert same(d.kd(teacher, student, temperature), temperature**2 * kl(p, q))


def test_kd_by_hand():
    # p = (3/4, 1/4) against (1/2, 1/2): 3/4 log(3/2) + 1/4 log(1/2)
    found = d.kd(torch.tensor([math.log(3), 0.0]), torch.zeros(2), temperature=1.0)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


@pytest.mark.parametrize("name", ["kd", "decoupled", "dkd"])
def test_identical_logits_give_0(name):
    teacher, _ = logits_of(5, 7)
    shifted = teacher + 3.0  # softmax does not see a common shift
    assert same(total(LOSSES[name](teacher, teacher)), 0)
    assert same(total(LOSSES[name](teacher, shifted)), 0)
    assert same(d.ltkd(teacher, shifted, MASKS)["within"], 0)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_positive_for_different_logits(name):
    assert (total(LOSSES[name](*logits_of(5, 7))) > 1e-3).all()


@pytest.mark.parametrize("shape", [(3,), (6, 7), (2, 4, 10), (2, 4, 100)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_chain_rule_gives_back_the_whole_divergence(shape, temperature):
    teacher, student = logits_of(*shape, seed=3)
    head = torch.arange(shape[-1]) % 3 == 0
    split = d.chain_rule(teacher, student, head, temperature)
    found = split.group + split.head_mass * split.head + split.tail_mass * split.tail
    p, q = (softmax(z.numpy() / temperature, axis=-1) for z in (teacher, student))
    assert found.shape == shape[:-1]
    assert same(found, kl(p, q)) and same(split.head_mass + split.tail_mass, 1)
    assert same(split.head_mass, p[..., head.numpy()].sum(-1))


def test_the_chain_rule_by_hand():
    # Teacher (1/2, 1/4 | 1/4), student (1/4, 1/4 | 1/2).
    teacher, student = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.25, 0.5]).log()
    split = d.chain_rule(teacher, student, torch.tensor([True, True, False]))
    # groups: (3/4, 1/4) against (1/2, 1/2); in the head: (2/3, 1/3) against (1/2, 1/2)
    assert split.group.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert split.head.item() == pytest.approx(2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    assert split.tail.item() == 0  # one class has nothing to be confused with
    assert (split.head_mass.item(), split.tail_mass.item()) == pytest.approx((0.75, 0.25))


@pytest.mark.parametrize("shape", [(6, 7), (2, 4, 7)])
def test_decoupled_with_the_teachers_masses_is_kd(shape):
    teacher, student = logits_of(*shape)
    mass = softmax(teacher.numpy() / 3, axis=-1)[..., :3].sum(-1)
    masses = torch.from_numpy(mass), torch.from_numpy(1 - mass)
    terms = d.decoupled(teacher, student, HEAD, 1.0, *masses, temperature=3.0)
    assert same(total(terms), d.kd(teacher, student, temperature=3.0).numpy())


def test_decoupled_terms_by_their_formula():
    teacher, student = logits_of(5, 7)
    found = d.decoupled(teacher, student, HEAD, 0.5, 2.0, 3.0, 2.0, 1.5, 4.0)
    z, s = teacher.numpy(), student.numpy()
    p, q = (softmax(x / 2, axis=-1) for x in (z, s))
    groups = [np.stack([x[:, :3].sum(1), x[:, 3:].sum(1)], -1) for x in (p, q)]
    inner = {
        g: t**2 * kl(softmax(z[:, cols] / t, axis=-1), softmax(s[:, cols] / t, axis=-1))
        for g, cols, t in (("head", slice(3), 1.5), ("tail", slice(3, 7), 4.0))
    }
    assert same(found["group"], 0.5 * 4 * kl(*groups))
    assert same(found["head"], 2 * inner["head"]) and same(found["tail"], 3 * inner["tail"])


@pytest.mark.parametrize("group", ["head", "tail"])
def test_a_groups_temperature_moves_its_own_term_alone(group):
    teacher, student = logits_of(5, 7)
    plain = d.decoupled(teacher, student, HEAD)
    softer = d.decoupled(teacher, student, HEAD, **{f"{group}_temperature": 5.0})
    moved = {name for name in plain if not torch.equal(plain[name], softer[name])}
    assert moved == {group}


def test_a_group_that_changes_is_seen():
    teacher, student = logits_of(5, 7)
    head = HEAD.clone()
    d.chain_rule(teacher, student, head)
    head[4] = True
    found, fresh = (d.chain_rule(teacher, student, h) for h in (head, head.clone()))
    assert all(torch.equal(*pair) for pair in zip(found, fresh, strict=True))


def test_a_group_that_was_looked_at_in_inference_can_be_trained_with():
    teacher, student = logits_of(5, 7)
    head = torch.tensor([True, False, True, False, True, False, True])  # not side by side
    with torch.inference_mode():
        d.chain_rule(teacher, student, head)
    total(d.decoupled(teacher, student.requires_grad_(), head)).sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("full", ["head", "tail"])
def test_an_empty_group_is_silent(full, dtype):
    teacher, student = logits_of(5, 7, dtype=dtype)
    student.requires_grad_()
    head = torch.full((7,), full == "head")
    terms = d.decoupled(teacher, student, head, temperature=1.0)
    total(terms).sum().backward()
    empty = "tail" if full == "head" else "head"
    assert same(terms[empty], 0) and same(terms["group"], 0, 1e-6)
    assert same(terms[full], d.kd(teacher, student, 1.0).detach().numpy(), 1e-5)
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_stay_finite(name):
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(-1, 2, (2, 5, 7), generator=generator)
    teacher, student = 1e3 * signs.float()
    student.requires_grad_()
    value = total(LOSSES[name](teacher, student)).sum()
    value.backward()
    assert value.isfinite() and value > 100
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision(name):
    values = (total(LOSSES[name](*logits_of(5, 7, dtype=t))) for t in (torch.half, torch.float))
    assert same(next(values).float(), next(values).numpy(), 0.05)


def dkd_parts(teacher, student, temperature):
    """TCKD, NCKD and the teacher's p_t of Zhao et al. (2022), image by image."""
    parts = []
    for z, s, label in zip(teacher.numpy(), student.numpy(), LABELS, strict=True):
        p, q = softmax(z / temperature), softmax(s / temperature)
        others = np.arange(7) != int(label)
        target = kl(*(np.array([x[int(label)], x[others].sum()]) for x in (p, q)))
        rest = kl(*(x[others] / x[others].sum() for x in (p, q)))
        parts.append((target, rest, p[int(label)]))
    return np.array(parts).T


def test_dkd_in_float64():
    teacher, student = logits_of(5, 7)
    target, rest, _ = dkd_parts(teacher, student, 4.0)
    found = d.dkd(teacher, student, LABELS, alpha=0.7, beta=5.0, temperature=4.0)
    assert same(found, 16 * (0.7 * target + 5.0 * rest))
    assert same(d.dkd(teacher, student, LABELS), 16 * (target + 8.0 * rest))  # as published


def test_dkd_takes_kd_apart():
    # KL = TCKD + (1 − p_t) · NCKD (Zhao et al. 2022, equation 7)
    teacher, student = logits_of(5, 7, seed=5)
    target, rest, p_t = dkd_parts(teacher, student, 1.0)
    tckd = d.dkd(teacher, student, LABELS, alpha=1, beta=0, temperature=1.0).numpy()
    nckd = d.dkd(teacher, student, LABELS, alpha=0, beta=1, temperature=1.0).numpy()
    assert np.allclose(tckd, target) and np.allclose(nckd, rest)
    assert same(d.kd(teacher, student, 1.0), tckd + (1 - p_t) * nckd)


@pytest.mark.parametrize("shape", [(5, 7), (2, 4, 7)])
def test_bkd_in_float64(shape):
    teacher, student = logits_of(*shape)
    p, q = (softmax(z.numpy() / 3, axis=-1) for z in (teacher, student))
    p = p * CLASS_WEIGHTS.numpy()
    p /= p.sum(-1, keepdims=True)
    assert same(d.bkd(teacher, student, CLASS_WEIGHTS, temperature=3.0), 9 * kl(p, q))
    assert same(d.bkd(teacher, student, torch.ones(7)), d.kd(teacher, student).numpy())


@pytest.mark.parametrize("shape", [(5, 7), (2, 4, 7)])
def test_dive_in_float64(shape):
    teacher, student = logits_of(*shape)
    p, q = (softmax(z.numpy() / 3, axis=-1) for z in (teacher, student))
    p = p**0.4 / (p**0.4).sum(-1, keepdims=True)
    assert same(d.dive(teacher, student, power=0.4, temperature=3.0), 9 * kl(p, q))
    assert same(d.dive(teacher, student, power=1.0), d.kd(teacher, student).numpy())


def test_ltkd_in_float64():
    teacher, student = logits_of(5, 7)
    p, q = (softmax(z.numpy() / 3, axis=-1) for z in (teacher, student))
    b, c = (np.stack([x[:, g].sum(1) for g in THIRDS], -1) for x in (p, q))
    scaled = b * (b.sum() / 3) / b.sum(0)  # (B, 3), every column now has the same sum
    assert np.allclose(scaled.sum(0), 5 / 3)
    rebalanced = scaled / scaled.sum(1, keepdims=True)
    within = 0
    for i, g in enumerate(THIRDS):
        within += kl(p[:, g] / b[:, i, None], q[:, g] / c[:, i, None])
    found = d.ltkd(teacher, student, MASKS, alpha=0.5, beta=2.0, temperature=3.0)
    assert same(found["group"], 0.5 * 9 * kl(rebalanced, c))
    assert same(found["within"], 2 * 9 * within)


def test_ltkd_of_a_teacher_that_is_all_too_sure():
    """In float32 a group that no image is of has no mass at all."""
    teacher, student = torch.tensor([[300.0, 0, 0]] * 4), torch.zeros(4, 3)
    masks = list(torch.eye(3, dtype=torch.bool))
    assert all(term.isfinite().all() for term in d.ltkd(teacher, student, masks).values())


def test_ltkd_leaves_out_an_empty_group():
    # Two classes have no thirds: all of them are in the middle, and plain kd is left.
    teacher, student = logits_of(5, 2)
    nobody, everybody = torch.tensor([False, False]), torch.tensor([True, True])
    terms = d.ltkd(teacher, student, [nobody, everybody, nobody])
    assert same(total(terms), d.kd(teacher, student).numpy())
