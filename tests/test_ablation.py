"""The ablation: its rows, its resumption, and the arithmetic of its table."""

import json
import math
from dataclasses import replace

import pytest

from ltkd import ablation as module
from ltkd.ablation import (
    ablation,
    default_row,
    gains_over_controls,
    lead,
    row_name,
    rows,
    table,
)
from ltkd.experiments import Experiment
from ltkd.files import read_json, write_json
from ltkd.mixing import MIXES
from ltkd.objectives import RECIPES
from ltkd.runs import train


def measured(row: str, seed: int, accuracy: float) -> dict:
    return {"row": row, "seed": seed, "validation": {"all": accuracy}}


def test_every_recipe_stands_with_every_teacher_and_four_with_every_mixing():
    base = Experiment.named("cifar100-lt")
    names, teachers = rows(base), list(module.teachers(base))
    for recipe in set(RECIPES) - {"none"}:
        assert {row_name(recipe, teacher, "none") for teacher in teachers} <= set(names)
    for mix in MIXES:
        assert {row_name(recipe, teachers[0], mix) for recipe in module.MIXED} <= set(names)
    untaught = [name for name in names if name.startswith("none") and "teacher" not in name]
    assert len(untaught) == len(MIXES) - 1  # all but tail_patches, which asks the teacher
    assert names["none"] == {"distillation": "none", "student_mix": "none"}  # the usual one
    students = {name: fields for name, fields in names.items() if not name.startswith(module.ALONE)}
    assert len(names) == len(students) + len(teachers)
    assert len({replace(base, **fields).name for fields in students.values()}) == len(students)


def test_several_patterns_give_the_rows_of_each():
    base = Experiment.named("cifar100-lt")
    assert list(rows(base, "none, cutmix", "teacher alone, a w*")) == [
        "teacher alone, a wider teacher",
        "none, cutmix",
    ]
    assert list(rows(base)) == list(rows(base, "*"))


def test_every_control_is_a_row():
    recipes = {name.split(", ")[0] for name in rows(Experiment.named("cifar100-lt"))}
    assert set(module.CONTROLS) <= recipes
    assert {control for controls in module.CONTROLS.values() for control in controls} <= recipes


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
    experiment = Experiment.named("cifar100-lt")
    taught = rows(experiment, "none, a wider teacher, tail_patches")
    assert [fields["teacher_width"] for fields in taught.values()] == [32]
    assert list(rows(experiment, "none, *tail_cutmix")) == ["none, tail_cutmix"]
    names = rows(experiment, "kd, *tail_patches", "none, *tail_patches")
    values = {name: {0: 40.0} for name in names}
    gains = gains_over_controls(values, "kd, a wider teacher, tail_patches")
    assert list(gains) == ["none, a wider teacher, tail_patches"]


def test_every_named_experiment_is_a_row():
    assert default_row(Experiment.named("cifar100-lt")) == "kd, a Balanced Softmax teacher"
    assert default_row(replace(Experiment.named("digits-lt"), seed=3)) == (
        "image_and_patch, a cross-entropy teacher"
    )
    assert default_row(replace(Experiment.named("cifar10-lt"), teacher_loss="focal")) is None


def test_it_trains_what_is_missing_and_keeps_the_rest(digits, narrow, home, monkeypatch, capsys):
    trained, train = [], module.train
    monkeypatch.setattr(module, "build", lambda experiment: digits)
    monkeypatch.setattr(module, "train", lambda e, d, r: trained.append(e) or train(e, d, r))
    patterns = ["none, *cutmix", "none, a cross-entropy teacher, tail_patches"]
    first = ablation(narrow, seeds=1, patterns=patterns)
    assert [e.student_mix for e in trained] == ["cutmix", "tail_cutmix", "tail_patches"]
    file = narrow.model_folder / "ablation.json"
    content = json.loads(file.read_text())
    assert content["rows"] == first
    assert first[0]["machine"]["device"] and first[0]["versions"]["torch"]  # of every row its own
    assert set(first[0]["validation"]) == {"all", "many", "medium", "few", "calibration_error"}
    content["rows"].pop(1)
    file.write_text(json.dumps(content))
    trained.clear()
    again = ablation(narrow, seeds=1, patterns=patterns)
    assert [e.student_mix for e in trained] == ["tail_cutmix"]
    assert {row["row"] for row in again} == {row["row"] for row in first}
    assert "none, cutmix" in capsys.readouterr().out


