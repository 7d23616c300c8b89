"""What to know about a folder of one's own photographs before training on it."""

from collections import Counter
from pathlib import Path

import numpy as np

from .class_folders import other_files
from .datasets import LongTailedData
from .duplicates import hashes, near_duplicates
from .estimates import spoken
from .experiments import ROLES, Experiment
from .files import printable
from .runs import expected_seconds
from .sources import image_store

SHOWN = 5  # names of a kind that are printed


def report(experiment: Experiment, data: LongTailedData) -> None:
    """Print what was found in the folder: broken files, look-alikes across the split, advice on
    imbalance and size, and how long the training will take. Silent for the named experiments."""
    if experiment.folder is None:
        return
    lines = [counts(data), *left_out(experiment), *look_alikes(data), *advice(experiment, data)]
    for line in lines:
        print(f"· {line}")
    times = [spoken(expected_seconds(experiment, data, role)) for role in ROLES]
    print(f"· Training will take {times[0]} for the teacher and {times[1]} for the student here.")


def counts(data: LongTailedData) -> str:
    """One sentence on the sizes."""
    names, most, least = data.class_names, data.counts.max(), data.counts.min()
    tail = f"{most:,} training images of "
    if most == least:
        tail += "every class"
    else:
        tail += f"{names[data.counts.argmax()]}, {least:,} of {names[data.counts.argmin()]}"
    return f"{len(names)} classes, {data.sizes} images; {tail}."


def left_out(experiment: Experiment) -> list[str]:
    """Broken files, and files that are no images."""
    assert experiment.folder is not None  # see report
    root, lines = Path(experiment.folder), []
    broken = image_store(experiment, root, experiment.image_size).unreadable()
    if broken:
        named = [f"{printable(name)} ({why})" for name, why in sorted(broken.items())]
        lines.append(f"Broken files, left out: {len(broken)}. {_some(named, '; ')}")
    if others := other_files(root):
        ranked = sorted(others.items(), key=lambda kind: (-kind[1], kind[0]))
        kinds = [f"{number} {suffix}" for suffix, number in ranked]
        lines.append(f"Other files, left out: {_some(kinds)}.")
    return lines


def look_alikes(data: LongTailedData) -> list[str]:
    """Test images of which nearly the same picture is among the training or validation images."""
    bits = {name: hashes(split.images) for name, split in data.splits.items()}
    lines = []
    for other in ("train", "validation"):
        first, second = data.test, getattr(data, other)
        pairs = near_duplicates(bits["test"], bits[other])
        if pairs:
            named = [
                f"{printable(first.sources[i])} and {printable(second.sources[j])}"
                for i, j, _ in pairs
            ]
            lines.append(
                f"Test images that look like {other} images: {len(pairs)} ({_some(named, '; ')}). "
                f"If they show the same scene, the test is too easy: delete one of each pair."
            )
    return lines or ["No test image looks like a training or validation image."]


def advice(experiment: Experiment, data: LongTailedData) -> list[str]:
    """What imbalance and size mean for the training; empty where nothing stands out."""
    tested = np.bincount(data.test.labels, minlength=len(data.class_names))
    ratio, few = data.counts.max() / data.counts.min(), int((data.counts < 20).sum())
    lines = same_but_for_capitals(data.class_names)
    if ratio < 2:
        lines.append(
            f"The classes are nearly balanced (largest to smallest {ratio:.1f}): methods for long "
            f"tails have little to gain here."
        )
    else:
        lines.append(
            f"The largest class has {ratio:.1f} times the training images of the smallest: read "
            f"the accuracies by group; the overall one is mostly that of the large classes."
        )
    if few:
        lines.append(
            f"{few} of {len(tested)} classes have fewer than 20 training images: more photographs "
            f"of these help most."
        )
    if tested.min() < 1:
        lines.append(
            f"{(tested < 1).sum()} of {len(tested)} classes have no test image, so nothing will be "
            f"known of their accuracy."
        )
    elif tested.min() < 10:
        lines.append(
            f"The smallest class has {tested.min()} test images, so one image is "
            f"{100 / tested.min():.0f} points of its accuracy: trust groups, not classes."
        )
    if len(data.train.labels) < 5000 and experiment.weights is None:
        lines.append(
            "With fewer than 5,000 training images a network that starts from ImageNet's weights "
            "usually does better than one from scratch: backbone resnet18, weights imagenet, "
            "schedule finetune, image size 128 or 224, where the weights can be downloaded."
        )
    return lines


def same_but_for_capitals(names: list[str]) -> list[str]:
    """A sentence on class names that may be meant to be one, where there are any."""
    number = Counter(name.casefold() for name in names)
    same = sorted((n for n in names if number[n.casefold()] > 1), key=lambda n: (n.casefold(), n))
    if not same:
        return []
    return [
        f"Some classes differ in capitals alone ({_some(same)}): if they are the same, put their "
        f"images into one folder."
    ]


def _some(names: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return separator.join(names[:SHOWN]) + more
