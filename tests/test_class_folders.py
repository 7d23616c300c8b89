"""Which files belong to which class: links, hidden folders, parts of a split, what changes."""

import errno
import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltkd import datasets
from ltkd.class_folders import DataError, other_files
from ltkd.datasets import build
from ltkd.experiments import Experiment
from ltkd.folders import advice, counts, left_out


def test_links_are_no_photographs_of_their_own(tmp_path, write_classes):
    """Links to files count as the files; links to folders may lead round in a circle."""
    paths = write_classes(tmp_path / "pets", {"ant": 5, "bee": 5})
    write_classes(tmp_path, {"elsewhere": 2})
    (tmp_path / "pets/ant/same.png").symlink_to(paths[0])
    (tmp_path / "pets/ant/nowhere.png").symlink_to("gone.png")
    (tmp_path / "pets/ant/circle.png").symlink_to("circle.png")
    (tmp_path / "pets/ant/up").symlink_to("..")
    (tmp_path / "pets/bee/more").symlink_to(tmp_path / "elsewhere")
    experiment = replace(Experiment.from_folder(tmp_path / "pets"), image_size=8)
    data = build(experiment)
    assert sum(len(getattr(data, s).labels) for s in ("train", "validation", "test")) == 11
    assert left_out(experiment) == ["Other files, left out: 2 dangling links, 2 links to folders."]


def test_class_folders_may_be_links(tmp_path, write_classes):
    write_classes(tmp_path, {"pets/ant": 5, "elsewhere": 6})
    (tmp_path / "pets" / "bee").symlink_to(tmp_path / "elsewhere")
    data = build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))
    assert data.class_names == ["ant", "bee"]


@pytest.mark.parametrize(
    ("link", "target", "said"),
    [
        ("loop", ".", "loop is a link to a folder that holds it: remove the link"),
        ("up", "..", "up is a link to a folder that holds it: remove the link"),
        ("wasp", "bee", "have the same place. Keep one of them."),
        ("wasp", "bee/wasp", "wasp' is a link into the class folder '.*bee': its images would be"),
    ],
)
def test_a_class_that_is_another_folder(tmp_path, write_classes, link, target, said):
    write_classes(tmp_path / "pets", {"ant": 5, "bee": 5, "bee/wasp": 1})
    (tmp_path / "pets" / link).symlink_to(target)
    with pytest.raises(DataError, match=said):
        build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))


def test_accents_may_be_written_in_two_ways(tmp_path, write_classes):
    """macOS stores é as e and an accent, others as one letter."""
    one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write_classes(tmp_path / "split", {f"train/{one}": 5, "train/cat": 5})
    write_classes(tmp_path / "split", {f"test/{two}": 3, "test/cat": 3})
    data = build(replace(Experiment.from_folder(tmp_path / "split"), image_size=8))
    assert data.class_names == [one, "cat"] and np.bincount(data.test.labels).tolist() == [3, 3]
    write_classes(tmp_path / "twice", {one: 5, two: 5})
    with pytest.raises(DataError, match=r"Two class folders are one class: .* have the same name"):
        build(replace(Experiment.from_folder(tmp_path / "twice"), image_size=8))


def test_class_names_that_differ_in_capitals_alone_are_pointed_out(tmp_path, write_classes):
    write_classes(tmp_path, {"Cat": 8, "cat": 9, "Straße": 8, "STRASSE": 8})
    experiment = replace(Experiment.from_folder(tmp_path), image_size=8)
    data = build(experiment)
    assert data.class_names == ["Cat", "STRASSE", "Straße", "cat"]
    said = [line for line in advice(experiment, data) if "capitals" in line]
    assert said == [
        "Some classes differ in capitals alone (Cat, cat, STRASSE, Straße): if they are the same, "
        "put their images into one folder."
    ]


def test_a_folder_that_cannot_be_read(tmp_path, write_classes, monkeypatch):
    """As the system says it: who runs the tests may be allowed everything."""
    write_classes(tmp_path / "pets", {"ant": 5, "bee/night": 5})
    scan, closed = os.scandir, tmp_path / "pets/bee/night"

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        DataError, match=r"bee/night cannot be read \(Permission denied\): change its"
    ):
        build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))


def test_a_folder_whose_files_cannot_be_opened(tmp_path, write_classes, monkeypatch):
    write_classes(tmp_path / "pets", {"ant": 5, "bee": 5})
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "bee")
    with pytest.raises(DataError, match=r"bee cannot be read \(Permission denied\): change its"):
        build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))


