"""The command and the machine that stand beside a result."""

import shlex

import torch

from ltkd import provenance
from ltkd.__main__ import parser
from ltkd.experiments import Experiment
from ltkd.provenance import command


def test_the_command_makes_the_same_experiment_again():
    chosen = {"epochs": 3, "seed": 2, "imbalance_factor": 20.0, "schedule": "paper"}
    experiment = Experiment.choose("cifar100-lt", **chosen)
    first = command(experiment).partition(" && ")[0].removeprefix("python -m ltkd ")
    found = vars(parser().parse_args(shlex.split(first)))
    assert found.pop("job") == "student"
    assert Experiment.choose(found.pop("experiment"), **found) == experiment


def test_the_command_quotes_a_folder_with_spaces():
    assert "'folder:my photos'" in command(Experiment.from_folder("my photos"))


def test_the_machine_names_its_processor(monkeypatch):
    assert provenance.machine()["device"].startswith("CPU") or torch.cuda.is_available()
    monkeypatch.setattr(provenance.Path, "read_text", lambda path: "a : 1\nmodel name\t: Chip 7\n")
    assert provenance._processor() == "CPU: Chip 7"
    monkeypatch.setattr(provenance.Path, "read_text", lambda path: "nothing of the kind")
    assert provenance._processor() == "CPU"
