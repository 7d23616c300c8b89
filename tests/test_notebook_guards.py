"""nbval compares what notebooks show; these guards see that there is something to compare.

They hold for every notebook below notebooks/, the solutions, too.
"""

import configparser
import copy
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    file for file in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in file.parts
)
EXCEPTIONS = {"nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception"}
HARMLESS = {"parameters", "hide-input", "hide-output", "remove-input", "exercise", "solution"}
# What may differ from machine to machine or from run to run: an ignored output has to show it.
VARIES = re.compile(
    r"\d\.\d|\d %|\d e-|\d s\b|\d (seconds|minutes|MB|MiB|ms)\b|\b(trained|loaded|resumed)\b"
    r"|\b0x[0-9a-f]+|widget-view|\bWidget\b|Box\(|<svg|\b\d+ (of|/) \d+\b",
    re.IGNORECASE,
)


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def tags(cell: dict) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def text_of(outputs: list[dict]) -> str:
    """All that is shown, without pictures, which nbval does not compare."""
    kept = []
    for output in outputs:
        data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/png")}
        kept += [output.get("text", ""), *data.items()]
    return json.dumps(kept, ensure_ascii=False)


def complaints(notebook: dict) -> list[str]:
    """What is wrong with an executed notebook, one sentence each."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    found = []
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append("not every code cell was executed once and in order")
    if "widgets" in notebook["metadata"]:
        found.append("widget state is saved")
    for number, cell in enumerate(code, 1):
        found += [f"cell {number}: {what}" for what in cell_complaints(cell)]
    prose = ("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    if any(re.search("^: ", text, re.MULTILINE) for text in prose):
        found.append("a line begins with a colon: nbconvert takes it for a definition")
    if not any(cell["outputs"] and not tags(cell) & EXCEPTIONS for cell in code):
        found.append("no output is compared")
    return found


def cell_complaints(cell: dict) -> list[str]:
    source, outputs, own = "".join(cell["source"]), cell["outputs"], tags(cell)
    found = [f"unknown tag {tag}" for tag in sorted(own - EXCEPTIONS - HARMLESS)]
    reasons = re.findall(r"^# nbval: (.*)$", source, re.MULTILINE)
    if len(reasons) != bool(own & EXCEPTIONS) or any(len(r.split()) < 4 for r in reasons):
        found.append("a tag needs its reason beside it, `# nbval: …`, and only a tag does")
    if re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)_", source):
        found.append("marked by a comment: use a tag")
    if not own & {"raises-exception", "nbval-raises-exception"}:
        found += ["an error is shown" for o in outputs if o["output_type"] == "error"]
    found += ["a warning is shown" for o in outputs if o.get("name") == "stderr"]
    if re.search(r"/(tmp|home|root|Users)/|[A-Z]:\\\\", text_of(outputs)):
        found.append("a path of one machine is shown")
    if "nbval-ignore-output" in own and not VARIES.search(text_of(outputs)):
        found.append("the ignored output is the same everywhere: remove the tag")
    return found


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_nothing_is_wrong_with(file):
    assert complaints(read(file)) == []


def test_pytest_runs_nbval_on_all_of_them():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--nbval" in options["addopts"].split()  # not --nbval-lax, which compares nothing
    assert "notebooks" in options["testpaths"]
    assert not {"norecursedirs", "collect_ignore"} & set(options)


def test_what_is_sanitised_hides_no_number():
    rules = configparser.RawConfigParser()
    assert rules.read(ROOT / "tests" / "nbval_sanitize.cfg") and rules.sections()
    shown = "305 train, 439 validation\n(305, 3, 32, 32)  0.6931 = log 2\n95.3 %  [[1, 2], [3, 4]]"
    for section in rules.sections():
        regex, put = rules[section]["regex"], rules[section]["replace"]
        assert re.sub(regex, put, shown) == shown, section


SOUND = {
    "metadata": {},
    "cells": [
        {
            "cell_type": "code", "execution_count": 1, "metadata": {}, "source": ["print(1)"],
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}],
        },
        {
            "cell_type": "code", "execution_count": 2,
            "metadata": {"tags": ["nbval-ignore-output"]},
            "source": ["# nbval: the time differs from run to run\n", "print(seconds())"],
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["1.5\n"]}],
        },
    ],
}  # fmt: skip
IGNORED = {"tags": ["nbval-ignore-output"]}
FAULTS = {
    "in order": lambda book, first: first.update(execution_count=2),
    "once": lambda book, first: first.update(execution_count=None),
    "widget state": lambda book, first: book["metadata"].update(widgets={}),
    "error": lambda book, first: first["outputs"].append({"output_type": "error"}),
    "warning": lambda book, first: first["outputs"][0].update(name="stderr"),
    "path of one": lambda book, first: first["outputs"][0].update(text=["/home/me/x.pth"]),
    "a reason|needs its reason": lambda book, first: first.update(metadata=IGNORED),
    "same everywhere": lambda book, first: first.update(
        metadata=IGNORED, source=["# nbval: numbers differ from here to there"]
    ),
    "no output is compared": lambda book, first: first.update(outputs=[]),
    "unknown tag": lambda book, first: first.update(metadata={"tags": ["nbval-ignore-outputs"]}),
    "by a comment": lambda book, first: first.update(source=["# NBVAL_IGNORE_OUTPUT\n", "1"]),
    "begins with a colon": lambda book, first: book["cells"].append(
        {"cell_type": "markdown", "source": ["as rare as 10\n", ": 1"]}
    ),
    "only a tag does": lambda book, first: first.update(source=["# nbval: left over from before"]),
}


def test_a_sound_notebook_is_not_complained_of():
    assert complaints(SOUND) == []


@pytest.mark.parametrize("expected", FAULTS)
def test_a_fault_is_noticed(expected):
    notebook = copy.deepcopy(SOUND)
    FAULTS[expected](notebook, notebook["cells"][0])
    assert re.search(expected, " ".join(complaints(notebook)))
