"""The project's own files agree with each other."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

from ltkd.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))


def read(notebook: Path) -> dict:
    return json.loads(notebook.read_text())


def code_cells(notebook: Path) -> list[dict]:
    return [c for c in read(notebook)["cells"] if c["cell_type"] == "code"]


def test_environment_yml_has_the_versions_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = set(project["dependencies"] + project["optional-dependencies"]["test"])
    wanted |= {"python" + project["requires-python"]}
    lines = (ROOT / "environment.yml").read_text().splitlines()
    found = {
        m[1].replace("pytorch>", "torch>")
        for m in map(re.compile(r" +- (\S+>=\S+)").match, lines)
        if m
    }
    assert found == wanted


def test_there_are_five_notebooks():
    assert [n.name[:3] for n in NOTEBOOKS] == ["01_", "02_", "03_", "04_", "05_"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
class TestNotebook:
    def test_can_be_parameterised(self, notebook):
        tagged = [c for c in code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1
        assert "experiment_name" in "".join(tagged[0]["source"])


def test_modules_stand_below_what_they_import():
    text = (ROOT / "README.md").read_text().partition("at its top stands above it:")[2]
    order = re.findall(r"`(\w+)`", text.partition("\n## ")[0])
    files = {f.stem: f for f in (ROOT / "ltkd").glob("[a-z]*.py")}
    assert sorted(order) == sorted(files)
    for place, name in enumerate(order):
        for node in ast.parse(files[name].read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                own = [node.module] if node.module else [a.name for a in node.names]
                assert not set(own) & set(order[place:]), name


def test_experiments_are_named_in_the_readme_files():
    texts = (ROOT / "README.md").read_text(), (ROOT / "data" / "README.md").read_text()
    for name in EXPERIMENTS:
        assert all(f"`{name}`" in text for text in texts)


def test_the_panels_page_is_for_this_machine_asks_for_its_token_and_ends_idle_kernels():
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"^VOILA \?= ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)[1].split()
    assert "--Voila.ip=127.0.0.1" in options and "--token" in options
    assert any(re.fullmatch(r"--MappingKernelManager.cull_idle_timeout=\d+", o) for o in options)
    assert "05_classifier_panel.ipynb $(VOILA)" in makefile
