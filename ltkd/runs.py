"""The jobs of an experiment: teacher, student, results. Notebooks and commands call these."""

import os
import platform
import shlex
import sys
from pathlib import Path

import torch

from . import processes
from .batches import Batches, channel_statistics
from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint, versions
from .datasets import LongTailedData
from .evaluation import compare, evaluate, evaluate_network, predict
from .experiments import OPTIONS, ROLES, SCHEDULES, Experiment
from .files import shown, write_json
from .losses import ClassLoss
from .networks import ResNet
from .objectives import recipe_named
from .processes import say
from .supervision import distillation_loss, objective_for
from .training import Trainer, accelerator_for, seed_epoch


def state_file(experiment: Experiment, role: str) -> Path:
    """Where an unfinished training is kept."""
    return experiment.model_folder / f"{role}_training.pth"


def new_network(experiment: Experiment, data: LongTailedData, role: str) -> ResNet:
    """A network for the role with fresh weights from the experiment's seed."""
    if experiment.image_size % 32:
        raise ValueError(
            f"The network needs images whose side is a multiple of 32 pixels, not "
            f"{experiment.image_size}: change the experiment's image_size."
        )
    mean, std = channel_statistics(data.train.images)
    loss = experiment.teacher_loss if role == "teacher" else experiment.student_loss
    with torch.random.fork_rng():
        seed_epoch(experiment.seed, role, epoch=-1 % 2**32)
        return ResNet(
            len(data.class_names),
            experiment.depth,
            experiment.teacher_width if role == "teacher" else experiment.width,
            classifier="cosine" if loss == "ldam_drw" else "linear",
            stem_stride=experiment.stem_stride * experiment.image_size // 32,
            mean=mean,
            std=std,
        )


