"""Split files: what is written is what is read, and what does not fit is named."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from ltkd import selection, sources
from ltkd.__main__ import main
from ltkd.class_folders import DataError
from ltkd.datasets import build
from ltkd.experiments import Experiment
from ltkd.places import PROJECT
from ltkd.splits import find_split, read_split, split_command, split_file

SHIPPED = [(10, 54), (20, 54), (50, 54)]  # imbalance factor, images of the largest class


def small(name: str, seed: int = 3) -> Experiment:
    """A seed that no split ships for."""
    return replace(Experiment.named(name), image_size=8, split_seed=seed, imbalance_factor=4)


@pytest.fixture
def cars(home) -> Path:
    """A copy of Stanford Cars in the publisher's layout: 3 classes, 24 + 6 images."""
    folder = home / "data" / "stanford_cars"
    random = np.random.default_rng(0)
    for split, number in (("train", 24), ("test", 6)):
        (folder / f"cars_{split}").mkdir(parents=True)
        rows = []
        for i in range(1, number + 1):
            pixels = random.integers(0, 256, (9, 14, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"cars_{split}" / f"{i:05}.jpg")
            rows.append((1, 1, 9, 9, i % 3 + 1, f"{i:05}.jpg"))
        names = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
        table = np.array(rows, [(n, "O") for n in names])
        place = "devkit/cars_train_annos.mat" if split == "train" else None
        (folder / "devkit").mkdir(exist_ok=True)
        scipy.io.savemat(
            folder / (place or "cars_test_annos_withlabels.mat"), {"annotations": table}
        )
    classes = np.array(["Audi TT Hatchback 2011", "BMW M3 Coupe 2012", "Ram C/V"], object)
    scipy.io.savemat(folder / "devkit/cars_meta.mat", {"class_names": classes})
    return folder


@pytest.fixture
def caltech(home) -> Path:
    """A copy of Caltech-256 in the publisher's layout: 2 classes and the clutter."""
    folder = home / "data/caltech256/256_ObjectCategories"
    random = np.random.default_rng(0)
    for number, (name, size) in enumerate([("ak47", 30), ("yo yo-101", 25), ("clutter", 28)], 1):
        label = 257 if name == "clutter" else number
        own = folder / f"{label:03}.{name}"
        own.mkdir(parents=True)
        for i in range(1, size + 1):
            pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(own / f"{label:03}_{i:04}.jpg")
    (folder / "001.ak47" / "RENAME2").write_text("what the publisher's archive has in one folder")
    (folder / "001.ak47/greg/vision309").mkdir(parents=True)
    (folder / "001.ak47/001_0001.jpg").rename(folder / "001.ak47/greg/vision309/001_0001.jpg")
    return folder


def test_cars_are_written_and_read(cars, capsys):
    experiment = small("stanford-cars-lt")
    cut = build(experiment)
    assert main(["split", "stanford-cars-lt", "--split-seed", "3", "--imbalance-factor", "4"]) == 0
    path = split_file(experiment)
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    experiment.built_file.unlink()
    again = build(experiment)
    assert "The split is the one of data/splits/stanford-cars-lt-if4-split3.tsv." in (
        capsys.readouterr().out
    )
    assert again.class_names == ["Audi TT Hatchback 2011", "BMW M3 Coupe 2012", "Ram C/V"]
    for split in ("train", "validation", "test"):
        first, second = getattr(cut, split), getattr(again, split)
        assert sorted(first.sources) == sorted(second.sources)
        label = dict(zip(first.sources, first.labels, strict=True))
        assert [label[s] for s in second.sources] == second.labels.tolist()
    assert again.counts.tolist() == [8, 4, 2]
    assert len(again.test.labels) == 6
    text = path.read_text()
    assert text.splitlines()[0] == "# stanford-cars-lt: imbalance factor 4, split seed 3"
    assert (
        "Made by: python -m ltkd split stanford-cars-lt --imbalance-factor 4 --split-seed 3" in text
    )


def test_the_first_missing_file_is_named(cars):
    experiment = small("stanford-cars-lt")
    selection.save_split(experiment)
    path = split_file(experiment)
    path.write_text(path.read_text().replace("cars_train/00004.jpg", "cars_train/09999.jpg"))
    with pytest.raises(DataError, match=r"does not fit the files in .*: cars_train/09999.jpg is m"):
        build(experiment)
    assert not experiment.built_file.exists()


def test_the_split_that_ships_does_not_fit_other_cars(cars):
    experiment = replace(Experiment.named("stanford-cars-lt"), image_size=8)
    lines = find_split(experiment).read_text().splitlines()
    first = next(line for line in lines if line.startswith("train"))
    numbers = [name for name in first.split("\t")[2:] if int(name[11:16]) > 24]
    with pytest.raises(DataError, match=re.escape(f"{numbers[0].strip()} is missing")) as error:
        build(experiment)
    assert "--split-seed 1" in str(error.value)


def test_a_car_that_is_not_on_the_disk_is_named(cars):
    (cars / "cars_test/00005.jpg").unlink()
    with pytest.raises(DataError, match=r"is incomplete: cars_test/00005.jpg is missing"):
        build(small("stanford-cars-lt"))


def test_other_cars_say_what_they_are_not(cars, capsys):
    for _ in range(2):  # built, and loaded
        build(small("stanford-cars-lt"))
        assert "not all files of Stanford Cars: 24 training and 6 test" in capsys.readouterr().out


def test_the_command_of_another_split_seed():
    experiment = replace(Experiment.named("stanford-cars-lt"), split_seed=3)
    assert split_command(experiment) == "python -m ltkd split stanford-cars-lt --split-seed 3"


@pytest.mark.parametrize("line", ["train", "holiday\tx\ty", "train\tAudi", "\x00"])
def test_a_damaged_split_file(tmp_path, line):
    path = tmp_path / "some.tsv"
    path.write_text(f"# a comment\n{line}\n")
    with pytest.raises(DataError, match="is damaged at"):
        read_split(path, np.array(["y"]), tmp_path)


def test_a_class_may_have_one_image(tmp_path):
    path = tmp_path / "some.tsv"
    path.write_text(
        "# 2 train images, 0 validation images, 1 test images\ntrain\tAudi\ty\tx\ntest\tAudi\tz\n"
    )
    found = read_split(path, np.array(["x", "y", "z"]), tmp_path)
    assert {split: rows.tolist() for split, rows in found.items()} == {
        "train": [1, 0], "validation": [], "test": [2],
    }  # fmt: skip


@pytest.mark.parametrize("keep", [0, 200, -3])
def test_a_split_file_that_was_cut_off(cars, keep):
    experiment = small("stanford-cars-lt")
    selection.save_split(experiment)
    path = split_file(experiment)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:keep] if keep < 0 else [path.read_text()[:keep]]))
    with pytest.raises(DataError, match=r"is damaged|00\.?\w* is missing"):
        build(experiment)


