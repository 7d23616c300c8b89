"""Accuracies, calibration and the paired test against hand counts and plain loops."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from ltkd.datasets import Split
from ltkd.evaluation import (
    compare,
    evaluate,
    evaluate_network,
    predict,
    reliability,
    softmax,
    table,
)
from ltkd.longtail import class_groups
from ltkd.networks import ResNet

# Three classes: 4, 2 and 2 images, of which 3, 1 and 0 are right.
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 0, 1])
LOGITS = (5 * np.eye(3)[PREDICTED]).astype(np.float32)
GROUPS = {
    "many": np.array([True, True, False]),
    "few": np.array([False, False, True]),
    "medium": np.array([False, False, False]),
}


def test_evaluate_by_hand():
    scores = evaluate(LOGITS, LABELS, GROUPS)
    assert scores["all"] == 50.0
    assert scores["per_class"] == [75.0, 50.0, 0.0]
    assert scores["groups"] == {"many": 62.5, "few": 0.0, "medium": None}
    assert scores["confusion"] == [[3, 1, 0], [1, 1, 0], [1, 1, 0]]  # rows: the true class
    # every answer is given with e⁵ / (e⁵ + 2), and half of them are right
    assert scores["calibration_error"] == pytest.approx(np.exp(5) / (np.exp(5) + 2) - 0.5)


def test_evaluate_returns_plain_values():
    scores = evaluate(LOGITS, LABELS, GROUPS)
    values = [scores["all"], scores["calibration_error"], *scores["per_class"]]
    assert all(type(value) is float for value in values)
    assert all(type(count) is int for row in scores["confusion"] for count in row)


def test_a_class_without_test_images_counts_nowhere():
    kept = LABELS != 1
    scores = evaluate(LOGITS[kept], LABELS[kept], GROUPS | {"own": np.array([False, True, False])})
    assert scores["per_class"] == [75.0, None, 0.0]
    assert scores["groups"]["many"] == 75.0 and scores["groups"]["own"] is None
    assert np.array(scores["confusion"]).shape == (3, 3)


def loop_error(probabilities, labels, bins):
    """The expected calibration error of Guo et al. (2017), bin by bin."""
    confidence, error = probabilities.max(1), 0.0
    for b in range(bins):
        last = b == bins - 1
        inside = (confidence >= b / bins) & ((confidence < (b + 1) / bins) | last)
        if inside.any():
            right = (probabilities[inside].argmax(1) == labels[inside]).mean()
            error += inside.mean() * abs(right - confidence[inside].mean())
    return error


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_calibration_error_against_a_loop(bins, dtype):
    rng = np.random.default_rng(0)
    probabilities = softmax((2 * rng.standard_normal((3000, 5))).astype(dtype))
    labels = rng.integers(0, 5, 3000)
    found = reliability(probabilities, labels, bins)
    assert found["error"] == pytest.approx(loop_error(probabilities, labels, bins), abs=1e-6)
    assert sum(found["count"]) == 3000


def test_reliability_by_hand():
    # Two bins. Confidence 0.4, 0.4 (one right): gap 0.1. 0.7, 0.8, 0.9 (all right): gap 0.2.
    top = np.array([0.4, 0.4, 0.7, 0.8, 0.9])
    probabilities = np.stack([top, (1 - top) / 2, (1 - top) / 2], 1)
    found = reliability(probabilities, np.array([0, 1, 0, 0, 0]), bins=2)
    assert found["count"] == [2, 3]
    assert found["accuracy"] == pytest.approx([0.5, 1.0])
    assert found["confidence"] == pytest.approx([0.4, 0.8])
    assert found["error"] == pytest.approx((2 * 0.1 + 3 * 0.2) / 5)


def test_a_calibrated_model_has_no_error():
    # Confidence 0.75, three in four right; confidence 0.5, one in two right.
    probabilities = np.array([[0.75, 0.25]] * 4 + [[0.5, 0.5]] * 2)
    assert reliability(probabilities, np.array([0, 0, 0, 1, 0, 1]))["error"] == pytest.approx(0)


def test_calibrated_by_construction():
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1, 50_000)
    labels = (rng.uniform(size=len(top)) > top).astype(int)
    assert reliability(np.stack([top, 1 - top], 1), labels)["error"] < 0.015


@pytest.mark.parametrize("confidence, place", [(0.0, 0), (1.0, 14)])
def test_the_ends_lie_in_a_bin(confidence, place):
    found = reliability(np.array([[confidence, 0.0]]), np.array([0]))
    assert found["count"][place] == 1 and sum(found["count"]) == 1
    assert found["accuracy"][place] == 1 and found["error"] == pytest.approx(1 - confidence)
    assert np.isnan(found["accuracy"]).sum() == 14


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_edge_of_a_bin_lies_in_the_bin_that_counts_it(dtype):
    edges = np.arange(8, 16) / 15
    near = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1)]).clip(0, 1)
    for top in near.astype(dtype):
        found = reliability(np.array([[top, 1 - top]]), np.array([1]))
        assert found["error"] == pytest.approx(top)
        assert np.argmax(found["count"]) == np.flatnonzero(~np.isnan(found["accuracy"]))[0]


def pair(mended, broken, both):
    """Predictions of a teacher and a student on labels that are all 1."""
    teacher = np.array([0] * mended + [1] * broken + [1] * both)
    student = np.array([1] * mended + [0] * broken + [1] * both)
    return teacher, student, np.ones(len(teacher), int)


def test_compare_by_hand():
    # 5 mended and 1 broken: 2 · (C(6,0) + C(6,1)) / 2⁶ = 14/64
    found = compare(*pair(5, 1, 10))
    assert found["mended"] == [0, 1, 2, 3, 4] and found["broken"] == [5]
    assert found["p_value"] == pytest.approx(14 / 64)


@pytest.mark.parametrize("mended, broken", [(0, 0), (3, 3), (9, 2), (0, 7), (40, 61)])
def test_compare_against_the_binomial_test(mended, broken):
    teacher, student, labels = pair(mended, broken, 4)
    there, back = compare(teacher, student, labels), compare(student, teacher, labels)
    expected = binomtest(mended, mended + broken, 0.5).pvalue if mended + broken else 1.0
    assert there["p_value"] == back["p_value"] == pytest.approx(expected)
    assert there["mended"] == back["broken"] and there["broken"] == back["mended"]


def test_compare_takes_logits_and_forgives_two_different_errors():
    labels = np.array([0, 1, 2, 2])
    teacher, student = np.eye(3)[[0, 0, 0, 2]], np.eye(3)[[0, 1, 1, 2]]
    assert compare(teacher, student, labels) == {"mended": [1], "broken": [], "p_value": 1.0}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ResNet(3, depth=8, width=4)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 3, 32, 32), np.uint8)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8, 500])
def test_predict_counts_every_image_once(network, images, batch_size):
    found = predict(network.train(), images, batch_size)
    assert not network.training
    expected = np.concatenate([predict(network, image[None]) for image in images])
    assert found.shape == (8, 3) and found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-5)


def test_the_patches_average_to_the_image(network, images):
    patches = predict(network, images, batch_size=3, patches=True)
    assert patches.shape == (8, 16, 3)
    assert np.allclose(patches.mean(1), predict(network, images), atol=1e-5)


def test_predict_takes_a_view_that_is_not_contiguous(network, images):
    backwards = predict(network, images[::-1, :, :, ::-1])
    assert np.allclose(backwards, predict(network, images[::-1, :, :, ::-1].copy()))


def test_evaluate_network_reads_the_split(network, images):
    answers = predict(network, images).argmax(1)
    groups = class_groups(np.array([200, 50, 5]))
    scores = evaluate_network(network, Split(images, answers, np.arange(8)), groups)
    assert scores["all"] == 100.0 and set(scores["groups"]) == set(groups)


def test_table():
    rows = {
        "Teacher": {"all": 70.04, "groups": {"many": 81.25, "few": None}},
        "A student": {"all": 100.0, "groups": {"many": 9.0, "few": 25.55}},
    }
    assert table(rows, ("many", "few")).split("\n") == [
        "              all    many     few",
        "Teacher      70.0    81.2       –",
        "A student   100.0     9.0    25.6",
    ]


def test_low_confidence_counts_what_is_right_alone():
    """21 right answers from 0.60 to 0.80 in steps of 0.01: a twentieth, one, is below 0.61."""
    confidence = np.append(np.arange(60, 81) / 100, [0.51, 0.99])
    logits = np.log(np.stack([confidence, 1 - confidence], 1))
    labels = np.append(np.zeros(21, int), [1, 1])  # the last two are wrong
    scores = evaluate(logits, labels, {})
    assert scores["low_confidence"] == pytest.approx(0.61)
    assert evaluate(logits[-2:], labels[-2:], {})["low_confidence"] is None
