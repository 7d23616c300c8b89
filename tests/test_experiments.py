"""Names, choices from outside, and what a wrong choice is told."""

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from ltkd import places
from ltkd.experiments import EXPERIMENTS, Experiment
from ltkd.places import PROJECT, home
from ltkd.schedules import SCHEDULES, Schedule
from ltkd.sources import data_folders

NAMES = ["digits-lt", "cifar10-lt", "cifar100-lt", "stanford-cars-lt", "caltech256-lt",
         "caltech257-lt", "cifar10-lt-quick", "cifar100-lt-quick"]  # fmt: skip


def test_the_named_experiments():
    assert list(EXPERIMENTS) == NAMES
    assert [Experiment.named(name).name for name in NAMES] == NAMES


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="Unknown experiment 'cifar1000'") as error:
        Experiment.choose("cifar1000")
    assert all(name in str(error.value) for name in [*NAMES, "folder:<path>"])


def test_an_experiment_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        Experiment.named("digits-lt").seed = 3


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, ""),
        ({"seed": 2}, "-seed2"),
        ({"imbalance_factor": 50}, "-if50"),
        ({"imbalance_factor": 100.0}, ""),
        ({"imbalance_factor": 2.5}, "-if2.5"),
        ({"profile": "step", "split_seed": 1}, "-step-split1"),
        ({"student_tail_loss": "focal", "depth": 20}, "-depth20-tail_focal"),
        ({"distillation": "dkd", "teacher_loss": "ldam_drw"}, "-teacher_ldam_drw-dkd"),
        ({"schedule": SCHEDULES["paper"]}, "-paper"),
        ({"schedule": replace(SCHEDULES["fast"], ema=0.5)}, "-ema0.5"),
        ({"schedule": replace(SCHEDULES["fast"], name="mine")}, "-mine"),
        ({"schedule": replace(SCHEDULES["fast"], name="mine", ema=0.5)}, "-mine-ema0.5"),
        (
            {"teacher_mix": "cutmix", "student_mix": "tail_cutmix"},
            "-teacher_mix_cutmix-mix_tail_cutmix",
        ),
    ],
)
def test_a_name_says_what_was_changed(changes, name):
    assert (
        replace(Experiment.named("cifar100-lt-quick"), **changes).name == f"cifar100-lt-quick{name}"
    )


def test_every_field_that_changes_the_result_changes_the_name():
    changes = {
        "profile": "step", "imbalance_factor": 7, "split_seed": 3, "validation": 5,
        "image_size": 64, "depth": 20, "width": 8, "teacher_width": 24, "teacher_loss": "focal",
        "student_loss": "focal", "student_tail_loss": "focal", "distillation": "dkd", "seed": 3,
        "stem_stride": 2, "bank": 5, "teacher_mix": "cutmix", "student_mix": "cutmix",
        "merge_below": 4, "backbone": "resnet18", "teacher_depth": 14, "teacher_stem_stride": 2,
        "teacher_members": 2, "student_epochs": 40,
    }  # fmt: skip
    plan = {
        "epochs": 7, "batch_size": 32, "learning_rate": 0.3, "warmup": 0.2, "momentum": 0.8,
        "weight_decay": 1e-3, "augment": ("flip",), "ema": 0.99, "precision": "no",
        "optimizer": "sgd", "muon_rate": 0.3, "small": 0.1, "compile": True, "decay": "cosine",
        "backbone_rate": 0.1,
    }  # fmt: skip
    apart = {
        "base",
        "source",
        "folder",
        "expected",
        "schedule",
        "weights",
    }  # weights: test_backbones
    assert set(changes) | apart == {f.name for f in fields(Experiment)}
    assert set(plan) | {"name"} == {f.name for f in fields(Schedule)}
    base = Experiment.named("cifar10-lt-quick")
    assert all(getattr(base.schedule, field) != value for field, value in plan.items())
    changed = [replace(base, **{field: value}) for field, value in changes.items()]
    changed += [replace(base, schedule=replace(base.schedule, **{f: v})) for f, v in plan.items()]
    assert len({e.name for e in [base, *changed]}) == 1 + len(changes) + len(plan)


