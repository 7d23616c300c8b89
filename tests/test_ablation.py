"""The ablation: what is trained, what is kept, and where its table is written."""

import json
from dataclasses import replace

import pytest

from ltkd import ablation as module
from ltkd.ablation import ablation
from ltkd.files import read_json, write_json
from ltkd.runs import train


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