def test_numbered_photographs_keep_their_names(tmp_path, write_classes):
    """Names that count through all classes are no order of a publisher here."""
    for i, path in enumerate(write_classes(tmp_path, {"ant": 6, "bee": 6})):
        path.rename(path.with_name(f"{i}.png"))
    data = build(replace(Experiment.from_folder(tmp_path), image_size=8))
    assert set(data.test.sources) <= {f"{'ant' if i < 6 else 'bee'}/{i}.png" for i in range(12)}


def test_two_folders_of_one_name_do_not_share_their_models(tmp_path, write_classes):
    for place in ("2023", "2024"):
        write_classes(tmp_path / place / "pets", {"ant": 5, "bee": 5})
    first, second = (
        replace(Experiment.from_folder(tmp_path / place / "pets"), image_size=8)
        for place in ("2023", "2024")
    )
    before = build(first)
    with pytest.raises(DataError, match=r"2023/pets, from which .* rename one of the two folders"):
        build(second)
    assert build(first).train.sources.tolist() == before.train.sources.tolist()
    (tmp_path / "2023").rename(tmp_path / "old")  # that one is no more: it was moved, say
    assert len(build(second).test.labels) == 4


def test_every_format_counts_whatever_its_suffix(tmp_path):
    kinds = {
        ".png": "PNG", ".JPG": "JPEG", ".jpeg": "JPEG", ".jfif": "JPEG", ".WebP": "WEBP",
        ".bmp": "BMP", ".GIF": "GIF", ".tif": "TIFF", ".TIFF": "TIFF",
    }  # fmt: skip
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i, (suffix, kind) in enumerate(kinds.items()):
            Image.new("RGB", (8, 8), (20 * i, 0, 90)).save(tmp_path / name / f"{i}{suffix}", kind)
    assert total(build(replace(Experiment.from_folder(tmp_path), image_size=8))) == 18


def test_balanced_classes_have_one_size(tmp_path, write_classes):
    write_classes(tmp_path, {"a": 8, "b": 8})
    data = build(replace(Experiment.from_folder(tmp_path), image_size=8))
    assert counts(data).endswith("5 training images of every class.")


def test_photographs_that_come_during_a_build_are_news_to_the_next(
    tmp_path, write_classes, monkeypatch, capsys
):
    write_classes(tmp_path / "pets", {"ant": 6, "bee": 6})
    experiment = replace(Experiment.from_folder(tmp_path / "pets"), image_size=8)
    read = datasets._cut_and_read

    def meanwhile(experiment):
        data = read(experiment)
        write_classes(tmp_path / "pets", {"ant/more": 4})
        return data

    with monkeypatch.context() as patch:
        patch.setattr(datasets, "_cut_and_read", meanwhile)
        assert total(build(experiment)) == 12
    assert total(build(experiment)) == 16
    assert "built (4 images added, 0 removed, 0 changed): it is" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["classes", "parts", "classes of parts"])
def test_what_changes_behind_links_is_noticed(tmp_path, write_classes, layout):
    """Where a link stands for a class folder, or for train or test."""
    root, names = tmp_path / "pets", ("ant", "bee")
    root.mkdir()
    if layout == "classes":
        write_classes(tmp_path / "away", dict.fromkeys(names, 6))
        for name in names:
            (root / name).symlink_to(tmp_path / "away" / name)
    else:
        for part in "train", "test":
            write_classes(tmp_path / "away" / part, dict.fromkeys(names, 6))
            if layout == "parts":
                (root / part).symlink_to(tmp_path / "away" / part)
                continue
            (root / part).mkdir()
            for name in names:
                (root / part / name).symlink_to(tmp_path / "away" / part / name)
    experiment = replace(Experiment.from_folder(root), image_size=8)
    before = total(build(experiment))
    assert left_out(experiment) == []
    place = "ant" if layout == "classes" else "train/ant"
    write_classes(tmp_path / "away", {f"{place}/more": 5})
    assert total(build(experiment)) == before + 5


def test_a_photograph_that_changed_under_its_name_makes_other_data(tmp_path, write_classes):
    paths = write_classes(tmp_path / "pets", {"ant": 6, "bee": 6})
    experiment = replace(Experiment.from_folder(tmp_path / "pets"), image_size=8)
    before = build(experiment).fingerprint
    os.utime(paths[3], (1, 1))  # another time, the same picture
    assert build(experiment).fingerprint == build(experiment).fingerprint == before
    paths[3].write_bytes(paths[4].read_bytes())
    assert build(experiment).fingerprint == build(experiment).fingerprint != before


def total(data) -> int:
    return sum(len(getattr(data, split).labels) for split in ("train", "validation", "test"))


