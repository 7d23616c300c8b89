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
from .schedules import SCHEDULES, Schedule

PROJECT = Path(__file__).resolve().parent.parent


def from_user(path: str | os.PathLike) -> Path:
    """A path as somebody gave it. A relative one starts from the working folder, but in the
    course's notebooks from the project's, where the shell was that started them."""
    path = Path(os.path.expanduser(path))
    return PROJECT / path if not path.is_absolute() and _in_course() else path


def _in_course() -> bool:
    return Path.cwd().is_relative_to(PROJECT / "notebooks")


def home() -> Path:
    """The folder that holds data/ and saved_model/: the project, or where LTKD_HOME points."""
    return from_user(os.environ.get("LTKD_HOME") or PROJECT)


ROLES = ("teacher", "student")
APART = ("expected", "folder", "base")  # of an experiment's fields: they change no training
# On Stanford Cars and Caltech-101 nothing beats plain distillation by two standard errors on
# validation images: saved_model/*/ablation.json. Other photographs are trained in the same way.
PHOTOGRAPHS: dict[str, Any] = {
    "image_size": 64,
    "depth": 8,
    "stem_stride": 2,
    "width": 32,
    "teacher_width": 32,
    "teacher_loss": "balanced_softmax",
    "distillation": "kd",
    "schedule": SCHEDULES["photographs"],
}


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
            path = Path(path).expanduser()
            places = [path, PROJECT / path]
            places = places[::-1] if _in_course() else places
            path = next((place for place in places if place.exists()), path)
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


# On validation images nothing is better than plain distillation by two standard errors:
# saved_model/cifar100-lt-quick-depth8/ablation.json
QUICK: dict[str, Any] = {"teacher_loss": "balanced_softmax", "distillation": "kd"}
# What was best, see saved_model/README.md. A wide network at half the resolution costs less to
# train, and to ask, than one like the student.
CIFAR: dict[str, Any] = QUICK | {
    "teacher_width": 64,
    "teacher_depth": 8,
    "teacher_stem_stride": 2,
    "schedule": SCHEDULES["long"],
}


def _photographs(base: str, source: str, epochs: int, expected: str) -> Experiment:
    own = PHOTOGRAPHS | {"schedule": replace(SCHEDULES["photographs"], epochs=epochs)}
    return Experiment(base, source, imbalance_factor=10, expected=expected, **own)


NAMED = (
    Experiment(
        "digits-lt",
        "digits",
        imbalance_factor=50,
        depth=8,
        schedule=SCHEDULES["digits"],
        expected="teacher 79.5 ± 0.7, student 89.5 ± 0.5 (seeds 0 to 2); 1 min on 2 cores",
    ),
    Experiment(
        "cifar10-lt",
        "cifar10",
        **CIFAR,
        student_mix="tail_cutmix",
        expected="teacher 81.6 ± 0.2, student 84.5 ± 0.1 (seeds 0 to 2); 2 to 5 h on 2 cores",
    ),
    Experiment(
        "cifar100-lt",
        "cifar100",
        **CIFAR,
        teacher_members=3,
        teacher_mix="tail_cutmix_prior",
        student_mix="tail_cutmix_prior",
        expected="teacher 51.6 ± 0.0, student 51.6 ± 0.4 (seeds 0 to 2); 95 min on a core",
    ),
    _photographs(
        "stanford-cars-lt",
        "stanford_cars",
        40,
        "teacher 18.3 ± 0.4, student 21.7 ± 0.2 (seeds 0 to 2; 1,635 official training images "
        "stood in for the test images); 9 min on a core",
    ),
    _photographs("caltech256-lt", "caltech256", 16, "not measured: the files were not at hand"),
    _photographs("caltech257-lt", "caltech257", 16, "not measured"),  # with the clutter class
    Experiment(
        "cifar10-lt-quick", "cifar10", **QUICK, expected="teacher 78.0, student 79.4 (seed 0)"
    ),
    Experiment(
        "cifar100-lt-quick",
        "cifar100",
        **QUICK,
        expected="teacher 42.6 ± 0.7, student 44.5 ± 0.6 (seeds 0 to 2); 12 min on a core",
    ),
)
EXPERIMENTS = {experiment.base: experiment for experiment in NAMED}
