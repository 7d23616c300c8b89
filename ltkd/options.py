"""What of an experiment can be chosen from outside: by `Experiment.choose`, variables and flags."""

import os
from typing import Any

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
    "bank": int,
}


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """The fields that are `given` and not None, and what the environment adds to them.

    An option that is not given is taken from the variable LTKD_<OPTION>, where that is set. Fields
    that are no options stay as they are. Raises ValueError where an option is of the wrong kind.

    >>> chosen({"epochs": "2", "depth": None})
    {'epochs': 2}
    """
    fields = {key: value for key, value in given.items() if value is not None}
    for option, kind in OPTIONS.items():
        if option not in fields and (value := os.environ.get(f"LTKD_{option.upper()}")):
            fields[option] = value
        if option in fields:
            fields[option] = _parsed(option, fields[option], kind)
    return fields


def _parsed(option: str, value: object, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"The option {option} cannot be {value!r}.") from None
