"""The tables of the READMEs, against the files whose numbers they are."""

import json
import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ltkd.ablation_gains import by_row
from ltkd.ablation_grid import by_mixing, by_teacher, gains_by_mixing, gains_by_teacher
from ltkd.ablation_rows import ALONE
from ltkd.evaluation import main_scores
from ltkd.experiments import ROLES
from ltkd.longtail import GROUPS
from ltkd.places import PROJECT

BIASED, BALANCED = ", a cross-entropy teacher", ", a Balanced Softmax teacher"
DIGITS = {
    "teacher: cross-entropy": "teacher alone" + BIASED,
    "Balanced Softmax + plain distillation (`kd`)": "kd" + BIASED,
    "the same, the class prior taken out of the teacher (`cal": "calibrated_kd" + BIASED,
    "**student**: and decoupled, for image and weighed patches": "image_and_patch" + BIASED,
    "Balanced Softmax, not distilled (`none`)": "none",
}
PASTED = {"`kd`, nothing pasted": "kd" + BALANCED, "`none`, nothing pasted": "none"}
for mixing in "tail_cutmix", "tail_cutmix_prior":
    PASTED[f"`kd`, `{mixing}`"] = f"kd{BALANCED}, {mixing}"
    PASTED[f"`none`, `{mixing}`"] = f"none, {mixing}"
PHOTOGRAPHS = {
    "cross-entropy": "teacher alone" + BIASED,
    "teacher: Balanced Softmax": "teacher alone" + BALANCED,
    "LTKD (Kim)": "ltkd" + BALANCED,
    "decoupled, image and weighed patches": "image_and_patch" + BALANCED,
    "**student**: plain distillation": "kd" + BALANCED,
}
TABLES = [  # in README: the rows' beginnings, and what stands in them last
    ("digits-ablation", DIGITS, "test all, test many, test medium, test few"),
    (
        "cifar100-lt-quick-depth8",
        PASTED,
        "validation all, validation many, validation medium, validation few, test all",
    ),
    (
        "stanford-cars-lt",
        PHOTOGRAPHS,
        "validation all, test all, test medium, test few, test calibration_error",
    ),
    (
        "caltech101-lt",
        PHOTOGRAPHS,
        "validation all, test all, test many, test medium, test few, test calibration_error",
    ),
]


def spread(values: list[float], digits: int = 1) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def in_readme(label: str, cells: list[str]) -> bool:
    files = PROJECT / "README.md", PROJECT / "saved_model" / "README.md"
    lines = "\n".join(file.read_text() for file in files).splitlines()
    end = f"| {' | '.join(cells)} |"
    return any(line.startswith(f"| {label}") and line.endswith(end) for line in lines)


def ablation(name: str) -> list[dict]:
    return json.loads((PROJECT / "saved_model" / name / "ablation.json").read_text())["rows"]


@pytest.mark.parametrize(("name", "labels", "columns"), TABLES)
def test_the_readmes_ablations_are_those_of_the_files(name, labels, columns):
    rows = ablation(name)
    for label, row in labels.items():
        cells = []
        for split, key in map(str.split, columns.split(", ")):
            values = [r[split][key] for r in rows if r["row"] == row]
            error = f"{statistics.mean(values):.3f}"
            cells.append(error if key == "calibration_error" else spread(values))
        assert in_readme(label, cells), (label, cells)


def of_both_splits(grid, values=lambda runs: runs) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """The lines of an ablation's grid: name, cells on validation and cells on test images."""
    rows = ablation("cifar100-lt-quick-depth8")
    validation, test = (
        grid({name: values(runs) for name, runs in by_row(rows, split).items()})
        for split in ("validation", "test")
    )
    assert validation.keys() == test.keys()
    for line, cells in validation.items():
        yield line, list(cells.values()), list(test[line].values())


def quoted(line: str) -> str:
    """A line's name as the READMEs write it: recipes in backquotes, the teacher without."""
    names, *teacher = line.split(", ")
    recipes = (n if n == ALONE else f"`{n}`" for n in names.split(" over "))
    return ", ".join([" over ".join(recipes), *teacher])


