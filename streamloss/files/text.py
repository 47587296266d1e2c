"""Files of lines, compressed or not: cut into blocks of whole records, which Polars parses.

Reading by blocks, a reader knows the byte and the line where it is, and can go on from a byte instead of from the
beginning. That takes a tenth more processor time than Polars by itself, for copying what is read and for parsing in
smaller parts. Several blocks are parsed at once; for 10 M rows of two numbers in CSV, 151 MB, on two cores, seconds by
the number of blocks:

====  ====  ====  ====  ============
2     3     4     6     Polars alone
====  ====  ====  ====  ============
0.55  0.51  0.49  0.46  0.46
====  ====  ====  ====  ============
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias, TypeVar

import polars as pl

from .._threads import get_num_threads
from .columns import Selection, named, wanted
from .origins import Origin, Stream
from .part import ERRORS, Piece, readable
from .source import Columns

BLOCK = 1 << 22  # bytes, so that caches hold a block: with 8 MB, reading takes twice as long
LONGEST = 1 << 28  # bytes of a record: a file with longer ones is not of these formats, and refused
AT_ONCE = 3  # blocks that are parsed at once, for each thread: parsing one does not keep a core busy all the time
MOST_AT_ONCE = 16  # blocks that are parsed at once, in all: each takes about 10 MB, its frame included
SAMPLE = 1 << 20  # bytes at the beginning, from which types are inferred
WHOLE = 2**53  # from here on, a float64 may stand for several whole numbers

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

T = TypeVar("T")
Parse: TypeAlias = Callable[[bytes], Any]


class Block(NamedTuple):
    """Whole records of a file."""

    data: bytes  # the header of the file, if it has one, and below it the records
    offset: int  # of its end, in the decompressed text
    bytes: int  # of the file, compressed or not, that have been read


class Text(ABC):
    """Records, each a line unless a format says otherwise."""

    schema: pl.Schema
    rows: int | None = None
    repeated: Collection[str] = ()  # names that several columns have
    _header = b""  # the bytes before the first record, which are needed to parse any record

    def __init__(self, origin: Origin) -> None:
        self.name, self.size, self.identity, self._origin = origin.name, origin.size, origin.identity, origin

    @abstractmethod
    def _scan(self, data: bytes, schema: Any) -> pl.LazyFrame:
        """Scan a header and records below it; Polars infers the types if the schema is None."""

    @abstractmethod
    def _parser(self, columns: Selection, schema: pl.Schema) -> Callable[[bytes], pl.DataFrame]:
        """Return the function that parses a header and records into the selected columns; threads call it at once."""

    def prepare(self, columns: Columns) -> None:
        """Settle what depends on the use of the columns: text in place of numbers is refused, with its line."""
        for role, name in wanted(columns):
            if role != "by" and self.schema.get(name) == pl.String:
                self._check_numbers(role, name)

    def _check_numbers(self, role: str, name: str) -> None:
        schema = {**self.schema, name: pl.Float64()}
        sample = next(self._blocks(0, SAMPLE))
        self._checked(sample, lambda data: self._scan(data, schema).select(named(name)).collect())

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the records from an offset on."""
        numbers = columns.numbers
        types = pl.Schema({name: _type(dtype, name in numbers) for name, dtype in self.schema.items()})
        # A key that is no column, but computed from one, might have other text from block to block.
        keys = [column for column in columns.columns if column.role == "by"]
        computed = {root for column in keys if column.roots != (column.text,) for root in column.roots}
        plain = {column.text for column in keys if column.text in types} - computed - set(numbers)
        wider = {name: pl.Float64() for name in plain if types[name].is_integer()}
        inner = self._parser(columns, types)
        with_fractions = self._parser(columns, pl.Schema({**types, **wider})) if wider else inner

        def parse(data: bytes) -> pl.DataFrame:
            try:
                frame = inner(data)
            except ERRORS:  # whole numbers at the beginning say nothing about what follows
                if not wider:
                    raise
                frame = with_fractions(data)
            for place, column in enumerate(columns.columns):
                if column.role == "by" and not columns.is_same(column) and frame[str(place)].dtype.is_float():
                    _check_whole(frame[str(place)], column.text)
            return frame

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
        """Yield blocks of about `size` bytes from an offset on; the last record may lack its end of line."""
        rest = b""
        with self._origin.open() as stream:
            with self._reading():
                stream.seek(offset)
            while True:
                with self._reading():
                    text, count = _read_on(stream, size, header + rest)
                data = text.getvalue()
                end = self._end(data, len(header) + len(rest)) if count else len(data)
                rest = data[max(end, len(header)) :]
                if end > len(header):
                    offset += end - len(header)
                    del data  # or cutting the text would copy it
                    yield Block(_cut(text, end), offset, stream.tell())
                if not count:
                    return
                if len(rest) > LONGEST:
                    line = f"line {self._line(offset)}"
                    raise ValueError(f"{self.name} cannot be read: {line} begins a record of over {LONGEST >> 20} MB")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (*ERRORS, OSError, EOFError) as error:
            raise readable(self.name, error) from error

    def _end(self, data: bytes, known: int = 0) -> int:
        """Return the end of the last whole record; 0 if there is none, as in the first `known` bytes."""
        return data.rfind(b"\n", known) + 1

    def _first_end(self, data: bytes, start: int = 0) -> int:
        """Return the end of the first record that begins at `start` or later; of the data, if it never ends."""
        return data.find(b"\n", start) + 1 or len(data)

    def _line(self, offset: int) -> int:
        """Return the number of the line that begins at an offset."""
        line, at = 1, 0
        for block in self._blocks(0, BLOCK):
            at = block.offset - len(block.data)
            if at >= offset:
                break
            line += block.data.count(b"\n", 0, offset - at)
        return line

    # ------------------------------------------------------------------------------------------- errors

    def _checked(self, sample: Block, parse: Callable[[bytes], T]) -> T:
        try:
            return parse(sample.data)
        except ERRORS as error:
            raise self._blame(sample, parse, error) from error

    def _blame(self, block: Block, parse: Parse, error: BaseException) -> ValueError:
        """Return the error for the first record of the block that cannot be parsed, found by halving."""
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
        return readable(f"line {self._line(offset)} of {self.name}", self._reason(data, error))

    def _reason(self, record: bytes, error: BaseException) -> BaseException:
        """Return why a record cannot be parsed, where a format knows better than its parser."""
        return error


