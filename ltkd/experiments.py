"""What an experiment is: one frozen dataclass, and the named experiments.

Everything that changes a result is a field here. An experiment's name says how it differs from
the named one it came from, so two different experiments share no model, but for two folders of one
name, which `datasets.build` refuses. Experiments on the same images share the built file.
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .naming import CUT_TAGS, DATA_TAGS, STUDENT_TAGS, TEACHER_TAGS, changes, schedule_changes, stem
from .options import OPTIONS, check, check_choice, check_use, chosen
from .places import existing, home
from .presets import NAMED, PHOTOGRAPHS
from .schedules import SCHEDULES, Schedule

ROLES = ("teacher", "student")
APART = ("expected", "folder", "base")  # of an experiment's fields: they change no training


@dataclass(frozen=True)
class Experiment:
    """One data set, one way to make it long-tailed, one teacher, one student.

    Choose one with `Experiment.named`, `Experiment.from_folder` or `Experiment.choose`; change a
    field with `dataclasses.replace`.

    >>> experiment = Experiment.named("cifar100-lt")
    >>> experiment.imbalance_factor
    100
    >>> replace(experiment, imbalance_factor=50, seed=1).name
    'cifar100-lt-if50-seed1'
    """

    base: str  # the named experiment, or "folder:<path>"
    source: str  # where the images come from: a key of sources.SOURCES
    profile: str = "exponential"  # or "step", or "natural": the data as they are
    imbalance_factor: float = 100  # images of the largest class / of the smallest
    split_seed: int = 0  # draws the test images where there is no official test set, and the cut
    validation: int = 50  # images per class at most, see selection.choose_rows
    merge_below: int = 0  # classes with fewer images become one, "other classes"
    image_size: int = 32  # pixels, height and width
    backbone: str = "resnet"  # ResNet of this depth and width; or any of torchvision's, by name
    weights: str | None = None  # "imagenet": those of torchvision for its backbones
    depth: int = 32
    stem_stride: int = 1  # of the first convolution, for 32 pixels
    width: int = 16  # channels of the student's first stage
    teacher_width: int = 16
    teacher_depth: int | None = None  # None: that of the student
    teacher_stem_stride: int | None = None  # None: that of the student
    teacher_members: int = 1  # so many networks, of seeds S, S + 1, …: the mean of their logits
    teacher_loss: str = "cross_entropy"  # a key of losses.CLASS_LOSSES
    teacher_mix: str = "none"
    student_loss: str = "balanced_softmax"
    student_tail_loss: str | None = None  # the loss of tail images; None: student_loss for all
    student_mix: str = "none"  # how the student's images are mixed, one of mixing.MIXES
    distillation: str = "image_and_patch"  # a key of objectives.RECIPES
    student_epochs: int | None = None  # None: those of the schedule
    bank: int = 0  # the student's augmentations come again after so many epochs; see bank.py
    schedule: Schedule = SCHEDULES["fast"]
    seed: int = 0  # of weights, order and augmentation
    folder: str | None = None  # the user's class folders, for source "folder"
    expected: str = ""  # the result and run time to expect of it, unchanged

    def __post_init__(self):
        check(self)

    @classmethod
    def named(cls, name: str) -> "Experiment":
        """Return the experiment of that name; raise ValueError, listing the names, if unknown."""
        if name not in EXPERIMENTS:
            known = ", ".join(EXPERIMENTS)
            raise ValueError(
                f"Unknown experiment {name!r}; choose one of {known}, or folder:<path> for your "
                f"own images."
            )
        return EXPERIMENTS[name]

    @classmethod
    def from_folder(cls, path: str | os.PathLike, **changes: Any) -> "Experiment":
        """Return an experiment on the class folders under `path`, with their natural tail.

        `path` holds one folder per class, or train/ and test/ with one folder per class each. It
        starts from the working folder or, if nothing is there, from the project's; in the course's
        notebooks the other way round. `changes` replace other fields: a profile and an imbalance
        factor cut the tail anew.

        >>> Experiment.from_folder("my photos/birds").name
        'folder-birds'
        """
        if not os.fspath(path):
            raise ValueError("The path of your folder is missing: give folder:<path>.")
        try:
            path = existing(path)
        except (OSError, RuntimeError) as error:  # a closed folder above it; ~ of no user
            raise ValueError(f"The folder {path} cannot be found ({error}): check it.") from error
        plain = cls(f"folder:{path}", "folder", "natural", folder=str(path), **PHOTOGRAPHS)
        check_use(plain, changes)
        return replace(plain, **changes)

    @classmethod
    def choose(cls, name: str, **options: Any) -> "Experiment":
        """Return a named or folder experiment, changed as asked: the one line of the notebooks.

        Parameters
        ----------
        name : a named experiment, or "folder:<path>"
        options : those of OPTIONS. One that is not given, or None, is taken from the environment
            variable LTKD_<OPTION>, where that is set. Other fields can be given too.

        Raises ValueError, listing the known ones, for an unknown name or option, and for options
        that do not fit.

        >>> Experiment.choose("cifar10-lt", epochs=2).name
        'cifar10-lt-epochs2'
        """
        if name.startswith("folder:"):
            experiment = cls.from_folder(name.removeprefix("folder:"))
        else:
            experiment = cls.named(name)
        for option in options:
            check_choice("option", option, [*OPTIONS, *cls.__dataclass_fields__])
        fields = chosen(options)
        if experiment.folder is None and options.get("merge_below") is None:
            fields.pop("merge_below", None)  # the variable is meant for folders
        check_use(experiment, fields)
        schedule = experiment.usual_schedule(fields.pop("schedule", experiment.schedule.name))
        epochs = fields.pop("epochs", schedule.epochs)
        changed = replace(experiment, schedule=replace(schedule, epochs=epochs), **fields)
        return experiment if changed == experiment else replace(changed, expected="")

    def usual_schedule(self, name: str) -> Schedule:
        """The schedule of that name: the named experiment's own, or that of SCHEDULES.

        Raises ValueError, listing the names, if there is none.
        """
        known = self.schedules()
        check_choice("schedule", name, known)
        return known[name]

    def known_schedule(self) -> Schedule:
        """What the schedule is called, as it is usual; the named experiment's own if it is not."""
        return self.schedules().get(self.schedule.name, self.default().schedule)

    def schedules(self) -> dict[str, Schedule]:
        """SCHEDULES, with the named experiment's own in place of that of its name."""
        own = self.default().schedule
        return SCHEDULES | {own.name: own}

    def schedule_of(self, role: str) -> Schedule:
        """The schedule of the role: a student may be trained for longer than its teacher.

        >>> patient = Experiment.choose("cifar100-lt", student_epochs=200)
        >>> patient.schedule_of("teacher").epochs, patient.schedule_of("student").epochs
        (100, 200)
        """
        own = self.student_epochs if role == "student" else None
        return self.schedule if own is None else replace(self.schedule, epochs=own)

    @property
    def data_name(self) -> str:
        """The name of the built data set, data/built/<data_name>.npz."""
        return stem(self.first_of_data()) + changes(self, DATA_TAGS)

    @property
    def split_name(self) -> str:
        """The name of the cut, whatever the image size: data/splits/<split_name>.tsv."""
        return stem(self.first_of_data()) + changes(self, CUT_TAGS)

    @property
    def name(self) -> str:
        """The name of the experiment's folder, saved_model/<name>/."""
        changed = changes(self, DATA_TAGS | TEACHER_TAGS | STUDENT_TAGS)
        return stem(self) + changed + schedule_changes(self)

    def owner(self, role: str) -> "Experiment":
        """The experiment that trains the role: those that differ in the student share a teacher."""
        if role == "student":
            return self
        default = self.default()
        return replace(self, **{field: getattr(default, field) for field in STUDENT_TAGS})

    def model_file(self, role: str) -> Path:
        """saved_model/<name>/<role>_model.pth, for "teacher" or "student"."""
        return self.owner(role).model_folder / f"{role}_model.pth"

    @property
    def built_file(self) -> Path:
        return home() / "data" / "built" / f"{self.data_name}.npz"

    @property
    def model_folder(self) -> Path:
        return home() / "saved_model" / self.name

    @property
    def results_file(self) -> Path:
        return self.model_folder / "results.json"

    @property
    def image_folder(self) -> Path:
        """Where the panel's predefined images are."""
        return home() / "data" / "images" / self.data_name

    def as_dict(self) -> dict:
        """All fields as plain values, for checkpoints and results."""
        return asdict(self) | {"name": self.name}

    @classmethod
    def from_dict(cls, stored: dict) -> "Experiment":
        """The experiment that `as_dict` gave; raise ValueError where it is of no such kind.

        A field that did not exist yet takes its default, which stands for how it was before.

        >>> experiment = Experiment.named("cifar10-lt")
        >>> Experiment.from_dict(experiment.as_dict()) == experiment
        True
        """
        try:
            values = {key: value for key, value in stored.items() if key != "name"}
            plan: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values["schedule"].items()
            }
            return cls(**values | {"schedule": Schedule(**plan)})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"This does not describe an experiment: {error}.") from error

    def default(self) -> "Experiment":
        """The experiment as it is named, without changes."""
        return EXPERIMENTS.get(self.base) or Experiment.from_folder(self.folder or ".")

    def first_of_data(self) -> "Experiment":
        """The first named experiment on the same images: those that differ in training share them.

        >>> Experiment.named("cifar100-lt-quick").data_name
        'cifar100-lt'
        """
        own = self.default()
        fields = "source", *DATA_TAGS
        named = EXPERIMENTS.values()
        same = (e for e in named if all(getattr(e, f) == getattr(own, f) for f in fields))
        return next(same, own)


EXPERIMENTS = {name: Experiment(name, **fields) for name, fields in NAMED.items()}
