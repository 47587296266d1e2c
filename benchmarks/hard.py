"""Data that are hard for exact sums, against easy data of the same dtype and loss.

What of that is the processor's own is measured beside it: the loss alone, by NumPy, of the same errors. A product that
is subnormal takes it some 150 cycles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

import streamloss

from . import exactly
from .machine import Array, read_all, time_in_turns
from .plan import Plan, Row, Rows, progress
from .report import table

TITLE = "Hard data"

BLOCK = 1 << 14  # elements that NumPy is given at once

Errors = Callable[[np.random.Generator, int], Array]


def _over_600_orders(rng: np.random.Generator, size: int) -> Array:
    """Errors whose squares have exponents from -300 to 300."""
    return np.ldexp(rng.uniform(1, 2, size), rng.integers(-150, 150, size))


def _subnormal(rng: np.random.Generator, size: int, exponent: int) -> Array:
    """Normal numbers, 30 % of them scaled down by that many binary orders."""
    return np.ldexp(rng.standard_normal(size), np.where(rng.random(size) < 0.3, exponent, 0))


def _with_nan(rng: np.random.Generator, size: int) -> Array:
    errors = rng.standard_normal(size)
    errors[rng.random(size) < 0.01] = np.nan
    return errors


@dataclass(frozen=True)
class Case:
    """Errors drawn by a function; labels are 0, so that predictions are the errors."""

    name: str
    errors: Errors
    dtype: type = np.float64
    loss: Literal["squared_error", "absolute_error"] = "squared_error"
    nan: Literal["propagate", "omit"] = "propagate"

    def terms(self, errors: Array) -> Array:
        """The losses of the elements that count."""
        errors = errors.astype(np.float64)
        errors = errors[~np.isnan(errors)]
        return errors * errors if self.loss == "squared_error" else np.abs(errors)

    def loss_alone(self, errors: Array) -> None:
        """The losses, written into the cache."""
        room = np.empty(BLOCK, errors.dtype)
        function = np.square if self.loss == "squared_error" else np.abs
        for start in range(0, errors.size, BLOCK):
            function(errors[start : start + BLOCK], out=room)


CASES = [
    Case("exponents over 600 binary orders", _over_600_orders),
    Case("30 % of the losses subnormal", partial(_subnormal, exponent=-520)),
    Case("30 % of the predictions subnormal", partial(_subnormal, exponent=-1040), loss="absolute_error"),
    Case("1 % NaN, omitted", _with_nan, nan="omit"),
    Case("1 % NaN, omitted", _with_nan, np.float32, nan="omit"),
]


def run(plan: Plan) -> Rows:
    """One row for each kind of data: its time over that of normal errors."""
    size = plan.pick(1 << 16, 1 << 24)
    for case in CASES:
        progress(f"hard: {case.name}, {case.dtype.__name__}")
        rng = np.random.default_rng(22)
        labels: Array = np.zeros(size, case.dtype)
        easy: Array = rng.standard_normal(size).astype(case.dtype)
        hard: Array = case.errors(rng, size).astype(case.dtype)
        calls: dict[str, Callable[[], Any]] = {"read": partial(read_all, [labels, hard])}
        calls["easy"] = _scored(Case("easy", case.errors, case.dtype, case.loss), labels, easy)
        calls["hard"] = _scored(case, labels, hard)
        calls["loss of easy"], calls["loss of hard"] = partial(case.loss_alone, easy), partial(case.loss_alone, hard)
        timed = time_in_turns(calls, plan.pick(1, 9))
        yield {
            "data": f"{case.name}: {case.loss}, {case.dtype.__name__}",
            "GB/s": (labels.nbytes + hard.nbytes) / timed["hard"].seconds / 1e9,
            "of the roof": timed["read"].seconds / timed["hard"].seconds,
            "time / easy data": timed["hard"].seconds / timed["easy"].seconds,
            "NumPy, the loss alone": timed["loss of hard"].seconds / timed["loss of easy"].seconds,
        }


def _scored(case: Case, labels: Array, predictions: Array) -> Callable[[], float]:
    """A call that scores these arrays, after its answer has been asserted."""
    accumulator = streamloss.Accumulator(case.loss, nan=case.nan)

    def call() -> float:
        return accumulator.reset().update(labels, predictions).result("mean")

    terms = case.terms(predictions)
    expected = exactly.total(terms) / (terms.size << 1074)
    assert call() == expected, f"{case.name}: {call()!r} is not {expected!r}"
    return call


def show(rows: list[Row]) -> str:
    """The rows as they are."""
    return table(rows)
