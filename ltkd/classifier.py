"""One image in, a prediction and its patch evidence out. No widget in sight."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from .checkpoints import CheckpointError, load_checkpoint
from .datasets import same_images
from .experiments import ROLES, Experiment
from .files import read_json, shown
from .finished import same_training
from .images import ImageError, read_image
from .longtail import GROUPS
from .networks import PatchNetwork
from .objectives import DistillationLoss, teacher_bias
from .places import home

__all__ = ["Classifier", "ImageError", "ModelPair", "Prediction", "read_image"]


@contextmanager
def one_thread():
    """Work on a few small images gains nothing from more threads.

    On a machine that is busy otherwise, the threads wait for each other a hundred times as long as
    they compute.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Prediction(NamedTuple):
    """What a model says of one image."""

    class_name: str
    probability: float  # of that class, 0..1
    ranking: list[tuple[str, float]]  # all classes with their probabilities, best first
    patch_logits: np.ndarray  # float32 (G, G, C); their mean over the grid is the image's logits

    def evidence(self, label: int) -> np.ndarray:
        """What every patch adds to the logit of class `label`, (G, G): the sum is the logit."""
        return self.patch_logits[:, :, label] / self.patch_logits[..., 0].size


class Classifier:
    """A trained model that takes pictures of any size.

    >>> classifier = Classifier.load("saved_model/digits-lt/student_model.pth")  # doctest: +SKIP
    >>> classifier.predict(read_image(Path("three.png").read_bytes())).class_name  # doctest: +SKIP
    '3'
    """

    def __init__(self, network: PatchNetwork, content: dict):
        self.network, self.class_names = network.eval(), content["class_names"]
        self.counts, self.groups = content["counts"], content["groups"]
        self.image_size = content["experiment"].get("image_size", 32)
        self.data = content.get("data")  # the fingerprint of its images; older files have none

    @classmethod
    def load(cls, path: str | Path, classes: int | None = None) -> "Classifier":
        """Load a model file. Raises CheckpointError where it cannot be used."""
        return cls(*load_checkpoint(Path(path), classes))

    def fit(self, image: Image.Image) -> Image.Image:
        """The RGB square that the model sees: resized to cover it, centre cropped."""
        return ImageOps.fit(image.convert("RGB"), (self.image_size, self.image_size))

    @torch.inference_mode()
    def predict(self, image: Image.Image) -> Prediction:
        """Classify one picture, see `fit`."""
        pixels = np.asarray(self.fit(image))
        batch = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]  # (1, 3, S, S)
        with one_thread():
            patches = self.network(batch).float()[0]  # (P, C)
        probabilities = patches.mean(0).softmax(0)
        order = probabilities.argsort(descending=True).tolist()
        ranking = [(self.class_names[c], probabilities[c].item()) for c in order]
        side = round(len(patches) ** 0.5)
        return Prediction(*ranking[0], ranking, patches.view(side, side, -1).numpy())

    def shots(self, class_name: str) -> tuple[int, str]:
        """Training images of a class, and its group: many, medium or few."""
        label = self.class_names.index(class_name)
        group = next(g for g in GROUPS if self.groups[g][label])
        return self.counts[label], group


