"""The reductions: for each name, the quotient of exact sums that it stands for."""

from __future__ import annotations

from enum import StrEnum

from . import exact
from .exact import COUNT, COUNTS, NONZERO, SUM_WORDS, TERMS, WEIGHTS, Words


class Reduction(StrEnum):
    """How a result is computed from S = sum of weight * loss, W = sum of weights and the counts of elements.

    Weights are counted after they are broadcast. A zero denominator gives NaN: the score of nothing is not a perfect
    score.

    >>> import streamloss
    >>> [str(reduction) for reduction in streamloss.Reduction]
    ['none', 'sum', 'mean', 'sum_over_batch_size', 'sum_by_nonzero_weights']
    """

    NONE = "none"
    """The weighted losses themselves, unreduced: for one-shot functions, and `out=` of an update."""
    SUM = "sum"
    """S."""
    MEAN = "mean"
    """S / W."""
    SUM_OVER_BATCH_SIZE = "sum_over_batch_size"
    """S / number of elements."""
    SUM_BY_NONZERO_WEIGHTS = "sum_by_nonzero_weights"
    """S / number of elements whose weight is not 0."""


def as_reduction(name: str | Reduction) -> Reduction:
    """Return the reduction of that name; ValueError if there is none."""
    try:
        return Reduction(name)
    except ValueError:
        raise ValueError(f"reduction must be one of {', '.join(Reduction)}, got {name!r}") from None


def reduce(state: Words, reduction: Reduction) -> float:
    """Return the exact quotient that the reduction stands for, rounded once."""
    if reduction is Reduction.SUM:
        return quotient(exact.section(state, TERMS), exact.ONE)
    if reduction is Reduction.MEAN:
        return quotient(exact.section(state, TERMS), exact.section(state, WEIGHTS))
    if reduction is Reduction.SUM_OVER_BATCH_SIZE:
        return quotient(exact.section(state, TERMS), int(state[COUNT]) * exact.ONE)
    if reduction is Reduction.SUM_BY_NONZERO_WEIGHTS:
        return quotient(exact.section(state, TERMS), int(state[NONZERO]) * exact.ONE)
    raise ValueError(
        "reduction 'none' keeps every loss, and a state keeps none of them:"
        " pass out=array to update(), or call a one-shot function with reduction='none'"
    )


def quotient(numerator: Words, denominator: Words | int) -> float:
    """Divide a sum by another, or by an integer in units of the last digit; NaN if the denominator is zero."""
    top = exact.to_integer(numerator) if exact.is_finite(numerator) else exact.special_value(numerator)
    if isinstance(denominator, int):
        bottom: float = denominator
    elif exact.is_finite(denominator):
        bottom = exact.to_integer(denominator)
    else:
        bottom = exact.special_value(denominator)
    if bottom == 0:
        return float("nan")
    if isinstance(top, int) and isinstance(bottom, int):
        return exact.divide(top, bottom)
    # One of them is NaN or infinite: of the other only the sign counts, which a float keeps.
    return _sign(top) / _sign(bottom)


def _sign(value: float) -> float:
    return float((value > 0) - (value < 0)) if isinstance(value, int) else value


def standard_error(state: Words, reduction: Reduction) -> float:
    """Return the standard error of what the reduction stands for, from exact sums, rounded once; see `Accumulator`.

    With terms t, weights w and the result m, it is sqrt(n / (n - 1) * sum(e**2)) over the denominator of m, where
    e = t - m * w for the mean, and e = t - sum(t) / n otherwise. Written out, sum(e**2) needs sums over all elements
    alone, and so no second pass.
    """
    if reduction is Reduction.NONE:
        raise ValueError("reduction 'none' keeps every loss, and has no standard error")
    if not all(exact.is_finite(state[start:]) for start in range(COUNTS, state.size, SUM_WORDS)):
        return float("nan")
    terms, weights, term_squares, products, weight_squares = (
        exact.to_integer(exact.section(state, start)) for start in range(COUNTS, state.size, SUM_WORDS)
    )
    n = int(state[COUNT if reduction is Reduction.SUM_OVER_BATCH_SIZE or reduction is Reduction.SUM else NONZERO])
    if n < 2:
        return float("nan")
    if reduction is Reduction.MEAN:
        # sum(e**2) * weights**2; every sum is an integer in units of 1 / exact.ONE
        squares = (term_squares * weights**2 - 2 * terms * products * weights + terms**2 * weight_squares) * exact.ONE
        denominator = (n - 1) * weights**4
        numerator = n * squares
    else:
        squares = n * term_squares * exact.ONE - terms**2  # sum(e**2) * n * ONE**2
        denominator = (n - 1) * exact.ONE**2 * (1 if reduction is Reduction.SUM else n**2)
        numerator = squares
    if denominator == 0:
        return float("nan")
    return exact.root(max(numerator, 0), denominator)  # squares that were rounded may fall below zero
