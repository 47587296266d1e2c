"""Columns of a table: found by name or written as an expression, and checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from io import StringIO
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl
import polars.selectors as cs

from ..keys import form
from .formats import ARRAYS, ending
from .names import near
from .source import Columns

KEYS = (pl.String, pl.Categorical, pl.Enum, pl.Date, pl.Datetime, pl.Time)  # beside numbers and bools
# Columns of these types are handed on as float32, which holds them exactly, and all others as float64.
NARROW = (pl.Float32, pl.Float16, pl.Boolean, pl.Int8, pl.UInt8, pl.Int16, pl.UInt16)
# Functions of SQL that Polars replaces by the time at which it parses them, which it does again for every chunk.
CLOCK = re.compile(r"\b(?:CURRENT_(?:DATE|TIME|TIMESTAMP)|LOCALTIME|LOCALTIMESTAMP|NOW\s*\()(?!\w)", re.IGNORECASE)
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|/\*.*?\*/", re.DOTALL)

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


class Column(NamedTuple):
    """One of the columns that a caller wants, in one file."""

    role: str  # "labels", "predictions", "weights" or "by"
    text: str  # as the caller wrote it
    expression: pl.Expr
    roots: tuple[str, ...]  # the columns that it is computed from
    dtype: Any
    casts: Mapping[str, Any] = MappingProxyType({})  # what columns of numbers must become before it is computed

    @property
    def kind(self) -> str:
        """The kind of its values, which must be the same in all files."""
        if self.dtype == pl.Null:
            return "null"
        if self.dtype == pl.Boolean and self.role == "by":
            return "bool"
        if self.dtype.is_decimal() and self.role == "by":
            return f"text of {self.dtype.scale} decimals"
        return "number" if self.dtype.is_numeric() or self.dtype == pl.Boolean else "text"


def wanted(columns: Columns) -> list[tuple[str, str]]:
    """Return the role and the text of every column: labels, predictions, weights, keys."""
    weights = [] if columns.weights is None else [("weights", columns.weights)]
    predictions = [("predictions", text) for text in columns.predictions]
    return [("labels", columns.labels), *predictions, *weights, *(("by", text) for text in columns.by)]


def find(columns: Columns, schema: pl.Schema, name: str, repeated: Collection[str] = ()) -> list[Column]:
    """Find the columns in a file of that schema; ValueError or TypeError, naming the file, if one is not usable."""
    found = [_find(role, text, schema, name) for role, text in wanted(columns)]
    for column in found:
        if several := [root for root in column.roots if root in repeated]:
            raise ValueError(f"{name} has several columns {several[0]!r}, of which one is asked for {column.role}")
    return found


def _find(role: str, text: str, schema: pl.Schema, name: str) -> Column:
    expression, roots = (named(text), (text,)) if text in schema else _parsed(role, text, schema, name)
    types = {root: schema[root] for root in roots}
    wide = {} if role == "by" or text in schema else {root: _wide(dtype) for root, dtype in types.items()}
    try:
        empty = pl.DataFrame(schema={**types, **wide})
        dtype = empty.select(expression.alias("x")).schema["x"]
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        hint = "; files of arrays are scored without a file before them" if ending(text, ARRAYS) else ""
        raise ValueError(f"{text!r} for {role} cannot be computed from {name}: {one_line(error)}{hint}") from error
    if text not in schema and not _row_by_row(expression, empty.schema):
        raise _no_column(role, text, name)
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null) or (role == "by" and dtype.base_type() in KEYS)):
        what = "plain values" if role == "by" else "numbers"
        raise TypeError(f"column {text!r} of {name} must hold {what} for {role}, got {dtype}")
    casts = {root: wide[root] for root in wide if wide[root] != types[root]}
    return Column(role, text, expression, roots, dtype, casts)


def _wide(dtype: Any) -> Any:
    """Return the type to compute with: float64 for integers and floats, also those within lists and structs."""
    if dtype.is_integer() or dtype.is_float():
        return pl.Float64()
    if isinstance(dtype, pl.List):
        return pl.List(_wide(dtype.inner))
    if isinstance(dtype, pl.Array):
        return pl.Array(_wide(dtype.inner), dtype.size)
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _wide(field.dtype) for field in dtype.fields})
    return dtype


def _parsed(role: str, text: str, schema: pl.Schema, name: str) -> tuple[pl.Expr, tuple[str, ...]]:
    """Parse a Polars SQL expression that yields one value a row."""
    try:
        expression = pl.sql_expr(text)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = "" if text.isidentifier() else f", and as an expression it fails: {one_line(error)}"
        raise _missing(role, text, text, schema, name, reason) from None
    if "--" in text or not expression.meta.undo_aliases().meta.eq(expression):
        raise _missing(role, text, text, schema, name, ", and as an expression it would be a part of that alone")
    roots = tuple(dict.fromkeys(expression.meta.root_names()))
    for root in roots:
        if root not in schema:
            raise _missing(role, text, root, schema, name)
    if not roots or expression.meta.has_multiple_outputs() or CLOCK.search(QUOTED.sub("", text)):
        raise _no_column(role, text, name)
    return expression, roots


def _row_by_row(expression: pl.Expr, types: Mapping[str, Any]) -> bool:
    """Whether the value in a row depends on that row alone: otherwise, reading in batches would change it.

    Polars knows it of an operation, but of most functions of SQL only once types are known: so each is looked at by
    itself, with nulls of the right types for what it is computed from.
    """
    parts, operations = [expression], []
    nulls: dict[str, str] = {}  # for what reads columns
    try:
        while parts:
            part = parts.pop()
            written, inputs = _written(part), part.meta.pop()
            if written.startswith('{"Eval":'):  # what is done to the elements of a list stays in its row
                inputs = [each for each in inputs if written.startswith('{"Eval":{"expr":' + _written(each))]
            if inputs:
                operations.append((written, inputs, bool(part.meta.root_names())))
            elif part.meta.is_column():
                nulls[written] = _written(pl.lit(None, types[part.meta.output_name()]))
            elif not part.meta.is_literal():
                return False  # the number of rows, among others
            parts += inputs
        for written, inputs, reads in reversed(operations):
            alone = written
            for each in sorted(map(_written, inputs), key=len, reverse=True):
                alone = alone.replace(each, nulls.get(each, each))
            operation = pl.Expr.deserialize(StringIO(alone), format="json")
            if operation.meta.root_names() or not _maps(operation, inputs):
                return False
            if reads:
                dtype = pl.LazyFrame().select(operation.alias("x")).collect_schema()["x"]
                nulls[written] = _written(pl.lit(None, dtype))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return False
    return True


def _maps(operation: pl.Expr, inputs: list[pl.Expr]) -> bool:
    """Whether an operation gives one value, of one of each input; the list after IN is one input of many values."""
    has_list = len(inputs) == 2 and any(each.meta.is_literal() and not each.meta.is_scalar() for each in inputs)
    return operation.meta.is_row_separable() and (has_list or operation.meta.is_scalar())


def _written(expression: pl.Expr) -> str:
    return expression.meta.serialize(format="json")


def _no_column(role: str, text: str, name: str) -> ValueError:
    return ValueError(
        f"{text!r} for {role} must be a column of {name}, or an expression whose value in a row depends on columns"
        " of that row alone"
    )


def _missing(role: str, text: str, column: str, schema: pl.Schema, name: str, reason: str = "") -> ValueError:
    hint = near(column, schema.names())
    within = "" if text == column else f", used in {text!r}"
    has = ", ".join(name if name == name.strip() else repr(name) for name in schema.names())
    if len(schema) == 1 and (other := re.search(r"[;\t|]", has)):
        has += f" (are its fields separated by {other[0]!r}? CSV has commas here, and TSV tabs)"
    if f"/{column}=" in f"/{name}":
        hint = " (keys of directories count from the one that is named, or from a pattern, in quotes, on)"
    return ValueError(f"{name} has no column {column!r} for {role}{within}{hint}{reason}; it has: {has}")


class Kinds:
    """The kind of each column in all files so far: numbers in one and text in another are refused."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Column, str]] = {}  # each column in the first file that has values, and that file

    def check(self, columns: list[Column], name: str) -> None:
        """Compare a file's columns with those before; TypeError if one of them is of another kind."""
        for i, now in enumerate(columns):
            if now.kind == "null":
                continue
            before, first = self._known.setdefault(i, (now, name))
            if before.kind != now.kind:
                raise TypeError(
                    f"column {now.text!r} for {now.role} is {before.dtype} in {first} but {now.dtype} in {name};"
                    " it must hold the same kind in all files"
                )


