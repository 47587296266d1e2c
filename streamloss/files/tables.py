"""Parquet and CSV files, through Polars' streaming engine.

Polars, because it reads ahead in bounded memory and waits for a slow consumer; other readers buffer gigabytes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from .source import Batch, Columns, Position

ROWS = 1 << 20  # of a batch: 8 MB a column at the most

# A narrow column is handed on as float32, which holds it exactly, and a wide one as float64.
NARROW = (pl.Float32, pl.Float16, pl.Boolean, pl.Int8, pl.UInt8, pl.Int16, pl.UInt16)

# What writers of CSV put for a missing number, and NaN as C prints it.
MISSING = ["", "NA", "N/A", "n/a", "NULL", "null", "None", "nan", "-nan"]
INFERRED = 10_000  # rows of a CSV file from which Polars infers what is a number


class Table:
    """Columns of a file."""

    identity: Mapping[str, Any] | None = None
    bytes: int | None = None

    def __init__(self, columns: Columns, frame: pl.LazyFrame, path: Path, rows: int | None) -> None:
        self.columns, self.frame, self.path, self.rows = columns, frame, path, rows

    def batches(self, start: Position) -> Iterator[Batch]:
        """The rows as float32 or float64, null as NaN."""
        return _batches(self.frame, self.path)


def read(path: Path, wanted: Columns) -> Table:
    """The columns of a table, checked."""
    labels, (predictions,), weights, _ = wanted
    columns = {"labels": labels, "predictions": predictions}
    if weights is not None:
        columns["weights"] = weights
    try:
        frame, rows = _scan(path, columns)
        schema = frame.collect_schema()
        selected = frame.select(_as_float(schema[column], column).alias(name) for name, column in columns.items())
        return Table(wanted, selected, path, rows)
    except pl.exceptions.PolarsError as error:
        raise _readable(path, error) from error


def _scan(path: Path, columns: dict[str, str]) -> tuple[pl.LazyFrame, int | None]:
    """The file as a lazy frame whose columns have been checked, and the number of its rows if that is cheap."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    if path.suffix.lower() == ".parquet":
        frame = pl.scan_parquet(path, glob=False)
        _check(path, frame.collect_schema(), columns)
        return frame, int(frame.select(pl.len()).collect().item())
    if path.suffix.lower() == ".csv":
        schema = pl.scan_csv(path, infer_schema_length=INFERRED, null_values=MISSING, glob=False).collect_schema()
        text = pl.scan_csv(path, infer_schema=False, null_values=MISSING, glob=False).head(INFERRED)
        for column in set(columns.values()) & set(schema):
            if text.select(_named(column).is_null().all()).collect().item():
                schema[column] = pl.Null()  # nothing was seen of it, which Polars calls a text column
        _check(path, schema, columns)
        # Whole numbers at the beginning say nothing about what follows.
        numbers = {column: pl.Float64 for column in columns.values() if schema[column] != pl.Boolean}
        frame = pl.scan_csv(
            path, schema_overrides=numbers, infer_schema_length=INFERRED, null_values=MISSING, glob=False
        )
        return frame, None
    raise ValueError(f"{path}: unknown kind of file {path.suffix!r}, expected .parquet or .csv; for .npy give no FILE")


def _check(path: Path, schema: pl.Schema, columns: dict[str, str]) -> None:
    for name, column in columns.items():
        if column not in schema:
            near = difflib.get_close_matches(column, schema.names(), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"{path} has no column {column!r} for {name}{hint}; it has: {', '.join(schema.names())}")
        dtype = schema[column]
        if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
            raise TypeError(f"column {column!r} of {path} must hold numbers for {name}, got {dtype}")


def _as_float(dtype: Any, column: str) -> pl.Expr:
    return _named(column).cast(pl.Float32 if dtype in NARROW else pl.Float64).fill_null(float("nan"))


def _named(column: str) -> pl.Expr:
    """The column of that name; pl.col would take "*" and "^...$" for patterns."""
    return cs.by_name(column).as_expr()


def _batches(frame: pl.LazyFrame, path: Path) -> Iterator[Batch]:
    first = 0
    try:
        for batch in frame.collect_batches(chunk_size=ROWS, engine="streaming"):
            arrays = [column.to_numpy() for column in batch.iter_columns()]
            weights = arrays[2] if len(arrays) == 3 else None
            place = partial(_place, path, first)
            first += batch.height
            yield Batch(arrays[0], (arrays[1],), weights, (), Position(0, first, first), place)
    except pl.exceptions.PolarsError as error:
        raise _readable(path, error) from error


def _place(path: Path, first: int, index: tuple[int, ...]) -> str:
    return f"row {first + index[0]} of {path}"


def _readable(path: Path, error: Exception) -> ValueError:
    """Polars' reason in one line."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ValueError(f"{path} cannot be read: {reason}")
