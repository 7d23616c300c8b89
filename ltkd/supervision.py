"""What a network learns from: labels for the teacher, labels and teacher for the student."""

import hashlib
from functools import cache

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from . import processes
from .bank import TeacherBank, bank_folder
from .compiling import compiled
from .datasets import LongTailedData
from .evaluation import predict
from .experiments import Experiment
from .losses import ClassLoss
from .mixing import OWN_PRIOR, Batch, Mixing, crop_patches
from .networks import PatchNetwork, image_logits
from .objectives import (
    RECIPES,
    DistillationLoss,
    Recipe,
    mean_posterior,
    recipe_named,
    teacher_bias,
)
from .training import Objective, Step

OF_THE_TEACHER = "tail_patches", "local_crops"  # mixing by what the teacher sees
POSTERIOR_BYTES = 64 * 2**20  # of patch posteriors, and of images, at a time
WEIGHED_IMAGES = 500  # whose patches are weighed at a time


def distillation_loss(
    experiment: Experiment, data: LongTailedData, teacher: PatchNetwork
) -> DistillationLoss:
    """The experiment's distillation, with what it needs to know of teacher and data."""
    return _distillation(experiment, data, teacher, recipe_named(experiment.distillation))


def check_names(experiment: Experiment, data: LongTailedData) -> None:
    """Raise ValueError for an unknown loss or recipe now, not after the teacher's training."""
    counts, head = torch.from_numpy(data.counts), torch.from_numpy(data.head)
    ClassLoss(experiment.teacher_loss, counts)
    ClassLoss(experiment.student_loss, counts, experiment.student_tail_loss, head)
    recipe_named(experiment.distillation)
    for kind in (experiment.teacher_mix, experiment.student_mix):
        Mixing(kind, counts, patch_weights=torch.ones_like)
    if experiment.teacher_mix in OF_THE_TEACHER:
        raise ValueError(
            f"The teacher's images cannot be mixed by {experiment.teacher_mix!r}, which needs a "
            f"teacher: choose none, cutmix, tail_cutmix or {OWN_PRIOR}."
        )


def asks_teacher(experiment: Experiment) -> bool:
    """Whether the student needs its teacher: to learn from, or to mix its images.

    >>> asks_teacher(Experiment.named("digits-lt"))
    True
    >>> asks_teacher(Experiment.choose("digits-lt", distillation="none"))
    False
    """
    recipe = recipe_named(experiment.distillation)
    return recipe.active or experiment.student_mix in OF_THE_TEACHER


def mixing_for(
    experiment: Experiment, data: LongTailedData, role: str, teacher: PatchNetwork | None
) -> Mixing:
    """How the images are mixed for the role; a student that `asks_teacher` needs its `teacher`.

    The patches that are pasted by "tail_patches" are drawn by their informativeness.
    """
    counts = torch.from_numpy(data.counts)
    if teacher is None:
        return Mixing(_mix(experiment, role), counts)
    weights = None
    if experiment.student_mix == "tail_patches":
        loss = _distillation(experiment, data, teacher, RECIPES["patch_informativeness"])

        def weights(images: Tensor) -> Tensor:
            parts = images.split(WEIGHED_IMAGES)
            with torch.inference_mode():
                return torch.cat([loss.patch_weights(teacher(part).float()) for part in parts])

    @cache
    def grid(side: int) -> int:
        image = torch.zeros(1, 3, side, side, device=next(teacher.parameters()).device)
        with torch.inference_mode():
            return round(teacher(image).shape[1] ** 0.5)

    return Mixing(experiment.student_mix, counts, weights, grid=grid)


def _mix(experiment: Experiment, role: str) -> str:
    return experiment.teacher_mix if role == "teacher" else experiment.student_mix


def _distillation(
    experiment: Experiment, data: LongTailedData, teacher: PatchNetwork, recipe: Recipe
) -> DistillationLoss:
    device = next(teacher.parameters()).device
    counts, head = torch.from_numpy(data.counts), torch.from_numpy(data.head)
    bias = teacher_bias(experiment, counts)
    mean = _mean_posterior(data, teacher, bias).to(device) if recipe.patch else None
    return DistillationLoss(recipe, counts.to(device), head.to(device), bias.to(device), mean)