def test_only_what_changes_the_data_changes_the_built_file(home):
    base = Experiment.named("digits-lt")
    assert base.built_file == home / "data/built/digits-lt.npz"
    assert replace(base, seed=5).built_file == base.built_file
    assert replace(base, split_seed=5).built_file != base.built_file
    assert replace(base, seed=5).model_folder == home / "saved_model/digits-lt-seed5"


def test_experiments_that_differ_in_training_share_the_built_file():
    best, quick = Experiment.named("cifar100-lt"), Experiment.named("cifar100-lt-quick")
    assert quick.built_file == best.built_file
    steep = replace(quick, imbalance_factor=50)
    assert steep.built_file == replace(best, imbalance_factor=50).built_file
    assert steep.data_name == steep.split_name == "cifar100-lt-if50"
    assert steep.name == "cifar100-lt-quick-if50"
    assert len({Experiment.named(name).data_name for name in NAMES}) == len(NAMES) - 2


def test_an_experiment_of_ones_own_has_its_own_images(monkeypatch):
    own = replace(Experiment.named("cifar100-lt-quick"), base="mine", imbalance_factor=200)
    monkeypatch.setitem(EXPERIMENTS, "mine", own)
    assert own.data_name == "mine" and replace(own, seed=1).data_name == "mine"


def test_home_is_the_project_unless_it_is_said_otherwise(monkeypatch):
    monkeypatch.delenv("LTKD_HOME")
    assert home() == PROJECT
    assert (PROJECT / "ltkd" / "experiments.py").exists()


def test_choices_from_the_environment(monkeypatch):
    monkeypatch.setenv("LTKD_EPOCHS", "2")
    monkeypatch.setenv("LTKD_IMBALANCE_FACTOR", "20")
    monkeypatch.setenv("LTKD_PROFILE", "step")
    monkeypatch.setenv("LTKD_SEED", "4")
    monkeypatch.setenv("LTKD_SPLIT_SEED", "5")
    chosen = Experiment.choose("cifar10-lt")
    assert chosen.schedule.epochs == 2
    assert (chosen.imbalance_factor, chosen.profile) == (20, "step")
    assert (chosen.seed, chosen.split_seed) == (4, 5)
    assert chosen.name == "cifar10-lt-step-if20-split5-seed4-epochs2"


def test_what_is_given_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("LTKD_EPOCHS", "2")
    monkeypatch.setenv("LTKD_SEED", "")
    assert Experiment.choose("digits-lt", epochs=3).schedule.epochs == 3
    assert Experiment.choose("digits-lt", epochs=None, seed=None).name == "digits-lt-epochs2"


def test_what_to_expect_is_said_of_the_named_experiment_alone():
    named = Experiment.named("cifar100-lt")
    assert Experiment.choose("cifar100-lt") == named and named.expected
    assert Experiment.choose("cifar100-lt", seed=1).expected == ""


def test_photographs_of_ones_own_are_trained_as_cars_are(tmp_path):
    own, cars = Experiment.from_folder(tmp_path), Experiment.named("stanford-cars-lt")
    for field in ("image_size", "depth", "stem_stride", "width", "teacher_width", "teacher_loss",
                  "student_loss", "distillation"):  # fmt: skip
        assert getattr(own, field) == getattr(cars, field), field
    assert own.schedule == SCHEDULES["photographs"]


def test_a_factor_that_cuts_nothing_is_refused_for_a_folder_too(tmp_path):
    with pytest.raises(ValueError, match="an imbalance factor changes nothing"):
        Experiment.from_folder(tmp_path, imbalance_factor=50)
    cut = Experiment.from_folder(tmp_path, imbalance_factor=50, profile="exponential")
    assert cut.imbalance_factor == 50


