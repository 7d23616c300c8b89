"""What all tests share: a home that is not the repository, small data, small files."""

import gc
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nbval.kernel import RunningKernel
from PIL import Image

from ltkd.datasets import LongTailedData, Split, build
from ltkd.experiments import ROLES, Experiment
from ltkd.options import OPTIONS
from ltkd.places import PROJECT

SLOWEST = ("test_browser.py", "test_processes.py")  # and the notebooks
CHOICES = ("EXPERIMENT", *(option.upper() for option in OPTIONS))


def pytest_configure(config):
    """Notebook kernels inherit this environment, so that they never write to the repository."""
    for choice in CHOICES:
        os.environ.pop(f"LTKD_{choice}", None)
    config.ltkd_home = tempfile.mkdtemp(prefix="ltkd-tests-")
    _take_fresh_models(Path(config.ltkd_home))
    os.environ["LTKD_HOME"] = config.ltkd_home
    os.environ["TQDM_DISABLE"] = "1"
    if "COVERAGE_PROCESS_CONFIG" in os.environ:  # a killed kernel tells nothing of what it ran
        RunningKernel.stop = _end_gently
    if hasattr(config, "workerinput"):  # one of two processes: a kernel takes one core, too
        os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)  # small networks gain nothing from more, and lose on a busy machine
    gc.set_threshold(700, 10, 1000)  # as in ltkd.__main__: what is imported stays


def _take_fresh_models(home: Path) -> None:
    """The digits' models of `make notebooks`, where no module has been changed since.

    So nbval need not train them again, which is most of its time.
    """
    changed = max(file.stat().st_mtime for file in (PROJECT / "ltkd").glob("*.py"))
    for file in (PROJECT / "saved_model").glob("digits-lt*/*_model.pth"):
        if file.stat().st_mtime > changed:
            copy = home / file.relative_to(PROJECT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def pytest_collection_modifyitems(items):
    """What takes minutes comes first, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.path.name not in SLOWEST and item.path.suffix != ".ipynb")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Whole files to a process, and all notebooks to one: they train their common models once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # by their number of tests; SLOWEST says it better

    class NotebooksTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "notebooks" if file.endswith(".ipynb") else file

    return NotebooksTogether(config, log)


def _end_gently(kernel: RunningKernel) -> None:
    """In place of nbval's own way to end a kernel."""
    kernel.km.shutdown_kernel()
    kernel.kc.stop_channels()


def pytest_unconfigure(config):
    shutil.rmtree(config.ltkd_home, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(request, tmp_path_factory, monkeypatch) -> Path:
    """An empty home for each test, and no choice from outside; real data where it is asked for."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("LTKD_HOME", str(folder))
    for choice in CHOICES:
        monkeypatch.delenv(f"LTKD_{choice}", raising=False)
    if "realdata" not in request.keywords:
        monkeypatch.delenv("LTKD_DATA", raising=False)
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A home with the embedded data set, built once: copied, it spares other processes that."""
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", str(folder))
        build(Experiment.named("digits-lt"))
    return folder


@pytest.fixture(scope="session")
def digits(built) -> LongTailedData:
    """The embedded data set. Read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", str(built))
        return build(Experiment.named("digits-lt"))


@pytest.fixture
def quick() -> Experiment:
    """The embedded experiment with one epoch."""
    return _shortened(Experiment.named("digits-lt"), 1)


@pytest.fixture
def narrow() -> Experiment:
    """`quick` with networks of half the width, for what trains often."""
    return _narrow()


@pytest.fixture
def shorten():
    """A function: (experiment, epochs, other changes to its schedule) → the changed experiment."""
    return _shortened


@pytest.fixture
def write_classes():
    """A function: (folder, {class name: number of images}) → the paths, class by class."""
    return _write_classes


@pytest.fixture
def swapped():
    """A function: (data) → the same counts, but a training image and a test image of one class in
    each other's place."""
    return _swapped


@pytest.fixture
def models(digits, quick):
    """Two different model files with random weights, and the predefined images."""
    from panels import METRICS  # only where it is used: the widgets take seconds to import

    from ltkd.checkpoints import save_checkpoint
    from ltkd.gallery import save_predefined_images
    from ltkd.initial import new_network

    for role in ROLES:
        network = new_network(quick, digits, role).eval()
        save_checkpoint(quick.model_file(role), network, digits, quick, role, METRICS, [])
    save_predefined_images(quick, digits)


@pytest.fixture(scope="session")
def trained_once(digits, tmp_path_factory) -> Path:
    """A home with teacher and student of `narrow`. Read only."""
    from ltkd.runs import train

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", str(folder))
        train(_narrow(), digits, "student")
    return folder


@pytest.fixture
def trained(trained_once, home, narrow) -> Experiment:
    """`narrow`, with copies of its trained models."""
    shutil.copytree(trained_once / "saved_model", home / "saved_model")
    return narrow


@pytest.fixture
def panel(models, quick):
    from ltkd.panel import Panel

    return Panel(quick)


@pytest.fixture(scope="session")
def evaluated_once(built, digits, tmp_path_factory) -> Path:
    """A home with a teacher that always says 0, a student that always says 9, and their results.

    Read only.
    """
    from panels import METRICS

    from ltkd.checkpoints import save_checkpoint
    from ltkd.initial import new_network
    from ltkd.results import results

    quick = _shortened(Experiment.named("digits-lt"), 1)
    folder = shutil.copytree(built, tmp_path_factory.mktemp("rated"), dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTKD_HOME", str(folder))
        for role, favourite in zip(ROLES, (0, 9), strict=True):
            network = new_network(quick, digits, role).eval()
            network.classifier.bias.data[favourite] += 100
            save_checkpoint(quick.model_file(role), network, digits, quick, role, METRICS, [])
        results(quick, digits)
    return folder


@pytest.fixture
def pair(evaluated_once, home, quick):
    """The two evaluated models, and the built data set."""
    from ltkd.classifier import ModelPair

    shutil.copytree(evaluated_once, home, dirs_exist_ok=True)
    return ModelPair.of(quick)


@pytest.fixture
def evaluated(pair, digits, quick):
    """A panel of the two evaluated models, with predefined images."""
    from ltkd.gallery import save_predefined_images
    from ltkd.panel import Panel

    save_predefined_images(quick, digits)
    return Panel(quick)


def _narrow() -> Experiment:
    return _shortened(replace(Experiment.named("digits-lt"), width=8, teacher_width=8), 1)


def _shortened(experiment: Experiment, epochs: int, **schedule) -> Experiment:
    plan = replace(experiment.schedule, epochs=epochs, **schedule)
    return replace(experiment, schedule=plan)


def _swapped(data: LongTailedData) -> LongTailedData:
    train, test = (Split(*(field.copy() for field in part)) for part in (data.train, data.test))
    row = int(np.flatnonzero(test.labels == train.labels[0])[0])
    for ours, theirs in zip(train, test, strict=True):
        ours[0], theirs[row] = theirs[row].copy(), ours[0].copy()
    return replace(data, train=train, test=test)


def _write_classes(folder: Path, sizes: dict[str, int], side: int = 8) -> list[Path]:
    random, paths = np.random.default_rng(0), []
    for name, number in sizes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            path = folder / name / f"{Path(name).name}-{i}.png"
            pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            paths.append(path)
    return paths
