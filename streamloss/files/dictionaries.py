"""Columns of text in Parquet files, read as codes: from their dictionaries, without writing out a single text.

A column chunk begins with a page of its different texts; in the pages below it each row is a number, of as few bits as
it takes. Arrow hands out both as well, but makes four bytes of each number, several times over, and joins what it has
made of several row groups: 100 M rows, 20 texts, take it 0.36 s of processor time, and this module 0.11 s.

Whatever is not as plain as that (more than `NONE` texts, pages without a dictionary or of the second version, rarer
compression, damage) is left to Arrow, which reads it or says what is wrong. The format:
https://parquet.apache.org/docs/file-format/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import types, uint16

from .._jit import Kernel, scalar
from ..cpu.operands import room
from ..intrinsics import I64, U64, eight_bytes, set_eight_bytes, smaller
from ..keys import Coded, unite
from ..keys.numbering import Numbering

Bytes: TypeAlias = npt.NDArray[np.uint8]
Fields: TypeAlias = dict[int, Any]  # of a structure, by the format's numbers

NONE = 255  # no code, and how many different texts, null among them, are read at once
CODECS = {"UNCOMPRESSED": None, "SNAPPY": pa.Codec("snappy"), "ZSTD": pa.Codec("zstd")}
HAS_VALUE = np.array([0, 1] + [NONE] * 254, np.uint8)  # whether a row has one, by its level

# What the format numbers.
KIND, FULL_SIZE, SIZE, DATA, DICTIONARY = 1, 2, 3, 5, 7  # fields of a page's header
KINDS = {0: DATA, 2: DICTIONARY}
VALUES, ENCODING, LEVELS = 1, 2, 3  # fields of the headers of both kinds of pages, and of pages of data
PLAIN, BY_DICTIONARY, IN_RUNS = (0, 2), (2, 8), 3  # encodings
TRUE, FALSE, INT16, INT32, INT64, BINARY, STRUCTURE = 1, 2, 4, 5, 6, 8, 12  # types of fields

WIDEST = 8  # bits of a number: eight of them are at most as many bytes
PAIRED = 5  # bits of numbers that are looked up in pairs
PAIRS = 1 << (2 * PAIRED)  # their number: a table of them lies in the first-level cache
PADDING = np.zeros(8, np.uint8)

# What headers of pages lead to that are damaged: fields that are missing or of another type, sizes beyond all bounds.
DAMAGE = (LookupError, TypeError, ValueError, OverflowError, RecursionError, MemoryError)


class UnfitError(Exception):
    """A column is not as plain as it must be here."""


def read(file: BinaryIO, chunks: Sequence[Any], rows: int, nullable: bool) -> Coded | None:
    """Read a column of text, given the metadata of its chunks; None if that is left to Arrow."""
    if sum(chunk.num_values for chunk in chunks) != rows:
        return None
    try:
        codes, known, row = np.empty(rows, np.uint8), Numbering(), 0  # texts are known as they are stored
        for chunk in chunks:
            _read_chunk(file, chunk, nullable, known, codes[row : row + chunk.num_values])
            row += chunk.num_values
        return Coded(*unite(codes, [None if text is None else text.decode() for text in known]), complete=True)
    except (*DAMAGE, UnfitError, OSError, pa.ArrowException):
        return None


def _read_chunk(file: BinaryIO, chunk: Any, nullable: bool, known: Numbering, codes: Bytes) -> None:
    """Fill in the codes of a chunk, by the numbers that its texts have or are given."""
    codec, start = CODECS[chunk.compression], chunk.dictionary_page_offset
    _expect(start is not None)
    file.seek(start)
    codes_of: Bytes | None = None  # the numbers of the chunk's own dictionary
    row = 0
    for header, page in _pages(file.read(chunk.total_compressed_size)):
        kind = KINDS[header[KIND]]
        fields = header[kind]
        _expect(fields[VALUES] >= 0 and (kind == DICTIONARY) == (codes_of is None))
        body = _decompressed(page, header[FULL_SIZE], codec)
        if codes_of is None:
            codes_of = _read_dictionary(body.tobytes(), fields, known)
        else:
            end = row + fields[VALUES]
            _read_rows(body, fields, nullable, codes_of, known, codes[row:end])
            row = end
    _expect(row == len(codes))


def _expect(plain: bool) -> None:
    if not plain:
        raise UnfitError


def _read_dictionary(body: bytes, fields: Fields, known: Numbering) -> Bytes:
    """Return the codes of a dictionary's texts, each of which has its length before it, and NONE beyond them."""
    _expect(fields[ENCODING] in PLAIN and fields[VALUES] <= NONE)
    numbers, at = [], 0
    for _ in range(fields[VALUES]):
        start = at + 4
        at = start + int.from_bytes(body[at:start], "little")
        numbers.append(known[body[start:at]])
    _expect(at <= len(body) and len(known) <= NONE)
    codes = np.full(NONE + 1, NONE, np.uint8)
    codes[: len(numbers)] = numbers
    return codes


