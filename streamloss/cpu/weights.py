"""The sum of weights that many elements share: each is added once, times the number of its elements.

Shared weights are one weight for all elements, or a run of which no element is left out. All other weights are summed
beside the terms, see blocks.py.
"""

from __future__ import annotations

from typing import Any

from numba import float64, int64
from numba.core import types
from numba.extending import intrinsic

from .. import _jit, intrinsics
from ..error_free import CUT, WITHOUT_SIGN, cut, magic
from ..exact import FRACTION_BITS, SUM_WORDS, carry, deposit, deposit_float
from ..intrinsics import I64, VECTOR, bits, smaller
from .blocks import UNKNOWN, add_exactly
from .operands import BLOCK, item, part, room


@intrinsic
def summed(typing: Any, weights: Any, mask: Any, omit: Any, block: Any) -> Any:
    """Return the block of weights if they are to be summed beside the terms, otherwise None."""
    if _are_shared(weights, mask, omit):
        return types.none(weights, mask, omit, block), lambda context, *_: context.get_dummy_value()
    return block(weights, mask, omit, block), lambda context, builder, signature, args: args[3]


def _are_shared(weights: Any, mask: Any, omit: Any) -> bool:
    """Whether weights are shared, by the types of the operands: one for all, or a run without omitted elements."""
    if isinstance(weights, types.BaseTuple):
        return isinstance(mask, types.NoneType) and isinstance(omit, types.NoneType)
    return isinstance(weights, (types.Float, types.NoneType))


def add_shared(weights: Any, mask: Any, omit: Any, start: int, stop: int, kept: int, total: Any) -> Any:
    """Add the weights of the elements from start to stop, of which `kept` count, to a sum, if elements share them.

    Returns how many of the weights added are not 0.
    """


@_jit.by_type(add_shared, **_jit.NO_COUNTS)
def _add_shared(weights: Any, mask: Any, omit: Any, start: Any, stop: Any, kept: Any, total: Any) -> Any:
    if not _are_shared(weights, mask, omit):
        return lambda weights, mask, omit, start, stop, kept, total: 0
    if isinstance(weights, types.BaseTuple):
        return _adding_entries(weights)

    def add_one(weights: Any, mask: Any, omit: Any, start: int, stop: int, kept: int, total: Any) -> int:
        weight = float64(item(weights, 0))
        deposit_float(total, weight, kept)
        return kept if weight != 0.0 else 0

    return add_one


def _adding_entries(weights: Any) -> Any:
    """Return the function that adds the weights of the elements from start to stop, for their form."""
    if len(weights) != 1:
        return lambda weights, mask, omit, start, stop, kept, total: add_run(weights, I64(1), start, stop, total)

    def add_vectors(weights: Any, mask: Any, omit: Any, start: int, stop: int, kept: int, total: Any) -> int:
        return add_run(weights[0], I64(VECTOR), start // VECTOR, stop // VECTOR, total)

    def add_array(weights: Any, mask: Any, omit: Any, start: int, stop: int, kept: int, total: Any) -> int:
        return I64(VECTOR) * add_times(part(weights[0], start // VECTOR, stop // VECTOR), I64(VECTOR), total)

    return add_vectors if isinstance(weights[0], types.BaseTuple) else add_array


@_jit.routine
def add_run(run: Any, each: int, start: int, stop: int, total: Any) -> int:
    """Add the entries of a run for the elements from start to stop, `each` times; return how many are not 0.

    Five steps at most: the rest of an entry, of a period, whole periods, whole entries, a part of an entry.
    """
    intrinsics.not_inlined()
    entries, repeat, period = run
    nonzero = 0
    while start < stop:
        entry, done = divmod(start % (repeat * period), repeat)
        there = stop - start
        if entry == 0 and done == 0 and there >= repeat * period:
            number, times = period, repeat * (there // (repeat * period))
        elif done == 0 and there >= repeat:
            number, times = smaller(there // repeat, period - entry), repeat
        else:
            number, times = I64(1), smaller(there, repeat - done)
        nonzero += each * times * add_times(part(entries, entry, entry + number), each * times, total)
        start += number * times
    return nonzero


@_jit.scalar
def cut_twice(values: Any, window: int, total: Any) -> int:
    """Add the numbers of a block to a sum, if they fit a window; the quick path of blocks.py, without terms.

    Returns how many of them are not 0, or -1 if they do not fit.
    """
    intrinsics.wide_vectors()
    high, low = magic(window - CUT), magic(window - 2 * CUT)
    high_sum = low_sum = outside = left = nonzero = 0
    for i in range(values.size):
        upper, lower, more = cut(float64(values[i]), high, low)
        high_sum += upper
        low_sum += lower
        outside |= upper ^ bits(high)
        left |= more
        nonzero += values[i] != 0.0
    if (outside >> FRACTION_BITS) != 0 or left & WITHOUT_SIGN != 0:
        return -1
    deposit(total, high_sum - values.size * bits(high), window - CUT)
    deposit(total, low_sum - values.size * bits(low), window - 2 * CUT)
    return nonzero


@_jit.scalar
def count_nonzero(values: Any) -> int:
    """Return how many numbers are not 0."""
    nonzero = 0
    for i in range(values.size):
        nonzero += values[i] != 0.0
    return nonzero


@_jit.routine
def add_times(values: Any, times: int, total: Any) -> int:
    """Add the sum of numbers, times an integer below 2**31, to a sum; return how many are not 0."""
    intrinsics.not_inlined()
    once, block = room(SUM_WORDS, int64), room(BLOCK, float64)
    once[:] = 0
    nonzero = 0
    window = I64(UNKNOWN)
    for start in range(0, values.size, BLOCK):
        stop = smaller(start + BLOCK, values.size)
        here = part(values, start, stop)
        found = I64(-1) if window == UNKNOWN else cut_twice(here, window, once)
        if found < 0:
            found = count_nonzero(here)
            for i in range(stop - start):
                block[i] = here[i]
            window = add_exactly(part(block, 0, stop - start), once, window)
        nonzero += found
    carry(once)
    for k in range(SUM_WORDS):
        total[k] += once[k] * times
    carry(total)
    return nonzero
