"""What a result comes from: the command and the machine, as plain values."""

import os
import platform
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from .experiments import Experiment
from .naming import plain
from .options import OPTIONS


def command(experiment: Experiment, jobs: tuple[str, ...] = ("student", "evaluate")) -> str:
    """The command that makes the experiment's models and results again, or does other jobs.

    >>> command(Experiment.choose("cifar10-lt", epochs=2, seed=1)).partition(" && ")[0]
    'python -m ltkd student cifar10-lt --epochs 2 --seed 1'
    """
    default = experiment.default()
    plan, usual = experiment.schedule, default.schedule
    values = {
        "schedule": (plan.name, usual.name),
        "epochs": (plan.epochs, experiment.usual_schedule(plan.name).epochs),
    }
    values |= {o: (getattr(experiment, o), getattr(default, o)) for o in OPTIONS if o not in values}
    words = [shlex.quote(experiment.base)]
    words += [f"--{o.replace('_', '-')} {plain(v)}" for o, (v, u) in values.items() if v != u]
    return " && ".join(f"python -m ltkd {job} {' '.join(words)}" for job in jobs)


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
