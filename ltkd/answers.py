"""What the panel says, as HTML. Names of files and classes are escaped here, and only here."""

import base64
import csv
import html
import io

import numpy as np
from PIL import Image

from .classifier import Classifier, ModelPair, Prediction
from .gallery import Picture
from .images import png_bytes
from .overlays import ABOVE, BELOW, STRONGEST, overlay

TITLES = {"teacher": "Teacher Model", "student": "Student Model"}
DOTS = {"many": "●●●", "medium": "●●○", "few": "●○○"}  # the badge of a group
NAMED = 30  # classes that fit on a line or two
EXPLANATION = (
    "<b>Evidence</b>: an image's logit is the sum of what its patches add to it, so each number is "
    "exact. Orange patches (+) speak for the class, blue ones (−) against it. <b>Distillation "
    "weight</b>: how much a patch would count if the Student learned from this picture; 1 is an "
    "even share. Blue patches (below 1) tell little of their own, like patches that head and tail "
    "classes share; orange ones (above 1) tell most."
)


def escape(value: object) -> str:
    return html.escape(str(value))


def failure(text: str) -> str:
    return f"<div role='status'>{_note(text)}</div>"


def _note(text: str) -> str:
    return f"<div class='ltkd-note'>⚠ {escape(text)}</div>"


def figure(image: Image.Image, alt: str, caption: str = "") -> str:
    """A picture with its text for those who cannot see it; `caption` is HTML."""
    content = base64.b64encode(png_bytes(image)).decode()
    return (
        f"<figure><img src='data:image/png;base64,{content}' alt='{escape(alt)}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def about(pair: ModelPair) -> str:
    """The pair's data set, accuracies and classes."""
    classifier, results = pair.any_classifier(), pair.results
    if {"teacher", "student", "test_images"} <= set(results):
        scores = ", ".join(
            f"{role.capitalize()} {results[role]['all']:.1f}% "
            f"({_percent(results[role]['groups'].get('few'))} on few-shot classes)"
            for role in TITLES
        )
        scores = f"Right on {results['test_images']:,} test images: {scores}."
    else:
        scores = "Not evaluated yet: run notebook 4 for accuracies."
    classes = ", ".join(
        f"{escape(name)}&nbsp;({count:,})"
        for name, count in zip(classifier.class_names, classifier.counts, strict=True)
    )
    return (
        f"Data set: {escape(pair.experiment.data_name)}. {scores}"
        f"<details><summary>The {len(classifier.counts)} classes, with their training "
        f"images</summary>{classes}</details>"
    )


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f}%"


def badge(classifier: Classifier, name: str) -> str:
    group = classifier.shots(name)[1]
    return f"<span class='ltkd-badge' title='{group}-shot class'>{DOTS[group]} {group}</span>"


def preview(picture: Picture) -> str:
    """The chosen picture with its name, size and true class."""
    if picture.preview is None:
        return failure(f"{picture.name}: {picture.error} Choose another image.")
    width, height = picture.size
    facts = [f"Preview: <b>{escape(picture.name)}</b>", f"{width:,} × {height:,} pixels"]
    if picture.true_class:
        facts.append(f"true class: <b>{escape(picture.true_class)}</b>")
    if picture.credit:
        facts.append(escape(picture.credit))
    return figure(picture.preview, f"The chosen picture, {picture.name}", "<br>".join(facts))


def answer(role: str, pair: ModelPair, prediction: Prediction, true_class: str | None) -> str:
    """One model's answer: the class, the five best, and a note where it is unsure."""
    classifier = pair.classifier(role)
    name, verdict = prediction.class_name, ""
    if true_class is not None:
        verdict = "✓ right" if name == true_class else f"✗ wrong, it is {escape(true_class)}"
    rows = "".join(_row(classifier, n, p) for n, p in prediction.ranking[:5])
    return (
        f"<div role='status'><b>{TITLES[role]}</b> says<br><span class='ltkd-big'>{escape(name)}"
        f"</span> with {prediction.probability:.1%} probability<br>{verdict}"
        f"<table><thead><tr><th>class</th><th colspan='2'>probability</th><th>training images</th>"
        f"</tr></thead><tbody>{rows}</tbody></table>{_unsure(role, pair, prediction)}</div>"
    )


def _row(classifier: Classifier, name: str, probability: float) -> str:
    return (
        f"<tr><td>{escape(name)}</td><td><span class='ltkd-track'><span class='ltkd-bar' "
        f"style='width:{probability:.1%}'></span></span></td>"
        f"<td class='ltkd-number'>{probability:.1%}</td>"
        f"<td class='ltkd-count'>{classifier.shots(name)[0]:,} {badge(classifier, name)}</td></tr>"
    )