def _read_rows(body: Bytes, fields: Fields, nullable: bool, codes_of: Bytes, known: Numbering, codes: Bytes) -> None:
    """Fill in the codes of a page: of all rows, or of those that its levels say have a value."""
    _expect(fields[ENCODING] in BY_DICTIONARY and fields[LEVELS] == IN_RUNS)
    has_value = None
    if nullable:
        end = 4 + int(body[:4].view("<u4")[0])
        _expect(end <= len(body))
        if not _are_ones(body[4:end], len(codes)):
            has_value = _unpacked(body[4:end], 1, HAS_VALUE, np.empty_like(codes)).view(np.bool_)
        body = body[end:]
    if has_value is None or has_value.all():
        _unpacked(body[1:], int(body[0]), codes_of, codes)
        return
    code_of_null = known[None]
    _expect(code_of_null < NONE)
    codes[:] = code_of_null
    values = np.empty(np.count_nonzero(has_value), np.uint8)
    width = int(body[0]) if body.size or values.size else 0
    codes[has_value] = _unpacked(body[1:], width, codes_of, values)


def _are_ones(levels: Bytes, count: int) -> bool:
    """Whether levels are one run of ones, that many of them or more."""
    head, start = _varint(levels.data, 0) if levels.size else (0, 0)
    return head % 2 == 0 and head >> 1 >= count and levels[start:].tobytes() == b"\x01"


def _pages(data: bytes) -> Iterator[tuple[Fields, memoryview]]:
    """Yield the header of each page, and what is below it."""
    at = 0
    while at < len(data):
        header, start = _structure(data, at)
        at = start + header[SIZE]
        _expect(start <= at <= len(data) and header[FULL_SIZE] >= 0)
        yield header, memoryview(data)[start:at]


def _structure(data: bytes, at: int) -> tuple[Fields, int]:
    """Read a structure in Thrift's compact protocol; return its fields, without text, and where it ends."""
    fields: Fields = {}
    field = 0
    while head := data[at]:
        field, kind, at = field + (head >> 4), head & 15, at + 1
        _expect(head >= 16)  # fields of pages are not far from each other
        if kind in (TRUE, FALSE):
            fields[field] = kind == TRUE
        elif kind in (INT16, INT32, INT64):
            number, at = _varint(data, at)
            fields[field] = (number >> 1) ^ -(number & 1)  # zigzag: the lowest bit is the sign
        elif kind == BINARY:
            size, at = _varint(data, at)
            at += size
        elif kind == STRUCTURE:
            fields[field], at = _structure(data, at)
        else:
            raise UnfitError
    return fields, at + 1


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read an integer of seven bits a byte, the lowest first; return it and where it ends."""
    number = shift = 0
    while shift < 64:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
    raise UnfitError


def _decompressed(page: memoryview, size: int, codec: pa.Codec | None) -> Bytes:
    if codec is None:
        _expect(len(page) == size)
        return np.frombuffer(page, np.uint8)
    if codec.name == "snappy":
        _expect(_varint(page, 0)[0] == size)  # Arrow would not notice
    return np.frombuffer(codec.decompress(page, size), np.uint8)


def _unpacked(data: Bytes, width: int, codes_of: Bytes, codes: Bytes) -> Bytes:
    """Fill in the codes of packed numbers of `width` bits each, and return them."""
    _expect(width <= WIDEST and compiled()(np.concatenate((data, PADDING)), width, codes_of, codes))
    _expect(codes.max(initial=0) < NONE)
    return codes


@scalar
def _eight(pairs: Any, width: int, word: int) -> int:
    """Return the codes of the eight lowest numbers of a word, a byte each, by a table of the codes of pairs."""
    mask, codes = (U64(1) << U64(2 * width)) - U64(1), U64(0)
    for pair in range(4):
        codes |= U64(pairs[(word >> U64(2 * width * pair)) & mask]) << U64(16 * pair)
    return codes


def _unpack(data: Any, width: int, codes_of: Any, codes: Any) -> bool:
    """Fill in codes from runs: of one number that repeats, or of groups of eight; False if these are too few."""
    size = data.size - PADDING.size
    mask = (U64(1) << U64(width)) - U64(1)
    pairs, paired = room(PAIRS, uint16), width <= PAIRED and codes.size >= 1 << (2 * width)
    if paired:
        for pair in range(1 << (2 * width)):
            first, second = codes_of[U64(pair) & mask], codes_of[U64(pair) >> U64(width)]
            pairs[pair] = first | (uint16(second) << 8)
    at = row = 0
    while row < codes.size:
        head = shift = 0
        byte = 128
        while byte >= 128:
            if at >= size or shift > 28:
                return False
            byte = I64(data[at])
            head |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
        count, left = head >> 1, codes.size - row
        if count == 0:
            return False
        if head & 1:
            if at + count * width > size:
                return False
            whole = smaller(count, left >> 3)
            in_pairs = whole if paired else 0
            for group in range(in_pairs):
                set_eight_bytes(codes, row + 8 * group, _eight(pairs, width, eight_bytes(data, at + group * width)))
            for group in range(in_pairs, whole):
                word = eight_bytes(data, at + group * width)
                for i in range(8):
                    codes[U64(row + 8 * group + i)] = codes_of[(word >> U64(i * width)) & mask]
            row += 8 * whole
            if whole < count:
                word = eight_bytes(data, at + whole * width)
                for i in range(codes.size - row):
                    codes[U64(row + i)] = codes_of[(word >> U64(i * width)) & mask]
                row = codes.size
            at += count * width
        else:
            number = U64(0)
            if width > 0:
                if at >= size:
                    return False
                number, at = U64(data[at]), at + 1
            code, end = codes_of[number], row + smaller(count, left)
            for i in range(row, end):
                codes[U64(i)] = code
            row = end
    return True


@cache
def compiled() -> Callable[..., bool]:
    """Return the machine code of `_unpack`."""
    data = types.Array(types.uint8, 1, "C")
    return Kernel(_unpack).compile((data, types.int64, data, data))
