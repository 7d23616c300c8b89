"""python -m ltkd, from the data to results.json, and the teacher and student behind it."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

from ltkd import __main__, runs, training
from ltkd.__main__ import main
from ltkd.checkpoints import load_checkpoint
from ltkd.datasets import Split
from ltkd.experiments import ROLES, Experiment
from ltkd.options import OPTIONS

GROUPS = {"many", "medium", "few", "head", "tail", "top", "middle", "bottom"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A home in which all four jobs were done, and what each printed."""
    from contextlib import redirect_stdout
    from io import StringIO

    said = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", str(tmp_path_factory.mktemp("commands")))
        for option in (*OPTIONS, "data"):
            patch.delenv(f"LTKD_{option.upper()}", raising=False)
        for job in ("build", "teacher", "student", "evaluate"):
            with redirect_stdout(StringIO()) as out:
                assert main([job, "digits-lt", "--epochs", "1"]) == 0
            said[job] = out.getvalue()
        folder = Experiment.choose("digits-lt", epochs=1).model_folder
        yield folder, said


@pytest.fixture
def summary(finished) -> dict:
    return json.loads((finished[0] / "results.json").read_text())


def test_the_jobs_leave_their_files_and_nothing_else(finished):
    folder, _ = finished
    files = {f.name for f in folder.iterdir()}
    assert files == {"teacher_model.pth", "student_model.pth", "results.json"}
    assert (folder.parents[1] / "data/built/digits-lt.npz").is_file()


def test_each_job_says_what_it_did(finished):
    _, said = finished
    assert "10 classes; 305 train, 439 validation, 640 test images" in said["build"]
    assert "110 to 2 training images a class" in said["build"]
    assert "The teacher is trained" in said["teacher"]
    assert "The teacher is loaded from" in said["student"]
    assert "The student is trained" in said["student"]


def test_evaluate_prints_a_table(finished, summary):
    lines = finished[1]["evaluate"].splitlines()
    assert lines[0].split() == ["all", "many", "medium", "few"]
    for line, role in zip(lines[1:], ("teacher", "student"), strict=True):
        values = [summary[role]["all"], *(summary[role]["groups"][g] for g in lines[0].split()[1:])]
        assert line.split() == [role.capitalize(), *(f"{v:.1f}" for v in values)]


