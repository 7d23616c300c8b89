"""Files are written whole or not at all; long jobs show a bar where somebody looks."""

import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from .places import home

PASSING = errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE


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
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part"
        )
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp's own mode would hide the file from other users
            os.replace(temporary, path)
        except BaseException as error:
            Path(temporary).unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
                raise error.__context__ from None  # torch.save turns a full disk into this
            raise


class Busy(OSError):
    """Another process is at the same work; the message says at which."""


@contextmanager
def claimed(path: Path, work: str, wait: bool = False) -> Iterator[None]:
    """Hold the sole right to make `path`, and the files beside it whose names start with its name.

    The lock is the operating system's: a process that is killed loses it, and what it left
    half-written is removed here. Where another process has the right, `wait` waits for it, and
    otherwise Busy is raised; either message begins with `work`. Raises OSError where the folder
    cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with claimed(Path(folder) / "model", "The training"):
    ...         with claimed(Path(folder) / "model", "The training"):
    ...             pass
    Traceback (most recent call last):
        ...
    ltkd.files.Busy: The training is under way in another process: wait for it, or stop it.
    """
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    busy = f"{work} is under way in another process:"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise Busy(f"{busy} wait for it, or stop it.") from None
            print(f"{busy} waiting for it.", flush=True)
            lock.acquire()
    try:
        for part in path.parent.glob(f".{path.name}*.part"):
            part.unlink()
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            file.unlink()
        lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a failed write into one sentence."""
    try:
        yield
    except Busy:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OSError:
    """The one sentence for a full disk or a folder that is read-only."""
    return OSError(
        f"Could not write {path}: {error.strerror or error}. Check that the folder can be "
        f"written to and that the disk has room."
    )


def write_json(path: Path, value: dict) -> None:
    """Write `value` as readable JSON, atomically: a list of numbers takes one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    text = re.sub(r"\[\n([^][{}\"]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    # a folder's name may hold bytes that are no text: they become escapes, which JSON knows
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def read_json(path: Path) -> dict:
    """What `write_json` wrote. Raises ValueError where the file is damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise ValueError(f"{shown(path)} is damaged ({error}): restore or delete it.") from error
    return value


def shown(path: Path) -> str:
    """A path as messages show it: from the working folder or LTKD_HOME on, where it lies below."""
    for folder in (home(), Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return str(path)


def progress(items: Iterable, **options: Any) -> tqdm:
    """A tqdm bar in a terminal or a notebook, once it takes longer than a second.

    Silence anywhere else, or with TQDM_DISABLE=1.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    silent = not watched or bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(items, delay=1, disable=silent, **options)


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory is used up: on a GPU, in torch on a CPU, or in NumPy.

    >>> out_of_memory(RuntimeError("CUDA out of memory.")), out_of_memory(RuntimeError("shape"))
    (True, False)
    """
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in said or "defaultcpuallocator" in said)
    )


def passing(error: BaseException) -> bool:
    """Whether it is no fault of a file that it could not be read: another time it may be.

    >>> passing(MemoryError()), passing(OSError(errno.EIO, "")), passing(OSError(errno.ENOENT, ""))
    (True, True, False)
    """
    return out_of_memory(error) or getattr(error, "errno", None) in PASSING


def unread(error: BaseException) -> bool:
    """Whether a file that could not be read may be sound: nothing may be written over it.

    >>> unread(PermissionError(errno.EACCES, "")), unread(ValueError("no zip file"))
    (True, False)
    """
    return passing(error) or getattr(error, "errno", None) == errno.EACCES


def printable(text: object) -> str:
    """The text with what no line of a screen can show replaced: file names may hold any bytes.

    >>> printable("caf\\udce9 one\\nline.jpg")
    'caf� one�line.jpg'
    """
    return re.sub("[\ud800-\udfff\x00-\x1f\x7f-\x9f\u2028\u2029]", "�", str(text))
