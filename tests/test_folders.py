"""What is said of one's own photographs: look-alikes, advice, time; and small classes merged."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from ltkd.class_folders import DataError
from ltkd.datasets import LongTailedData, Split, build
from ltkd.duplicates import NEAR, hashes, near_duplicates
from ltkd.estimates import spoken, training_seconds
from ltkd.experiments import Experiment
from ltkd.folders import advice, look_alikes, report


def scene(seed: int, side: int = 64) -> Image.Image:
    """A smooth picture with structure at several sizes, as photographs have it."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (n, n, 3), np.uint8)).resize(
                (side, side), Image.Resampling.BICUBIC
            ),
            float,
        )
        / n**0.5
        for n in (3, 6, 12, 24)
    ]
    picture = sum(layers)
    picture = 255 * (picture - picture.min()) / np.ptp(picture)
    return Image.fromarray(picture.astype(np.uint8))


def pixels(*pictures: Image.Image) -> np.ndarray:
    return np.stack([np.asarray(p.resize((64, 64))).transpose(2, 0, 1) for p in pictures])


def test_copies_are_found_and_other_pictures_are_not():
    originals = [scene(seed) for seed in range(60)]
    bits = hashes(pixels(*originals))
    assert near_duplicates(bits[:30], bits[30:]) == []
    one = originals[7]
    changed = [
        one.resize((40, 40)),
        ImageEnhance.Brightness(one).enhance(1.15),
        one.filter(ImageFilter.GaussianBlur(0.7)),
        Image.fromarray(np.asarray(one) // 8 * 8),
    ]
    found = near_duplicates(hashes(pixels(*changed)), bits)
    assert [(i, j) for i, j, _ in sorted(found)] == [(0, 7), (1, 7), (2, 7), (3, 7)]


def test_near_is_counted_in_bits():
    bits = np.zeros((3, 64), bool)
    bits[1, :NEAR] = True
    bits[2, : NEAR + 1] = True
    assert near_duplicates(bits[:1], bits[::-1]) == [(0, 2, 0)]  # the nearest alone
    assert near_duplicates(bits[:1], bits[1:]) == [(0, 0, NEAR)]
    assert near_duplicates(bits[:1], bits[2:]) == []
    assert near_duplicates(bits[:1], bits[:0]) == near_duplicates(bits[:0], bits) == []
    assert near_duplicates(np.tile(bits[:1], (5, 1)), bits[1:2], chunk=2) == [
        (i, 0, NEAR) for i in range(5)
    ]


def test_thousands_of_equal_pictures_take_little_memory():
    """A wildlife camera takes many black pictures at night: all pairs would fill the memory."""
    tracemalloc.start()
    found = near_duplicates(np.zeros((2000, 64), bool), np.zeros((10_000, 64), bool))
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
    assert found == [(row, 0, 0) for row in range(2000)]


@pytest.fixture
def photographs(tmp_path) -> Experiment:
    """Two classes, of 24 and 8; one picture of the larger is there under eight names."""
    for name, size, start in (("cat", 24, 0), ("犬 dog", 8, 100)):
        (tmp_path / "my pets" / name).mkdir(parents=True)
        for i in range(size):
            same = name == "cat" and i < 8
            scene(start + (0 if same else i)).save(tmp_path / "my pets" / name / f"{i:02} .JPEG")
    (tmp_path / "my pets" / "cat" / "broken.jpg").write_text("no image")
    (tmp_path / "my pets" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "my pets" / "beside.png").write_bytes(b"")
    return replace(Experiment.from_folder(tmp_path / "my pets"), image_size=32, depth=8)


def test_the_report(photographs, shorten, capsys):
    experiment = shorten(photographs, 2, batch_size=8)
    data = build(experiment)
    assert len(data.test.labels) == 6
    capsys.readouterr()
    report(experiment, data)
    said = capsys.readouterr().out
    assert "2 classes, " in said and "of 犬 dog." in said
    assert "Broken files, left out: 1. cat/broken.jpg (This is not an image" in said
    assert "1 beside the class folders" in said and "1 .txt" in said
    assert "2 of 2 classes have fewer than 20 training images" in said
    assert "The smallest class has 2 test images, so one image is 50 points" in said
    assert "Training will take less than a minute for the teacher and less than a minute" in said
    same = [s for s in data.test.sources if s.startswith("cat/0") and int(s[4:6]) < 8]
    assert ("Test images that look like train images: " in said) == bool(same)


def test_copies_across_the_split_are_named(photographs):
    data = build(photographs)
    train, test = data.train, data.test
    copied = replace(data, test=test._replace(images=np.asarray(train.images)[: len(test.labels)]))
    (line,) = [li for li in look_alikes(copied) if "train images" in li]
    assert line.startswith(f"Test images that look like train images: {len(test.labels)} (")
    apart = test._replace(
        images=pixels(*[scene(900 + i) for i in range(len(test.labels))])[..., ::2, ::2]
    )
    assert look_alikes(replace(data, test=apart)) == [
        "No test image looks like a training or validation image."
    ]


def test_the_named_experiments_get_no_report(digits, quick, capsys):
    report(quick, digits)
    assert capsys.readouterr().out == ""


def test_balanced_folders_are_told_so(tmp_path, write_classes):
    write_classes(tmp_path, {"a": 8, "b": 9})
    experiment = replace(Experiment.from_folder(tmp_path), image_size=8)
    assert "nearly balanced" in advice(experiment, build(experiment))[0]


def test_where_nothing_stands_out_there_is_little_advice(tmp_path):
    labels = np.repeat([0, 1], 3000)
    many = Split(np.zeros((6000, 3, 1, 1), np.uint8), labels, labels)
    data = LongTailedData("large", ["cat", "dog"], many, many, many)
    (line,) = advice(Experiment.from_folder(tmp_path), data)
    assert "nearly balanced" in line


def test_small_classes_are_an_explained_error(tmp_path, write_classes):
    write_classes(tmp_path, {"ant": 2, "bee": 9, "cat": 3, "dog": 8})
    with pytest.raises(DataError) as error:
        build(replace(Experiment.from_folder(tmp_path), image_size=8))
    assert str(error.value) == (
        "Every class needs at least 4 images, some to train and some to test; too few in ant (2), "
        "cat (3): add images, remove these classes, or make one class of the 2 smallest "
        "(--merge-below 4)."
    )


def test_small_classes_are_merged_where_asked(tmp_path, write_classes, monkeypatch, capsys):
    write_classes(tmp_path, {"ant": 2, "bee": 9, "cat": 3, "dog": 8})
    monkeypatch.setenv("LTKD_MERGE_BELOW", "4")
    experiment = replace(Experiment.choose(f"folder:{tmp_path}"), image_size=8)
    data = build(experiment)
    assert experiment.name.endswith("-merge4-px8")
    assert data.class_names == ["bee", "dog", "other classes"]
    assert "2 classes of fewer than 4 images are one class now" in capsys.readouterr().out
    others = data.train.sources[data.train.labels == 2].tolist()
    others += data.test.sources[data.test.labels == 2].tolist()
    others += data.validation.sources[data.validation.labels == 2].tolist()
    assert sorted(s.partition("/")[0] for s in others) == ["ant", "ant", "cat", "cat", "cat"]
    assert np.bincount(data.test.labels).min() >= 2


def test_merging_all_classes_is_refused(tmp_path, write_classes):
    write_classes(tmp_path, {"ant": 2, "bee": 3})
    experiment = replace(Experiment.from_folder(tmp_path), image_size=8, merge_below=9)
    with pytest.raises(DataError, match="All classes have fewer than 9 images"):
        build(experiment)


def test_one_folder_too_high_up(tmp_path, write_classes):
    write_classes(tmp_path / "photos", {"ant": 5, "bee": 5})
    with pytest.raises(DataError, match="photos has 2: did you mean that one"):
        build(replace(Experiment.from_folder(tmp_path), image_size=8))


def test_what_archives_and_cameras_add_is_no_photograph(tmp_path, write_classes):
    write_classes(tmp_path, {"ant": 5, "bee/.thumbnails": 3, "bee/2024": 5, "__MACOSX/ant": 2})
    data = build(replace(Experiment.from_folder(tmp_path), image_size=8))
    assert data.class_names == ["ant", "bee"]
    assert sum(len(getattr(data, s).labels) for s in ("train", "validation", "test")) == 10


def test_the_estimate_grows_with_the_work(digits, quick, shorten, monkeypatch):
    from ltkd import estimates, runs

    monkeypatch.setattr(estimates, "_step", lambda *arguments: 0.5)
    experiment = shorten(quick, 10, batch_size=61, small=0.0)  # 5 batches an epoch
    assert runs.expected_seconds(experiment, digits, "teacher") == pytest.approx(25)
    smaller = shorten(experiment, 10, small=0.5)
    assert runs.expected_seconds(smaller, digits, "teacher") == pytest.approx(25 * (1 - 0.4375 / 2))


def test_the_estimate_leaves_no_trace(digits, quick):
    import torch

    from ltkd.initial import new_network
    from ltkd.runs import expected_seconds
    from ltkd.training import accelerator_for

    before = torch.get_rng_state()
    assert expected_seconds(quick, digits, "student") > 0
    assert torch.equal(torch.get_rng_state(), before)
    network = new_network(quick, digits, "teacher")
    training_seconds(network, None, quick.schedule, 305, 32, accelerator_for("no"))
    assert all(p.grad is None for p in network.parameters())


def test_a_long_training_says_how_long(digits, quick, shorten, monkeypatch, capsys):
    from ltkd import runs
    from ltkd.training import Trainer

    monkeypatch.setattr(runs, "expected_seconds", lambda *arguments: 7200.0)
    monkeypatch.setattr(Trainer, "fit", lambda self: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        runs.train(shorten(quick, 60), digits, "teacher")
    assert "float32; about 2.0 hours in all." in capsys.readouterr().out
    assert spoken(7200) == "about 2.0 hours"