def _read_on(stream: Stream, size: int, before: bytes) -> tuple[BytesIO, int]:
    """Return what is before and at most `size` bytes of the stream, and how many these are.

    What BytesIO holds is an object of bytes, which it hands out without a copy.
    """
    text = BytesIO(bytes(len(before) + size))
    with text.getbuffer() as room:
        room[: len(before)] = before
        count = stream.readinto(room[len(before) :]) or 0
    text.truncate(len(before) + count)
    return text, count


def _cut(text: BytesIO, end: int) -> bytes:
    text.truncate(end)
    return text.getvalue()


def _type(dtype: Any, number: bool) -> Any:
    """Return the type to parse a column as: whole numbers at the beginning say nothing about what follows."""
    if number and (dtype.is_numeric() or dtype == pl.Null):
        return pl.Float64()
    return pl.String() if dtype == pl.Null else dtype


def _check_whole(keys: pl.Series, text: str) -> None:
    """Refuse floats that stand for several whole numbers: what was written as different keys would become one."""
    beyond = keys.filter((keys.abs() >= WHOLE) & keys.is_finite())
    if len(beyond):
        raise pl.exceptions.ComputeError(
            f"the key {beyond[0]:.17g} of {text!r} is not below 2**53, from where on float64, which a column with"
            " fractions needs, does not tell whole numbers apart"
        )
