"""The exact answer, by integers alone and apart from the library: what every measured answer is held against."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .machine import Array

STEP = 1 << 20  # elements at a time


@numba.njit(nogil=True)
def _sort_by_exponent(terms: Any, halves: Any) -> bool:
    """Add the low and high 32 bits of each mantissa to the two integers of its exponent; whether all are finite."""
    words = terms.view(np.int64)
    for i in range(words.size):
        exponent = (words[i] >> 52) & 0x7FF
        mantissa = words[i] & ((1 << 52) - 1)
        if exponent == 0x7FF:
            return False
        if exponent == 0:
            exponent = 1  # subnormal: no hidden bit, the same unit
        else:
            mantissa |= 1 << 52
        sign = 1 if words[i] >= 0 else -1
        halves[exponent, 0] += sign * (mantissa & 0xFFFFFFFF)
        halves[exponent, 1] += sign * (mantissa >> 32)
    return True


def total(terms: Array) -> int:
    """The exact sum of up to 2**31 finite float64 numbers, in units of 2**-1074.

    >>> import numpy as np
    >>> total(np.array([1e300, 2.0, -1e300])) == 2 << 1074
    True
    """
    halves = np.zeros((0x7FF, 2), np.int64)
    if not _sort_by_exponent(np.ascontiguousarray(terms, np.float64).reshape(-1), halves):
        raise ValueError("terms must be finite")
    return sum(((int(high) << 32) + int(low)) << (e - 1) for e, (low, high) in enumerate(halves) if low or high)


def squared_error(labels: Array, predictions: Array, weights: Array | None = None, mask: Array | None = None) -> float:
    """sum(w * (p - y)**2) / sum(w), each term rounded as IEEE float64 says, all else exact, and rounded once.

    Weights may be those of rows. This is what README.md, "What the numbers mean", promises for the mean.
    """
    top = bottom = 0
    rows = max(1, STEP * len(labels) // labels.size)
    for start in range(0, len(labels), rows):
        here = slice(start, start + rows)
        terms = predictions[here].astype(np.float64) - labels[here]
        terms *= terms
        used = np.ones(1)
        if weights is not None:
            used = weights[here].astype(np.float64).reshape(-1, *[1] * (labels.ndim - 1))
            terms *= used
        used = np.broadcast_to(used, terms.shape)
        keep = slice(None) if mask is None else mask[here]
        top += total(terms[keep])
        bottom += total(used[keep])
    return top / bottom  # Python rounds a quotient of integers once, to nearest even


def ulps(result: float, exact: float) -> float:
    """How far a result is from the exact answer, in units of its last place."""
    return abs(result - exact) / float(np.spacing(abs(exact)))
