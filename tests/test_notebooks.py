"""All notebooks of an experiment, one after another: copies, saved outputs, and what is said."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from ltkd import covers, notebooks
from ltkd.__main__ import main
from ltkd.experiments import Experiment

CHOICE = "import os; print(os.environ['LTKD_EXPERIMENT'], os.environ['LTKD_EPOCHS'])"


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    found = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(found, path)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Iterator[Path]:
    """A project of two notebooks and a solution. The environment is put back afterwards."""
    before = dict(os.environ)
    for name in ("01_a", "02_b", "solutions/01_a"):
        write(tmp_path / "notebooks" / f"{name}.ipynb", CHOICE)
    (tmp_path / "notebooks/images").mkdir()
    (tmp_path / "notebooks/images/a.png").write_bytes(b"a picture")
    monkeypatch.setattr(notebooks, "PROJECT", tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def experiment() -> Experiment:
    """With results, as notebook 4 would leave them."""
    experiment = Experiment.choose("digits-lt", epochs=2)
    scores = {"all": 50.0, "groups": {"many": 75.0, "medium": None, "few": 25.0}}
    results = {"test_images": 1640, "teacher": scores, "student": scores}
    experiment.model_folder.mkdir(parents=True)
    (experiment.model_folder / "results.json").write_text(json.dumps(results))
    return experiment


def shown_in(file: Path) -> str:
    (cell,) = nbformat.read(file, 4).cells
    return "".join(output["text"] for output in cell.outputs)


@pytest.mark.parametrize("name", ["digits-lt", "cifar10-lt", "folder:."])
def test_the_kernels_choose_the_same_experiment(name, project, monkeypatch):
    experiment = Experiment.choose(name, seed=2)
    monkeypatch.setattr(notebooks, "execute", lambda file, target: None)
    monkeypatch.setattr(notebooks, "_closing_words", lambda *arguments: None)
    notebooks.run_all(experiment)
    chosen = Experiment.choose(os.environ["LTKD_EXPERIMENT"])
    assert chosen.name == experiment.name
    assert chosen.schedule == experiment.schedule


def test_the_kernels_work_in_the_same_places(project, monkeypatch, tmp_path):
    """They run in notebooks/, where a path from the working folder leads nowhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTKD_HOME", "out")
    monkeypatch.setenv("LTKD_DATA", "files")
    monkeypatch.setattr(notebooks, "execute", lambda file, target: None)
    monkeypatch.setattr(notebooks, "_closing_words", lambda *arguments: None)
    notebooks.run_all(Experiment.named("digits-lt"))
    assert os.environ["LTKD_HOME"] == str(tmp_path / "out")
    assert os.environ["LTKD_DATA"] == str(tmp_path / "files")


def test_copies_are_executed_on_the_experiment(project, experiment, capsys):
    notebooks.run_all(experiment)
    copies = experiment.model_folder / "notebooks"
    assert sorted(f.name for f in copies.iterdir()) == ["01_a.ipynb", "02_b.ipynb", "images"]
    assert (copies / "images/a.png").read_bytes() == b"a picture"
    for file in copies.glob("*.ipynb"):
        assert shown_in(file) == "digits-lt 2\n"
        assert shown_in(project / "notebooks" / file.name) == ""
    said = capsys.readouterr().out
    assert "[1/2] 01_a … " in said and "[2/2] 02_b … " in said
    assert "digits-lt-epochs2, 1,640 images" in said


def test_saving_includes_the_solutions_and_the_pictures(project, experiment, monkeypatch):
    drawn = []
    monkeypatch.setattr(covers, "save_all", lambda *arguments: drawn.append(arguments))
    notebooks.run_all(experiment, save=True)
    for name in ("01_a", "02_b", "solutions/01_a"):
        assert shown_in(project / "notebooks" / f"{name}.ipynb") == "digits-lt 2\n"
    assert drawn == [(project / "notebooks/images", experiment)]
    assert not (experiment.model_folder / "notebooks").exists()


def test_a_failing_cell_stops_it_and_can_be_read(project, experiment):
    write(project / "notebooks/01_a.ipynb", "1 / 0")
    with pytest.raises(notebooks.NotebookError, match=r"01_a.ipynb stopped with ZeroDivisionError"):
        notebooks.run_all(experiment)
    copies = experiment.model_folder / "notebooks"
    assert "ZeroDivisionError" in (copies / "01_a.ipynb").read_text()
    assert not (copies / "02_b.ipynb").exists()


def test_a_failing_cell_is_one_sentence_and_the_copy_has_the_rest(tmp_path, home):
    source = write(tmp_path / "a.ipynb", "1 + 1", "raise ValueError('The folder is empty.')")
    with pytest.raises(notebooks.NotebookError) as error:
        notebooks.execute(source, home / "copies" / "a.ipynb")
    assert str(error.value) == (
        "a.ipynb stopped with ValueError: The folder is empty. The whole of it is in "
        "copies/a.ipynb."
    )
    first, second = nbformat.read(home / "copies" / "a.ipynb", 4).cells
    assert first.outputs[0].data["text/plain"] == "2"
    assert second.outputs[0].output_type == "error"


def test_the_command_prints_that_sentence(monkeypatch, capsys):
    def fail(*arguments, **options):
        raise notebooks.NotebookError("01.ipynb stopped.")

    monkeypatch.setattr(notebooks, "run_all", fail)
    assert main(["notebooks", "digits-lt"]) == 1
    assert capsys.readouterr().err == "ltkd: 01.ipynb stopped.\n"


def test_a_kernel_that_dies_is_one_sentence(tmp_path, home):
    source = write(tmp_path / "a.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(
        notebooks.NotebookError,
        match=r"kernel of a\.ipynb died, probably because the memory is full",
    ):
        notebooks.execute(source, home / "a.ipynb")