@dataclass
class ModelPair:
    """A teacher, the student distilled from it, and what their evaluation found.

    Classifiers are loaded when they are first asked for. `results` is results.json, empty where
    the pair is not evaluated.

    >>> pair = ModelPair.of(Experiment.named("digits-lt"))  # doctest: +SKIP
    >>> pair.patch_weights(pair.classifier("teacher").predict(image))  # doctest: +SKIP
    """

    experiment: Experiment
    files: dict[str, Path]  # role → model file
    loaded: dict[str, Classifier] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment) -> "ModelPair":
        """The pair of an experiment."""
        return cls(experiment, {role: experiment.model_file(role) for role in ROLES})

    @classmethod
    def at(cls, folder: Path) -> "ModelPair":
        """The pair in a folder of saved_model/. Raises CheckpointError where it is unusable."""
        files = {role: folder / f"{role}_model.pth" for role in ROLES}
        return cls(_experiment(load_checkpoint(files["student"])[1], files["student"]), files)

    def classifier(self, role: str) -> Classifier:
        """The "teacher" or the "student". Raises CheckpointError where the file is unusable."""
        if role not in self.loaded:
            found = Classifier.load(self.files[role])
            if role == "teacher" and self.available("student"):
                self._check_pair(found, self.classifier("student"))
            self.loaded[role] = found
        return self.loaded[role]

    def _check_pair(self, teacher: Classifier, student: Classifier) -> None:
        """Raise CheckpointError where the student is of before the images or classes changed."""
        same = None in (teacher.data, student.data) or teacher.data == student.data
        if not same or teacher.class_names != student.class_names:
            raise CheckpointError(
                f"{shown(self.files['teacher'])} was trained on other images than the student "
                f"beside it: train the student again."
            )

    def any_classifier(self) -> Classifier:
        """The student, or the teacher where the student is unusable."""
        return self.classifier("student" if self.available("student") else "teacher")

    def available(self, role: str) -> bool:
        """Whether the role's model file can be used."""
        try:
            return bool(self.classifier(role))
        except CheckpointError:
            return False

    @cached_property
    def results(self) -> dict:
        """results.json; empty where there is none, or it is of another training or other images."""
        try:
            found = read_json(self.files["student"].parent / "results.json")
        except (OSError, ValueError):
            return {}
        if not same_training(found.get("experiment", {}), self.experiment, "student"):
            return {}
        own = self.classifier("student").data if self.available("student") else None
        return found if own is None or same_images(found, own) else {}

    def low_confidence(self, role: str) -> float | None:
        """What 95 % of the validation images that the model gets right reach; None: not evaluated.

        A picture of lower probability may be of no known class: the largest softmax probability
        is the baseline of Hendrycks and Gimpel (2017) for telling.
        """
        return self.results.get(role, {}).get("low_confidence")

    def unsure(self, role: str, prediction: Prediction) -> bool:
        """Whether the prediction is below `low_confidence`."""
        threshold = self.low_confidence(role)
        return threshold is not None and prediction.probability < threshold

    def patch_weights(self, teacher: Prediction) -> np.ndarray | None:
        """The weights (G, G) that the distillation gave to an image's patches, 1 on average.

        `teacher` is the teacher's prediction of that image. Exactly the training's rule, with the
        mean posterior of the training images from results.json. None where the recipe distils no
        patches or the pair is not evaluated.
        """
        loss = self._distillation
        if loss is None:
            return None
        patches = torch.from_numpy(teacher.patch_logits)  # (G, G, C)
        weights = loss.patch_weights(patches.flatten(0, 1)[None])  # (1, P)
        return weights.view(patches.shape[:2]).numpy()

    @cached_property
    def _distillation(self) -> DistillationLoss | None:
        mean = self.results.get("mean_posterior")
        teacher = self.classifier("teacher")
        counts = torch.tensor(teacher.counts)
        if mean is None or len(mean) != len(counts):
            return None
        loss = DistillationLoss(
            self.experiment.distillation,
            counts,
            torch.tensor(teacher.groups["head"]),
            teacher_bias(self.experiment, counts),
            torch.tensor(mean),
        )
        return loss if loss.recipe.patch else None


def model_folders() -> list[Path]:
    """The folders of saved_model/ that hold a teacher and a student, by name."""
    students = (home() / "saved_model").glob("*/student_model.pth")
    return sorted(f.parent for f in students if (f.parent / "teacher_model.pth").is_file())


def _experiment(content: dict, path: Path) -> Experiment:
    """The experiment that a model file was made by."""
    try:
        return Experiment.from_dict(content["experiment"])
    except ValueError as error:
        raise CheckpointError(
            f"{path} does not say which experiment it is of: train the model again."
        ) from error
