"""What each part of the method brings: python -m ltkd ablation EXPERIMENT.

One student per row and seed, all else alike; the rows are compared on the validation images. The
table is written after every student, and a stopped run goes on where it was.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, product
from pathlib import Path
from typing import Any

from .ablation_gains import lead, table
from .ablation_rows import ALONE, default_row, rows
from .checkpoints import versions
from .datasets import LongTailedData, build, same_images
from .evaluation import main_scores
from .experiments import Experiment
from .files import claimed, progress, read_json, shown, write_json
from .finished import same_training
from .provenance import command, machine
from .results import made_by
from .runs import train

CHANGED = ("teacher_loss", "student_mix", "distillation")  # by every row that depends on them


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
