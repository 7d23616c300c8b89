"""What each part of the method brings: python -m ltkd ablation EXPERIMENT.

One student per row and seed, all else alike; the rows are compared on the validation images. The
table is written after every student, and a stopped run goes on where it was.
"""

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from itertools import count, product
from pathlib import Path
from typing import Any

from .checkpoints import versions
from .datasets import LongTailedData, build, same_images
from .evaluation import main_scores
from .experiments import Experiment
from .files import claimed, progress, read_json, shown, write_json
from .finished import same_training
from .longtail import GROUPS
from .mixing import MIXES
from .objectives import RECIPES
from .provenance import command, machine
from .results import made_by
from .runs import train

MIXED = ("none", "kd", "uniform", "image_and_patch")  # the recipes that are tried with mixing
ALONE = "teacher alone"
CHANGED = ("teacher_loss", "student_mix", "distillation")  # by every row that depends on them
# What a row is held against: the same student without the part in question. In "image_and_patch"
# the image's loss counts 0.3, in "decoupled" and "kd" 1, so these two differ in that as well.
CONTROLS = {
    "patch_informativeness": ("patch_decoupled",),
    "patch_ambiguity": ("patch_decoupled",),
    "patch_decoupled": ("patch_kd",),
    "calibrated_kd": ("kd",),
    "decoupled": ("calibrated_kd",),
    "kd": ("none", ALONE),
    "image_and_patch": ("uniform", "shuffled", "inverted", "decoupled", "kd", ALONE),
}


