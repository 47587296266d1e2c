"""The interface of all readers: batches in a fixed order, and the names of their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


class Columns(NamedTuple):
    """The columns that the caller wants read: names or expressions of a table, or paths of arrays."""

    labels: str
    predictions: tuple[str, ...]
    weights: str | None = None
    by: tuple[str, ...] = ()


class Position(NamedTuple):
    """How far a source has been read; reading can go on from here."""

    file: int = 0  # files read to their end
    row: int = 0  # rows read of the next one
    rows: int = 0  # rows read in all
    bytes: int = 0  # of the files read in all; an estimate within a file
    offset: int = 0  # where the reader of that file goes on, if it needs more than the number of rows


class Batch(NamedTuple):
    """A part of a source that fits in memory."""

    labels: Array
    predictions: tuple[Array, ...]  # for each of the predictions, of the shape of labels
    weights: Array | None
    by: tuple[Any, ...]  # for each column of keys what GroupedAccumulator.update takes, a key per row
    end: Position  # after this batch
    place: Callable[[tuple[int, ...]], str]  # says where an index of labels lies: "row 17 of part-3.parquet"


class Source(Protocol):
    """Files, frames or arrays, opened and checked: every refusal has happened, and little has been read."""

    columns: Columns
    rows: int | None  # in all; None where counting them would mean reading the files
    bytes: int | None  # in all; None if unknown
    identity: Mapping[str, Any] | None  # what a checkpoint must find unchanged, for JSON; None: cannot be read again

    @property
    def paths(self) -> Sequence[str]:
        """The files that are read."""
        ...

    def batches(self, start: Position) -> Iterator[Batch]:
        """Yield the batches from a position on, always the same rows in the same order, but maybe cut differently."""
        ...

    def check_unchanged(self) -> None:
        """Raise ValueError if a file is not what it was when it was opened."""
        ...
