"""The named experiments: what each sets of the fields of `experiments.Experiment`."""

from dataclasses import replace
from typing import Any

from .schedules import SCHEDULES

# On Stanford Cars and Caltech-101 nothing beats plain distillation by two standard errors on
# validation images: saved_model/*/ablation.json. Other photographs are trained in the same way.
PHOTOGRAPHS: dict[str, Any] = {
    "image_size": 64,
    "depth": 8,
    "stem_stride": 2,
    "width": 32,
    "teacher_width": 32,
    "teacher_loss": "balanced_softmax",
    "distillation": "kd",
    "schedule": SCHEDULES["photographs"],
}
# On validation images nothing is better than plain distillation by two standard errors:
# saved_model/cifar100-lt-quick-depth8/ablation.json
QUICK: dict[str, Any] = {"teacher_loss": "balanced_softmax", "distillation": "kd"}
# What was best, see saved_model/README.md. A wide network at half the resolution costs less to
# train, and to ask, than one like the student.
CIFAR: dict[str, Any] = QUICK | {
    "teacher_width": 64,
    "teacher_depth": 8,
    "teacher_stem_stride": 2,
    "schedule": SCHEDULES["long"],
}


def _photographs(source: str, epochs: int, expected: str) -> dict[str, Any]:
    schedule = replace(SCHEDULES["photographs"], epochs=epochs)
    own = {"source": source, "imbalance_factor": 10, "expected": expected, "schedule": schedule}
    return PHOTOGRAPHS | own


NAMED: dict[str, dict[str, Any]] = {
    "digits-lt": {
        "source": "digits",
        "imbalance_factor": 50,
        "depth": 8,
        "schedule": SCHEDULES["digits"],
        "expected": "teacher 79.5 ± 0.7, student 89.5 ± 0.5 (seeds 0 to 2); 1 min on 2 cores",
    },
    "cifar10-lt": CIFAR
    | {
        "source": "cifar10",
        "student_mix": "tail_cutmix",
        "expected": "teacher 81.6 ± 0.2, student 84.5 ± 0.1 (seeds 0 to 2); 2 to 5 h on 2 cores",
    },
    "cifar100-lt": CIFAR
    | {
        "source": "cifar100",
        "teacher_members": 3,
        "teacher_mix": "tail_cutmix_prior",
        "student_mix": "tail_cutmix_prior",
        "expected": "teacher 51.6 ± 0.0, student 51.6 ± 0.4 (seeds 0 to 2); 95 min on a core",
    },
    "stanford-cars-lt": _photographs(
        "stanford_cars",
        40,
        "teacher 18.3 ± 0.4, student 21.7 ± 0.2 (seeds 0 to 2; 1,635 official training images "
        "stood in for the test images); 9 min on a core",
    ),
    "caltech256-lt": _photographs("caltech256", 16, "not measured: the files were not at hand"),
    "caltech257-lt": _photographs("caltech257", 16, "not measured"),  # with the clutter class
    "cifar10-lt-quick": QUICK
    | {
        "source": "cifar10",
        "expected": "teacher 78.0, student 79.4 (seed 0)",
    },
    "cifar100-lt-quick": QUICK
    | {
        "source": "cifar100",
        "expected": "teacher 42.6 ± 0.7, student 44.5 ± 0.6 (seeds 0 to 2); 12 min on a core",
    },
}
