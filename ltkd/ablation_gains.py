"""What the rows of an ablation are ahead of each other by, paired over seeds."""

import statistics

from .ablation_rows import CONTROLS, row_name
from .longtail import GROUPS


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
