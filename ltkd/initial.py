"""Networks with fresh weights, as an experiment describes them."""

from typing import Any

import torch

from .batches import channel_statistics
from .datasets import LongTailedData
from .experiments import ROLES, Experiment
from .networks import PatchNetwork, ResNet
from .objectives import recipe_named
from .schedules import SMALL
from .training import seed_epoch


def new_network(experiment: Experiment, data: LongTailedData, role: str) -> PatchNetwork:
    """A network for the role with fresh weights from the experiment's seed, or ImageNet's."""
    classes = len(data.class_names)
    cosine = "ldam_drw" in _losses(experiment, role)
    settings: dict[str, Any] = {"classifier": "cosine" if cosine else "linear"}
    settings |= dict(zip(("mean", "std"), channel_statistics(data.train.images), strict=True))
    with torch.random.fork_rng(devices=[]):  # a GPU would start, and no process could fork then
        seed_epoch(experiment.seed, role, epoch=-1 % 2**32)
        if experiment.backbone != "resnet":
            from .backbones import backbone_for  # imports torchvision, which takes seconds

            name, weights = experiment.backbone, experiment.weights
            settings["smallest"] = min(_sides(experiment))
            return backbone_for(name, classes, experiment.image_size, weights, **settings)
        return _resnet(experiment, classes, role, **settings)


def check_networks(experiment: Experiment) -> None:
    """Raise ValueError where a network cannot be built, or student and teacher see other patches.

    Before the teacher is trained, not after. Backbones are the same for both.
    """
    if experiment.backbone != "resnet":
        return
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        teacher, student = (_resnet(experiment, 2, role).eval() for role in ROLES)
        if not recipe_named(experiment.distillation).patch:
            return
        for side in _sides(experiment):
            image = torch.zeros(1, 3, side, side)
            taught, seen = teacher(image).shape[1], student(image).shape[1]
            if taught != seen:
                raise ValueError(
                    f"Of images of {side} pixels the teacher sees {taught} patches and the student "
                    f"{seen}, so {experiment.distillation!r} cannot compare them: give both the "
                    f"same stem stride, or choose a recipe without patches, such as kd."
                )


def _sides(experiment: Experiment) -> tuple[int, ...]:
    """The sizes of the images that a network is trained on, in pixels."""
    size = experiment.image_size
    return (size, round(SMALL * size)) if experiment.schedule.small else (size,)


def _losses(experiment: Experiment, role: str) -> tuple[str | None, ...]:
    if role == "teacher":
        return (experiment.teacher_loss,)
    return experiment.student_loss, experiment.student_tail_loss


def _resnet(experiment: Experiment, classes: int, role: str, **settings: Any) -> ResNet:
    size = experiment.image_size
    if size % 32:
        raise ValueError(
            f"The network needs images whose side is a multiple of 32 pixels, not {size}: "
            f"change the experiment's image_size."
        )
    depth, width, stride = _shape(experiment, role)
    return ResNet(classes, depth, width, stem_stride=stride * size // 32, **settings)


def _shape(experiment: Experiment, role: str) -> tuple[int, int, int]:
    """Depth, width and stem stride, at 32 pixels, of the ResNet of a role."""
    depth, width, stride = experiment.depth, experiment.width, experiment.stem_stride
    if role == "student":
        return depth, width, stride
    own_depth, own_stride = experiment.teacher_depth, experiment.teacher_stem_stride
    return (
        depth if own_depth is None else own_depth,
        experiment.teacher_width,
        stride if own_stride is None else own_stride,
    )
