"""The ablations that come with the project: tabulated and drawn, without training.

They are in `saved_model/<experiment>/ablation.json`, by `python -m ltkd ablation`.
"""

from collections import Counter

import numpy as np
from matplotlib.figure import Figure

from . import ablation_plots
from .ablation_gains import by_row, gains_over_controls
from .ablation_grid import by_mixing, by_teacher, gains_by_mixing, gains_by_teacher
from .shipped import COLUMNS, read, seeds_table, wrapped

FILE = "cifar100-lt-quick-depth8/ablation.json"  # the one that the figures show
TITLES = ("nothing mixed, by teacher", "by what is mixed into the student's images")


def report(experiment_name: str, split: str = "validation") -> str:
    """Mean ± standard deviation over seeds of every row, best first; or that there is no ablation.

    >>> report("no-such-experiment")
    'ablation: not shipped'
    """
    content = read(f"{experiment_name}/ablation.json")
    if content is None:
        return "ablation: not shipped"
    found: dict[str, list[dict]] = {}
    for run in content["rows"]:
        found.setdefault(run["row"], []).append(run[split])
    rows = {
        name: {g: np.array([run.get(g) for run in runs], float) for g in COLUMNS}
        for name, runs in found.items()
    }
    rows = dict(sorted(rows.items(), key=lambda row: -row[1]["all"].mean()))
    seeds = {len(runs) for runs in found.values()}
    rows, teacher = _without_usual_teacher(rows)
    number = f"{_range(seeds)} seed{'s' if max(seeds) > 1 else ''} a row"
    last = f"{split.capitalize()} accuracy, %; {number}, last epoch{teacher}."
    return "\n".join([*seeds_table(rows), wrapped(last)])


def gains_report(experiment_name: str) -> str:
    """What rows of several seeds are ahead of their controls by, or that there is no ablation.

    >>> gains_report("no-such-experiment")
    'ablation: not shipped'
    """
    content = read(f"{experiment_name}/ablation.json")
    if content is None:
        return "ablation: not shipped"
    values = {name: runs for name, runs in by_row(content["rows"]).items() if len(runs) > 1}
    short = dict(zip(values, _without_usual_teacher(values)[0], strict=True))
    found = {
        f"{short[name]} over {short[control]}": f"{gain:+.1f} ± {error:.1f}"
        for name in values
        for control, (gain, error) in gains_over_controls(values, name).items()
        if error == error  # NaN: one seed in common
    }
    width = max(map(len, found), default=0)
    last = (
        "Points of validation accuracy over the control with the same teacher and pasting: "
        "mean ± standard error of the differences seed by seed."
    )
    lines = [f"{pair:{width}}  {gain}" for pair, gain in found.items()]
    return "\n".join([*lines, wrapped(last)])


def accuracies() -> Figure | None:
    """Recipes with every teacher as points with error bars, nothing mixed; None if not shipped."""
    content = read(FILE)
    if content is None:
        return None
    grids = {g: by_teacher(_arrays(content["rows"], "validation", g)) for g in ("all", "few")}
    return ablation_plots.accuracies(grids)


def grids(group: str = "all", split: str = "validation") -> Figure | None:
    """Every measured row, by recipe and teacher and by recipe and mixing; None if not shipped."""
    content = read(FILE)
    if content is None:
        return None
    values = _arrays(content["rows"], split, group)
    found = dict(zip(TITLES, (by_teacher(values), by_mixing(values)), strict=True))
    classes = "all classes" if group == "all" else f"{group}-shot classes"
    return ablation_plots.grids(found, f"{split} accuracy, %, {classes}")


def gains(split: str = "validation") -> Figure | None:
    """What every row is ahead of its controls by, mean ± standard error; None if not shipped."""
    content = read(FILE)
    if content is None:
        return None
    values = by_row(content["rows"], split)
    found = dict(zip(TITLES, (gains_by_teacher(values), gains_by_mixing(values)), strict=True))
    return ablation_plots.gains(found, f"points of {split} accuracy over the control")


def _arrays(rows: list[dict], split: str, group: str) -> dict[str, np.ndarray]:
    return {name: np.array([*runs.values()]) for name, runs in by_row(rows, split, group).items()}


def _without_usual_teacher(rows: dict) -> tuple[dict, str]:
    """The rows, the commonest teacher left out of their names; and the words that name it.

    >>> rows = {"none": 1, "kd, a wide teacher": 2, "kd, a wide teacher, cutmix": 3}
    >>> _without_usual_teacher(rows)
    ({'none': 1, 'kd': 2, 'kd, cutmix': 3}, ', a wide teacher')
    """
    words = (word for name in rows for word in name.split(", "))
    teachers = Counter(word for word in words if word.endswith(" teacher"))
    if not teachers:
        return rows, ""
    usual = teachers.most_common(1)[0][0]
    elsewhere = " where no other is named" if len(teachers) > 1 else ""
    return {n.replace(f", {usual}", ""): v for n, v in rows.items()}, f", {usual}{elsewhere}"


def _range(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
