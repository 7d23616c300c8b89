"""The rows of the ablation: every comparison has its students, by their names."""

from dataclasses import replace

from ltkd.ablation_rows import ALONE, CONTROLS, MIXED, default_row, row_name, rows, teachers
from ltkd.experiments import Experiment
from ltkd.mixing import MIXES
from ltkd.objectives import RECIPES


def test_every_recipe_stands_with_every_teacher_and_four_with_every_mixing():
    base = Experiment.named("cifar100-lt-quick")
    names, all_teachers = rows(base), list(teachers(base))
    for recipe in set(RECIPES) - {"none"}:
        assert {row_name(recipe, teacher, "none") for teacher in all_teachers} <= set(names)
    for mix in MIXES:
        assert {row_name(recipe, all_teachers[0], mix) for recipe in MIXED} <= set(names)
    untaught = [name for name in names if name.startswith("none") and "teacher" not in name]
    assert len(untaught) == len(MIXES) - 1  # all but tail_patches, which asks the teacher
    assert names["none"] == {"distillation": "none", "student_mix": "none"}  # the usual one
    students = {name: fields for name, fields in names.items() if not name.startswith(ALONE)}
    assert len(names) == len(students) + len(all_teachers)
    assert len({replace(base, **fields).name for fields in students.values()}) == len(students)


def test_several_patterns_give_the_rows_of_each():
    base = Experiment.named("cifar100-lt-quick")
    assert list(rows(base, "none, cutmix", "teacher alone, a w*")) == [
        "teacher alone, a wider teacher",
        "none, cutmix",
    ]
    assert list(rows(base)) == list(rows(base, "*"))


def test_every_control_is_a_row():
    recipes = {name.split(", ")[0] for name in rows(Experiment.named("cifar100-lt-quick"))}
    assert set(CONTROLS) <= recipes
    assert {control for controls in CONTROLS.values() for control in controls} <= recipes


def test_every_named_experiment_is_a_row():
    usual = "kd, a Balanced Softmax teacher"
    assert default_row(Experiment.named("cifar100-lt-quick")) == usual
    assert default_row(Experiment.named("cifar100-lt")) == f"{usual}, tail_cutmix_prior"
    assert default_row(replace(Experiment.named("digits-lt"), seed=3)) == (
        "image_and_patch, a cross-entropy teacher"
    )
    assert default_row(replace(Experiment.named("cifar10-lt-quick"), teacher_loss="focal")) is None


def test_a_wider_teacher_is_twice_as_wide_as_the_usual_one():
    for name, width in (("cifar100-lt-quick", 32), ("stanford-cars-lt", 64)):
        experiment = Experiment.named(name)
        table = rows(experiment, "teacher alone*")
        widths = [replace(experiment, **fields).teacher_width for fields in table.values()]
        assert widths == [width // 2, width // 2, width]
