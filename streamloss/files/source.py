"""What every reader of files returns: batches of rows, and what the columns are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy.typing as npt


class Batch(NamedTuple):
    """Consecutive rows of a source; `first` is the number of the first row."""

    first: int
    labels: npt.NDArray[Any]
    predictions: npt.NDArray[Any]
    weights: npt.NDArray[Any] | None


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
