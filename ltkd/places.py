"""Where the project is, and the folder that holds its data and models."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def from_user(path: str | os.PathLike) -> Path:
    """A path as somebody gave it. A relative one starts from the working folder, but in the
    course's notebooks from the project's, where the shell was that started them."""
    path = Path(os.path.expanduser(path))
    return PROJECT / path if not path.is_absolute() and _in_course() else path


def existing(path: str | os.PathLike) -> Path:
    """A path as somebody gave it, of something that is there: it starts from the working folder or,
    if nothing is there, from the project's; in the course's notebooks the other way round.

    Raises OSError where that cannot be seen, RuntimeError for the home of no user.
    """
    path = Path(path).expanduser()
    places = [path, PROJECT / path]
    places = places[::-1] if _in_course() else places
    return next((place for place in places if place.exists()), path)


def _in_course() -> bool:
    return Path.cwd().is_relative_to(PROJECT / "notebooks")


def home() -> Path:
    """The folder that holds data/ and saved_model/: the project, or where LTKD_HOME points."""
    return from_user(os.environ.get("LTKD_HOME") or PROJECT)
