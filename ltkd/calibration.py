"""Probabilities to be taken at their word: python -m ltkd calibrate EXPERIMENT."""

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from .checkpoints import halved, network_from, write_checkpoint
from .datasets import LongTailedData
from .evaluation import evaluate_network, predict
from .experiments import Experiment
from .files import shown
from .finished import trained_model
from .results import renew_results


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T for which logits / T make the labels most likely (Guo et al. 2017).

    Parameters
    ----------
    logits : (N, C), of images that were not trained on
    labels : (N,)

    Dividing by T changes no ranking, so no accuracy. Raises ValueError where the images do not tell
    T: there are none, all are right (T → 0), or the logits tell nothing of the labels (T → ∞).

    >>> three_of_four = np.array([0, 0, 0, 1])
    >>> round(temperature(np.tile([2 * np.log(3), 0], (4, 1)), three_of_four), 3)
    2.0
    """
    z, y = torch.from_numpy(logits).double(), torch.from_numpy(labels).long()

    def surprise(sharpness: float) -> float:  # convex in 1 / T
        return F.cross_entropy(sharpness * z, y).item()

    right = z.argmax(1) == y
    told = z.mean() < z[torch.arange(len(y)), y].mean()  # sharper than nothing helps
    if right.all() or not told:
        raise ValueError(
            f"{len(y)} validation images do not tell how sure the model should be: there must be "
            f"some that it gets right and some that it gets wrong, and its logits must tell them "
            f"apart."
        )
    return 1 / float(minimize_scalar(surprise, bracket=(0, 1)).x)


def cooled(content: dict, by: float) -> dict:
    """A model file's content with all logits divided by `by`.

    That is the last layer's weights and bias, or the scale where that layer is a cosine.
    """
    network = content["network"]
    if network["classifier"] == "cosine":
        return content | {"network": network | {"scale": network["scale"] / by}}
    last = {name: value / by for name, value in _last_layer(content["weights"]).items()}
    return content | {"weights": content["weights"] | last}


def _last_layer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if name.startswith("classifier.")}


def calibrate(experiment: Experiment, data: LongTailedData) -> float:
    """Divide the student's logits by the temperature that suits the validation images.

    Returns the temperature. It is kept in the model file's metrics (the product, if this is done
    more than once) beside the calibration errors of before the first time, and results.json is
    written again if there is one. The teacher stays as it is, since students learn from its logits.
    A file in half precision stays so, but for the last layer. Raises CheckpointError where a model
    is missing or of other data, ValueError where there is no such temperature.
    """
    path = experiment.model_file("student")
    trained_model(experiment, data, "teacher")  # results.json needs it: better missed now
    network, content = trained_model(experiment, data, "student")
    logits = predict(network, data.validation.images)
    found = temperature(logits, data.validation.labels)
    metrics = content["metrics"]
    before = {s: metrics[s]["calibration_error"] for s in ("validation", "test")}
    content = cooled(content, found)
    if metrics.get("halved"):  # but for the last layer: no answer may change
        weights = content["weights"]
        content |= {"weights": halved(weights) | _last_layer(weights)}
    network = network_from(content["network"])
    network.load_state_dict(content["weights"])
    content["metrics"] |= {
        "validation": evaluate_network(network, data.validation, data.groups),
        "test": evaluate_network(network, data.test, data.groups),
        "temperature": found * metrics.get("temperature", 1.0),
        "uncalibrated": metrics.get("uncalibrated", before),
    }
    write_checkpoint(path, content)
    renew_results(experiment, data)
    now = content["metrics"]["validation"]["calibration_error"]
    print(
        f"{shown(path)}: temperature {found:.3f}; calibration error on the validation images "
        f"{before['validation']:.3f}, now {now:.3f}."
    )
    return found
