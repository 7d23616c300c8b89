"""Results that come with the project: read, tabulated and drawn, without training.

They are in `saved_model/<experiment>/results.json`, by `python -m ltkd evaluate`. For ablations
see `ablation_results`.
"""

from dataclasses import replace
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from matplotlib.figure import Figure

from . import plots, score_plots
from .classifier import ModelPair
from .datasets import build
from .evaluation import predict, scores, table
from .experiments import ROLES
from .files import read_json
from .longtail import GROUPS, largest_first, spread
from .places import PROJECT, home
from .style import mean_deviation, shortened
from .supervision import distillation_loss

COLUMNS = ("all", *GROUPS)
RANKS = "top", "middle", "bottom"  # in place of groups, where no class is few-shot
WIDTH = 88  # characters of a line


def read(name: str) -> dict | None:
    """A JSON file below saved_model/, of LTKD_HOME or of the project; None where there is none."""
    path = _found(name)
    return None if path is None else read_json(path)


def _found(name: str) -> Path | None:
    """A file or folder below saved_model/, of LTKD_HOME or of the project; None: in neither."""
    paths = (place / "saved_model" / name for place in (home(), PROJECT))
    return next((path for path in paths if path.exists()), None)


def results(experiment_name: str) -> dict | None:
    """results.json of a shipped experiment, None where it is not shipped."""
    return read(f"{experiment_name}/results.json")


def report(experiment_name: str) -> str:
    """Accuracies by group, the paired test, and where they come from; or that there are none.

    >>> report("no-such-experiment")
    'no-such-experiment: not shipped'
    """
    summary = results(experiment_name)
    if summary is None:
        return f"{experiment_name}: not shipped"
    found, pair, machine = scores(summary), summary["comparison"], summary["machine"]
    title = f"{experiment_name}: test accuracy, %, of {summary['test_images']:,} images"
    lines = [wrapped(text) for text in (title, summary.get("remark")) if text]
    lines += ["", table(found), ""]
    if all(score["groups"]["few"] is None for score in found.values()):
        lines += [table(found, RANKS), ""]
    lines += _over_seeds(summary.get("seeds", []))
    lines += [
        f"{name}: {score['parameters']:,} parameters, {score['seconds']:,.0f} s of training, "
        f"calibration error {score['calibration_error']:.3f}{_temperature(score)}"
        for name, score in found.items()
    ]
    return "\n".join(
        [
            *lines,
            f"The student mends {len(pair['mended']):,} images and breaks {len(pair['broken']):,}: "
            f"p = {pair['p_value']:.1e}",
            *(wrapped(command, " \\") for command in summary["command"].split(" && ")),
            f"{machine['device']}, {machine['cores']} cores; torch {summary['versions']['torch']}",
        ]
    )


def _temperature(score: dict) -> str:
    """How a calibrated model's probabilities were made right, see calibration.calibrate."""
    if "temperature" not in score:
        return ""
    return f" (before: {score['uncalibrated']['test']:.3f}), T = {score['temperature']:.2f}"


def wrapped(text: str, end: str = "") -> str:
    """Lines of at most WIDTH characters, cut at spaces; all but the last with `end`."""
    width = WIDTH - len(end)
    return f"{end}\n".join(wrap(text, width, break_long_words=False, break_on_hyphens=False))


def _over_seeds(runs: list[dict]) -> list[str]:
    """Mean ± standard deviation over the seeds of results.json, as lines; none for one seed."""
    if len(runs) < 2:
        return []
    rows = {}
    for role in ROLES:
        every = [{"all": run[role]["all"], **run[role]["groups"]} for run in runs]
        rows[role.capitalize()] = {g: np.array([s[g] for s in every], float) for g in COLUMNS}
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return [f"Mean ± standard deviation of seeds {seeds}:", *seeds_table(rows), ""]


def by_class(experiment_name: str) -> Figure | None:
    """Per-class accuracy against training images, None where the experiment is not shipped."""
    summary = results(experiment_name)
    if summary is None:
        return None
    counts = np.array(summary["counts"])
    return score_plots.accuracy_by_class(scores(summary), counts, experiment_name)


def reliability(experiment_name: str) -> Figure | None:
    """The reliability diagram, None where it is not shipped."""
    summary = results(experiment_name) or {}
    found = scores(summary).items()
    curves = {name: score["reliability"] for name, score in found if "reliability" in score}
    return score_plots.reliability(curves, experiment_name) if curves else None


def confusion(experiment_name: str) -> Figure | None:
    """The confusion matrices, None where the experiment is not shipped."""
    summary = results(experiment_name)
    if summary is None:
        return None
    counts = np.array(summary["counts"])
    names = [f"class {c}" for c in range(len(counts))]
    return score_plots.confusion(scores(summary), names, counts)


def patch_weights(experiment_name: str, columns: int = 8) -> Figure | None:
    """Patch weights over test images of classes from head to tail, by the shipped teacher.

    None where the experiment is not shipped, or, with a sentence, its data set not built here.
    """
    model = _found(f"{experiment_name}/teacher_model.pth")
    if model is None:
        return None
    pair = ModelPair.at(model.parent)
    experiment = replace(pair.experiment, distillation="image_and_patch")
    if not experiment.built_file.exists():
        print(f"No images to draw on: python -m ltkd build {experiment.base} builds the data set.")
        return None
    data = build(experiment)
    classes = spread(largest_first(data.counts), columns)
    rows = [np.flatnonzero(data.test.labels == label)[0] for label in classes]
    teacher = pair.classifier("teacher").network
    patches = torch.from_numpy(predict(teacher, data.test.images[rows], patches=True))
    weights = distillation_loss(experiment, data, teacher).patch_weights(patches)  # (N, P)
    side = round(weights.shape[1] ** 0.5)
    titles = [shortened(data.class_names[label], 12) for label in classes]
    return plots.patch_weights(data.test.images[rows], weights.view(-1, side, side).numpy(), titles)


def seeds_table(rows: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Mean ± standard deviation as lines; `rows` is name → group → accuracies over seeds, (S,)."""
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{group:>12}" for group in COLUMNS)]
    for name, values in rows.items():
        lines.append(
            name.ljust(width) + "".join(f"{mean_deviation(values[g]):>12}" for g in COLUMNS)
        )
    return lines
