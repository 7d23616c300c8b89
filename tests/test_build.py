"""The built data set: its splits, its file, and what happens when something goes wrong."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ltkd import datasets, selection
from ltkd.datasets import SPLITS, build, same_images
from ltkd.experiments import Experiment
from ltkd.mapped import MappedImages
from ltkd.sources import DataError, Source, Sources


@pytest.fixture
def small(tmp_path, write_classes) -> Experiment:
    """An experiment on a folder that builds in no time."""
    write_classes(tmp_path / "pets", {"cat": 30, "dog": 20, "eel": 10})
    experiment = Experiment.from_folder(tmp_path / "pets")
    return replace(experiment, image_size=8, profile="exponential", imbalance_factor=4)


def same(first, second) -> bool:
    fields = [(getattr(first, s), getattr(second, s)) for s in SPLITS]
    pairs = [(a, b) for x, y in fields for a, b in zip(x, y, strict=True)]
    equal = all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    return equal and (first.name, first.class_names) == (second.name, second.class_names)


def leftovers(home) -> list[str]:
    return [f.name for f in home.rglob("*") if f.is_file()]


def test_digits(digits):
    assert digits.class_names == [str(c) for c in range(10)]
    assert digits.counts.tolist() == [110, 71, 46, 29, 19, 12, 8, 5, 3, 2]
    assert np.bincount(digits.test.labels).tolist() == [64] * 10
    assert 0 not in digits.validation.labels  # the largest class has none left over
    assert np.bincount(digits.validation.labels)[1:].tolist() == [39] + [50] * 8
    for split in (digits.train, digits.validation, digits.test):
        assert split.images.shape == (len(split.labels), 3, 32, 32)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64


def test_digits_rows_are_what_scikit_learn_has_there(digits):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    assert (bunch.target[digits.train.sources] == digits.train.labels).all()
    assert (bunch.target[digits.test.sources] == digits.test.labels).all()
    small = bunch.images[digits.test.sources[5]]
    large = digits.test.images[5, 0].reshape(8, 4, 8, 4).mean((1, 3)) / 255 * 16
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.95
    assert digits.test.images.max() == 255  # 16 of scikit-learn's 16 shades
    assert large.mean() == pytest.approx(small.mean(), rel=0.02)


def test_splits_share_no_image(digits, small):
    for data in (digits, build(small)):
        sources = [set(getattr(data, split).sources.tolist()) for split in SPLITS]
        assert len(set.union(*sources)) == sum(map(len, sources))
        assert [len(s) for s in sources] == [len(getattr(data, s).labels) for s in SPLITS]


def test_a_built_file_is_loaded_again_as_it_was(small, monkeypatch):
    first = build(small)
    monkeypatch.setattr(datasets, "_cut_and_read", None)  # cannot be called
    assert same(build(small), first)


def test_a_built_file_is_plain_numpy(small, home):
    data = build(small)
    with np.load(small.built_file, allow_pickle=False) as archive:
        assert archive["class_names"].tolist() == data.class_names
        assert archive["identity"].shape == ()
        stored = np.fromfile(home / "data/built" / str(archive["map"]), np.uint8)
        images = stored.reshape(-1, 3, 8, 8)[archive["train_rows"]]
    assert np.array_equal(images, data.train.images)


def test_pixels_that_changed_in_their_file_are_noticed_and_decoded_anew(small, home, capsys):
    first = build(small)
    with np.load(small.built_file) as archive:
        file = home / "data/built" / str(archive["map"])
        row = int(archive["train_rows"][0])
    with file.open("r+b") as stored:
        stored.seek(row * 3 * 8 * 8)
        stored.write(bytes(3 * 8 * 8))
    again = build(small)
    assert "is damaged (ValueError); it is built again" in capsys.readouterr().out
    assert again.train.images.any((1, 2, 3)).all()
    assert same(again, first)


def test_large_sets_stay_in_their_file(small, monkeypatch):
    first = build(small)
    monkeypatch.setattr(datasets, "IN_MEMORY", 1000)
    for _ in range(2):  # the files are built already, and then not
        data = build(small)
        assert isinstance(data.train.images, MappedImages)
        assert type(first.train.images) is np.ndarray
        assert same(data, first)
        small.built_file.unlink()


def test_the_built_digits_are_in_one_file(home):
    digits = Experiment.named("digits-lt")
    data = build(digits)
    assert leftovers(home) == [digits.built_file.name]
    with np.load(digits.built_file, allow_pickle=False) as archive:
        assert np.array_equal(archive["train_images"], data.train.images)


def test_the_same_choice_gives_the_same_data(small):
    first = build(small)
    small.built_file.unlink()
    assert same(build(small), first)


def test_a_natural_tail_gives_up_a_tenth_for_validation(small):
    data = build(replace(small, profile="natural"))
    assert np.bincount(data.test.labels).tolist() == [6, 4, 2]
    assert np.bincount(data.validation.labels, minlength=3).tolist() == [2, 1, 1]
    assert data.counts.tolist() == [22, 15, 7]


def test_a_natural_tail_wastes_no_image(small):
    data = build(replace(small, profile="natural", validation=1))
    assert np.bincount(data.validation.labels, minlength=3).tolist() == [1, 1, 1]
    assert data.counts.tolist() == [23, 15, 7]


def test_a_cut_that_leaves_next_to_nothing_gives_up_a_tenth_too(small):
    data = build(replace(small, imbalance_factor=3))  # of 24, 16, 8 all but three images are kept
    assert np.bincount(data.validation.labels).tolist() == [2, 3 + 1, 1]
    assert data.counts.tolist() == [22, 12, 7]
    assert not set(data.train.sources) & set(data.validation.sources)


def test_where_all_classes_are_small_the_largest_spares_an_image(tmp_path, write_classes):
    write_classes(tmp_path / "pets", {"cat": 4, "dog": 5})
    data = build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))
    assert data.counts.tolist() == [2, 2]
    assert data.validation.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("images", "kept", "spares"), [((4, 5), [4, 4], [1]), ((2, 1), [1, 1], [0])]
)
def test_a_class_of_five_and_else_the_largest_spares_one(
    images, kept, spares, tmp_path, write_classes
):
    for split, sizes in (("train", images), ("test", (1, 1))):
        write_classes(tmp_path / "pets" / split, dict(zip(("cat", "dog"), sizes, strict=True)))
    data = build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))
    assert data.counts.tolist() == kept
    assert data.validation.labels.tolist() == spares


@pytest.mark.parametrize(
    ("per_class", "needed", "held"), [(1, 2, [1, 1]), (3, 4, [3, 3]), (0.2, 4, [4, 2])]
)
def test_a_class_has_images_to_test_and_one_to_train(per_class, needed, held):
    def chosen(*sizes):
        labels = np.repeat(np.arange(len(sizes)), sizes)
        source = Source(labels, np.arange(len(labels)), None)
        sources = Sources(["cat", "dog"], source, None, per_class)
        rows = selection.choose_rows(natural, sources)
        return np.bincount(labels[rows["test"]]).tolist()

    natural = replace(Experiment.named("caltech256-lt"), profile="natural")
    assert chosen(20, needed) == held
    with pytest.raises(DataError, match=rf"at least {needed} images.* dog \({needed - 1}\)"):
        chosen(20, needed - 1)


def test_single_images_leave_none_for_validation(tmp_path, write_classes):
    for split in ("train", "test"):
        write_classes(tmp_path / "pets" / split, {"cat": 1, "dog": 1})
    with pytest.raises(DataError, match="single training image"):
        build(replace(Experiment.from_folder(tmp_path / "pets"), image_size=8))


def test_balanced_data_spare_a_tenth_too(small):
    data = build(replace(small, profile="step", imbalance_factor=1))
    assert len(data.validation.labels) > 0


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_built_again(small, keep, capsys):
    first = build(small)
    content = small.built_file.read_bytes()
    small.built_file.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    assert same(build(small), first)
    assert f"{small.built_file} is damaged" in capsys.readouterr().out
    assert same(build(small), first)
    assert capsys.readouterr().out == ""  # the new file is sound


def test_one_wrong_byte_is_noticed(small, capsys):
    first = build(small)
    content = bytearray(small.built_file.read_bytes())
    content[len(content) // 3] ^= 255
    small.built_file.write_bytes(content)
    assert same(build(small), first)
    assert "is built again" in capsys.readouterr().out


def test_labels_that_do_not_fit_the_counts_are_noticed(small, capsys):
    first = build(small)
    with np.load(small.built_file) as archive:
        arrays = dict(archive)
    arrays["train_labels"] = np.zeros_like(arrays["train_labels"])
    np.savez(small.built_file, **arrays)
    assert same(build(small), first)
    assert "is damaged" in capsys.readouterr().out


def write_foreign(path, kind: str) -> None:
    if kind == "another npz":
        np.savez(path, x=np.arange(3))
    elif kind == "code":
        np.savez(path, class_names=np.array([Harmful(path.with_name("trace"))], dtype=object))
    elif kind == "an enormous shape":
        with zipfile.ZipFile(path, "w") as archive, archive.open("train_images.npy", "w") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (2**44, 3, 32, 32)}
            np.lib.format.write_array_header_1_0(file, header)
    elif kind == "a climbing name":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../trace.npy", b"text")
    elif kind == "one array":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    else:
        path.write_text("this is no data set")


class Harmful:
    """Unpickling this would create a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    "kind", ["another npz", "code", "an enormous shape", "one array", "text", "a climbing name"]
)
def test_a_foreign_file_is_replaced(small, kind, home, capsys):
    small.built_file.parent.mkdir(parents=True)
    write_foreign(small.built_file, kind)
    data = build(small)
    assert f"{small.built_file} is damaged" in capsys.readouterr().out
    assert same(build(small), data)
    left = [file for file in home.rglob("*") if file.is_file()]
    assert sorted(file.suffix for file in left) == [".images", ".json", ".npz"]  # nothing foreign


