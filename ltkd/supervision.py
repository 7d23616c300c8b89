"""What a network learns from: labels for the teacher, labels and teacher for the student."""

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from . import processes
from .bank import TeacherBank, bank_folder
from .batches import Batch
from .compiling import compiled
from .datasets import LongTailedData
from .evaluation import predict
from .experiments import Experiment
from .losses import ClassLoss
from .networks import ResNet, image_logits
from .objectives import DistillationLoss, mean_posterior, teacher_bias
from .training import Objective, Step

POSTERIOR_BYTES = 64 * 2**20  # of patch posteriors at a time


def distillation_loss(
    experiment: Experiment, data: LongTailedData, teacher: ResNet
) -> DistillationLoss:
    """The experiment's distillation, with what it needs to know of teacher and data."""
    device = next(teacher.parameters()).device
    counts, head = torch.from_numpy(data.counts), torch.from_numpy(data.head)
    bias = teacher_bias(experiment, counts)
    labels = torch.from_numpy(data.train.labels)
    mean = torch.zeros(len(counts))
    rows = max(1, POSTERIOR_BYTES // (4 * teacher.grid**2 * len(counts)))
    for some in torch.arange(len(labels)).split(rows):  # all at once would fill the memory
        patches = torch.from_numpy(predict(teacher, data.train.images[some], patches=True))
        mean += mean_posterior(F.softmax(patches - bias, -1), labels[some], counts)
    values = (value.to(device) for value in (counts, head, bias, mean))
    return DistillationLoss(experiment.distillation, *values)


def objective_for(
    experiment: Experiment,
    data: LongTailedData,
    teacher: ResNet | None,
    accelerator: Accelerator,
    batches: int,
) -> Objective:
    """The objective of a student of `teacher`; with no `teacher`, that of a teacher.

    `batches` is their number in an epoch.
    """
    counts = torch.from_numpy(data.counts).to(accelerator.device)
    head = torch.from_numpy(data.head).to(accelerator.device)
    if teacher is None:
        class_loss = ClassLoss(experiment.teacher_loss, counts)
    else:
        class_loss = ClassLoss(experiment.student_loss, counts, experiment.student_tail_loss, head)
        teacher = teacher.to(accelerator.device, memory_format=torch.channels_last).eval()
        distil = distillation_loss(experiment, data, teacher)
        ask = _teacher_outputs(experiment, data, teacher, accelerator, batches)

    def objective(batch: Batch, patches: Tensor, step: Step) -> dict[str, Tensor]:
        patches = patches.float()
        terms = class_loss(
            image_logits(patches), batch.labels, batch.pasted_labels, batch.pasted_share, step.done
        )
        if teacher is not None:
            terms |= distil(patches, ask(batch.images, step).float(), batch.labels)
        return terms

    return objective


def _teacher_outputs(experiment, data, teacher, accelerator, batches):
    """A function of images and step: the teacher's patch logits, from the bank if there is one."""
    schedule = experiment.schedule
    network = compiled(teacher) if schedule.compile else teacher

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad(), accelerator.autocast():
            return network(images)

    if not experiment.bank:
        return lambda images, step: forward(images)
    fields = "batch_size", "augment", "cutmix", "small", "epochs"
    identity = {field: getattr(schedule, field) for field in fields}
    identity |= {"seed": experiment.seed, "data": data.name, "processes": processes.count()}
    folder = bank_folder(experiment.built_file.parent, teacher, identity)
    bank = TeacherBank(forward, folder, experiment.bank, batches)
    return lambda images, step: bank(images, step.epoch, step.index)
