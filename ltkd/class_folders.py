"""Folders of images, one per class: which files belong to which class."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .files import printable

SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class DataError(Exception):
    """The data are missing, damaged or unfit; the message says what to do."""


def class_folders(path: Path, skip: str = "\0") -> list[Path]:
    """The class folders of `path` in alphabetical order; names that end in `skip` are left out."""
    try:
        folders = sorted(f for f in path.iterdir() if f.is_dir() and not _hidden(f.name))
    except OSError as error:
        raise DataError(f"The folder {path} cannot be read ({error.strerror}).") from error
    folders = [f for f in folders if not f.name.endswith(skip)]
    if len(folders) < 2:
        hint = ""
        if len(folders) == 1:
            inner = sum(f.is_dir() for f in folders[0].iterdir())
            hint = f" {folders[0]} has {inner}: did you mean that one?" if inner > 1 else ""
        raise DataError(
            f"{printable(path)} holds {len(folders)} class folders; at least 2 are needed."
            f"{printable(hint)}"
        )
    return folders


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
    return [printable(f.name) for f in folders], files


def other_files(path: Path) -> Counter[str]:
    """How many files below `path` belong to no class, by their suffix; those beside the class
    folders count as "beside the class folders".

    >>> other_files(Path("no such folder"))
    Counter()
    """
    found: Counter[str] = Counter()
    for file in visible_files(path) if path.is_dir() else ():
        if file.suffix.lower() not in SUFFIXES:
            found[printable(file.suffix.lower()) or "without suffix"] += 1
        elif file.parent == path:
            found["beside the class folders"] += 1
    return found


def visible_files(folder: Path) -> Iterator[Path]:
    """All files below the folder, but for hidden ones and what archives of macOS add."""
    for file in folder.rglob("*"):
        if not any(_hidden(part) for part in file.relative_to(folder).parts) and file.is_file():
            yield file


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """The image files below `folder`: path → size in bytes, time of the last change."""
    found = {}
    for file in sorted(f for f in visible_files(folder) if f.suffix.lower() in SUFFIXES):
        with contextlib.suppress(FileNotFoundError):  # removed this moment
            status = file.stat()
            found[file.relative_to(folder).as_posix()] = status.st_size, status.st_mtime_ns
    return found


def fingerprint(folder: Path) -> str:
    """A short text that changes when image files are added, removed or changed."""
    return hashlib.sha256(repr(listing(folder)).encode()).hexdigest()[:16]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
