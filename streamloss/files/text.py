"""CSV, TSV and NDJSON files, compressed or not: cut into blocks of whole records, which Polars parses.

A block at a time, because that knows the byte and the line where it is, and goes on from a byte instead of from the
beginning. It takes a tenth more processor time than Polars by itself, for copying what is read and for parsing that is
cut more finely. Several blocks are parsed side by side: 10 M rows of two numbers, 151 MB, two cores, seconds with so
many at once:

====  ====  ====  ====  ============
2     3     4     6     Polars alone
====  ====  ====  ====  ============
0.55  0.51  0.49  0.46  0.46
====  ====  ====  ====  ============
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from .._threads import get_num_threads
from .columns import Selection, named, wanted
from .inference import are_numbers, widened
from .part import ERRORS, Piece, local_identity, readable
from .source import Columns

BLOCK = 1 << 22  # bytes, which caches hold: of 8 MB reading takes twice as long
LONGEST = 1 << 28  # bytes of a record: what is longer is no text of this kind
AT_ONCE = 3  # blocks for each thread that are parsed side by side: parsing one keeps no core busy all the time
MOST_AT_ONCE = 16  # blocks, of about 10 MB with what is made of them
SAMPLE = 1 << 20  # bytes at the beginning, of whose first records
INFERRED = 10_000  # tell the types
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
SEPARATORS = {"csv": ",", "tsv": "\t"}  # what is neither is NDJSON

# What writers of CSV put for a missing number, and NaN as C prints it.
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None", "nan", "-nan"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UNCLOSED = 'it has a quote (") that no other one closes, or within a field without quotes'

T = TypeVar("T")
Parse: TypeAlias = Callable[[bytes], Any]


class Block(NamedTuple):
    """Whole records of a file."""

    data: bytes  # below the header of the file, if it has one
    offset: int  # of its end, in the decompressed text
    bytes: int  # of the file, compressed or not, that have been read


class Text:
    """A file of lines."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self.identity = local_identity(path)
        self.size: int = self.identity["size"]
        self.rows: int | None = None
        suffixes = [suffix.lower() for suffix in path.suffixes]
        self._compression = COMPRESSION.get(suffixes[-1])
        kind = suffixes[-2] if self._compression else suffixes[-1]
        self._separator = SEPARATORS.get(kind[1:])
        sample = next(self._blocks(0, SAMPLE), None)
        if sample is None and self._separator:
            raise ValueError(f"{path} is empty, and has no header")
        if sample is None or (self._separator is None and self._is_blank()):
            self.rows, sample = 0, Block(b"", 0, 0)  # lines of JSON bring their names with them: none is no fault
        self._header = sample.data[: self._header_end(sample.data)]
        names = self._names(self._header.removeprefix(BYTE_ORDER_MARK)) if self._separator else []
        self.repeated = {name for name in names if names.count(name) > 1}
        self._padded: list[str] = []
        self._lacking = False  # whether something was missing in the last block that was looked at with care
        self.schema = pl.Schema() if self.rows == 0 else self._infer(sample)

    def _is_blank(self) -> bool:
        return not any(block.data.strip() for block in self._blocks(0, SAMPLE))

    def _names(self, header: bytes) -> list[str]:
        """The names in the header."""
        if not header.strip():
            raise ValueError(f"{self.name} has no header: it begins with {len(self._header)} bytes of blank lines")
        names = self._fields(header)
        if names is None:
            raise ValueError(f"line 1 of {self.name} cannot be read: {UNCLOSED}")
        return names

    def prepare(self, columns: Columns) -> None:
        """Settle what the types depend on: numbers with leading zeros are text where they are keys alone."""
        numbers = [name for role, name in wanted(columns) if role != "by"]
        text = dict.fromkeys((name for name in columns.by if name in self._padded and name not in numbers), pl.String())
        self.schema = pl.Schema({**self.schema, **text})
        for role, name in wanted(columns):
            if role != "by" and self.schema.get(name) == pl.String:
                self._check_numbers(role, name)

    def _check_numbers(self, role: str, name: str) -> None:
        """Refuse a column of text, with the first line where it is; a few bad lines in numbers make one of it, too."""
        schema = {**self.schema, name: pl.Float64()}
        sample = next(self._blocks(0, SAMPLE))
        try:
            self._checked(sample, lambda data: self._scan(data, schema).select(named(name)).collect())
        except ValueError as error:
            if self._separator is None:  # types belong to values there, not to columns
                raise
            reason = f"column {name!r} of {self.name} must hold numbers for {role}, got String"
            raise TypeError(f"{reason}: {error}") from error

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """The records from an offset on."""
        numbers = columns.numbers
        names = self.schema.names() if self._separator else columns.roots
        schema = {name: self._dtype(name, self.schema[name], numbers) for name in names}
        needed = [named(name) for name in columns.roots or names[:1]]

        def parse(data: bytes) -> pl.DataFrame:
            if self._separator is None:
                return columns.of(self._scan(data, schema)).collect(engine="streaming")
            return columns.of(self._records(data, schema, needed))

        pending: deque[tuple[Block, Future[pl.DataFrame]]] = deque()
        at_once = min(AT_ONCE * get_num_threads(), MOST_AT_ONCE)
        with ThreadPoolExecutor(at_once, "streamloss-parse") as pool:
            for block in self._blocks(offset or len(self._header), BLOCK, self._header):
                pending.append((block, pool.submit(parse, block.data)))
                if len(pending) > at_once:
                    yield self._piece(*pending.popleft(), parse)
            while pending:
                yield self._piece(*pending.popleft(), parse)

    def _piece(self, block: Block, frame: Future[pl.DataFrame], parse: Parse) -> Piece:
        try:
            return Piece(frame.result(), block.bytes, block.offset)
        except ERRORS as error:
            raise self._blame(block, parse, error) from error

    # ------------------------------------------------------------------------------------------- bytes

    def _blocks(self, offset: int, size: int, header: bytes = b"") -> Iterator[Block]:
        """Blocks of about `size` bytes from an offset on; the last record may lack its end of line."""
        rest = b""
        with self._path.open("rb", buffering=0) as file:
            stream: Any = None
            while True:
                try:
                    stream = stream or self._decompressed(file, offset)
                    data = stream.read(size)
                except (*ERRORS, OSError, EOFError) as error:
                    raise readable(self.name, error) from error
                end = self._end(data, rest)
                if end or (rest and not data):
                    offset += len(rest) + end
                    block = b"".join((header, rest, memoryview(data)[:end]))  # the one copy of what has been read
                    yield Block(block, offset, file.tell() if self._compression else offset)
                    rest = data[end:]
                else:
                    rest += data
                if not data:
                    return
                if len(rest) > LONGEST:
                    line = f"line {self._line(offset)}"
                    raise ValueError(f"{self.name} cannot be read: {line} begins a record of over {LONGEST >> 20} MB")

    def _decompressed(self, file: Any, offset: int) -> Any:
        if self._compression is None:
            file.seek(offset)
            return file
        stream: IO[bytes] = pa.CompressedInputStream(file, self._compression)
        while offset:
            passed = len(stream.read(min(offset, BLOCK)))
            if passed == 0:
                raise EOFError("it ends before the position from which it should be read on")
            offset -= passed
        return stream

    def _end(self, data: bytes, before: bytes = b"") -> int:
        """The end of the last whole record, which may begin in `before`: a line of CSV that ends in quotes goes on."""
        end = data.rfind(b"\n") + 1
        if self._separator is None or (b'"' not in data and b'"' not in before):
            return end
        quotes = before.count(b'"') + data.count(b'"', 0, end)
        while end and quotes % 2:
            last = data.rfind(b"\n", 0, end - 1) + 1
            quotes -= data.count(b'"', last, end)
            end = last
        return end

    def _line(self, offset: int) -> int:
        """The number of the line that begins at an offset."""
        line, at = 1, 0
        for block in self._blocks(0, BLOCK):
            at = block.offset - len(block.data)
            if at >= offset:
                break
            line += block.data.count(b"\n", 0, offset - at)
        return line

    # ------------------------------------------------------------------------------------------- records

    def _records(self, data: bytes, schema: Any, needed: list[pl.Expr]) -> pl.DataFrame:
        """The columns of CSV that are needed.

        Looking for the texts of MISSING takes a third more time. Where a block can be parsed without, and nothing is
        missing then, nothing is with them either.
        """

        def parsed(missing: list[str] | None) -> pl.DataFrame:
            return self._scan(data, schema, missing).select(needed).collect(engine="streaming")

        if not self._lacking:
            with suppress(*ERRORS):
                frame = parsed(None)
                if not _lacks(frame):
                    return frame
        frame = parsed(MISSING)
        self._lacking = _lacks(frame)
        if self._lacking and self._is_short(data, frame.height):
            raise pl.exceptions.ComputeError("a record lacks fields")
        return frame

    def _infer(self, sample: Block) -> pl.Schema:
        """The types of the columns in the first records."""
        if self._separator is None:
            try:
                return self._checked(sample, lambda data: self._scan(data, None).collect_schema())
            except ValueError:
                return self._checked(sample, widened)
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
                types[name] = pl.Null()  # which Polars calls a column of text
            elif types[name] == pl.String and are_numbers(known):
                types[name] = pl.Float64()
            elif types[name].is_numeric() and known.str.contains(r"^[+-]?0\d").any():
                self._padded.append(name)
        return pl.Schema(types)

    def _checked(self, sample: Block, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(sample.data)
        except ERRORS as error:
            raise self._blame(sample, parse, error) from error

    def _dtype(self, name: str, dtype: Any, numbers: list[str]) -> Any:
        if name in numbers and (dtype.is_numeric() or dtype == pl.Null):
            return pl.Float64()  # whole numbers at the beginning say nothing about what follows
        return pl.String() if dtype == pl.Null else dtype

    def _scan(self, data: bytes, schema: Any, missing: list[str] | None = MISSING) -> pl.LazyFrame:
        """The records, below the file's header, without which the first of them could not lack fields."""
        if self._separator is None:
            return pl.scan_ndjson(data, schema=schema, infer_schema_length=None)
        return pl.scan_csv(
            data,
            schema=schema,
            separator=self._separator,
            null_values=missing,
            infer_schema_length=INFERRED,
        )

    def _blame(self, block: Block, parse: Parse, error: BaseException) -> ValueError:
        """The error for the first record of the block that cannot be parsed, found by halving."""
        data = block.data[len(self._header) :]
        offset = block.offset - len(data)
        while True:
            half = self._end(data[: len(data) // 2]) or self._first_end(data)
            if half >= len(data):
                break
            try:
                parse(self._header + data[:half])
                data, offset = data[half:], offset + half
            except ERRORS as found:
                data, error = data[:half], found
        if self._separator:
            fields, expected = self._fields(data), self._fields(self._header)
            if fields is None:
                error = ValueError(UNCLOSED)
            elif expected is not None and len(fields) != len(expected):
                error = ValueError(f"{len(fields)} fields, expected {len(expected)}")
        return readable(f"line {self._line(offset)} of {self.name}", error)

    def _fields(self, record: bytes) -> list[str] | None:
        """The fields of a record; None where its quotes do not close."""
        if record.count(b'"') % 2:
            return None
        text = record.decode(errors="replace").strip("\r\n")
        try:
            return next(csv.reader([text], delimiter=self._separator or ",", strict=True), [])
        except csv.Error:
            return None

    def _is_short(self, data: bytes, rows: int) -> bool:
        """Whether some record has too few fields; a blank line is a record without values."""
        separators, width = (self._separator or ",").encode(), len(self.schema) - 1
        if b'"' in data:
            data = re.sub(rb'"[^"]*"', b"", data)
        # NumPy counts 8 MB in 1 ms, bytes.count in 5 ms.
        lacking = (rows + 1) * width - np.count_nonzero(np.frombuffer(data, np.uint8) == separators[0])
        return bool(lacking > 0 and lacking > width * len(re.findall(rb"(?m)^\r?\n", data)))

    def _first_end(self, data: bytes, start: int = 0) -> int:
        """The end of the first record that begins at `start` or later; of the data, if a quote of it never closes."""
        end = data.find(b"\n", start) + 1
        quotes = data.count(b'"', 0, end) if self._separator else 0
        while end and quotes % 2:
            quote = data.find(b'"', end)
            if quote < 0:
                break
            before, end = end, data.find(b"\n", quote) + 1
            quotes += data.count(b'"', before, end or len(data))
        return end if end and quotes % 2 == 0 else len(data)

    def _header_end(self, data: bytes) -> int:
        """The end of the line of names; blank lines before it belong to it."""
        end = 0 if self._separator is None else self._first_end(data)
        while end < len(data) and not data[:end].strip() and self._separator:
            end = self._first_end(data, end)
        return end


def _lacks(frame: pl.DataFrame) -> bool:
    """Whether some value is missing, as where a record has too few fields, or stands for a missing one."""
    return any(
        column.null_count() > 0
        or (column.dtype.is_float() and bool(column.is_nan().any()))
        or (column.dtype == pl.String and bool(column.is_in(MISSING).any()))
        for column in (series.rename("") for series in frame.iter_columns())  # Polars takes some names for patterns
    )


open_part = Text
