"""The command and the machine that stand beside a result."""

import shlex
from dataclasses import replace

import torch

from ltkd import provenance
from ltkd.__main__ import parser
from ltkd.experiments import Experiment
from ltkd.provenance import command
from ltkd.schedules import Schedule


def test_the_command_makes_the_same_experiment_again():
    chosen = {"epochs": 3, "seed": 2, "imbalance_factor": 20.0, "schedule": "paper"}
    experiment = Experiment.choose("cifar100-lt", **chosen)
    first = command(experiment).partition(" && ")[0].removeprefix("python -m ltkd ")
    found = vars(parser().parse_args(shlex.split(first)))
    assert found.pop("job") == "student"
    assert Experiment.choose(found.pop("experiment"), **found) == experiment


def test_what_no_option_can_change_is_named():
    experiment = Experiment.choose("digits-lt", width=32, seed=1)
    slow = replace(experiment.schedule, learning_rate=0.01)
    said = command(replace(experiment, schedule=slow), ("student",), " --more")
    words = "python -m ltkd student digits-lt --seed 1 --more"
    assert said == f"{words}  # and, in Python: width=32, schedule.learning_rate=0.01"


def test_a_schedule_of_ones_own_is_named():
    own = replace(Experiment.named("digits-lt"), schedule=Schedule("mine", 3))
    said = command(own, ("student",))
    assert said.startswith("python -m ltkd student digits-lt --epochs 3  # and, in Python: ")
    assert "schedule.name='mine'" in said


def test_the_command_quotes_a_folder_with_spaces():
    assert "'folder:my photos'" in command(Experiment.from_folder("my photos"))


def test_the_machine_names_its_processor(monkeypatch):
    assert provenance.machine()["device"].startswith("CPU") or torch.cuda.is_available()
    monkeypatch.setattr(provenance.Path, "read_text", lambda path: "a : 1\nmodel name\t: Chip 7\n")
    assert provenance._processor() == "CPU: Chip 7"
    monkeypatch.setattr(provenance.Path, "read_text", lambda path: "nothing of the kind")
    assert provenance._processor() == "CPU"
