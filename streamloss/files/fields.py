"""What a parser of some columns does not look at: what stands in quotes, and how many fields each record has."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import uint8
from numba.core import types

from .._jit import Kernel, scalar
from ..cpu.operands import room
from ..intrinsics import I64, U64, WORD, equal_in_word, ones

QUOTE, LINE_FEED, CARRIAGE_RETURN = b'"\n\r'
ALL = 2**64 - 1


def are_regular(data: bytes, separator: str, width: int) -> bool:
    """Whether every line has `width` separators outside of quotes; blank lines may have none.

    Lines within quotes belong to the line that they begin in.
    """
    return bool(_compiled()(np.frombuffer(data, np.uint8), ord(separator), b'"' in data, width))


def quotes_are_clear(data: bytes, separator: str, start: int = 0) -> bool:
    """Whether there is one way to read the quotes from `start` on, where a record begins, and all of them close.

    Parsers of CSV differ in quotes within fields: to some every quote opens or closes, to others only one that a field
    begins with opens, and a quote in a field without quotes is a letter. Both must see the same separators and lines.
    """
    if data.find(b'"', start) < 0:
        return True
    text = np.frombuffer(data, np.uint8)[start:]
    return bool(_compiled_proper()(text, ord(separator)) or _compiled_clear()(text, ord(separator)))


@scalar
def odd_so_far(word: int) -> int:
    """Return a word whose bits say whether the bits of another are odd in number up to there."""
    shift = U64(1)
    while shift < U64(WORD):
        word ^= word << shift
        shift <<= U64(1)
    return word


@scalar
def marks(text: Any, first: int, separator: int, quoted: bool, inside: int) -> tuple[int, int, int]:
    """Return which of WORD bytes are separators and which end lines, as bits, and ALL if what follows is in quotes."""
    separators = equal_in_word(text, first, uint8(separator))
    ends = equal_in_word(text, first, uint8(LINE_FEED))
    if quoted:
        within = odd_so_far(equal_in_word(text, first, uint8(QUOTE))) ^ inside
        separators &= ~within
        ends &= ~within
        inside = U64(ALL) if within >> U64(WORD - 1) != U64(0) else U64(0)
    return separators, ends, inside


def _are_regular(text: Any, separator: int, quoted: bool, width: int) -> bool:
    rest = room(WORD, uint8)
    fields = start = 0  # of the line that has begun
    inside = U64(0)
    for first in range(0, text.size, WORD):
        if first + WORD <= text.size:
            separators, ends, inside = marks(text, first, separator, quoted, inside)
        else:
            for i in range(WORD):
                rest[i] = text[first + i] if first + i < text.size else 0
            separators, ends, inside = marks(rest, I64(0), separator, quoted, inside)
        while ends != U64(0):
            before = (ends & (~ends + U64(1))) - U64(1)  # the bytes before the first end
            end = first + ones(before)
            fields += ones(separators & before)
            is_blank = end == start or (end == start + 1 and text[start] == CARRIAGE_RETURN)
            if fields != width and not is_blank:
                return False
            fields, start = 0, end + 1
            separators &= ~before
            ends &= ends - U64(1)
        fields += ones(separators)
    return start == text.size or fields == width


def _are_proper(text: Any, separator: int) -> bool:
    """Whether every quote stands where any reader expects it: at an edge of a field, or beside another quote."""
    rest = room(WORD, uint8)
    inside = U64(0)
    begins, closed = U64(1), U64(0)  # whether a quote may open at the next byte, and whether one has closed before it
    for first in range(0, text.size, WORD):
        if first + WORD <= text.size:
            wrong, inside, begins, closed = misplaced(text, first, separator, inside, begins, closed)
        else:
            for i in range(WORD):
                rest[i] = text[first + i] if first + i < text.size else uint8(LINE_FEED)
            wrong, inside, begins, closed = misplaced(rest, I64(0), separator, inside, begins, closed)
        if wrong != U64(0):
            return False
    return inside == U64(0)


@scalar
def misplaced(
    text: Any, first: int, separator: int, inside: int, begins: int, closed: int
) -> tuple[int, int, int, int]:
    """Return which of WORD bytes are quotes that may not open, or follow one that may not close; and what goes on."""
    quotes = equal_in_word(text, first, uint8(QUOTE))
    edges = equal_in_word(text, first, uint8(separator)) | equal_in_word(text, first, uint8(LINE_FEED)) | quotes
    within = odd_so_far(quotes) ^ inside
    closing = quotes & ~within
    wrong = quotes & within & ~(edges << U64(1) | begins)
    wrong |= (closing << U64(1) | closed) & ~(edges | equal_in_word(text, first, uint8(CARRIAGE_RETURN)))
    last = U64(WORD - 1)
    return wrong, U64(ALL) if within >> last != U64(0) else U64(0), edges >> last, closing >> last


def _are_clear(text: Any, separator: int) -> bool:
    """Follow both readings, byte by byte."""
    odd = within = False  # in quotes, as every quote opens or closes, and as only the first of a field opens
    begins, paired = True, False  # whether a field begins, and whether the last quote may be the first of two
    for i in range(text.size):
        byte = text[i]
        if byte == QUOTE:
            odd = not odd
            if within:
                within, paired = False, True
            else:
                within, paired = begins or paired, False
            begins = False
        else:
            paired = False
            begins = byte in (separator, LINE_FEED)
            if begins and within != odd:
                return False
    return not (odd or within)


def _compiler(function: Callable[..., bool], *others: Any) -> Callable[..., bool]:
    return Kernel(function).compile((types.Array(types.uint8, 1, "C", readonly=True), types.int64, *others))


@cache
def _compiled() -> Callable[..., bool]:
    return _compiler(_are_regular, types.boolean, types.int64)


@cache
def _compiled_proper() -> Callable[..., bool]:
    return _compiler(_are_proper)


@cache
def _compiled_clear() -> Callable[..., bool]:
    return _compiler(_are_clear)
