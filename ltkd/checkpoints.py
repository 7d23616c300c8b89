"""Model files that say what they are, and their safe loading."""

import platform
from pathlib import Path

import torch
from torch import nn

from . import __version__
from .datasets import LongTailedData
from .experiments import Experiment
from .files import write_atomically
from .networks import ResNet

FORMAT = "ltkd-model"
VERSION = 1


class CheckpointError(Exception):
    """A model file is missing, damaged or not ours; the message says what to do."""


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    import accelerate
    import torchvision

    return {
        "python": platform.python_version(),
        "ltkd": __version__,
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "accelerate": accelerate.__version__,
    }


def save_checkpoint(
    path: Path,
    network: nn.Module,
    data: LongTailedData,
    experiment: Experiment,
    role: str,
    metrics: dict,
    history: list[dict[str, float]],
) -> None:
    """Write a model and all that is needed to use it: plain values and tensors only."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "role": role,
        "weights": {name: value.detach().cpu() for name, value in network.state_dict().items()},
        "network": network.settings,
        "normalisation": {name: network.settings[name] for name in ("mean", "std")},
        "class_names": list(data.class_names),
        "counts": data.counts.tolist(),
        "groups": {name: mask.tolist() for name, mask in data.groups.items()},
        "experiment": experiment.as_dict(),
        "metrics": metrics,
        "history": history,
        "versions": versions(),
    }
    write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Path, classes: int | None = None) -> tuple[ResNet, dict]:
    """Return the network, in evaluation mode on the CPU, and the file's other content.

    Nothing in the file is executed (`weights_only=True`). Raises CheckpointError where the file is
    missing, damaged, not ours, from a later version, or for another number of classes.
    """
    path = Path(path)
    content = _read(path)
    if content["version"] > VERSION:
        raise CheckpointError(
            f"{path} was written by a later version of ltkd (format {content['version']}, this "
            f"one reads {VERSION}): update ltkd."
        )
    try:
        network = ResNet(**content["network"])
        network.load_state_dict(content["weights"])
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged: its weights do not fit its network. Train the model again."
        ) from error
    found = network.settings["classes"]
    if classes is not None and found != classes:
        raise CheckpointError(
            f"{path} is a model for {found} classes, but {classes} are wanted: choose the model "
            f"of this experiment, or train one."
        )
    return network.eval(), content


def _read(path: Path) -> dict:
    if not path.is_file():
        raise CheckpointError(f"There is no model file {path}: train it first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle or refused content: torch raises many kinds
        raise CheckpointError(
            f"{path} is damaged or is no model file of ltkd: delete it and train again."
        ) from error
    needed = {
        "version", "weights", "network", "class_names", "counts", "groups", "experiment", "metrics"
    }  # fmt: skip
    if not isinstance(content, dict) or content.get("format") != FORMAT or needed - set(content):
        raise CheckpointError(f"{path} is no model file of ltkd: delete it and train again.")
    return content
