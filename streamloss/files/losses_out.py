"""The single losses of a run, written as they come to a .npy or a Parquet file.

Until all are there they lie beside it, under a name that begins with a dot. What a checkpoint has counted is on the
disk by then, and what came after it is cut off when the run goes on: the file has every row once.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from .. import durable
from ..keys import Coded
from . import outputs
from .source import Array, Columns

T = TypeVar("T")


class Writer(Protocol):
    """A file of losses in the making."""

    path: Path

    def begin(self, kept: Any) -> None:
        """Begin anew with None, or go on from what `keep` returned, which may be of an earlier process."""

    def add(self, losses: Array, by: tuple[Any, ...]) -> None:
        """Add rows: losses by prediction and row, and the columns of keys."""

    def keep(self) -> Any:
        """Have the disk keep all that was added; return what `begin` needs to go on from here."""

    def finish(self) -> None:
        """Put the whole file in place; what lies beside it is left to `discard`."""

    def discard(self) -> None:
        """Leave nothing behind."""


def open_writer(path: Path, columns: Columns) -> Writer:
    """Return the writer for this ending; ValueError for one that is unknown."""
    if path.suffix.lower() == ".npy":
        if columns.by:
            raise ValueError(f"losses_out: {path} has no place for keys (by); write a .parquet file")
        return NpyWriter(path, len(columns.predictions))
    if path.suffix.lower() == ".parquet":
        names = ("loss",) if len(columns.predictions) == 1 else columns.predictions
        double = set(columns.by) & set(names)
        if double:
            raise ValueError(f"losses_out: {path} would have two columns {double.pop()!r}")
        return ParquetWriter(path, (*columns.by, *names))
    raise ValueError(f"losses_out: unknown kind of file {path.suffix!r}, expected .parquet or .npy")


def _naming_the_file(method: Callable[..., T]) -> Callable[..., T]:
    """Wrap a method so that its errors say which file could not be written."""

    @functools.wraps(method)
    def call(self: Writer, *arguments: Any) -> T:
        with outputs.naming(self.path):
            return method(self, *arguments)

    return call


class NpyWriter:
    """float64, a row for each row of the source; a column for each prediction if there are several."""

    HEADER = 128  # bytes: room for a dozen dimensions

    def __init__(self, path: Path, predictions: int) -> None:
        self.path, self.part, self.predictions = path, outputs.temporary(path), predictions
        self.rows = 0
        self.inner: tuple[int, ...] = ()  # the shape of the losses of a row

    @_naming_the_file
    def begin(self, kept: Any) -> None:
        """Begin the file with room for the header, which is written last."""
        if kept is None:
            self.part.write_bytes(bytes(self.HEADER))
            durable.sync_names(self.part.parent)
            return
        self.rows, self.inner = kept["rows"], tuple(kept["inner"])
        size = self.HEADER + 8 * self.rows * int(np.prod(self.inner))
        if not self.part.exists() and self.path.is_file() and self.path.stat().st_size == size:
            os.replace(self.path, self.part)  # the earlier run ended between its last two steps
        if not self.part.exists() or self.part.stat().st_size < size:
            raise ValueError(f"{self.part} is gone or cut short: the checkpoint counts on its {self.rows} losses")
        os.truncate(self.part, size)
        durable.sync_names(self.part.parent)

    @_naming_the_file
    def add(self, losses: Array, by: tuple[Any, ...]) -> None:
        """Append rows."""
        rows = losses[0] if self.predictions == 1 else np.moveaxis(losses, 0, -1)
        if self.rows and rows.shape[1:] != self.inner:
            raise ValueError(f"losses_out: {self.path} needs rows of one shape, got {self.inner} and {rows.shape[1:]}")
        if not self.rows and len(self._header(2**63, rows.shape[1:])) > self.HEADER:
            raise ValueError(f"losses_out: {self.path} has no room for the shape of a row, {rows.shape[1:]}")
        self.inner = rows.shape[1:]
        with self.part.open("ab") as file:
            file.write(np.ascontiguousarray(rows, "<f8").data)
        self.rows += len(rows)

    @_naming_the_file
    def keep(self) -> Any:
        """Have the disk keep the rows, and return how many there are."""
        durable.sync(self.part)
        return {"rows": self.rows, "inner": list(self.inner)}

    @_naming_the_file
    def finish(self) -> None:
        """Write the header and put the file in place."""
        with self.part.open("r+b") as file:
            file.write(self._header(self.rows, self.inner))
        durable.place(self.part, self.path)

    def _header(self, rows: int, inner: tuple[int, ...]) -> bytes:
        """Return the beginning of the file, in NumPy's format 1.0."""
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {(rows, *inner)!r}, }}"
        text = header.ljust(self.HEADER - 11) + "\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()

    def discard(self) -> None:
        """Remove the rows."""
        self.part.unlink(missing_ok=True)


