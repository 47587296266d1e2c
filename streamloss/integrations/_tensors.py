"""Losses and exact sums made of a framework's own tensor operations, for data on a device or inside a compiled graph.

A loss is evaluated by its scalar function itself, called with tensors in the place of numbers. Where the function
branches on a comparison it is followed both ways, and the results are joined by `where`. The operations are those of
the kernels, each rounded once, in the same order: so the terms have the same bits.

A sum is taken by cutting the terms into the digits of `streamloss.exact`, by integer operations. Nothing here waits
for a device: the state of a stream is a vector of int64 that stays where the data is.
"""

from __future__ import annotations

import math
import operator
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba.core.errors import NumbaError

from ..exact import (
    DIGIT_BITS,
    DIGIT_MASK,
    DIGIT_SHIFT,
    EXPONENT_MASK,
    FIRST_DIGIT,
    FRACTION_BITS,
    LOW,
    NAN,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    SMALLEST_EXPONENT,
    SUM_WORDS,
    TERMS,
    WEIGHTS,
)
from ..formulas import form_of
from ..losses import Loss

Tensor: TypeAlias = Any
# What the digits are worth, as float64; those beyond its range are 0 but in sums that have overflowed.
SCALES = tuple(math.ldexp(1.0, min(LOW + DIGIT_BITS * i, 1023)) for i in range(SUM_WORDS - FIRST_DIGIT))
ONES = FIRST_DIGIT - LOW // DIGIT_BITS  # the digit that is worth 1
UFUNCS: Mapping[Any, Callable[..., Any]] = {
    np.absolute: operator.abs,
    np.fabs: operator.abs,
    np.negative: operator.neg,
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.square: lambda number: number * number,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
}
MOST_BRANCHES = 8  # on one path through a formula


class Operations(NamedTuple):
    """The operations of a framework that are used here."""

    xp: Any  # where, full_like, zeros_like, isnan, concatenate, sum, bitwise_and, ...: the names that all share
    float64: Callable[[Tensor], Tensor]  # a conversion
    int64: Callable[[Tensor], Tensor]  # a conversion
    bits: Callable[[Tensor], Tensor]  # a float64 tensor as the int64 tensor of its bits
    scatter: Callable[[Tensor, Tensor, int], Tensor]  # amounts and indices of one axis to a vector of that length
    flat: Callable[[Tensor], Tensor]  # a tensor as one axis
    constant: Callable[[tuple[float, ...], Tensor], Tensor]  # a float64 vector, on the device of a tensor


# ---------------------------------------------------------------------------------------------------- losses


class _Fork(BaseException):
    """A branch that has not been decided yet; no formula can catch it by accident."""

    def __init__(self, condition: Tensor) -> None:
        self.condition = condition


class _Condition:
    def __init__(self, tensor: Tensor, path: list[bool]) -> None:
        self.tensor, self.path = tensor, path

    def __bool__(self) -> bool:
        if self.path:
            return self.path.pop(0)
        raise _Fork(self.tensor)


class _Number:
    """A tensor that a formula takes for a float."""

    def __init__(self, tensor: Tensor, path: list[bool]) -> None:
        self.tensor, self.path = tensor, path

    def __bool__(self) -> bool:
        return bool(_Condition(self.tensor != 0, self.path))

    def __array_ufunc__(self, function: Any, method: str, *arguments: Any, **options: Any) -> Any:
        """Do what a function of NumPy's does; for all but these it would compare objects, by rules of its own."""
        if function not in UFUNCS or method != "__call__" or options:
            return NotImplemented
        return UFUNCS[function](*(a if isinstance(a, (_Number, _Condition)) else float(a) for a in arguments))

    def __abs__(self) -> _Number:
        return _Number(abs(self.tensor), self.path)

    def __neg__(self) -> _Number:
        return _Number(-self.tensor, self.path)


def _operator(name: str, result: type, swapped: bool = False) -> Callable[[_Number, Any], Any]:
    function = getattr(operator, name)

    def method(self: _Number, other: Any) -> Any:
        operand = other.tensor if isinstance(other, _Number) else float(other)
        return result(function(operand, self.tensor) if swapped else function(self.tensor, operand), self.path)

    return method


