"""Models that are trained already: taken where they are what the experiment asks for."""

from dataclasses import replace

from .checkpoints import CheckpointError, UnreadError, load_checkpoint
from .datasets import LongTailedData, same_images
from .experiments import APART, Experiment
from .files import shown
from .naming import STUDENT_TAGS
from .networks import PatchNetwork
from .processes import say


def finished(
    experiment: Experiment, data: LongTailedData, role: str
) -> tuple[PatchNetwork, dict] | None:
    """The experiment's trained model and its file's content; None where it is to be trained.

    Where there is a file that cannot be taken, the reason is printed; one that cannot be read now,
    or is of a later version, raises UnreadError.
    """
    path = experiment.model_file(role)
    if not path.exists():
        return None
    try:
        network, content = load_checkpoint(path, len(data.class_names))
    except UnreadError:
        raise
    except CheckpointError as error:
        say(f"{error} It is trained again now.")
        return None
    same = _same_data(content, data)
    if not (same and same_training(content["experiment"], experiment, role)):
        say(f"{shown(path)} is of another experiment or other data: it is trained again now.")
        return None
    return network, content


def trained_model(
    experiment: Experiment, data: LongTailedData, role: str
) -> tuple[PatchNetwork, dict]:
    """The experiment's trained model and its file's content, to be evaluated on `data`.

    Raises CheckpointError where it is missing, damaged, of another experiment, or was trained on
    another cut: its training images could be among the test images now.
    """
    path = experiment.model_file(role)
    network, content = load_checkpoint(path, len(data.class_names))
    if not same_training(content["experiment"], experiment, role):
        raise CheckpointError(
            f"{path} was trained as another experiment than {experiment.name}: train the {role} "
            f"again."
        )
    if not _same_data(content, data):
        raise CheckpointError(
            f"{path} was trained on other images than the data set holds now, so it cannot be "
            f"evaluated on it: train the {role} again."
        )
    return network, content


def _same_data(content: dict, data: LongTailedData) -> bool:
    """Whether a model was trained on this cut; files of before fingerprints tell their counts."""
    same_classes = content["class_names"] == list(data.class_names)
    same_counts = content["counts"] == data.counts.tolist()
    return same_classes and same_counts and same_images(content, data.fingerprint)


def same_training(stored: dict, experiment: Experiment, role: str) -> bool:
    """Whether a model was trained as `experiment` says.

    Where its folder lies is no matter, nor, for a teacher, what student it was meant for.
    """
    try:
        found = Experiment.from_dict(stored)
    except ValueError:
        return False
    apart = [*APART, *(STUDENT_TAGS if role == "teacher" else ())]
    return replace(found, **{field: getattr(experiment, field) for field in apart}) == experiment
