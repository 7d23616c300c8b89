"""Shipped results: from whichever files exist, and in words where none do."""

import json

import numpy as np
import pytest
from panels import METRICS

from ltkd import shipped
from ltkd.checkpoints import save_checkpoint
from ltkd.datasets import build
from ltkd.experiments import ROLES
from ltkd.initial import new_network
from ltkd.results import results


@pytest.fixture
def summary(quick, digits):
    """results.json of two untrained networks, beside them."""
    for role in ("teacher", "student"):
        network = new_network(quick, digits, role)
        metrics = METRICS | {"seconds": 1.5, "parameters": 75_290}
        save_checkpoint(quick.model_file(role), network, digits, quick, role, metrics, [])
    return results(quick, digits)


def test_a_report_has_the_numbers_of_the_file(quick, summary):
    text = shipped.report(quick.name)
    for role in ("teacher", "student"):
        assert f"{summary[role]['all']:.1f}" in text
        assert f"calibration error {summary[role]['calibration_error']:.3f}" in text
    assert f"mends {len(summary['comparison']['mended'])} " in text.replace(" images", " ")
    assert all(line in text for line in summary["command"].split(" && "))
    assert "75,290 parameters" in text


def test_a_report_says_what_is_odd_about_the_data(quick, summary):
    assert summary["remark"] == ""
    assert shipped.report(quick.name).splitlines()[1] == ""
    remark = "These are not the files of Caltech-256. " * 5
    (quick.model_folder / "results.json").write_text(json.dumps(summary | {"remark": remark}))
    lines = shipped.report(quick.name).splitlines()
    assert " ".join(lines[1 : lines.index("")]) == remark.strip()
    assert max(map(len, lines[: lines.index("")])) <= 88


def test_long_names_and_commands_are_wrapped(quick, summary):
    long = summary | {"command": "python -m ltkd student digits-lt " + 9 * "--teacher-width 64 "}
    (quick.model_folder / "results.json").write_text(json.dumps(long))
    text = shipped.report(quick.name)
    assert max(map(len, text.splitlines())) <= 88
    first = next(line for line in text.splitlines() if line.startswith("python"))
    assert first.endswith(" \\")  # so that a shell takes both lines for one command
    assert long["command"].strip() in text.replace(" \\\n", " ")


def test_figures_of_a_file(quick, summary):
    lines = shipped.by_class(quick.name).axes[0].lines
    drawn = [line.get_ydata() for line in lines]
    assert drawn[0] == pytest.approx(np.array(summary["teacher"]["per_class"]))
    assert "Teacher" in shipped.reliability(quick.name).axes[0].get_legend_handles_labels()[1][1]


def test_results_are_sound_json(quick, summary):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (quick.model_folder / "results.json").read_text()
    curve = json.loads(text, parse_constant=refuse)["teacher"]["reliability"]
    assert len(curve["accuracy"]) == len(curve["count"]) == 15
    empty = [value is None for value in curve["accuracy"]]
    assert empty == [count == 0 for count in curve["count"]] and any(empty)


def test_seeds_are_averaged(quick, summary):
    def run(seed, value):
        groups = {"many": value, "medium": None, "few": value - 30}
        return {"seed": seed} | {r: {"all": value, "groups": groups} for r in ROLES}

    assert "seeds" not in shipped.report(quick.name)
    summary["seeds"] = [run(0, 50.0), run(2, 52.0)]
    (quick.model_folder / "results.json").write_text(json.dumps(summary))
    lines = shipped.report(quick.name).splitlines()
    start = lines.index("Mean ± standard deviation of seeds 0, 2:")
    assert " ".join(lines[start + 2].split()) == "Teacher 51.0 ± 1.4 51.0 ± 1.4 – 21.0 ± 1.4"
    assert lines[start + 3].startswith("Student")


def test_an_older_file_without_a_curve(quick, summary, home):
    for role in ("teacher", "student"):
        del summary[role]["reliability"]
    (quick.model_folder / "results.json").write_text(json.dumps(summary))
    assert shipped.reliability(quick.name) is None
    assert shipped.by_class(quick.name) is not None


def test_what_is_not_shipped(monkeypatch, tmp_path):
    monkeypatch.setattr(shipped, "PROJECT", tmp_path)
    assert shipped.report("cifar100-lt") == "cifar100-lt: not shipped"
    assert shipped.by_class("cifar100-lt") is shipped.reliability("cifar100-lt") is None
    (tmp_path / "saved_model" / "digits-ablation").mkdir(parents=True)  # a folder without models
    assert shipped.patch_weights("digits-ablation") is None


def test_confusion_of_a_file(quick, summary):
    assert shipped.confusion("no-such-experiment") is None
    left, right, _ = shipped.confusion(quick.name).axes
    for ax, role in ((left, "teacher"), (right, "student")):
        shown = np.asarray(ax.collections[0].get_array()).reshape(10, 10)
        assert shown == pytest.approx(100 * np.array(summary[role]["confusion"]) / 64)


def test_patch_weights_are_drawn_where_the_images_are(quick, summary, digits, capsys):
    assert shipped.patch_weights("no-such-experiment") is None
    assert shipped.patch_weights(quick.name) is None
    assert "python -m ltkd build digits-lt" in capsys.readouterr().out
    build(quick)
    axes = shipped.patch_weights(quick.name, columns=3).axes
    assert [ax.get_title() for ax in axes[:3]] == ["0", "4", "9"]  # from head to tail
    texts = [float(text.get_text()) for text in axes[3].texts]
    assert len(texts) == 16 and np.mean(texts) == pytest.approx(1, abs=0.05)


def test_ranks_stand_in_where_no_class_is_few_shot(quick, summary):
    file = quick.model_folder / "results.json"
    assert "bottom" not in shipped.report(quick.name)
    for role in ("teacher", "student"):
        summary[role]["groups"]["few"] = None
    file.write_text(json.dumps(summary))
    header, teacher, _ = shipped.report(quick.name).split("\n\n")[2].splitlines()
    assert header.split() == ["all", "top", "middle", "bottom"]
    assert teacher.split()[-1] == f"{summary['teacher']['groups']['bottom']:.1f}"