def test_results_say_where_they_come_from(summary, digits):
    assert summary["experiment"]["name"] == "digits-lt-epochs1"
    assert summary["experiment"]["schedule"]["epochs"] == 1
    assert summary["counts"] == digits.counts.tolist()
    assert summary["test_images"] == 640
    assert "python -m ltkd" in summary["command"]
    assert summary["versions"]["torch"] == str(torch.__version__)
    assert summary["machine"]["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_results_add_up(summary, digits, role):
    scores = summary[role]
    confusion = np.array(scores["confusion"])
    assert confusion.sum(1).tolist() == np.bincount(digits.test.labels).tolist()
    assert scores["all"] == pytest.approx(100 * confusion.trace() / confusion.sum())
    per_class = np.array(scores["per_class"])
    assert per_class == pytest.approx(100 * confusion.diagonal() / confusion.sum(1))
    assert set(scores["groups"]) == GROUPS
    for name, mask in digits.groups.items():
        assert scores["groups"][name] == pytest.approx(per_class[mask].mean())
    assert 0 <= scores["calibration_error"] <= 1
    assert scores["seconds"] > 0


def test_the_comparison_adds_up(summary):
    mended, broken = summary["comparison"]["mended"], summary["comparison"]["broken"]
    assert not set(mended) & set(broken)
    gain = 100 * (len(mended) - len(broken)) / summary["test_images"]
    assert summary["student"]["all"] - summary["teacher"]["all"] == pytest.approx(gain)


def test_results_are_those_of_the_model_files(finished, summary):
    for role in ("teacher", "student"):
        network, content = load_checkpoint(finished[0] / f"{role}_model.pth", 10)
        assert content["role"] == role
        assert content["metrics"]["test"]["confusion"] == summary[role]["confusion"]
        parameters = sum(p.numel() for p in network.parameters())
        assert summary[role]["parameters"] == parameters


def failed(capsys, *arguments: str) -> str:
    """The one sentence with which a job ends."""
    assert main(list(arguments)) == 1
    error = capsys.readouterr().err
    assert error.startswith("ltkd: ")
    assert error.count("\n") == 1
    return error


def test_an_unknown_experiment(capsys):
    error = failed(capsys, "build", "digits")
    assert "Unknown experiment 'digits'; choose one of digits-lt, cifar10-lt" in error


def test_what_a_user_can_mend_is_one_sentence(capsys, tmp_path):
    assert "There is no folder" in failed(capsys, "build", f"folder:{tmp_path}/nowhere")
    assert "Unknown profile 'flat'" in failed(capsys, "build", "digits-lt", "--profile", "flat")
    error = failed(capsys, "build", "digits-lt", "--imbalance-factor", "1000")
    assert "for the largest class has 110: choose a smaller factor" in error


def test_used_up_memory_is_one_sentence(capsys, monkeypatch):
    def full(experiment):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("ltkd.datasets.build", full)
    assert "choose a smaller image_size" in failed(capsys, "build", "digits-lt")


def test_seeds_of_the_ablation(capsys):
    assert "--seeds is at least 1, not 0" in failed(capsys, "ablation", "digits-lt", "--seeds", "0")
    error = failed(capsys, "ablation", "digits-lt", "--seed", "5")
    assert "say how many by --seeds, not --seed" in error


def test_what_the_rows_of_the_ablation_set_is_refused(capsys):
    words = "--student-mix", "cutmix", "--teacher-loss", "cross_entropy"  # the second is usual
    error = failed(capsys, "ablation", "digits-lt", *words)
    assert "set student_mix themselves" in error and "choose rows by --rows" in error


def test_halve_and_some_rows_of_the_ablation(home, capsys):
    assert main(["student", "digits-lt", "--epochs", "1"]) == 0
    capsys.readouterr()
    assert main(["halve", "digits-lt", "--epochs", "1"]) == 0
    assert capsys.readouterr().out.count(" precision") == 2  # what became of each model
    words = ["--seeds", "1", "--rows", "none", "no such *"]
    assert main(["ablation", "digits-lt", "--epochs", "1", *words]) == 0
    file = Experiment.choose("digits-lt", epochs=1).model_folder / "ablation.json"
    rows = json.loads(file.read_text())["rows"]
    assert [(row["row"], row["seed"]) for row in rows] == [("none", 0)]


def test_evaluate_before_training(capsys):
    error = failed(capsys, "evaluate", "digits-lt")
    assert "There is no model file" in error
    assert "train it first" in error


def test_stopped_while_its_libraries_are_imported(capsys, monkeypatch):
    class Slow(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "ltkd.runs", Slow("ltkd.runs"))
    assert main(["teacher", "digits-lt"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupted_job_says_how_to_go_on(capsys, monkeypatch):
    def interrupted(*arguments):
        """Stop."""
        raise KeyboardInterrupt

    monkeypatch.setitem(__main__.JOBS, "teacher", interrupted)
    assert main(["teacher", "digits-lt"]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["build"],
        ["build", "digits-lt", "--seed", "x"],
        ["benchmark", "step", "--seed", "5"],  # not --seeds
        ["student", "digits-lt", "--epoch", "5"],
    ],
)
def test_wrong_usage_is_explained(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m ltkd" in capsys.readouterr().err


def test_as_a_program():
    command = [sys.executable, "-m", "ltkd", "teacher", "nothing-lt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ltkd: Unknown experiment 'nothing-lt'")
    assert "Traceback" not in done.stderr


def stop_after(monkeypatch, epochs: int) -> None:
    """Interrupt training in the epoch that follows."""
    epoch = training.Trainer._epoch

    def interrupted(self, number):
        if number == epochs:
            raise KeyboardInterrupt
        return epoch(self, number)

    monkeypatch.setattr(training.Trainer, "_epoch", interrupted)


def thinned(split: Split) -> Split:
    return Split(*(values[::20] for values in split))


@pytest.mark.parametrize("ema", [0, 0.9], ids=["plain", "ema-mixed"])
def test_teacher_and_student_go_on_where_they_stopped(digits, narrow, shorten, tmp_path, ema):
    digits = replace(digits, test=thinned(digits.test), validation=thinned(digits.validation))
    experiment = shorten(narrow, 2, ema=ema)
    if ema:
        experiment = replace(experiment, teacher_mix="cutmix", student_mix="tail_patches")
    weights = {}
    for home, stops in (("smooth", ()), ("interrupted", ROLES)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LTKD_HOME", str(tmp_path / home))
            for role in ROLES:
                if role in stops:
                    with pytest.MonkeyPatch.context() as stop, pytest.raises(KeyboardInterrupt):
                        stop_after(stop, 1)
                        runs.train(experiment, digits, role)
                    assert runs.state_file(experiment.owner(role), role).exists()
                weights[home, role] = runs.train(experiment, digits, role)[0].state_dict()
    for role in ROLES:
        first, second = weights["smooth", role], weights["interrupted", role]
        assert all(torch.equal(first[k], second[k]) for k in first)


def test_gradients_reach_only_the_student(digits, quick, monkeypatch):
    teachers, objective = [], runs.objective_for

    def watched(experiment, data, role, teacher, *rest):
        teachers.append(teacher)
        return objective(experiment, data, role, teacher, *rest)

    before = {k: v.clone() for k, v in runs.train(quick, digits, "teacher")[0].state_dict().items()}
    monkeypatch.setattr(runs, "objective_for", watched)
    student = runs.train(quick, digits, "student")[0].state_dict()
    (teacher,) = teachers
    after = teacher.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)  # BatchNorm's buffers too
    assert all(p.grad is None for p in teacher.parameters())
    assert not torch.equal(student["classifier.weight"], before["classifier.weight"])


def test_a_finished_model_is_not_trained_again(digits, quick, monkeypatch, capsys):
    first = runs.train(quick, digits, "teacher")[0].state_dict()
    stop_after(monkeypatch, 0)
    again = runs.train(quick, digits, "teacher")[0].state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    quick.model_file("teacher").write_bytes(b"damaged")
    with pytest.raises(KeyboardInterrupt):
        runs.train(quick, digits, "teacher")
    assert "It is trained again now" in capsys.readouterr().out


def test_names_that_the_output_cannot_show(tmp_path, write_classes, monkeypatch):
    write_classes(tmp_path / "野猫", {"ant": 6, "bee": 6})
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", output)
    with pytest.raises(SystemExit, match="0"):
        main(["build", "-h"])
    assert main(["build", f"folder:{tmp_path}/野猫", "--image-size", "32"]) == 0
    told = output.buffer.getvalue().decode("ascii")
    assert "usage: " in told and "folder-??-px32.npz: 2 classes" in told
