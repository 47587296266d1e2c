"""Exact sums of the squares and products that the standard error of a mean needs.

The product of two float64 numbers is the sum of two float64 numbers: itself rounded, and what the rounding lost. Both
are added exactly, so the sums are exact, unless a product overflows (it is infinite then) or what was lost lies below
2**-1074 (it is rounded there).
"""

from __future__ import annotations

from typing import Any

from numba import float64, int64

from .. import _jit, intrinsics
from ..error_free import exact_product
from ..exact import COUNT, COUNTS, PRODUCTS, SUM_WORDS, TERM_SQUARES, WEIGHT_SQUARES, carry, deposit
from ..intrinsics import I64, smaller
from .blocks import UNKNOWN, add_exactly, prepare
from .operands import BLOCK, block, is_one, room, scratch


@_jit.routine
def add_products(left: Any, right: Any, upper: Any, lower: Any, total: Any) -> None:
    """Add the products of two blocks to a sum; `upper` and `lower` are room for a block each."""
    intrinsics.not_inlined()
    intrinsics.wide_vectors()
    for i in range(left.size):
        upper[i], lower[i] = exact_product(left[i], right[i])
    add_exactly(upper, total, I64(UNKNOWN))
    add_exactly(lower, total, I64(UNKNOWN))


def accumulate_squares(
    loss: Any,
    labels: Any,
    predictions: Any,
    weights: Any,
    mask: Any,
    out: Any,
    start: int,
    stop: int,
    state: Any,
) -> None:
    """Add the squares and products of the elements from start to stop; the arguments of `updates.accumulate`."""
    weights_room, mask_room = scratch(weights), scratch(mask)
    terms, used_weights = room(BLOCK, float64), room(BLOCK, float64)
    upper, lower, counts = room(BLOCK, float64), room(BLOCK, float64), room(COUNTS, int64)
    counts[:] = 0
    term_squares = state[TERM_SQUARES : TERM_SQUARES + SUM_WORDS]
    products = state[PRODUCTS : PRODUCTS + SUM_WORDS]
    weight_squares = state[WEIGHT_SQUARES : WEIGHT_SQUARES + SUM_WORDS]
    for begin in range(start, stop, BLOCK):
        end = smaller(begin + BLOCK, stop)
        n = end - begin
        w, k = block(weights, begin, end, weights_room), block(mask, begin, end, mask_room)
        prepare(loss, (labels[begin:end], predictions[begin:end], w, k, None), None, terms, used_weights, counts)
        add_products(terms[:n], terms[:n], upper[:n], lower[:n], term_squares)
        if is_one(weights):
            add_exactly(terms[:n], products, I64(UNKNOWN))
        else:
            add_products(terms[:n], used_weights[:n], upper[:n], lower[:n], products)
            add_products(used_weights[:n], used_weights[:n], upper[:n], lower[:n], weight_squares)
    if is_one(weights):
        deposit(weight_squares, counts[COUNT], I64(0))
    carry(term_squares)
    carry(products)
    carry(weight_squares)
