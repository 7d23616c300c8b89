"""The shipped ablation, in words and figures: every number stands where it belongs."""

import json

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from ltkd import ablation_results, shipped
from ltkd.style import PALETTE

VALUES = {  # by hand: kd is 1 and 3 ahead of none, so 2 ± 1; its control is measured, dkd's is not
    "none": (40.0, 42.0),
    "kd, a wider teacher": (41.0, 45.0),
    "dkd, a cross-entropy teacher": (30.0, 31.0),
    "none, cutmix": (30.0, 30.0),
    "kd, a wider teacher, cutmix": (27.0, 27.5),
    "uniform, a wider teacher, cutmix": (31.0,),
    "image_and_patch, a wider teacher, cutmix": (32.0,),
}


def ship(home, rows):
    path = home / "saved_model" / ablation_results.FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"rows": rows}))


@pytest.fixture
def measured(home):
    ship(home, [
        {"row": name, "seed": seed, "validation": {"all": value, "few": value - 30}}
        for name, runs in VALUES.items() for seed, value in enumerate(runs)
    ])  # fmt: skip


@pytest.fixture
def ablation(home):
    def scores(value):
        return {"all": value, "many": value + 10, "medium": value, "few": None}

    rows = [
        {"row": "KD", "seed": seed, "validation": scores(value), "test": scores(seed)}
        for seed, value in enumerate((40.0, 41.0, 42.0))
    ]
    rows.append(
        {"row": "no distillation", "seed": 0, "validation": scores(39.0), "test": scores(0.5)}
    )
    ship(home, rows)
    return ablation_results.FILE.partition("/")[0]


def shown(ax):
    """Line → column → text, of the cells that have one."""
    lines, columns = ([t.get_text() for t in a.get_ticklabels()] for a in (ax.yaxis, ax.xaxis))
    cells: dict = {}
    for text in ax.texts:
        column, line = (int(place) for place in text.get_position())
        cells.setdefault(lines[line], {})[columns[column]] = text.get_text()
    return cells


def test_what_is_not_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "PROJECT", tmp_path)
    assert ablation_results.report("cifar100-lt-quick-depth8") == "ablation: not shipped"
    figures = ablation_results.accuracies, ablation_results.grids, ablation_results.gains
    assert [draw() for draw in figures] == [None] * 3


def test_the_ablation_is_counted_over_seeds(ablation):
    lines = ablation_results.report(ablation).splitlines()
    assert " ".join(lines[1].split()) == "KD 41.0 ± 1.0 51.0 ± 1.0 41.0 ± 1.0 –"
    assert lines[2].split() == ["no", "distillation", "39.0", "49.0", "39.0", "–"]
    assert "1 to 3 seeds" in lines[3]


def test_the_test_accuracies_of_an_ablation(ablation):
    lines = ablation_results.report(ablation, "test").splitlines()
    assert " ".join(lines[1].split()) == "KD 1.0 ± 1.0 11.0 ± 1.0 1.0 ± 1.0 –"
    assert lines[3].startswith("Test accuracy, %; 1 to 3 seeds")


def test_the_usual_teacher_is_named_once(home):
    scores = dict.fromkeys(("all", "many", "medium", "few"), 1.0)
    names = "none", "kd, a wide teacher", "dkd, a wide teacher, cutmix", "kd, a biased teacher"
    ship(home, [{"row": name, "validation": scores} for name in names])
    lines = ablation_results.report("cifar100-lt-quick-depth8").splitlines()
    assert [row.split("  ")[0] for row in lines[1:5]] == [
        "none", "kd", "dkd, cutmix", "kd, a biased teacher",
    ]  # fmt: skip
    assert " ".join(lines[5:]).endswith("last epoch, a wide teacher where no other is named.")