def _mean_posterior(data: LongTailedData, teacher: PatchNetwork, bias: Tensor) -> Tensor:
    """objectives.mean_posterior over the training images, (C,), without their patches at once."""
    labels, counts = torch.from_numpy(data.train.labels), torch.from_numpy(data.counts)
    mean = torch.zeros(len(counts))
    first = data.train.images[:1]
    posteriors = predict(teacher, first, patches=True).nbytes
    rows = max(1, POSTERIOR_BYTES // max(posteriors, first.nbytes))
    for some in torch.arange(len(labels)).split(rows):
        patches = torch.from_numpy(predict(teacher, data.train.images[some.numpy()], patches=True))
        mean += mean_posterior(F.softmax(patches - bias, -1), labels[some], counts)
    return mean


def objective_for(
    experiment: Experiment,
    data: LongTailedData,
    role: str,
    teacher: PatchNetwork | None,
    accelerator: Accelerator,
    batches: int,
) -> Objective:
    """The objective of the role; a student that `asks_teacher` needs its `teacher`.

    `batches` is their number in an epoch.
    """
    counts = torch.from_numpy(data.counts).to(accelerator.device)
    pasted = torch.ones_like(counts) if _mix(experiment, role) == OWN_PRIOR else counts
    head = torch.from_numpy(data.head).to(accelerator.device)
    if role == "teacher":
        class_loss = ClassLoss(experiment.teacher_loss, counts, pasted_counts=pasted)
    else:
        losses = experiment.student_loss, counts, experiment.student_tail_loss, head
        class_loss = ClassLoss(*losses, pasted_counts=pasted)
    distil = None
    if role == "student" and recipe_named(experiment.distillation).active:
        assert teacher is not None, "without it the student would silently not be distilled"
        teacher = teacher.to(accelerator.device).to(memory_format=torch.channels_last).eval()
        distil = distillation_loss(experiment, data, teacher)
        ask = _teacher_outputs(experiment, data, teacher, accelerator, batches)

    def objective(batch: Batch, patches: Tensor, step: Step) -> dict[str, Tensor]:
        patches = patches.float()
        terms = class_loss(
            image_logits(patches), batch.labels, batch.pasted_labels, batch.pasted_share, step.done
        )
        if distil:
            seen = ask(batch.whole, step).float()
            if experiment.student_mix == "local_crops":
                seen = crop_patches(seen, batch.corner)
            mostly_pasted = batch.pasted_share > 0.5
            labels = torch.where(mostly_pasted, batch.pasted_labels, batch.labels)
            terms |= distil(patches, seen, labels)
        return terms

    return objective


def _teacher_outputs(experiment, data, teacher, accelerator, batches):
    """A function of images and step: the teacher's patch logits, from the bank if there is one."""
    schedule = experiment.schedule_of("student")
    network = compiled(teacher) if schedule.compile else teacher

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad(), accelerator.autocast():
            return network(images)

    if not experiment.bank:
        return lambda images, step: forward(images)
    fields = "batch_size", "augment", "small", "epochs"
    identity = {field: getattr(schedule, field) for field in fields}
    identity |= {"seed": experiment.seed, "data": data.fingerprint, "processes": processes.count()}
    order = "\n".join(map(str, data.train.sources))  # the fingerprint is of the sorted ones
    identity |= {"order": hashlib.sha256(order.encode("utf-8", "surrogateescape")).hexdigest()}
    # what else draws numbers between two batches, and so moves the augmentations
    recipe = recipe_named(experiment.distillation)
    identity |= {"mix": experiment.student_mix, "control": recipe.control}
    folder = bank_folder(experiment.built_file.parent, teacher, identity)
    bank = TeacherBank(forward, folder, experiment.bank, batches)
    return lambda images, step: bank(images, step.epoch, step.index)
