"""The loops that anybody would write in Numba: parallel, fast-math, a float64 total in whatever order it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import float64

from .machine import Array


@numba.njit(parallel=True, fastmath=True)
def _sums(y: Any, p: Any, w: Any, m: Any) -> tuple[float, float]:
    top = bottom = 0.0
    for i in numba.prange(y.size):
        error = float64(p[i]) - float64(y[i])
        weight = float64(1.0) if w is None else float64(w[i])
        if m is not None:
            weight = weight if m[i] else 0.0
        top += weight * error * error
        bottom += weight
    return top, bottom


@numba.njit(parallel=True, fastmath=True)
def _sum(y: Any, p: Any) -> float:
    total = 0.0
    for i in numba.prange(y.size):
        error = float64(p[i]) - float64(y[i])
        total += error * error
    return total


@numba.njit(parallel=True, fastmath=True)
def _sums_of_samples(y: Any, p: Any, w: Any) -> tuple[float, float]:
    top = bottom = 0.0
    for i in numba.prange(y.shape[0]):
        squares = 0.0
        for j in range(y.shape[1]):
            error = float64(p[i, j]) - float64(y[i, j])
            squares += error * error
        top += float64(w[i]) * squares
        bottom += float64(w[i])
    return top, bottom * y.shape[1]


def weighted_mean(y: Array, p: Array, w: Array | None, m: Array | None) -> float:
    """The weighted mean squared error."""
    if w is None and m is None:
        return _sum(y.reshape(-1), p.reshape(-1)) / y.size
    top, bottom = _sums(y, p, w, m) if y.ndim == 1 else _sums_of_samples(y, p, w)
    return top / bottom


def mean_of(formula: Callable[..., float], *values: float) -> Callable[[Array, Array], float]:
    """The mean of a loss with these parameters, computed by a loop of the same kind."""
    loss = numba.njit(fastmath=True)(formula)

    @numba.njit(parallel=True, fastmath=True)
    def total(y: Any, p: Any) -> float:
        result = 0.0
        for i in numba.prange(y.size):
            result += loss(float64(y[i]), float64(p[i]), *values)
        return result

    return lambda y, p: float(total(y, p) / np.float64(y.size))
