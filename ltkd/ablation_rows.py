"""The rows of an ablation: which students are compared, and what each is held against."""

from dataclasses import replace
from fnmatch import fnmatch
from itertools import product
from typing import Any

from .experiments import Experiment
from .mixing import MIXES
from .objectives import RECIPES

MIXED = ("none", "kd", "uniform", "image_and_patch")  # the recipes that are tried with mixing
ALONE = "teacher alone"
BIASED, BALANCED = "a cross-entropy teacher", "a Balanced Softmax teacher"
WIDER = "a wider teacher"
# What a row is held against: the same student without the part in question, and for other ways of
# distillation the plain one. In "image_and_patch" the image's loss counts 0.3, in "decoupled" and
# "kd" 1, so these two differ in that as well.
CONTROLS = {
    "kd": ("none", ALONE),
    "calibrated_kd": ("kd",),
    "dkd": ("kd",),
    "bkd": ("kd",),
    "dive": ("kd",),
    "ltkd": ("kd",),
    "decoupled": ("calibrated_kd", "kd"),
    "patch_decoupled": ("patch_kd",),
    "patch_informativeness": ("patch_decoupled",),
    "patch_ambiguity": ("patch_decoupled",),
    "image_and_patch": ("uniform", "shuffled", "inverted", "decoupled", "kd", ALONE),
}


def teachers(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The teachers whose students are compared: name → fields."""
    balanced = {"teacher_loss": "balanced_softmax"}
    found: dict[str, dict[str, Any]] = {
        BIASED: {"teacher_loss": "cross_entropy"},
        BALANCED: balanced,
    }
    if experiment.backbone == "resnet":  # torchvision's backbones have one width
        found[WIDER] = balanced | {"teacher_width": 2 * experiment.teacher_width}
    return found


def rows(experiment: Experiment, *patterns: str) -> dict[str, dict]:
    """The rows of the table whose name fits a pattern, all if none is given: name → fields.

    The teachers; every recipe with every teacher; every way of mixing with four of the recipes.

    >>> list(rows(Experiment.named("cifar100-lt"), "kd, a wider teacher*cutmix"))
    ['kd, a wider teacher, cutmix', 'kd, a wider teacher, tail_cutmix']
    """
    own = teachers(experiment)
    table = {row_name(ALONE, teacher, "none"): fields for teacher, fields in own.items()}
    for (teacher, fields), recipe, mix in product(own.items(), RECIPES, MIXES):
        if mix != "none" and recipe not in MIXED:
            continue
        taught = fields if _asks(recipe, mix) else {}  # the experiment's usual teacher
        name = row_name(recipe, teacher, mix)
        table.setdefault(name, taught | {"distillation": recipe, "student_mix": mix})
    return {
        name: fields
        for name, fields in table.items()
        if any(fnmatch(name, pattern) for pattern in patterns or ("*",))
    }


def _asks(recipe: str, mix: str) -> bool:
    """Whether the teacher makes a difference: by what it teaches, or by what it has pasted."""
    return recipe != "none" or mix == "tail_patches"


def row_name(recipe: str, teacher: str, mix: str) -> str:
    """What differs in a row; the teacher only where it is asked.

    >>> row_name("kd", "a wider teacher", "none"), row_name("none", "a wider teacher", "cutmix")
    ('kd, a wider teacher', 'none, cutmix')
    """
    words = [recipe, teacher if _asks(recipe, mix) else "", mix if mix != "none" else ""]
    return ", ".join(word for word in words if word)


def default_row(experiment: Experiment) -> str | None:
    """The row that is the experiment itself, None if there is none."""
    same = (name for name, f in rows(experiment).items() if replace(experiment, **f) == experiment)
    return next((name for name in same if not name.startswith(ALONE)), None)
