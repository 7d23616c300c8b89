"""Image files decoded once, on all cores, into one file of bytes that is memory-mapped.

data/built/<name>.images holds uint8 (rows, 3, S, S); the index <name>.json says of every file its
size, its time, its row and the row's checksum. So a build that was killed goes on, only changed
files are read again, and a damaged map is noticed. The row of a file that went or changed is not
used again: a training may still be reading it. (To have the room back, delete both files.)
"""

import contextlib
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ImageOps

from .files import claimed, passing, printable, progress, shown, write_atomically, writing
from .images import ImageError, read_image
from .mapped import MappedImages
from .places import home

FORMAT = "ltkd-images 1"
MAX_FILE_BYTES = 256 * 2**20
SAVE_SECONDS = 0.5  # between two saves of the index, or 20 times what a save takes
GONE = -1, 0
NAMED = 20  # broken files that are named on the screen; the index names all


def checksums(images: MappedImages) -> np.ndarray:
    """The checksum of every image in a sound map, int64 (N,); −1 where the map has none."""
    store = ImageStore(Path(), images.path.stem, images.size)
    found = {e.row: e.checksum for e in store.sound_entries().values() if not e.error}
    return np.array([found.get(row, -1) for row in images.rows.tolist()], np.int64)


class Entry(NamedTuple):
    """What the index knows of one file. Its size and time tell whether it has changed."""

    bytes: int
    time: int  # nanoseconds
    row: int
    checksum: int = 0  # of the row
    error: str = ""  # why the file is left out, "" where it is not


