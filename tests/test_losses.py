"""Class losses against hand values and against the papers' formulas in float64."""

import math
import re

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from ltkd import losses
from ltkd.losses import CLASS_LOSSES, ClassLoss

COUNTS = torch.tensor([100, 20, 5, 1])
HEAD = torch.tensor([True, True, False, False])


@pytest.fixture
def batch():
    """Logits (8, 4) in float64 and labels (8,) that hold every class."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return logits, torch.tensor([0, 1, 2, 3, 0, 0, 1, 2])


def reference_ce(logits, labels):
    logits = np.asarray(logits, np.float64)
    return -log_softmax(logits, axis=1)[np.arange(len(logits)), np.asarray(labels)]


def test_cross_entropy(batch):
    assert losses.cross_entropy(*batch).numpy() == pytest.approx(reference_ce(*batch), rel=1e-12)


def test_cross_entropy_by_hand():
    # softmax(log 3, 0) = (3/4, 1/4)
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])
    found = losses.cross_entropy(logits, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([math.log(4 / 3), math.log(4)])


def test_focal_with_gamma_0_is_cross_entropy(batch):
    assert torch.equal(losses.focal(*batch, gamma=0), losses.cross_entropy(*batch))


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_focal_of_a_certain_image_has_a_slope(gamma):
    logits = torch.tensor([[100.0, 0.0]], requires_grad=True)
    losses.focal(logits, torch.tensor([0]), gamma).sum().backward()
    assert logits.grad.abs().max() < 1e-6  # and so no NaN


def test_focal_by_hand():
    # p_y = 3/4: (1/4)² · log(4/3); p_y = 1/4: (3/4)² · log 4
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])
    found = losses.focal(logits, torch.tensor([0, 1]), gamma=2)
    assert found.tolist() == pytest.approx([math.log(4 / 3) / 16, 9 * math.log(4) / 16])


def test_focal_in_float64(batch):
    ce = reference_ce(*batch)
    expected = (1 - np.exp(-ce)) ** 1.5 * ce
    assert losses.focal(*batch, gamma=1.5).numpy() == pytest.approx(expected, rel=1e-9)


def test_class_balanced_weights_by_hand():
    # β = 1/2, n = 1, 2: 0.5/0.5 = 1 and 0.5/0.75 = 2/3; mean 5/6; scaled to 6/5 and 4/5
    weights = losses.class_balanced_weights(torch.tensor([1, 2]), beta=0.5)
    assert weights.tolist() == pytest.approx([1.2, 0.8])


def test_class_balanced_weights_between_their_limits():
    inverse = (1 / COUNTS).numpy()
    near_one = losses.class_balanced_weights(COUNTS, beta=1 - 1e-9).numpy()
    assert losses.class_balanced_weights(COUNTS, beta=0).tolist() == [1, 1, 1, 1]
    assert near_one == pytest.approx(inverse / inverse.mean(), rel=1e-5)
    assert losses.class_balanced_weights(COUNTS, beta=0.9).mean().item() == pytest.approx(1)


def test_class_balanced_loss_weighs_by_label(batch):
    found = CLASS_LOSSES["class_balanced"](*batch, COUNTS).numpy()
    effective = (1 - 0.9999 ** COUNTS.numpy().astype(float)) / (1 - 0.9999)
    weights = (1 / effective) / np.mean(1 / effective)
    assert found == pytest.approx(weights[batch[1]] * reference_ce(*batch), rel=1e-6)


def margins_of(counts, **settings):
    """With all logits equal to 0, the loss is log(1 + (C − 1) · e^(scale · Δ))."""
    labels = torch.arange(len(counts))
    zeros = torch.zeros(len(counts), len(counts), dtype=torch.float64)
    loss = losses.ldam(zeros, labels, counts, scale=1.0, **settings)
    return torch.log((loss.exp() - 1) / (len(counts) - 1))


def test_ldam_margins_follow_the_fourth_root():
    # n = 16, 81, 1: n^(−1/4) = 1/2, 1/3, 1; the largest margin is 0.6
    margins = margins_of(torch.tensor([16, 81, 1]), max_margin=0.6)
    assert margins.tolist() == pytest.approx([0.3, 0.2, 0.6])


def test_the_largest_margin_is_that_of_the_smallest_class_whatever_its_size():
    # n = 256, 16: n^(−1/4) = 1/4, 1/2
    margins = margins_of(torch.tensor([256, 16]), max_margin=0.5)
    assert margins.tolist() == pytest.approx([0.25, 0.5])


def test_ldam_by_hand():
    # Two classes of n = 1 and 16, margins 0.5 and 0.25, scale 4: the true logit falls by 2 and 1.
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    found = losses.ldam(logits, torch.tensor([0, 1]), torch.tensor([1, 16]), scale=4.0)
    assert found.tolist() == pytest.approx([math.log(2), math.log(2)])


def test_ldam_in_float64(batch):
    logits, labels = batch
    margins = COUNTS.numpy().astype(float) ** -0.25
    lowered = logits.numpy().copy()
    for row, label in enumerate(labels):
        lowered[row, label] -= 30 * 0.5 * margins[label] / margins.max()
    found = losses.ldam(logits, labels, COUNTS).numpy()
    assert found == pytest.approx(reference_ce(lowered, labels), rel=1e-10)


def test_the_log_prior_is_that_of_class_shares():
    found = losses.log_prior(torch.tensor([3, 1])).tolist()
    assert found == pytest.approx([math.log(0.75), math.log(0.25)])


def test_logit_adjustment_adds_the_log_prior(batch):
    logits, labels = batch
    prior = COUNTS.numpy() / 126
    for tau in (0.0, 0.5, 1.0, 2.0):
        expected = reference_ce(logits.numpy() + tau * np.log(prior), labels)
        found = losses.logit_adjustment(logits, labels, COUNTS, tau).numpy()
        assert found == pytest.approx(expected, rel=1e-5)


def test_balanced_softmax_by_its_own_formula(batch):
    # −log of n_y e^{z_y} / Σ_c n_c e^{z_c} (Ren et al. 2020)
    logits, labels = batch[0].numpy(), batch[1].numpy()
    mass = COUNTS.numpy() * np.exp(logits)
    expected = -np.log(mass[np.arange(8), labels] / mass.sum(1))
    assert losses.balanced_softmax(*batch, COUNTS).numpy() == pytest.approx(expected, rel=1e-5)


def test_balanced_softmax_of_equal_counts_is_cross_entropy(batch):
    found = losses.balanced_softmax(*batch, torch.tensor([7, 7, 7, 7])).numpy()
    assert found == pytest.approx(reference_ce(*batch), rel=1e-6)


def test_decouple_averages_each_group_over_its_own_images():
    # head rows: 1 and 3; tail row: 8. With weights 3, 1 and 2: (3·1 + 1·3)/4 and 8.
    values, labels = torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0, 1, 3])
    plain = losses.decouple(values, labels, HEAD)
    weighted = losses.decouple(values, labels, HEAD, torch.tensor([3.0, 1.0, 2.0]))
    assert [v.item() for v in plain] == pytest.approx([2.0, 8.0])
    assert [v.item() for v in weighted] == pytest.approx([1.5, 8.0])


@pytest.mark.parametrize("labels, empty", [([0, 1, 0], 1), ([2, 3, 3], 0)])
def test_decouple_of_a_batch_without_one_group(labels, empty):
    logits = torch.randn(3, 4, requires_grad=True)
    labels = torch.tensor(labels)
    terms = losses.decouple(losses.cross_entropy(logits, labels), labels, HEAD)
    sum(terms).backward()
    assert terms[empty].item() == 0
    assert terms[1 - empty].item() > 0
    assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_class_loss_is_the_mean_of_its_function(name, batch):
    terms = ClassLoss(name, COUNTS)(*batch)
    assert list(terms) == ["class"]
    expected = CLASS_LOSSES[name](*batch, COUNTS).mean().item()
    assert terms["class"].item() == pytest.approx(expected)


def test_class_loss_decoupled(batch):
    logits, labels = batch
    loss = ClassLoss("cross_entropy", COUNTS, "balanced_softmax", HEAD, tail_weight=0.3)
    terms = loss(logits, labels)
    in_head = labels.numpy() < 2
    balanced = losses.balanced_softmax(logits, labels, COUNTS).numpy()
    assert list(terms) == ["head", "tail"]
    assert terms["head"].item() == pytest.approx(reference_ce(logits, labels)[in_head].mean())
    assert terms["tail"].item() == pytest.approx(0.3 * balanced[~in_head].mean())


def test_deferred_weights_begin_at_their_time(batch):
    loss = ClassLoss("ldam_drw", COUNTS, drw_start=0.5)
    each = losses.ldam(*batch, COUNTS).numpy()
    effective = (1 - 0.9999 ** COUNTS.numpy().astype(float)) / (1 - 0.9999)
    weights = (1 / effective)[batch[1]]
    before, at, after = (loss(*batch, done=done)["class"].item() for done in (0.49, 0.5, 1.0))
    assert before == pytest.approx(each.mean())
    # a weighted mean, as torch's own cross-entropy with class weights takes it
    assert at == after == pytest.approx(np.average(each, weights=weights), rel=1e-5)
    assert at != pytest.approx(before, rel=1e-2)


@pytest.mark.parametrize("name, tail_name", [("ldam_drw", "focal"), ("focal", "ldam_drw")])
def test_only_the_loss_that_defers_weighs_its_images_anew(name, tail_name, batch):
    logits, labels = batch
    terms = ClassLoss(name, COUNTS, tail_name, HEAD)(logits, labels, done=1.0)
    for term, chosen, group in (("head", name, HEAD), ("tail", tail_name, ~HEAD)):
        own = group[labels]
        each = CLASS_LOSSES[chosen](logits, labels, COUNTS)[own]
        weights = losses.class_balanced_weights(COUNTS)[labels[own]]
        weights = weights if chosen == "ldam_drw" else torch.ones_like(each)
        assert terms[term].item() == pytest.approx(np.average(each, weights=weights), rel=1e-5)


def test_a_mean_over_less_than_one_image():
    """A quarter of an image of a head class, pasted by CutMix, is all that the head has."""
    head = torch.tensor([True, False])
    means = losses.decouple(
        torch.tensor([2.0, 8.0]), torch.tensor([0, 1]), head, torch.tensor([0.25, 0.75])
    )
    assert [mean.item() for mean in means] == pytest.approx([2.0, 8.0])


def test_deferred_weights_keep_the_weight_of_the_batch():
    # All images have the same loss, so no weighting of them may change the mean.
    loss, labels = ClassLoss("ldam_drw", torch.tensor([8, 8, 8])), torch.tensor([0, 1, 2])
    loss.drw_weights = torch.tensor([0.1, 0.5, 2.4])
    terms = [loss(torch.zeros(3, 3), labels, done=done)["class"].item() for done in (0, 1)]
    assert terms[0] == pytest.approx(terms[1])


def cutmix_terms(name, batch, share, **settings):
    pasted = torch.tensor([3, 2, 1, 0, 3, 2, 2, 1])
    loss = ClassLoss(name, COUNTS, **settings)
    mixed = loss(*batch, pasted, torch.full((8,), float(share)), done=1.0)
    own, other = loss(*batch, done=1.0), loss(batch[0], pasted, done=1.0)
    return tuple({k: v.item() for k, v in t.items()} for t in (mixed, own, other))


@pytest.mark.parametrize("name", CLASS_LOSSES)
@pytest.mark.parametrize("tail_name", [None, "balanced_softmax", "ldam_drw"])
def test_cutmix_share_0_is_plain_and_share_1_the_pasted_label(name, tail_name, batch):
    settings = {"tail_name": tail_name, "head": HEAD} if tail_name else {}
    mixed, own, _ = cutmix_terms(name, batch, 0, **settings)
    assert mixed == pytest.approx(own, rel=1e-5)
    mixed, _, other = cutmix_terms(name, batch, 1, **settings)
    assert mixed == pytest.approx(other, rel=1e-5)


def test_cutmix_is_linear_in_the_share(batch):
    for share in (0.25, 0.6):
        mixed, own, other = cutmix_terms("balanced_softmax", batch, share)
        expected = (1 - share) * own["class"] + share * other["class"]
        assert mixed["class"] == pytest.approx(expected, rel=1e-6)


def test_cutmix_by_hand():
    # p = (3/4, 1/4), a quarter of the picture is of class 1: 3/4 · log(4/3) + 1/4 · log 4
    loss = ClassLoss("cross_entropy", torch.tensor([5, 5]))
    logits = torch.tensor([[math.log(3), 0.0]])
    terms = loss(logits, torch.tensor([0]), torch.tensor([1]), torch.tensor([0.25]))
    assert terms["class"].item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))


@pytest.mark.parametrize("names", [("softmaxx", None), ("focal", "softmaxx")])
def test_unknown_class_loss(names):
    with pytest.raises(ValueError, match=r"'softmaxx'.*balanced_softmax"):
        ClassLoss(names[0], COUNTS, names[1], HEAD)


def test_a_class_without_training_images_is_refused():
    with pytest.raises(ValueError, match="Every class needs a training image"):
        ClassLoss("class_balanced", torch.tensor([10, 0]))


@pytest.mark.parametrize(
    "mine, shape",
    [
        (lambda z, y, n: losses.cross_entropy(z, y).mean(), "()"),
        (lambda z, y, n: losses.cross_entropy(z, y)[:, None], "(8, 1)"),
        (lambda z, y, n: losses.log_prior(n), "(4,)"),
    ],
)
def test_a_loss_of_your_own_that_is_not_one_number_an_image_is_told(
    batch, monkeypatch, mine, shape
):
    monkeypatch.setitem(CLASS_LOSSES, "mine", mine)
    with pytest.raises(
        ValueError, match=re.escape(f"'mine' gives a tensor of shape {shape} for 8")
    ):
        ClassLoss("mine", COUNTS)(*batch)


def test_a_prior_in_half_precision():
    found = losses.log_prior(torch.tensor([60_000, 20_000]), torch.half)
    assert found.dtype == torch.half and found.exp().tolist() == pytest.approx(
        [0.75, 0.25], rel=1e-3
    )


def test_decoupling_needs_the_head_classes():
    with pytest.raises(ValueError, match="head"):
        ClassLoss("focal", COUNTS, "focal")


def test_pasted_labels_with_a_prior_of_their_own_by_hand():
    # Nothing is known of the image. Its own label is of three quarters of the training images, so
    # it costs log(4/3); the pasted one was drawn evenly and costs log 2, where 1 : 3 were log 4.
    logits, counts = torch.zeros(1, 2), torch.tensor([3, 1])
    mixed = torch.tensor([0]), torch.tensor([1]), torch.tensor([0.25])
    own = {"pasted_counts": torch.ones(2)}
    for settings, pasted in ((own, math.log(2)), ({}, math.log(4))):
        terms = ClassLoss("balanced_softmax", counts, **settings)(logits, *mixed)
        assert terms["class"].item() == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * pasted)


@pytest.mark.parametrize("tail_name", [None, "balanced_softmax"])
def test_a_prior_of_its_own_is_that_of_the_pasted_labels_alone(tail_name, batch):
    settings = {"tail_name": tail_name, "head": HEAD} if tail_name else {}
    evenly = ClassLoss("balanced_softmax", torch.ones_like(COUNTS), **settings)
    loss = ClassLoss("balanced_softmax", COUNTS, pasted_counts=torch.ones_like(COUNTS), **settings)
    pasted = torch.tensor([3, 2, 1, 0, 3, 2, 2, 1])
    for share, wanted in ((0.0, ClassLoss("balanced_softmax", COUNTS, **settings)), (1.0, evenly)):
        found = loss(*batch, pasted, torch.full((8,), share))
        labels = pasted if share else batch[1]
        assert {k: v.item() for k, v in found.items()} == pytest.approx(
            {k: v.item() for k, v in wanted(batch[0], labels).items()}, rel=1e-5
        )
