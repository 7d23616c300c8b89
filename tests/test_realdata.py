"""The real data sets, found under LTKD_DATA: pytest -m realdata"""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltkd.checkpoints import load_checkpoint
from ltkd.datasets import LongTailedData, build
from ltkd.evaluation import evaluate_network
from ltkd.experiments import ROLES, Experiment
from ltkd.longtail import cut, long_tailed_counts
from ltkd.places import PROJECT
from ltkd.provenance import machine
from ltkd.selection import save_split
from ltkd.sources import load_sources
from ltkd.splits import find_split

pytestmark = pytest.mark.realdata


def experiment_on(name: str, folder: str, **changes) -> Experiment:
    """The named experiment, where its data are at hand; else the test is skipped."""
    given = os.environ.get("LTKD_DATA")
    if not given:
        pytest.skip("LTKD_DATA is not set: it names the folder that holds the real data sets.")
    if not (Path(given) / folder).is_dir():
        pytest.skip(f"LTKD_DATA ({given}) holds no {folder}/.")
    return replace(Experiment.named(name), **changes)


def published_cut(targets: list[int], factor: float, seed: int) -> list[int]:
    """The `exp` cut of LDAM-DRW's imbalance_cifar.py, written down once more."""
    targets = np.array(targets, dtype=np.int64)
    classes = np.unique(targets)
    img_max = len(targets) / len(classes)
    before, kept = np.random.get_state(), []
    np.random.seed(seed)
    for i, the_class in enumerate(classes):
        the_count = int(img_max * (1.0 / factor) ** (i / (len(classes) - 1.0)))
        idx = np.where(targets == the_class)[0]
        np.random.shuffle(idx)
        kept.extend(idx[:the_count].tolist())
    np.random.set_state(before)
    return kept


def check_splits(data: LongTailedData) -> None:
    """No image stands in both train and validation, and validation is small."""
    train, validation = set(data.train.sources.tolist()), set(data.validation.sources.tolist())
    assert len(train) == len(data.train.labels)
    assert not train & validation
    held = np.bincount(data.validation.labels, minlength=len(data.class_names))
    assert held.max() <= 50


@pytest.fixture(scope="module")
def cifar100_targets() -> list[int]:
    """The official training labels, read by torchvision."""
    from torchvision.datasets import CIFAR100

    experiment_on("cifar100-lt", "cifar-100-python")
    return CIFAR100(os.environ["LTKD_DATA"]).targets


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize(("factor", "total"), [(10, 19_573), (50, 12_608), (100, 10_847)])
def test_cifar100_is_cut_as_published(cifar100_targets, factor, total, seed):
    train = load_sources(experiment_on("cifar100-lt", "cifar-100-python")).train
    assert train.labels.tolist() == cifar100_targets
    counts = long_tailed_counts(np.bincount(train.labels), "exponential", factor)
    kept = cut(train.labels, counts, seed)
    assert len(kept) == total
    assert train.ids[kept].tolist() == published_cut(cifar100_targets, factor, seed)


def test_cifar100_as_it_is_built(cifar100_targets):
    from torchvision.datasets import CIFAR100

    data = build(experiment_on("cifar100-lt", "cifar-100-python", split_seed=7))
    official, labels = CIFAR100(os.environ["LTKD_DATA"]), np.array(cifar100_targets)
    assert data.class_names == official.classes
    assert data.train.sources.tolist() == published_cut(cifar100_targets, 100, 7)
    pixels = official.data[data.train.sources]
    assert np.array_equal(data.train.images, pixels.transpose(0, 3, 1, 2))
    held = np.bincount(data.validation.labels, minlength=100)
    assert held[0] == 0  # the largest class has none left over
    assert held.tolist() == np.minimum(50, 500 - data.counts).tolist()
    assert (labels[data.validation.sources] == data.validation.labels).all()
    assert len(data.test.labels) == 10_000
    check_splits(data)


def test_cifar10_as_class_folders():
    experiment = experiment_on("cifar10-lt", "cifar10/train")
    data = build(experiment)
    folder = Path(os.environ["LTKD_DATA"]) / "cifar10" / "train"
    names = sorted(f.name for f in folder.iterdir())
    files = {int(f.stem): f for name in names for f in (folder / name).iterdir()}
    targets = [names.index(files[i].parent.name) for i in range(50_000)]
    assert data.train.sources.tolist() == published_cut(targets, 100, 0)
    assert data.counts.sum() == 12_406
    for row in (0, 6_000, -1):
        pixels = np.asarray(Image.open(files[int(data.train.sources[row])]))
        assert np.array_equal(data.train.images[row].transpose(1, 2, 0), pixels)
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    check_splits(data)


