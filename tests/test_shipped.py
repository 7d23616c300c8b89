"""The shipped results and models: present, readable, and right in their arithmetic."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

from ltkd.__main__ import parser
from ltkd.checkpoints import load_checkpoint
from ltkd.experiments import ROLES, Experiment
from ltkd.finished import same_training
from ltkd.options import OPTIONS
from ltkd.places import PROJECT
from ltkd.provenance import command

IMAGES = {  # of the test sets
    "caltech101-lt": 2_020,
    "cifar10-lt": 10_000,
    "cifar10-lt-quick": 10_000,
    "cifar100-lt": 10_000,
    "cifar100-lt-if10": 10_000,
    "cifar100-lt-if50": 10_000,
    "cifar100-lt-quick": 10_000,
    "cifar100-lt-quick-if10": 10_000,
    "cifar100-lt-quick-if50": 10_000,
    "stanford-cars-lt": 1_635,
}
WITHOUT_MODELS = (
    "cifar100-lt-if10",
    "cifar100-lt-if50",
    "cifar100-lt-quick-if10",
    "cifar100-lt-quick-if50",
)
RESULTS = [PROJECT / "saved_model" / name / "results.json" for name in IMAGES]
SHIPPED = [file for file in RESULTS if file.parent.name not in WITHOUT_MODELS]
ABLATED = ("caltech101-lt", "cifar100-lt-long", "cifar100-lt-quick", "cifar100-lt-quick-depth8",
           "digits-ablation", "stanford-cars-lt")  # fmt: skip
ABLATIONS = [PROJECT / "saved_model" / name / "ablation.json" for name in ABLATED]
MEBIBYTES = 16


def each(files):
    return pytest.mark.parametrize("file", files, ids=lambda file: file.parent.name)


@each(SHIPPED)
def test_models_are_those_of_the_results(file):
    results = json.loads(file.read_text())
    experiment = Experiment.from_dict(results["experiment"])
    jobs = ["student", *(["calibrate"] if "temperature" in results["student"] else [])]
    models = {role: load_checkpoint(file.with_name(f"{role}_model.pth")) for role in ROLES}
    jobs += ["halve"] if any(c["metrics"].get("halved") for _, c in models.values()) else []
    assert results["command"] == command(experiment, (*jobs, "evaluate"))
    for role, (network, content) in models.items():
        assert file.with_name(f"{role}_model.pth").stat().st_size < MEBIBYTES * 2**20
        assert content["counts"] == results["counts"]
        assert content["metrics"]["test"]["all"] == pytest.approx(results[role]["all"], abs=0.05)
        parameters = sum(p.numel() for p in network.parameters())
        assert parameters == results[role]["parameters"]


@pytest.mark.parametrize(
    "name",
    ["cifar10-lt", "cifar10-lt-quick", "cifar100-lt", "cifar100-lt-quick", "stanford-cars-lt"],
)
def test_a_command_takes_the_models_that_lie_in_its_folder(name):
    for role in ROLES:
        content = load_checkpoint(PROJECT / "saved_model" / name / f"{role}_model.pth")[1]
        assert same_training(content["experiment"], Experiment.named(name), role)


@each(RESULTS)
def test_a_folder_bears_the_name_of_what_its_command_makes(file):
    experiment = Experiment.from_dict(json.loads(file.read_text())["experiment"])
    assert experiment.name == file.parent.name.replace("caltech101", "caltech256")


@each(RESULTS)
def test_accuracies_follow_from_the_confusion(file):
    results = json.loads(file.read_text())
    counts = np.array(results["counts"])
    groups = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    for role in ROLES:
        scores, confusion = results[role], np.array(results[role]["confusion"])
        assert confusion.sum() == results["test_images"] == IMAGES[file.parent.name]
        recalls = 100 * confusion.diagonal() / confusion.sum(1)
        assert scores["per_class"] == pytest.approx(recalls)
        assert scores["all"] == pytest.approx(100 * confusion.trace() / confusion.sum())
        for name, mask in groups.items():
            wanted = recalls[mask].mean() if mask.any() else None
            assert scores["groups"][name] == (pytest.approx(wanted) if mask.any() else None)


@each(RESULTS)
def test_every_seed_says_how_it_was_made(file):
    results = json.loads(file.read_text())
    own = [row for row in results["seeds"] if row["seed"] == results["experiment"]["seed"]]
    assert own[0]["student"]["all"] == results["student"]["all"]
    for row in results["seeds"]:
        assert row["command"].startswith("python -m ltkd student ")
        assert row["machine"]["device"]
        assert row["versions"]["torch"]
        assert all(row[role]["seconds"] > 0 for role in ROLES)


@pytest.mark.parametrize("file", [*RESULTS, *ABLATIONS], ids=lambda file: "-".join(file.parts[-2:]))
def test_recorded_commands_are_those_of_the_program(file):
    """Each is understood, and the experiment that it asks for has no other command."""
    content = json.loads(file.read_text())
    runs = content.get("seeds", []) + content.get("rows", [])
    commands = [content["command"], *(run["command"] for run in runs)]
    for line in set(" && ".join(commands).split(" && ")):
        asked = vars(parser().parse_args(shlex.split(line)[3:]))
        options = {o: v for o, v in asked.items() if o in OPTIONS and v is not None}
        experiment = Experiment.choose(asked["experiment"], **options)
        assert line.startswith(command(experiment, (line.split()[3],))), line


def test_a_stand_in_says_so():
    for name, known in (("caltech101-lt", "not the files of Caltech-256"),
                        ("stanford-cars-lt", "not all files of Stanford Cars")):  # fmt: skip
        results = json.loads((PROJECT / "saved_model" / name / "results.json").read_text())
        assert known in results["remark"]


def test_loading_imports_nothing_large():
    """Seconds: torchvision, scikit-learn, what torch fetches for networks without memory."""
    files = [str(file.with_name("student_model.pth")) for file in SHIPPED]
    code = f"""
import sys, torch
before = set(sys.modules)
from ltkd import runs
from ltkd.classifier import Classifier
for file in {files}: Classifier.load(file)
print({{"torchvision", "sympy", "sklearn", "matplotlib"}} & (set(sys.modules) - before))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


def test_only_weights_and_numbers_are_shipped():
    words = ["git", "-C", PROJECT, "ls-files", "saved_model"]
    listed = subprocess.run(words, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("This copy of the project is no git repository.")
    names = {name.rpartition("/")[2] for name in listed.stdout.split()}
    assert {name.rpartition(".")[2] for name in names} <= {"json", "pth", "png", "md"}
    assert not any(name.endswith("_training.pth") for name in names)
