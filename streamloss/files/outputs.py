"""Files that appear whole or not at all; killed runs leave at most one temporary file for each."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .. import durable

try:
    import fcntl
except ImportError:  # this system has no such locks
    fcntl = None  # type: ignore[assignment]  # a module elsewhere


def temporary(path: Path) -> Path:
    """Return where a file is written until it is whole: always the same name, so that killed runs leave one file."""
    return path.with_name(f".{path.name}.tmp")


def check(path: str | os.PathLike[str]) -> Path:
    """Return the path if a file can be put there; otherwise OSError, before anything is computed."""
    with claimed(path) as checked:
        return checked


@contextmanager
def claimed(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Check a path and claim it for this run until it ends; ValueError if another run has it."""
    if not os.fspath(path):
        raise ValueError("cannot write '': the name of the file is empty")
    if os.fspath(path).endswith(os.sep):
        raise IsADirectoryError(f"cannot write {os.fspath(path)}: that names a directory")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a directory")
    if path.exists() and not path.is_file():
        raise OSError(f"cannot write {path}: it is no regular file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    lock = path.with_name(f".{path.name}.lock")
    with naming(path):
        file = _locked(lock)
    if file is None:
        raise ValueError(f"{path} is in use by another run")
    try:
        yield path
    finally:
        if fcntl is not None:
            lock.unlink(missing_ok=True)
        file.close()


def _locked(lock: Path) -> IO[bytes] | None:
    """Return the file, locked until it is closed or the process ends; None if another run has the lock.

    The owner removes the file before it closes it, so a lock counts only while the file has its name.
    """
    while True:
        file = lock.open("ab")
        if fcntl is None:
            file.close()
            lock.unlink(missing_ok=True)
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a file system without locks
            return file
        if _has_name(file, lock):
            return file
        file.close()


def _has_name(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say which file could not be written; the system names a temporary one, or none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; what lies there at the end is put in place in one step, for good."""
    new = temporary(path)
    with naming(path):
        try:
            yield new
            durable.place(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def write(path: Path, data: bytes) -> None:
    """Put a file with this content in place."""
    with replacing(path) as new:
        new.write_bytes(data)


def check_apart(written: Sequence[str], read: Sequence[str | None]) -> None:
    """Refuse to write what is read, or two things to one file."""
    for i, path in enumerate(written):
        if any(os.path.abspath(path) == os.path.abspath(other) for other in written[:i]):
            raise ValueError(f"cannot write {path}: it is given for two outputs")
        for source in filter(None, read):
            inside = os.path.isdir(source) and Path(os.path.realpath(source)) in Path(os.path.realpath(path)).parents
            matches = not os.path.exists(source) and fnmatch.fnmatch(path, source)
            if inside or matches or (os.path.exists(path) and _same(path, source)):
                raise ValueError(f"cannot write {path}: it belongs to what is read, {source}")


def _same(path: str, other: str) -> bool:
    return os.path.exists(other) and os.path.samefile(path, other)
