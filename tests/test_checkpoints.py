"""Model files: what goes in comes out, and anything else is refused in one sentence."""

import errno
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from ltkd import checkpoints
from ltkd.checkpoints import (
    VERSION,
    CheckpointError,
    UnreadError,
    load_checkpoint,
    save_checkpoint,
)
from ltkd.networks import ResNet

HISTORY = [{"class": 2.5}, {"class": 1.5}]


@pytest.fixture
def saved(tmp_path, digits, quick) -> tuple[Path, ResNet]:
    """A model file and the network in it, whose BatchNorm has seen images."""
    torch.manual_seed(0)
    network = ResNet(10, depth=8, width=4, mean=(0.1, 0.2, 0.3))
    network(torch.from_numpy(digits.train.images[:32]))
    path = tmp_path / "models" / "teacher_model.pth"
    save_checkpoint(path, network.eval(), digits, quick, "teacher", {"all": 12.5}, HISTORY)
    return path, network


def change(path: Path, **values) -> None:
    """Replace entries of a model file; None removes one."""
    content = torch.load(path, weights_only=True) | values
    torch.save({key: value for key, value in content.items() if value is not None}, path)


def refused(path: Path, classes: int | None = None) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, classes)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_the_loaded_network_gives_the_same_logits(saved, digits):
    path, network = saved
    loaded, _ = load_checkpoint(path, classes=10)
    images = torch.from_numpy(digits.test.images[:50])
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


def test_a_model_file_says_what_it_is(saved, digits, quick):
    content = load_checkpoint(saved[0])[1]
    assert (content["format"], content["version"], content["role"]) == ("ltkd-model", 1, "teacher")
    assert content["class_names"] == digits.class_names
    assert content["counts"] == digits.counts.tolist()
    assert content["groups"]["head"] == digits.head.tolist()
    assert content["normalisation"]["mean"] == [0.1, 0.2, 0.3]
    assert content["experiment"] == quick.as_dict()
    assert (content["metrics"], content["history"]) == ({"all": 12.5}, HISTORY)
    assert content["versions"]["torch"] == str(torch.__version__)


def test_a_missing_file(tmp_path):
    assert "There is no model file" in refused(tmp_path / "student_model.pth")
    assert "There is no model file" in refused(tmp_path)  # a folder


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file(saved, share):
    content = saved[0].read_bytes()
    saved[0].write_bytes(content[: int(share * len(content))])
    assert "is damaged or is no model file" in refused(saved[0])


@pytest.mark.parametrize(
    "content",
    [
        {"weights": {}},
        {"format": "another", "version": 1},
        {"format": "ltkd-model"},
        [1, 2],
        torch.zeros(3),
        ResNet(10, 8).state_dict(),
    ],
)
def test_what_another_program_saved(tmp_path, content):
    path = tmp_path / "model.pth"
    torch.save(content, path)
    assert "is no model file of ltkd" in refused(path)


