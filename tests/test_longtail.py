"""The long-tailed cut, held against the published one, and the groups of classes."""

import numpy as np
import pytest

from ltkd.longtail import (
    class_groups,
    cut,
    head_classes,
    long_tailed_counts,
    sample_per_class,
)
from ltkd.selection import PUBLISHED_TOTALS


def published_counts(classes: int, largest: int, imbalance_factor: float) -> list[int]:
    """The `exp` profile of LDAM-DRW's imbalance_cifar.py, written down once more."""
    imb_factor = 1.0 / imbalance_factor
    return [int(largest * imb_factor ** (c / (classes - 1.0))) for c in range(classes)]


def published_cut(targets: np.ndarray, counts: list[int], seed: int) -> list[int]:
    """The published algorithm: the global generator, one shuffle for each class in turn."""
    before = np.random.get_state()
    np.random.seed(seed)
    kept = []
    for the_class, the_count in zip(np.unique(targets), counts, strict=True):
        idx = np.where(targets == the_class)[0]
        np.random.shuffle(idx)
        kept.extend(idx[:the_count].tolist())
    np.random.set_state(before)
    return kept


def test_the_usual_imbalance_factor_is_100():
    assert long_tailed_counts(np.array([200, 200])).tolist() == [200, 2]


def balanced_labels(classes: int, each: int) -> np.ndarray:
    return np.random.default_rng(5).permutation(np.repeat(np.arange(classes), each))


@pytest.mark.parametrize(
    ("available", "factor", "counts"),
    [
        ([100] * 3, 100, [100, 10, 1]),  # 100 · 100^(−1/2) = 10
        ([500] * 3, 25, [500, 100, 20]),
        ([64] * 4, 8, [64, 32, 16, 8]),  # 8^(−1/3) = 1/2
        ([10] * 3, 7, [10, 3, 1]),  # 10/√7 = 3.78, 10/7 = 1.43: cut, not rounded
        ([9, 9], 1, [9, 9]),
    ],
)
def test_exponential_counts_by_hand(available, factor, counts):
    found = long_tailed_counts(np.array(available), "exponential", factor)
    assert found.tolist() == counts
    assert found.dtype == np.int64


def test_unequal_classes_are_ranked_and_capped():
    # wanted by rank 64, 32, 16, 8; the classes have 5, 64, 20, 20
    found = long_tailed_counts(np.array([5, 64, 20, 20]), "exponential", 8)
    assert found.tolist() == [5, 64, 20, 16]


def test_step_and_natural_counts():
    assert long_tailed_counts(np.array([50] * 4), "step", 10).tolist() == [50, 50, 5, 5]
    assert long_tailed_counts(np.array([50] * 5), "step", 10).tolist() == [50, 50, 5, 5, 5]
    available = np.array([3, 77, 12])
    assert long_tailed_counts(available, "natural", 100).tolist() == [3, 77, 12]


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="Unknown profile 'Natural'; choose one of exponential"):
        long_tailed_counts(np.array([50, 50]), "Natural", 10)


@pytest.mark.parametrize("profile", ["exponential", "natural"])
def test_a_single_class_keeps_its_images(profile):
    assert long_tailed_counts(np.array([5]), profile, 100).tolist() == [5]


@pytest.mark.parametrize("profile", ["exponential", "step"])
def test_an_impossible_factor_is_refused(profile):
    with pytest.raises(ValueError, match="factor of 200 leaves some classes no image") as error:
        long_tailed_counts(np.array([100] * 5), profile, 200)
    assert str(error.value).endswith("for the largest class has 100: choose a smaller factor.")
    assert long_tailed_counts(np.array([100] * 5), profile, 100).min() == 1


@pytest.mark.parametrize(("source", "factor"), list(PUBLISHED_TOTALS))
def test_cifar_totals(source, factor):
    classes, each = {"cifar10": (10, 5000), "cifar100": (100, 500)}[source]
    counts = long_tailed_counts(np.full(classes, each), "exponential", factor)
    assert counts.sum() == PUBLISHED_TOTALS[source, factor]
    assert counts.tolist() == published_counts(classes, each, factor)
    assert counts.max() / counts.min() == pytest.approx(factor, rel=0.2)
    assert len(cut(balanced_labels(classes, each), counts, 0)) == counts.sum()


def test_the_totals_are_those_of_the_papers():
    assert [PUBLISHED_TOTALS["cifar100", f] for f in (10, 50, 100)] == [19573, 12608, 10847]
    assert [PUBLISHED_TOTALS["cifar10", f] for f in (10, 50, 100)] == [20431, 13996, 12406]


