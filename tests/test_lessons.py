"""What the teaching figures claim, against numbers from other ways."""

import numpy as np
import pytest
import torch

from ltkd import lessons
from ltkd.distillation import chain_rule
from ltkd.longtail import head_classes, long_tailed_counts


def likelihood(points: np.ndarray, centre: float) -> np.ndarray:
    return np.exp(-((points[:, 0] - centre) ** 2 + points[:, 1] ** 2) / 2)


@pytest.mark.parametrize("ratio", [1, 4, 100])
def test_the_border_is_where_both_classes_are_equally_likely(ratio):
    border = lessons.toy_border(ratio)
    points = np.array([[border, y] for y in (-1.0, 0.0, 2.0)])
    odds = likelihood(points, 1) / (ratio * likelihood(points, -1))
    assert odds == pytest.approx(np.ones(3))


@pytest.mark.parametrize("ratio", [1, 10])
def test_recalls_are_counted_in_the_points(ratio):
    points, labels = lessons.toy_points(ratio, frequent=40_000)
    assert np.bincount(labels).tolist() == [40_000, 40_000 // ratio]
    rare = points[:, 0] > lessons.toy_border(ratio)
    counted = (~rare[labels == 0]).mean(), rare[labels == 1].mean()
    assert lessons.toy_recalls(ratio) == pytest.approx(counted, abs=0.015)


def test_tail_share_by_counting():
    counts = long_tailed_counts(np.full(100, 500), "exponential", 100)
    tail = sum(n for n, head in zip(counts, head_classes(counts), strict=True) if not head)
    assert lessons.tail_share(100) == tail / 10_847
    assert lessons.tail_share(100) < lessons.tail_share(10) < lessons.tail_share(2)


def test_the_silent_tail_is_bayes_rule():
    figure = lessons.silent_tail(100)
    share = lessons.tail_share(100)
    lines = figure.axes[0].lines
    points = [line.get_ydata()[0] for line in lines if len(line.get_ydata()) == 1]
    expected = [10 * share / (9 * share + 1), share, share / (100 - 99 * share)]
    assert points == pytest.approx(expected)


def test_selective_weights():
    weights = np.array([[0.5, 1.0, 1.5], [2.0, 0.5, 0.5]])
    assert lessons.selective(weights, 1) == pytest.approx(weights)
    assert lessons.selective(weights, 0) == pytest.approx(np.ones((2, 3)))
    assert lessons.selective(weights, 500) == pytest.approx(np.array([[0, 0, 3], [3, 0, 0]]))
    assert lessons.selective(weights, 3).mean(-1) == pytest.approx([1, 1])


def test_the_bars_of_three_terms():
    teacher, student = torch.tensor([3.0, 1.0, 0.0, -1.0]), torch.zeros(4)
    head = torch.tensor([True, False, True, False])
    figure = lessons.three_terms(teacher, student, head, list("abcd"), 2.0, 1.0, 0.5, 4.0)
    split = chain_rule(teacher, student, head, 2.0)
    plain, chosen = figure.axes[1].containers
    heights = [[bar.get_height() for bar in bars] for bars in (plain, chosen)]
    assert sum(heights[0]) == pytest.approx(
        float((teacher / 2).softmax(0) @ ((teacher / 2).log_softmax(0) - np.log(0.25)))
    )
    assert heights[1] == pytest.approx(
        [split.group.item(), 0.5 * split.head.item(), 4 * split.tail.item()]
    )
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["a", "c", "b", "d"]  # the head first


@pytest.mark.parametrize("ratio", [1, 200])
def test_the_toy_is_drawn_at_every_ratio(ratio):
    plane = lessons.two_classes(ratio).axes[0]
    borders = [line.get_xdata()[0] for line in plane.lines]
    assert borders == pytest.approx([lessons.toy_border(ratio), 0])