@pytest.mark.parametrize(
    ("name", "folder", "shipped"),
    [
        ("cifar100-lt", "cifar-100-python", "cifar100-lt"),
        ("cifar100-lt", "cifar-100-python", "cifar100-lt-quick"),
        ("cifar10-lt", "cifar10/train", "cifar10-lt"),
        ("cifar10-lt", "cifar10/train", "cifar10-lt-quick"),
        ("stanford-cars-lt", "stanford_cars", "stanford-cars-lt"),
        ("caltech256-lt", "caltech256/256_ObjectCategories", "caltech101-lt"),
    ],
)
def test_shipped_models_give_their_recorded_accuracy(name, folder, shipped):
    data = build(experiment_on(name, folder))
    shipped = PROJECT / "saved_model" / shipped
    recorded = json.loads((shipped / "results.json").read_text())
    if recorded.get("remark", data.remark) != data.remark:
        pytest.skip(f"Other files than those of the results, which say: {recorded['remark']}")
    assert recorded["counts"] == data.counts.tolist()
    device = recorded["machine"]["device"]  # older results say no more than "CPU"
    tolerance = 0.05 if device == machine()["device"] != "CPU" else 0.3
    for role in ROLES:
        network, _ = load_checkpoint(shipped / f"{role}_model.pth")
        found = evaluate_network(network, data.test, data.groups)
        assert found["all"] == pytest.approx(recorded[role]["all"], abs=tolerance)
        for group, accuracy in recorded[role]["groups"].items():
            assert found["groups"][group] == pytest.approx(accuracy, abs=1.0)
        error = recorded[role]["calibration_error"]
        assert found["calibration_error"] == pytest.approx(error, abs=0.005)


def check_photographs(data: LongTailedData, side: int) -> None:
    """Photographs differ from each other and fill the range of a byte."""
    for split in (data.train, data.validation, data.test):
        assert split.images.shape == (len(split.labels), 3, side, side)
        assert split.images.dtype == np.uint8
    images = data.train.images[::37]
    assert len({image.tobytes() for image in images}) > 0.95 * len(images)
    assert 60 < images.mean() < 190
    assert (images.min(), images.max()) == (0, 255)
    assert np.median(images.std((1, 2, 3))) > 30  # no plain squares


@pytest.mark.parametrize("factor", [10, 20, 50])
def test_the_cars_split_that_ships_is_the_cut_of_these_files(factor, tmp_path, monkeypatch):
    """Made again by its command, a split file is the one that ships, byte for byte."""
    experiment = experiment_on("stanford-cars-lt", "stanford_cars", imbalance_factor=factor)
    shipped = find_split(experiment).read_bytes()
    monkeypatch.setenv("LTKD_HOME", str(tmp_path))
    assert save_split(experiment).read_bytes() == shipped


def test_stanford_cars():
    data = build(experiment_on("stanford-cars-lt", "stanford_cars"))
    assert len(data.class_names) == 196
    assert data.counts.min() >= 1
    assert data.counts.max() / data.counts.min() >= 5
    assert np.isin(np.arange(196), data.test.labels).all()
    check_splits(data)
    check_photographs(data, 64)


def test_caltech256(capsys):
    experiment = experiment_on("caltech256-lt", "caltech256/256_ObjectCategories")
    data = build(experiment)
    folder = Path(os.environ["LTKD_DATA"]) / "caltech256/256_ObjectCategories"
    complete = len(list(folder.glob("*/*.jpg"))) == 30_607
    assert ("not the files of Caltech-256" in capsys.readouterr().out) != complete
    classes = len(data.class_names)
    assert np.bincount(data.test.labels).tolist() == [20] * classes
    assert not any("clutter" in name or name[:3].isdecimal() for name in data.class_names)
    train = load_sources(experiment).train
    available = np.bincount(train.labels) - 20
    wanted = long_tailed_counts(available, "exponential", experiment.imbalance_factor)
    by_rank = wanted[np.argsort(-available, kind="stable")]
    assert (np.diff(by_rank) <= 0).all()
    spared = wanted - data.counts  # for validation, since the cut leaves next to nothing
    assert (spared >= 0).all() and (spared <= np.maximum(1, wanted // 10)).all()
    assert (np.bincount(data.validation.labels, minlength=classes)[wanted >= 5] > 0).all()
    assert not set(data.test.sources.tolist()) & set(data.train.sources.tolist())
    check_splits(data)
    check_photographs(data, 64)