def teachers(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The teachers whose students are compared: name → fields."""
    balanced = {"teacher_loss": "balanced_softmax"}
    found: dict[str, dict[str, Any]] = {
        "a cross-entropy teacher": {"teacher_loss": "cross_entropy"},
        "a Balanced Softmax teacher": balanced,
    }
    if experiment.backbone == "resnet":  # torchvision's backbones have one width
        found["a wider teacher"] = balanced | {"teacher_width": 2 * experiment.teacher_width}
    return found


def rows(experiment: Experiment, *patterns: str) -> dict[str, dict]:
    """The rows of the table whose name fits a pattern, all if none is given: name → fields.

    The teachers; every recipe with every teacher; every way of mixing with four of the recipes.

    >>> list(rows(Experiment.named("cifar100-lt"), "kd, a wider teacher*cutmix"))
    ['kd, a wider teacher, cutmix', 'kd, a wider teacher, tail_cutmix']
    """
    own = teachers(experiment)
    table = {row_name(ALONE, teacher, "none"): fields for teacher, fields in own.items()}
    for (teacher, fields), recipe, mix in product(own.items(), RECIPES, MIXES):
        if mix != "none" and recipe not in MIXED:
            continue
        taught = fields if _asks(recipe, mix) else {}  # the experiment's usual teacher
        name = row_name(recipe, teacher, mix)
        table.setdefault(name, taught | {"distillation": recipe, "student_mix": mix})
    return {
        name: fields
        for name, fields in table.items()
        if any(fnmatch(name, pattern) for pattern in patterns or ("*",))
    }


def _asks(recipe: str, mix: str) -> bool:
    """Whether the teacher makes a difference: by what it teaches, or by what it has pasted."""
    return recipe != "none" or mix == "tail_patches"


def row_name(recipe: str, teacher: str, mix: str) -> str:
    """What differs in a row; the teacher only where it is asked.

    >>> row_name("kd", "a wider teacher", "none"), row_name("none", "a wider teacher", "cutmix")
    ('kd, a wider teacher', 'none, cutmix')
    """
    words = [recipe, teacher if _asks(recipe, mix) else "", mix if mix != "none" else ""]
    return ", ".join(word for word in words if word)


def ablation(experiment: Experiment, seeds: int = 3, patterns: Sequence[str] = ()) -> list[dict]:
    """Train the rows that fit one of `patterns`, for every seed; return all measured so far.

    A row is a student or, to compare with, a teacher alone.

    The rows are kept in saved_model/<experiment>/ablation.json; rows of other images, of a folder
    that has changed, are measured again. Validation accuracy decides; test accuracy, read once
    after the last epoch, stands beside it. Raises ValueError where no row fits.
    """
    wanted = rows(experiment, *patterns)
    if not wanted:
        given = " or ".join(map(repr, patterns))
        raise ValueError(
            f"No row fits {given}; a row is named by recipe, teacher and mixing, as in "
            f"'kd, a wider teacher, cutmix'; '*' stands for anything."
        )
    file = experiment.model_folder / "ablation.json"
    data = build(experiment)
    _set_aside(file, experiment)
    done = _rows_of(file, data.fingerprint)
    known = {(row["row"], row["seed"]) for row in done}
    words = ["", "--seeds", str(seeds)]
    words += ["--rows", *map(shlex.quote, patterns)] if patterns else []
    line = command(experiment, ("ablation",), " ".join(words))
    about: dict[str, Any] = {"command": line, "experiment": experiment.as_dict()}
    about["remark"] = data.remark
    jobs = [job for job in product(range(seeds), wanted) if job[::-1] not in known]
    for seed, name in progress(jobs, desc="ablation", unit=" students"):
        student = replace(experiment, seed=seed, **wanted[name])
        row = {"row": name, "seed": seed, "data": data.fingerprint}
        done = _add(file, about, row | _measured(student, data, name))
    print(table(done), *lead(done, default_row(experiment)), sep="\n")
    return done


def _measured(student: Experiment, data: LongTailedData, name: str) -> dict:
    """Train the row's student, or the teacher alone: what it scores, and how it was made."""
    role = "teacher" if name.startswith(ALONE) else "student"
    content = train(student, data, role)[1]
    metrics = content["metrics"]
    row: dict[str, Any] = {"command": command(student, made_by(role, metrics))}
    row |= {split: main_scores(metrics[split]) for split in ("validation", "test")}
    row |= {key: metrics[key] for key in ("seconds", "parameters")}
    # a table is filled over days, not always on one machine
    row |= {"machine": metrics.get("machine", machine())}
    return row | {"versions": content.get("versions", versions())}


def _set_aside(file: Path, experiment: Experiment) -> None:
    """Keep a table of other defaults under another name; its rows are not those of this one."""
    if not file.exists():
        return
    own = {name: getattr(experiment, name) for name in CHANGED}
    if same_training(read_json(file).get("experiment", {}) | own, experiment, "student"):
        return
    names = (file.with_name(f"ablation-before-{number}.json") for number in count(1))
    kept = next(name for name in names if not name.exists())
    file.replace(kept)
    print(f"{shown(file)} is of other defaults; it is kept as {kept.name}.")


def _rows_of(file: Path, data: str) -> list[dict]:
    """The table's rows of the images with this fingerprint; older rows do not tell theirs."""
    found = read_json(file).get("rows", []) if file.exists() else []
    return [row for row in found if same_images(row, data)]


def _add(file: Path, about: dict, row: dict) -> list[dict]:
    """Add a row to the table on the disk, where another process may have added some; return all."""
    with claimed(file, "The writing of the ablation's table", wait=True):
        known = row["row"], row["seed"]
        others = _rows_of(file, row["data"])
        done = [r for r in others if (r["row"], r["seed"]) != known] + [row]
        write_json(file, about | {"rows": done})
    return done


def table(done: list[dict]) -> str:
    """Validation accuracy, mean ± standard deviation over seeds, best row first.

    The last column is what the row brings over its controls: the mean difference to each with the
    same seeds, teacher and mixing, and its standard error.
    """
    values = by_row(done)
    lines = []
    for name, own in sorted(values.items(), key=lambda item: -statistics.mean(item[1].values())):
        gains = "; ".join(
            f"{gain:+.1f} ± {error:.1f} over {control.split(', ')[0]}"
            for control, (gain, error) in gains_over_controls(values, name).items()
        )
        mean, sd = statistics.mean(own.values()), deviation(list(own.values()))
        lines.append(f"{mean:5.1f} ± {sd:3.1f}  ({len(own)})  {name}   {gains}".rstrip())
    return "\n".join(lines)


def gains_over_controls(
    values: dict[str, dict[int, float]], name: str
) -> dict[str, tuple[float, float]]:
    """The paired gain of a row over the rows that are its controls, with the same teacher and
    mixing: name of the control's row → (mean, standard error), in points.

    `values` are accuracies by row and seed. The standard error is NaN with a single seed.

    >>> values = {"kd, a wider teacher": {0: 41.0, 1: 43.0}, "none": {0: 40.0, 1: 40.0}}
    >>> gains_over_controls(values, "kd, a wider teacher")
    {'none': (2.0, 1.0)}
    """
    recipe, teacher, mix = (*name.split(", "), "none", "none")[:3]
    found = {}
    for control in CONTROLS.get(recipe, ()):
        row = row_name(control, teacher, mix)
        if gained := gain(values[name], values.get(row, {})):
            found[row] = gained
    return found


def gain(own: dict[int, float], theirs: dict[int, float]) -> tuple[float, float] | None:
    """The mean difference over the seeds that both have, and its standard error; None if none.

    >>> gain({0: 41.0, 1: 43.0}, {0: 40.0, 1: 40.0, 2: 0.0})
    (2.0, 1.0)
    """
    pairs = [value - theirs[seed] for seed, value in own.items() if seed in theirs]
    if not pairs:
        return None
    return statistics.mean(pairs), deviation(pairs) / len(pairs) ** 0.5


def deviation(values: list[float]) -> float:
    """The standard deviation of a sample; NaN of a single value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def default_row(experiment: Experiment) -> str | None:
    """The row that is the experiment itself, None if there is none."""
    same = (name for name, f in rows(experiment).items() if replace(experiment, **f) == experiment)
    return next((name for name in same if not name.startswith(ALONE)), None)


def lead(done: list[dict], own: str | None) -> list[str]:
    """What a row is ahead of the others by on the test images, in all and by group; text lines."""
    by_group = {group: by_row(done, "test", group) for group in ("all", *GROUPS)}
    if own not in by_group["all"]:
        return []
    lines = [f"On the test images “{own}” is ahead, in points (mean ± standard error), by"]
    lines.append("".join(f"{group:>14}" for group in by_group))
    for other in by_group["all"]:
        gains = [gain(values.get(own, {}), values.get(other, {})) for values in by_group.values()]
        if other != own and gains[0]:
            cells = (f"{g[0]:+.1f} ± {g[1]:.1f}" if g else "–" for g in gains)
            lines.append("".join(f"{cell:>14}" for cell in cells) + f"  of {other}")
    return lines


def by_row(
    done: list[dict], split: str = "validation", group: str = "all"
) -> dict[str, dict[int, float]]:
    """Accuracies by row and seed: row → seed → percent; a row without such a group is left out."""
    values: dict[str, dict[int, float]] = {}
    for row in done:
        if row[split][group] is not None:
            values.setdefault(row["row"], {})[row["seed"]] = row[split][group]
    return values
