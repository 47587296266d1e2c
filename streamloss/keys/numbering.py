"""Values made codes that count from 0, each value once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _threads
from .forms import form

Codes: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.uint8]

FEW = 1 << 10  # integers in a range this narrow are coded by their distance from the lowest
BYTE = 1 << 8  # and by one byte in this one: a quarter of what is written, and read again
SLICE = 1 << 17  # integers that a thread takes at once, if there are more: they stay in the second-level cache
TABLE = 1 << 16  # integers in a range this narrow are numbered by a table, however few they are


class Numbering(dict[Any, int]):
    """A dictionary that numbers values in the order in which they are first looked up."""

    def __missing__(self, value: Any) -> int:
        number = self[value] = len(self)
        return number


def number(values: npt.NDArray[Any]) -> tuple[list[Any], Codes]:
    """Return the distinct values of an array of integers or bools, ascending, and which of them each entry is.

    In a narrow range, all values are returned without a search for those that are there: no group comes of a value
    without elements.
    """
    if values.size == 0:
        return [], np.zeros(values.shape, np.int32)
    if values.dtype.kind == "b":
        found, codes = number(values.view(np.uint8))
        return list(map(bool, found)), codes
    low, high = _range(values)
    if high - low >= max(TABLE, 4 * values.size):
        distinct, inverse = np.unique(values, return_inverse=True)
        return distinct.tolist(), inverse.astype(np.int32)
    if high - low < FEW:
        return list(range(low, high + 1)), _above(low, values, np.uint8 if high - low < BYTE else np.int32)
    offsets = _above(low, values, np.int64)
    present = np.zeros(high - low + 1, np.bool_)
    present[offsets] = True
    numbers = np.cumsum(present, dtype=np.int32)
    numbers -= 1
    return [low + offset for offset in np.flatnonzero(present).tolist()], numbers[offsets]


def _range(values: npt.NDArray[Any]) -> tuple[int, int]:
    """Return the lowest and the highest of integers."""
    if values.size <= SLICE or values.ndim != 1:
        return int(values.min()), int(values.max())

    def work(drawn: Iterator[int]) -> list[tuple[int, int]]:
        return [_range(values[start : start + SLICE]) for start in drawn]

    slices = _threads.share(range(0, len(values), SLICE), work)
    lows, highs = zip(*chain.from_iterable(slices), strict=True)
    return min(lows), max(highs)


def _above(low: int, values: npt.NDArray[Any], dtype: type[np.integer[Any]]) -> npt.NDArray[Any]:
    """Return how far integers of any dtype are above the lowest: if both wrap around, the difference is still right."""
    if low == 0 and values.itemsize == np.dtype(dtype).itemsize and values.dtype.isnative:
        return values.view(dtype)
    if values.size <= SLICE or values.ndim != 1:
        narrow = values.astype(dtype)
        return narrow - values.dtype.type(low).astype(dtype) if low else narrow
    found = np.empty(values.shape, dtype)

    def work(drawn: Iterator[int]) -> None:
        for start in drawn:
            here = slice(start, start + SLICE)
            found[here] = _above(low, values[here], dtype)

    _threads.share(range(0, len(values), SLICE), work)
    return found


def unite(codes: Codes, values: list[Any]) -> tuple[Codes, list[Any]]:
    """Give keys their one form, and one code to keys that become equal by it."""
    forms = list(map(form, values))
    if len(set(forms)) == len(forms):
        return codes, forms
    numbering = Numbering()
    renamed = np.array([numbering[value] for value in forms], np.int32)
    return renamed[codes], list(numbering)