def test_a_split_file_in_other_letters(cars):
    experiment = small("stanford-cars-lt")
    selection.save_split(experiment)
    path = split_file(experiment)
    path.write_bytes(path.read_text().replace("Audi", "Aüdi").encode("latin-1"))
    assert len(build(experiment).test.labels) == 6  # only the names of the files count


def test_caltech_without_and_with_clutter(caltech, capsys):
    data = build(small("caltech256-lt"))
    assert data.class_names == ["ak47", "yo yo-101"]
    assert np.bincount(data.test.labels).tolist() == [20, 20]
    assert data.counts.tolist() == [9, 2]  # 29 and 25 images, less 20; what lies deeper is none
    assert "not the files of Caltech-256: 82 images in 3 folders" in capsys.readouterr().out
    with_clutter = build(small("caltech257-lt"))
    assert with_clutter.class_names == ["ak47", "yo yo-101", "clutter"]
    assert np.bincount(with_clutter.test.labels).tolist() == [20] * 3


def test_the_documented_counts_are_no_remark(caltech, capsys, monkeypatch):
    monkeypatch.setattr(sources, "CALTECH_IMAGES", 82)
    monkeypatch.setattr(sources, "CALTECH_FOLDERS", 3)
    data = build(small("caltech256-lt"))
    assert data.remark == "" and "not" not in capsys.readouterr().out


