"""How an experiment's name says what it is: a tag and a value for every field that was changed."""

import hashlib
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from .schedules import Schedule

if TYPE_CHECKING:
    from .experiments import Experiment

LONGEST = 100  # characters that a schedule's changes may take of a name: file systems have limits
# Which fields change the data, and which the training; the tag stands in the name.
DATA_TAGS = {
    "profile": "",
    "imbalance_factor": "if",
    "split_seed": "split",
    "validation": "validation",
    "merge_below": "merge",
    "image_size": "px",
}
CUT_TAGS = {field: tag for field, tag in DATA_TAGS.items() if field != "image_size"}
TEACHER_TAGS = {
    "backbone": "",
    "weights": "",
    "depth": "depth",
    "stem_stride": "stem",
    "teacher_width": "teacher_width",
    "teacher_depth": "teacher_depth",
    "teacher_stem_stride": "teacher_stem",
    "teacher_members": "teacher_members",
    "teacher_loss": "teacher_",
    "teacher_mix": "teacher_mix_",
    "seed": "seed",
}
STUDENT_TAGS = {
    "width": "width",
    "student_loss": "",
    "student_tail_loss": "tail_",
    "student_mix": "mix_",
    "distillation": "",
    "student_epochs": "student_epochs",
    "bank": "bank",
}


def stem(experiment: "Experiment") -> str:
    """The named experiment, or the user's folder."""
    if experiment.folder is None:
        return experiment.base
    folder = Path(experiment.folder).resolve().name
    return "folder-" + (re.sub(r"[^\w.]+", "_", folder) or "images")  # "-" is for changes


def changes(experiment: "Experiment", tags: dict[str, str]) -> str:
    """The fields of `tags` that differ from the named experiment's."""
    default = experiment.default()
    changed = [f for f in tags if getattr(experiment, f) != getattr(default, f)]
    return "".join(f"-{tags[f]}{_file_name(getattr(experiment, f))}" for f in changed)


def schedule_changes(experiment: "Experiment") -> str:
    """The schedule where it is not the named experiment's, and its fields that were changed."""
    schedule, usual = experiment.schedule, experiment.known_schedule()
    names = (f.name for f in fields(Schedule) if f.name != "name")
    changed = [name for name in names if getattr(usual, name) != getattr(schedule, name)]
    other = schedule.name != experiment.default().schedule.name
    tag = f"-{_file_name(schedule.name)}" if other else ""
    fields_changed = "".join(f"-{f}{_file_name(getattr(schedule, f))}" for f in changed)
    if len(fields_changed) > LONGEST:
        fields_changed = f"-{hashlib.sha256(fields_changed.encode()).hexdigest()[:8]}"
    return tag + fields_changed


def plain(value: object) -> str:
    """A value as text, numbers as short as they can be.

    >>> plain(50.0), plain(1234.5678), plain("kd")
    ('50', '1234.5678', 'kd')
    """
    whole = isinstance(value, float) and float(f"{value:g}") == value
    return f"{value:g}" if whole else str(value)


def _file_name(value: object) -> str:
    """A value as part of a file name."""
    return re.sub(r"[^\w.]+", "_", plain(value)).strip("_")