def train(experiment: Experiment, data: LongTailedData, role: str) -> tuple[ResNet, dict]:
    """Return the experiment's teacher or student and its checkpoint's content.

    A finished model file is loaded; an interrupted training goes on; else training starts. Which
    of the three happened is printed. The student needs the teacher, which is trained first where
    it is missing. The test images are read once, after the last epoch.
    """
    _check(experiment, data)
    experiment = experiment.owner(role)
    path = experiment.model_file(role)
    done = _finished(experiment, data, path)
    if done:
        say(f"The {role} is loaded from {shown(path)}.")
        return done
    teacher = train(experiment, data, "teacher")[0] if role == "student" else None
    trainer = trainer_for(experiment, data, role, teacher)
    numbers = "float32" if trainer.accelerator.mixed_precision == "no" else "bfloat16"
    say(
        f"Training the {role} of {experiment.name}: {experiment.schedule.epochs} epochs on "
        f"{trainer.accelerator.device.type}, {processes.count()} process(es), {numbers}."
    )
    history, network, seconds = trainer.fit(), trainer.plain, trainer.seconds
    metrics = {
        "test": evaluate_network(network, data.test, data.groups),
        "validation": evaluate_network(network, data.validation, data.groups),
        "seconds": seconds,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    if processes.is_main():
        save_checkpoint(path, network, data, experiment, role, metrics, history)
        state_file(experiment, role).unlink(missing_ok=True)
        print(f"The {role} is trained ({seconds:.0f} s) and saved to {shown(path)}.")
    processes.wait()
    return load_checkpoint(path)


def train_on(processes: int, experiment: Experiment, data: LongTailedData, role: str):
    """`train` on several processes of this machine, for notebooks; 1 trains in the kernel itself.

    Accelerate's notebook_launcher starts them, on all GPUs or on the CPU.
    """
    if processes > 1:
        from accelerate import notebook_launcher

        notebook_launcher(train, (experiment, data, role), num_processes=processes)
    return train(experiment, data, role)


def _check(experiment: Experiment, data: LongTailedData) -> None:
    """Raise ValueError for an unknown loss or recipe now, not after the teacher's training."""
    counts, head = torch.from_numpy(data.counts), torch.from_numpy(data.head)
    ClassLoss(experiment.teacher_loss, counts)
    ClassLoss(experiment.student_loss, counts, experiment.student_tail_loss, head)
    recipe_named(experiment.distillation)


def _finished(experiment: Experiment, data: LongTailedData, path: Path):
    if not path.exists():
        return None
    try:
        network, content = load_checkpoint(path, len(data.class_names))
    except CheckpointError as error:
        say(f"{error} It is trained again now.")
        return None
    ours = experiment.as_dict() | {"expected": None, "folder": None, "base": None}
    theirs = content["experiment"] | {"expected": None, "folder": None, "base": None}
    same_classes = content["class_names"] == list(data.class_names)
    if theirs != ours or content["counts"] != data.counts.tolist() or not same_classes:
        say(f"{shown(path)} is of another experiment or other data: it is trained again now.")
        return None
    return network, content


def trainer_for(
    experiment: Experiment, data: LongTailedData, role: str, teacher: ResNet | None = None
) -> Trainer:
    """The experiment's training of `role`, ready to `fit`; a student needs its `teacher`."""
    accelerator = accelerator_for(experiment.schedule.precision)
    schedule = experiment.schedule
    batches = Batches(
        data.train,
        schedule.batch_size,
        schedule.augment,
        schedule.cutmix,
        accelerator.device,
        (processes.rank(), processes.count()),
    )
    return Trainer(
        new_network(experiment, data, role),
        batches,
        objective_for(experiment, data, teacher, accelerator, len(batches)),
        schedule,
        accelerator,
        state_file(experiment, role),
        {"experiment": experiment.as_dict(), "counts": data.counts.tolist(), "role": role},
        experiment.seed,
        role,
        experiment.bank if role == "student" else 0,
    )


def results(experiment: Experiment, data: LongTailedData) -> dict:
    """Evaluate teacher and student on the test images and write results.json beside them.

    Returns what was written: for each role its scores, parameters and training time; the paired
    comparison; the mean posterior, with which one image's patch weights can be had without the
    training images; and the experiment, command, machine and versions they come from.
    """
    summary: dict = {"experiment": experiment.as_dict(), "counts": data.counts.tolist()}
    logits, networks = {}, {}
    for role in ROLES:
        network, content = load_checkpoint(experiment.model_file(role), len(data.class_names))
        networks[role], logits[role] = network, predict(network, data.test.images)
        summary[role] = evaluate(logits[role], data.test.labels, data.groups)
        summary[role] |= {key: content["metrics"][key] for key in ("seconds", "parameters")}
    summary["comparison"] = compare(logits["teacher"], logits["student"], data.test.labels)
    distillation = distillation_loss(experiment, data, networks["teacher"])
    summary["mean_posterior"] = distillation.mean_posterior.tolist()
    summary["test_images"] = len(data.test.labels)
    summary["command"] = command(experiment)
    summary["machine"] = machine()
    summary["versions"] = versions()
    write_json(experiment.model_folder / "results.json", summary)
    return summary


def command(experiment: Experiment) -> str:
    """The command that makes the experiment's models and results again.

    >>> command(Experiment.choose("cifar10-lt", epochs=2, seed=1)).partition(" && ")[0]
    'python -m ltkd student cifar10-lt --epochs 2 --seed 1'
    """
    default = experiment.default()
    plan, usual = experiment.schedule, default.schedule
    values = {
        "schedule": (plan.name, usual.name),
        "epochs": (plan.epochs, SCHEDULES[plan.name].epochs),
    }
    values |= {o: (getattr(experiment, o), getattr(default, o)) for o in OPTIONS if o not in values}
    words = [shlex.quote(experiment.base)]
    words += [f"--{o.replace('_', '-')} {v}" for o, (v, u) in values.items() if v != u]
    return " && ".join(f"python -m ltkd {job} {' '.join(words)}" for job in ("student", "evaluate"))


def machine() -> dict[str, str | int]:
    """The machine that a result comes from."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": device,
        "python": sys.version.split()[0],
    }
