"""Tables in files: the same columns of each, read one file after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from . import columns as columns_of
from . import frames
from .ahead import ahead
from .coding import Coder
from .columns import Selection
from .formats import TABLES, ending, opener
from .part import ROWS, Part, Piece
from .paths import File, check_regular, check_unchanged, find, is_url
from .remote import open_remote
from .source import Batch, Columns, Position
from .text import Text


class Opened(NamedTuple):
    """A file and what is read of it."""

    part: Part
    selection: Selection


class Table:
    """The wanted columns of several files."""

    def __init__(self, columns: Columns, files: Sequence[Opened]) -> None:
        self.columns, self._files = columns, files
        counts = [part.rows for part, _ in files]
        self.rows: int | None = None if None in counts else sum(count or 0 for count in counts)
        sizes = [part.size for part, _ in files]
        self.bytes: int | None = None if None in sizes else sum(size or 0 for size in sizes)
        self.identity: Mapping[str, Any] | None = {
            "files": [{**part.identity, "columns": columns_of.dtypes(chosen.columns)} for part, chosen in files]
        }

    @property
    def paths(self) -> Sequence[str]:
        """The files that are read, or their URLs."""
        return [part.identity["path"] for part, _ in self._files if "path" in part.identity]

    def batches(self, start: Position) -> Iterator[Batch]:
        """Yield the rows as float32 or float64, null as NaN, read ahead where they come from files."""
        batches = self._batches(start)
        if any(isinstance(part, frames.Frames) for part, _ in self._files):
            return batches
        return ahead(batches, size=lambda batch: len(batch.labels), enough=ROWS)

    def check_unchanged(self) -> None:
        """Raise ValueError if a file is not what it was when it was opened."""
        for part, _ in self._files:
            check_unchanged(part.name, part.identity)

    def _batches(self, start: Position) -> Iterator[Batch]:
        coders = [Coder() for _ in self.columns.by]
        rows = start.rows
        before = sum(part.size or 0 for part, _ in self._files[: start.file])
        row, offset = start.row, start.offset
        for i, (part, selection) in enumerate(self._files[start.file :], start.file):
            held: Batch | None = None  # the last batch, until it is known whether it ends the file
            for piece in part.pieces(selection, row, offset) if part.rows != 0 else ():
                if held is not None:
                    yield held
                place = partial(_place, part.name, row)
                row, rows = row + piece.frame.height, rows + piece.frame.height
                end = Position(i, row, rows, before + piece.bytes, piece.offset)
                held = self._batch(piece, selection, coders, end, place, part.name)
            if part.rows is not None and row != part.rows:  # a reader that panics may end as if all had been read
                raise ValueError(f"{part.name} cannot be read: its reader stopped after {row} of {part.rows} rows")
            before, row, offset = before + (part.size or 0), 0, 0
            if held is not None:
                yield held._replace(end=Position(i + 1, 0, rows, before))

    def _batch(
        self, piece: Piece, selection: Selection, coders: list[Coder], end: Position, place: Any, name: str
    ) -> Batch:
        series = iter(piece.frame.iter_columns())
        rows = piece.frame.height
        apart = {**piece.texts, **{text: np.broadcast_to(key, rows) for text, key in selection.same.items()}}
        labels = next(series).to_numpy()
        predictions = tuple(next(series).to_numpy() for _ in self.columns.predictions)
        weights = None if self.columns.weights is None else next(series).to_numpy()
        by = zip(coders, self.columns.by, strict=True)
        keys = tuple(apart[text] if text in apart else _coded(coder, next(series), text, name) for coder, text in by)
        return Batch(labels, predictions, weights, keys, end, place)


def read(names: Sequence[str], columns: Columns) -> Table:
    """Open files, directories, patterns or URLs, and check their columns."""
    files = find(names)
    types = _key_types(files)
    opened: list[Opened] = []
    kinds = columns_of.Kinds()
    for file in files:
        part = _open(file.path)
        constants = {name: pl.Series([value]).cast(types[name]) for name, value in file.keys.items()}
        if isinstance(part, Text):
            part.prepare(columns)
        schema = pl.Schema({**part.schema, **types})
        found = _found(columns, schema, part)
        _check_keys(file, found, part)
        if part.rows != 0:
            kinds.check(found, part.name)
        opened.append(Opened(part, Selection(found, constants, part.name)))
    return Table(columns, opened)


def of_frame(frame: Any, columns: Columns) -> Table:
    """Open a table in memory, and check its columns."""
    return _of_part(frames.open_frame(frame), columns)


def of_frames(first: Any, others: Iterator[Any], columns: Columns) -> Table:
    """Open tables that a program makes one after the other."""
    return _of_part(frames.Frames(frames.open_frame(first), others), columns)


def _of_part(part: Part, columns: Columns) -> Table:
    found = _found(columns, part.schema, part)
    table = Table(columns, [Opened(part, Selection(found, {}, part.name))])
    table.bytes = table.identity = None
    return table


def _open(path: str) -> Part:
    if is_url(path):
        return open_remote(path)
    check_regular(path)
    part: Part = opener(TABLES, ending(path) or "").open_part(Path(path))
    return part


def _found(columns: Columns, schema: pl.Schema, part: Part) -> list[columns_of.Column]:
    """Find the columns in a file. In one without rows, types mean nothing: whoever wrote it saw no values."""
    if part.rows == 0 and not part.schema:  # no lines of JSON
        return []
    repeated = getattr(part, "repeated", ())
    try:
        return columns_of.find(columns, schema, part.name, repeated)
    except (TypeError, ValueError):
        if part.rows != 0:
            raise
        return columns_of.find(columns, pl.Schema(dict.fromkeys(schema, pl.Null())), part.name, repeated)


def _check_keys(file: File, found: Iterable[columns_of.Column], part: Part) -> None:
    for column in found:
        for root in column.roots:
            if root in file.keys and root in part.schema:
                raise ValueError(
                    f"{root!r} for {column.role} is both a column of {part.name} and a key of its directories,"
                    f" {root}={file.keys[root]}; rename one of them"
                )


def _coded(coder: Coder, keys: pl.Series, text: str, name: str) -> Any:
    try:
        return coder.encode(keys)
    except (TypeError, ValueError) as error:
        raise type(error)(f"column {text!r} of {name} for by: {error}") from error


def _key_types(files: Iterable[File]) -> dict[str, Any]:
    """Return the types of directories' keys: whole numbers if they are that in all directories, otherwise text."""
    values: dict[str, list[str]] = {}
    for file in files:
        for name, value in file.keys.items():
            values.setdefault(name, []).extend([] if value is None else [value])
    return {name: pl.Int64() if each and all(map(_is_whole, each)) else pl.String() for name, each in values.items()}


def _is_whole(value: str) -> bool:
    """Whether it is written as numbers are: 01 and --1 are text."""
    return re.fullmatch("0|-?[1-9][0-9]{0,17}", value) is not None


def _place(name: str, first: int, index: tuple[int, ...]) -> str:
    return f"row {first + index[0]} of {name}"