class ParquetWriter:
    """A column for each key and each prediction; parts of about a million rows, streamed into one file at the end.

    A Parquet file cannot be cut and continued. Files of their own can: what a checkpoint counts are whole parts. The
    file at the end has row groups of ROWS, whatever the parts are: the same bytes with and without a restart.
    """

    ROWS = 1 << 20  # that make a part, and of each row group of the whole file

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.folder, self.names = path, outputs.temporary(path), names
        self.parts = self.rows = 0
        self.waiting: list[Any] = []

    @_naming_the_file
    def begin(self, kept: Any) -> None:
        """Keep only the whole parts that the checkpoint counts."""
        self.parts, self.rows = (0, 0) if kept is None else (kept["parts"], kept["rows"])
        if kept is None:
            self.discard()
            self.folder.mkdir()
        durable.sync_names(self.folder.parent)
        missing = [part for part in range(self.parts) if not self._part(part).exists()]
        if missing:
            raise ValueError(f"{self._part(missing[0])} is gone: the checkpoint counts on its losses")
        for path in set(self.folder.iterdir()) - {self._part(part) for part in range(self.parts)}:
            path.unlink()

    @_naming_the_file
    def add(self, losses: Array, by: tuple[Any, ...]) -> None:
        """Add rows, which wait in memory until they are enough for a part."""
        import polars as pl

        if losses.ndim != 2:
            raise ValueError(f"losses_out: {self.path} needs one loss a row, got rows of shape {losses.shape[2:]}")
        columns = [*map(_series, by), *map(pl.Series, losses)]
        frame = pl.DataFrame(dict(zip(self.names, columns, strict=True)))
        if self.waiting and frame.schema != self.waiting[0].schema:
            self._flush()
        self.waiting.append(frame)
        self.rows += losses.shape[1]
        if sum(frame.height for frame in self.waiting) >= self.ROWS:
            self._flush()

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:08d}.parquet"

    def _flush(self) -> None:
        import polars as pl

        if self.waiting:
            path = self._part(self.parts)
            frame = pl.concat(self.waiting)
            with _polars_writes(self.path):
                frame.write_parquet(path, compression="lz4")
            durable.sync(path)
            self.parts, self.waiting = self.parts + 1, []

    @_naming_the_file
    def keep(self) -> Any:
        """Have the disk keep all rows, and return how many parts there are."""
        self._flush()
        durable.sync_names(self.folder)
        return {"parts": self.parts, "rows": self.rows}

    @_naming_the_file
    def finish(self) -> None:
        """Stream the parts into one file and put it in place."""
        import polars as pl
        from pyarrow import parquet as pq

        self._flush()
        whole = self.folder / "whole"
        parts = [pl.scan_parquet(self._part(part), glob=False) for part in range(self.parts)]
        types: Any = {name: self._type(name, parts) for name in self.names}
        with _polars_writes(self.path):
            whole_rows = pl.concat([part.cast(types) for part in parts])
            rows = whole_rows.collect_batches(chunk_size=self.ROWS, engine="streaming")
            tables = (frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()) for frame in rows)
            table = next(tables)
            with pq.ParquetWriter(whole, table.schema, compression="zstd") as file:
                for each in chain([table], tables):
                    file.write_table(each, self.ROWS)
        durable.place(whole, self.path)

    def _type(self, name: str, parts: Sequence[Any]) -> Any:
        """Return the type of a column that parts hold in several; ValueError if no type of number has all values."""
        import polars as pl

        kinds = {part.collect_schema()[name] for part in parts} - {pl.Null()}
        if len(kinds) < 2:
            return kinds.pop() if kinds else pl.String()
        whole = [part.select(pl.col(name)) for part in parts if part.collect_schema()[name].is_integer()]
        ends = [part.select(low=pl.first().min(), high=pl.first().max()).collect().row(0) for part in whole]
        numbers = [number for each in ends for number in each if number is not None]
        low, high = min(numbers, default=0), max(numbers, default=0)
        found: Any = pl.Float64()
        exact = low >= -(2**53) and high <= 2**53
        if all(kind.is_integer() for kind in kinds):
            found = pl.UInt64() if high >= 2**63 else pl.Int64()
            exact = high < 2**63 or low >= 0
        if exact and all(kind.is_numeric() for kind in kinds):
            return found
        several = ", ".join(sorted(map(str, kinds)))
        raise ValueError(f"losses_out: {self.path} has no type for the keys {name!r}, which are {several}")

    def discard(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _polars_writes(path: Path) -> Iterator[None]:
    """Raise OSError for Polars' errors: those for a full disk have no number, but the system's words in their text."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text = " ".join(str(error).split())
        said = re.search(r"([^:]+) \(os error \d+\)", text)
        raise OSError(f"cannot write {path}: {said[1].strip() if said else text}") from error


def _series(column: Any) -> Any:
    """Return a column of keys as a Polars series."""
    import polars as pl

    if isinstance(column, Coded):
        if not column.values:
            return pl.repeat(None, len(column.codes), dtype=pl.Null, eager=True)
        codes = pl.Series(np.asarray(column.codes, np.int64))
        return pl.Series(list(column.values), dtype=pl.String).gather(codes.set(codes < 0, None))
    if column.dtype == object:
        return pl.Series(column.tolist(), strict=False)
    if isinstance(column, np.ma.MaskedArray):
        return pl.Series(np.array(column.data)).set(pl.Series(np.ma.getmaskarray(column)), None)
    return pl.Series(np.array(column))  # a copy: it waits, and the caller may use its array again
