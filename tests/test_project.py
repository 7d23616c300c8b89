"""The project's own files agree with each other."""

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
    def test_was_executed_once_and_in_order(self, notebook):
        counts = [c["execution_count"] for c in code_cells(notebook)]
        assert counts == list(range(1, len(counts) + 1))

    def test_has_no_error_and_no_widget_state(self, notebook):
        kinds = {o["output_type"] for c in code_cells(notebook) for o in c["outputs"]}
        assert "error" not in kinds
        assert "widgets" not in read(notebook)["metadata"]

    def test_shows_no_warning_and_no_path_of_one_machine(self, notebook):
        outputs = [o for c in code_cells(notebook) for o in c["outputs"]]
        assert not [o for o in outputs if o.get("name") == "stderr"]
        text = json.dumps([o.get("text", "") for o in outputs])
        assert str(ROOT) not in text and "/tmp" not in text

    def test_an_ignored_output_has_its_reason(self, notebook):
        for cell in code_cells(notebook):
            ignored = "nbval-ignore-output" in cell["metadata"].get("tags", [])
            reasons = [line for line in cell["source"] if line.startswith("# nbval: ")]
            assert len(reasons) == ignored, "".join(cell["source"])

    def test_can_be_parameterised(self, notebook):
        tagged = [c for c in code_cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
        assert len(tagged) == 1
        assert "experiment_name" in "".join(tagged[0]["source"])

    def test_links_lead_somewhere(self, notebook):
        text = "".join("".join(c["source"]) for c in read(notebook)["cells"])
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("http") or (notebook.parent / target).exists(), target


def test_experiments_are_named_in_the_readme_files():
    texts = (ROOT / "README.md").read_text(), (ROOT / "data" / "README.md").read_text()
    for name in EXPERIMENTS:
        assert all(f"`{name}`" in text for text in texts)
