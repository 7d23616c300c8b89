"""Folders of images, one per class: which files belong to which class."""

import errno
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from .decoding import GONE, looked_at
from .files import printable

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}


class DataError(Exception):
    """The data are missing, damaged or unfit; the message says what to do."""


def class_folders(path: Path, skip: str = "\0") -> list[Path]:
    """The class folders of `path` in the order of their names; those that end in `skip` are left
    out. Raises DataError for fewer than two, and where two are one class."""
    folders = sorted((f for f in _folders(path) if not f.name.endswith(skip)), key=class_name)
    if len(folders) < 2:
        hint = ""
        if len(folders) == 1:
            inner = sum(f.is_dir() for f in folders[0].iterdir())
            hint = f" {folders[0]} has {inner}: did you mean that one?" if inner > 1 else ""
        raise DataError(
            f"{printable(path)} holds {len(folders)} class folders; at least 2 are needed, each "
            f"with the images of one class.{printable(hint)}"
        )
    _check_distinct(path, folders)
    return folders


def class_name(folder: Path) -> str:
    """The folder's name. An accent may be a letter's own part or a sign after it: here the first,
    because systems differ in how they write file names."""
    return unicodedata.normalize("NFC", printable(folder.name))


def _check_distinct(path: Path, folders: list[Path]) -> None:
    names: dict[str, Path] = {}
    root = path.resolve()
    for folder in folders:
        if root.is_relative_to(folder.resolve()):
            raise DataError(
                f"{printable(folder)} is a link to a folder that holds it: remove the link."
            )
        twin = names.setdefault(class_name(folder), folder)
        if twin is not folder:
            raise DataError(
                f"Two class folders are one class: {printable(twin)!r} and {printable(folder)!r} "
                f"have the same name. Keep one of them."
            )
    check_apart(folders)


def check_apart(folders: list[Path]) -> None:
    """Raise DataError where a folder is another one or lies in it, as a link may: its images would
    count twice."""
    places: dict[Path, Path] = {}
    for folder in folders:
        twin = places.setdefault(folder.resolve(), folder)
        if twin is not folder:
            raise DataError(
                f"Two class folders are one class: {printable(twin)!r} and {printable(folder)!r} "
                f"have the same place. Keep one of them."
            )
    for place, folder in places.items():
        outer = next((places[above] for above in place.parents if above in places), None)
        if outer is not None:
            raise DataError(
                f"The class folder {printable(folder)!r} is a link into the class folder "
                f"{printable(outer)!r}: its images would be of both. Keep one of them."
            )


def class_files(path: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """The class names, and every image file with its class: images anywhere below a class folder.

    Hidden files and folders are left out. Raises DataError for an empty class folder.
    """
    folders, files = class_folders(path), []
    for label, folder in enumerate(folders):
        found = sorted(f for f in visible_files(folder) if f.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(
                f"The class folder {printable(folder)} holds no image "
                f"({', '.join(sorted(SUFFIXES))}): add some, or remove the folder."
            )
        files += [(f, label) for f in found]
    return [class_name(f) for f in folders], files


def split_folders(path: Path) -> dict[str, Path]:
    """The folders train and test of `path`, in capitals or not; empty where it has not both.

    Raises DataError where all of its folders are named like parts of a split, but not these two.
    """
    parts = {f.name.lower(): f for f in sorted(_folders(path))}
    if {"train", "test"} <= parts.keys():
        return {name: parts[name] for name in ("train", "test")}
    if len(parts) > 1 and parts.keys() <= PARTS:
        found = " and ".join(f"{f.name}/" for f in parts.values())
        raise DataError(
            f"{printable(path)} holds {found}: name the folder to learn from train/ and the one "
            f"to test on test/, or put all images of a class into one folder."
        )
    return {}


def other_files(path: Path) -> Counter[str]:
    """How many files below `path` belong to no class, by their suffix; those beside the class
    folders count as "beside the class folders".

    >>> other_files(Path("no such folder"))
    Counter()
    """
    found: Counter[str] = Counter()
    if not path.is_dir():
        return found
    linked, places = _linked(path), [path, *split_folders(path).values()]
    for file in chain.from_iterable(map(_everything, (path, *linked))):
        if not os.path.exists(file):
            found["dangling links"] += 1
        elif file in linked:
            continue
        elif file.is_dir():
            found["links to folders"] += 1
        elif file.suffix.lower() not in SUFFIXES:
            found[printable(file.suffix.lower()) or "without suffix"] += 1
        elif file.parent in places:
            found["beside the class folders"] += 1
    return found


def visible_files(folder: Path) -> Iterator[Path]:
    """All files below the folder, but for hidden ones and what archives of macOS add.

    Links to files are followed, links to folders are not: they may lead round in a circle.
    Raises DataError for a folder that cannot be read.
    """
    return (file for file in _everything(folder) if os.path.isfile(file))


def _folders(path: Path) -> list[Path]:
    """The visible folders in `path`, links to folders among them."""
    try:
        return [f for f in path.iterdir() if f.is_dir() and not _hidden(f.name)]
    except OSError as error:
        raise _closed(path, error) from error


def _linked(path: Path) -> list[Path]:
    """The class folders below `path`, and the parts of a split, that are links to folders.

    But for links to what holds `path`, which _check_distinct refuses.
    """
    parts, root = list(split_folders(path).values()), path.resolve()
    inside = (f for part in parts or [path] for f in _folders(part))
    links = (f for f in (*parts, *inside) if f.is_symlink())
    return [f for f in links if not root.is_relative_to(f.resolve())]


def _everything(folder: Path) -> Iterator[Path]:
    """All visible files and links to folders below the folder."""

    def refuse(error: OSError) -> None:
        raise _closed(Path(error.filename), error) from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        links = [f for f in folders if os.path.islink(os.path.join(place, f))]
        folders[:] = [f for f in folders if not _hidden(f)]
        if files and not os.access(place, os.X_OK):
            raise _closed(Path(place), PermissionError(errno.EACCES, "Permission denied"))
        yield from (Path(place, name) for name in files + links if not _hidden(name))


def _closed(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"The folder {printable(folder)} cannot be read ({error.strerror}): change its "
        f"permissions, or move it elsewhere."
    )


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """The image files of the classes below `folder`: path → size and time, as decoding.looked_at
    gives them.

    Of links to folders, those are followed that stand for a class or a part of a split.
    """
    found = {}
    parts = list(split_folders(folder).values()) or [folder]
    files = chain.from_iterable(map(visible_files, (*parts, *_linked(folder))))
    images = (f for f in files if f.suffix.lower() in SUFFIXES and f.parent not in parts)
    for file in sorted(images):
        if (now := looked_at(file)) != GONE:  # removed this moment
            found[file.relative_to(folder).as_posix()] = now
    return found


def fingerprint(folder: Path) -> str:
    """A short text that changes when image files are added, removed or changed."""
    return hashlib.sha256(repr(listing(folder)).encode()).hexdigest()[:16]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
