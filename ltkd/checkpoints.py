"""Model files that say what they are, and their safe loading."""

import platform
import zipfile
from pathlib import Path

import torch

from . import __version__
from .datasets import LongTailedData
from .experiments import Experiment
from .files import unread, write_atomically
from .longtail import GROUPS
from .networks import Ensemble, PatchNetwork, ResNet
from .options import LARGEST_IMAGE

FORMAT = "ltkd-model"
VERSION = 1
LARGE = 2**25  # weights: 128 MiB


class CheckpointError(Exception):
    """A model file is missing, damaged or not ours; the message says what to do."""


class UnreadError(CheckpointError):
    """A model file that cannot be read now, but may be sound: nothing may be written over it."""


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
    network: PatchNetwork,
    data: LongTailedData,
    experiment: Experiment,
    role: str,
    metrics: dict,
    history: list[dict[str, float]],
) -> None:
    """Write a model and all that is needed to use it: plain values and tensors only."""
    write_checkpoint(path, {
        "format": FORMAT,
        "version": VERSION,
        "role": role,
        "weights": {name: value.detach().cpu() for name, value in network.state_dict().items()},
        "network": network.settings,
        "normalisation": {name: network.settings[name] for name in ("mean", "std")},
        "class_names": list(data.class_names),
        "counts": data.counts.tolist(),
        "data": data.fingerprint,
        "groups": {name: mask.tolist() for name, mask in data.groups.items()},
        "experiment": experiment.as_dict(),
        "metrics": metrics,
        "history": history,
        "versions": versions(),
    })  # fmt: skip


def write_checkpoint(path: Path, content: dict) -> None:
    """Write what `load_checkpoint` gave, or part of it exchanged."""
    write_atomically(path, lambda file: torch.save(content, file))


def halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights in float16; vectors (biases, BatchNorm's, means) are few and stay as they are, as
    do tables of whole numbers (MaxViT's relative positions).

    >>> halved({"weight": torch.ones(2, 2), "bias": torch.ones(2)})["weight"].dtype
    torch.float16
    """
    return {
        name: value.half()
        if value.is_floating_point() and value.numel() > max(value.shape, default=1)
        else value
        for name, value in weights.items()
    }


def _whole(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights in float32, in which networks compute."""
    return {
        name: value.float() if value.dtype == torch.float16 else value
        for name, value in weights.items()
    }


def network_from(settings: dict) -> PatchNetwork:
    """The network that has these settings, with fresh weights.

    >>> network_from(ResNet(3, depth=8).settings).settings["depth"]
    8
    """
    if "members" in settings:
        alone = {name: value for name, value in settings.items() if name != "members"}
        return Ensemble([network_from(alone) for _ in range(settings["members"])])
    if "backbone" not in settings:
        return ResNet(**settings)
    from .backbones import Backbone  # imports torchvision, which takes most of a second

    return Backbone(**settings)


def load_checkpoint(path: Path, classes: int | None = None) -> tuple[PatchNetwork, dict]:
    """Return the network, in evaluation mode on the CPU and in float32, and the file's content.

    Nothing in the file is executed (`weights_only=True`). Raises CheckpointError where the file is
    missing, damaged, not ours, from a later version, or for another number of classes.
    """
    path = Path(path)
    content = _read(path)
    try:
        _check_size(content["weights"], path)
        if any(value.dtype == torch.float16 for value in content["weights"].values()):
            content["metrics"]["halved"] = True
        content["weights"] = _whole(content["weights"])
        with torch.random.fork_rng(devices=[]):  # a network draws weights before it is loaded
            _check_shapes(content)
            _check_parts(content)
            network = network_from(content["network"])
        network.load_state_dict(content["weights"])
    except (RuntimeError, MemoryError, TypeError, ValueError, AttributeError, KeyError) as error:
        _check_unread(path, error)
        raise CheckpointError(
            f"{path} is damaged: its parts do not fit each other. Train the model again."
        ) from error
    found = network.settings["classes"]
    if classes is not None and found != classes:
        raise CheckpointError(
            f"{path} is a model for {found} classes, but {classes} are wanted: choose the model "
            f"of this experiment, or train one."
        )
    return network.eval(), content


def _check_unread(path: Path, error: Exception) -> None:
    """Raise UnreadError where the file may be sound."""
    if unread(error):
        raise UnreadError(f"{path} cannot be read now ({error}): fix that first.") from error


def _check_size(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Raise ValueError where the weights are more than the file holds.

    A tensor can be a view that shows one number a billion times.
    """
    if sum(v.numel() * v.element_size() for v in weights.values()) > path.stat().st_size:
        raise ValueError("more weights than the file holds")


def _check_shapes(content: dict) -> None:
    """Raise an error where the weights are not those of the network that the file describes.

    A large network is made without memory first: a small file can describe an enormous one.
    """
    settings, weights = content["network"], content["weights"]
    layers = max(1, settings.get("depth", 1)) * settings.get("members", 1)
    if layers > len(weights):  # every layer has a tensor at least
        raise ValueError("fewer weights than layers")
    with torch.device("meta" if _large(settings) else "cpu"):
        wanted = network_from(settings).state_dict()
    if list(wanted) != list(weights):
        raise ValueError("other names")
    for name, value in wanted.items():
        if (weights[name].shape, weights[name].dtype) != (value.shape, value.dtype):
            raise ValueError(f"another shape of {name}")


def _check_parts(content: dict) -> None:
    """Raise an error where what else the file says is not what a classifier needs."""
    names, groups, experiment = (content[k] for k in ("class_names", "groups", "experiment"))
    if not isinstance(experiment, dict) or not isinstance(content["metrics"], dict):
        raise TypeError("no dictionary")
    lengths = {len(content["counts"]), *map(len, groups.values()), content["network"]["classes"]}
    if lengths != {len(names)}:
        raise ValueError("class names, counts and groups of different lengths")
    if not all(isinstance(name, str) for name in names):
        raise TypeError("class names that are no text")
    for c in range(len(names)):
        if sum(groups[name][c] is True for name in GROUPS) != 1:
            raise ValueError("a class that is not in one of the groups")
    size = experiment.get("image_size", 32)
    if type(size) is not int or not 0 < size <= LARGEST_IMAGE:
        raise ValueError("no size of an image")


def _large(settings: dict) -> bool:
    """Whether the network may have more than LARGE weights.

    Networks without memory make torch import for most of a second, so small ones do without.
    """
    if "backbone" in settings or "members" in settings:
        return True
    width, channels = settings["width"], 4 * settings["width"]  # of a ResNet's ends
    stem = 3 * width * (2 * settings["stem_stride"]) ** 2
    return stem + settings["depth"] * 9 * channels**2 + settings["classes"] * channels > LARGE


def _read(path: Path) -> dict:
    if not path.is_file():
        raise CheckpointError(f"There is no model file {path}: train it first.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # ltkd packs nothing: a bomb does
                if any(member.compress_type for member in archive.infolist()):
                    raise ValueError("compressed")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle or refused content: torch raises many kinds
        _check_unread(path, error)
        raise CheckpointError(
            f"{path} is damaged or is no model file of ltkd: delete it and train again."
        ) from error
    needed = {"weights", "network", "class_names", "counts", "groups", "experiment", "metrics"}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        content = {}
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UnreadError(
            f"{path} was written by a later version of ltkd (format {version}, this one reads "
            f"{VERSION}): update ltkd."
        )
    if needed - set(content) or not isinstance(version, int) or version != VERSION:
        raise CheckpointError(f"{path} is no model file of ltkd: delete it and train again.")
    return content
