"""The arithmetic of the ablation's table: gains are paired by seed, teacher and mixing."""

import math

import pytest

from ltkd.ablation_gains import gains_over_controls, lead, table
from ltkd.ablation_rows import rows
from ltkd.experiments import Experiment


def measured(row: str, seed: int, accuracy: float) -> dict:
    return {"row": row, "seed": seed, "validation": {"all": accuracy}}


def test_gains_are_paired_by_seed():
    values = {
        "kd, a wider teacher, cutmix": {0: 50.0, 1: 52.0, 2: 57.0, 3: 90.0},
        "none, cutmix": {0: 49.0, 1: 50.0, 2: 54.0},
        "none": {0: 0.0, 1: 0.0, 2: 0.0},
    }
    gain, error = gains_over_controls(values, "kd, a wider teacher, cutmix")["none, cutmix"]
    assert gain == pytest.approx(2.0)  # 1, 2 and 3
    assert error == pytest.approx(1 / math.sqrt(3))
    assert gains_over_controls(values, "none") == {}


def test_one_seed_has_no_standard_error():
    gain, error = gains_over_controls({"kd, x": {0: 3.0}, "none": {0: 1.0}}, "kd, x")["none"]
    assert (gain, math.isnan(error)) == (2.0, True)


def test_the_table_has_the_best_row_first():
    done = [measured("none", 0, 40.0), measured("none", 1, 42.0), measured("kd, x", 0, 43.0)]
    first, second = table(done).splitlines()
    assert first.split() == [
        "43.0",
        "±",
        "nan",
        "(1)",
        "kd,",
        "x",
        "+3.0",
        "±",
        "nan",
        "over",
        "none",
    ]
    assert second.split() == ["41.0", "±", "1.4", "(2)", "none"]


def test_the_lead_is_paired_and_by_group():
    def row(name, seed, all_, few):
        return {"row": name, "seed": seed,
                "test": {"all": all_, "many": None, "medium": 1.0, "few": few}}  # fmt: skip

    done = [row("kd, x", 0, 40.0, 10.0), row("kd, x", 1, 44.0, 14.0), row("ltkd, x", 5, 9.0, 9.0)]
    done += [row("none", 0, 39.0, 12.0), row("none", 1, 41.0, 16.0)]
    title, header, *lines = lead(done, "kd, x")
    assert "On the test images “kd, x” is ahead" in title
    assert header.split() == ["all", "many", "medium", "few"]
    assert [" ".join(line.split()) for line in lines] == [
        "+2.0 ± 1.0 – +0.0 ± 0.0 -2.0 ± 0.0 of none"
    ]
    assert lead(done, "dkd, x") == lead(done, None) == []


def test_a_control_pasted_by_a_teacher_has_the_same_teacher():
    """`tail_patches` asks the teacher which patches to paste, even where nothing is distilled."""
    experiment = Experiment.named("cifar100-lt-quick")
    taught = rows(experiment, "none, a wider teacher, tail_patches")
    assert [fields["teacher_width"] for fields in taught.values()] == [32]
    assert list(rows(experiment, "none, *tail_cutmix")) == ["none, tail_cutmix"]
    names = rows(experiment, "kd, *tail_patches", "none, *tail_patches")
    values = {name: {0: 40.0} for name in names}
    gains = gains_over_controls(values, "kd, a wider teacher, tail_patches")
    assert list(gains) == ["none, a wider teacher, tail_patches"]
