"""Checkpoints: what a run has found and how far it has read, together in one file, so that no row counts twice.

A checkpoint names the run it belongs to: the files as they were, the columns, the loss and the options. A run that
differs in any of them is refused. The file is replaced in one step, and all that it says has happened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import stored
from ..losses import Formula, Loss
from . import outputs
from .results import Results, as_words, read
from .source import Position

KIND = "checkpoint"
SHARE = 10  # between two checkpoints lies at least so many times the time that writing the last one took
SHOWN = 3  # differences that a refusal names


class Kept(NamedTuple):
    """What a checkpoint holds."""

    run: Mapping[str, Any]  # what the run was asked for, and what it reads
    position: Position
    finished: bool
    results: Results
    history: Any = None  # of the running loss
    losses: Any = None  # how much has been written of the file of losses

    def to_bytes(self) -> bytes:
        """The file."""
        results = self.results.to_bytes()
        header = self._asdict() | {"position": list(self.position), "results": len(results)}
        return stored.pack(KIND, header, as_words(results))

    @classmethod
    def from_bytes(cls, data: bytes, loss: Loss | Formula | None = None) -> Kept:
        """Read what `to_bytes` wrote; ValueError for anything else."""
        kind, header, words = stored.unpack(data)
        if kind != KIND:
            raise ValueError(f"it holds a {kind}, expected a checkpoint")
        results = Results.from_bytes(words.astype("<i8").tobytes()[: header["results"]], loss=loss)
        return cls(**header | {"position": Position(*header["position"]), "results": results})

    def described(self) -> list[tuple[str, str]]:
        """What it is about, in words."""
        asked = [(name, _words(value)) for name, value in self.run.items() if value not in (None, [], False)]
        where = "at the end" if self.finished else f"after row {self.position.rows:,}"
        return [*asked, ("position", where)]


class Checkpoint:
    """The checkpoint of a run: read at its beginning, written now and then."""

    def __init__(self, path: Path, run: Mapping[str, Any], every: float) -> None:
        if isinstance(every, bool) or not isinstance(every, (int, float)):
            raise TypeError(f"every must be a number of seconds, got {type(every).__name__}")
        if not every >= 0:
            raise ValueError(f"every must be at least 0 seconds, got {every}")
        self.path, self.every = path, every
        self.run: dict[str, Any] = json.loads(json.dumps(run))  # as it will be when it is read again
        self._next = time.monotonic() + every

    def load(self, loss: Loss) -> Kept | None:
        """What an earlier run has left, None if there is nothing; ValueError if it was another or is damaged."""
        if not self.path.exists():
            return None
        kind, header, _ = read(self.path, stored.unpack)
        changes = [*differences(header.get("run"), self.run)] if kind == KIND else []
        if changes:
            raise ValueError(f"{self.path} belongs to another run: {'; '.join(changes[:SHOWN])}")
        return read(self.path, lambda data: Kept.from_bytes(data, None if loss.is_builtin else loss))

    @property
    def is_due(self) -> bool:
        """Whether the next one should be written."""
        return time.monotonic() >= self._next

    def save(self, kept: Kept) -> None:
        """Replace the file."""
        begin = time.monotonic()
        outputs.write(self.path, kept.to_bytes())
        end = time.monotonic()
        self._next = end + max(self.every, SHARE * (end - begin))


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def differences(was: Any, now: Any, name: str = "") -> Iterator[str]:
    """What differs between two descriptions of a run, in words."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in [*was, *(key for key in now if key not in was)]:
            yield from differences(was.get(key), now.get(key), f"{name} {key}".strip())
    elif was != now:
        yield f"{name} was {was!r}, is {now!r}"
