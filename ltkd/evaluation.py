"""Accuracies by group, confusion, calibration, and the paired comparison of two models."""

import numpy as np
import torch
from torch import nn

from . import processes
from .datasets import Split
from .experiments import ROLES
from .longtail import GROUPS
from .networks import image_logits
from .sources import Images

LOW = 0.05  # the share of the images predicted rightly whose confidence counts as low


@torch.inference_mode()
def predict(
    network: nn.Module, images: Images, batch_size: int | None = None, patches: bool = False
) -> np.ndarray:
    """Logits of every image, float32 (N, C), or of every patch, (N, P, C).

    `images` is uint8 (N, 3, H, W). The network is put in evaluation mode, one view per image. A
    batch has 500 images of up to 64 pixels, or fewer of larger ones.
    Several processes share the images; each gets the logits of all.
    """
    network.eval()
    device = next(network.parameters()).device
    batch_size = batch_size or max(1, min(500, 500 * 64**2 // images.shape[-1] ** 2))
    starts = range(0, len(images), batch_size)
    outputs = []
    for start in starts[processes.rank() :: processes.count()]:
        batch = images[start : start + batch_size]
        logits = network(torch.from_numpy(np.ascontiguousarray(batch)).to(device)).float()
        outputs.append((logits if patches else image_logits(logits)).cpu().numpy())
    parts = processes.gather(outputs)
    return np.concatenate([parts[i % len(parts)][i // len(parts)] for i in range(len(starts))])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    return torch.from_numpy(logits).softmax(-1).numpy()


def evaluate(logits: np.ndarray, labels: np.ndarray, groups: dict[str, np.ndarray]) -> dict:
    """Return plain values: accuracies in percent, calibration error 0..1, confusion counts.

    Parameters
    ----------
    logits : (N, C)
    labels : (N,)
    groups : name → bool (C,), see longtail.class_groups

    `all` is top-1 accuracy over images; a group's accuracy is the mean over its classes, None
    where the group has no class with test images. `low_confidence` is the probability that the
    predicted class reaches on all but LOW of the images predicted rightly, None if there are none.

    >>> scores = evaluate(np.eye(2)[[0, 1, 1, 1]] * 9.0, np.array([0, 0, 1, 1]),
    ...                   {"few": np.array([True, False])})
    >>> scores["all"], scores["groups"], scores["confusion"]
    (75.0, {'few': 50.0}, [[1, 1], [0, 2]])
    """
    from sklearn.metrics import accuracy_score, confusion_matrix, recall_score  # takes a second

    classes, predicted = logits.shape[1], logits.argmax(1)
    probabilities = softmax(logits)
    confidence = probabilities.max(1)[predicted == labels]
    every = np.arange(classes)
    recalls = 100 * recall_score(labels, predicted, labels=every, average=None, zero_division=0)
    present = np.isin(every, labels)
    means = {
        name: float(recalls[mask & present].mean()) if (mask & present).any() else None
        for name, mask in groups.items()
    }
    return {
        "all": float(100 * accuracy_score(labels, predicted)),
        "groups": means,
        "per_class": [float(r) if p else None for r, p in zip(recalls, present, strict=True)],
        "calibration_error": reliability(probabilities, labels)["error"],
        "low_confidence": float(np.quantile(confidence, LOW)) if len(confidence) else None,
        "confusion": confusion_matrix(labels, predicted, labels=every).tolist(),
    }


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> dict:
    """Confidence against accuracy in equal bins of confidence (Guo et al. 2017).

    Returns lists over bins (confidence, accuracy: NaN where empty; count) and `error`, the
    expected calibration error: the mean of |accuracy − confidence|, weighed by count, 0..1.

    >>> reliability(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]))["error"]
    0.25
    """
    from scipy.stats import binned_statistic  # takes a second to import

    confidence = probabilities.max(1)
    correct = (probabilities.argmax(1) == labels).astype(float)
    values = [correct, confidence]
    means, _, _ = binned_statistic(confidence, values, "mean", bins, range=(0, 1))
    counts, _ = np.histogram(confidence, bins, range=(0, 1))
    gaps = np.nan_to_num(np.abs(means[0] - means[1]))
    return {
        "accuracy": means[0].tolist(),
        "confidence": means[1].tolist(),
        "count": counts.tolist(),
        "error": float(gaps @ counts / len(labels)),
    }


def compare(teacher: np.ndarray, student: np.ndarray, labels: np.ndarray) -> dict:
    """Compare two models on the same images by McNemar's exact test (1947).

    Parameters
    ----------
    teacher, student : logits (N, C) or predicted classes (N,)
    labels : (N,)

    Returns the rows that the student mends and breaks, and the probability of a split at least as
    uneven if both models were equally good.

    >>> compare(np.array([0, 0, 0]), np.array([1, 1, 0]), np.array([1, 1, 0]))
    {'mended': [0, 1], 'broken': [], 'p_value': 0.5}
    """
    from scipy.stats import binomtest  # takes a second to import

    teacher, student = (p.argmax(1) if p.ndim == 2 else p for p in (teacher, student))
    mended = np.flatnonzero((teacher != labels) & (student == labels)).tolist()
    broken = np.flatnonzero((teacher == labels) & (student != labels)).tolist()
    differ = len(mended) + len(broken)
    p_value = float(binomtest(len(mended), differ).pvalue) if differ else 1.0
    return {"mended": mended, "broken": broken, "p_value": p_value}


def evaluate_network(network: nn.Module, split: Split, groups: dict[str, np.ndarray]) -> dict:
    """`predict` and `evaluate` on one split."""
    return evaluate(predict(network, split.images), split.labels, groups)


def main_scores(scores: dict) -> dict[str, float | None]:
    """Of what `evaluate` gives: accuracy over all images and by group, and the calibration error.

    >>> scores = {"all": 50.0, "groups": dict.fromkeys(GROUPS), "calibration_error": 0.1}
    >>> main_scores(scores | {"confusion": [[1, 1], [0, 0]]})
    {'all': 50.0, 'many': None, 'medium': None, 'few': None, 'calibration_error': 0.1}
    """
    groups = {group: scores["groups"][group] for group in GROUPS}
    return {"all": scores["all"], **groups, "calibration_error": scores["calibration_error"]}


def scores(summary: dict) -> dict[str, dict]:
    """The scores of both models in results.json, under the names that tables and figures show."""
    return {role.capitalize(): summary[role] for role in ROLES if role in summary}


def table(rows: dict[str, dict], columns: tuple[str, ...] = GROUPS) -> str:
    """A text table of accuracies, one row per model.

    >>> groups = {"many": 75.0, "medium": None, "few": 25.0}
    >>> print(table({"Teacher": {"all": 50.0, "groups": groups}}))
                all    many  medium     few
    Teacher    50.0    75.0       –    25.0
    """
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{c:>8}" for c in ("all", *columns))]
    for name, scores in rows.items():
        values = [scores["all"], *(scores["groups"][c] for c in columns)]
        cells = ("–" if v is None else f"{v:.1f}" for v in values)
        lines.append(name.ljust(width) + "".join(f"{cell:>8}" for cell in cells))
    return "\n".join(lines)