def test_accuracies_have_error_bars_by_teacher(home, measured):
    axis, few = ablation_results.accuracies().axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["none", "kd", "dkd"]
    bars = [container.lines for container in axis.containers]
    points = [line.get_xydata()[0].tolist() for line, _, _ in bars]
    assert points == [[41.0, 0.0], [43.0, 1.25], [30.5, 2.0]]  # a teacher stands above another
    colours = [line.get_color() for line, _, _ in bars]
    assert [to_rgba(c) for c in colours[1:]] == [to_rgba(PALETTE[2]), to_rgba(PALETTE[1])]
    segments = [bar.get_segments()[0][:, 0].tolist() for _, _, (bar,) in bars]
    assert segments[1] == pytest.approx([43 - 8**0.5, 43 + 8**0.5])
    assert few.containers[0].lines[0].get_xdata().tolist() == [11.0]
    named = [text.get_text() for text in few.get_legend().get_texts()]
    assert named == ["Balanced Softmax teacher", "cross-entropy teacher", "wider teacher"]


def test_rows_of_one_seed_have_no_error_and_are_left_out(home):
    names = "none", "none", "kd, a wider teacher"
    ship(home, [
        {"row": name, "seed": seed, "validation": {"all": 40.0 + seed, "few": 1.0}}
        for seed, name in enumerate(names)
    ])  # fmt: skip
    assert len(ablation_results.accuracies().axes[0].containers) == 1


def test_the_grids_of_the_ablation(home, measured):
    """Two seeds in some cells, one in others; the rest is empty."""
    left, right = ablation_results.grids("few").axes
    none = dict.fromkeys(("Balanced\nSoftmax", "cross-entropy", "wider"), "11.0 ± 1.4")
    assert shown(left) == {
        "none": none, "kd": {"wider": "13.0 ± 2.8"}, "dkd": {"cross-entropy": "0.5 ± 0.7"},
    }  # fmt: skip
    assert shown(right) == {
        "none": {"none": "11.0 ± 1.4", "cutmix": "0.0 ± 0.0"},
        "kd, wider": {"none": "13.0 ± 2.8", "cutmix": "-2.8 ± 0.4"},
        "uniform, wider": {"cutmix": "1.0"},
        "image_and_patch, wider": {"cutmix": "2.0"},
    }


def test_gains_over_controls_are_coloured_where_they_are_sure(home, measured):
    """2 ± 1 is not more than two standard errors, −2.75 ± 0.25 is; one seed has no error."""
    left, right = ablation_results.gains().axes
    assert shown(left) == {"kd\nover none": {"wider": "+2.0 ± 1.0"}}
    assert shown(right) == {
        "kd\nover none, wider": {"cutmix": "-2.8 ± 0.2"},
        "image_and_patch\nover uniform, wider": {"cutmix": "+1.0"},
        "image_and_patch\nover kd, wider": {"cutmix": "+5.0"},
    }
    colours = [np.ma.getdata(ax.collections[0].get_array()).reshape(-1) for ax in (left, right)]
    assert [c[~np.isnan(c)].tolist() for c in colours] == [[0.0], [-2.75, 0.0, 0.0]]


def test_what_rows_gain_over_their_controls(home):
    """By hand: differences 1 and 3, so 2 ± 1. A row with one seed has no error: it is left out."""
    values = {
        "none": (40.0, 40.0), "kd, a wide teacher": (41.0, 43.0), "decoupled": (50.0,),
        "none, cutmix": (40.0, 41.0), "kd, a wide teacher, cutmix": (43.0, 44.0),
    }  # fmt: skip
    ship(home, [
        {"row": name, "seed": seed, "validation": {"all": value}}
        for name, runs in values.items() for seed, value in enumerate(runs)
    ])  # fmt: skip
    first, second, *last = ablation_results.gains_report("cifar100-lt-quick-depth8").splitlines()
    assert first == "kd over none                  +2.0 ± 1.0"
    assert second == "kd, cutmix over none, cutmix  +3.0 ± 0.0"
    assert "the same teacher and pasting: mean ± standard error of the" in " ".join(last)
