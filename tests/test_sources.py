"""Class folders and the published data sets: what is found, and what is said when it is not."""

import errno
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as published

from ltkd.datasets import build
from ltkd.experiments import Experiment
from ltkd.sources import DataError, load_sources


def on(folder) -> Experiment:
    return replace(Experiment.from_folder(folder), image_size=8)


def refused(experiment: Experiment) -> str:
    """The one sentence that is said instead of data."""
    with pytest.raises(DataError) as error:
        build(experiment)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails at once, without asking the network. Lists what was tried."""
    tried = []

    def fail(self, *arguments, **options):
        tried.append(type(self).__name__)
        raise URLError("no network")

    for dataset in (published.CIFAR10, published.CIFAR100, published.Caltech256):
        monkeypatch.setattr(dataset, "download", fail)
    return tried


def test_class_folders(tmp_path, write_classes):
    write_classes(tmp_path, {"dog": 2, "Cat": 3})
    sources = load_sources(on(tmp_path))
    assert sources.class_names == ["Cat", "dog"]
    assert sources.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert sources.train.ids[-1] == "dog/dog-1.png"
    assert sources.test is None


def test_images_are_the_pixels_of_their_files(tmp_path, write_classes):
    paths = write_classes(tmp_path, {"cat": 4, "dog": 3})
    images, readable = load_sources(on(tmp_path)).train.read(np.array([5, 0]), 8)
    for image, path in zip(images, (paths[5], paths[0]), strict=True):
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(path)))
    assert readable.all()


def test_oblong_images_are_cropped_to_their_centre(tmp_path, write_classes):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, 8:16] = 200
    Image.fromarray(stripes).save(tmp_path / "cat/cat-0.png")
    images, _ = load_sources(on(tmp_path)).train.read(np.array([0]), 8)
    assert (np.asarray(images) == 200).all()


def test_odd_names_nested_folders_and_upper_case(tmp_path, write_classes):
    write_classes(tmp_path, {"日本の猫": 4, "chien brun/deep/er": 4, "Ünï çödé": 4, ".git": 2})
    for path in (tmp_path / "日本の猫").iterdir():
        path.rename(path.with_name(path.stem.upper() + " (1).PNG"))
    (tmp_path / "日本の猫" / "notes.txt").write_text("no image")
    (tmp_path / "日本の猫" / "._hidden.png").write_text("no image")
    (tmp_path / "README.md").write_text("no class")
    data = build(on(tmp_path))
    assert data.class_names == ["chien brun", "Ünï çödé", "日本の猫"]
    assert data.counts.tolist() == [1, 2, 2]  # the first spares one for validation
    assert "chien brun/deep/er" in data.train.sources[0]
    again = build(on(tmp_path))
    assert again.class_names == data.class_names
    assert again.train.sources.tolist() == data.train.sources.tolist()


def test_an_empty_class_folder_is_named(tmp_path, write_classes):
    write_classes(tmp_path, {"cat": 4, "dog": 4, "eel": 0})
    (tmp_path / "eel" / "eel.txt").write_text("no image")
    message = refused(on(tmp_path))
    assert f"{tmp_path / 'eel'} holds no image" in message
    assert "remove the folder" in message


def test_unreadable_images_are_named_counted_and_left_out(tmp_path, write_classes, capsys):
    paths = write_classes(tmp_path, {"cat": 6, "dog": 6})
    paths[1].write_text("no image")
    paths[7].write_bytes(paths[7].read_bytes()[:60])
    data = build(on(tmp_path))
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{paths[1]} is left out: This is not an image")
    assert said[1].startswith(f"{paths[7]} is left out: ")
    assert said[2:] == ["2 of 12 images could not be read and are left out."]
    kept = [s for split in (data.train, data.validation, data.test) for s in split.sources.tolist()]
    assert len(kept) == 10
    assert not {"cat/cat-1.png", "dog/dog-1.png"} & set(kept)
    assert np.bincount(data.test.labels).tolist() == [2, 2]  # of the five sound ones each


def test_broken_images_take_no_place_in_the_test_set(tmp_path, write_classes):
    paths = write_classes(tmp_path, {"cat": 12, "dog": 12})
    for path in paths[2:10]:
        path.write_text("no image")
    data = build(on(tmp_path))
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert np.bincount(data.train.labels).tolist() == [2, 9]


def test_a_class_that_cannot_be_read_at_all(tmp_path, write_classes):
    paths = write_classes(tmp_path, {"cat": 5, "dog": 5})
    for path in paths[:5]:
        path.write_text("no image")
    assert "too few in cat (0)" in refused(on(tmp_path))


def test_train_and_test_folders(tmp_path, write_classes):
    write_classes(tmp_path / "train", {"cat": 4, "dog": 3})
    write_classes(tmp_path / "test", {"cat": 1, "dog": 2})
    data = build(on(tmp_path))
    assert data.counts.tolist() == [3, 3]  # and one cat for validation
    assert data.test.sources.tolist() == [
        f"test/{name}.png" for name in ("cat/cat-0", "dog/dog-0", "dog/dog-1")
    ]


@pytest.mark.parametrize("names", [("Train", "TEST"), ("train", "test")])
def test_train_and_test_in_capitals_and_what_lies_beside(tmp_path, write_classes, names, capsys):
    for name, size in zip(names, (4, 2), strict=True):
        write_classes(tmp_path / name, {"cat": size, "dog": size})
    write_classes(tmp_path / "val", {"cat": 2, "dog": 2})
    data = build(on(tmp_path))
    assert data.class_names == ["cat", "dog"]
    assert len(data.test.labels) == 4 and data.test.sources[0] == f"{names[1]}/cat/cat-0.png"
    assert "has train/ and test/: what else it holds is left out (val)." in capsys.readouterr().out


def test_a_class_may_be_called_train(tmp_path, write_classes):
    write_classes(tmp_path, {"bus": 4, "train": 5})
    assert build(on(tmp_path)).class_names == ["bus", "train"]


def test_train_and_test_with_different_classes(tmp_path, write_classes):
    write_classes(tmp_path / "train", {"cat": 4, "dog": 4})
    write_classes(tmp_path / "test", {"cat": 4, "fox": 4})
    message = refused(on(tmp_path))
    assert "different class folders: dog, fox" in message


def test_a_missing_folder(tmp_path):
    assert f"There is no folder {tmp_path / 'nowhere'}" in refused(on(tmp_path / "nowhere"))


def test_one_class_is_no_class(tmp_path, write_classes):
    write_classes(tmp_path, {"cat": 4})
    wanted = "holds 1 class folders; at least 2 are needed, each with the images of one class"
    assert wanted in refused(on(tmp_path))
    shutil.rmtree(tmp_path / "cat")
    assert "holds 0 class folders" in refused(on(tmp_path))


def test_missing_cifar_says_what_to_fetch_and_where(no_network, home):
    for name, url in (("cifar10", "cifar-10-python"), ("cifar100", "cifar-100-python")):
        message = refused(Experiment.named(f"{name}-lt"))
        assert f"fetch https://www.cs.toronto.edu/~kriz/{url}.tar.gz" in message
        assert f"unpack it in {home / 'data'}" in message
        assert "no network" in message
    assert no_network == ["CIFAR10", "CIFAR100"]


def test_missing_caltech_says_what_to_fetch_and_where(no_network, tmp_path, monkeypatch):
    monkeypatch.setenv("LTKD_DATA", str(tmp_path / "mine"))
    message = refused(Experiment.named("caltech256-lt"))
    assert "fetch 256_ObjectCategories.tar from https://data.caltech.edu" in message
    assert str(tmp_path / "mine") in message
    assert no_network == ["Caltech256"]


def test_missing_cars_say_what_to_fetch_and_where(home):
    message = refused(Experiment.named("stanford-cars-lt"))
    assert str(home / "data") in message
    assert "stanford_cars/ with cars_train/, cars_test/, devkit/" in message


def test_cars_with_files_missing(home):
    (home / "data/stanford_cars/devkit").mkdir(parents=True)
    message = refused(Experiment.named("stanford-cars-lt"))
    assert f"{home / 'data/stanford_cars'} is damaged or incomplete" in message


@pytest.mark.parametrize(
    "name, folder, kind",
    [
        ("cifar10-lt", "cifar-10-batches-py", "CIFAR10"),
        ("stanford-cars-lt", "stanford_cars", "StanfordCars"),
    ],
)
def test_files_that_cannot_be_read_now_are_not_called_damaged(
    home, monkeypatch, name, folder, kind
):
    def closed(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    (home / "data" / folder).mkdir(parents=True)
    closed.base_folder = folder
    monkeypatch.setattr(published, kind, closed)
    message = refused(Experiment.named(name))
    assert f"{home / 'data' / folder} cannot be read now" in message and "delete" not in message


@pytest.mark.parametrize("content", [b"", b"\x80\x04truncated"])
def test_a_truncated_cifar_file(home, content):
    folder = home / "data/cifar-100-python"
    folder.mkdir(parents=True)
    for name in ("train", "test", "meta"):
        (folder / name).write_bytes(content)
    message = refused(Experiment.named("cifar100-lt-quick"))
    assert f"The files in {folder} are damaged or incomplete" in message
    assert "cifar-100-python.tar.gz" in message


def test_the_publishers_files_of_cifar_hold_train_and_test_images_apart(home, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *file: True)
    folder = home / "data/cifar-100-python"
    folder.mkdir(parents=True)
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "bear"]}))
    for name, value in (("train", 1), ("test", 2)):
        pixels = np.full((2, 3072), value, np.uint8)
        pixels[1, 1024:2048] = 9  # green
        batch = {"data": pixels, "fine_labels": [value - 1, 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    sources = load_sources(Experiment.named("cifar100-lt-quick"))
    for source, value in ((sources.train, 1), (sources.test, 2)):
        images, readable = source.read(np.array([1, 0]), 32)
        assert readable.all()
        assert (images[1] == value).all()
        assert [images[0, c].mean() for c in range(3)] == [value, 9, value]
        assert source.labels.tolist() == [value - 1, 1]
        larger, _ = source.read(np.array([0]), 64)
        assert larger.shape == (1, 3, 64, 64) and larger.dtype == np.uint8
        assert (larger == value).all()


def number_files(folder: Path, labels: np.ndarray) -> None:
    """folder/<class>/<place in the publisher's order>.png, grey as bright as the place."""
    for place, label in enumerate(labels):
        path = folder / "abc"[label] / f"{place:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), place).save(path)


def test_cifar_as_class_folders_keeps_the_official_order(tmp_path, monkeypatch):
    monkeypatch.setenv("LTKD_DATA", str(tmp_path))
    labels = np.random.default_rng(0).integers(0, 3, 50)
    number_files(tmp_path / "cifar10/train", labels)
    number_files(tmp_path / "cifar10/test", labels[::-1])
    sources = load_sources(Experiment.named("cifar10-lt-quick"))
    assert sources.train.labels.tolist() == labels.tolist()
    assert sources.test.labels.tolist() == labels[::-1].tolist()
    assert sources.train.ids.tolist() == list(range(50))
    images, _ = sources.train.read(np.array([41, 3]), 8)
    assert images[:, 0, 0, 0].tolist() == [41, 3]


def test_an_incomplete_cifar_misses_the_published_total(tmp_path, monkeypatch):
    monkeypatch.setenv("LTKD_DATA", str(tmp_path))
    labels = np.repeat([0, 1, 2], 60)
    number_files(tmp_path / "cifar10/train", labels)
    number_files(tmp_path / "cifar10/test", labels)
    experiment = replace(Experiment.named("cifar10-lt-quick"), imbalance_factor=10)
    assert "where the published one has 20431" in refused(experiment)