class Selection:
    """The columns wanted of one file or table, and the columns that stand in its path instead of in it."""

    def __init__(
        self, columns: list[Column], constants: Mapping[str, pl.Series], name: str, kinds: Kinds | None = None
    ) -> None:
        self.columns, self._constants = columns, constants
        self._literals = [pl.lit(value[0], value.dtype).alias(name) for name, value in constants.items()]
        by = [column for column in columns if column.role == "by" and column.text in constants]
        found = {column.text: constants[column.text][0] for column in by if column.roots == (column.text,)}
        # Keys that are the same in every row need not be written out; one that is null remains a column.
        dtypes = {int: np.int64, str: object}
        self.same = {text: np.array(form(key), dtypes[type(key)]) for text, key in found.items() if key is not None}
        self._values = [(i, _values(c).alias(str(i))) for i, c in enumerate(columns) if not self.is_same(c)]
        self._casts = {root: column.casts.get(root) for column in columns if column.casts for root in column.roots}
        self._private = "_"  # names that begin so are no columns to compute from
        while any(root.startswith(self._private) for root in self._casts):
            self._private += "_"
        self._kinds = kinds or Kinds()
        self._kinds.check(columns, name)

    def of(self, frame: Frame, without: Collection[str] = ()) -> Frame:
        """Select the columns, named 0, 1, 2, ...: numbers as float32 or float64, null as NaN, and keys as they are.

        Those of `same` are left out.
        """
        if self._literals:
            frame = frame.with_columns(self._literals)
        chosen = [(i, values) for i, values in self._values if self.columns[i].text not in without]
        if not self._casts:
            return frame.select(values for _, values in chosen)
        # What needs no casts is computed beside them, for it may be a key made of the same columns.
        first = [named(root) if dtype is None else named(root).cast(dtype) for root, dtype in self._casts.items()]
        second = []
        for i, values in chosen:
            if not self.columns[i].casts:
                first.append(values.alias(f"{self._private}{i}"))
                values = named(f"{self._private}{i}").alias(str(i))
            second.append(values)
        return frame.select(first).select(second)

    def is_same(self, column: Column) -> bool:
        """Whether a column has one key, which is in `same`, for all rows."""
        return column.role == "by" and column.text in self.same

    def again(self, schema: pl.Schema, name: str) -> Selection:
        """Return the selection of the same columns in another table; TypeError if they are of another kind there."""
        found = [_find(column.role, column.text, schema, name) for column in self.columns]
        return Selection(found, self._constants, name, self._kinds)

    @property
    def roots(self) -> list[str]:
        """The columns of the file that are needed."""
        return self._roots(self.columns)

    @property
    def numbers(self) -> list[str]:
        """The columns of the file from which numbers are computed, whatever their first rows look like."""
        return self._roots(column for column in self.columns if column.role != "by")

    @property
    def text_keys(self) -> list[str]:
        """The columns of text that are only keys, and unchanged; none if no other column of the file is needed."""
        used = [root for column in self.columns for root in column.roots]
        keys = [c.text for c in self.columns if c.role == "by" and c.dtype == pl.String and c.roots == (c.text,)]
        keys = [key for key in keys if used.count(key) == 1 and key not in self._constants]
        return keys if len(keys) < len(self.roots) else []

    def _roots(self, columns: Iterable[Column]) -> list[str]:
        return [r for r in dict.fromkeys(r for column in columns for r in column.roots) if r not in self._constants]


def _values(column: Column) -> pl.Expr:
    if column.role == "by":
        return column.expression
    return column.expression.cast(pl.Float32 if column.dtype in NARROW else pl.Float64).fill_null(float("nan"))


def named(column: str) -> pl.Expr:
    """Return an expression for the column of that name; pl.col would take "*" and "^...$" for patterns."""
    return cs.by_name(column).as_expr()


def dtypes(columns: list[Column]) -> Mapping[str, str]:
    """Return the types of the columns as a checkpoint keeps them."""
    return {column.text: str(column.dtype) for column in columns}


def one_line(error: BaseException) -> str:
    """Return the reason that Polars gives, without its advice."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