class ImageStore:
    """The decoded images of the files below `root`, at one size.

    Parameters
    ----------
    root : files are known by their path from here
    name : of the two files in data/built/
    size : S, pixels; pictures are made upright, resized to cover the square, and centre cropped
    """

    def __init__(self, root: Path, name: str, size: int):
        self.root, self.size, self.row_bytes = root, size, 3 * size * size
        self.path = home() / "data" / "built" / f"{name}.images"
        self.index = self.path.with_suffix(".json")
        self.given = 0  # rows that were ever used, as far as the index has told

    def read(self, files: Sequence[Path]) -> tuple[MappedImages, np.ndarray]:
        """Decode what is not decoded yet; return the images and which are readable, bool (n,).

        Broken files are named. Raises OSError with one sentence where nothing can be written.
        """
        names = [self.name_of(file) for file in files]
        before = looked_at(self.index)
        entries = self.sound_entries()
        seen = {name: looked_at(file) for name, file in zip(names, files, strict=True)}
        if _stale(seen, entries):
            with claimed(self.index, f"The decoding to {shown(self.path)}", wait=True):
                if looked_at(self.index) != before:  # another process has just decoded some
                    entries = self.sound_entries()
                if stale := _stale(seen, entries):
                    self._decode(stale, seen, entries)
        rows = np.array([entries[name].row for name in names], np.int64)
        readable = np.array([not entries[name].error for name in names], bool)
        return MappedImages(self.path, rows, self.size), readable

    def name_of(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def unreadable(self) -> dict[str, str]:
        """The broken files that were met, and what is wrong with them."""
        entries = self._load()[0].items()
        return {n: e.error for n, e in entries if e.error and (self.root / n).exists()}

    def changes(self, now: dict[str, tuple[int, int]]) -> str:
        """What has happened to the files since they were read: path → size, time, see `listing`."""
        then = {name: entry[:2] for name, entry in self._load()[0].items()}
        changed = sum(then[name] != now[name] for name in then.keys() & now.keys())
        added, removed = len(now.keys() - then.keys()), len(then.keys() - now.keys())
        return f"{added} images added, {removed} removed, {changed} changed"

    # ------------------------------------------------------------------------------- the index

    def _load(self) -> tuple[dict[str, Entry], list[int]]:
        """The index's entries, and the size and time of the map they were written for."""
        try:
            content = json.loads(self.index.read_text("utf-8"))
            if content["format"] != FORMAT or content["image_size"] != self.size:
                raise ValueError("another index")
            entries = {name: Entry(*e) for name, e in content["files"].items()}
            self.given = max(self.given, content.get("rows", 0), _rows(entries))
            return entries, content["map"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            if self.path.is_file():  # a training may be reading it
                self.given = max(self.given, self.path.stat().st_size // self.row_bytes)
            return {}, []  # it is written anew

    def _save(self, entries: dict[str, Entry], finished: bool) -> None:
        """`finished`: the map is whole, so it need not be checked when it is next opened."""
        content = {
            "format": FORMAT,
            "image_size": self.size,
            "map": list(looked_at(self.path)) if finished else [],
            "rows": max(self.given, _rows(entries)),
            "files": entries,
        }
        text = json.dumps(content)
        write_atomically(self.index, lambda file: file.write(text.encode()))

    def sound_entries(self) -> dict[str, Entry]:
        """The index's entries without those whose row is damaged."""
        before = looked_at(self.index)
        entries, known = self._load()
        if not self.path.is_file():
            self.given = 0
            return {}
        if known == list(looked_at(self.path)):
            return entries
        sound: dict[str, Entry] = {}
        damaged = 0
        with self.path.open("rb") as stored:
            for name, entry in progress(entries.items(), desc="checking", unit=" images"):
                stored.seek(entry.row * self.row_bytes)
                row = b"" if entry.error else stored.read(self.row_bytes)
                whole = entry.error or (len(row), zlib.crc32(row)) == (
                    self.row_bytes,
                    entry.checksum,
                )
                sound |= {name: entry} if whole else {}
                damaged += not whole
        if not known and entries:
            print(f"Going on: {len(sound):,} images are in {shown(self.path)} already.")
        if damaged:
            print(f"{damaged:,} images of {shown(self.path)} are damaged and are read again.")
        elif entries:
            # a folder that is read-only still serves, and where another process decodes, it saves
            with contextlib.suppress(OSError), claimed(self.index, "The check of the index"):
                if looked_at(self.index) == before:
                    self._save(entries, finished=True)
        return sound

    # ----------------------------------------------------------------------------- the decoding

    def _decode(
        self, names: list[str], seen: dict[str, tuple[int, int]], entries: dict[str, Entry]
    ) -> None:
        """Decode the named files into the map, and put them into `entries`."""
        for name in [n for n in entries if n not in seen and not (self.root / n).exists()]:
            del entries[name]
        for name in names:
            entries.pop(name, None)
        wanted = {name: Entry(*seen[name], row) for row, name in enumerate(names, self.given)}
        size = (self.given + len(names)) * self.row_bytes
        with writing(self.path), self._opened(size, entries) as stored:
            self._fill(wanted, stored, entries)
            os.fsync(stored.fileno())  # before the index vouches for it
        self._save(entries, finished=True)
        self._name_broken([name for name in names if entries[name].error], entries)

    @contextlib.contextmanager
    def _opened(self, size: int, entries: dict[str, Entry]) -> Iterator[BinaryIO]:
        """The map, open for writing, with all the room that it needs taken now.

        The index is there from the start: a build that is killed takes no rows for good.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = self.path.stat().st_size if self.path.exists() else None
        with self.path.open("r+b" if before is not None else "w+b", buffering=0) as stored:
            try:
                if size > (before or 0):
                    _allocate(stored, size)
                self._save(entries, finished=False)
            except OSError:
                if before is None:
                    self.path.unlink(missing_ok=True)
                else:
                    stored.truncate(before)
                raise
            yield stored

    def _fill(self, wanted: dict[str, Entry], stored: BinaryIO, entries: dict[str, Entry]) -> None:
        lock, due = threading.Lock(), time.monotonic() + SAVE_SECONDS

        def job(item: tuple[str, Entry]) -> tuple[str, Entry]:
            name, entry = item
            try:
                row = decoded(self.root / name, self.size).tobytes()
            except ImageError as error:
                return name, entry._replace(error=str(error))
            with lock:
                stored.seek(entry.row * self.row_bytes)
                if stored.write(row) < len(row):  # what the disk still takes
                    raise OSError(28, "No space left on device")
            return name, entry._replace(checksum=zlib.crc32(row))

        pool = ThreadPoolExecutor(cores())
        bar = {"desc": "reading images", "unit": " images", "total": len(wanted)}
        try:
            for name, entry in progress(pool.map(job, wanted.items()), **bar):
                entries[name] = entry
                if (now := time.monotonic()) > due:
                    with contextlib.suppress(OSError):  # the last save will tell
                        self._save(entries, finished=False)
                    due = time.monotonic() + max(SAVE_SECONDS, 20 * (time.monotonic() - now))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            with contextlib.suppress(OSError):
                self._save(entries, finished=False)
            raise
        pool.shutdown()

    def _name_broken(self, names: list[str], entries: dict[str, Entry]) -> None:
        for name in names[:NAMED]:
            print(f"{printable(self.root / name)} is left out: {entries[name].error}")
        if len(names) > NAMED:
            print(f"… and {len(names) - NAMED:,} more; {shown(self.index)} names them all.")


def decoded(file: Path, size: int) -> np.ndarray:
    """One image file as uint8 (3, size, size): upright, resized to cover the square, cropped.

    Raises ImageError, for a file that has gone, too; ValueError where it is no fault of the file's
    that it cannot be read now.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ImageError(f"The file is larger than {MAX_FILE_BYTES // 2**20} MiB.")
        image = ImageOps.fit(read_image(file.read_bytes(), size), (size, size))
    except (ImageError, OSError, MemoryError) as error:
        cause = error.__cause__ or error
        if passing(cause):
            raise ValueError(
                f"{printable(file)} cannot be read now ({cause}): fix that, or take the file away."
            ) from error
        if isinstance(error, OSError):
            raise ImageError(f"The file cannot be read ({error.strerror}).") from error
        raise
    return np.asarray(image).transpose(2, 0, 1)


def cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _rows(entries: dict[str, Entry]) -> int:
    """How many rows a map has that holds these entries."""
    return max((entry.row + 1 for entry in entries.values()), default=0)


def _stale(seen: dict[str, tuple[int, int]], entries: dict[str, Entry]) -> list[str]:
    """The files that are not decoded, or have changed since."""
    return [n for n, now in seen.items() if n not in entries or entries[n][:2] != now]


def looked_at(file: Path) -> tuple[int, int]:
    """Size and time of a file, GONE where there is none; of one that may not be read the time is 0,
    so that it is read when that changes."""
    try:
        found = file.stat()
    except OSError:
        return GONE
    return found.st_size, found.st_mtime_ns if os.access(file, os.R_OK) else 0


def _allocate(stored: BinaryIO, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # a full disk says so now, not after an hour
        os.posix_fallocate(stored.fileno(), 0, size)
    else:
        stored.truncate(size)
