"""What a trained teacher and student are worth: results.json. Notebooks and commands call this."""

import math
from dataclasses import replace

import numpy as np

from .checkpoints import versions
from .datasets import LongTailedData, same_images
from .evaluation import compare, evaluate, main_scores, predict, reliability, softmax
from .experiments import ROLES, Experiment
from .files import read_json, write_json
from .finished import same_training, trained_model
from .provenance import command, machine
from .supervision import asks_teacher, distillation_loss

SEEDS = 10  # seeds 0 to 9 of an experiment are shown together


def results(experiment: Experiment, data: LongTailedData) -> dict:
    """Evaluate teacher and student on the test images and write results.json beside them.

    Returns what was written: for each role its scores on the test images and, the main ones, on the
    validation images, its parameters, training time and, where it is calibrated, the temperature
    and the calibration errors of before; the paired comparison; the mean posterior, with which one
    image's patch weights can be had without the training images; the experiment, the command, and
    the machine and versions that trained the student; and, per seed, the scores of all seeds of
    this experiment that have been evaluated.

    Raises CheckpointError where a model is missing, or is of other images than `data`.
    """
    summary: dict = {"experiment": experiment.as_dict(), "counts": data.counts.tolist()}
    summary["data"] = data.fingerprint
    logits, networks, contents = {}, {}, {}
    for role in ROLES:
        networks[role], contents[role] = trained_model(experiment, data, role)
        logits[role] = predict(networks[role], data.test.images)
        summary[role] = _role_scores(logits[role], data, contents[role]["metrics"])
    summary["comparison"] = compare(logits["teacher"], logits["student"], data.test.labels)
    distillation = distillation_loss(experiment, data, networks["teacher"])
    mean = distillation.mean_posterior
    summary["mean_posterior"] = None if mean is None else mean.tolist()
    summary["test_images"], summary["remark"] = len(data.test.labels), data.remark
    jobs = made_by("student", contents["student"]["metrics"], contents["teacher"]["metrics"])
    first = () if asks_teacher(experiment) else ("teacher",)  # nothing else trains it
    summary["command"] = command(experiment, (*first, *jobs, "evaluate"))
    summary["machine"] = _trained_on(experiment, contents["student"]["metrics"])
    summary["versions"] = contents["student"].get("versions", versions())
    summary["seeds"] = _seeds(experiment, summary)
    write_json(experiment.results_file, summary)
    return summary


def _role_scores(logits: np.ndarray, data: LongTailedData, metrics: dict) -> dict:
    """One model's part of results.json, from its test logits and its model file's metrics."""
    scores = evaluate(logits, data.test.labels, data.groups)
    kept = "seconds", "parameters", "precision", "processes", "temperature", "uncalibrated"
    scores |= {key: metrics[key] for key in kept if key in metrics}
    scores["validation"] = main_scores(metrics["validation"])
    # a threshold is a choice, too: not one for the test images to make
    scores["low_confidence"] = metrics["validation"]["low_confidence"]
    curve = reliability(softmax(logits), data.test.labels)
    for axis in ("accuracy", "confidence"):  # JSON knows no NaN, the value of an empty bin
        curve[axis] = [None if math.isnan(value) else value for value in curve[axis]]
    return scores | {"reliability": curve}


def made_by(role: str, own: dict, *others: dict) -> tuple[str, ...]:
    """The jobs that make a model, from its metrics and those of models that are halved with it."""
    calibrated = ["calibrate"] if "temperature" in own else []
    halved = ["halve"] if any(metrics.get("halved") for metrics in (own, *others)) else []
    return (role, *calibrated, *halved)


def renew_results(experiment: Experiment, data: LongTailedData) -> None:
    """Write results.json again, if there is one, for models that were changed."""
    if experiment.results_file.exists():
        results(experiment, data)


def _trained_on(experiment: Experiment, metrics: dict) -> dict:
    """The machine that trained; of files that do not say it, the one that results.json names."""
    if "machine" not in metrics and experiment.results_file.exists():
        metrics = read_json(experiment.results_file)
    return metrics.get("machine", machine())


def _seeds(experiment: Experiment, summary: dict) -> list[dict]:
    """What the same experiment gave with every seed that is evaluated, this one included."""
    rows = []
    for seed in sorted({*range(SEEDS), experiment.seed}):
        other = replace(experiment, seed=seed)
        file = other.results_file
        found = summary if seed == experiment.seed else read_json(file) if file.exists() else {}
        if not same_training(found.get("experiment", {}), other, "student"):
            continue  # not there, or of other defaults
        if not same_images(found, summary["data"]) or found.get("counts") != summary["counts"]:
            continue
        row = {"seed": seed, "command": found["command"], "machine": found["machine"]}
        row |= {"versions": found["versions"]}
        kept = ["all", "groups", "calibration_error", "seconds", "parameters"]
        kept += ["validation", "temperature", "uncalibrated"]
        for role in ROLES:
            row[role] = {key: found[role][key] for key in kept if key in found[role]}
        rows.append(row | {"p_value": found["comparison"]["p_value"]})
    return rows
