"""Adding blocks of a chunk exactly, by vector instructions.

A block of terms is summed without rounding by cutting every term t at the same two places. With a constant
M = 1.5 * 2**52 * unit, the sum u = t + M is t rounded to a multiple of unit, and because all such u share one
exponent, their bit patterns are integers that count units: sum(bits(u)) - n * bits(M) is their exact sum. What the
rounding cut off, t - (u - M), is exact too and goes through the same step with a smaller unit. Integer sums may be
reordered, so the compiler turns all of this into vector code without being allowed to round differently.

This quick path needs a *window*: an exponent that no term of the block exceeds, so that the patterns add up, but not
by so much that bits fall off the lower end. It checks both, and a block that fails (or brings NaN, an infinity, or
sizes too far apart) takes the careful path, which cuts until nothing is left and sets the window for the next block.
Both are exact; which one a block took shows in the time alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import float64
from numba.core import types

from . import _jit
from ._jit import bits, evaluate, from_bits
from .exact import (
    COUNT,
    DIGIT_BITS,
    DIGIT_MASK,
    EXPONENT_BIAS,
    EXPONENT_MASK,
    FRACTION_BITS,
    NONZERO,
    SKIPPED,
    SMALLEST_EXPONENT,
    deposit,
    deposit_float,
)
from .operands import is_one_number, item

CUT = 51  # bits that one cut takes from a term
MARGIN = 2  # bits of the window kept free for larger terms in the blocks to come
MOST_CUTS = 8  # by the careful path, before it adds what is left one by one

HIGHEST_WINDOW = 1020  # above it the constant M overflows
LOWEST_WINDOW = SMALLEST_EXPONENT + 2 * CUT  # below it the second unit is smaller than any float64
UNKNOWN = -2000  # no window that the quick path could use

WITHOUT_SIGN = 0x7FFF_FFFF_FFFF_FFFF
INFINITY_BITS = EXPONENT_MASK << FRACTION_BITS
HUGE_BITS = (HIGHEST_WINDOW + EXPONENT_BIAS) << FRACTION_BITS

# Numba compiles a helper once more for every literal that it is called with: numbers go in as typed variables.
I64 = cast(Callable[[int], int], np.int64)


# --------------------------------------------------------------------------------------------------- quick path


@_jit.scalar
def magic(unit: int) -> float:
    """1.5 * 2**52 * 2**unit: adding it rounds to a multiple of 2**unit."""
    return from_bits(((unit + FRACTION_BITS + EXPONENT_BIAS) << FRACTION_BITS) | (1 << (FRACTION_BITS - 1)))


@_jit.scalar
def stash(tally: Any, place: int, amount: int) -> None:
    """Set aside an amount of a unit, in two words so that many amounts fit."""
    tally[place] += amount & DIGIT_MASK
    tally[place + 1] += amount >> DIGIT_BITS


@_jit.routine
def settle(tally: Any, place: int, window: int, total: Any) -> None:
    """Move what was set aside for a window into its sum."""
    _jit.not_inlined()
    if window == UNKNOWN:
        return
    for _ in range(2):
        window -= CUT
        for exponent in (window, window + DIGIT_BITS):
            deposit(total, tally[place], exponent)
            tally[place] = 0
            place += 1


@_jit.scalar
def quick(
    formula: Any,
    parameters: Any,
    labels: Any,
    predictions: Any,
    weights: Any,
    mask: Any,
    omit: Any,
    term_window: int,
    weight_window: int,
    tally: Any,
    counts: Any,
) -> bool:
    """Set aside the exact sums of a block, if its terms and weights fit their windows."""
    _jit.wide_vectors()
    n = labels.size
    high, low = magic(term_window - CUT), magic(term_window - 2 * CUT)
    high_bits, low_bits = bits(high), bits(low)
    high_sum = low_sum = left = outside = missing = kept = 0
    for i in range(n):
        label, prediction, weight = float64(labels[i]), float64(predictions[i]), float64(item(weights, i))
        keep = item(mask, i)
        term = weight * evaluate(formula, label, prediction, parameters)
        term = term if keep else 0.0
        u = term + high
        high_sum += bits(u)
        outside |= bits(u) ^ high_bits
        rest = term - (u - high)
        v = rest + low
        low_sum += bits(v)
        left |= bits(rest - (v - low))
        if omit is not None:
            missing += keep & ((label != label) | (prediction != prediction) | (weight != weight))
        kept += keep
    if (outside >> FRACTION_BITS) != 0 or left != 0 or missing != 0:
        return False
    high_sum -= n * high_bits
    low_sum -= n * low_bits
    if not quick_weights(weights, mask, kept, weight_window, tally, counts):
        return False
    stash(tally, I64(0), high_sum)
    stash(tally, I64(2), low_sum)
    counts[COUNT] += kept
    return True


def quick_weights(weights: Any, mask: Any, kept: int, window: int, tally: Any, counts: Any) -> Any:
    """Set aside the exact sum of the weights of a block, if they fit the window."""


@_jit.by_type(quick_weights)
def _quick_weights(weights: Any, mask: Any, kept: Any, window: Any, tally: Any, counts: Any) -> Any:
    if not isinstance(weights, types.Array):
        return lambda weights, mask, kept, window, tally, counts: True

    def each(weights: Any, mask: Any, kept: Any, window: Any, tally: Any, counts: Any) -> bool:
        _jit.wide_vectors()
        n = weights.size
        high, low = magic(window - CUT), magic(window - 2 * CUT)
        high_bits, low_bits = bits(high), bits(low)
        high_sum = low_sum = left = outside = nonzero = 0
        for i in range(n):
            weight = float64(weights[i])
            weight = weight if item(mask, i) else 0.0
            u = weight + high
            high_sum += bits(u)
            outside |= bits(u) ^ high_bits
            rest = weight - (u - high)
            v = rest + low
            low_sum += bits(v)
            left |= bits(rest - (v - low))
            nonzero += weight != 0.0
        if (outside >> FRACTION_BITS) != 0 or left != 0:
            return False
        stash(tally, I64(4), high_sum - n * high_bits)
        stash(tally, I64(6), low_sum - n * low_bits)
        counts[NONZERO] += nonzero
        return True

    return each


# --------------------------------------------------------------------------------------------------- careful path


@_jit.routine
def largest(values: Any) -> int:
    """The bits of the largest magnitude; NaN counts as larger than infinity."""
    _jit.not_inlined()
    _jit.wide_vectors()
    top = 0
    for i in range(values.size):
        top = max(top, bits(values[i]) & WITHOUT_SIGN)
    return top


@_jit.routine
def add_exactly(values: Any, total: Any, window: int) -> int:
    """Add any float64 numbers to a sum, overwriting them; return a window for the next block.

    `window` is what to return if the numbers are all zero.
    """
    _jit.not_inlined()
    _jit.wide_vectors()
    easy = True
    top = largest(values)
    if top >= HUGE_BITS:
        easy = False
        for i in range(values.size):
            if bits(values[i]) & WITHOUT_SIGN >= HUGE_BITS:
                deposit_float(total, values[i], I64(1))
                values[i] = 0.0
        top = largest(values)
    if top == 0:
        return window if easy else UNKNOWN
    window = (top >> FRACTION_BITS) - EXPONENT_BIAS + 1 + MARGIN
    cuts = 0
    while top != 0 and cuts < MOST_CUTS:
        unit = max((top >> FRACTION_BITS) - EXPONENT_BIAS + 1 - CUT, SMALLEST_EXPONENT)
        constant = magic(unit)
        amount = 0
        top = 0
        for i in range(values.size):
            u = values[i] + constant
            amount += bits(u)
            rest = values[i] - (u - constant)
            values[i] = rest
            top = max(top, bits(rest) & WITHOUT_SIGN)
        deposit(total, amount - values.size * bits(constant), unit)
        cuts += 1
    if top != 0:
        for i in range(values.size):
            if values[i] != 0.0:
                deposit_float(total, values[i], I64(1))
    if not easy or cuts > 2:
        return UNKNOWN
    return min(max(window, LOWEST_WINDOW), HIGHEST_WINDOW)


@_jit.scalar
def prepare(
    formula: Any,
    parameters: Any,
    labels: Any,
    predictions: Any,
    weights: Any,
    mask: Any,
    omit: Any,
    out: Any,
    terms: Any,
    used_weights: Any,
    counts: Any,
) -> None:
    """Write out the terms and weights of a block, zero where an element is left out, and count its elements."""
    _jit.wide_vectors()
    present = kept = nonzero = 0
    for i in range(labels.size):
        label, prediction, weight = float64(labels[i]), float64(predictions[i]), float64(item(weights, i))
        here = item(mask, i)
        keep = here
        if omit is not None:
            keep = here & (label == label) & (prediction == prediction) & (weight == weight)
        term = weight * evaluate(formula, label, prediction, parameters)
        if out is not None:
            out[i] = term if keep else np.nan
        terms[i] = term if keep else 0.0
        used_weights[i] = weight if keep else 0.0
        present += here
        kept += keep
        nonzero += keep & (weight != 0.0)
    counts[COUNT] += kept
    if not is_one_number(weights):
        counts[NONZERO] += nonzero
    counts[SKIPPED] += present - kept
