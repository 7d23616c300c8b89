"""One image in, a prediction and its patch evidence out. No widget in sight."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps

from .checkpoints import load_checkpoint
from .images import ImageError, read_image

__all__ = ["Classifier", "ImageError", "Prediction", "read_image"]


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

    def __init__(self, network: torch.nn.Module, content: dict):
        self.network, self.class_names = network.eval(), content["class_names"]
        self.counts, self.groups = content["counts"], content["groups"]
        self.image_size = content.get("experiment", {}).get("image_size", 32)

    @classmethod
    def load(cls, path: str | Path, classes: int | None = None) -> "Classifier":
        """Load a model file. Raises CheckpointError where it cannot be used."""
        return cls(*load_checkpoint(Path(path), classes))

    @torch.inference_mode()
    def predict(self, image: Image.Image) -> Prediction:
        """Classify one RGB picture: resized to cover the model's square, centre cropped."""
        pixels = np.asarray(ImageOps.fit(image.convert("RGB"), [self.image_size] * 2))
        batch = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]  # (1, 3, S, S)
        patches = self.network(batch).float()[0]  # (P, C)
        probabilities = patches.mean(0).softmax(0)
        order = probabilities.argsort(descending=True).tolist()
        ranking = [(self.class_names[c], probabilities[c].item()) for c in order]
        side = round(len(patches) ** 0.5)
        return Prediction(*ranking[0], ranking, patches.view(side, side, -1).numpy())

    def shots(self, class_name: str) -> tuple[int, str]:
        """Training images of a class, and its group: many, medium or few."""
        label = self.class_names.index(class_name)
        group = next(g for g in ("many", "medium", "few") if self.groups[g][label])
        return self.counts[label], group
