"""Training in memory, for exercises and ideas of your own: nothing is saved or loaded."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from .datasets import LongTailedData
from .experiments import Experiment
from .mixing import Batch
from .networks import PatchNetwork
from .runs import trainer_for
from .training import Objective, Step

# (batch, patch logits (B, P, C)) → named loss terms, to be added
Extra = Callable[[Batch, Tensor], dict[str, Tensor]]


def trial(
    experiment: Experiment,
    data: LongTailedData,
    teacher: PatchNetwork | None = None,
    network: nn.Module | None = None,
    extra: Extra | None = None,
) -> nn.Module:
    """Train by the experiment's schedule and losses; return the network in evaluation mode, on the
    CPU. A teacher's bank is not used with what is your own: its random numbers may differ.

    Parameters
    ----------
    teacher : whose student is trained; None trains a teacher, of one network
    network : yours, in place of a fresh ResNet. It takes images uint8 (B, 3, H, W) and gives patch
        logits (B, P, C); one that sees no patches gives P = 1. A student needs the P of its
        teacher only where the recipe distils patches
    extra : your own loss terms, of a batch and the network's patch logits (B, P, C)

    Raises ValueError for an unknown loss or recipe, for a network or a term that gives something
    else, and for a term whose name is taken; TrainingError where the loss is no number.

    >>> term = lambda batch, patches: {"small logits": 0.01 * patches.square().mean()}
    >>> network = trial(experiment, data, teacher, extra=term)  # doctest: +SKIP
    """
    role = "student" if teacher is not None else "teacher"
    if network is not None or extra is not None:
        experiment = replace(experiment, bank=0)
    before = torch.device("cpu") if teacher is None else next(teacher.parameters()).device
    trainer = trainer_for(experiment, data, role, teacher, network)
    trainer.objective = _with_terms(trainer.objective, len(data.class_names), extra)
    trainer.state_file = None
    trainer.fit()
    if teacher is not None:
        teacher.to(before)
    return trainer.plain.eval().cpu()


def _with_terms(usual: Objective, classes: int, extra: Extra | None) -> Objective:
    """The usual terms and your own, each told in one sentence what is wrong with what it gives."""

    def objective(batch: Batch, patches: Tensor, step: Step) -> dict[str, Tensor]:
        _check_patches(patches, len(batch.labels), classes)
        terms = usual(batch, patches, step)
        own = {} if extra is None else extra(batch, patches.float())
        _check_terms(own)
        if taken := terms.keys() & own.keys():
            raise ValueError(
                f"The loss has a term {', '.join(taken)} already: give yours another name."
            )
        return terms | own

    return objective


def _check_patches(patches: object, images: int, classes: int) -> None:
    shape = tuple(patches.shape) if isinstance(patches, Tensor) else ()
    if len(shape) != 3 or (shape[0], shape[2]) != (images, classes):
        raise ValueError(
            f"The network gives {_spoken(patches)} for {images} images of {classes} classes: it "
            f"must give patch logits ({images}, P, {classes}), with P = 1 if it sees no patches."
        )


def _check_terms(own: object) -> None:
    if not isinstance(own, dict):
        raise ValueError(f"`extra` gives {_spoken(own)}: it must give a dict, name → loss term.")
    for name, term in own.items():
        if not isinstance(term, Tensor) or term.ndim:
            raise ValueError(
                f"Your loss term {name!r} is {_spoken(term)}: it must be a tensor with one number "
                f"and no dimensions, as a mean over the batch is."
            )


def _spoken(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a value of type {type(value).__name__}"