def test_caltech_test_images_do_not_depend_on_the_cut(caltech):
    chosen = [build(replace(small("caltech256-lt"), imbalance_factor=f)) for f in (1, 4)]
    assert chosen[0].test.sources.tolist() == chosen[1].test.sources.tolist()
    selection.save_split(small("caltech256-lt"))
    text = split_file(small("caltech256-lt")).read_text()
    assert len([line for line in text.splitlines() if line.startswith("test\t")]) == 2
    small("caltech256-lt").built_file.unlink()
    again = build(small("caltech256-lt"))
    assert sorted(again.test.sources) == sorted(chosen[0].test.sources)


def test_data_sets_without_file_names_have_no_split_file(capsys):
    assert main(["split", "digits-lt"]) == 1
    assert "follows from its seed alone" in capsys.readouterr().err


def test_cifar_as_class_folders_has_no_split_file(home, write_classes, capsys):
    counts = {f"{part}/{name}": 12 for part in ("train", "test") for name in ("cat", "dog")}
    write_classes(home / "data" / "cifar10", counts)
    assert main(["split", "cifar10-lt", "--imbalance-factor", "2"]) == 1
    assert "follows from its seed alone" in capsys.readouterr().err
    assert not (home / "data" / "splits").exists()


def test_a_split_file_that_comes_later_is_used(cars, capsys):
    experiment = small("stanford-cars-lt")
    before = sorted(build(experiment).train.sources)
    selection.save_split(replace(experiment, split_seed=4))
    path = split_file(replace(experiment, split_seed=4))
    path.rename(split_file(experiment))
    assert sorted(build(experiment).train.sources) != before
    assert "The split is the one of" in capsys.readouterr().out


def test_a_split_file_that_is_taken_away_is_no_longer_in_force(cars, capsys):
    experiment = small("stanford-cars-lt")
    before = sorted(build(experiment).train.sources)
    selection.save_split(replace(experiment, split_seed=4))
    assert "not all files of Stanford Cars" in capsys.readouterr().out  # others may use the split
    path = split_file(replace(experiment, split_seed=4)).rename(split_file(experiment))
    assert sorted(build(experiment).train.sources) != before
    path.unlink()
    assert sorted(build(experiment).train.sources) == before


def test_another_split_is_not_written_over(cars):
    experiment = small("stanford-cars-lt")
    path = selection.save_split(experiment)
    text = path.read_text()
    assert selection.save_split(experiment) == path and path.read_text() == text
    path.write_text(text.replace("cars_train/00004.jpg", "cars_train/09999.jpg"))
    with pytest.raises(FileExistsError, match="holds another split, which others may use"):
        selection.save_split(experiment)
    assert "09999" in path.read_text()


def test_hidden_files_of_caltech_are_left_out(caltech):
    (caltech / "001.ak47" / "._001_0002.jpg").write_bytes(b"what macOS puts beside a file")
    assert not any("._" in source for source in build(small("caltech256-lt")).train.sources)


@pytest.mark.parametrize(("factor", "largest"), SHIPPED)
def test_the_splits_that_ship(factor, largest):
    experiment = replace(Experiment.named("stanford-cars-lt"), imbalance_factor=factor)
    path = find_split(experiment)
    assert path.parent == PROJECT / "data" / "splits"
    lines = [line.split("\t") for line in path.read_text().splitlines() if line[0] != "#"]
    counts = sorted((len(files) - 2 for files in lines if files[0] == "train"), reverse=True)
    assert len(counts) == 196
    wanted = [int(largest * (1 / factor) ** (i / 195)) for i in range(196)]
    assert all(c <= w for c, w in zip(counts, wanted, strict=True))  # capped by what a class has
    assert counts[0] == largest and counts[-1] == int(largest / factor)
    names = [name for files in lines for name in files[2:]]
    assert len(set(names)) == len(names)
    assert not find_split(replace(experiment, split_seed=1))
    assert find_split(replace(experiment, image_size=128)) == path