def test_two_tables_at_once_keep_each_others_rows(digits, quick, monkeypatch):
    """A second process adds its row while the first one trains."""
    file, train = quick.model_folder / "ablation.json", module.train
    theirs = {"row": "theirs", "seed": 0, "validation": {"all": 1.0}, "test": {"all": 1.0}}

    def beside(*arguments):
        write_json(file, {"experiment": quick.as_dict(), "rows": [theirs]})
        return train(*arguments)

    monkeypatch.setattr(module, "build", lambda experiment: digits)
    monkeypatch.setattr(module, "train", beside)
    monkeypatch.setattr(module, "lead", lambda *found: [])
    found = ablation(quick, seeds=1, patterns=["none", "none, no such mix"])
    assert [row["row"] for row in found] == ["theirs", "none"]
    content = json.loads(file.read_text())
    assert content["rows"] == found
    words = "ablation digits-lt --epochs 1 --seeds 1 --rows none 'none, no such mix'"
    assert content["command"] == f"python -m ltkd {words}"


def test_a_wider_teacher_is_twice_as_wide_as_the_usual_one():
    for name, width in (("cifar100-lt", 32), ("stanford-cars-lt", 64)):
        experiment = Experiment.named(name)
        table = rows(experiment, "teacher alone*")
        widths = [replace(experiment, **fields).teacher_width for fields in table.values()]
        assert widths == [width // 2, width // 2, width]


def test_torchvisions_backbones_have_no_wider_teacher(digits, quick, monkeypatch):
    monkeypatch.setattr(module, "build", lambda experiment: digits)
    monkeypatch.setattr(module, "_measured", lambda *arguments: pytest.fail("a row is trained"))
    with pytest.raises(ValueError, match="No row fits"):
        ablation(replace(quick, backbone="resnet18"), patterns=["*a wider teacher*"])


def test_a_teacher_alone_is_a_row(digits, quick, home, monkeypatch):
    monkeypatch.setattr(module, "build", lambda experiment: digits)
    (row,) = ablation(quick, seeds=1, patterns=["teacher alone, a Balanced*"])
    assert (
        row["command"]
        == "python -m ltkd teacher digits-lt --epochs 1 --teacher-loss balanced_softmax"
    )
    _, content = train(replace(quick, teacher_loss="balanced_softmax"), digits, "teacher")
    assert row["test"]["all"] == content["metrics"]["test"]["all"]
    assert not list(home.rglob("student_model.pth"))


def test_a_pattern_that_fits_no_row_is_refused(quick):
    with pytest.raises(ValueError, match="No row fits 'kdd'; a row is named by recipe, teacher"):
        ablation(quick, patterns=["kdd"])


@pytest.mark.parametrize("defaults", [{}, {"student_loss": "focal"}])
def test_rows_of_other_images_or_defaults_are_measured_again(digits, quick, monkeypatch, defaults):
    file, trained = quick.model_folder / "ablation.json", []
    score = {"all": 1.0, "many": 1.0, "medium": 1.0, "few": 1.0}
    row = {"seed": 0, "validation": score, "test": score}
    rows_of = {"none": "other images", "none, cutmix": digits.fingerprint, "none, older": None}
    rows = [row | {"row": n, "data": d} for n, d in rows_of.items()]
    old = replace(quick, distillation="kd", **defaults)  # which recipe is the default is no matter
    write_json(file, {"experiment": old.as_dict(), "rows": rows})

    def measured_now(student, data, name):
        trained.append(name)
        return {"validation": score, "test": score}

    monkeypatch.setattr(module, "build", lambda experiment: digits)
    monkeypatch.setattr(module, "_measured", measured_now)
    found = ablation(quick, seeds=1, patterns=["none", "none, cutmix"])
    if defaults:  # of an older ltkd
        assert trained == [r["row"] for r in found] == ["none", "none, cutmix"]
        assert read_json(file.with_name("ablation-before-1.json"))["rows"] == rows
    else:
        assert trained == ["none"]
        assert [r["row"] for r in found] == ["none, cutmix", "none, older", "none"]
    assert found[-1]["data"] == digits.fingerprint
