"""Exact sums of float64 numbers, held in integers: the number format, and the state that is made of it.

A sum is a fixed-point number. Its *digits* are int64 words, each worth 2**32 times the one before:

    sum = sum(digit[i] * 2**(32 * i + LOW) for i in range(DIGITS))

The lowest digit starts at or below 2**-1074, the last bit of the smallest float64, and the highest reaches beyond
2**63 terms of 2**1024. So every float64 is a multiple of the format's unit, and no sum of them leaves it: adding
numbers is adding integers, and integers do not care about order, grouping, threads or machines.

A digit has 32 spare bits, so additions need not carry at once. *Carried* means that every digit lies in
[0, 2**32), except the highest, which bears the sign. Carried sums are equal exactly if their words are equal,
and up to 2**31 of them can be added word by word by anything that adds int64, and carried afterwards.

NaN and infinities have no place in a fixed-point number. They are counted in three words beside the digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba.core import types as numba_types

from ._jit import Kernel, routine
from .intrinsics import bits, not_inlined

Words: TypeAlias = npt.NDArray[np.int64]

# ---------------------------------------------------------------------------------------------- the sum
DIGIT_BITS = 32
DIGIT_SHIFT = 5  # DIGIT_BITS is 2**5
DIGIT_MASK = (1 << DIGIT_BITS) - 1
DIGITS = 68  # 68 * 32 = 2176 bits, from 2**-1088 to 2**1088
LOW = -34 * DIGIT_BITS  # the exponent of the lowest digit's last bit: -1088, below -1074

# The words of a sum: how many NaN, inf and -inf it has, then its digits.
NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY, FIRST_DIGIT = range(4)
SUM_WORDS = FIRST_DIGIT + DIGITS

ONE = 1 << -LOW  # the number 1, in units of the lowest digit's last bit

# ---------------------------------------------------------------------------------------------- the state
COUNT = 0  # elements
NONZERO = 1  # elements whose weight is not 0
SKIPPED = 2  # elements left out because of NaN
COUNTS = 3
TERMS = COUNTS  # where the sum of weight * loss begins
WEIGHTS = TERMS + SUM_WORDS  # where the sum of weights begins
STATE_WORDS = WEIGHTS + SUM_WORDS
# With stderr=True, the sums that the standard error needs follow.
TERM_SQUARES = STATE_WORDS  # where the sum of (weight * loss)**2 begins
PRODUCTS = TERM_SQUARES + SUM_WORDS  # of weight * loss * weight
WEIGHT_SQUARES = PRODUCTS + SUM_WORDS  # of weight**2
STDERR_WORDS = WEIGHT_SQUARES + SUM_WORDS

# ---------------------------------------------------------------------------------------------- float64
FRACTION_BITS = 52
EXPONENT_BIAS = 1023
EXPONENT_MASK = 0x7FF
SMALLEST_EXPONENT = -1074  # of the last bit of a subnormal number


@routine
def deposit(total: Words, quantity: int, exponent: int) -> None:
    """Add quantity * 2**exponent to a sum, for any int64 and any exponent from LOW to 1023, without carrying.

    Shifted to its digit, the quantity takes up to 95 bits; it is added in parts of at most 32, so a digit grows by
    less than 2**33 and 2**29 deposits fit before a carry is due.
    """
    not_inlined()
    place = exponent - LOW
    digit = FIRST_DIGIT + place // DIGIT_BITS
    shift = place % DIGIT_BITS
    low = (quantity & DIGIT_MASK) << shift  # at most 63 bits
    high = (quantity >> DIGIT_BITS) << shift
    total[digit] += low & DIGIT_MASK
    total[digit + 1] += (low >> DIGIT_BITS) + (high & DIGIT_MASK)
    total[digit + 2] += high >> DIGIT_BITS


@routine
def deposit_float(total: Words, value: float, times: int) -> None:
    """Add value * times to a sum, exactly, or count it if it is not finite; times lies in [0, 2**31)."""
    not_inlined()
    pattern = bits(value)
    exponent = (pattern >> FRACTION_BITS) & EXPONENT_MASK
    fraction = pattern & ((1 << FRACTION_BITS) - 1)
    if exponent == EXPONENT_MASK:
        if fraction != 0:
            total[NAN] += times
        elif pattern > 0:
            total[POSITIVE_INFINITY] += times
        else:
            total[NEGATIVE_INFINITY] += times
        return
    if exponent == 0:
        exponent = 1
    else:
        fraction |= 1 << FRACTION_BITS
    if pattern < 0:
        fraction = -fraction
    exponent += SMALLEST_EXPONENT - 1
    deposit(total, (fraction & DIGIT_MASK) * times, exponent)
    deposit(total, (fraction >> DIGIT_BITS) * times, exponent + DIGIT_BITS)


@routine
def carry(total: Words) -> None:
    """Bring the digits of a sum into their canonical ranges; its value stays."""
    not_inlined()
    over = 0
    for i in range(FIRST_DIGIT, SUM_WORDS - 1):
        digit = total[i] + over
        total[i] = digit & DIGIT_MASK
        over = digit >> DIGIT_BITS
    total[SUM_WORDS - 1] += over


@routine
def carry_state(state: Words) -> None:
    """Bring every sum of a state into its canonical form."""
    not_inlined()
    for start in range(COUNTS, state.size, SUM_WORDS):
        carry(state[start : start + SUM_WORDS])


def _combine(left: Words, right: Words, result: Words) -> None:
    for i in range(result.size):
        result[i] = left[i] + right[i]
    carry_state(result)


@cache
def _combine_entry() -> Callable[..., None]:
    words = numba_types.Array(numba_types.int64, 1, "C")
    return Kernel(_combine).compile((words, words, words))


def combine(left: Words, right: Words) -> Words:
    """Return the sum of two states of one length, carried; they need not be."""
    result = np.empty(left.size, np.int64)
    _combine_entry()(left, right, result)
    return result


def checked_state(state: npt.ArrayLike) -> Words:
    """Return a carried copy of a state that came from outside."""
    words = np.asarray(state)
    if words.dtype != np.int64:
        raise TypeError(f"state must be int64, got dtype {words.dtype}")
    if words.shape not in ((STATE_WORDS,), (STDERR_WORDS,)):
        raise ValueError(
            f"state must have shape ({STATE_WORDS},), or ({STDERR_WORDS},) with stderr=True, got {words.shape}"
        )
    carried = combine(np.ascontiguousarray(words), np.zeros(words.size, np.int64))
    check_counts(carried, "state has counts that no elements have: negative, or more nonzero weights than elements")
    return carried


def check_counts(states: Words, reason: str) -> None:
    """Refuse a state, or rows of states, whose counts no elements can have, for this reason."""
    starts = range(COUNTS, states.shape[-1], SUM_WORDS)
    counts = [states[..., :COUNTS], *(states[..., start : start + FIRST_DIGIT] for start in starts)]
    if any((count < 0).any() for count in counts) or (states[..., NONZERO] > states[..., COUNT]).any():
        raise ValueError(reason)


def check_left(states: Words) -> None:
    """Refuse a carried state, or rows of such, that nothing can leave that was in before it was taken out."""
    reason = "what is taken out was never in: no elements have what would be left"
    check_counts(states, reason)
    if ((states[..., COUNT] == 0) & states[..., COUNTS:].any(-1)).any():
        raise ValueError(reason)


def section(state: Words, start: int) -> Words:
    """Return one of the sums of a state."""
    return state[start : start + SUM_WORDS]


def to_integer(total: Words) -> int:
    """Return the digits of a carried sum as one integer, in units of 2**LOW."""
    digits = total[FIRST_DIGIT:]
    low = digits[:-1].astype("<u4").tobytes()
    return int.from_bytes(low, "little") + (int(digits[-1]) << (DIGIT_BITS * (DIGITS - 1)))


def is_finite(total: Words) -> bool:
    """Whether no NaN and no infinity went into a sum."""
    return not total[:FIRST_DIGIT].any()


def special_value(total: Words) -> float:
    """Return the value of a sum that NaN or infinities went into."""
    if total[NAN] or (total[POSITIVE_INFINITY] and total[NEGATIVE_INFINITY]):
        return float("nan")
    return float("inf") if total[POSITIVE_INFINITY] else float("-inf")


def divide(numerator: int, denominator: int) -> float:
    """Return the quotient of two integers, rounded once, to nearest even; beyond the largest float64 it is infinite."""
    try:
        return numerator / denominator  # Python rounds this quotient correctly, whatever the integers' sizes
    except OverflowError:
        return float("inf") if (numerator < 0) == (denominator < 0) else float("-inf")


def root(numerator: int, denominator: int) -> float:
    """Return the square root of a quotient of integers, not negative, rounded once, to nearest even."""
    # A root of at least 64 bits, whose last one says whether anything was left over, rounds as the whole root would.
    shift = max(0, (130 - numerator.bit_length() + denominator.bit_length()) // 2)
    quotient, left = divmod(numerator << (2 * shift), denominator)
    whole = math.isqrt(quotient)
    return divide(whole | (left != 0 or whole * whole != quotient), 1 << shift)