class Harmful:
    """Unpickling this would create a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def save_pickle(content, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_pickle])
def test_code_in_a_file_is_not_executed(tmp_path, save):
    path, trace = tmp_path / "model.pth", tmp_path / "trace"
    save({"format": "ltkd-model", "weights": Harmful(trace)}, path)
    assert "is no model file of ltkd" in refused(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # the file is as harmful as this test says


def test_a_whole_network_is_not_unpickled(tmp_path):
    torch.save(ResNet(10, 8), tmp_path / "model.pth")
    assert "is no model file of ltkd" in refused(tmp_path / "model.pth")


def test_another_number_of_classes(saved):
    message = refused(saved[0], classes=100)
    assert "is a model for 10 classes, but 100 are wanted" in message


def test_a_later_version(saved):
    change(saved[0], version=VERSION + 1)
    assert "later version of ltkd (format 2, this one reads 1): update ltkd" in refused(saved[0])


FULL = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "no"), MemoryError("full"), RuntimeError(FULL)]
)
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(saved, monkeypatch, error):
    def stopped(*arguments, **options):
        raise error

    monkeypatch.setattr(checkpoints.torch, "load", stopped)
    with pytest.raises(UnreadError, match=r"cannot be read now .* fix that first"):
        load_checkpoint(saved[0])


def test_a_network_for_which_there_is_no_memory_is_not_called_damaged(saved, monkeypatch):
    def full(*arguments, **options):
        raise RuntimeError(FULL)

    monkeypatch.setattr(checkpoints, "network_from", full)
    with pytest.raises(UnreadError, match=r"cannot be read now .* fix that first"):
        load_checkpoint(saved[0])


@pytest.mark.parametrize("missing", ["weights", "network", "counts", "experiment", "metrics"])
def test_a_file_with_a_part_missing(saved, missing):
    change(saved[0], **{missing: None})
    assert "is no model file of ltkd" in refused(saved[0])


def test_weights_that_do_not_fit(saved):
    network = saved[1]
    few = dict(list(network.state_dict().items())[:-1])
    wide = ResNet(10, depth=8, width=8).state_dict()
    for weights in (few, wide, {}, [1.0], {"stem.weight": "text"}):
        change(saved[0], weights=weights)
        assert "its parts do not fit each other" in refused(saved[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": [5]},
        {"class_names": ["a"] * 11},
        {"class_names": 10},
        {"groups": {"head": [True] * 9}},
        {"groups": [1]},
        {"groups": {"many": [True] * 10, "medium": [False] * 10}},
        {"groups": dict.fromkeys(["many", "medium", "few", "head"], [None] * 10)},
        {"class_names": [7] * 10},
        {"experiment": "digits-lt"},
        {"experiment": {"image_size": 10**9}},
        {"experiment": {"image_size": -1}},
        {"experiment": {"image_size": [32]}},
        {"metrics": [1]},
    ],
)
def test_parts_that_do_not_fit_each_other(saved, changes):
    change(saved[0], **changes)
    assert "is damaged: its parts do not fit each other" in refused(saved[0])


@pytest.mark.parametrize("version", [0, -1, "2", None, 1.5, [2], torch.zeros(3)])
def test_no_version(saved, version):
    content = torch.load(saved[0], weights_only=True) | {"version": version}
    torch.save(content, saved[0])
    assert "is no model file of ltkd" in refused(saved[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"classes": 10**12},
        {"width": 10**9},
        {"width": 30_000},
        {"depth": 6 * 10**9 + 2},
        {"stem_stride": 20_000},
    ],
    ids=str,
)
def test_a_small_file_does_not_ask_for_much_memory(saved, settings):
    content = torch.load(saved[0], weights_only=True)
    change(saved[0], network=content["network"] | settings)
    assert "its parts do not fit each other" in refused(saved[0])


def test_a_large_network_is_tried_without_memory(saved, monkeypatch):
    """Twelve GiB would be there for a file of a few KiB, and be filled."""
    made, devices = checkpoints.network_from, []

    def listening(settings):
        devices.append(torch.get_default_device().type)
        return made(settings)

    monkeypatch.setattr(checkpoints, "network_from", listening)
    content = torch.load(saved[0], weights_only=True)
    for settings in ({"width": 4000}, {"classes": 10**8}, {"stem_stride": 3000}):
        change(saved[0], network=content["network"] | settings)
        refused(saved[0])
    assert devices == ["meta"] * 3


def test_numbers_of_another_kind(saved):
    weights = {k: v.double() for k, v in saved[1].state_dict().items()}
    change(saved[0], weights=weights)
    assert "its parts do not fit each other" in refused(saved[0])


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_one_number_that_is_shown_a_billion_times_is_refused(saved, kind):
    """A view has a shape that the file need not hold."""
    settings = torch.load(saved[0], weights_only=True)["network"] | {"width": 400}
    wanted = checkpoints.network_from(settings).state_dict()
    weights = {
        name: torch.zeros((), dtype=kind if v.is_floating_point() else v.dtype).expand(v.shape)
        for name, v in wanted.items()
    }
    change(saved[0], network=settings, weights=weights)
    assert saved[0].stat().st_size < 10**6
    assert "damaged" in refused(saved[0])


def test_a_packed_file_is_not_unpacked(saved):
    """ltkd packs nothing. A thousandfold packed one would fill the memory."""
    with zipfile.ZipFile(saved[0]) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved[0], "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "is damaged or is no model file" in refused(saved[0])


@pytest.mark.parametrize(
    "settings", [{"classes": 10, "depth": 9}, {"classes": 10, "unknown": 1}, {"depth": 8}, [10]]
)
def test_a_network_that_cannot_be_made(saved, settings):
    change(saved[0], network=settings)
    assert "its parts do not fit each other" in refused(saved[0])


@pytest.mark.parametrize("members", [10**9, 2, 1, 0, -1, 2.0, True, "2", None, [2]], ids=repr)
def test_members_that_are_not_there(saved, members):
    content = torch.load(saved[0], weights_only=True)
    change(saved[0], network=content["network"] | {"members": members})
    assert "its parts do not fit each other" in refused(saved[0])


@pytest.mark.parametrize("name", ["grid", "stem_stride"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4", [4]])
def test_settings_that_only_forward_would_notice(saved, name, value):
    content = torch.load(saved[0], weights_only=True)
    change(saved[0], network=content["network"] | {name: value})
    assert "its parts do not fit each other" in refused(saved[0])


def test_an_interrupted_save_keeps_the_old_file(saved, digits, quick, monkeypatch):
    path, network = saved
    before = path.read_bytes()

    def interrupted(content, file):
        file.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, network, digits, quick, "teacher", {}, [])
    assert path.read_bytes() == before
    assert [f.name for f in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written(saved, tmp_path, digits, quick):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "teacher_model.pth"
    with pytest.raises(OSError, match=r"^Could not write .*Check that the folder"):
        save_checkpoint(path, saved[1], digits, quick, "teacher", {}, [])
