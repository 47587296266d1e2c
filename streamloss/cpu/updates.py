"""Adding a chunk to a state, on the CPU: the loop over blocks, and the threads that share it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
from numba import float64, int64

from .. import _jit, _threads, intrinsics
from .._jit import evaluate
from ..chunks import Chunk, Direct, Whole
from ..exact import (
    COUNT,
    NONZERO,
    SKIPPED,
    STATE_WORDS,
    SUM_WORDS,
    TERMS,
    WEIGHTS,
    Words,
    carry,
    combine,
    deposit_float,
)
from ..formulas import form_of
from ..intrinsics import I64, smaller
from ..losses import PRECOMPUTED, Loss
from .blocks import TALLY_WORDS, UNKNOWN, add_exactly, add_quickly, prepare, settle
from .entries import WORDS, Entry, entries, scalar_entries
from .operands import BLOCK, block, is_in_vectors, is_shared, part, past_line, room, scratch
from .squares import accumulate_squares
from .weights import add_shared, summed

SHARED_AT_ONCE = 1 << 16  # elements whose shared weights are summed together, while they are in cache
ALONE = 170e-6  # seconds of work up to which a second thread costs more than it saves: to wake it, and to share caches
DRAWN = 20e-6  # seconds of work that a thread draws at once, at the least
PACE = 0.5e-9  # seconds for an element, before any have been timed
FASTEST = 1e-12  # of those that are believed: a clock may stand still
TIMED = 1 << 12  # elements up to which the clock is not looked at, and one thread takes them whatever they cost


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
    guess: Any,
) -> None:
    """Add the elements from start to stop of a chunk to a state, leaving its sums carried.

    `loss` is the formula, its parameters, and True or None: whether to omit elements with NaN. `guess` is what the
    last blocks needed, and is brought up to date: the windows of terms and of weights, and whether weights were cut
    twice. A wrong guess costs time only.
    """
    intrinsics.wide_vectors()
    terms, used_weights = room(BLOCK, float64), room(BLOCK, float64)
    tally = room(TALLY_WORDS, int64)
    tally[:] = 0
    weights_room, mask_room = scratch(weights), scratch(mask)
    term_sum = part(state, TERMS, TERMS + SUM_WORDS)
    weight_sum = part(state, WEIGHTS, WEIGHTS + SUM_WORDS)
    shared = is_shared(summed(weights, mask, loss[2], weights))
    term_window, weight_window = guess[0], I64(0) if shared else guess[1]
    weights_in_one_cut = guess[2] == 0  # as those of float32 mostly are, until a block does not fit
    before, summed_to = state[COUNT], start
    begin = end = start
    while end < stop:
        if end - summed_to >= SHARED_AT_ONCE:
            kept = state[COUNT] - before
            state[NONZERO] += add_shared(weights, mask, loss[2], summed_to, end, kept, weight_sum)
            before, summed_to = before + kept, end
        past = past_line(labels, end, is_in_vectors(weights) or is_in_vectors(mask))
        begin, end = end, smaller(end + BLOCK - past, stop)
        n = end - begin
        w, k = block(weights, begin, end, weights_room), block(mask, begin, end, mask_room)
        to_sum = summed(weights, mask, loss[2], w)
        elements = part(labels, begin, end), part(predictions, begin, end), w, k, to_sum
        if out is None and term_window != UNKNOWN and weight_window != UNKNOWN:
            windows = term_window, weight_window
            if add_quickly(loss, elements, windows, weights_in_one_cut, tally, state):
                continue
            weights_in_one_cut = False
        settle(tally, I64(0), term_window, term_sum)
        prepare(loss, elements, block(out, begin, end, None), terms, used_weights, state)
        term_window = add_exactly(part(terms, 0, n), term_sum, term_window)
        if not shared:
            settle(tally, I64(4), weight_window, weight_sum)
            weight_window = add_exactly(part(used_weights, 0, n), weight_sum, weight_window)
    settle(tally, I64(0), term_window, term_sum)
    guess[0] = term_window
    if not shared:
        settle(tally, I64(4), weight_window, weight_sum)
        guess[1], guess[2] = weight_window, not weights_in_one_cut
    state[NONZERO] += add_shared(weights, mask, loss[2], summed_to, stop, state[COUNT] - before, weight_sum)
    carry(term_sum)
    carry(weight_sum)


def accumulate_one(loss: Any, label: float, prediction: float, weight: float, state: Any) -> None:
    """Add one element to a state, leaving its sums carried."""
    formula, parameters, omit = loss
    if omit is not None and (label != label or prediction != prediction or weight != weight):
        state[SKIPPED] += 1
        return
    state[COUNT] += 1
    state[NONZERO] += weight != 0.0
    term_sum = part(state, TERMS, TERMS + SUM_WORDS)
    weight_sum = part(state, WEIGHTS, WEIGHTS + SUM_WORDS)
    deposit_float(term_sum, weight * evaluate(formula, label, prediction, parameters), I64(1))
    deposit_float(weight_sum, weight, I64(1))
    carry(term_sum)
    carry(weight_sum)


_sums = entries(accumulate, WORDS, WORDS)
_squares = entries(accumulate_squares, WORDS)
_one = scalar_entries(accumulate_one, WORDS)
_checked: set[str] = set()  # fingerprints of users' functions that have been compiled


class Adder:
    """Adds chunks to states: for one loss, and with or without the elements that have NaN.

    With `omit`, elements with a NaN among label, prediction and weight are left out and counted as skipped. The machine
    code that small updates need is kept at hand, and so is what the last update needed: the next one may be like it.
    """

    __slots__ = ("_guess", "_known", "_one", "_pace", "_recipe", "loss", "omit")

    def __init__(self, loss: Loss, omit: bool) -> None:
        self.loss, self.omit = loss, omit
        self._recipe = None, loss.values, omit or None
        self._known: dict[tuple[Any, ...], Entry] = {}
        self._one: Entry | None = None
        # Threads may overwrite each other's guess and pace: they affect speed only.
        self._guess = np.array([UNKNOWN, UNKNOWN, 0])
        self._pace = PACE

    def added(self, operands: Whole, state: Words) -> Words:
        """Return a new state: the given one and a chunk of whole arrays."""
        labels, predictions, weights, _, _, _, size = operands
        if len(state) != STATE_WORDS or (size > TIMED and size * self._pace > ALONE):
            return self.added_chunk(Direct(*operands[:5]), state)
        key = labels.dtype, predictions.dtype, None if weights is None else weights.dtype
        entry = self._known.get(key)
        if entry is None:
            entry = self._known[key] = _sums(self.loss, operands, self.omit)
        state = state.copy()
        begin = perf_counter() if size > TIMED else 0.0
        entry(self._recipe, *operands, state, self._guess)
        if size > TIMED:
            self._measured(perf_counter() - begin, size)
        return state

    def added_chunk(self, chunk: Chunk, state: Words) -> Words:
        """Return a new state: the given one and any chunk."""
        takes_long = chunk.size > TIMED and chunk.size * self._pace > ALONE
        threads = _threads.get_num_threads() if takes_long else 1
        pieces = chunk.pieces(threads, int(DRAWN / self._pace))
        if threads == 1:
            return self._add(chunk, pieces, pieces, state.copy())
        parts = _threads.share(pieces, lambda drawn: self._add(chunk, pieces, drawn, np.zeros(state.size, np.int64)))
        return combine(state, np.add.reduce(parts))

    def _add(self, chunk: Chunk, pieces: range, drawn: Iterable[int], state: Words) -> Words:
        """Add the drawn ones of a chunk's pieces to a state, and return it."""
        seconds, elements = 0.0, 0
        for piece in drawn:
            operands = chunk.operands(piece, pieces)
            add_sums = _sums(self.loss, operands, self.omit)
            add_squares = None if state.size == STATE_WORDS else _squares(self.loss, operands, self.omit)
            begin = perf_counter()
            add_sums(self._recipe, *operands, state, self._guess)
            if add_squares is not None:
                add_squares(self._recipe, *operands, state)
            seconds += perf_counter() - begin
            elements += operands[-1] - operands[-2]
            chunk.finish(piece, operands)
        if elements > TIMED or (drawn is not pieces and elements * len(pieces) >= chunk.size):  # a usual piece, or more
            self._measured(seconds, elements)
        return state

    def _measured(self, seconds: float, elements: int) -> None:
        """Take note of what elements have cost."""
        self._pace = max(FASTEST, seconds / max(elements, 1))

    def added_one(self, label: float, prediction: float, weight: float, state: Words) -> Words:
        """Return a new state: the given one and one element."""
        if len(state) != STATE_WORDS:
            return self.added((np.array([label]), np.array([prediction]), np.array([weight]), None, None, 0, 1), state)
        entry = self._one
        if entry is None:
            entry = self._one = _one(self.loss, self.omit)
        state = state.copy()
        entry(self._recipe, label, prediction, weight, state)
        return state


@cache
def of_losses(omit: bool) -> Adder:
    """Return the adder of losses that have been computed already."""
    return Adder(PRECOMPUTED, omit)


def check_formula(loss: Loss) -> None:
    """Compile a user's function by itself; TypeError, with Numba's reason, if that fails.

    Kernels will compile the function as it is now.
    """
    if loss.fingerprint in _checked:
        return
    try:
        _jit.check(form_of(loss), len(loss.values))
        _checked.add(loss.fingerprint)
    except Exception as error:  # Numba's own errors, and whatever else its compiler stumbles over
        raise TypeError(f"loss {loss.name} cannot be compiled by Numba: {error}") from None
