"""What goes wrong outside the program: two at once, a full disk, no memory, a pressed Ctrl-C."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ltkd import datasets, files, runs
from ltkd.__main__ import main
from ltkd.experiments import Experiment
from ltkd.files import Busy, claimed, out_of_memory
from ltkd.training import TrainingError

HOLDER = """
import sys
from pathlib import Path
from ltkd.files import claimed
with claimed(Path(sys.argv[1]), "The test"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(path: Path):
    """A process that holds the claim on `path` until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def equal(first: dict, second: dict) -> bool:
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


class TestTwoAtOnce:
    def test_the_second_says_so_and_stops(self, home, capsys):
        folder = home / "saved_model" / "digits-lt-epochs1"
        with another_process(folder / "teacher"):
            for role in ("teacher", "student"):  # a student needs the teacher first
                assert main([role, "digits-lt", "--epochs", "1"]) == 1
                said = capsys.readouterr().err
                assert said == (
                    "ltkd: The training of the teacher of digits-lt-epochs1 is under way in "
                    "another process: wait for it, or stop it.\n"
                )
            assert names(folder) == {".teacher.lock"}
        assert main(["teacher", "digits-lt", "--epochs", "1"]) == 0

    def test_a_finished_model_needs_no_claim(self, digits, quick):
        runs.train(quick, digits, "teacher")
        with claimed(quick.model_folder / "teacher", "The test"):
            assert runs.train(quick, digits, "teacher")

    def test_a_student_may_train_beside_another(self, digits, quick):
        runs.train(quick, digits, "teacher")
        with another_process(quick.model_folder / "student"):
            runs.train(replace(quick, distillation="kd"), digits, "student")
            with pytest.raises(Busy, match="student of digits-lt-epochs1 is under way"):
                runs.train(quick, digits, "student")

    def test_what_a_killed_process_left_is_no_hindrance_and_is_removed(self, digits, quick):
        folder = quick.model_folder
        with another_process(folder / "teacher") as process:
            (folder / ".teacher_training.pth.abc.part").write_text("half")
            (folder / ".student_model.pth.abc.part").write_text("of the student, still running")
            process.send_signal(signal.SIGKILL)
            process.wait()
        runs.train(quick, digits, "teacher")
        assert names(folder) == {"teacher_model.pth", ".student_model.pth.abc.part"}

    def test_a_second_build_waits_for_the_first(self, quick, home, capsys, monkeypatch):
        file = quick.built_file
        read, built = datasets._cut_and_read, []
        monkeypatch.setattr(
            datasets, "_cut_and_read", lambda experiment: built.append(1) or read(experiment)
        )
        with another_process(file) as process:
            (file.parent / f".{file.name}.abc.part").write_text("half")
            # as soon as this one says that it waits, the other ends
            monkeypatch.setattr(
                files, "print", lambda *said, **_: process.stdin.close(), raising=False
            )
            datasets.build(quick)
        assert process.stdin.closed
        assert len(built) == 1
        assert names(file.parent) == {file.name}

    def test_what_the_first_has_built_is_not_built_again(self, digits, quick, monkeypatch):
        file = quick.built_file
        datasets.build(quick)
        done = file.read_bytes()
        file.unlink()
        with another_process(file) as process:

            def finish(*said, **_):
                file.write_bytes(done)
                process.stdin.close()

            monkeypatch.setattr(files, "print", finish, raising=False)
            monkeypatch.setattr(datasets, "_cut_and_read", None)  # cannot be called
            assert datasets.build(quick).counts.tolist() == digits.counts.tolist()

    def test_an_error_frees_the_claim(self, tmp_path):
        with pytest.raises(KeyError), claimed(tmp_path / "x", "The test"):
            raise KeyError
        with claimed(tmp_path / "x", "The test"):
            pass
        assert names(tmp_path) == set()


@contextmanager
def small_files_only(limit: int):
    """The system lets this process write no file beyond `limit` bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFullDisk:
    def test_a_training_state_that_does_not_fit(self, digits, shorten, tmp_path, monkeypatch):
        experiment = shorten(Experiment.named("digits-lt"), 2)
        whole = runs.train(experiment, digits, "teacher")[0].state_dict()
        monkeypatch.setenv("LTKD_HOME", str(tmp_path))
        trainer = runs.trainer_for(experiment, digits, "teacher")
        save = trainer._save

        def save_on_a_disk_that_fills():
            with small_files_only(2**30 if len(trainer.history) == 1 else 100_000):
                save()

        trainer._save = save_on_a_disk_that_fills
        with pytest.raises(OSError, match=r"^Could not write .*teacher_training\.pth: .* has room"):
            trainer.fit()
        assert names(experiment.model_folder) == {"teacher_training.pth"}
        state = torch.load(trainer.state_file, weights_only=True)
        assert len(state["history"]) == 1
        assert equal(runs.train(experiment, digits, "teacher")[0].state_dict(), whole)

    def test_a_model_that_does_not_fit(self, digits, quick, monkeypatch, capsys):
        save = runs.save_checkpoint

        def save_on_a_full_disk(*arguments):
            with small_files_only(1000):
                save(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(runs, "save_checkpoint", save_on_a_full_disk)
            with pytest.raises(OSError, match=r"^Could not write .*teacher_model\.pth: "):
                runs.train(quick, digits, "teacher")
        assert names(quick.model_folder) == {"teacher_training.pth"}
        runs.train(quick, digits, "teacher")
        assert "Resumed the teacher after epoch 1." in capsys.readouterr().out

    def test_a_data_set_that_does_not_fit(self, quick):
        with small_files_only(1000), pytest.raises(OSError, match=r"^Could not write .* has room"):
            datasets.build(quick)
        assert names(quick.built_file.parent) == set()


@contextmanager
def read_only(folder: Path):
    """The folder cannot be written, not even by root, who steps aside for a while."""
    folder.chmod(0o555)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="a folder's mode means little there")
def test_a_saved_model_that_cannot_be_written(digits, quick, monkeypatch):
    home = Path(tempfile.mkdtemp(prefix="ltkd-home-"))  # pytest's own are closed to other users
    home.chmod(0o755)
    try:
        monkeypatch.setenv("LTKD_HOME", str(home))
        runs.train(quick, digits, "teacher")
        before = names(quick.model_folder)
        with read_only(quick.model_folder):
            runs.train(quick, digits, "teacher")  # finished models are loaded
            with pytest.raises(OSError, match=r"^Could not write .*student: Permission denied\."):
                runs.train(quick, digits, "student")
        assert names(quick.model_folder) == before
        with read_only(home / "saved_model"), pytest.raises(OSError, match=r"^Could not write "):
            runs.train(replace(quick, seed=1), digits, "teacher")
    finally:
        shutil.rmtree(home)


class TestMemory:
    def use_up(self, batch, patches, step):
        torch.empty(2**50, dtype=torch.uint8)

    def test_what_to_lower(self, home, monkeypatch, capsys):
        monkeypatch.setattr(runs, "objective_for", lambda *arguments: self.use_up)
        assert main(["teacher", "digits-lt"]) == 1
        assert capsys.readouterr().err == (
            "ltkd: The memory is used up: lower the schedule's batch_size (now 64), or image_size "
            "(32) or width (teacher 16, student 16). What was saved before is kept.\n"
        )

    def test_other_errors_are_not_taken_for_it(self, digits, quick, monkeypatch):
        def wrong(*arguments):
            raise RuntimeError("sizes differ")

        monkeypatch.setattr(runs, "objective_for", lambda *arguments: wrong)
        with pytest.raises(RuntimeError, match="sizes differ"):
            runs.train(quick, digits, "teacher")

    def test_numpys_and_the_gpus_errors_are_known(self):
        with pytest.raises(MemoryError) as error:
            np.empty(2**50, np.uint8)
        assert out_of_memory(error.value)
        assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
        assert not out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("where", ["loss", "weights"])
def test_a_loss_that_is_no_number_keeps_the_last_good_state(
    where, digits, shorten, monkeypatch, capsys
):
    """Five batches an epoch. In the last step of an epoch only the weights can tell."""
    experiment = shorten(Experiment.named("digits-lt"), 3)
    objective_for = runs.objective_for

    def spoilt(*arguments):
        objective = objective_for(*arguments)

        def spoil(batch, patches, step):
            terms = objective(batch, patches, step)
            if where == "loss" and (step.epoch, step.index) == (1, 2):
                terms["class"] = terms["class"] * float("nan")
            if where == "weights" and (step.epoch, step.index) == (1, 4):
                terms["class"] = terms["class"] + (patches.sum() * 0).sqrt()  # slope 0 · ∞
            return terms

        return spoil

    with monkeypatch.context() as patch:
        patch.setattr(runs, "objective_for", spoilt)
        said = {
            "loss": r"teacher's loss is no longer a number at step 3 of 5 in epoch 2: lower the",
            "weights": r"teacher's weights are no longer a number at step 5 of 5 in epoch 2",
        }
        with pytest.raises(TrainingError, match=said[where] + r".* The state after epoch 1 is kep"):
            runs.train(experiment, digits, "teacher")
    assert names(experiment.model_folder) == {"teacher_training.pth"}
    runs.train(experiment, digits, "teacher")
    assert "Resumed the teacher after epoch 1." in capsys.readouterr().out


ENDLESS = """
from ltkd import datasets, runs
from ltkd.experiments import Experiment
experiment = Experiment.choose("digits-lt", epochs=1_000_000)
data = datasets.build(experiment)
runs.train(experiment, data, "teacher")
"""


def test_ctrl_c_in_a_notebook_keeps_the_kernel_and_the_state(home):
    from jupyter_client.manager import start_new_kernel

    folder = home / "saved_model" / "digits-lt-epochs1000000"
    manager, client = start_new_kernel(kernel_name="python3")
    printed = []

    def run(code, interrupt_at=None):
        """Execute a cell, interrupted when the state is newer than `interrupt_at`."""
        request = client.execute(code)
        end = time.monotonic() + 120
        while interrupt_at is not None:
            assert time.monotonic() < end, "no state was saved"
            with suppress(FileNotFoundError):
                if (folder / "teacher_training.pth").stat().st_mtime_ns > interrupt_at:
                    manager.interrupt_kernel()
                    break
            time.sleep(0.05)
        reply = client.get_shell_msg(timeout=60)
        while reply["parent_header"].get("msg_id") != request:
            reply = client.get_shell_msg(timeout=60)
        while True:
            message = client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == request:
                printed.append(message["content"].get("text", ""))
                if message["content"].get("execution_state") == "idle":
                    return reply["content"]

    try:
        assert run(ENDLESS, interrupt_at=0)["ename"] == "KeyboardInterrupt"
        assert names(folder) == {"teacher_training.pth"}  # no lock, nothing half-written
        before = (folder / "teacher_training.pth").stat().st_mtime_ns
        again = "runs.train(experiment, data, 'teacher')"  # the same kernel, its names still there
        assert run(again, interrupt_at=before)["ename"] == "KeyboardInterrupt"
        assert "Resumed the teacher after epoch" in "".join(printed)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
