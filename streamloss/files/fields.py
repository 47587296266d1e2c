"""Whether all records of a block have the same number of fields, which a parser of some columns does not look at."""

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


@scalar
def marks(text: Any, first: int, separator: int, quoted: bool, inside: int) -> tuple[int, int, int]:
    """Return which of WORD bytes are separators and which end lines, as bits, and ALL if what follows is in quotes."""
    separators = equal_in_word(text, first, uint8(separator))
    ends = equal_in_word(text, first, uint8(LINE_FEED))
    if quoted:
        within = equal_in_word(text, first, uint8(QUOTE))
        shift = U64(1)
        while shift < U64(WORD):  # then each bit says whether an odd number of quotes came so far
            within ^= within << shift
            shift <<= U64(1)
        within ^= inside
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


@cache
def _compiled() -> Callable[..., bool]:
    text = types.Array(types.uint8, 1, "C", readonly=True)
    return Kernel(_are_regular).compile((text, types.int64, types.boolean, types.int64))
