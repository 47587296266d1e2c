"""The arithmetic inside the CUDA kernels, a number at a time: nothing here knows of threads or memory.

These functions are compiled for the CPU, where the simulator calls them, and once more into every kernel.
"""

from __future__ import annotations

from typing import Any

import numba

from .. import error_free
from .._jit import FLAGS, known_to_numba
from ..error_free import CUT, HIGHEST_WINDOW, LOWEST_WINDOW, WITHOUT_SIGN
from ..exact import (
    DIGIT_BITS,
    DIGIT_MASK,
    EXPONENT_MASK,
    FIRST_DIGIT,
    FRACTION_BITS,
    LOW,
    NAN,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    SMALLEST_EXPONENT,
)
from ..intrinsics import bits, from_bits

INFINITY = EXPONENT_MASK << FRACTION_BITS
HEADROOM = 4  # bits of a window kept free for larger terms to come
WASTE = 32  # bits above what is needed, at which a window is given up

exceeding, magic = known_to_numba(error_free.exceeding), known_to_numba(error_free.magic)
cut_patterns, exact_product = known_to_numba(error_free.cut), known_to_numba(error_free.exact_product)

helper = numba.njit(**FLAGS)


@helper
def constants(window: int) -> tuple[float, float]:
    """Return the two numbers whose addition cuts a term, see `streamloss.error_free`."""
    return magic(window - CUT), magic(window - 2 * CUT)


@helper
def cut(value: float, high: float, low: float) -> tuple[int, int, int]:
    """Cut a number twice: return the units of both parts, and 0 if it was inside the window and nothing is left."""
    upper, lower, left = cut_patterns(value, high, low)
    outside = (upper ^ bits(high)) >> FRACTION_BITS
    return upper - bits(high), lower - bits(low), outside | (left & WITHOUT_SIGN)  # 0 and -0 are the same number


@helper
def plus(a: int, b: int) -> int:
    """Add two integers modulo 2**64: parts of numbers that missed the window are added before that shows."""
    return a + b


@helper
def exponent_of(window: int, part: int) -> int:
    """Return the exponent of the unit of a tally's word: words 0 and 1 are of the upper cut, 2 and 3 of the lower."""
    return window - CUT * (1 + part // 2) + DIGIT_BITS * (part % 2)


@helper
def magnitude(value: float) -> int:
    """Return the bits of a finite number without its sign; 0 for NaN and infinities, which no window holds."""
    pattern = bits(value) & WITHOUT_SIGN
    return pattern if pattern < INFINITY else 0


@helper
def window_for(top: int) -> int:
    """Return the window for numbers up to the one with these bits."""
    return min(max(exceeding(top) + HEADROOM, LOWEST_WINDOW), HIGHEST_WINDOW)


@helper
def misfit(window: int, top: int) -> bool:
    """Return whether a window is too low, or much too high, for numbers up to the one with these bits; 0 fits any."""
    if top == 0:
        return False
    wanted = window_for(top)
    return wanted - HEADROOM > window or wanted + WASTE < window


@helper
def parts_of_integer(quantity: int, exponent: int) -> tuple[int, int, int, int]:
    """Split quantity * 2**exponent: return a word of a sum, and what to add there and to the next two, below 2**33."""
    place = exponent - LOW
    shift = place % DIGIT_BITS
    low = (quantity & DIGIT_MASK) << shift  # at most 63 bits
    high = (quantity >> DIGIT_BITS) << shift
    middle = (low >> DIGIT_BITS) + (high & DIGIT_MASK)
    return FIRST_DIGIT + place // DIGIT_BITS, low & DIGIT_MASK, middle, high >> DIGIT_BITS


@helper
def decomposed(value: float) -> tuple[int, int, int]:
    """Return (FIRST_DIGIT, fraction, exponent) with value = fraction * 2**exponent.

    For NaN and infinities, return the word of a sum that counts them, and zeros.
    """
    pattern = bits(value)
    exponent = (pattern >> FRACTION_BITS) & EXPONENT_MASK
    fraction = pattern & ((1 << FRACTION_BITS) - 1)
    if exponent == EXPONENT_MASK:
        kind = NAN if fraction != 0 else POSITIVE_INFINITY if pattern > 0 else NEGATIVE_INFINITY
        return kind, 0, 0
    if exponent == 0:
        exponent = 1
    else:
        fraction |= 1 << FRACTION_BITS
    return FIRST_DIGIT, -fraction if pattern < 0 else fraction, exponent + SMALLEST_EXPONENT - 1


@helper
def parts_of_float(value: float) -> tuple[int, int, int, int]:
    """Split a float64: return a word of a sum, and what to add there and to the next two, below 2**32.

    NaN and infinities add 1 to the word that counts them.
    """
    kind, fraction, exponent = decomposed(value)
    if kind != FIRST_DIGIT:
        return kind, 1, 0, 0
    place = exponent - LOW
    shift = place % DIGIT_BITS
    size = abs(fraction)
    upper = size >> (DIGIT_BITS - shift)
    sign = fraction >> 63  # 0 or -1: (x ^ sign) - sign is x or -x
    low = (((size << shift) & DIGIT_MASK) ^ sign) - sign
    return (
        FIRST_DIGIT + place // DIGIT_BITS,
        low,
        ((upper & DIGIT_MASK) ^ sign) - sign,
        ((upper >> DIGIT_BITS) ^ sign) - sign,
    )


@helper
def product(a: float, b: float) -> tuple[float, float]:
    """Return the product rounded, and what the rounding lost."""
    return exact_product(a, b)


@helper
def _widen(pattern: int, shift: int, infinity: int, scale: float) -> float:
    """Return a float of 16 bits as a float64: its bits, moved, make a number that is too small by a power of two."""
    without_sign = pattern & 0x7FFF
    moved = without_sign << shift
    value = from_bits(moved | INFINITY) if without_sign >= infinity else from_bits(moved) * scale
    return -value if pattern != without_sign else value


@helper
def from_float16(pattern: Any) -> float:
    """Return the number that has these bits as a float16."""
    return _widen(numba.int64(pattern), FRACTION_BITS - 10, 0x7C00, 2.0 ** (1023 - 15))


@helper
def from_bfloat16(pattern: Any) -> float:
    """Return the number that has these bits as a bfloat16."""
    return _widen(numba.int64(pattern), FRACTION_BITS - 7, 0x7F80, 2.0 ** (1023 - 127))


@helper
def place(position: int, shape: Any, strides: Any) -> int:
    """Return the index of the element at a position in C order; `strides` ends with the index of the first."""
    index = strides[len(shape)]
    for axis in range(len(shape) - 1, 0, -1):
        outer = position // shape[axis]
        index += (position - outer * shape[axis]) * strides[axis]
        position = outer
    return index + position * strides[0]
