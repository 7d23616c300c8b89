"""Faults on purpose, too long for every test run: python tests/drills.py NAME; see DRILLS below.

tests/README.md has the results. Nothing of the project or of the user's is touched: every drill has
a home of its own.
"""

import ctypes
import os
import random
import resource
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import accelerate  # noqa: F401
import numpy as np
import torch
import torchvision  # noqa: F401

from ltkd import runs  # noqa: F401
from ltkd.__main__ import main

torch.set_num_threads(1)  # threads do not survive a fork
ROLES = ("teacher", "student")


def start(home: Path, job: str = "student", *options: str) -> int:
    """`python -m ltkd` in a fork of this process, which has imported torch already."""
    child = os.fork()
    if not child:
        with (home.parent / f"{home.name}.log").open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.environ["LTKD_HOME"] = str(home)
        code = main([job, "digits-lt", "--epochs", "2", *options])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return child


def end(child: int, home: Path) -> tuple[int, str]:
    """The exit code, negative for a signal, and what was printed."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, (home.parent / f"{home.name}.log").read_text()


def finish(home: Path, *arguments: str) -> tuple[int, str]:
    return end(start(home, *arguments), home)


def content(home: Path) -> dict:
    """The built arrays and both models' weights, and the names of all files."""
    arrays = {}
    with np.load(home / "data/built/digits-lt.npz") as built:
        arrays |= {name: torch.from_numpy(built[name]) for name in built.files if "image" in name}
    for role in ROLES:
        file = home / f"saved_model/digits-lt-epochs2/{role}_model.pth"
        weights = torch.load(file, weights_only=True)["weights"]
        arrays |= {f"{role} {name}": value for name, value in weights.items()}
    files = sorted(str(f.relative_to(home)) for f in home.rglob("*") if f.is_file())
    return arrays | {"files": files}


def same(first: dict, second: dict) -> bool:
    files = first.pop("files"), second.pop("files")
    first["files"], second["files"] = files
    arrays = [k for k in first if k != "files"]
    return files[0] == files[1] and all(torch.equal(first[k], second[k]) for k in arrays)


def kill(moments: int = 20, seed: int = 0) -> None:
    """SIGKILL at random moments of build, teacher and student; the same command then ends alike."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        undisturbed.mkdir()
        begun = time.perf_counter()
        assert finish(undisturbed)[0] == 0
        seconds, wanted = time.perf_counter() - begun, content(undisturbed)
        print(f"undisturbed: {seconds:.1f} s; {', '.join(wanted['files'])}")
        for moment in range(moments):
            home = Path(folder) / str(moment)
            home.mkdir()
            child = start(home)
            time.sleep(chance.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            killed = end(child, home)[0] == -signal.SIGKILL
            left = sorted(f.name for f in home.rglob("*") if f.is_file())
            code, said = finish(home)
            resumed = [line for line in said.splitlines() if "Resumed" in line]
            verdict = "same" if code == 0 and same(content(home), wanted) else f"DIFFERENT: {said}"
            if not killed:
                verdict += " (had finished before)"
            print(f"{moment + 1:2}: {verdict}; left {left}; {resumed}", flush=True)


def fuzz(files: int = 20_000) -> None:
    """Spoilt image files through read_image: a picture or an ImageError, in bounded memory."""
    import test_images as images
    from hypothesis import HealthCheck, Phase, given, settings

    seen, outcomes = set(), {"read": 0, "refused": 0}
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=files,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(images.spoilt_files())
    def check(spoilt):
        nonlocal slowest
        start = time.perf_counter()
        outcomes[images.check_spoilt(spoilt)] += 1
        slowest = max(slowest, time.perf_counter() - start)
        seen.add(hash(spoilt))

    check()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{sum(outcomes.values()):,} files, {len(seen):,} different: {outcomes}")
    print(f"slowest {slowest:.2f} s; peak memory {before / 1024:.0f} → {peak / 1024:.0f} MiB")


@contextmanager
def small_disk(size: str):
    """A file system of that size, in memory. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    with tempfile.TemporaryDirectory() as folder:
        if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, f"size={size}".encode()):
            sys.exit(f"no file system could be mounted: {os.strerror(ctypes.get_errno())}")
        try:
            yield (
                Path(folder),
                lambda flags, options: libc.mount(
                    b"tmpfs", folder.encode(), b"tmpfs", flags, options.encode()
                ),
            )
        finally:
            libc.umount(folder.encode())


REMOUNT, READ_ONLY = 32, 1


def disk() -> None:
    """A disk that is full when a training state, or the model, is written."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        assert finish(home)[0] == 0
        wanted = content(home)
    with small_disk("16m") as (home, mount):
        assert finish(home, "build")[0] == 0
        for size in range(20, 4000, 60):  # KiB beside what is there
            used = sum(f.stat().st_size for f in home.rglob("*") if f.is_file())
            mount(REMOUNT, f"size={used // 1024 + size}k")
            code, said = finish(home)
            left = [f.name for f in (home / "saved_model").rglob("*") if f.is_file()]
            print(f"{size} KiB free: {code}, {said.splitlines()[-1]}; there: {left}")
            if code == 0:
                break
        print("same" if same(content(home), wanted) else "DIFFERENT")


def readonly() -> None:
    """A home that can only be read: finished models are used, nothing else is begun."""
    with small_disk("64m") as (home, mount):
        assert finish(home)[0] == 0
        mount(REMOUNT | READ_ONLY, "")
        for job, *options in (("student",), ("teacher", "--seed", "1"), ("evaluate",)):
            code, said = finish(home, job, *options)
            print(f"{job} {' '.join(options)}: {code}, {said.splitlines()[-1]}")


def interrupt(moments: int = 5) -> None:
    """SIGINT (Ctrl-C) and SIGTERM at random moments: one line, no leftovers, and on it goes."""
    chance = random.Random(1)
    for moment in range(moments):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            home.mkdir()
            child = start(home)
            time.sleep(chance.uniform(0.5, 3))
            os.kill(child, signal.SIGINT if moment % 2 else signal.SIGTERM)
            code, said = end(child, home)
            left = sorted(f.name for f in home.rglob("*") if f.is_file())
            print(f"{moment + 1}: {code}, {said.splitlines()[-1:]}; there: {left}", flush=True)


DRILLS = {drill.__name__: drill for drill in (kill, fuzz, disk, readonly, interrupt)}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in DRILLS:
        sys.exit("\n".join(f"{name}: {drill.__doc__}" for name, drill in DRILLS.items()))
    DRILLS[sys.argv[1]](*map(int, sys.argv[2:]))
