"""Notebooks executed from the command line: what is said where a cell fails."""

import nbformat
import pytest

from ltkd import notebooks
from ltkd.__main__ import main


def write(path, *cells):
    found = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(found, path)
    return path


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
