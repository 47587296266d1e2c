"""Adding a chunk to the states of groups, on the CPU: every element goes to the state of its own group.

Neighbouring elements belong to different groups, so there are no blocks of one sum to cut. Instead each term of a
tile is cut at two places, by vector instructions and as in `blocks`, into two whole numbers of at most 42 bits. They
are laid beside the counts of their element, so that one vector addition takes all of it to the tally of its group,
which stays in the cache. Tallies go into the states after each piece. Tiles that do not fit the window are added one
by one, to the three digits that the bits of a number lie in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from numba import float64, int64
from numba.core import types

from .. import _jit, _threads, intrinsics
from .._jit import evaluate
from ..chunks import Chunk
from ..error_free import CUT, HIGHEST_WINDOW, WITHOUT_SIGN, cut, exact_product, exceeding, magic
from ..exact import (
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
    deposit,
    deposit_float,
)
from ..intrinsics import I64, U64, bits, larger, smaller
from ..losses import Loss
from .blocks import MARGIN, UNKNOWN, extremes, prepare
from .entries import SCALARS, WORDS, entries
from .operands import block, is_shared, item, portion, read_ahead, room, scratch, weigh

TILE = 512  # elements whose parts lie in the first-level cache
SIDE = 4  # words of an element that lie side by side, to be added as one vector
PARTS = SIDE * TILE
PART = 42  # bits of the whole numbers that a term is cut into: 2**20 of them add up to less than 2**63
HIGHEST = HIGHEST_WINDOW - (CUT - PART)  # windows from here on have constants that overflow
FIELD = 21  # bits of each count in a packed word: a piece has at most 2**20 elements
TALLY = 8  # words of a group's tally: packed counts, and two parts each of terms and weights; a cache line
STATES = types.Array(types.int64, 2, "C")
MOST_TIMES = 1 << 30  # the most that deposit_float is given at once
SERIAL = 1 << 17  # elements up to which a second thread costs more than it saves
MOST_UNCARRIED = 1 << 29  # elements: each adds less than 2**32 to a digit, up to twice
SHARED_WORDS = 1 << 20  # of states; threads add to states of their own, as long as those fit in the cache


# All states are addressed as one array: a view of a row would count its references, atomically, for every element.


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


@_jit.scalar
def counted(value: float, high: float, low: float) -> tuple[int, int, int, int]:
    """Return the two parts of a number, and two words: if it fits, one is 0 above bit PART, one 0 but for its sign."""
    upper, lower, more = cut(value, high, low)
    units = upper - bits(high)
    return units, lower - bits(low), units + (1 << PART), more


@_jit.routine
def cut_apart(loss: Any, elements: Any, out: Any, windows: Any, parts: Any, weight_lower: Any) -> bool:
    """Cut the terms of a tile, and the weights that are its own; False if something does not fit its window.

    Side by side stand the counts of an element (kept, skipped and nonzero, packed into a word), the parts of its term,
    and the upper part of its weight.
    """
    intrinsics.not_inlined()
    intrinsics.wide_vectors()
    formula, parameters, omit = loss
    labels, predictions, weights, mask = elements
    if windows[0] == UNKNOWN or (windows[1] == UNKNOWN and not is_shared(weights)):
        return False
    high, low = magic(windows[0] - PART), magic(windows[0] - 2 * PART - 1)
    weight_high, weight_low = magic(windows[1] - PART), magic(windows[1] - 2 * PART - 1)
    outside = left = 0
    for i in range(labels.size):
        label, prediction, weight = float64(labels[i]), float64(predictions[i]), float64(item(weights, i))
        here = I64(item(mask, i))
        kept = here
        if omit is not None:
            kept = here & I64(label == label) & I64(prediction == prediction) & I64(weight == weight)
        term = weigh(weights, i, evaluate(formula, label, prediction, parameters))
        if out is not None:
            out[i] = term if kept else np.nan
        upper, lower, beyond, more = counted(term if kept else 0.0, high, low)
        outside |= beyond
        left |= more
        place = U64(SIDE) * U64(i)
        parts[place] = kept | ((here - kept) << FIELD) | ((kept & I64(weight != 0.0)) << (2 * FIELD))
        parts[place + U64(1)] = upper
        parts[place + U64(2)] = lower
        upper = I64(0)
        if not is_shared(weights):
            upper, weight_lower[i], beyond, more = counted(weight if kept else 0.0, weight_high, weight_low)
            outside |= beyond
            left |= more
        parts[place + U64(3)] = upper
    return (outside >> (PART + 1)) == 0 and (left & WITHOUT_SIGN) == 0  # 0 and -0 are the same number


@_jit.routine
def window_of(values: Any) -> int:
    """Return a window for numbers like these; UNKNOWN where units or constants would leave the range of float64.

    For zeros, any window will do.
    """
    intrinsics.not_inlined()
    top, _ = extremes(values)
    window = I64(0) if top == 0 else exceeding(top) + MARGIN
    return window if 2 * PART + SMALLEST_EXPONENT < window < HIGHEST else I64(UNKNOWN)


@_jit.scalar
def widened(windows: Any, weights: Any, terms: Any, used_weights: Any) -> tuple[int, int]:
    """Return windows that fit these terms and weights and the earlier ones."""
    if is_shared(weights):
        return larger(windows[0], window_of(terms)), windows[1]
    return larger(windows[0], window_of(terms)), larger(windows[1], window_of(used_weights))


@_jit.scalar
def are_equal(codes: Any) -> bool:
    """Whether a tile is of one group, as in sorted data."""
    different = codes[0] ^ codes[codes.size - 1]
    if different == 0:
        for i in range(codes.size):
            different |= codes[0] ^ codes[i]
    return bool(different == 0)


@_jit.scalar
def tally_up(weights: Any, codes: Any, parts: Any, weight_lower: Any, tallies: Any) -> None:
    """Add the parts of each element of a tile to the tally of its group."""
    if are_equal(codes):
        tally = U64(codes[0]) * U64(TALLY)
        first = second = third = fourth = fifth = 0
        for i in range(codes.size):
            place = U64(SIDE) * U64(i)
            first += parts[place]
            second += parts[place + U64(1)]
            third += parts[place + U64(2)]
            if not is_shared(weights):
                fourth += parts[place + U64(3)]
                fifth += weight_lower[i]
        tallies[tally] += first
        tallies[tally + U64(1)] += second
        tallies[tally + U64(2)] += third
        tallies[tally + U64(3)] += fourth
        tallies[tally + U64(4)] += fifth
        return
    for i in range(codes.size):
        tally = U64(codes[i]) * U64(TALLY)
        intrinsics.add_four(tallies, tally, parts, U64(SIDE) * U64(i))
        if not is_shared(weights):
            tallies[tally + U64(SIDE)] += weight_lower[i]


@_jit.routine
def settle_tallies(tallies: Any, windows: Any, states: Any) -> None:
    """Move what the tallies hold into the states."""
    intrinsics.not_inlined()
    field = (1 << FIELD) - 1
    for group in range(len(states)):
        start = group * TALLY
        packed = tallies[start]
        if packed == 0:
            continue
        state = states[group]
        state[COUNT] += packed & field
        state[SKIPPED] += (packed >> FIELD) & field
        state[NONZERO] += packed >> (2 * FIELD)
        for sum_start, window, place in ((TERMS, windows[0], start + 1), (WEIGHTS, windows[1], start + 3)):
            total = state[sum_start : sum_start + SUM_WORDS]
            if window != UNKNOWN:
                deposit(total, tallies[place], window - PART)
                deposit(total, tallies[place + 1], window - 2 * PART - 1)
        tallies[start : start + TALLY] = 0


@_jit.scalar
def add_one_by_one(loss: Any, elements: Any, codes: Any, terms: Any, used_weights: Any, states: Any) -> None:
    """Add the elements of a tile to the states of their groups."""
    labels, predictions, weights, mask = elements
    omit = loss[2]
    words, width = states.reshape(-1), states.shape[1]
    for i in range(labels.size):
        if not item(mask, i):
            continue
        start = codes[i] * width
        if omit is not None:
            label, prediction, weight = float64(labels[i]), float64(predictions[i]), float64(item(weights, i))
            if label != label or prediction != prediction or weight != weight:
                words[U64(start + SKIPPED)] += 1
                continue
        words[U64(start + COUNT)] += 1
        words[U64(start + NONZERO)] += used_weights[i] != 0.0
        add_float(words, start + TERMS, terms[i])
        if not is_shared(weights):
            add_float(words, start + WEIGHTS, used_weights[i])
        if width != STATE_WORDS:
            add_squares(words, start, terms[i], used_weights[i])


@_jit.scalar
def half_ahead(operands: Any, start: int) -> None:
    """Prefetch half a tile of the operands that are arrays, what will be read soon after `start`."""
    labels, predictions, weights, codes = operands
    for begin in range(start, start + TILE // 2, portion(labels)):
        read_ahead(labels, labels, begin)
        read_ahead(labels, predictions, begin)
        read_ahead(labels, weights, begin)
        read_ahead(labels, codes, begin)


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
) -> None:
    """Add the elements from start to stop of a chunk to the rows of `states` that their codes say; without carrying.

    The other arguments are those of `updates.accumulate`, and there are at most 2**20 elements. Weights that all
    elements share are left to `_complete`.
    """
    terms, used_weights, counts = room(TILE, float64), room(TILE, float64), np.zeros(COUNTS, np.int64)
    weights_room, mask_room, codes_room = scratch(weights), scratch(mask), scratch(codes)
    parts, weight_lower = room(PARTS, int64), room(TILE, int64)
    tallies = np.zeros(len(states) * TALLY, np.int64)
    windows = I64(UNKNOWN), I64(UNKNOWN)
    for begin in range(start, stop, TILE):
        end = smaller(begin + TILE, stop)
        w, k = block(weights, begin, end, weights_room), block(mask, begin, end, mask_room)
        c = block(codes, begin, end, codes_room)
        elements, o = (labels[begin:end], predictions[begin:end], w, k), block(out, begin, end, None)
        half_ahead((labels, predictions, weights, codes), begin)
        fits = cut_apart(loss, elements, o, windows, parts, weight_lower)
        if not fits:
            prepare(loss, (*elements, None), o, terms, used_weights, counts)
            wider = widened(windows, weights, terms[: end - begin], used_weights[: end - begin])
            if wider != windows and states.shape[1] == STATE_WORDS:
                settle_tallies(tallies, windows, states)
                windows = wider
                fits = cut_apart(loss, elements, o, windows, parts, weight_lower)
        half_ahead((labels, predictions, weights, codes), begin + TILE // 2)
        if fits:
            tally_up(weights, c, parts, weight_lower, tallies)
        else:
            add_one_by_one(loss, elements, c, terms, used_weights, states)
    settle_tallies(tallies, windows, states)


def _complete(states: Any, shared: bool, weight: float) -> None:
    """Carry states; if their elements share a weight, add it to them first, once for each."""
    for i in range(len(states)):
        state = states[i]
        if shared:
            left = state[COUNT]
            state[NONZERO] = left if weight != 0.0 else 0
            while left > 0:
                times = smaller(left, MOST_TIMES)
                deposit_float(state[WEIGHTS : WEIGHTS + SUM_WORDS], weight, times)
                left -= times
        carry_state(state)


def _add_states(states: Any, rows: Any, more: Any, sign: int, done: Any) -> None:
    for i in range(len(rows)):
        state = states[rows[i]]
        for j in range(state.size):
            state[j] += sign * more[i, j]
        carry_state(state)
    done[0] = 1


@cache
def _groups(code: str, in_run: bool) -> Callable[..., Callable[..., None]]:
    """Return what finds the kernels for codes of the dtype with that character, in a run or one for each element."""
    codes: Any = types.Array(SCALARS[code], 1, "C")
    codes = types.Tuple((codes, types.int64, types.int64)) if in_run else codes
    return entries(accumulate_groups, codes, STATES, allocates=True)


@cache
def _complete_entry() -> Callable[..., None]:
    return _jit.Kernel(_complete).compile((STATES, types.boolean, types.float64))


@cache
def _add_states_entry() -> Callable[..., None]:
    return _jit.Kernel(_add_states).compile((STATES, WORDS, STATES, types.int64, WORDS))


def carry_all(states: Words) -> None:
    """Bring all sums of all states into their canonical form."""
    _complete_entry()(states, False, 0.0)


def add(loss: Loss, chunk: Chunk, omit: bool, pieces: range, drawn: Iterable[int], states: Words) -> Words:
    """Add the drawn pieces of a chunk to the states of its groups, which are zero."""
    uncarried, weights = 0, None
    for piece in drawn:
        operands = chunk.operands(piece, pieces)
        weights, size = operands[2], operands[6] - operands[5]
        if uncarried + size > MOST_UNCARRIED:
            carry_all(states)
            uncarried = 0
        uncarried += size
        codes = chunk.codes_of(piece)
        array, in_run = (codes[0], True) if isinstance(codes, tuple) else (codes, False)
        entry = _groups(array.dtype.char, in_run)(loss, operands, omit)
        entry((None, loss.values, omit or None), *operands, codes, states)
        chunk.finish(piece, operands)
    weight = 1.0 if weights is None else weights
    shared = type(weight) is float
    _complete_entry()(states, shared, weight if shared else 0.0)
    return states


def added(loss: Loss, chunk: Chunk, omit: bool, groups: int, words: int) -> Words:
    """Return the states of that many groups for a chunk, whose codes are below that number."""

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
    _add_states_entry()(states, rows, more, sign, done)