@pytest.mark.parametrize("grid", [by_teacher, by_mixing])
def test_the_readmes_grids_are_those_of_the_file(grid):
    arrays = of_both_splits(grid, lambda runs: np.array([*runs.values()]))
    for line, validation, test in arrays:
        shown = [
            f"{spread(ours.tolist())} ({theirs.mean():.1f})" if len(ours) else ""
            for ours, theirs in zip(validation, test, strict=True)
        ]
        assert in_readme(f"{quoted(line)} |", shown), (line, shown)


@pytest.mark.parametrize("grid", [gains_by_teacher, gains_by_mixing])
def test_the_readmes_gains_are_those_of_the_file(grid):
    for line, validation, test in of_both_splits(grid):
        shown = []
        for (gain, error), (on_test, its_error) in zip(validation, test, strict=True):
            number = f"{gain:+z.1f} ± {error:.1f}"
            bold = f"**{number}**" if abs(gain) > 2 * error else number
            shown.append(f"{bold} ({on_test:+z.1f} ± {its_error:.1f})".replace("-", "−"))
        assert in_readme(f"{quoted(line)} |", shown), (line, shown)


def headline(scores: list[dict]) -> list[str]:
    cells = [spread([score[group] for score in scores]) for group in ("all", *GROUPS)]
    return [*cells, spread([score["calibration_error"] for score in scores], digits=3)]


def test_the_readmes_controls_are_those_of_the_file():
    rows = ablation("cifar100-lt-long")
    knows = "the same, its label loss knows how pasted labels are drawn"
    for name, label, mark in (
        (f"teacher alone{BIASED}", "cross-entropy (seed 0) | 0.47 M | 100", ""),
        (f"teacher alone{BALANCED}", "wide teacher: Balanced Softmax", ""),
        (f"teacher alone{BALANCED}, tail_cutmix_prior", knows, ""),
        ("none, tail_cutmix", "the student without teacher: Balanced Softmax", ""),
        ("none, tail_cutmix_prior", knows, ""),
        (f"kd{BALANCED}, tail_cutmix", "student of the wide teacher: plain distillation", "†"),
        (f"kd{BALANCED}, tail_cutmix_prior", knows, "†"),
        (f"kd{BALANCED}, both tail_cutmix_prior", "the same, and its teacher was pasted into", ""),
        ("three teachers, tail_cutmix_prior", "three such teachers, the mean of", ""),
        ("kd from three, both tail_cutmix_prior", "**student of three such teachers**: plain", ""),
        ("kd from three, 200 epochs", "the same, the student for 200", ""),
        ("none, 200 epochs", "the student without teacher for 200", ""),
        ("kd from three ResNet-32", "student of three networks like itself", ""),
    ):
        *cells, error = headline([row["test"] for row in rows if row["row"] == name])
        assert in_readme(label, [*cells, error + mark])


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (
            "cifar100-lt-quick",
            ("teacher: Balanced Softmax", "**student**: plain distillation from it"),
        ),
        (
            "cifar100-lt",
            ("three such teachers, the mean of", "**student of three such teachers**: plain"),
        ),
    ],
)
def test_the_readmes_headlines_are_those_of_the_files(name, labels):
    runs = json.loads((PROJECT / "saved_model" / name / "results.json").read_text())["seeds"]
    for role, label in zip(ROLES, labels, strict=True):
        *cells, error = headline([main_scores(run[role]) for run in runs])
        assert in_readme(label, [*cells, error]) or in_readme(label, [*cells, f"{error}†"])


@pytest.mark.parametrize("factor", [50, 10])
@pytest.mark.parametrize(("recipe", "teacher"), [("", "three teachers"), ("-quick", "teacher")])
def test_the_readmes_other_factors_are_those_of_the_files(recipe, teacher, factor):
    file = PROJECT / "saved_model" / f"cifar100-lt{recipe}-if{factor}" / "results.json"
    results = json.loads(file.read_text())
    for role, name in zip(ROLES, (teacher, "student"), strict=True):
        scores = main_scores(results[role])
        numbers = [scores[group] for group in ("all", *GROUPS)]
        cells = ["–" if value is None else f"{value:.1f}" for value in numbers]
        cells += [f"{scores['calibration_error']:.3f}", f"{results[role]['validation']['all']:.1f}"]
        cells += [f"{results[role]['seconds']:,.0f}"] if recipe else []
        assert in_readme(f"{factor} | {sum(results['counts']):,} | {name} |", cells), cells
