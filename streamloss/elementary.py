"""log, log1p, exp and expm1 in IEEE arithmetic only: losses of them are vector code, the same on every machine.

A mathematical library may return other bits after an update, on another CPU, or in a vector than alone. These
functions use + - * / and operations on the 64 bits of a float64, each exact or rounded as IEEE 754 has it, in a fixed
order: no branch (both sides of a choice are computed), no table, no fused multiply-add. So LLVM turns the loop around
them into vector code, and an element has the same bits in every lane, in the remainder of the loop, and on every CPU.

The reductions are those of Cody and Waite's *Software Manual for the Elementary Functions* (1980); leading parts and
corrections are kept apart as in Tang (1989, doi:10.1145/63522.214389; 1990, doi:10.1145/98267.98294) and in Muller's
*Handbook of Floating-Point Arithmetic*. Special values are those of C, annex F. The largest errors found, over 10**8
arguments of every size against 80-bit arithmetic and by searching around the worst, in units in the last place:

| log | log1p | exp | expm1 |
|---|---|---|---|
| 0.88 | 0.87 | 0.66, and 0.78 where the result is subnormal | 0.97 |
"""

from __future__ import annotations

import math

import numpy as np

from . import _jit
from .intrinsics import bits, from_bits


def _pattern(value: float) -> int:
    """Return the 64 bits of a float64."""
    return int(np.float64(value).view(np.int64))


LN2_HIGH = float.fromhex("0x1.62e42fefa3800p-1")  # it ends in 11 zero bits: products with up to 2**11 are exact
LN2_LOW = float.fromhex("0x1.ef35793c76730p-45")  # log(2) - LN2_HIGH
LOG2_E = float.fromhex("0x1.71547652b82fep+0")  # 1 / log(2)
ROOT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")  # sqrt(1/2)
SMALLEST_NORMAL = 2.0**-1022
INFINITY = math.inf
QUIET_NAN = math.nan

BIAS = 1023  # of the exponent of a float64
FRACTION_BITS = 52
FRACTION = (1 << FRACTION_BITS) - 1
EXPONENT = 0x7FF << FRACTION_BITS
SIGN = -(1 << 63)
HALF_BITS, ONE_BITS, ROOT_HALF_BITS = _pattern(0.5), _pattern(1.0), _pattern(ROOT_HALF)
TO_ONE = ONE_BITS - ROOT_HALF_BITS

WHOLE = 2.0**52  # its bits plus a whole number k, from 0 to 2**52, are those of WHOLE + k
WHOLE_BITS = _pattern(WHOLE)
ROUND = 1.5 * 2.0**52  # x + ROUND rounds x to a whole number k, and the bits of the sum end in those of k

# The coefficients are by Remez' exchange, rounded to float64. L: (2 artanh(s) - 2 s) / s**3 by powers of s**2, up to
# s = (sqrt(2) - 1) / (sqrt(2) + 1), so that the logarithm has a relative error of 2**-59.5. E: (exp(r) - 1 - r -
# r**2 / 2) / r**3 by powers of r, up to log(2) / 2, so that exp(r) - 1 has one of 2**-61.7. H: 1 / (1 + f) by powers
# of f, for 1 + f from sqrt(1/2) to sqrt(2), with one of 6 %.
L0 = float.fromhex("0x1.5555555555592p-1")
L1 = float.fromhex("0x1.999999997fea9p-2")
L2 = float.fromhex("0x1.24924941e497dp-2")
L3 = float.fromhex("0x1.c71c5212f8252p-3")
L4 = float.fromhex("0x1.74663d0d1d418p-3")
L5 = float.fromhex("0x1.39a1e7ddbd06ap-3")
L6 = float.fromhex("0x1.2f03b6b1137bcp-3")

E0 = float.fromhex("0x1.5555555555559p-3")
E1 = float.fromhex("0x1.5555555555548p-5")
E2 = float.fromhex("0x1.111111110f7d3p-7")
E3 = float.fromhex("0x1.6c16c16c1cd47p-10")
E4 = float.fromhex("0x1.a01a01af814ddp-13")
E5 = float.fromhex("0x1.a01a0182ef9a3p-16")
E6 = float.fromhex("0x1.71ddf932ccafcp-19")
E7 = float.fromhex("0x1.27e52b450c784p-22")
E8 = float.fromhex("0x1.af5d5f9d11b9ep-26")
E9 = float.fromhex("0x1.1ef524db5690dp-29")

H0, H1 = 1.0554, -0.9412


@_jit.arithmetic
def _with_sign_of(x: float, y: float) -> float:
    """Return y with the sign of x. It has that sign already unless it is zero, whose sign is lost on the way."""
    return from_bits(bits(y) | (bits(x) & SIGN))


