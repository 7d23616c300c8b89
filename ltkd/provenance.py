"""What a result comes from: the command and the machine, as plain values."""

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from .experiments import APART, Experiment
from .naming import plain
from .options import OPTIONS
from .schedules import Schedule


def command(
    experiment: Experiment, jobs: tuple[str, ...] = ("student", "evaluate"), more: str = ""
) -> str:
    """The command that makes the experiment's models and results again, or does other jobs.

    `more` stands at its end. What no option can change is named in a comment behind it.

    >>> command(Experiment.choose("cifar10-lt", epochs=2, seed=1)).partition(" && ")[0]
    'python -m ltkd student cifar10-lt --epochs 2 --seed 1'
    """
    default, plan = experiment.default(), experiment.schedule
    usual = experiment.known_schedule()
    values = {
        "schedule": (usual.name, default.schedule.name),
        "epochs": (plan.epochs, usual.epochs),
    }
    values |= {o: (getattr(experiment, o), getattr(default, o)) for o in OPTIONS if o not in values}
    words = [shlex.quote(experiment.base)]
    words += [f"--{o.replace('_', '-')} {plain(v)}" for o, (v, u) in values.items() if v != u]
    line = " && ".join(f"python -m ltkd {job} {' '.join(words)}{more}" for job in jobs)
    others = [f"{name}={value!r}" for name, value in _others(experiment, default, usual)]
    return line if not others else f"{line}  # and, in Python: {', '.join(others)}"


def _others(
    experiment: Experiment, default: Experiment, usual: Schedule
) -> Iterator[tuple[str, object]]:
    """What the experiment has changed that is no option: name and value."""
    for name in (f.name for f in fields(experiment)):
        value = getattr(experiment, name)
        if name not in (*OPTIONS, *APART) and value != getattr(default, name):
            yield name, value
    for name in (f.name for f in fields(usual)):
        value = getattr(experiment.schedule, name)
        if name != "epochs" and value != getattr(usual, name):
            yield f"schedule.{name}", value


def machine() -> dict[str, str | int]:
    """The machine that a result comes from."""
    import torch  # the rest of this module does without

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": device,
        "python": sys.version.split()[0],
    }


def _processor() -> str:
    """The processor's name, as Linux tells it; "CPU" elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"CPU: {line.partition(':')[2].strip()}"
    return "CPU"
