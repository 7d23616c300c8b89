"""Decoded images: the map holds what the files show, and survives what happens to builds."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltkd import decoding
from ltkd.decoding import ImageStore, decoded
from ltkd.mapped import MappedImages


@pytest.fixture
def files(tmp_path, write_classes) -> list[Path]:
    return write_classes(tmp_path / "pets", {"cat": 12, "dog": 8})


@pytest.fixture
def store(tmp_path) -> ImageStore:
    return ImageStore(tmp_path / "pets", "pets-8px", 8)


@pytest.fixture
def read_files(monkeypatch) -> list[str]:
    """The files that are decoded from here on, by name."""
    seen, original = [], decoding.decoded

    def watched(file, size):
        seen.append(file.name)
        return original(file, size)

    monkeypatch.setattr(decoding, "decoded", watched)
    return seen


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def holds(images: MappedImages, files: list[Path]) -> bool:
    return np.array_equal(images, np.stack([pixels(f) for f in files]))


def test_the_map_holds_the_pixels_of_the_files(store, files):
    chosen = files[::-3]
    images, readable = store.read(chosen)
    assert readable.all() and holds(images, chosen)
    assert images.shape == (7, 3, 8, 8) and len(images) == 7
    assert store.path.stat().st_size == 7 * 3 * 8 * 8


def test_mapped_images_are_indexed_like_an_array(store, files):
    images, _ = store.read(files)
    array = np.asarray(images)
    for key in (3, -1, slice(2, 9, 3), [4, 1], np.arange(20) % 2 == 0, np.int64(5),
                (2, 1), (slice(3, 7), 0, 4), ([5, 2], slice(1, 3))):  # fmt: skip
        assert np.array_equal(images[key], array[key])
        assert type(images[key]) is np.ndarray
    images[3][:] = 0  # a copy: the file stays as it is
    assert np.array_equal(images, array)
    assert np.array_equal(images.where(array.mean((1, 2, 3)) > 127)[:2],
                          array[array.mean((1, 2, 3)) > 127][:2])  # fmt: skip


def test_a_file_is_decoded_once(store, files, read_files):
    store.read(files[:5])
    store.read(files)
    images, _ = store.read(files)
    assert sorted(read_files) == sorted(f.name for f in files)
    assert holds(images, files)


def test_only_changed_files_are_read_again(store, files, read_files):
    store.read(files)
    read_files.clear()
    Image.new("RGB", (8, 8), "red").save(files[4])
    files[7].unlink()
    Image.new("RGB", (8, 8), "blue").save(files[0].with_name("new.png"))
    now = [f for f in files if f != files[7]] + [files[0].with_name("new.png")]
    images, _ = store.read(now)
    assert sorted(read_files) == ["cat-4.png", "new.png"]
    assert holds(images, now)


def test_what_another_program_reads_stays_as_it_is(store, files):
    """A training that began before files went, changed and came."""
    held, _ = store.read(files)
    before = np.asarray(held).copy()
    for file in files[12:]:  # the last rows
        file.unlink()
    store.read(files[:12])
    Image.new("RGB", (8, 8), "red").save(files[4])
    Image.new("RGB", (8, 8), "blue").save(files[0].with_name("new.png"))
    again = ImageStore(store.root, store.path.stem, 8)  # another process knows only the files
    assert holds(again.read(now := [*files[:12], files[0].with_name("new.png")])[0], now)
    assert np.array_equal(held, before)


def test_where_the_map_is_deleted_its_rows_begin_anew(store, files):
    store.read(files)
    store.path.unlink()
    assert holds(store.read(files)[0], files)
    assert store.path.stat().st_size == 20 * 3 * 8 * 8


def test_an_interrupted_build_goes_on(store, files, monkeypatch):
    original, calls = decoding.decoded, []

    def interrupted(file, size):
        if file.name == "dog-3.png":
            raise KeyboardInterrupt
        return original(file, size)

    def watched(file, size):
        calls.append(file.name)
        return original(file, size)

    monkeypatch.setattr(decoding, "cores", lambda: 1)
    monkeypatch.setattr(decoding, "decoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.read(files)
    monkeypatch.setattr(decoding, "decoded", watched)
    images, readable = store.read(files)
    assert "dog-3.png" in calls and "cat-0.png" not in calls
    assert readable.all() and holds(images, files)


KILLED = """
import itertools, sys, time
from pathlib import Path
from ltkd import decoding
decoding.SAVE_SECONDS, decoding.cores = 0, lambda: 1
original, begun = decoding.decoded, itertools.count()
def stuck(file, size):
    if next(begun) == 9:
        time.sleep(600)  # until it is killed
    return original(file, size)
