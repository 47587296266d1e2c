"""Chunks that a program makes: a generator of mappings or tuples of arrays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..keys import plain_keys
from .arrays import Inputs, KeyColumn, Named, check, plain_column
from .names import near
from .source import Batch, Columns, Position


class Chunks:
    """Chunks that come one after the other, to be read once."""

    rows: int | None = None
    bytes: int | None = None
    identity: Mapping[str, Any] | None = None
    paths: Sequence[str] = ()

    def __init__(self, first: Any, others: Iterator[Any], columns: Columns) -> None:
        self.columns = columns
        _inputs(0, first, columns)
        self._chunks = itertools.chain([first], others)

    def batches(self, start: Position) -> Iterator[Batch]:
        """Yield the chunks, whose rows are the entries of their arrays' first dimension."""
        if start != Position():
            raise ValueError("chunks that a program makes cannot be read from a position on")
        return self._batches()  # in the calling thread: the program's objects may belong to it

    def check_unchanged(self) -> None:
        """Do nothing: chunks are in no file."""

    def _batches(self) -> Iterator[Batch]:
        rows = 0
        keys = [KeyColumn() for _ in self.columns.by]
        for number, chunk in enumerate(self._chunks):
            labels, predictions, weights, by = _inputs(number, chunk, self.columns)
            rows += labels.array.shape[0] if labels.array.shape else 1
            yield Batch(
                labels.array,
                tuple(each.array for each in predictions),
                None if weights is None else weights.array,
                tuple(key.encode(each.array, each.name) for key, each in zip(keys, by, strict=True)),
                Position(0, rows, rows),
                partial(_place, number),
            )


def _inputs(number: int, chunk: Any, columns: Columns) -> Inputs:
    where = f"chunk {number}"
    if isinstance(chunk, tuple):
        inputs = _positional(where, chunk, columns)
    elif isinstance(chunk, Mapping):
        by = [_named(where, "by", name, chunk) for name in columns.by]
        predictions = [_named(where, "predictions", name, chunk) for name in columns.predictions]
        weights = None if columns.weights is None else _named(where, "weights", columns.weights, chunk)
        inputs = Inputs(_named(where, "labels", columns.labels, chunk), predictions, weights, by)
    else:
        raise TypeError(f"{where} must be a tuple or a mapping like those before it, got {type(chunk).__name__}")
    check(inputs)
    return inputs


def _positional(where: str, chunk: tuple[Any, ...], columns: Columns) -> Inputs:
    if columns.by or columns.weights is not None:
        raise ValueError(f"{where} is a tuple, whose arrays have no names, but by or weights name some")
    if len(chunk) not in (2, 3):
        raise ValueError(f"{where} must be (labels, predictions) or (labels, predictions, weights), got {len(chunk)}")
    several = chunk[1] if isinstance(chunk[1], (tuple, list)) and len(columns.predictions) > 1 else [chunk[1]]
    if len(several) != len(columns.predictions):
        raise ValueError(f"{where} has {len(several)} predictions, expected {len(columns.predictions)}")
    weights = _array(where, "weights", chunk[2]) if len(chunk) == 3 and chunk[2] is not None else None
    predictions = [_array(where, "predictions", each) for each in several]
    return Inputs(_array(where, "labels", chunk[0]), predictions, weights, [])


def _named(where: str, role: str, name: str, chunk: Mapping[str, Any]) -> Named:
    if name not in chunk:
        names = list(map(str, chunk))
        raise ValueError(f"{where} has no {name!r} for {role}{near(name, names)}; it has: {', '.join(names)}")
    return _array(where, repr(name), plain_keys(chunk[name]) if role == "by" else chunk[name])


def _array(where: str, what: str, value: Any) -> Named:
    value = plain_column(value)
    return Named(f"{what} of {where}", value if hasattr(value, "shape") else np.asarray(value))


def _place(number: int, index: tuple[int, ...]) -> str:
    return f"row {index[0] if index else 0} of chunk {number}"