def test_a_schedule_is_chosen_by_name():
    chosen = Experiment.choose("cifar100-lt", schedule="paper", epochs=400)
    assert chosen.schedule == replace(SCHEDULES["paper"], epochs=400)
    assert (
        Experiment.choose("cifar100-lt", epochs=str(SCHEDULES["long"].epochs)).name == "cifar100-lt"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": "many"}, "The option epochs cannot be 'many'"),
        ({"epochs": 0}, "at least 1 epoch"),
        ({"epochs": 2.7}, "The option epochs cannot be 2.7"),
        ({"epochs": float("inf")}, "The option epochs cannot be inf"),
        ({"epochs": np.float32(2.5)}, "The option epochs cannot be "),
        ({"seed": [1]}, r"The option seed cannot be \[1\]"),
        ({"merge_below": 30}, "Only classes of your own photographs are merged"),
        ({"imbalance_factor": "x"}, "The option imbalance_factor cannot be 'x'"),
        ({"imbalance_factor": 0.5}, "at least 1, not 0.5"),
        ({"imbalance_factor": "nan"}, "at least 1, not nan"),
        ({"profile": "flat"}, "Unknown profile 'flat'; choose one of exponential, step, natural"),
        (
            {"schedule": "slow"},
            "Unknown schedule 'slow'; choose one of "
            "digits, fast, long, paper, photographs, finetune",
        ),
    ],
)
def test_a_wrong_choice_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Experiment.choose("digits-lt", **options)


def test_a_wrong_choice_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("LTKD_SEED", "one")
    with pytest.raises(ValueError, match="The option seed cannot be 'one'"):
        Experiment.choose("digits-lt")


def test_a_variable_for_folders_is_no_matter_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("LTKD_MERGE_BELOW", "6")
    assert Experiment.choose("digits-lt") == Experiment.named("digits-lt")
    assert Experiment.choose(f"folder:{tmp_path}").merge_below == 6


def test_a_name_of_many_changes_is_no_longer_than_a_file_systems(monkeypatch):
    plan = Schedule("mine", 7, 32, learning_rate=0.123, warmup=0.2, momentum=0.8, muon_rate=0.3)
    names = [
        replace(Experiment.named("cifar10-lt-quick"), schedule=replace(plan, ema=ema)).name
        for ema in (0.1, 0.2)
    ]
    assert len({*names}) == 2 and max(map(len, names)) < 60


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2 images"):
        Schedule("tiny", 1, batch_size=1)


def test_a_folder_of_ones_own(tmp_path):
    chosen = Experiment.choose(f"folder:{tmp_path}/my birds", epochs=1)
    assert (chosen.source, chosen.profile) == ("folder", "natural")
    assert chosen.folder == f"{tmp_path}/my birds"
    assert chosen.name == "folder-my_birds-epochs1"
    assert Experiment.from_folder("~/x").folder.endswith("/x")
    assert "~" not in Experiment.from_folder("~/x").folder


def test_notebooks_find_a_folder_of_the_project(monkeypatch):
    monkeypatch.chdir(PROJECT / "notebooks")
    assert Experiment.choose("folder:data").folder == str(PROJECT / "data")
    assert Experiment.choose("folder:images").folder == "images"  # nearer


def test_all_fields_as_plain_values():
    values = Experiment.named("digits-lt").as_dict()
    assert values["name"] == "digits-lt"
    assert values["schedule"]["augment"] == ("crop",)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"image_size": 7}, "The image_size of an experiment is at least 8, not 7"),
        ({"image_size": 4097}, "The image_size is at most 4096, not 4097"),
        ({"seed": -1}, "The seed of an experiment is at least 0, not -1"),
        ({"split_seed": -1}, "The split_seed of .* at least 0, not -1"),
        ({"validation": 0}, "The validation of .* at least 1, not 0"),
        ({"bank": -1}, "The bank of .* at least 0, not -1"),
        ({"student_epochs": 0}, "The student_epochs of .* at least 1, not 0"),
        ({"merge_below": -5}, "The merge_below of .* at least 0, not -5"),
        ({"teacher_width": 0}, "The teacher_width of .* at least 1, not 0"),
        ({"width": -4}, "The width of .* at least 1, not -4"),
    ],
)
def test_numbers_that_make_no_sense(choice, said):
    with pytest.raises(ValueError, match=said):
        replace(Experiment.named("digits-lt"), **choice)