@_jit.arithmetic
def _log_of_product(k: float, f: float, more: float) -> float:
    """Return k * LN2_HIGH + more + log(1 + f), for 1 + f from sqrt(1/2) to sqrt(2) and small `more`.

    With s = f / (2 + f), log(1 + f) = 2 artanh(s) = f - s * (f - r), where r is s**2 times a polynomial in s**2, and
    so f - (f**2 / 2 - s * (f**2 / 2 + r)), in which only the leading f is large.
    """
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    r = z * (L0 + w * (L2 + w * (L4 + w * L6))) + w * (L1 + w * (L3 + w * L5))
    half = 0.5 * f * f
    return k * LN2_HIGH - ((half - (s * (half + r) + more)) - f)


@_jit.arithmetic
def _exponent(place: int) -> float:
    """Return BIAS + k, where `place` is the bits of 2**k * m plus TO_ONE, with m from sqrt(1/2) to sqrt(2)."""
    return from_bits(((place >> FRACTION_BITS) & 0xFFF) | WHOLE_BITS) - WHOLE


@_jit.arithmetic
def _above_one(place: int) -> float:
    """Return m - 1, exactly, for the `place` that `_exponent` describes."""
    return from_bits((place & FRACTION) + ROOT_HALF_BITS) - 1.0


@_jit.arithmetic
def log(x: float) -> float:
    """The natural logarithm."""
    subnormal = x < SMALLEST_NORMAL
    place = bits(x * 2.0**54 if subnormal else x) + TO_ONE
    k = _exponent(place) - (BIAS + 54.0 if subnormal else BIAS)
    y = _log_of_product(k, _above_one(place), k * LN2_LOW)
    y = y if x < INFINITY else x
    edge = -INFINITY if x == 0.0 else QUIET_NAN
    return edge if x <= 0.0 else y


@_jit.arithmetic
def log1p(x: float) -> float:
    """log(1 + x), from 1 + x and what its rounding lost; where k is 0, f is x again."""
    u = 1.0 + x
    back = u - 1.0
    lost = (x - back) + (1.0 - (u - back))
    place = bits(u) + TO_ONE
    k = _exponent(place) - BIAS
    twice = from_bits((0x7FF << FRACTION_BITS) - (place & EXPONENT))  # 2 / 2**k; 0 for the largest k
    upper = _above_one(place)
    lower = lost * (0.5 * twice)
    f = upper + lower
    rest = (lower - (f - upper)) * (H0 + f * H1)  # how log(1 + f) changes by what the rounding of f lost
    y = _with_sign_of(x, _log_of_product(k, f, k * LN2_LOW + rest))
    y = y if x < INFINITY else x
    edge = -INFINITY if x == -1.0 else QUIET_NAN
    return edge if x <= -1.0 else y


@_jit.arithmetic
def _reduced(x: float) -> tuple[int, float, float]:
    """Return bits that end in those of k, high and low with x = k log(2) + high - low, where low is small."""
    t = x * LOG2_E + ROUND
    k = t - ROUND
    return bits(t), x - k * LN2_HIGH, k * LN2_LOW


@_jit.arithmetic
def _beyond(r: float) -> float:
    """exp(r) - 1 - r, for r up to log(2) / 2."""
    w = r * r
    p = r * (E0 + w * (E2 + w * (E4 + w * (E6 + w * E8)))) + w * (E1 + w * (E3 + w * (E5 + w * (E7 + w * E9))))
    return 0.5 * w + w * p


@_jit.arithmetic
def exp(x: float) -> float:
    """e**x; scaled by two powers of two, so that neither they nor the result are rounded too early."""
    x = 710.0 if x > 710.0 else x
    x = -746.0 if x < -746.0 else x
    k, high, low = _reduced(x)
    one = 1.0 + high
    y = one + ((high - (one - 1.0)) + (_beyond(high - low) - low))
    half = k >> 1
    return y * from_bits((half << FRACTION_BITS) + ONE_BITS) * from_bits(((k - half) << FRACTION_BITS) + ONE_BITS)


@_jit.arithmetic
def expm1(x: float) -> float:
    """e**x - 1 = 2**k - 1 + 2**k * (high + ...), each sum with what its rounding lost."""
    y = 710.0 if x > 710.0 else x
    y = -50.0 if y < -50.0 else y
    k, high, low = _reduced(y)
    q = _beyond(high)
    huge = y > 709.0  # 2**k may be infinite where the result is not
    power = from_bits((k << FRACTION_BITS) + (HALF_BITS if huge else ONE_BITS))
    less = power - 1.0
    lost = (power - less) - 1.0
    part = power * high
    total = less + part
    y = total + ((part - (total - less)) + (lost + power * ((q - low) - low * (high + q))))
    return _with_sign_of(x, 2.0 * y if huge else y)
