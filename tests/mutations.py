"""Do the tests notice faults? Plants those of mutants.py one at a time and runs the tests.

python tests/mutations.py [FIRST:LAST:STEP]   plants them, or those of these numbers
python tests/mutations.py --new               plants those that are not in the record
python tests/mutations.py --table             prints the record

Run by hand, for an hour or so. Every fault is planted in a copy of the project, never here. The
tests of the faulty module come first, then all others, then the notebooks: the first failure ends
it. The record is tests/mutations.json.
"""

import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest
import torch
from mutants import MUTANTS

torch.set_num_threads(1)  # threads do not survive a fork
ROOT = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_suffix(".json")
ALL = [(module, *fault) for module, faults in MUTANTS.items() for fault in faults]
FURTHER = {  # where a module's own tests are, besides tests/test_<module>.py
    "datasets": ["test_splits", "test_build", "test_class_folders"],
    "sources": ["test_class_folders"],
    "selection": ["test_build", "test_splits", "test_folders", "test_class_folders"],
    "class_folders": ["test_class_folders", "test_sources", "test_folders"],
    "distillation": ["test_patch_weights"],
    "supervision": ["test_objectives", "test_bank", "test_commands", "test_runs"],
    "naming": ["test_experiments"],
    "options": ["test_experiments", "test_commands"],
    "finished": ["test_runs", "test_results", "test_commands"],
    "networks": ["test_runs_members"],
    "runs": ["test_runs_members", "test_initial", "test_commands", "test_faults"],
    "results": ["test_halving"],
    "ablation_plots": ["test_ablation_results"],
    "ablation_rows": ["test_ablation"],
    "files": ["test_faults"],
    "panel": ["test_panel_uploads", "test_panel_models"],
    "answers": ["test_panel", "test_panel_uploads"],
    "overlays": ["test_gallery", "test_panel"],
}
LATE = ("test_browser.py", "test_realdata.py")  # the first slow, the second on data of one's own
ADDRESSES = 16 * 2**30  # bytes, several times what the tests need
MINUTES = 15  # a stage that takes longer has met a fault, too


def preload() -> None:
    """Import what ltkd and the tests import, and forget ltkd: the forks start in no time."""
    sys.path.insert(0, str(ROOT))
    for file in (ROOT / "ltkd").glob("[a-z]*.py"):
        importlib.import_module(f"ltkd.{file.stem}")
    for name in ("hypothesis", "nbval.plugin", "torchvision.datasets", "sklearn.datasets"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ltkd"]:
        del sys.modules[name]
    sys.path.remove(str(ROOT))


def copy_of_project(folder: Path) -> Path:
    ignored = shutil.ignore_patterns(".git", ".venv", ".*_cache", "built", "*.egg-*")
    return shutil.copytree(ROOT, folder / "ltkd", ignore=ignored)


def stages(module: str, copy: Path) -> dict[str, list[str]]:
    """Name of each stage → arguments of pytest."""
    plain = ["-o", "addopts=", "-m", "not realdata"]
    own = [f"tests/{name}.py" for name in (f"test_{module}", *FURTHER.get(module, []))]
    own = [f for f in own if (copy / f).exists()]
    others = [f"tests/{f.name}" for f in sorted((copy / "tests").glob("test_*.py"))]
    others = [f for f in others if f not in own and not f.endswith(LATE)]
    return {
        "its own tests": [*plain, "--doctest-modules", f"ltkd/{module}.py", *own],
        "other tests": [*plain, "--doctest-modules", "ltkd", *others],
        "notebooks": ["notebooks"],
        "browser": [*plain, "tests/test_browser.py"],
    }


def run(arguments: list[str], copy: Path) -> tuple[int, str]:
    """pytest in a fork of this process, which has imported the large libraries already."""
    log = copy.parent / "log"
    child = os.fork()
    if not child:
        try:
            os._exit(_tests(arguments, copy, log))
        except BaseException:
            traceback.print_exc()
            os._exit(4)  # never back into this process's code, which would clean up behind it
    end = time.monotonic() + 60 * MINUTES
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 1, "FAILED by taking too long"
        time.sleep(0.05)
    return os.waitstatus_to_exitcode(done[1]), log.read_text(errors="replace")


def _tests(arguments: list[str], copy: Path, log: Path) -> int:
    with log.open("wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.setsid()
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))  # a fault may ask for all memory
    sys.path.insert(0, str(copy))
    early = "ignore::pytest.PytestAssertRewriteWarning"  # preload has imported plugins already
    return pytest.main(["-x", "-q", "--no-header", "--tb=no", "-W", early, *arguments])


def caught(module: str, copy: Path) -> str | None:
    """The stage that notices the fault, and the test."""
    for stage, arguments in stages(module, copy).items():
        code, said = run(["-p", "no:cacheprovider", *arguments], copy)
        failed = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", said, re.MULTILINE)
        if code == pytest.ExitCode.NO_TESTS_COLLECTED:  # a module without tests of its own
            continue
        if code and not failed:  # pytest itself did not work: that notices nothing
            raise SystemExit(f"{stage} of {module} ended with {code}:\n{said}")
        if code:
            return f"{stage}: {failed[0]}"
    return None


def recorded() -> dict[str, str | None]:
    """Fault → the test that noticed it, None where none did."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def main(numbers: list[int]) -> None:
    preload()
    with tempfile.TemporaryDirectory(prefix="ltkd-mutant-") as folder:
        code, said = run(
            ["--collect-only", "-o", "addopts=", "tests"], copy_of_project(Path(folder))
        )
        if code:
            raise SystemExit(f"The tests cannot be collected as they are:\n{said}")
    for number in numbers:
        module, what, sound, faulty = ALL[number]
        with tempfile.TemporaryDirectory(prefix="ltkd-mutant-") as folder:
            copy = copy_of_project(Path(folder))
            file = copy / "ltkd" / f"{module}.py"
            text = file.read_text()
            if text.count(sound) != 1:
                raise SystemExit(f"{number}: {sound!r} is {text.count(sound)} times in {file.name}")
            file.write_text(text.replace(sound, faulty))
            noticed = caught(module, copy)
        record = recorded() | {f"{module}: {what}": noticed}
        RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        print(f"{number:3} {module}: {what} → {noticed or 'NOT NOTICED'}", flush=True)


def table() -> None:
    record = recorded()
    survivors = [name for name, noticed in record.items() if noticed is None]
    share = 100 * (1 - len(survivors) / len(record))
    print(f"{len(record)} faults, {len(record) - len(survivors)} noticed ({share:.1f} %)")
    for name, noticed in record.items():
        print(f"| {name} | {noticed or '**not noticed**'} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        table()
    elif sys.argv[1:] == ["--new"]:
        main([n for n, fault in enumerate(ALL) if f"{fault[0]}: {fault[1]}" not in recorded()])
    else:
        chosen = slice(*(int(n) if n else None for n in "".join(sys.argv[1:]).split(":")))
        main(list(range(len(ALL)))[chosen])