def _unsure(role: str, pair: ModelPair, prediction: Prediction) -> str:
    if not pair.unsure(role, prediction):
        return ""
    names = pair.classifier(role).class_names
    known = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    least = pair.low_confidence(role)
    return _note(
        f"Unsure: {prediction.probability:.1%}, while 95% of the validation images that it gets "
        f"right reach {least:.1%}. The picture may be unlike the training "
        f"data. The {len(names)} classes are: {known}."
    )


def difference(predictions: dict[str, Prediction], true_class: str | None) -> str:
    """Teacher and Student on the same picture, in words."""
    teacher, student = (predictions[role].class_name for role in TITLES)
    if teacher == student:
        words = f"<b>They agree</b>: both say {escape(teacher)}."
    else:
        words = (
            f"<b>They differ</b>: the Teacher says {escape(teacher)}, the Student "
            f"{escape(student)}."
        )
    if true_class is None:
        return words
    right = [role.capitalize() for role in TITLES if predictions[role].class_name == true_class]
    who = ("neither is", f"the {' '.join(right)} is", "both are")[len(right)]
    return f"{words} The true class is {escape(true_class)}: {who} right."


def evidence(
    pair: ModelPair,
    seen: Image.Image,
    predictions: dict[str, Prediction],
    roles: list[str],
    chosen: int | None,
) -> str:
    """The patch evidence of the roles, for class `chosen` or each one's own, and the weights."""
    names = pair.any_classifier().class_names
    labels = {
        role: names.index(predictions[role].class_name) if chosen is None else chosen
        for role in roles
    }
    values = {role: predictions[role].evidence(label) for role, label in labels.items()}
    reach = max(float(np.abs(v).max()) for v in values.values()) or 1.0
    figures = [
        figure(
            overlay(seen, v, -reach, 0, reach),
            f"Evidence of the {TITLES[role]} for {names[labels[role]]}, by row: {_listed(v)}",
            f"{_scale(-reach, 0, reach, 'logits')}<b>{TITLES[role]}: evidence for "
            f"{escape(names[labels[role]])}</b><br>The {v.size} patches add up to its logit, "
            f"{v.sum():+.2f}.",
        )
        for role, v in values.items()
    ]
    return "".join([*figures, _weights(pair, seen, predictions.get("teacher"))]) + (
        f"<p>{EXPLANATION}</p>"
    )


def _weights(pair: ModelPair, seen: Image.Image, teacher: Prediction | None) -> str:
    weights = None if teacher is None else pair.patch_weights(teacher)
    if weights is None:
        return (
            "<figure><figcaption><b>No distillation weights</b>: this student was not distilled "
            "patch by patch, or notebook 4 was not run for it.</figcaption></figure>"
        )
    high = max(2.0, float(weights.max()))
    return figure(
        overlay(seen, weights, 0, 1, high, sign=""),
        f"Distillation weights of the patches, by row: {_listed(weights)}",
        f"{_scale(0, 1, high, '')}<b>Distillation weight</b><br>"
        f"Recipe: {escape(pair.experiment.distillation)}.",
    )


def _listed(values: np.ndarray) -> str:
    return "; ".join(" ".join(f"{v:.2f}" for v in row) for row in values)


def _scale(low: float, middle: float, high: float, unit: str) -> str:
    blue, orange = (f"rgba({r},{g},{b},{STRONGEST})" for r, g, b in (BELOW, ABOVE))
    clear = 100 * (middle - low) / (high - low)
    gradient = f"linear-gradient(to right,{blue},transparent {clear:.0f}%,{orange})"
    return (
        f"<div class='ltkd-scale' style='background:{gradient}'></div><div class='ltkd-ticks'>"
        f"<span>{low:.2g}</span><span style='position:absolute;left:{clear:.0f}%'>{middle}</span>"
        f"<span>{high:.2g} {unit}</span></div>"
    )


COLUMNS = ("file", "teacher", "teacher probability", "student", "student probability", "remark")


def table(rows: list[tuple[str, ...]]) -> str:
    """Results of several files with a link to their CSV; each row has the fields of COLUMNS."""
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    body = "".join(f"<tr>{''.join(f'<td>{escape(v)}</td>' for v in row)}</tr>" for row in rows)
    content = base64.b64encode(csv_text(rows).encode("utf-8-sig")).decode()
    link = f"<a download='ltkd-results.csv' href='data:text/csv;base64,{content}'>"
    return (
        f"<h3>All {len(rows)} uploaded files</h3><table class='ltkd-files'><thead><tr>{head}</tr>"
        f"</thead><tbody>{body}</tbody></table>{link}Download the table (CSV)</a>"
    )


def csv_text(rows: list[tuple[str, ...]]) -> str:
    """The rows as CSV, under COLUMNS.

    A spreadsheet would run a name that starts like a formula, so such a name gets an apostrophe.

    >>> print(csv_text([("=1+1.png", "8", "0.9", "9", "0.5", "")]).splitlines()[1])
    '=1+1.png,8,0.9,9,0.5,
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows([f"'{v}" if v[:1] in tuple("=+-@\t\r") else v for v in row] for row in rows)
    return out.getvalue()
