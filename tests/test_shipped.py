"""The shipped results and models: present, readable, and right in their arithmetic."""

import json
import statistics
import subprocess
import sys

import numpy as np
import pytest

from ltkd.ablation_gains import by_row
from ltkd.ablation_grid import by_mixing, by_teacher
from ltkd.ablation_rows import ALONE
from ltkd.checkpoints import load_checkpoint
from ltkd.evaluation import main_scores
from ltkd.experiments import PROJECT, ROLES, Experiment
from ltkd.longtail import GROUPS
from ltkd.provenance import command

IMAGES = {  # of the test sets
    "caltech101-lt": 2_020,
    "cifar10-lt": 10_000,
    "cifar10-lt-best": 10_000,
    "cifar100-lt": 10_000,
    "cifar100-lt-best": 10_000,
    "cifar100-lt-if10": 10_000,
    "cifar100-lt-if50": 10_000,
    "stanford-cars-lt": 1_635,
}
WITHOUT_MODELS = "cifar100-lt-if10", "cifar100-lt-if50"
RESULTS = [PROJECT / "saved_model" / name / "results.json" for name in IMAGES]
SHIPPED = [file for file in RESULTS if file.parent.name not in WITHOUT_MODELS]
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


BIASED, BALANCED = ", a cross-entropy teacher", ", a Balanced Softmax teacher"
DIGITS = {
    "teacher: cross-entropy": "teacher alone" + BIASED,
    "Balanced Softmax + plain distillation (`kd`)": "kd" + BIASED,
    "the same, the class prior taken out of the teacher (`cal": "calibrated_kd" + BIASED,
    "**student**: and decoupled, for image and weighed patches": "image_and_patch" + BIASED,
    "Balanced Softmax, not distilled (`none`)": "none",
}
PARTS = "uniform", "image_and_patch", "kd", "inverted", "shuffled", "decoupled"
CIFAR = {f"`{name}`": name + BALANCED for name in PARTS} | {"`none`": "none"}
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
    ("cifar100-lt-depth8", CIFAR, "validation all, test all"),
    (
        "cifar100-lt-depth8",
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


@pytest.mark.parametrize(("name", "labels", "columns"), TABLES)
def test_the_readmes_ablations_are_those_of_the_files(name, labels, columns):
    rows = json.loads((PROJECT / "saved_model" / name / "ablation.json").read_text())["rows"]
    for label, row in labels.items():
        cells = []
        for split, key in map(str.split, columns.split(", ")):
            values = [r[split][key] for r in rows if r["row"] == row]
            error = f"{statistics.mean(values):.3f}"
            cells.append(error if key == "calibration_error" else spread(values))
        assert in_readme(label, cells), (label, cells)


@pytest.mark.parametrize("grid", [by_teacher, by_mixing])
def test_the_readmes_grids_are_those_of_the_file(grid):
    file = PROJECT / "saved_model" / "cifar100-lt-depth8" / "ablation.json"
    rows = json.loads(file.read_text())["rows"]
    validation, test = (
        grid({n: np.array([*runs.values()]) for n, runs in by_row(rows, split).items()})
        for split in ("validation", "test")
    )
    assert validation.keys() == test.keys()
    for line, cells in validation.items():
        seen = test[line].values()
        shown = [
            f"{spread(ours.tolist())} ({theirs.mean():.1f})" if len(ours) else ""
            for ours, theirs in zip(cells.values(), seen, strict=True)
        ]
        recipe, *teacher = line.split(", ")
        label = ", ".join([recipe if recipe == ALONE else f"`{recipe}`", *teacher])
        assert in_readme(f"{label} |", shown), (line, shown)


def headline(scores: list[dict]) -> list[str]:
    cells = [spread([score[group] for score in scores]) for group in ("all", *GROUPS)]
    return [*cells, spread([score["calibration_error"] for score in scores], digits=3)]


def test_the_readmes_controls_are_those_of_the_file():
    file = PROJECT / "saved_model" / "cifar100-lt-best" / "ablation.json"
    rows = json.loads(file.read_text())["rows"]
    knows = "the same, its label loss knows how pasted labels are drawn"
    for name, label, mark in (
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
        ("kd from three ResNet-32", "student of three networks like itself", ""),
    ):
        *cells, error = headline([row["test"] for row in rows if row["row"] == name])
        assert in_readme(label, [*cells, error + mark])


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("cifar100-lt", ("teacher: Balanced Softmax", "**student**: plain distillation from it")),
        (
            "cifar100-lt-best",
            ("three such teachers, the mean of", "**student of three such teachers**: plain"),
        ),
    ],
)
def test_the_readmes_headlines_are_those_of_the_files(name, labels):
    runs = json.loads((PROJECT / "saved_model" / name / "results.json").read_text())["seeds"]
    for role, label in zip(ROLES, labels, strict=True):
        *cells, error = headline([main_scores(run[role]) for run in runs])
        assert in_readme(label, [*cells, error]) or in_readme(label, [*cells, f"{error}†"])
