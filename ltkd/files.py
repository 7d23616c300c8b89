"""Files are written whole or not at all; long jobs show a bar where somebody looks."""

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from .experiments import home


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a temporary file beside `path`, then rename it to `path`.

    A reader sees the old file or the new one, never half of one. Raises OSError with one clear
    sentence where the folder cannot be written or the disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "a" / "b.txt", lambda file: file.write(b"text"))
    ...     (Path(folder) / "a" / "b.txt").read_bytes()
    b'text'
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part"
        )
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's own mode would hide the file from other users
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(
                f"Could not write {path}: {error.strerror or error}. Check that the folder can be "
                f"written and that the disk has room."
            ) from error
        raise


def write_json(path: Path, value: dict) -> None:
    """Write `value` as readable JSON, atomically: a list of numbers takes one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    text = re.sub(r"\[\n([^][{}\"]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    write_atomically(path, lambda file: file.write(text.encode()))


def shown(path: Path) -> str:
    """A path as messages show it: from the working folder or LTKD_HOME on, where it lies below."""
    for folder in (home(), Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


def progress(items: Iterable, **options) -> tqdm:
    """A tqdm bar in a terminal or a notebook, once it takes longer than a second.

    Silence anywhere else, or with TQDM_DISABLE=1.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    if not watched or os.environ.get("TQDM_DISABLE"):
        options["disable"] = True
    return tqdm(items, delay=1, **options)
