"""Other losses: cheap ones against the read bandwidth, those with log or exp against a plain fast-math loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import streamloss

from . import exactly
from .machine import Array, read_all, time_in_turns
from .plain import mean_of
from .plan import Plan, Row, Rows, progress
from .report import table

TITLE = "Losses"

Make = Callable[[np.random.Generator, int], Array]


def capped_error(label: float, prediction: float) -> float:
    """A loss as users write one: the absolute error, a quarter of it above 1."""
    error = abs(prediction - label)
    return error if error < 1.0 else 0.75 + 0.25 * error


def _normal(rng: np.random.Generator, size: int) -> Array:
    return rng.standard_normal(size, dtype=np.float32)


def _uniform(rng: np.random.Generator, size: int) -> Array:
    return rng.random(size, dtype=np.float32)


def _zero_one(rng: np.random.Generator, size: int) -> Array:
    return (rng.random(size, dtype=np.float32) < 0.3).astype(np.float32)


def _pinball(y: Array, p: Array) -> Array:
    return np.where(y >= p, 0.5 * (y - p), (0.5 - 1.0) * (y - p))


def _huber(y: Array, p: Array) -> Array:
    error = np.abs(p - y)
    return np.where(error <= 1.0, 0.5 * error * error, error - 0.5)


def _capped(y: Array, p: Array) -> Array:
    error = np.abs(p - y)
    return np.where(error < 1.0, error, 0.75 + 0.25 * error)


def _cross_entropy(y: Array, p: Array) -> Array:
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


@dataclass(frozen=True)
class Case:
    """A loss, the same in NumPy, and what its labels and predictions are drawn from."""

    name: str
    loss: Any
    in_numpy: Callable[[Array, Array], Array]
    labels: Make = _normal
    predictions: Make = _normal
    transcendental: bool = False  # its bits are those of a library for log and exp


CASES = [
    Case("squared_error", "squared_error", lambda y, p: (p - y) * (p - y)),
    Case("absolute_error", "absolute_error", lambda y, p: np.abs(p - y)),
    Case("huber", "huber", _huber),
    Case("quantile", "quantile", _pinball),
    Case("a user's function", capped_error, _capped),
    Case(
        "squared_log_error",
        "squared_log_error",
        lambda y, p: (np.log1p(p) - np.log1p(y)) ** 2,
        _uniform,
        _uniform,
        True,
    ),
    Case("log_cosh", "log_cosh", lambda y, p: np.logaddexp(p - y, y - p) - np.log(2.0), _normal, _normal, True),
    Case("binary_cross_entropy", "binary_cross_entropy", _cross_entropy, _zero_one, _uniform, True),
]


def run(plan: Plan) -> Rows:
    """One row for each loss, on float32 arrays: fraction of the roof, and time over that of the plain loop."""
    size = plan.pick(1 << 16, 1 << 24)
    for case in CASES:
        progress(f"losses: {case.name}")
        rng = np.random.default_rng(21)
        y, p = case.labels(rng, size), case.predictions(rng, size)
        yield measure(case, y, p, plan.pick(1, 15))


def measure(case: Case, y: Array, p: Array, turns: int) -> Row:
    """The row of one loss."""
    loss = streamloss.Accumulator(case.loss)

    def exact() -> float:
        return loss.reset().update(y, p).result("mean")

    known = getattr(streamloss.losses, case.loss) if isinstance(case.loss, str) else None
    formula, values = (known.formula, known.values) if known else (case.loss, ())
    plain = partial(mean_of(formula, *values), y, p)
    expected = exactly.total(case.in_numpy(y.astype(np.float64), p.astype(np.float64))) / (y.size << 1074)
    result = exact()
    tolerance = 1e-12 if case.transcendental else 0.0
    assert abs(result - expected) <= tolerance * expected, f"{case.name}: {result!r} is not {expected!r}"
    assert abs(plain() - expected) <= 1e-9 * expected, f"{case.name}: the plain loop is wrong"
    calls: dict[str, Callable[[], Any]] = {"read": partial(read_all, [y, p]), "exact": exact, "plain": plain}
    timed = time_in_turns(calls, turns)
    read, ours, theirs = (timed[name].seconds for name in ("read", "exact", "plain"))
    return {
        "loss": case.name,
        "GB/s": (y.nbytes + p.nbytes) / ours / 1e9,
        "nanoseconds per element": ours / y.size * 1e9,
        "of the roof": read / ours,
        "plain fast-math Numba, of the roof": read / theirs,
        "time / plain fast-math Numba": ours / theirs,
    }


def show(rows: list[Row]) -> str:
    """The rows as they are."""
    return table(rows)
