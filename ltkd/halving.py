"""Trained models in half precision, at half the size: python -m ltkd halve EXPERIMENT."""

from .checkpoints import halved, write_checkpoint
from .datasets import LongTailedData
from .evaluation import evaluate_network
from .experiments import ROLES, Experiment
from .files import shown
from .finished import trained_model
from .results import renew_results

TOLERANCE = 0.1  # points of accuracy on the validation images


def halve(experiment: Experiment, data: LongTailedData) -> dict[str, float]:
    """Store teacher and student in float16, each if its validation accuracy stays within TOLERANCE.

    Returns the change of each in points. A file that is written anew holds the accuracies of its
    halved weights, and so does results.json, if there is one. Other students of the teacher must be
    evaluated again. Raises CheckpointError where a model is missing or of other data.
    """
    models, changes = {role: trained_model(experiment, data, role) for role in ROLES}, {}
    for role, (network, content) in models.items():
        path = experiment.model_file(role)
        before = evaluate_network(network, data.validation, data.groups)["all"]
        weights = halved(content["weights"])
        network.load_state_dict(weights)  # computes in float32, with what float16 has kept
        validation = evaluate_network(network, data.validation, data.groups)
        changes[role] = validation["all"] - before
        kept = abs(changes[role]) <= TOLERANCE
        if kept:
            test = evaluate_network(network, data.test, data.groups)
            content["metrics"] |= {"validation": validation, "test": test, "halved": True}
            write_checkpoint(path, content | {"weights": weights})
        verdict = "is in half precision now" if kept else "stays in full precision"
        print(f"{shown(path)} {verdict}: {changes[role]:+.2f} points on the validation images.")
    renew_results(experiment, data)
    return changes
