"""Training an experiment's teacher and student. Notebooks and commands call this."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import processes
from .batches import Batches
from .checkpoints import load_checkpoint, save_checkpoint
from .datasets import LongTailedData, Split
from .estimates import spoken, training_seconds
from .evaluation import evaluate_network
from .experiments import APART, Experiment
from .files import claimed, out_of_memory, shown
from .finished import finished
from .initial import check_networks, new_network
from .networks import Ensemble, PatchNetwork, digest
from .processes import say
from .provenance import machine
from .supervision import asks_teacher, check_names, mixing_for, objective_for
from .training import Trainer, TrainingError, accelerator_for


def state_file(experiment: Experiment, role: str) -> Path:
    """Where an unfinished training is kept."""
    return experiment.model_folder / f"{role}_training.pth"


def expected_seconds(
    experiment: Experiment, data: LongTailedData, role: str, teacher: PatchNetwork | None = None
) -> float:
    """How long the training of `role` takes here, estimated from a few steps of fresh networks."""
    accelerator = accelerator_for(experiment.schedule.precision)
    members = experiment.teacher_members
    some = replace(data, train=Split(*(field[:100] for field in data.train)))  # for the mean
    with torch.random.fork_rng(devices=[]):
        network = new_network(experiment, some, role)
        if role == "student" and teacher is None and asks_teacher(experiment):
            teacher = new_network(experiment, some, "teacher")
            teacher = Ensemble([teacher] * members) if members > 1 else teacher
            teacher = teacher.eval().to(accelerator.device)
        images = -(-len(data.train.labels) // processes.count())
        seconds = training_seconds(
            network,
            teacher,
            experiment.schedule_of(role),
            images,
            experiment.image_size,
            accelerator,
        )
    return seconds * (members if role == "teacher" else 1)


def train(experiment: Experiment, data: LongTailedData, role: str) -> tuple[PatchNetwork, dict]:
    """Return the experiment's teacher or student and its checkpoint's content.

    A finished model file is loaded; an interrupted training goes on; else training starts. Which
    of the three happened is printed. The student's teacher is trained first where it is missing
    and the student asks it. The test images are read once, after the last epoch.

    Raises files.Busy where another process trains the same, TrainingError where training cannot go
    on, OSError where the result cannot be written.
    """
    check_names(experiment, data)
    if role == "student":
        check_networks(experiment)
    experiment = experiment.owner(role)
    path = experiment.model_file(role)
    done = finished(experiment, data, role)
    if done:
        with suppress(OSError):  # of a process that was killed when all was done
            state_file(experiment, role).unlink(missing_ok=True)
        say(f"The {role} is loaded from {shown(path)}.")
        return done
    asks = role == "student" and asks_teacher(experiment)
    teacher = train(experiment, data, "teacher")[0] if asks else None
    work = f"The training of the {role} of {experiment.name}"
    claim = claimed(experiment.model_folder / role, work) if processes.is_main() else nullcontext()
    with claim, _explained(experiment):
        if role == "teacher" and experiment.teacher_members > 1:
            _train_members(experiment, data)
        else:
            _train(experiment, data, role, teacher)
    return load_checkpoint(path)


def _train(
    experiment: Experiment, data: LongTailedData, role: str, teacher: PatchNetwork | None
) -> None:
    """Train to the end, evaluate and save the model file."""
    path = experiment.model_file(role)
    trainer = trainer_for(experiment, data, role, teacher)
    numbers = "float32" if trainer.accelerator.mixed_precision == "no" else "bfloat16"
    among = f"{processes.count()} process{'es' if processes.count() > 1 else ''}"
    duration = ""
    if trainer.steps > 100:  # less takes no longer than the estimate
        duration = f"; {spoken(expected_seconds(experiment, data, role, teacher))} in all"
    say(
        f"Training the {role} of {experiment.name}: {trainer.schedule.epochs} epochs on "
        f"{trainer.accelerator.device.type}, {among}, {numbers}{duration}."
    )
    history, network, seconds = trainer.fit(), trainer.plain, trainer.seconds
    assert isinstance(network, PatchNetwork)  # as new_network made it
    metrics = _measured(network, data) | {"seconds": seconds, "precision": numbers}
    if processes.is_main():
        save_checkpoint(path, network, data, experiment, role, metrics, history)
        state_file(experiment, role).unlink(missing_ok=True)
        print(f"The {role} is trained ({seconds:.0f} s) and saved to {shown(path)}.")
    processes.wait()


def _measured(network: PatchNetwork, data: LongTailedData) -> dict:
    """What a model file says of a trained network, but for how it was trained."""
    return {
        "test": evaluate_network(network, data.test, data.groups),
        "validation": evaluate_network(network, data.validation, data.groups),
        "parameters": sum(p.numel() for p in network.parameters()),
        "processes": processes.count(),
        "machine": machine(),
    }


def _train_members(experiment: Experiment, data: LongTailedData) -> None:
    """Train the networks of a teacher that has several, each as a teacher of its own seed, where
    that is not done, and save them as one. Its history is their mean, its seconds are their sum."""
    seeds = range(experiment.seed, experiment.seed + experiment.teacher_members)
    alone = (replace(experiment, teacher_members=1, seed=seed) for seed in seeds)
    networks, contents = zip(*(train(member, data, "teacher") for member in alone), strict=True)
    network = Ensemble(networks).to(accelerator_for(experiment.schedule.precision).device)
    metrics = _measured(network, data) | {
        "seconds": sum(content["metrics"]["seconds"] for content in contents),
        "precision": contents[0]["metrics"]["precision"],
    }
    epochs = zip(*(content["history"] for content in contents), strict=True)
    history = [
        {term: np.mean([e[term] for e in same]).item() for term in same[0]} for same in epochs
    ]
    if processes.is_main():
        path = experiment.model_file("teacher")
        save_checkpoint(path, network, data, experiment, "teacher", metrics, history)
        print(f"The mean of these {len(networks)} networks is the teacher, saved to {shown(path)}.")
    processes.wait()


@contextmanager
def _explained(experiment: Experiment) -> Iterator[None]:
    """Where memory is used up, say what to lower; where another process has ended, say that."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if processes.lost(error):
            reason = str(error).partition("\n")[0].partition(". ")[0]
            raise TrainingError(
                f"Process {processes.rank()} lost the others ({reason}). The same command goes on "
                f"after the last whole epoch."
            ) from error
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"The memory is used up: lower the schedule's batch_size (now "
            f"{experiment.schedule.batch_size}), or image_size ({experiment.image_size}) or width "
            f"(teacher {experiment.teacher_width}, student {experiment.width}). What was saved "
            f"before is kept."
        ) from error