def test_the_file_of_another_experiment_is_replaced(small, capsys):
    other = build(replace(small, split_seed=1))
    replace(small, split_seed=1).built_file.rename(small.built_file)
    data = build(small)
    assert "does not fit this experiment" in capsys.readouterr().out
    assert not same(data, other)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_interrupted_build_leaves_nothing_behind(small, error, home, monkeypatch):
    write, calls = datasets._write_array, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise error
        write(*arguments)

    monkeypatch.setattr(datasets, "_write_array", interrupted)
    with pytest.raises(error):
        build(small)
    assert small.built_file.name not in leftovers(home)
    assert build(small).counts.sum() > 0  # and the next build goes through
    assert small.built_file.name in leftovers(home)  # with the decoded images and their index
    assert sorted(Path(f).suffix for f in leftovers(home)) == [".images", ".json", ".npz"]


def test_a_full_disk_is_one_sentence(small, home, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets, "_write_array", full)
    with pytest.raises(OSError, match=r"^Could not write .*No space left on device\. Check that"):
        build(small)
    assert small.built_file.name not in leftovers(home)


def test_a_folder_that_cannot_be_written_is_one_sentence(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LTKD_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"^Could not write .*Check that the folder") as error:
        build(small)
    assert str(tmp_path / "file" / "data" / "built") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missed_total_is_an_error(tmp_path, monkeypatch, small):
    monkeypatch.setitem(selection.PUBLISHED_TOTALS, ("folder", 4), 41)
    with pytest.raises(DataError, match="where the published one has 41") as error:
        build(small)
    assert "incomplete" in str(error.value)


