"""Adding a chunk to a state, on the CPU: the loop over blocks, and the threads that share it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import float64

from . import _jit, _threads
from .blocks import I64, UNKNOWN, add_exactly, add_quickly, prepare, settle
from .chunks import Chunk
from .entries import FLOATS, WORDS, entries
from .exact import COUNT, NONZERO, STATE_WORDS, SUM_WORDS, TERMS, WEIGHTS, Words, carry, combine, deposit_float
from .losses import Loss
from .operands import BLOCK, block, is_shared, item, past_line, scratch
from .squares import accumulate_squares

SERIAL = 1 << 17  # elements up to which starting a second thread costs more than it saves


def accumulate(
    loss: Any,
    labels: Any,
    predictions: Any,
    weights: Any,
    mask: Any,
    out: Any,
    start: int,
    stop: int,
    state: Any,
    terms: Any,
    used_weights: Any,
    tally: Any,
) -> None:
    """Add the elements from start to stop of a chunk to a state, leaving its sums carried.

    `loss` is the formula, its parameters, and True or None: whether to omit elements with NaN. `terms` and
    `used_weights` are room for a block each; `tally` is eight words of zero.
    """
    weights_room, mask_room = scratch(weights), scratch(mask)
    term_sum = state[TERMS : TERMS + SUM_WORDS]
    weight_sum = state[WEIGHTS : WEIGHTS + SUM_WORDS]
    term_window = weight_window = I64(UNKNOWN)
    weights_in_one_cut = True  # as those of float32 mostly are; until a block says otherwise
    before = state[COUNT]
    begin = end = start
    while end < stop:  # blocks begin with a cache line: loads across two lines cost float32 a tenth of its speed
        begin, end = end, min(end + BLOCK - past_line(labels, end), stop)
        n = end - begin
        w, k = block(weights, begin, end, weights_room), block(mask, begin, end, mask_room)
        elements = labels[begin:end], predictions[begin:end], w, k
        if out is None and term_window != UNKNOWN and weight_window != UNKNOWN:
            windows = term_window, weight_window
            if add_quickly(loss, elements, windows, weights_in_one_cut, tally, state):
                continue
            weights_in_one_cut = False
        settle(tally, I64(0), term_window, term_sum)
        prepare(loss, elements, block(out, begin, end, None), terms, used_weights, state)
        term_window = add_exactly(terms[:n], term_sum, term_window)
        if is_shared(weights):
            weight_window = I64(0)
        else:
            settle(tally, I64(4), weight_window, weight_sum)
            weight_window = add_exactly(used_weights[:n], weight_sum, weight_window)
    settle(tally, I64(0), term_window, term_sum)
    if is_shared(weights):
        weight, kept = float64(item(block(weights, 0, 0, weights_room), 0)), state[COUNT] - before
        deposit_float(weight_sum, weight, kept)
        if weight != 0.0:
            state[NONZERO] += kept
    else:
        settle(tally, I64(4), weight_window, weight_sum)
    carry(term_sum)
    carry(weight_sum)


_sums = entries(accumulate, WORDS, FLOATS, FLOATS, WORDS)
_squares = entries(accumulate_squares, WORDS, FLOATS, FLOATS, WORDS)
_checked: set[str] = set()  # the fingerprints of user's functions that compile


# Room for a block of terms and a block of weights, and a tally: taken and put back, so that small updates need not ask
# the system for memory. After an exception the tally may not be zero, and the room is not put back.
_rooms: list[tuple[Any, Any, Any]] = []


def add(loss: Loss, chunk: Chunk, omit: bool, pieces: range, drawn: Iterable[int], state: Words) -> Words:
    """Add the drawn pieces of a chunk to a state, in place."""
    try:
        room = _rooms.pop()
    except IndexError:
        room = np.empty(BLOCK), np.empty(BLOCK), np.zeros(8, np.int64)
    for piece in drawn:
        operands = chunk.operands(piece, pieces)
        recipe = None, loss.values, omit or None
        _sums(loss, operands, omit)(recipe, *operands, state, *room)
        if state.size != STATE_WORDS:
            _squares(loss, operands, omit)(recipe, *operands, state, *room)
        if operands[4] is not None:
            chunk.finish(piece, operands)
    _rooms.append(room)
    return state


def added(loss: Loss, chunk: Chunk, omit: bool, state: Words) -> Words:
    """A state with a chunk added to it.

    With `omit`, elements with a NaN among label, prediction and weight are left out and counted as skipped.
    """
    if chunk.size <= SERIAL:
        pieces = chunk.pieces(1)
        return add(loss, chunk, omit, pieces, pieces, state.copy())
    pieces = chunk.pieces(_threads.get_num_threads())

    def work(drawn: Iterable[int]) -> Words:
        return add(loss, chunk, omit, pieces, drawn, np.zeros(state.size, np.int64))

    return combine(state, np.add.reduce(_threads.share(pieces, work)))


def check_formula(loss: Loss) -> None:
    """Compile a user's function by itself; TypeError, with Numba's reason, if that fails."""
    if loss.fingerprint in _checked:
        return
    try:
        _jit.check(loss.formula, len(loss.values))
        _checked.add(loss.fingerprint)
    except Exception as error:  # Numba's own errors, and whatever else its compiler stumbles over
        raise TypeError(f"loss {loss.name} cannot be compiled by Numba: {error}") from None
