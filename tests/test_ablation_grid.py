"""The grids of the ablation: which measured row stands in which cell."""

import numpy as np
import pytest

from ltkd.ablation_grid import (
    TEACHERS,
    by_mixing,
    by_teacher,
    gains_by_mixing,
    gains_by_teacher,
)
from ltkd.ablation_rows import rows, teachers
from ltkd.experiments import Experiment

MEASURED = {
    "none": [40.0, 42.0],
    "none, cutmix": [39.0],
    "none, a cross-entropy teacher, tail_patches": [1.0],
    "kd, a wider teacher": [43.0],
    "kd, a wider teacher, cutmix": [44.0],
    "dkd, a cross-entropy teacher": [37.0],
}


def filled(grid):
    """Line → column → accuracies, without the empty cells."""
    return {
        line: {column: v.tolist() for column, v in cells.items() if len(v)}
        for line, cells in grid.items()
    }


@pytest.fixture
def measured():
    return {name: np.array(values) for name, values in MEASURED.items()}


def test_recipes_by_teacher(measured):
    assert filled(by_teacher(measured)) == {
        "none": {teacher: [40.0, 42.0] for teacher in TEACHERS.values()},
        "kd": {"wider": [43.0]},
        "dkd": {"cross-entropy": [37.0]},
    }


def test_recipes_by_mixing(measured):
    assert filled(by_mixing(measured)) == {
        "none": {"none": [40.0, 42.0], "cutmix": [39.0]},
        "kd, wider": {"none": [43.0], "cutmix": [44.0]},
    }


def test_every_row_of_the_ablation_has_a_cell():
    """But for two: none asks the teacher only to choose the patches that are pasted."""
    table = {name: np.array([0.0]) for name in rows(Experiment.named("cifar100-lt-quick"))}
    without = {name for name in table if name.startswith("none, a ") and "Balanced" not in name}
    assert len(without) == 2
    for name in table.keys() - without:
        alone = {name: table[name]}
        assert by_teacher(alone) or by_mixing(alone), name


def test_the_grids_teachers_are_those_of_the_ablation():
    assert set(TEACHERS) == set(teachers(Experiment.named("cifar100-lt-quick")))
    assert list(TEACHERS.values()) == ["Balanced Softmax", "cross-entropy", "wider"]


def test_gains_stand_with_their_teacher_and_mixing():
    """By hand; a control of another teacher or mixing is none."""
    values = {
        "none": {0: 40.0, 1: 40.0},
        "kd, a wider teacher": {0: 41.0, 1: 43.0},
        "dkd, a wider teacher": {0: 40.0, 1: 42.0},
        "dkd, a cross-entropy teacher": {0: 30.0, 1: 30.0},
        "uniform, a wider teacher, cutmix": {0: 30.0, 1: 30.0},
        "image_and_patch, a wider teacher, cutmix": {0: 30.0, 1: 31.0},
        "image_and_patch, a wider teacher, local_crops": {0: 30.0, 1: 31.0},
    }

    def found(grid):
        return {line: {c: g for c, g in cells.items() if g} for line, cells in grid.items()}

    assert found(gains_by_teacher(values)) == {
        "kd over none": {"wider": (2.0, 1.0)},
        "dkd over kd": {"wider": (-1.0, 0.0)},
    }
    assert found(gains_by_mixing(values)) == {
        "image_and_patch over uniform, wider": {"cutmix": (0.5, 0.5)},
    }