decoding.decoded = stuck
folder = Path(sys.argv[1])
decoding.ImageStore(folder, "pets-8px", 8).read(sorted(folder.rglob("*.png")))
"""


def test_a_killed_build_goes_on(store, files, read_files, capsys):
    build = subprocess.Popen([sys.executable, "-c", KILLED, str(store.root)], env=os.environ)
    try:
        for _ in range(6000):
            if store._load()[0] or build.poll() is not None:
                break
            time.sleep(0.01)
    finally:
        build.send_signal(signal.SIGKILL)
    assert build.wait() == -signal.SIGKILL
    images, readable = store.read(files)
    assert readable.all() and holds(images, files)
    assert 0 < len(read_files) < len(files)
    assert f"Going on: {len(files) - len(read_files)} images are in" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["a byte", "cut off", "gone", "another time"])
def test_a_damaged_map_is_noticed_and_mended(store, files, read_files, damage, capsys):
    store.read(files)
    read_files.clear()
    content = bytearray(store.path.read_bytes())
    content[5 * 192 + 17] ^= 1
    if damage == "a byte":
        store.path.write_bytes(content)
    elif damage == "cut off":
        os.truncate(store.path, 17 * 192 + 5)
    elif damage == "gone":
        store.path.unlink()
    else:
        os.utime(store.path)
    images, readable = store.read(files)
    assert readable.all() and holds(images, files)
    number = {"a byte": 1, "cut off": 3, "gone": 20, "another time": 0}[damage]
    assert len(read_files) == number
    assert ("are damaged and are read again" in capsys.readouterr().out) == (number in (1, 3))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "x"}', "\x00\xff"])
def test_a_foreign_index_is_written_anew(store, files, content):
    held, _ = store.read(files)
    store.index.write_text(content)
    again = ImageStore(store.root, store.path.stem, 8)  # another process knows only the files
    images, _ = again.read(files[::-1])
    assert holds(images, files[::-1]) and holds(held, files)  # a training may be reading these


def test_broken_files_are_named_once_and_left_out(store, files, capsys):
    files[2].write_text("no image")
    files[9].write_bytes(b"")
    images, readable = store.read(files)
    assert np.flatnonzero(~readable).tolist() == [2, 9]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{files[2]} is left out: This is not an image that can be read")
    assert said[1:] == [f"{files[9]} is left out: The file is empty."]
    assert set(store.unreadable()) == {"cat/cat-2.png", "cat/cat-9.png"}
    store.read(files)
    assert capsys.readouterr().out == ""
    assert holds(images.where(readable), [f for f, r in zip(files, readable, strict=True) if r])


def test_many_broken_files_are_counted(store, files, monkeypatch, capsys):
    monkeypatch.setattr(decoding, "NAMED", 2)
    for file in files[:5]:
        file.write_text("no image")
    store.read(files)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and said[2].startswith("… and 3 more; ")


def test_a_file_that_vanishes_is_left_out(store, files, capsys):
    gone = files[0].with_name("gone.png")
    _, readable = store.read([*files, gone])
    assert readable.tolist() == [True] * 20 + [False]
    assert f"{gone} is left out: The file cannot be read (No such file" in capsys.readouterr().out


def test_a_huge_file_is_not_read(tmp_path):
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(decoding.MAX_FILE_BYTES + 1)
    with pytest.raises(decoding.ImageError, match="larger than 256 MiB"):
        decoded(huge, 8)


def test_a_full_disk_says_so_before_anything_is_decoded(store, files, read_files, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoding, "_allocate", full)
    with pytest.raises(OSError, match=r"^Could not write .*No space left on device\. Check that"):
        store.read(files)
    assert read_files == [] and list(store.path.parent.iterdir()) == []


def test_two_processes_decode_once(store, files, read_files):
    """While one waits for the claim, the other has decoded everything."""
    other, claim = ImageStore(store.root, "pets-8px", 8), decoding.claimed

    @contextlib.contextmanager
    def late(*arguments, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoding, "claimed", claim)
            other.read(files)
        with claim(*arguments, **options):
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "claimed", late)
        images, readable = store.read(files)
    assert len(read_files) == len(files) and readable.all() and holds(images, files)


def test_another_program_that_decodes_during_the_check(store, files, monkeypatch):
    store.read(files[:2])
    os.utime(store.path)  # so the map is to be checked
    first, second = (ImageStore(store.root, store.path.stem, 8) for _ in range(2))
    load, seen = first._load, {}

    def then_the_other_decodes():
        found = load()
        monkeypatch.setattr(first, "_load", load)
        seen["held"], _ = second.read(files[2:11])
        return found

    monkeypatch.setattr(first, "_load", then_the_other_decodes)
    images, _ = first.read(files[11:])
    assert holds(images, files[11:]) and holds(seen["held"], files[2:11])
    assert holds(ImageStore(store.root, store.path.stem, 8).read(files)[0], files)


def test_a_check_does_not_undo_what_another_program_has_just_decoded(store, files, monkeypatch):
    images, _ = store.read(files[:2])
    os.utime(store.path)
    load, seen = ImageStore._load, {}

    def then_the_other_decodes(self):
        found = load(self)
        monkeypatch.setattr(ImageStore, "_load", load)
        seen["held"], _ = ImageStore(store.root, store.path.stem, 8).read(files[2:11])
        return found

    monkeypatch.setattr(ImageStore, "_load", then_the_other_decodes)
    assert (decoding.checksums(images) >= 0).all()
    third, _ = ImageStore(store.root, store.path.stem, 8).read(files[11:])
    assert holds(third, files[11:]) and holds(seen["held"], files[2:11])


@pytest.mark.parametrize(
    ("place", "name", "error"),
    [(Path, "read_bytes", OSError(errno.EIO, "no answer")), (Image, "open", MemoryError("full"))],
)
def test_what_is_no_fault_of_a_file_is_not_kept_against_it(
    store, files, monkeypatch, place, name, error
):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(place, name, fails)
    with pytest.raises(ValueError, match=r"png cannot be read now \(.*\): fix that, or take the "):
        store.read(files)
    monkeypatch.undo()
    images, readable = store.read(files)
    assert readable.all() and holds(images, files)


def test_a_build_that_fails_early_takes_no_rows(store, files, monkeypatch):
    original = store._fill

    def killed(*arguments):
        raise KeyboardInterrupt

    for _ in range(3):
        monkeypatch.setattr(store, "_fill", killed)
        with pytest.raises(KeyboardInterrupt):
            store.read(files)
    monkeypatch.setattr(store, "_fill", original)
    assert holds(ImageStore(store.root, store.path.stem, 8).read(files)[0], files)
    assert store.path.stat().st_size == 20 * 3 * 8 * 8


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_disk_that_fills_up_later(store, files, monkeypatch):
    """Where the room cannot be taken in advance, as on macOS."""
    monkeypatch.setattr(decoding, "_allocate", lambda stored, size: None)
    store.path.parent.mkdir(parents=True)
    store.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"^Could not write .*No space left on device\. Check that"):
        store.read(files)
    store.path.unlink()
    images, readable = store.read(files)
    assert readable.all() and holds(images, files)


def test_a_folder_that_cannot_be_written(tmp_path, files, monkeypatch):
    (tmp_path / "in the way").write_text("a file")
    monkeypatch.setenv("LTKD_HOME", str(tmp_path / "in the way"))
    with pytest.raises(OSError, match=r"^Could not write .*pets-8px.json: .*Check that the folder"):
        ImageStore(tmp_path / "pets", "pets-8px", 8).read(files)


@pytest.mark.skipif(sys.platform == "darwin", reason="file names there are Unicode")
def test_names_that_are_no_unicode(store, files, capsys):
    odd = Path(os.fsdecode(os.fsencode(files[0].parent) + b"/caf\xe9 [1],.png"))
    files[0].rename(odd)
    broken = Path(os.fsdecode(os.fsencode(files[0].parent) + b"/\xff.JPG"))
    broken.write_text("no image")
    images, readable = store.read([odd, *files[1:], broken])
    assert readable.sum() == 20 and holds(images[:20], [odd, *files[1:]])
    assert "�.JPG is left out" in capsys.readouterr().out
    assert holds(store.read([odd])[0], [odd])


def test_photographs_are_upright_and_keep_their_aspect(tmp_path):
    picture = Image.new("RGB", (60, 20), "black")
    picture.paste("red", (20, 0, 40, 10))  # the upper half of the middle third
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    seen = decoded(tmp_path / "turned.png", 20)
    assert (seen[0, :, 11:] > 200).all() and (seen[0, :, :9] < 50).all()
    assert (seen[1:] < 50).all()


def test_large_jpegs_are_decoded_small_but_alike(tmp_path):
    random = np.random.default_rng(0)
    rough = Image.fromarray(random.integers(0, 256, (6, 9, 3), np.uint8))
    rough.resize((1800, 1200), Image.Resampling.BICUBIC).save(tmp_path / "large.jpg", quality=95)
    seen = decoded(tmp_path / "large.jpg", 64).astype(int)
    with Image.open(tmp_path / "large.jpg") as image:
        whole = np.asarray(decoding.ImageOps.fit(image, (64, 64))).transpose(2, 0, 1)
    assert np.abs(seen - whole).max() < 12


def test_a_file_that_may_be_read_later_is_read_then(store, files, monkeypatch):
    """Its size and time stay as they are when its owner allows to read it."""
    original, allowed = Path.read_bytes, []
    monkeypatch.setattr(os, "access", lambda path, _: bool(allowed) or Path(path) != files[3])

    def read(self):
        if self == files[3] and not allowed:
            raise PermissionError(13, "Permission denied")
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    _, readable = store.read(files)
    assert np.flatnonzero(~readable).tolist() == [3]
    assert "Permission denied" in store.unreadable()[store.name_of(files[3])]
    allowed.append(True)
    images, readable = store.read(files)
    assert readable.all() and holds(images, files)


def test_a_map_that_was_cut_off_in_a_row_that_is_not_used(store, files):
    store.read(files[:3])
    files[2].unlink()
    with store.path.open("r+b") as stored:
        stored.truncate(3 * 192 - 100)
    images, readable = store.read(files[:2])
    assert readable.all() and holds(images, files[:2])
