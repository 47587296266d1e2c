"""Error-free transformations of single numbers: a number cut in two, and a product with what its rounding lost.

To cut t, add a constant M = 1.5 * 2**52 * unit: the sum u = t + M is t rounded to a multiple of unit, and because all
such u share one exponent, their bit patterns are integers that count units. What was cut off, t - (u - M), is exact
too, and can be cut again, with a smaller unit. A *window* is an exponent that no number to be cut may exceed.
"""

from __future__ import annotations

from . import _jit
from .exact import EXPONENT_BIAS, FRACTION_BITS, SMALLEST_EXPONENT
from .intrinsics import bits, from_bits

CUT = 51  # bits that one cut takes from a number
HIGHEST_WINDOW = 1020  # above it the constant M overflows
LOWEST_WINDOW = SMALLEST_EXPONENT + 2 * CUT  # below it the second unit is smaller than any float64
WITHOUT_SIGN = 0x7FFF_FFFF_FFFF_FFFF
SPLITTER = 134217729.0  # 2**27 + 1 cuts a float64 into halves of 26 bits, whose products are exact


@_jit.scalar
def magic(unit: int) -> float:
    """1.5 * 2**52 * 2**unit: adding it rounds to a multiple of 2**unit, which is from -1074 to 971."""
    return from_bits(((unit + FRACTION_BITS + EXPONENT_BIAS) << FRACTION_BITS) | (1 << (FRACTION_BITS - 1)))


@_jit.scalar
def cut(value: float, high: float, low: float) -> tuple[int, int, int]:
    """Cut a number at two places, given by `magic` of their units.

    Returns the bit patterns that count units of the two parts, and a word that is 0, but for its sign bit, if these are
    all of the number.
    """
    u = value + high
    rest = value - (u - high)
    v = rest + low
    return bits(u), bits(v), bits(v - low) ^ bits(rest)


@_jit.scalar
def cut_once(value: float, high: float) -> tuple[int, int]:
    """Cut a number at one place; return the pattern and the word that `cut` describes."""
    u = value + high
    return bits(u), bits(u - high) ^ bits(value)


@_jit.scalar
def exceeding(top: int) -> int:
    """Return the exponent of a power of two above the number with these bits, at least -1023."""
    small = top < 1 << (FRACTION_BITS - 1)  # so that the last cut of a subnormal number leaves nothing
    return (top >> FRACTION_BITS) - EXPONENT_BIAS + 1 - small


@_jit.scalar
def exact_product(a: float, b: float) -> tuple[float, float]:
    """Return the product rounded, and what the rounding lost: Dekker (1971), doi:10.1007/BF01397083."""
    product = a * b
    shifted = SPLITTER * a
    a_high = shifted - (shifted - a)
    a_low = a - a_high
    shifted = SPLITTER * b
    b_high = shifted - (shifted - b)
    b_low = b - b_high
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost if lost - lost == 0.0 else 0.0  # not finite: a product that overflowed, or NaN
