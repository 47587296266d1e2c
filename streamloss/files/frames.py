"""Tables in memory, or that another library computes: Polars, pandas, and whatever speaks Arrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pyarrow as pa

from .columns import Selection
from .part import ERRORS, ROWS, Part, Piece, readable, slices


def open_frame(source: Any) -> Part:
    """Open a table as a part; TypeError for what is no table."""
    if isinstance(source, pl.DataFrame):
        return Lazy(source.lazy(), "the DataFrame", source.height)
    if isinstance(source, pl.LazyFrame):
        return Lazy(source, "the LazyFrame", None)
    module = type(source).__module__.partition(".")[0]
    if module == "pandas" and hasattr(source, "iloc"):
        return Pandas(source)
    if hasattr(source, "__arrow_c_stream__") or (module == "pyarrow" and hasattr(source, "to_batches")):
        return Stream(source)
    raise TypeError(f"expected a table, got {type(source).__name__}")


class _InMemory(ABC):
    """The base of tables in memory: they are no files, and a later run cannot know that they are the same."""

    name: str
    schema: pl.Schema
    rows: int | None = None
    size = 0
    identity: Mapping[str, Any] = {}

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the rows from a row on."""
        try:
            for frame in self._frames(columns, row):
                yield Piece(frame, 0)
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error

    @abstractmethod
    def _frames(self, columns: Selection, row: int) -> Iterator[pl.DataFrame]:
        """Yield the frames from a row on."""


class Lazy(_InMemory):
    """A query of Polars, which its streaming engine computes as it is read."""

    def __init__(self, frame: pl.LazyFrame, name: str, rows: int | None) -> None:
        self.name, self._frame, self.rows = name, frame, rows
        try:
            self.schema = frame.collect_schema()
        except (*ERRORS, OSError) as error:
            raise readable(name, error) from error

    def _frames(self, columns: Selection, row: int) -> Iterator[pl.DataFrame]:
        lazy = columns.of(self._frame.slice(row))
        yield from lazy.collect_batches(chunk_size=ROWS, engine="streaming")


class Pandas(_InMemory):
    """A pandas DataFrame, converted piece by piece; the type of columns of objects is inferred anew in each."""

    name = "the DataFrame"

    def __init__(self, frame: Any) -> None:
        self._columns = {str(name): frame.iloc[:, i] for i, name in enumerate(frame.columns)}
        names = [str(name) for name in frame.columns]
        self.repeated = {name for name in names if names.count(name) > 1}
        self.rows = len(frame)
        self.schema = pl.Schema({name: _pandas_type(column) for name, column in self._columns.items()})

    def _frames(self, columns: Selection, row: int) -> Iterator[pl.DataFrame]:
        schema = self.schema
        for start in range(row, self.rows or 0, ROWS):
            parts = {name: self._series(name, start) for name in columns.roots}
            types = pl.Schema({**schema, **{name: part.dtype for name, part in parts.items()}})
            if types != schema:
                columns, schema = columns.again(types, f"{self.name} (rows from {start:,} on)"), types
            yield columns.of(pl.DataFrame(parts))

    def _series(self, name: str, start: int) -> pl.Series:
        try:
            return _from_pandas(self._columns[name].iloc[start : start + ROWS])
        except (TypeError, ValueError, *ERRORS) as error:  # objects of several kinds
            reason = " ".join(str(error).split())
            raise TypeError(f"column {name!r} of {self.name} (rows from {start:,} on): {reason}") from error


def _pandas_type(column: Any) -> Any:
    try:
        return _from_pandas(column.head(ROWS if column.dtype == object else 1)).dtype
    except (TypeError, ValueError, *ERRORS):
        return pl.Object()


def _from_pandas(column: Any) -> pl.Series:
    if column.dtype == object and column.isna().all():
        return pl.repeat(None, len(column), dtype=pl.Null, eager=True)
    converted: Any = pl.from_pandas(column, include_index=False)
    return converted


class Stream(_InMemory):
    """A table, reader, scanner, dataset or relation that yields Arrow record batches; a reader can be read once."""

    def __init__(self, source: Any) -> None:
        self.name = f"the {type(source).__name__}"
        source = source.to_reader() if hasattr(source, "projected_schema") else source  # a scanner knows its columns
        self._dataset = None if hasattr(source, "__arrow_c_stream__") else source
        try:
            self._reader = None if self._dataset is not None else pa.RecordBatchReader.from_stream(source)
            schema = source.schema if self._reader is None else self._reader.schema
            self.schema = pl.DataFrame(schema.empty_table()).schema
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error

    def _frames(self, columns: Selection, row: int) -> Iterator[pl.DataFrame]:
        batches = self._reader
        if self._dataset is not None:
            batches = self._dataset.to_batches(
                columns=columns.roots, batch_size=ROWS, batch_readahead=2, fragment_readahead=1
            )
        assert batches is not None
        yield from slices(batches, columns, row)


class Frames:
    """Frames that a program makes one after the other, to be read once."""

    rows: int | None = None
    size = 0
    identity: Mapping[str, Any] = {}

    def __init__(self, first: Part, others: Iterator[Any]) -> None:
        self.name = first.name = "chunk 0"
        self.schema = first.schema
        self._first, self._others = first, others

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the rows of all frames; exceptions of the program that makes them are passed on unchanged."""
        yield from self._first.pieces(columns, row, 0)
        for number, chunk in enumerate(self._others, 1):
            try:
                part = open_frame(chunk)
            except TypeError as error:
                raise TypeError(f"chunk {number}: {error}") from error
            part.name = f"chunk {number}"
            yield from part.pieces(columns.again(part.schema, part.name), 0, 0)
