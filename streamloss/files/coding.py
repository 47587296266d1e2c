"""Columns of keys, as `GroupedAccumulator.update` takes them: numbers as they are, everything else as codes."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from ..keys import Coded

Words = npt.NDArray[np.uint64]


class Coder:
    """Codes one column of keys, batch after batch: a key keeps its code, and `values` only ever grows."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._code: dict[str, int] = {}

    def encode(self, series: pl.Series) -> Any:
        """The keys of a batch: an ndarray, masked where a number is null, or Coded."""
        dtype = series.dtype
        if dtype == pl.Boolean or dtype.is_integer() or dtype.is_float():
            return _numbers(series)
        if dtype == pl.Null:
            return Coded(np.full(len(series), -1, np.int32), self.values)
        words = _words(series)
        present = None if series.null_count() == 0 else series.is_not_null().to_numpy()
        codes, firsts = _number(*words, present)
        distinct = series.gather(firsts).cast(pl.String).to_list()
        known = np.array([self._code_of(value) for value in distinct], np.int32)
        return Coded(_renumbered(codes, known), self.values)

    def encode_array(self, values: npt.NDArray[Any]) -> Any:
        """The keys of a batch of an array: text, bytes of UTF-8, or times."""
        if values.dtype.kind == "M":
            return self.encode(pl.Series(values))
        texts = [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]
        return self.encode(pl.Series(texts, dtype=pl.String))

    def _code_of(self, value: str) -> int:
        code = self._code.setdefault(value, len(self.values))
        if code == len(self.values):
            self.values.append(value)
        return code


def _numbers(series: pl.Series) -> npt.NDArray[Any]:
    if series.null_count() == 0:
        return series.to_numpy()
    values = series.fill_null(False if series.dtype == pl.Boolean else 0).to_numpy()
    return np.ma.array(values, mask=series.is_null().to_numpy())


def _words(series: pl.Series) -> tuple[Words, Words]:
    """Two words for each row, the same only for equal keys: Arrow's string view, or the integer behind a value."""
    if series.dtype == pl.String:
        view = series.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
        first = 2 * view.offset
        words = np.frombuffer(view.buffers()[1], np.uint64)[first : first + 2 * len(series)]
        return words[0::2], words[1::2]
    physical = series.to_physical()
    if physical.dtype == pl.Int128:
        physical = physical.rechunk()
        low = (physical & 0xFFFFFFFFFFFFFFFF).cast(pl.UInt64).to_numpy()
        high = (physical // (1 << 64)).cast(pl.Int64).to_numpy().view(np.uint64)
        return low, high
    low = physical.fill_null(0).cast(pl.Int64).to_numpy().view(np.uint64)
    return low, np.broadcast_to(np.uint64(0), low.shape)


@numba.njit(nogil=True, cache=True)
def _number(low: Any, high: Any, present: Any) -> Any:
    """Number the distinct pairs of words in the order in which they come; where each comes first."""
    size = 1024
    table = np.full(size, -1, np.int32)
    firsts = np.empty(size // 2, np.int64)
    found = 0
    codes = np.empty(low.size, np.int32)
    for i in range(low.size):
        if present is not None and not present[i]:
            codes[i] = -1
            continue
        a, b = low[i], high[i]
        slot = _slot(a, b, size)
        while table[slot] >= 0:
            j = firsts[table[slot]]
            if low[j] == a and high[j] == b:
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = found
            firsts[found] = i
            found += 1
            if 2 * found == size:
                codes[i] = found - 1
                size *= 4
                table = np.full(size, -1, np.int32)
                more = np.empty(size // 2, np.int64)
                more[:found] = firsts
                firsts = more
                for code in range(found):
                    slot = _slot(low[firsts[code]], high[firsts[code]], size)
                    while table[slot] >= 0:
                        slot = (slot + 1) & (size - 1)
                    table[slot] = code
                continue
        codes[i] = table[slot]
    return codes, firsts[:found]


@numba.njit(nogil=True, cache=True)
def _slot(a: Any, b: Any, size: int) -> Any:
    mixed = (a ^ (b * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.int64((mixed >> np.uint64(32)) & np.uint64(size - 1))


@numba.njit(nogil=True, cache=True)
def _renumbered(codes: Any, known: Any) -> Any:
    for i in range(codes.size):
        if codes[i] >= 0:
            codes[i] = known[codes[i]]
    return codes