for _name in ("add", "sub", "mul", "truediv"):
    setattr(_Number, f"__{_name}__", _operator(_name, _Number))
    setattr(_Number, f"__r{_name}__", _operator(_name, _Number, swapped=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(_Number, f"__{_name}__", _operator(_name, _Condition))


class _Math:
    """The module `math`, for tensors too."""

    def __init__(self, xp: Any, exact: bool) -> None:
        self._xp, self._exact = xp, exact

    def __getattr__(self, name: str) -> Any:
        plain = getattr(math, name)
        if not callable(plain):
            return plain

        def function(*arguments: Any) -> Any:
            if not isinstance(arguments[0], _Number):
                return plain(*arguments)
            if self._exact and name not in ("sqrt", "fabs"):
                raise TypeError(f"math.{name} has other bits there")
            (number,) = arguments
            return _Number(getattr(self._xp, "abs" if name == "fabs" else name)(number.tensor), number.path)

        return function


def evaluate(loss: Loss, xp: Any, label: Tensor, prediction: Tensor, *, exact: bool) -> Tensor:
    """Return the losses of elements, float64; TypeError for a formula that tensors cannot follow.

    With `exact`, formulas that use log, exp and their like are refused: frameworks compute those in ways of their own,
    with other bits in a vector than alone.
    """
    plain = loss.formula if loss.is_ours else form_of(loss)  # with the values that kernels have, too
    formula = types.FunctionType(
        plain.__code__,
        {**plain.__globals__, "math": _Math(xp, exact)},
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )

    def follow(*decisions: bool) -> Tensor:
        path = list(decisions)
        try:
            value = formula(_Number(label, path), _Number(prediction, path), *loss.values)
        except _Fork as fork:
            if len(decisions) == MOST_BRANCHES:
                raise TypeError("it branches too often") from None
            return xp.where(fork.condition, follow(*decisions, True), follow(*decisions, False))
        return value.tensor if isinstance(value, _Number) else xp.full_like(label, float(value))

    try:
        return follow()
    except (TypeError, AttributeError, ValueError, ArithmeticError, NumbaError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(
            f"loss {loss!r} cannot be computed where these tensors are: {reason}; copy them to host memory first"
        ) from None


# ---------------------------------------------------------------------------------------------------- sums


def exact_sum(ops: Operations, values: Tensor) -> Tensor:
    """Return the digits of the sum of a vector of float64, not carried: each is less than 2**33 times its length."""
    xp = ops.xp
    pattern = ops.bits(values)
    exponent = xp.bitwise_and(xp.bitwise_right_shift(pattern, FRACTION_BITS), EXPONENT_MASK)
    fraction = xp.bitwise_and(pattern, (1 << FRACTION_BITS) - 1)
    special = exponent == EXPONENT_MASK
    infinity = POSITIVE_INFINITY + ops.int64(pattern < 0) * (NEGATIVE_INFINITY - POSITIVE_INFINITY)
    word = ops.int64(fraction == 0) * (infinity - NAN) + NAN  # where a value that is not finite is counted
    fraction = xp.where(exponent > 0, fraction + (1 << FRACTION_BITS), fraction)
    fraction = xp.where(pattern < 0, -fraction, fraction)
    place = xp.where(exponent > 0, exponent, exponent + 1) + (SMALLEST_EXPONENT - 1 - LOW)
    digit = xp.where(special, word, xp.bitwise_right_shift(place, DIGIT_SHIFT) + FIRST_DIGIT)
    shift = xp.bitwise_and(place, DIGIT_BITS - 1)
    # As in `exact.deposit`: the fraction, shifted to its digit, in three parts.
    low = xp.bitwise_left_shift(xp.bitwise_and(fraction, DIGIT_MASK), shift)
    high = xp.bitwise_left_shift(xp.bitwise_right_shift(fraction, DIGIT_BITS), shift)
    middle = xp.bitwise_right_shift(low, DIGIT_BITS) + xp.bitwise_and(high, DIGIT_MASK)
    zero = xp.zeros_like(low)
    parts = (
        xp.where(special, zero + 1, xp.bitwise_and(low, DIGIT_MASK)),
        xp.where(special, zero, middle),
        xp.where(special, zero, xp.bitwise_right_shift(high, DIGIT_BITS)),
    )
    return ops.scatter(xp.concatenate(parts), xp.concatenate((digit, digit + 1, digit + 2)), SUM_WORDS)


def loosely_carried(ops: Operations, total: Tensor) -> Tensor:
    """Return a sum of the same value, with small digits: at most 2**32, if they were below 2**63."""
    xp = ops.xp
    digits, top = total[FIRST_DIGIT:-1], total[-1:]
    over = xp.bitwise_right_shift(digits, DIGIT_BITS)
    rest = xp.bitwise_and(digits, DIGIT_MASK)
    return xp.concatenate((total[:FIRST_DIGIT], rest[:1], rest[1:] + over[:-1], top + over[-1:]))


def joined(ops: Operations, a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of two states, loosely carried: `Accumulator.from_state` reads it like a carried one."""
    state = a + b
    sums = (loosely_carried(ops, state[start : start + SUM_WORDS]) for start in (TERMS, WEIGHTS))
    return ops.xp.concatenate((state[:TERMS], *sums))


def chunk_state(
    ops: Operations, loss: Loss, label: Tensor, prediction: Tensor, weight: Tensor, mask: Tensor, omit: bool
) -> Tensor:
    """Return the state of a chunk alone, to be added: tensors of one shape, or None for weight and mask."""
    xp = ops.xp
    label, prediction = ops.float64(label), ops.float64(prediction)
    terms = evaluate(loss, xp, label, prediction, exact=True)
    operands = [label, prediction]
    if weight is not None:
        weight = ops.float64(weight)
        terms = weight * terms
        operands.append(weight)
    kept = present = xp.full_like(terms, 1.0) > 0 if mask is None else mask
    for operand in operands if omit else ():
        kept = xp.logical_and(kept, xp.logical_not(xp.isnan(operand)))
    count, seen = (xp.sum(ops.int64(flags)) for flags in (kept, present))
    zero = xp.zeros_like(terms)
    total = exact_sum(ops, ops.flat(xp.where(kept, terms, zero)))
    if weight is None:  # ones, which add up to their number
        nonzero, nothing = count, xp.zeros_like(total)
        weights = xp.concatenate((nothing[:ONES], xp.stack((count,)), nothing[ONES + 1 :]))
    else:
        weight = xp.where(kept, weight, zero)
        nonzero, weights = xp.sum(ops.int64(weight != 0)), exact_sum(ops, ops.flat(weight))
    return xp.concatenate((xp.stack((count, nonzero, seen - count)), total, weights))


def approximate(ops: Operations, total: Tensor) -> Tensor:
    """Return the float64 value of a sum that has not been carried: to 1 or 2 ulp, if no term is negative."""
    xp = ops.xp
    digits = ops.float64(total[FIRST_DIGIT:])
    value = xp.sum(digits * ops.constant(SCALES, total))
    nan, positive, negative = (ops.float64(total[word]) for word in (NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY))
    value = xp.where(positive > 0, xp.full_like(value, math.inf), value)
    value = xp.where(negative > 0, xp.full_like(value, -math.inf), value)
    return xp.where(nan + positive * negative > 0, xp.full_like(value, math.nan), value)