@pytest.mark.parametrize("beside", ["__MACOSX", ".git"])
def test_parts_of_a_split_are_no_classes_whatever_is_hidden_beside_them(
    tmp_path, write_classes, beside
):
    write_classes(tmp_path / "pets", {"train/ant": 5, "val/ant": 5, f"{beside}/ant": 5})
    with pytest.raises(DataError, match="holds train/ and val/: name the folder"):
        build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))


@pytest.mark.parametrize(
    ("broken", "said"),
    [("test", "No test image could be read: replace"),
     ("train/bee", "No training image could be read of bee: replace")],
)  # fmt: skip
def test_a_part_that_cannot_be_read_at_all(tmp_path, write_classes, broken, said):
    sizes = {f"{part}/{name}": 6 for part in ("train", "test") for name in ("ant", "bee")}
    for path in write_classes(tmp_path / "pets", sizes):
        if path.relative_to(tmp_path / "pets").as_posix().startswith(broken):
            path.write_text("words")
    with pytest.raises(DataError, match=said):
        build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))


def test_a_folder_that_is_not_there_is_no_second_one_of_its_name(
    tmp_path, write_classes, monkeypatch
):
    write_classes(tmp_path / "pets", {"ant": 6, "bee": 6})
    monkeypatch.chdir(tmp_path)
    build(replace(Experiment.from_folder("pets"), image_size=8))
    monkeypatch.chdir("/")
    with pytest.raises(DataError, match="There is no folder pets: check its path"):
        build(replace(Experiment.from_folder("pets"), image_size=8))


def test_merged_classes_have_a_name_of_their_own(tmp_path, write_classes):
    write_classes(tmp_path, {"other classes": 20, "ant": 3, "bee": 4})
    experiment = replace(Experiment.from_folder(tmp_path), image_size=8, merge_below=9)
    assert build(experiment).class_names == ["other classes", "other classes (merged)"]


def test_a_class_to_learn_and_to_test_on_is_refused(tmp_path, write_classes):
    write_classes(tmp_path, {"train/ant": 5, "train/bee": 5, "test/ant": 5})
    (tmp_path / "test/bee").symlink_to("../train/bee")
    with pytest.raises(DataError, match="have the same place"):
        build(replace(Experiment.from_folder(tmp_path), image_size=8))


def test_files_alike_in_two_folders_of_one_name_are_not_mixed_up(tmp_path, write_classes):
    """Of the same names, sizes and times, as reproducible archives have them."""
    for place, colour in (("2023", 0), ("2024", 255)):
        for file in write_classes(tmp_path / place / "pets", {"ant": 6, "bee": 6}):
            Image.new("RGB", (8, 8), (colour,) * 3).save(file, "BMP")
            os.utime(file, (0, 0))
    first, second = (Experiment.from_folder(tmp_path / p / "pets") for p in ("2023", "2024"))
    first, second = replace(first, image_size=8), replace(second, image_size=8, split_seed=1)
    for experiment, colour in ((first, 0), (second, 255), (first, 0)):
        assert (np.asarray(build(experiment).train.images) == colour).all()


@pytest.mark.parametrize("below", [2, 6])
def test_where_nothing_is_merged_it_is_said(tmp_path, write_classes, below, capsys):
    write_classes(tmp_path, {"ant": 10, "bee": 8, "wasp": 5})
    experiment = replace(Experiment.from_folder(tmp_path), image_size=8, merge_below=below)
    assert build(experiment).class_names == ["ant", "bee", "wasp"]
    said = f"Fewer than two classes have fewer than {below} images: nothing is merged."
    assert said in capsys.readouterr().out


def test_files_beside_the_classes_of_a_part_are_counted(tmp_path, write_classes):
    for part in ("train", "Test"):
        files = write_classes(tmp_path / part, {"ant": 2, "bee": 2})
        for place in (tmp_path, tmp_path / part):
            (place / f"{part} stray.png").write_bytes(files[0].read_bytes())
    assert other_files(tmp_path) == {"beside the class folders": 4}


def test_files_beside_the_classes_are_no_change(tmp_path, write_classes, capsys):
    files = write_classes(tmp_path, {"ant": 6, "bee": 6})
    (tmp_path / "stray.png").write_bytes(files[0].read_bytes())
    experiment = replace(Experiment.from_folder(tmp_path), image_size=8)
    build(experiment)
    files[0].unlink()
    (tmp_path / "another.png").write_bytes(files[1].read_bytes())
    capsys.readouterr()
    build(experiment)
    assert "(0 images added, 1 removed, 0 changed)" in capsys.readouterr().out