def test_a_factor_that_would_change_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keeps every image, so an imbalance factor changes"):
        Experiment.choose(f"folder:{tmp_path}", imbalance_factor=50)
    with pytest.raises(ValueError, match="keeps every image"):
        Experiment.choose("digits-lt", profile="natural", imbalance_factor=20)
    cut = Experiment.choose(f"folder:{tmp_path}", profile="step", imbalance_factor=50)
    assert (cut.profile, cut.imbalance_factor) == ("step", 50)


def test_a_shape_that_a_backbone_has_not_is_refused(monkeypatch):
    monkeypatch.setenv("LTKD_DEPTH", "8")  # that of the digits: no change
    assert Experiment.choose("digits-lt", backbone="resnet18").backbone == "resnet18"
    with pytest.raises(ValueError, match="teacher_width and teacher_depth of the small ResNet wo"):
        Experiment.choose("digits-lt", backbone="resnet18", teacher_width=32, teacher_depth=14)


def test_a_folder_is_not_taken_for_a_change_of_another(tmp_path):
    """Otherwise one's models would replace the other's."""
    named = Experiment.choose(f"folder:{tmp_path}/birds-seed1")
    changed = Experiment.choose(f"folder:{tmp_path}/birds", seed=1)
    assert named.name == "folder-birds_seed1" != changed.name == "folder-birds-seed1"


def test_the_name_of_somebody_elses_experiment_leads_nowhere(home):
    stored = Experiment.named("digits-lt").as_dict() | {"base": "../../../etc"}
    with pytest.raises(ValueError, match="named by letters and digits"):
        Experiment.from_dict(stored)
    stored = Experiment.named("digits-lt").as_dict()
    stored["schedule"] |= {"name": "../../../etc"}
    assert Experiment.from_dict(stored).model_folder.parent == home / "saved_model"


def test_a_home_of_nobody_is_a_folder_of_that_name(monkeypatch):
    monkeypatch.setenv("LTKD_HOME", "~nobody-of-that-name")
    assert home().name == "~nobody-of-that-name"


def test_folders_that_cannot_be_looked_for(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="The path of your folder is missing"):
        Experiment.choose("folder:")
    with pytest.raises(ValueError, match="~nobody-of-that-name/a cannot be found"):
        Experiment.from_folder("~nobody-of-that-name/a")

    def closed(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.exists", closed)
    with pytest.raises(ValueError, match=r"cannot be found .*Permission denied"):
        Experiment.from_folder(tmp_path / "pets")


def test_in_the_notebooks_paths_start_where_the_shell_was(monkeypatch, tmp_path):
    monkeypatch.setenv("LTKD_HOME", "out")
    monkeypatch.setenv("LTKD_DATA", "my data")
    monkeypatch.chdir(tmp_path)
    assert (home().absolute(), data_folders()[0].absolute()) == (
        tmp_path / "out",
        tmp_path / "my data",
    )
    monkeypatch.chdir(PROJECT / "notebooks" / "solutions")
    assert (home(), data_folders()[0]) == (PROJECT / "out", PROJECT / "my data")


def test_in_the_notebooks_a_folder_of_the_project_comes_first(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "PROJECT", tmp_path)
    for place in ("images", "notebooks/images"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Experiment.from_folder("images").folder == str(tmp_path / "images")


def test_an_unknown_option_is_answered_with_the_known_ones(monkeypatch, capsys):
    with pytest.raises(ValueError, match="Unknown option 'epoch'; choose one of epochs, schedule"):
        Experiment.choose("cifar10-lt", epoch=2)
    monkeypatch.setenv("LTKD_EPOCH", "2")
    assert Experiment.choose("cifar10-lt").name == "cifar10-lt"
    assert "There is no variable LTKD_EPOCH: it changes nothing" in capsys.readouterr().out


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="Unknown precision 'bfloat16'; choose one of bf16, no"):
        Schedule("mine", 1, precision="bfloat16")
