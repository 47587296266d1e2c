"""Adding blocks of a chunk exactly, by vector instructions.

A block of terms is summed without rounding by cutting every term t at the same two places, as `error_free` says. With
a constant M, the bit patterns of all sums u = t + M count the same unit: sum(bits(u)) - n * bits(M) is their exact sum,
and so for what the first cut has left. Integer sums may be reordered, so the compiler turns all of this into vector
code without being allowed to round differently.

This quick path needs a *window*: an exponent that no term of the block exceeds, or the patterns would not add up, and
that is not so far above the terms that the second cut leaves bits behind. It checks both, and a block that fails (or
brings NaN, an infinity, or sizes too far apart) takes the careful path, which cuts until nothing is left and sets the
window for the next block. Both are exact; which one a block took shows in the time only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float64, int64
from numba.core import types

from .. import _jit, intrinsics
from .._jit import evaluate
from ..error_free import CUT, HIGHEST_WINDOW, LOWEST_WINDOW, WITHOUT_SIGN, cut, cut_once, exceeding, magic
from ..exact import (
    COUNT,
    DIGIT_BITS,
    DIGIT_MASK,
    DIGIT_SHIFT,
    DIGITS,
    EXPONENT_BIAS,
    EXPONENT_MASK,
    FIRST_DIGIT,
    FRACTION_BITS,
    LOW,
    NONZERO,
    SKIPPED,
    SMALLEST_EXPONENT,
    carry,
    deposit,
    deposit_float,
)
from ..intrinsics import I64, U64, bits, larger, smaller
from .operands import block, is_shared, item, kept, part, portion, read_ahead, room, weigh

MARGIN = 2  # bits of the window kept free for larger terms in the blocks to come
FARTHEST = 10 * CUT  # bits between terms that are still cut: adding them one by one takes as long as ten cuts
STEP = 256  # numbers that are split before they are added one by one
PARTS = 2 * STEP  # words: two for each of them
PAIRS = 2 * DIGITS  # words: for each digit, the sums of what is added to it and to the next one
CARRY_AFTER = 1024  # numbers added one by one: 2**10 parts of up to 2**52 fit a digit

UNKNOWN = -2000  # no window that the quick path could use

TALLY_WORDS = 8  # what is set aside for a window: two amounts of two words, of terms and of weights

LARGEST_SUBNORMAL = (1 << FRACTION_BITS) - 1
HUGE_BITS = (HIGHEST_WINDOW + EXPONENT_BIAS) << FRACTION_BITS

# --------------------------------------------------------------------------------------------------- quick path


@_jit.scalar
def stash(tally: Any, place: int, amount: int) -> None:
    """Set aside an amount of a unit, in two words so that many amounts fit."""
    tally[place] += amount & DIGIT_MASK
    tally[place + 1] += amount >> DIGIT_BITS


@_jit.routine
def settle(tally: Any, place: int, window: int, total: Any) -> None:
    """Move what was set aside for a window into its sum."""
    intrinsics.not_inlined()
    if window == UNKNOWN:
        return
    for _ in range(2):
        window -= CUT
        for exponent in (window, window + DIGIT_BITS):
            deposit(total, tally[place], exponent)
            tally[place] = 0
            place += 1


@_jit.scalar
def cut_tile(loss: Any, elements: Any, constants: Any, twice: Any) -> Any:
    """Cut the terms of a tile at two places and its weights at one, or two if `twice` is not None.

    Returns the sums of the bit patterns of the parts: of the terms' upper and lower, of the weights' upper and lower;
    whether anything was outside its window, or left below the last cut (both 0 if not); and how many weights are not 0.
    """
    intrinsics.wide_vectors()
    formula, parameters, omit = loss
    labels, predictions, weights, mask, summed = elements
    high, low, weight_high, weight_low = constants
    high_sum = low_sum = weight_high_sum = weight_low_sum = outside = left = nonzero = 0
    for i in range(labels.size):
        label, prediction = float64(labels[i]), float64(predictions[i])
        keep = item(mask, i)
        term = weigh(weights, i, evaluate(formula, label, prediction, parameters))
        term = term if keep else 0.0
        upper, lower, more = cut(term, high, low)
        high_sum += upper
        low_sum += lower
        outside |= upper ^ bits(high)
        left |= more
        if omit is not None:
            probe = (prediction - label) + float64(item(weights, i))
            left |= bits(probe - probe)  # not 0 for NaN, and for infinities, which are rare enough to look at again
        if not is_shared(summed):
            weight = float64(item(summed, i)) if keep else 0.0
            if twice is None:
                upper, more = cut_once(weight, weight_high)
            else:
                upper, lower, more = cut(weight, weight_high, weight_low)
                weight_low_sum += lower
            weight_high_sum += upper
            outside |= upper ^ bits(weight_high)
            left |= more
            nonzero += weight != 0.0
    # 0 and -0 are the same number.
    return high_sum, low_sum, weight_high_sum, weight_low_sum, outside, left & WITHOUT_SIGN, nonzero


@_jit.scalar
def quick(loss: Any, elements: Any, windows: Any, twice: Any, tally: Any, counts: Any) -> bool:
    """Set aside the exact sums of a block, if its terms and weights fit their windows."""
    labels, predictions, weights, mask, summed = elements
    constants = (
        magic(windows[0] - CUT),
        magic(windows[0] - 2 * CUT),
        magic(windows[1] - CUT),
        magic(windows[1] - 2 * CUT),
    )
    n = labels.size
    high_sum = low_sum = weight_high_sum = weight_low_sum = outside = left = nonzero = 0
    size = portion(labels)
    for start in range(0, n, size):
        stop = smaller(start + size, n)
        read_ahead(labels, labels, start)
        read_ahead(labels, predictions, start)
        read_ahead(labels, summed, start)
        w, k, s = block(weights, start, stop, None), block(mask, start, stop, None), block(summed, start, stop, None)
        pieces = part(labels, start, stop), part(predictions, start, stop), w, k, s
        tile = cut_tile(loss, pieces, constants, twice)
        high_sum += tile[0]
        low_sum += tile[1]
        weight_high_sum += tile[2]
        weight_low_sum += tile[3]
        outside |= tile[4]
        left |= tile[5]
        nonzero += tile[6]
    if (outside >> FRACTION_BITS) != 0 or left != 0:
        return False
    stash(tally, I64(0), high_sum - n * bits(constants[0]))
    stash(tally, I64(2), low_sum - n * bits(constants[1]))
    if not is_shared(summed):
        stash(tally, I64(4), weight_high_sum - n * bits(constants[2]))
        if twice is not None:
            stash(tally, I64(6), weight_low_sum - n * bits(constants[3]))
        counts[NONZERO] += nonzero
    counts[COUNT] += kept(mask, n)
    return True


def add_quickly(loss: Any, elements: Any, windows: Any, once: bool, tally: Any, counts: Any) -> Any:
    """Set aside the exact sums of a block, cutting its weights once or twice; False if something did not fit.

    `elements` are labels, predictions, weights, mask, and the weights again if they are to be summed.
    """


@_jit.by_type(add_quickly, **_jit.NO_COUNTS)
def _add_quickly(loss: Any, elements: Any, windows: Any, once: Any, tally: Any, counts: Any) -> Any:
    def for_weights(loss: Any, elements: Any, windows: Any, once: Any, tally: Any, counts: Any) -> bool:
        if once:
            return quick(loss, elements, windows, None, tally, counts)
        return quick(loss, elements, windows, True, tally, counts)

    def for_no_weights(loss: Any, elements: Any, windows: Any, once: Any, tally: Any, counts: Any) -> bool:
        return quick(loss, elements, windows, None, tally, counts)

    return for_no_weights if isinstance(elements[4], types.NoneType) else for_weights


# --------------------------------------------------------------------------------------------------- careful path


@_jit.routine
def extremes(values: Any) -> tuple[int, int]:
    """Return the bits of the largest and of the smallest magnitude that is not 0; both are 0 if all numbers are.

    NaN counts as larger than infinity.
    """
    intrinsics.not_inlined()
    intrinsics.wide_vectors()
    top = 0
    beneath = WITHOUT_SIGN  # the smallest, less 1: for zero that wraps around to the largest
    for i in range(values.size):
        magnitude = bits(values[i]) & WITHOUT_SIGN
        top = larger(top, magnitude)
        beneath = smaller(beneath, (magnitude - 1) & WITHOUT_SIGN)
    return top, (beneath + 1) & WITHOUT_SIGN


@_jit.routine
def split(values: Any, parts: Any, pairs: Any) -> None:
    """Find for each finite number what to add to the digit that its lowest bit lies in and to the next one.

    `pairs` get twice the number of that digit: where the pair of sums for both begins.
    """
    intrinsics.not_inlined()
    intrinsics.wide_vectors()
    for i in range(values.size):
        pattern = bits(values[i])
        exponent = (pattern >> FRACTION_BITS) & EXPONENT_MASK
        fraction = pattern & ((1 << FRACTION_BITS) - 1)
        fraction = fraction | 1 << FRACTION_BITS if exponent != 0 else fraction
        sign = pattern >> 63  # 0 or -1: (x ^ sign) - sign is x or -x
        number = (fraction ^ sign) - sign
        place = larger(exponent, I64(1)) - 1 + (SMALLEST_EXPONENT - LOW)
        shift = place & (DIGIT_BITS - 1)
        pairs[i] = place >> DIGIT_SHIFT << 1
        parts[U64(2 * i)] = (number << shift) & DIGIT_MASK
        parts[U64(2 * i + 1)] = number >> (DIGIT_BITS - shift)


@_jit.routine
def add_one_by_one(values: Any, total: Any) -> None:
    """Add finite numbers to a sum, each to the two digits that its bits lie in.

    Both are added as one vector, to a pair of sums for that digit. There are two sets of pairs, which take turns: a
    processor waits where it adds to what it has just stored.
    """
    intrinsics.not_inlined()
    parts, pairs, even, odd = room(PARTS, int64), room(STEP, int64), room(PAIRS, int64), room(PAIRS, int64)
    for first in range(0, values.size, CARRY_AFTER):
        even[:] = 0
        odd[:] = 0
        for start in range(first, smaller(first + CARRY_AFTER, values.size), STEP):
            stop = smaller(start + STEP, values.size)
            split(part(values, start, stop), parts, pairs)
            for i in range(U64(0), U64(stop - start) & ~U64(1), U64(2)):
                intrinsics.add_two(even, U64(pairs[i]), parts, U64(2) * i)
                intrinsics.add_two(odd, U64(pairs[i + U64(1)]), parts, U64(2) * i + U64(2))
            if (stop - start) % 2 != 0:
                last = U64(stop - start - 1)
                intrinsics.add_two(even, U64(pairs[last]), parts, U64(2) * last)
        for i in range(0, PAIRS - 2, 2):
            digit = FIRST_DIGIT + i // 2
            total[digit] += even[i] + odd[i]
            total[digit + 1] += even[i + 1] + odd[i + 1]
        carry(total)


@_jit.routine
def take_subnormals(values: Any, total: Any) -> None:
    """Add the subnormal numbers to a sum and put zeros in their place: arithmetic with them is slow on many CPUs."""
    intrinsics.not_inlined()
    intrinsics.wide_vectors()
    lower = upper = I64(0)
    for i in range(values.size):
        pattern = bits(values[i])
        is_small = pattern & WITHOUT_SIGN <= LARGEST_SUBNORMAL
        sign = pattern >> 63
        amount = ((pattern & LARGEST_SUBNORMAL) ^ sign) - sign if is_small else 0
        lower += amount & DIGIT_MASK
        upper += amount >> DIGIT_BITS
        values[i] = 0.0 if is_small else values[i]
    deposit(total, lower, I64(SMALLEST_EXPONENT))
    deposit(total, upper, I64(SMALLEST_EXPONENT + DIGIT_BITS))


@_jit.routine
def add_exactly(values: Any, total: Any, window: int) -> int:
    """Add any float64 numbers to a sum, overwriting them; return a window for the next block.

    `window` is what to return if the numbers are all zero. If it is UNKNOWN, the block before was a hard one, and so
    this one is looked at for how far its numbers are apart before anything is cut.
    """
    intrinsics.not_inlined()
    intrinsics.wide_vectors()
    easy = True
    top, bottom = extremes(values)
    if top >= HUGE_BITS:
        easy = False
        for i in range(values.size):
            if bits(values[i]) & WITHOUT_SIGN >= HUGE_BITS:
                deposit_float(total, values[i], I64(1))
                values[i] = 0.0
        top, bottom = extremes(values)
    if 0 < bottom <= LARGEST_SUBNORMAL:
        easy = False
        take_subnormals(values, total)
        top, bottom = extremes(values)
    if top == 0:  # any window will do for zeros
        return (I64(0) if window == UNKNOWN else window) if easy else UNKNOWN
    at_least = I64(0) if window == UNKNOWN else I64(2)
    window = smaller(larger(exceeding(top) + MARGIN, LOWEST_WINDOW), HIGHEST_WINDOW)
    unit = window - CUT
    cuts = 0
    while top != 0 and (cuts < at_least or exceeding(top) - exceeding(bottom) < FARTHEST):
        constant = magic(unit)
        amount = top = I64(0)
        for i in range(values.size):
            u = values[i] + constant
            amount += bits(u)
            rest = values[i] - (u - constant)
            values[i] = rest
            top = larger(top, bits(rest) & WITHOUT_SIGN)
        deposit(total, amount - values.size * bits(constant), unit)
        unit = larger(exceeding(top) - CUT, SMALLEST_EXPONENT)
        cuts += 1
    if top != 0:
        add_one_by_one(values, total)
        easy = False
    return window if easy and cuts <= 2 else UNKNOWN


@_jit.scalar
def prepare(loss: Any, elements: Any, out: Any, terms: Any, used_weights: Any, counts: Any) -> None:
    """Write out the terms and weights of a block, zero where an element is left out, and count its elements."""
    intrinsics.wide_vectors()
    formula, parameters, omit = loss
    labels, predictions, weights, mask, summed = elements
    present = kept = nonzero = 0
    for i in range(labels.size):
        label, prediction, weight = float64(labels[i]), float64(predictions[i]), float64(item(weights, i))
        here = item(mask, i)
        keep = here
        if omit is not None:
            keep = here & (label == label) & (prediction == prediction) & (weight == weight)
        term = weigh(weights, i, evaluate(formula, label, prediction, parameters))
        if out is not None:
            out[i] = term if keep else np.nan
        terms[i] = term if keep else 0.0
        used_weights[i] = weight if keep else 0.0
        present += here
        kept += keep
        nonzero += keep & (weight != 0.0)
    counts[COUNT] += kept
    if not is_shared(summed):
        counts[NONZERO] += nonzero
    counts[SKIPPED] += present - kept
