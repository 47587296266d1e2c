"""What every reader of files returns: batches, and what the columns are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy.typing as npt


class Batch(NamedTuple):
    """A part of a source that fits in memory."""

    labels: npt.NDArray[Any]
    predictions: npt.NDArray[Any]
    weights: npt.NDArray[Any] | None
    done: int  # rows of the source read with it
    row: Callable[[tuple[int, ...]], int]  # the number of the row that an index of labels is in


class Names(NamedTuple):
    """What labels, predictions and weights are called in a source."""

    labels: str
    predictions: str
    weights: str | None


class Source(NamedTuple):
    """What a reader makes of the caller's files; `rows` is None where counting them would mean reading the file."""

    batches: Iterator[Batch]
    names: Names
    rows: int | None
