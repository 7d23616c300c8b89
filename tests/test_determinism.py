"""The same seed, the same weights bit for bit: in a notebook, on the command line, after a kill."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import torch

from ltkd.notebooks import execute

NAME = "digits-lt-epochs3"
CELL = """
from ltkd.datasets import build
from ltkd.experiments import Experiment
from ltkd.runs import train
experiment = Experiment.choose("digits-lt", epochs=3)
train(experiment, build(experiment), "student")
"""


def in_a_notebook(home: Path) -> None:
    cells = [nbformat.v4.new_code_cell("2 + 2"), nbformat.v4.new_code_cell(CELL)]
    file = home / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    execute(file, file)
    file.unlink()


def command(home: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "ltkd", "student", "digits-lt", "--epochs", "3"]
    return subprocess.Popen(
        words, env=os.environ | {"LTKD_HOME": str(home), "OMP_NUM_THREADS": "1"}
    )


def killed_and_resumed(home: Path) -> None:
    """The teacher is trained at one go, the student in two."""
    state = home / "saved_model" / NAME / "student_training.pth"
    with command(home) as process:
        while process.poll() is None and not state.exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and state.exists()
    with command(home) as process:
        try:
            assert process.wait(120) == 0
        finally:
            process.kill()


def weights(home: Path) -> dict[str, torch.Tensor]:
    found = {}
    for role in ("teacher", "student"):
        content = torch.load(home / "saved_model" / NAME / f"{role}_model.pth", weights_only=True)
        found |= {f"{role} {name}": value for name, value in content["weights"].items()}
    return found


def test_the_same_weights_as_in_a_notebook(built, tmp_path, monkeypatch, capfd):
    there, here = (shutil.copytree(built, tmp_path / name) for name in ("there", "here"))
    monkeypatch.setenv("LTKD_HOME", str(there))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    in_a_notebook(there)
    killed_and_resumed(here)
    assert "Resumed the student after epoch" in capfd.readouterr().out
    wanted, found = weights(there), weights(here)
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    files = {file.name for file in here.rglob("*") if file.is_file()}
    assert files == {"digits-lt.npz", "teacher_model.pth", "student_model.pth"}
