"""CSV and TSV: a header with the names of the columns, and records, which quotes may stretch over several lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .columns import Selection, named, wanted
from .fields import are_regular, quotes_are_clear
from .inference import are_numbers
from .origins import Local, Origin
from .part import ERRORS, readable
from .source import Columns
from .text import BYTE_ORDER_MARK, SAMPLE, Block, Text

SEPARATORS = {".csv": ",", ".tsv": "\t"}
INFERRED = 10_000  # records at the beginning, from which types are inferred
UNCLOSED = 'it has a quote (") that no other one closes, or within a field without quotes'
STRAY_RETURN = "it has a carriage return (CR) within the line, where LF or CR LF ends lines"

QUOTED = re.compile(rb'"[^"]*"')
AS_TEXT = re.compile(r'\s*CAST\s*\(\s*(?:"([^"]+)"|(\w+))\s+AS\s+(?:TEXT|VARCHAR|STRING)\s*\)\s*', re.IGNORECASE)

# What writers of CSV put for a missing number, and NaN as C prints it.
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None", "nan", "-nan"]


class Delimited(Text):
    """Fields between separators."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self._separator = next(
            SEPARATORS[suffix.lower()] for suffix in reversed(origin.suffixes) if suffix.lower() in SEPARATORS
        )
        sample = next(self._blocks(0, SAMPLE), None)
        if sample is None:
            raise ValueError(f"{self.name} is empty, and has no header")
        if b"\n" not in sample.data and b"\r" in sample.data.rstrip(b"\r"):
            raise ValueError(f"{self.name} has lines that end in CR alone, expected LF or CR LF")
        self._header = sample.data[: self._header_end(sample.data)]
        names = self._names(self._header.removeprefix(BYTE_ORDER_MARK))
        self.repeated = {name for name, count in Counter(names).items() if count > 1}
        self._padded: list[str] = []
        self._lacking = False  # whether something was missing in the last block that was parsed with MISSING
        self.schema = self._infer(sample)

    def prepare(self, columns: Columns) -> None:
        """Settle the types: numbers with leading zeros are text where they are only keys."""
        numbers = [name for role, name in wanted(columns) if role != "by"]
        matches = {text: AS_TEXT.fullmatch(text) for text in columns.by}
        others = " ".join(text for text, match in matches.items() if match is None)
        asked = [match[1] or match[2] for match in matches.values() if match is not None]
        asked = [name for name in asked if name in self.schema and not re.search(rf"\b{re.escape(name)}\b", others)]
        text = [name for name in columns.by if name in self._padded] + asked
        self.schema = pl.Schema({**self.schema, **{name: pl.String() for name in text if name not in numbers}})
        super().prepare(columns)

    def _check_numbers(self, role: str, name: str) -> None:
        try:
            super()._check_numbers(role, name)
        except ValueError as error:  # a few bad lines turn a column of numbers into one of text
            reason = f"column {name!r} of {self.name} must hold numbers for {role}, got String"
            raise TypeError(f"{reason}: {error}") from error

    # ------------------------------------------------------------------------------------------- types

    def _names(self, header: bytes) -> list[str]:
        """Return the names in the header."""
        if not header.strip():
            raise ValueError(f"{self.name} has no header: it begins with {len(self._header)} bytes of blank lines")
        names = self._fields(header)
        if names is None:
            raise ValueError(f"line 1 of {self.name} cannot be read: {self._flaw(header)}")
        return names

    def _infer(self, sample: Block) -> pl.Schema:
        """Infer the types of the columns from the first records."""
        sample = self._first(sample)
        try:
            names = self._scan(self._header, None).collect_schema().names()
        except ERRORS as error:
            raise readable(self.name, error) from error
        text = dict.fromkeys(names, pl.String())
        seen = self._checked(sample, lambda data: self._scan(data, text).head(INFERRED).collect())
        types = dict(self._scan(sample.data, None).collect_schema())
        for name in names:
            known = seen[name].rename("").drop_nulls()  # Polars takes some names for patterns
            if known.is_empty():
                types[name] = pl.Null()  # Polars would call it a column of text
            elif types[name] == pl.String and are_numbers(known):
                types[name] = pl.Float64()
            elif types[name].is_numeric() and known.str.contains(r"^[+-]?0\d").any():
                self._padded.append(name)
        return pl.Schema(types)

    def _first(self, sample: Block) -> Block:
        """Return the first INFERRED records where each is a line: Polars would parse whatever it is given."""
        ends = np.flatnonzero(np.frombuffer(sample.data, np.uint8) == ord("\n"))
        last = self._header.count(b"\n") + INFERRED - 1
        if last >= ends.size or b'"' in sample.data:
            return sample
        end = int(ends[last]) + 1
        return sample._replace(data=sample.data[:end], offset=sample.offset - len(sample.data) + end)

    # ------------------------------------------------------------------------------------------- records

    def _parser(self, columns: Selection, schema: pl.Schema) -> Callable[[bytes], pl.DataFrame]:
        needed = [named(name) for name in columns.roots or schema.names()[:1]]
        return lambda data: columns.of(self._records(data, schema, needed))

    def _records(self, data: bytes, schema: pl.Schema, needed: list[pl.Expr]) -> pl.DataFrame:
        """Parse the columns that are needed.

        Looking for the texts of MISSING takes a third more time. If a block can be parsed without that, and no value is
        missing then, none would be missing with it either.
        """

        def parsed(missing: list[str] | None) -> pl.DataFrame:
            return self._scan(data, schema, missing).select(needed).collect(engine="streaming")

        if not quotes_are_clear(data, self._separator, len(self._header)):  # Polars would make something of them
            raise pl.exceptions.ComputeError(UNCLOSED)
        lacks = True
        if not self._lacking:
            with suppress(*ERRORS):
                frame = parsed(None)
                lacks = _lacks(frame)
        if lacks:
            frame = parsed(MISSING)
            lacks = self._lacking = _lacks(frame)
        if lacks or len(needed) < len(self.schema):  # otherwise Polars has looked at all fields
            self._check_fields(data, lacks)
        return frame

    def _scan(self, data: bytes, schema: Any, missing: list[str] | None = MISSING) -> pl.LazyFrame:
        """Scan the file's header and the records below it; without a header, the first record could not lack fields."""
        return pl.scan_csv(
            data,
            schema=schema,
            separator=self._separator,
            null_values=missing,
            infer_schema_length=INFERRED,
        )

    def _check_fields(self, data: bytes, lacks: bool) -> None:
        """Refuse records with too many fields and, if values are missing, with too few; blank lines may have none."""
        if are_regular(data, self._separator, len(self.schema) - 1):
            return
        # Or a record lacks fields that nobody asked for: Polars looks at all fields, and refuses too many.
        self._scan(data, dict.fromkeys(self.schema, pl.String())).collect(engine="streaming")
        if lacks:
            raise pl.exceptions.ComputeError("a record lacks fields")

    def _reason(self, record: bytes, error: BaseException) -> BaseException:
        fields, expected = self._fields(record), self._fields(self._header)
        if fields is None:
            return ValueError(self._flaw(record))
        if expected is not None and len(fields) != len(expected):
            return ValueError(f"{len(fields)} fields, expected {len(expected)}")
        return error

    def _fields(self, record: bytes) -> list[str] | None:
        """Return the fields of a record; None where its quotes do not close, or may be read in two ways."""
        if not quotes_are_clear(record, self._separator):
            return None
        text = record.decode(errors="replace").strip("\r\n")
        try:
            return next(csv.reader([text], delimiter=self._separator, strict=True), [])
        except csv.Error:
            return None

    def _flaw(self, record: bytes) -> str:
        """Return why the fields of a record cannot be told."""
        plain = QUOTED.sub(b"", record).strip(b"\r\n")
        return STRAY_RETURN if b"\r" in plain and quotes_are_clear(record, self._separator) else UNCLOSED

    # ------------------------------------------------------------------------------------------- lines

    def _end(self, data: bytes, known: int = 0) -> int:
        """Return the end of the last whole record: a line that ends in quotes goes on."""
        end = super()._end(data, known)
        if b'"' not in data:
            return end
        quotes = data.count(b'"', 0, end)
        while end and quotes % 2:
            last = data.rfind(b"\n", known, end - 1) + 1
            quotes -= data.count(b'"', last, end)
            end = last
        return end

    def _first_end(self, data: bytes, start: int = 0) -> int:
        """Return the end of the first record that begins at `start` or later; of the data, if a quote never closes."""
        end = super()._first_end(data, start)
        quotes = data.count(b'"', 0, end)
        while quotes % 2 and end < len(data):
            quote = data.find(b'"', end)
            if quote < 0:
                return len(data)
            before, end = end, super()._first_end(data, quote)
            quotes += data.count(b'"', before, end)
        return end

    def _header_end(self, data: bytes) -> int:
        """Return the end of the line of names; blank lines before it belong to it."""
        end = self._first_end(data)
        while end < len(data) and not data[:end].strip():
            end = self._first_end(data, end)
        return end


def _lacks(frame: pl.DataFrame) -> bool:
    """Whether some value is missing, because a record has too few fields or a text stands for a missing one."""
    return any(
        column.null_count() > 0
        or (column.dtype.is_float() and _holds_nan(column))
        or (column.dtype == pl.String and bool(column.is_in(MISSING).any()))
        for column in (series.rename("") for series in frame.iter_columns())  # Polars takes some names for patterns
    )


def _holds_nan(column: pl.Series) -> bool:
    total: Any = column.sum()  # which takes a quarter of the time
    return bool(total != total and column.is_nan().any())


def open_part(path: Path) -> Delimited:
    """Open a file."""
    return Delimited(Local(path))
