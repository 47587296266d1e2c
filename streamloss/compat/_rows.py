"""The means of rows: sums that are rounded once, of all short rows at the same time.

Two numbers have a sum of two numbers, without error: the rounded sum, and what it lacks (Knuth, The Art of Computer
Programming, volume 2, 4.2.2, theorem B). So a tree of additions leaves a rounded sum and its errors, and a second tree,
of these errors, leaves what the first sum lacks and errors of second order. As long as those could not change the
rounding of the sum, it is the correctly rounded one; the few rows for which they could are added exactly instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..accumulator import Accumulator
from ..chunks import PIECE
from ..reduction import Reduction
from ._streams import Array, element_losses


def add_rows(accumulator: Accumulator, labels: Array, predictions: Array, weights: Any) -> Array:
    """Add rows to an accumulator, and return their weighted means; piece by piece, so that temporaries are small.

    An infinite weight multiplies the mean of its row: infinity * 0 is NaN, infinity * mean(0, 1) is not.
    """
    *leading, size = labels.shape
    count = math.prod(leading)
    labels, predictions = labels.reshape(count, size), predictions.reshape(count, size)
    each = np.broadcast_to(np.asarray(weights, np.float64), (*leading, 1)).reshape(count, 1)
    means = np.empty((count, 1))
    rows = max(PIECE // max(size, 1), 1)
    for start in range(0, count, rows):
        part = slice(start, start + rows)
        add = add_short_rows if size <= PIECE else add_long_row
        means[part, 0] = add(accumulator, labels[part], predictions[part], each[part])
    if size == 0 and leading:  # rows without elements, whose means are NaN
        accumulator.update_losses(means, each)
    with np.errstate(all="ignore"):
        return (means * each).reshape(leading)


def add_short_rows(accumulator: Accumulator, labels: Array, predictions: Array, weights: Array) -> Array:
    """Add rows of PIECE elements in all to an accumulator, and return their means."""
    losses = element_losses(accumulator.loss, labels, predictions)
    means = row_means(losses)
    infinite = np.isinf(weights)
    accumulator.update_losses(np.where(infinite, means[:, np.newaxis], losses) if infinite.any() else losses, weights)
    return means


def add_long_row(accumulator: Accumulator, labels: Array, predictions: Array, weights: Array) -> float:
    """Add one row to an accumulator, and return its mean."""
    row = mean(Accumulator(accumulator.loss).update(labels, predictions))
    if np.isinf(weights).any():
        accumulator.update_losses(np.broadcast_to(row, labels.shape), weights)
    else:
        accumulator.update(labels, predictions, weights)
    return row


def row_means(values: Array) -> Array:
    """Return the mean of every row of an array of shape (rows, size): the exact sum, rounded, divided by the size.

    A row of no elements has the mean NaN. The array should hold at most PIECE elements: temporaries are as large.
    """
    size = values.shape[1]
    if size == 0:
        return np.full(len(values), math.nan)
    if size == 1:
        return values[:, 0]
    sums, decided = rounded_sums(values)
    means = sums / size
    for row in np.flatnonzero(~decided):
        means[row] = mean(Accumulator().update_losses(values[row]))
    return means


def mean(accumulator: Accumulator) -> float:
    """Return the mean of losses without weights: the exact sum, rounded, divided by their number.

    Where the sum is beyond float64, the quotient may not be.
    """
    total = accumulator.loss_sum
    if math.isfinite(total):
        return total / accumulator.count
    return accumulator.result(Reduction.SUM_OVER_BATCH_SIZE)


@np.errstate(all="ignore")
def rounded_sums(values: Array) -> tuple[Array, Array]:
    """Return the sums of rows, and which of them are certainly the exact sums, rounded once, or what is not finite."""
    terms = np.array(values.T, np.float64, order="C")
    finite = np.isfinite(terms)
    infinite = np.zeros(len(values)) if finite.all() else np.where(finite, 0.0, terms).sum(axis=0)
    total, errors = folded(terms)
    lacking, errors = folded(errors)
    total, lacking = two_sum(total, lacking)
    doubt = abs(errors).sum(axis=0)
    margin = 2.0 * doubt + 2.0**-51 * abs(lacking)  # more than doubt, because it and the next two sums are rounded
    same = (total + (lacking - margin) == total) & (total + (lacking + margin) == total)  # rounding is monotonic
    decided = np.isfinite(lacking) & (same | (doubt == 0.0))
    return np.where(infinite == 0.0, total, infinite), decided | (infinite != 0.0)


def folded(terms: Array) -> tuple[Array, Array]:
    """Return the sums over the first axis, rounded, and the errors of their additions; the terms are overwritten."""
    errors = np.empty((len(terms) - 1, *terms.shape[1:]))
    while (count := len(terms)) > 1:
        rest = count - count // 2
        pairs = slice(count // 2)
        terms[pairs], errors[rest - 1 : count - 1] = two_sum(terms[pairs], terms[rest:])
        terms = terms[:rest]
    return terms[0], errors


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a + b, rounded, and what it lacks: exact, unless something overflows (then the second is not finite)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)