def train_on(
    number: int, experiment: Experiment, data: LongTailedData, role: str
) -> tuple[PatchNetwork, dict]:
    """`train` on `number` processes of this machine, for notebooks; 1 trains in the kernel itself.

    Accelerate's notebook_launcher starts them, on all GPUs or on the CPU.
    """
    if number > 1:
        from accelerate import notebook_launcher

        notebook_launcher(train, (experiment, data, role), num_processes=number)
    return train(experiment, data, role)


def trainer_for(
    experiment: Experiment,
    data: LongTailedData,
    role: str,
    teacher: PatchNetwork | None = None,
    network: nn.Module | None = None,
) -> Trainer:
    """The experiment's training of `role`, ready to `fit`; a student that asks needs its `teacher`.

    `network` is trained in place of a `new_network`, where it is given.
    """
    accelerator = accelerator_for(experiment.schedule.precision)
    schedule = experiment.schedule_of(role)
    trained_by = {k: v for k, v in experiment.as_dict().items() if k not in APART}
    taught_by = {}
    if teacher is not None:
        taught_by = {"teacher": digest(teacher)}
        teacher = teacher.to(accelerator.device).to(memory_format=torch.channels_last).eval()
    batches = Batches(
        data.train,
        schedule.batch_size,
        schedule.augment,
        mixing_for(experiment, data, role, teacher),
        accelerator.device,
        (processes.rank(), processes.count()),
    )
    return Trainer(
        new_network(experiment, data, role) if network is None else network,
        batches,
        objective_for(experiment, data, role, teacher, accelerator, len(batches)),
        schedule,
        accelerator,
        state_file(experiment, role),
        {"experiment": trained_by, "data": data.fingerprint, "role": role} | taught_by,
        experiment.seed,
        role,
        experiment.bank if role == "student" else 0,
    )