def test_photographs_that_are_added_later_are_noticed(tmp_path, write_classes, capsys):
    folder = tmp_path / "pets"
    write_classes(folder, {"cat": 8, "dog": 8})
    experiment = replace(Experiment.from_folder(folder), image_size=8)
    before = len(build(experiment).train.labels)
    write_classes(folder, {"dog": 20})
    capsys.readouterr()
    assert len(build(experiment).train.labels) > before
    said = capsys.readouterr().out
    changes = "12 images added, 0 removed, 8 changed"
    assert said == f"{folder} has changed since it was built ({changes}): it is built again.\n"


def test_a_built_folder_can_be_used_without_its_files(tmp_path, write_classes):
    folder = tmp_path / "pets"
    write_classes(folder, {"cat": 8, "dog": 8})
    experiment = replace(Experiment.from_folder(folder), image_size=8)
    first = build(experiment)
    folder.rename(tmp_path / "elsewhere")
    assert same(build(experiment), first)


def test_the_split_seed_draws_the_test_images_and_the_cut(tmp_path, write_classes):
    for part in ("train", "test"):
        write_classes(tmp_path / "pets" / part, {"cat": 30, "dog": 30})
    plain = Experiment.from_folder(tmp_path / "pets")
    plain = replace(plain, image_size=8, profile="exponential", imbalance_factor=4)
    first, second = build(plain), build(replace(plain, split_seed=1))
    assert set(first.train.sources) != set(second.train.sources)  # official test images: the cut
    write_classes(tmp_path / "more", {"cat": 30, "dog": 30})
    plain = replace(Experiment.from_folder(tmp_path / "more"), image_size=8)
    first, second = build(plain), build(replace(plain, split_seed=1))
    assert set(first.test.sources) != set(second.test.sources)
    assert first.counts.tolist() == second.counts.tolist()


def test_results_of_before_fingerprints_are_taken():
    for stored in ({}, {"data": None}, {"data": "these"}):
        assert same_images(stored, "these")
    assert not same_images({"data": "others"}, "these")
