"""Find the files that a caller names by a path, a pattern, a directory, a URL, or a list of them."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from .formats import TABLES, ending, unknown

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
HIDDEN = (".", "_")


class File(NamedTuple):
    """A file, or a URL, and the columns that its directories stand for."""

    path: str
    keys: Mapping[str, str | None]


def find(names: Iterable[str | os.PathLike[str]]) -> list[File]:
    """Return the files, in the order given, and sorted within a pattern or a directory.

    A file that is named twice is refused: its rows would count twice.
    """
    files = [file for name in names for file in _expand(os.fspath(name))]
    seen: dict[str, str] = {}
    for i, file in enumerate(files):
        if ending(urlsplit(file.path).path if is_url(file.path) else file.path) is None:
            raise unknown(file.path, TABLES)
        first = seen.setdefault(_itself(file.path), file.path)
        if len(seen) <= i:
            also = "" if first == file.path else f", first as {first}"
            raise ValueError(f"{file.path} is given twice{also}: its rows would count twice")
    keys = [sorted(file.keys) for file in files]
    for file, own in zip(files, keys, strict=True):
        if own != keys[0]:
            raise ValueError(
                f"{file.path} lies under the partition keys {own}, but {files[0].path} under {keys[0]}:"
                " they must be the same for all files"
            )
    return files


def is_url(path: str) -> bool:
    """Whether it names a scheme; `c://` does not."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def _itself(path: str) -> str:
    """Return one name for all names of a file. Hard links are files of their own: stores use them for equal files."""
    return path if is_url(path) else os.path.realpath(path)


def _expand(name: str) -> Iterator[File]:
    if name.startswith("file://"):
        name = unquote(urlsplit(name).path)
    if is_url(name):
        yield File(name, {})
    elif os.path.isdir(name):
        yield from _directory(name)
    elif os.path.lexists(name):
        yield File(name, {})
    elif re.search(r"[*?\[]", name):
        yield from _pattern(name)
    else:
        hint = "; standard input cannot be read" if name == "-" else ""
        raise FileNotFoundError(f"no such file: {name}{hint}")


def _pattern(pattern: str) -> Iterator[File]:
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise FileNotFoundError(f"no file matches {pattern}")
    fixed = len(re.split(r"[*?\[]", pattern)[0].rpartition("/")[0])
    for path in paths:
        if not os.path.isdir(path):
            yield File(path, _keys(path[fixed:]))
        elif "**" not in pattern:
            keys = _keys(f"{path[fixed:]}/")
            yield from (file._replace(keys={**keys, **file.keys}) for file in _directory(path))


def state_of(path: str) -> dict[str, int]:
    """Return the bytes of a file and when it was changed last; of a directory, all that is below it, too."""
    states = [os.stat(each) for each in _below(path)]
    return {
        "size": sum(status.st_size for status in states),
        "mtime_ns": max(status.st_mtime_ns for status in states),
    }


def _below(path: str) -> Iterator[str]:
    yield path
    for folder, folders, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in (*folders, *names))


def check_unchanged(name: str, identity: Mapping[str, Any]) -> None:
    """Refuse a file whose "size" or "mtime_ns" has changed; one that has been removed was read nonetheless."""
    if "mtime_ns" not in identity or not os.path.lexists(identity["path"]):
        return
    now = state_of(identity["path"])
    if now != {key: identity[key] for key in now}:
        of = f", from {identity['size']} to {now['size']} bytes" if now["size"] != identity["size"] else ""
        raise ValueError(f"{name} was changed{of} while it was read")


def check_regular(path: str) -> None:
    """Refuse pipes and devices."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is no regular file, which can be read twice and from its middle")


def _directory(root: str) -> Iterator[File]:
    """Yield the data files below a directory; hidden ones, and marks like _SUCCESS, are not data."""
    found: list[str] = []
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        folders[:] = sorted(each for each in folders if not each.startswith(HIDDEN) or "=" in each)
        found += [os.path.join(folder, each) for each in names if not each.startswith(HIDDEN) and ending(each)]
    if not found:
        raise ValueError(f"{root} is a directory without data files; expected {', '.join(TABLES)}")
    endings = sorted({ending(path) or "" for path in found})
    if len({TABLES[each] for each in endings}) > 1:
        raise ValueError(
            f"{root} is a directory of several formats, {', '.join(endings)}; name the files that are meant"
        )
    yield from (File(path, _keys(os.path.relpath(path, root))) for path in sorted(found))


def _keys(path: str) -> Mapping[str, str | None]:
    """Return the keys of directories named key=value."""
    pairs = [part.split("=", 1) for part in path.split("/")[:-1] if "=" in part]
    return {unquote(key): None if value == NO_VALUE else unquote(value) for key, value in pairs if key}


def _raise(error: OSError) -> None:
    raise error