@pytest.mark.parametrize("seed", [0, 1, 7, 2024])
@pytest.mark.parametrize("factor", [10, 50, 100])
def test_the_cut_is_the_published_one_index_for_index(seed, factor):
    labels = balanced_labels(20, 200)
    counts = long_tailed_counts(np.bincount(labels), "exponential", factor)
    expected = published_cut(labels, published_counts(20, 200, factor), seed)
    assert cut(labels, counts, seed).tolist() == expected


def test_another_seed_is_another_cut():
    labels, counts = balanced_labels(3, 50), np.array([50, 20, 5])
    assert cut(labels, counts, 0).tolist() != cut(labels, counts, 1).tolist()


def test_the_global_generator_is_left_alone():
    np.random.seed(3)
    expected = np.random.random(4)
    np.random.seed(3)
    labels = balanced_labels(3, 50)
    kept = cut(labels, np.array([50, 20, 5]), 0)
    sample_per_class(labels, kept, 2, seed=0)
    assert np.array_equal(np.random.random(4), expected)


def test_the_cut_keeps_each_image_once_and_of_its_class():
    labels, counts = balanced_labels(4, 30), np.array([30, 11, 4, 1])
    kept = cut(labels, counts, 0)
    assert len(set(kept.tolist())) == len(kept)
    assert labels[kept].tolist() == np.repeat(np.arange(4), counts).tolist()


def test_drawing_per_class():
    labels = np.repeat([0, 1, 2], [10, 40, 2])
    rows = np.arange(1, 52)
    drawn = sample_per_class(labels, rows, 5, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [5, 5, 2]
    assert np.isin(drawn, rows).all()
    assert (np.diff(drawn) > 0).all()  # sorted, each once
    share = sample_per_class(labels, rows, 0.25, seed=0, at_least=1)
    assert np.bincount(labels[share]).tolist() == [2, 10, 1]  # of 9, 40 and 2
    assert len(sample_per_class(labels, rows, 1, seed=0)) == len(set(labels[rows]))  # no share
    assert len(sample_per_class(labels, rows, 0, seed=0)) == 0
    assert len(sample_per_class(labels, rows[:0], 5, seed=0)) == 0


def test_drawing_is_random_and_the_seed_decides():
    labels, rows = np.zeros(40, int), np.arange(40)
    first, again, other = (sample_per_class(labels, rows, 5, seed).tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert first != rows[:5].tolist()


def test_many_medium_few_at_the_limits():
    groups = class_groups(np.array([101, 100, 20, 19]))
    assert groups["many"].tolist() == [True, False, False, False]
    assert groups["medium"].tolist() == [False, True, True, False]
    assert groups["few"].tolist() == [False, False, False, True]


def test_cifar10_groups_are_those_of_the_literature():
    counts = long_tailed_counts(np.full(10, 5000), "exponential", 100)
    groups = {name: int(mask.sum()) for name, mask in class_groups(counts).items()}
    assert [groups[g] for g in ("many", "medium", "few")] == [8, 2, 0]
    assert [groups[g] for g in ("top", "middle", "bottom")] == [3, 4, 3]
    assert [groups[g] for g in ("head", "tail")] == [3, 7]


def test_cifar100_groups_are_those_of_the_literature():
    counts = long_tailed_counts(np.full(100, 500), "exponential", 100)
    groups = {name: int(mask.sum()) for name, mask in class_groups(counts).items()}
    assert [groups[g] for g in ("many", "medium", "few")] == [35, 35, 30]
    assert [groups[g] for g in ("head", "tail")] == [33, 67]


def test_thirds_go_by_rank_not_by_place():
    groups = class_groups(np.array([1, 9, 5, 9]))
    assert groups["top"].tolist() == [False, True, False, False]
    assert groups["middle"].tolist() == [False, False, True, True]
    assert groups["bottom"].tolist() == [True, False, False, False]


@pytest.mark.parametrize("classes", [2, 3, 5, 100])
def test_groups_share_the_classes_out(classes):
    groups = class_groups(np.random.default_rng(1).integers(1, 300, classes))
    for names in (("many", "medium", "few"), ("head", "tail"), ("top", "middle", "bottom")):
        assert (sum(groups[name].astype(int) for name in names) == 1).all()


def test_a_head_class_has_at_least_the_average():
    assert head_classes(np.array([6, 2, 4])).tolist() == [True, False, True]
    assert head_classes(np.array([5, 5])).tolist() == [True, True]
