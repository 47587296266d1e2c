"""Tables in files: the same columns of each, read one file after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from . import columns as columns_of
from .ahead import ahead
from .coding import Coder
from .columns import Column
from .parquet import Parquet
from .part import ROWS, Part
from .source import Batch, Columns, Position
from .text import Text

__all__ = ["ROWS", "Table", "read"]

FORMATS: Mapping[str, Any] = {
    ".parquet": Parquet,
    ".pq": Parquet,
    ".csv": Text,
    ".tsv": Text,
    ".csv.gz": Text,
    ".csv.zst": Text,
    ".tsv.gz": Text,
    ".tsv.zst": Text,
    ".ndjson": Text,
    ".jsonl": Text,
    ".ndjson.gz": Text,
    ".ndjson.zst": Text,
    ".jsonl.gz": Text,
    ".jsonl.zst": Text,
}


class Table:
    """Columns of files."""

    def __init__(self, columns: Columns, parts: Sequence[Part]) -> None:
        self.columns, self.parts = columns, parts
        self.found = [columns_of.find(columns, part.schema, part.name) for part in parts]
        for part, found in zip(parts, self.found, strict=True):
            columns_of.check_same(self.found[0], parts[0].name, found, part.name)
        counts = [part.rows for part in parts]
        self.rows: int | None = None if None in counts else sum(count or 0 for count in counts)
        self.bytes: int | None = sum(part.size for part in parts)
        self.identity: Mapping[str, Any] | None = {
            "files": [_identity(part, found) for part, found in zip(parts, self.found, strict=True)]
        }

    def batches(self, start: Position) -> Iterator[Batch]:
        """The rows as float32 or float64, null as NaN, read ahead."""
        return ahead(self._batches(start))

    def _batches(self, start: Position) -> Iterator[Batch]:
        coders = [Coder() for _ in self.columns.by]
        rows = start.rows
        for i in range(start.file, len(self.parts)):
            part, row, offset = self.parts[i], 0, 0
            if i == start.file:
                row, offset = start.row, start.offset
            before = sum(part.size for part in self.parts[:i])
            held: Batch | None = None  # until it is known whether it ends the file
            for piece in part.pieces(self.found[i], row, offset):
                place = partial(_place, part.name, row)
                row, rows = row + piece.frame.height, rows + piece.frame.height
                if held is not None:
                    yield held
                end = Position(i, row, rows, before + piece.bytes, piece.offset)
                held = self._batch(piece.frame, coders, end, place)
            if held is not None:
                yield held._replace(end=Position(i + 1, 0, rows, before + part.size))

    def _batch(self, frame: pl.DataFrame, coders: list[Coder], end: Position, place: Any) -> Batch:
        series = iter(frame.iter_columns())
        labels = next(series).to_numpy()
        predictions = tuple(next(series).to_numpy() for _ in self.columns.predictions)
        weights = None if self.columns.weights is None else next(series).to_numpy()
        keys = tuple(coder.encode(next(series)) for coder in coders)
        return Batch(labels, predictions, weights, keys, end, place)


def read(paths: Path | Sequence[Path], columns: Columns) -> Table:
    """The columns of one or several files, checked."""
    return Table(columns, [_open(path) for path in ([paths] if isinstance(paths, Path) else paths)])


def _open(path: Path) -> Part:
    name = path.name.lower()
    for ending, reader in FORMATS.items():
        if name.endswith(ending):
            return reader(path)
    raise ValueError(f"{path}: unknown kind of file {path.suffix!r}, expected .parquet or .csv; for .npy give no FILE")


def _identity(part: Part, found: list[Column]) -> Mapping[str, Any]:
    path = Path(part.name)
    status = path.stat()
    return {
        "path": str(path.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "columns": columns_of.dtypes(found),
    }


def _place(name: str, first: int, index: tuple[int, ...]) -> str:
    return f"row {first + index[0]} of {name}"
