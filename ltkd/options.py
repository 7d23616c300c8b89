"""What of an experiment can be chosen from outside: by `Experiment.choose`, variables and flags."""

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .experiments import Experiment

PROFILES = ("exponential", "step", "natural")
LARGEST_IMAGE = 4096  # pixels a side
# The smallest value of a field.
LEAST = {"image_size": 8} | dict.fromkeys(
    ("width", "teacher_width", "teacher_members", "student_epochs", "validation"), 1
)
LEAST |= dict.fromkeys(("seed", "split_seed", "merge_below", "bank"), 0)
# What gives the small ResNet its shape.
SHAPE = "depth", "stem_stride", "width", "teacher_width", "teacher_depth", "teacher_stem_stride"
OPTIONS = {
    "epochs": int,
    "schedule": str,
    "seed": int,
    "profile": str,
    "imbalance_factor": float,
    "split_seed": int,
    "depth": int,
    "merge_below": int,
    "image_size": int,
    "backbone": str,
    "weights": str,
    "teacher_loss": str,
    "teacher_mix": str,
    "student_loss": str,
    "student_tail_loss": str,
    "student_mix": str,
    "distillation": str,
    "teacher_width": int,
    "teacher_depth": int,
    "teacher_stem_stride": int,
    "teacher_members": int,
    "student_epochs": int,
    "bank": int,
}
VARIABLES = {f"LTKD_{name.upper()}" for name in ("experiment", "data", "home", *OPTIONS)}


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that are `given` and not None, and what the environment adds to them.

    An option that is not given is taken from the variable LTKD_<OPTION>, where that is set. Fields
    that are no options stay as they are. A variable LTKD_… that is none of VARIABLES is named.
    Raises ValueError where an option is of the wrong kind.

    >>> chosen({"epochs": "2", "depth": None})
    {'epochs': 2}
    """
    fields = {key: value for key, value in given.items() if value is not None}
    for name in os.environ:
        if name.startswith("LTKD_") and name not in VARIABLES:
            print(f"There is no variable {name}: it changes nothing (python -m ltkd student -h).")
    for option, kind in OPTIONS.items():
        if option not in fields and (value := os.environ.get(f"LTKD_{option.upper()}")):
            fields[option] = value
        if option in fields:
            fields[option] = _parsed(option, fields[option], kind)
    return fields


def _parsed(option: str, value: object, kind: type) -> Any:
    try:
        parsed = kind(value)
        if not isinstance(value, str) and parsed != value:  # 2.7 epochs
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"The option {option} cannot be {value!r}.") from None
    return parsed


def check_choice(kind: str, value: object, choices: Iterable) -> None:
    """Raise ValueError, listing the choices, where `value` is none of them."""
    if value not in (known := list(choices)):
        raise ValueError(f"Unknown {kind} {value!r}; choose one of {', '.join(map(str, known))}.")


def check(experiment: "Experiment") -> None:
    """Raise ValueError, in one sentence, for a value that no experiment has."""
    # folders are named after it, and a model file's may be anybody's
    if not re.fullmatch(r"folder:.*|[\w-]+", experiment.base, re.DOTALL):
        raise ValueError(f"An experiment is named by letters and digits, not {experiment.base!r}.")
    check_choice("profile", experiment.profile, PROFILES)
    if not experiment.imbalance_factor >= 1:
        raise ValueError(f"The imbalance factor is at least 1, not {experiment.imbalance_factor}.")
    for field, least in LEAST.items():
        if (value := getattr(experiment, field)) is not None and value < least:
            raise ValueError(f"The {field} of an experiment is at least {least}, not {value}.")
    if experiment.image_size > LARGEST_IMAGE:
        raise ValueError(f"The image_size is at most {LARGEST_IMAGE}, not {experiment.image_size}.")
    if experiment.weights not in (None, "imagenet"):
        raise ValueError(f"The weights are imagenet or not given, not {experiment.weights!r}.")
    if experiment.weights and experiment.backbone == "resnet":
        raise ValueError(
            "There are no ImageNet weights for the small ResNet: choose a backbone of "
            "torchvision, such as resnet18."
        )


def check_use(experiment: "Experiment", fields: dict[str, Any]) -> None:
    """Raise ValueError where one of the `fields` would change nothing in the experiment."""
    changed = {f: v for f, v in fields.items() if v != getattr(experiment, f, v)}
    if fields.get("profile", experiment.profile) == "natural" and "imbalance_factor" in changed:
        raise ValueError(
            "The profile natural keeps every image, so an imbalance factor changes nothing: "
            "choose the profile exponential or step, or leave the factor out."
        )
    if experiment.folder is None and "merge_below" in changed:
        raise ValueError(
            "Only classes of your own photographs are merged: leave the option merge_below out."
        )
    backbone = fields.get("backbone", experiment.backbone)
    if backbone != "resnet" and (idle := [f for f in SHAPE if f in changed]):
        raise ValueError(
            f"The {' and '.join(idle)} of the small ResNet would change nothing in {backbone}: "
            f"leave that out, or the backbone."
        )
