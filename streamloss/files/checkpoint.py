"""Checkpoints: what a run has found and how far it has read, together in one file, so that no row counts twice.

A checkpoint names the run it belongs to: the files as they were, the columns, the loss and the options. A run that
differs in any of them is refused. The file is replaced in one step, and all that it says has happened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from .. import stored
from ..losses import Formula, Loss
from . import outputs
from .results import Results, as_words, read
from .source import Position

Files: TypeAlias = Sequence[Mapping[str, Any]]
KIND = "checkpoint"
PAUSE = 10  # between two checkpoints, at least so many times as long as writing the last one took
MOST_NAMED = 3  # differences, or paths, in an error


class Kept(NamedTuple):
    """The content of a checkpoint."""

    run: Mapping[str, Any]  # what the run was asked for, and what it reads
    position: Position
    finished: bool
    results: Results
    history: Any = None  # of the running loss
    losses: Any = None  # how much has been written of the file of losses

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        results = self.results.to_bytes()
        header = self._asdict() | {"position": list(self.position), "results": len(results)}
        return stored.pack(KIND, header, as_words(results))

    @classmethod
    def from_bytes(cls, data: bytes, loss: Loss | Formula | None = None) -> Kept:
        """Read what `to_bytes` wrote; ValueError for anything else."""
        kind, header, words = stored.unpack(data)
        if kind != KIND:
            raise ValueError(f"it is of kind {kind!r}, expected {KIND!r}")
        results = Results.from_bytes(words.astype("<i8").tobytes()[: header["results"]], loss=loss)
        return cls(**header | {"position": Position(*header["position"]), "results": results})

    def described(self) -> list[tuple[str, str]]:
        """Describe the run and how far it came, in pairs of a name and words."""
        asked = [(name, _words(value)) for name, value in self.run.items() if value not in (None, [], False)]
        where = f"{'at the end' if self.finished else 'in the middle'}, row {self.position.rows:,}"
        return [*asked, ("position", where)]


class Checkpoint:
    """The checkpoint of a run: read at its beginning, written now and then."""

    def __init__(self, path: Path, run: Mapping[str, Any], every: float) -> None:
        self.path, self.every = path, every
        self.run: dict[str, Any] = json.loads(json.dumps(run))  # as it will be read again
        self._next = time.monotonic() + every

    def load(self, loss: Loss, *, with_history: bool = False) -> Kept | None:
        """Return what an earlier run has left, None if nothing; ValueError if it was another run or is damaged."""
        if not self.path.exists():
            return None
        kind, header, _ = read(self.path, stored.unpack)
        if kind == KIND:
            self._check(header.get("run", {}), has_history=header.get("history") is not None or not with_history)
        return read(self.path, lambda data: Kept.from_bytes(data, None if loss.is_builtin else loss))

    def _check(self, run: dict[str, Any], *, has_history: bool) -> None:
        """Refuse another run. Standard errors are compared last: --plot turns them on without the user's asking."""
        changes = self._changes(run)
        if changes:
            raise ValueError(f"{self.path} belongs to another run: {'; '.join(changes[:MOST_NAMED])}")
        if not has_history:
            raise ValueError(
                f"{self.path} was written without --plot (history): there is no running loss of the rows before it"
            )
        if run.get("stderr") != self.run.get("stderr"):
            was, now = ("with", "without") if run.get("stderr") else ("without", "with")
            raise ValueError(
                f"{self.path} was written {was} standard errors (--stderr, and --plot has them, too),"
                f" and this run is {now} them"
            )

    def _changes(self, run: dict[str, Any]) -> list[str]:
        """Return the differences in what was asked for; only if there are none, those in what is read."""
        apart = ("source", "stderr")
        was, now = ({name: value for name, value in each.items() if name not in apart} for each in (run, self.run))
        return [*differences(was, now)] or [*differences(run.get("source"), self.run.get("source"))]

    @property
    def is_due(self) -> bool:
        """Whether the next checkpoint should be written."""
        return time.monotonic() >= self._next

    def save(self, kept: Kept) -> None:
        """Replace the file."""
        begin = time.monotonic()
        outputs.write(self.path, kept.to_bytes())
        end = time.monotonic()
        self._next = end + max(self.every, PAUSE * (end - begin))


def check_seconds(every: float) -> None:
    """Refuse what is no number of seconds, or a negative one."""
    if isinstance(every, bool) or not isinstance(every, (int, float)):
        raise TypeError(f"every must be a number of seconds, got {type(every).__name__}")
    if not every >= 0:
        raise ValueError(f"every must be at least 0 seconds, got {every}")


def differences(was: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield what differs between two descriptions of a run, in words."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        changed = [*_differences(was, now)]
        if "path" in now and was.get("path") == now["path"]:
            yield from [f"{now['path']} has changed: {', '.join(changed)}"] if changed else []
        else:
            yield from changed
    elif _are_files(was) and _are_files(now):
        yield from _differing_files(was, now)
    elif was != now and name == "mtime_ns" and was and now:
        yield "it was last written on {}, and now on {}".format(*_times(was, now))
    elif was != now:
        yield f"{name} was {_short(was)}, is {_short(now)}"


def _differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in [*was, *(key for key in now if key not in was)]:
        yield from differences(was.get(key), now.get(key), key)


def _differing_files(was: Files, now: Files) -> Iterator[str]:
    before, after = [file["path"] for file in was], [file["path"] for file in now]
    gone, new = [path for path in before if path not in after], [path for path in after if path not in before]
    if before == after:
        for one, other in zip(was, now, strict=True):
            yield from differences(one, other)
    elif gone or new:
        yield " and ".join(
            [f"it read {_listed(gone)}"] * bool(gone) + [f"{_listed(new)} was not among its files"] * bool(new)
        )
    else:
        yield f"it read the files in another order, beginning with {_listed(before)}"


def _are_files(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) and "path" in v for v in value)


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths[:MOST_NAMED]) + (f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else "")


def _times(*times: int) -> list[str]:
    """Return nanoseconds since 1970 as local times, with fractions of seconds only if they differ in nothing else."""
    texts = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each // 10**9)) for each in times]
    if len(set(texts)) == len(texts):
        return texts
    return [f"{text}.{each % 10**9:09d}" for text, each in zip(texts, times, strict=True)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"  # the end of a path says most


def _words(value: Any) -> str:
    """Return a part of the description of a run, for people."""
    if isinstance(value, Mapping):
        return "; ".join(map(_words, value.values()))
    if _are_files(value):
        return _listed([file["path"] for file in value])
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
