"""Columns of a table: found by name or written as an expression, and checked before anything is read."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl
import polars.selectors as cs

from .source import Columns

# A narrow column is handed on as float32, which holds it exactly, and a wide one as float64.
NARROW = (pl.Float32, pl.Float16, pl.Boolean, pl.Int8, pl.UInt8, pl.Int16, pl.UInt16)


class Column(NamedTuple):
    """One of the columns that a caller wants, in one file."""

    role: str  # "labels", "predictions", "weights" or "by"
    text: str  # as the caller wrote it
    expression: pl.Expr
    roots: tuple[str, ...]  # the columns that it is computed from
    dtype: Any

    @property
    def kind(self) -> str:
        """What must be the same in all files."""
        if self.dtype == pl.Null:
            return "null"
        return "number" if self.dtype.is_numeric() or self.dtype == pl.Boolean else "text"


def wanted(columns: Columns) -> list[tuple[str, str]]:
    """The role and the text of every column: labels, predictions, weights, keys."""
    weights = [] if columns.weights is None else [("weights", columns.weights)]
    predictions = [("predictions", text) for text in columns.predictions]
    return [("labels", columns.labels), *predictions, *weights, *(("by", text) for text in columns.by)]


def find(columns: Columns, schema: pl.Schema, name: str) -> list[Column]:
    """The columns in a file of that schema; ValueError or TypeError, which name the file, if one does not serve."""
    return [_find(role, text, schema, name) for role, text in wanted(columns)]


def _find(role: str, text: str, schema: pl.Schema, name: str) -> Column:
    expression, roots = (named(text), (text,)) if text in schema else _parsed(role, text, schema, name)
    try:
        dtype = pl.LazyFrame(schema=schema).select(expression.alias("x")).collect_schema()["x"]
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{text!r} for {role} cannot be computed from {name}: {one_line(error)}") from error
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        what = "plain values" if role == "by" else "numbers"
        raise TypeError(f"column {text!r} of {name} must hold {what} for {role}, got {dtype}")
    if role != "by" and not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise TypeError(f"column {text!r} of {name} must hold numbers for {role}, got {dtype}")
    return Column(role, text, expression, roots, dtype)


def _parsed(role: str, text: str, schema: pl.Schema, name: str) -> tuple[pl.Expr, tuple[str, ...]]:
    """The text as a Polars SQL expression that yields one value a row."""
    try:
        expression = pl.sql_expr(text)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = "" if text.isidentifier() else f", and as an expression it fails: {one_line(error)}"
        raise _missing(role, text, text, schema, name, reason) from None
    roots = tuple(dict.fromkeys(expression.meta.root_names()))
    for root in roots:
        if root not in schema:
            raise _missing(role, text, root, schema, name)
    if not roots or expression.meta.has_multiple_outputs() or not _row_by_row(expression):
        raise ValueError(
            f"{text!r} for {role} must be a column of {name}, or an expression whose value in a row depends on columns"
            " of that row alone"
        )
    return expression, roots


def _row_by_row(expression: pl.Expr) -> bool:
    """Whether no part of the expression looks at other rows: reading in batches would change what it yields."""
    parts = [expression]
    while parts:
        part = parts.pop()
        try:
            if not part.meta.is_row_separable():
                return False
        except pl.exceptions.ColumnNotFoundError:
            pass  # a function of SQL that asks for the types of its operands: it maps row by row
        parts += part.meta.pop()
    return True


def _missing(role: str, text: str, column: str, schema: pl.Schema, name: str, reason: str = "") -> ValueError:
    near = difflib.get_close_matches(column, schema.names(), n=3)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    within = "" if text == column else f", used in {text!r}"
    has = ", ".join(schema.names())
    return ValueError(f"{name} has no column {column!r} for {role}{within}{hint}{reason}; it has: {has}")


def check_same(first: list[Column], first_name: str, columns: list[Column], name: str) -> None:
    """Refuse numbers in one file and text in another."""
    for before, now in zip(first, columns, strict=True):
        if "null" not in (before.kind, now.kind) and before.kind != now.kind:
            raise TypeError(
                f"column {now.text!r} for {now.role} is {before.dtype} in {first_name} but {now.dtype} in {name};"
                " it must hold the same kind in all files"
            )


def selection(columns: list[Column]) -> list[pl.Expr]:
    """What to select: numbers as float32 or float64, null as NaN, and the keys as they are; named 0, 1, 2, ..."""
    return [
        (column.expression if column.role == "by" else _as_float(column)).alias(str(i))
        for i, column in enumerate(columns)
    ]


def roots(columns: list[Column], *, numbers: bool = False) -> list[str]:
    """The columns of the file that are needed, or only those from which numbers are computed."""
    return list(dict.fromkeys(r for column in columns if not (numbers and column.role == "by") for r in column.roots))


def _as_float(column: Column) -> pl.Expr:
    return column.expression.cast(pl.Float32 if column.dtype in NARROW else pl.Float64).fill_null(float("nan"))


def named(column: str) -> pl.Expr:
    """The column of that name; pl.col would take "*" and "^...$" for patterns."""
    return cs.by_name(column).as_expr()


def dtypes(columns: list[Column]) -> Mapping[str, str]:
    """What a checkpoint keeps of the types."""
    return {column.text: str(column.dtype) for column in columns}


def one_line(error: BaseException) -> str:
    """The reason that Polars gives, without its advice."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
