"""The scores of patches by hand, and the weights made of them."""

import math

import pytest
import torch

from ltkd.distillation import ambiguity, informativeness, patch_weights

SCORES = torch.tensor([[0.0, 1.0, 3.0, 4.0], [15.0, 3.0, 1.5, 4.5]])


def test_informativeness_by_hand():
    # KL((3/4, 1/4) ‖ (1/2, 1/2)); nothing where the patch says what all say; log 4 when certain
    q = torch.tensor([[[0.75, 0.25], [0.5, 0.5]]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert informativeness(q, torch.tensor([0.5, 0.5]))[0].tolist() == pytest.approx([expected, 0])
    certain = informativeness(torch.tensor([[[1.0, 0.0]]]), torch.tensor([0.25, 0.75]))
    assert certain.item() == pytest.approx(math.log(4))


def test_informativeness_is_never_negative():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(10, generator=generator).softmax(-1)
    noise = 1 + 1e-6 * torch.randn(64, 16, 10, generator=generator)
    close = mean * noise / (mean * noise).sum(-1, keepdim=True)
    scores = informativeness(close, mean)
    weights = patch_weights(scores)
    assert (scores >= 0).all() and (weights >= 0).all()
    assert weights.max() <= 16.001  # no patch outweighs its whole image


def test_ambiguity_by_hand():
    # head mass 0.9: 4 · 0.9 · 0.1 = 0.36; 0.5: 1; 0: 0; 0.25: 0.75
    q = torch.tensor([[[0.4, 0.5, 0.1], [0.5, 0.0, 0.5], [0.0, 0.0, 1.0], [0.2, 0.05, 0.75]]])
    found = ambiguity(q, torch.tensor([True, True, False]))
    assert found[0].tolist() == pytest.approx([0.36, 1.0, 0.0, 0.75], abs=1e-6)


def test_weights_are_proportional_with_mean_1():
    # over 2 and over 6, the mean of each image: 0, 1/2, 3/2, 2 and 5/2, 1/2, 1/4, 3/4
    expected = [[0.0, 0.5, 1.5, 2.0], [2.5, 0.5, 0.25, 0.75]]
    assert torch.allclose(patch_weights(SCORES), torch.tensor(expected), atol=1e-6)


def test_scores_of_0_give_ones():
    for control in (None, "shuffled", "inverted"):
        assert torch.allclose(patch_weights(torch.zeros(2, 4), control), torch.ones(2, 4))


@pytest.mark.parametrize("control", ["shuffled", "inverted"])
def test_controls_keep_the_set_of_weights(control):
    torch.manual_seed(0)
    found = patch_weights(SCORES, control)
    plain = patch_weights(SCORES)
    assert torch.equal(found.sort(-1).values, plain.sort(-1).values)
    assert not torch.equal(found, plain)


def test_inverted_turns_the_order_round():
    found = patch_weights(SCORES, "inverted")
    assert torch.equal(found.argsort(-1), SCORES.argsort(-1, descending=True))


def test_shuffled_is_another_order_for_every_image():
    torch.manual_seed(0)
    found = patch_weights(torch.arange(16.0).expand(50, 16), "shuffled")
    assert len({tuple(row) for row in found.tolist()}) == 50
    assert found.mean(0).std() < 0.3  # the largest weight is nowhere at home


def test_weights_carry_no_gradient():
    scores = SCORES.clone().requires_grad_()
    for control in (None, "shuffled", "inverted"):
        assert not patch_weights(scores, control).requires_grad


def test_unknown_control():
    with pytest.raises(ValueError, match=r"'upside-down'.*shuffled"):
        patch_weights(SCORES, "upside-down")
