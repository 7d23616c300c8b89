"""Several processes on the CPU: the same result as one, one writer, and an orderly end."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from torch import nn

from ltkd import processes, runs
from ltkd.datasets import build
from ltkd.experiments import Experiment
from ltkd.initial import check_networks, new_network
from ltkd.notebooks import execute

PROGRAM = Path(__file__).with_name("first_steps.py")
PATIENCE = 240  # seconds; a start takes about ten on two cores


@contextmanager
def started(number: int, *words, home: Path) -> Iterator[subprocess.Popen]:
    """Start words by torchrun with so many processes; one needs no torchrun. At the end of the
    block all have ended."""
    environment = os.environ | {"LTKD_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable]
    if number > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(number)]
        command += ["--master-port", "0"]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    with subprocess.Popen(
        [*command, *map(str, words)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as run:  # fmt: skip
        try:
            yield run
        finally:
            for process in [*children(run), run]:
                with suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.kill()


def children(run: subprocess.Popen) -> list[psutil.Process]:
    """The processes that a running one has started; none of one that has ended."""
    try:
        return psutil.Process(run.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture(scope="module")
def both(built, tmp_path_factory) -> list[dict]:
    """What one process and what two found."""
    found = []
    for number in 1, 2:
        home = tmp_path_factory.mktemp(f"processes{number}")
        shutil.copytree(built, home, dirs_exist_ok=True)
        with started(number, PROGRAM, home / "found.pt", home=home) as run:
            output, _ = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, output[-3000:]
        found.append(torch.load(home / "found.pt", weights_only=True))
    return found


CELL = """
from ltkd.datasets import build
from ltkd.experiments import Experiment
from ltkd.runs import train_on
experiment = Experiment.choose("digits-lt", epochs=1)
train_on(2, experiment, build(experiment), "teacher")[1]["metrics"]["processes"]
"""


def test_a_notebook_trains_on_two_processes(tmp_path, home, built):
    shutil.copytree(built, home, dirs_exist_ok=True)
    file = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)]), file)
    execute(file, file)
    (cell,) = nbformat.read(file, 4).cells
    assert cell.outputs[-1].data["text/plain"] == "2"


def test_two_processes_give_the_losses_of_one(both):
    one, two = both
    assert [one["processes"], two["processes"]] == [1, 2]
    cases = [key for key in one if isinstance(key, tuple)]
    assert [role for role, _ in cases].count("student") == 6 and len(cases) == 9
    for case in cases:
        for step, (a, b) in enumerate(zip(one[case], two[case], strict=True)):
            assert a.keys() == b.keys()
            assert b == pytest.approx(a, rel=2e-4, abs=1e-6), (case, step)


def test_two_processes_learn_the_same_weights(both):
    one, two = (found["weights"] for found in both)
    assert one.keys() == two.keys()  # BatchNorm's running statistics are among them
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=1e-4, atol=1e-5), name


def test_every_test_image_counts_once(both):
    for found in both:
        assert sum(map(sum, found["scores"]["confusion"])) == 640
    assert both[0]["scores"]["all"] == pytest.approx(both[1]["scores"]["all"], abs=0.5)


def test_one_process_is_left_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert type(processes.share_batch_norm(network)[1]) is nn.BatchNorm2d
    value = torch.ones(2, requires_grad=True)
    assert processes.mean(value) is value
    assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
    assert processes.gather([1, 2]) == [[1, 2]]


def test_batch_norm_is_that_of_torch(monkeypatch):
    """Its formulas, held against nn.BatchNorm2d with a sum over one process."""
    torch.manual_seed(0)
    plain, own = nn.BatchNorm2d(3).double(), processes.BatchNorm(3).double()
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes.dist, "all_reduce", lambda value: value.mul_(2))
    images = torch.randn(8, 3, 5, 5, dtype=torch.float64)
    outputs, gradients = [], []
    for norm, batch in (plain, torch.cat([images, images])), (own, images):
        batch.requires_grad_()
        outputs.append(norm(batch))
        outputs[-1].pow(3).sum().backward()
        gradients.append(batch.grad)
    assert torch.allclose(outputs[0][:8], outputs[1])
    assert torch.allclose(gradients[0][:8], gradients[1]) and gradients[1].abs().max() > 0.01
    for name in "running_mean", "running_var", "num_batches_tracked":
        assert torch.allclose(getattr(plain, name), getattr(own, name)), name
    own.eval(), plain.eval()
    assert torch.allclose(own(images), plain(images))


def test_what_says_that_another_process_has_ended(monkeypatch):
    ended = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:5")
    assert not processes.lost(ended)  # one process has no other to lose
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert processes.lost(ended) and processes.lost(processes.dist.DistBackendError("NCCL"))
    assert not processes.lost(RuntimeError("shapes cannot be multiplied (2x3 and 4x5)"))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 processes were started and 2 GPUs are here"):
        processes.start()


def test_a_network_is_made_without_waking_a_gpu(monkeypatch, digits, quick):
    """A process whose GPU has started cannot start others for it."""

    def started(*_):
        raise AssertionError("a GPU was started")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", started)
    assert new_network(quick, digits, "teacher")
    check_networks(quick)


def test_a_killed_process_ends_the_run_and_the_next_goes_on(home, capsys, monkeypatch):
    experiment = Experiment.choose("digits-lt", epochs=400)
    state = runs.state_file(experiment, "teacher")
    with started(2, "-m", "ltkd", "teacher", "digits-lt", "--epochs", "400", home=home) as run:
        wait_for(state.exists, run)
        psutil.Process(run.pid).children()[-1].kill()
        output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode != 0
    assert "2 processes" in output and output.count("Training the teacher") == 1
    assert "he same command goes on" in output, output
    assert torch.load(state, weights_only=True)["history"]
    assert not list(state.parent.glob("*.part"))
    monkeypatch.setattr(runs.Trainer, "_epoch", None)  # one process takes up what two left
    with pytest.raises(TypeError):
        runs.train(experiment, build(experiment), "teacher")
    assert "Resumed the teacher after epoch" in capsys.readouterr().out


def wait_for(condition, run: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if run.poll() is not None or time.monotonic() > end:
            run.terminate()
            pytest.fail(run.communicate(timeout=PATIENCE)[0][-3000:])
        time.sleep(0.1)
