"""Adding a chunk to the states of groups, on the CPU: every element goes to the state of its own group.

Neighbouring elements belong to different groups, so there are no blocks of one sum to cut. Terms are computed block by
block as everywhere; each is then added to the two or three digits that its bits lie in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from numba import float64
from numba.core import types

from . import _jit, _threads
from ._jit import bits
from .blocks import U64, prepare
from .chunks import Chunk
from .cpu import SERIAL
from .entries import FLOATS, WORDS, entries
from .exact import (
    COUNT,
    COUNTS,
    DIGIT_BITS,
    DIGIT_MASK,
    DIGIT_SHIFT,
    EXPONENT_MASK,
    FIRST_DIGIT,
    FRACTION_BITS,
    LOW,
    NAN,
    NEGATIVE_INFINITY,
    NONZERO,
    POSITIVE_INFINITY,
    PRODUCTS,
    SKIPPED,
    SMALLEST_EXPONENT,
    STATE_WORDS,
    SUM_WORDS,
    TERM_SQUARES,
    TERMS,
    WEIGHT_SQUARES,
    WEIGHTS,
    Words,
    carry_state,
    deposit_float,
)
from .losses import Loss
from .operands import BLOCK, block, is_shared, item, scratch
from .squares import exact_product

STATES = types.Array(types.int64, 2, "C")
MOST_TIMES = 1 << 30  # that deposit_float takes at once
CARRY_AFTER = 1 << 29  # elements: each adds less than 2**32 to a digit, up to twice
SHARED_WORDS = 1 << 20  # of states; threads add to states of their own, as long as those fit in the cache


# States are addressed as one array: a view of a row would count its references, atomically, for every element.


@_jit.scalar
def add_float(words: Any, start: int, value: float) -> None:
    """Add one number to the sum whose words begin at `start`."""
    pattern = bits(value)
    exponent = (pattern >> FRACTION_BITS) & EXPONENT_MASK
    fraction = pattern & ((1 << FRACTION_BITS) - 1)
    if exponent == EXPONENT_MASK:
        words[U64(start + (NAN if fraction else POSITIVE_INFINITY if pattern > 0 else NEGATIVE_INFINITY))] += 1
        return
    if exponent == 0:
        exponent = 1
    else:
        fraction |= 1 << FRACTION_BITS
    place = exponent + (SMALLEST_EXPONENT - 1 - LOW)
    digit = start + FIRST_DIGIT + (place >> DIGIT_SHIFT)
    shift = place & (DIGIT_BITS - 1)
    upper = fraction >> (DIGIT_BITS - shift)
    sign = pattern >> 63  # 0 or -1: (x ^ sign) - sign is x or -x
    words[U64(digit)] += (((fraction << shift) & DIGIT_MASK) ^ sign) - sign
    words[U64(digit + 1)] += ((upper & DIGIT_MASK) ^ sign) - sign
    words[U64(digit + 2)] += ((upper >> DIGIT_BITS) ^ sign) - sign


@_jit.scalar
def add_product(words: Any, start: int, left: float, right: float) -> None:
    """Add a product to the sum whose words begin at `start`."""
    upper, lower = exact_product(left, right)
    add_float(words, start, upper)
    add_float(words, start, lower)


@_jit.scalar
def add_squares(words: Any, start: int, term: float, weight: float) -> None:
    """Add what the standard error needs of an element to the state that begins at `start`."""
    add_product(words, start + TERM_SQUARES, term, term)
    add_product(words, start + PRODUCTS, term, weight)
    add_product(words, start + WEIGHT_SQUARES, weight, weight)


def accumulate_groups(
    loss: Any,
    labels: Any,
    predictions: Any,
    weights: Any,
    mask: Any,
    out: Any,
    start: int,
    stop: int,
    codes: Any,
    states: Any,
    terms: Any,
    used_weights: Any,
    counts: Any,
) -> None:
    """Add the elements from start to stop of a chunk to the rows of `states` that their codes say; without carrying.

    The other arguments are those of `cpu.accumulate`; `counts` is room for three words.
    """
    weights_room, mask_room, codes_room = scratch(weights), scratch(mask), scratch(codes)
    omit = loss[2]
    words, width = states.reshape(-1), states.shape[1]
    for begin in range(start, stop, BLOCK):
        end = min(begin + BLOCK, stop)
        w, k = block(weights, begin, end, weights_room), block(mask, begin, end, mask_room)
        c = block(codes, begin, end, codes_room)
        y, p = labels[begin:end], predictions[begin:end]
        prepare(loss, (y, p, w, k), block(out, begin, end, None), terms, used_weights, counts)
        for i in range(end - begin):
            if not item(k, i):
                continue
            start = c[i] * width
            if omit is not None:
                label, prediction, weight = float64(y[i]), float64(p[i]), float64(item(w, i))
                if label != label or prediction != prediction or weight != weight:
                    words[U64(start + SKIPPED)] += 1
                    continue
            words[U64(start + COUNT)] += 1
            add_float(words, start + TERMS, terms[i])
            if not is_shared(weights):
                words[U64(start + NONZERO)] += used_weights[i] != 0.0
                add_float(words, start + WEIGHTS, used_weights[i])
            if width != STATE_WORDS:
                add_squares(words, start, terms[i], used_weights[i])


def _carry_all(states: Any) -> None:
    for i in range(len(states)):
        carry_state(states[i])


def _add_weights(states: Any, weight: float) -> None:
    """Add to fresh states the weights of their elements, which all have the same."""
    for i in range(len(states)):
        left = states[i, COUNT]
        states[i, NONZERO] = left if weight != 0.0 else 0
        while left > 0:
            times = min(left, MOST_TIMES)
            deposit_float(states[i, WEIGHTS : WEIGHTS + SUM_WORDS], weight, times)
            left -= times


def _add_states(states: Any, rows: Any, more: Any, sign: int, done: Any) -> None:
    for i in range(len(rows)):
        state = states[rows[i]]
        for j in range(state.size):
            state[j] += sign * more[i, j]
        carry_state(state)
    done[0] = 1


CODES = {
    "array": types.Array(types.int32, 1, "C"),
    "run": types.Tuple((types.Array(types.int32, 1, "C"), types.int64, types.int64)),
}
_groups = {kind: entries(accumulate_groups, codes, STATES, FLOATS, FLOATS, WORDS) for kind, codes in CODES.items()}


@cache
def _entry(function: Callable[..., None], *signature: Any) -> Callable[..., None]:
    return _jit.Kernel(function).compile(signature)


def carry_all(states: Words) -> None:
    """Bring all sums of all states into their canonical form."""
    _entry(_carry_all, STATES)(states)


def add(loss: Loss, chunk: Chunk, omit: bool, pieces: range, drawn: Iterable[int], states: Words) -> Words:
    """Add the drawn pieces of a chunk to the states of its groups, which are zero."""
    terms, used_weights, counts = np.empty(BLOCK), np.empty(BLOCK), np.zeros(COUNTS, np.int64)
    uncarried, weights = 0, None
    for piece in drawn:
        operands = chunk.operands(piece, pieces)
        weights, size = operands[2], operands[6] - operands[5]
        if uncarried + size > CARRY_AFTER:
            carry_all(states)
            uncarried = 0
        uncarried += size
        codes = chunk.codes_of(piece)
        entry = _groups["run" if isinstance(codes, tuple) else "array"](loss, operands, omit)
        entry((None, loss.values, omit or None), *operands, codes, states, terms, used_weights, counts)
        if operands[4] is not None:
            chunk.finish(piece, operands)
    if weights is None or type(weights) is float:
        _entry(_add_weights, STATES, types.float64)(states, 1.0 if weights is None else weights)
    carry_all(states)
    return states


def added(loss: Loss, chunk: Chunk, omit: bool, groups: int, words: int) -> Words:
    """The states of that many groups, after a chunk whose codes are below that number."""

    def work(drawn: Iterable[int]) -> Words:
        return add(loss, chunk, omit, pieces, drawn, np.zeros((groups, words), np.int64))

    threads = _threads.get_num_threads() if groups * words <= SHARED_WORDS and chunk.size > SERIAL else 1
    pieces = chunk.pieces(threads)
    if threads == 1:
        return work(pieces)
    states = np.add.reduce(_threads.share(pieces, work))
    carry_all(states)
    return states


def add_states(states: Words, rows: Words, more: Words, sign: int, done: Words) -> None:
    """Add states, or subtract them with sign -1, to the given rows; `done` is 1 afterwards, and never in between.

    One call of compiled code, which KeyboardInterrupt cannot cut in two.
    """
    _entry(_add_states, STATES, WORDS, STATES, types.int64, WORDS)(states, rows, more, sign, done)
