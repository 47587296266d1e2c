"""The CUDA kernels: one source, which the compiler specialises for a loss and the form of a chunk.

Every block of threads draws tiles of a chunk; a thread takes every THREADS-th element of a tile, its share. It cuts
the terms of a share at two places (`streamloss.error_free` says how), adds the parts as integers, and looks once at the
end whether all were inside their window and nothing was left. If so the sums go into its tallies; if not, it computes
this share again and adds term by term to the digits in the device's memory, by integer atomics. No thread waits for
another until all tiles are done; then the tallies of a block are added up, and its totals go to the digits.

The window is one for a block, from the largest term of its first tile. A thread that misses it twice in a row chooses
one for itself, and settles alone. All of it is addition of integers: no order, no rounding, the bits of the CPU.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda

from ..exact import (
    COUNT,
    DIGIT_BITS,
    DIGIT_MASK,
    FIRST_DIGIT,
    NONZERO,
    SKIPPED,
    STATE_WORDS,
    WEIGHT_SQUARES,
    WEIGHTS,
)
from .elements import LANES, SLOTS, Form, device, locator, reader, sum_locator, summands
from .numerics import (
    constants,
    decomposed,
    exponent_of,
    magnitude,
    misfit,
    parts_of_float,
    parts_of_integer,
    window_for,
)
from .shares import COUNTED, TALLY, clearer, rows_of, share_cutter, stasher, surveyor

# ------------------------------------------------------------------------------------------------ adding to memory


@device
def add_parts(words: Any, start: int, parts: Any) -> None:
    """Add the parts of a number to three words of a sum."""
    word = start + parts[0]
    if parts[1] != 0:
        cuda.atomic.add(words, word, parts[1])
    if parts[2] != 0:
        cuda.atomic.add(words, word + 1, parts[2])
    if parts[3] != 0:
        cuda.atomic.add(words, word + 2, parts[3])


@device
def add_times(words: Any, start: int, value: float, times: int) -> None:
    """Add value * times to a sum."""
    kind, fraction, exponent = decomposed(value)
    if kind < FIRST_DIGIT:
        cuda.atomic.add(words, start + kind, times)
    else:
        add_parts(words, start, parts_of_integer((fraction & DIGIT_MASK) * times, exponent))
        add_parts(words, start, parts_of_integer((fraction >> DIGIT_BITS) * times, exponent + DIGIT_BITS))


# ------------------------------------------------------------------------------------------------ a block's rows


def row_reducer(threads: int, combine: Any) -> tuple[Any, Any]:
    """Return two functions that reduce rows of numbers, one number from each thread of a block, by `combine`.

    The first is for all threads together and leaves LANES numbers of every row; the second makes those of a row one.
    """
    in_lane = threads // LANES

    @device
    def reduce_to_lanes(shared: Any, lanes: Any, rows: int) -> None:
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, rows * LANES, threads):
            result = 0
            for j in range(in_lane):
                result = combine(result, shared[i // LANES * threads + i % LANES + j * LANES])
            lanes[i] = result
        cuda.syncthreads()

    @device
    def reduce_lanes(lanes: Any, row: int) -> int:
        result = 0
        for j in range(LANES):
            result = combine(result, lanes[row * LANES + j])
        return result

    return reduce_to_lanes, reduce_lanes


def window_chooser(form: Form) -> Any:
    """Return a function that chooses the windows of a block by the largest magnitudes that its threads have found."""
    threads, sums = form.threads, form.sums
    reduce_to_lanes, reduce_lanes = row_reducer(threads, max)

    @device
    def choose_windows(tops: Any, shared: Any, lanes: Any, common: Any) -> None:
        for s in range(sums):
            shared[s * threads + cuda.threadIdx.x] = tops[s]
        reduce_to_lanes(shared, lanes, sums)
        for s in range(cuda.threadIdx.x, sums, threads):
            common[s] = window_for(reduce_lanes(lanes, s))
        cuda.syncthreads()

    return choose_windows


def block_settler(form: Form) -> Any:
    """Return a function that adds up the tallies and the counts of a block's threads, and adds them to the state."""
    place_of, add_shared_weight = sum_locator(form), shared_weight_adder(form)
    threads, tally_rows, rows, counting = form.threads, TALLY * form.sums, rows_of(form), not form.squares
    reduce_to_lanes, reduce_lanes = row_reducer(threads, operator.add)

    @device
    def settle_block(
        operands: Any, tallies: Any, totals: Any, shared: Any, lanes: Any, common: Any, words: Any, slot: int
    ) -> None:
        thread = cuda.threadIdx.x
        for i in range(tally_rows):
            shared[i * threads + thread] = tallies[i]
        if counting:
            for i in range(COUNTED):
                shared[(tally_rows + i) * threads + thread] = totals[i]
        reduce_to_lanes(shared, lanes, rows)
        for row in range(thread, rows, threads):
            total = reduce_lanes(lanes, row)
            if row < tally_rows:
                s = row // TALLY
                exponent = exponent_of(common[s], row % TALLY)
                add_parts(words, place_of(slot, s), parts_of_integer(total, exponent))
            elif row == tally_rows:
                cuda.atomic.add(words, slot + COUNT, total)
                add_shared_weight(operands, total, words, slot)
            elif row == tally_rows + 1:
                cuda.atomic.add(words, slot + NONZERO, total)
            else:
                cuda.atomic.add(words, slot + SKIPPED, total)

    return settle_block


def shared_weight_adder(form: Form) -> Any:
    """Return a function that adds a weight that all elements share, as many times as elements were kept."""
    weights_shared = not form.squares and form.weights in ("", "1")
    count_squares = form.words != STATE_WORDS and form.weights == ""  # whose squares are 1

    if form.weights == "1":

        @device
        def shared_weight(operands: Any) -> float:
            return operands[2]
    else:

        @device
        def shared_weight(operands: Any) -> float:
            return 1.0

    @device
    def add_shared_weight(operands: Any, kept: int, words: Any, slot: int) -> None:
        if weights_shared and kept != 0:
            add_times(words, slot + WEIGHTS, shared_weight(operands), kept)
            if count_squares:
                add_times(words, slot + WEIGHT_SQUARES, 1.0, kept)

    return add_shared_weight


# ------------------------------------------------------------------------------------------------ a thread's shares


def share_adder(form: Form, formula: Any) -> Any:
    """Return a function that adds a share to the state term by term, and finds its largest finite magnitudes."""
    read, values_of, place_of = reader(form._replace(out=""), formula), summands(form), sum_locator(form)
    threads, sums = form.threads, form.sums

    @device
    def add_share(chunk: Any, begin: int, count: int, words: Any, slot: int, tops: Any) -> None:
        for s in range(sums):
            tops[s] = 0
        for k in range(count):
            term, weight, _, _ = read(chunk, begin + k * threads)
            values = values_of(term, weight)
            for s in range(sums):
                add_parts(words, place_of(slot, s), parts_of_float(values[s]))
                tops[s] = max(tops[s], magnitude(values[s]))

    return add_share


def thread_settler(form: Form) -> Any:
    """Return a function that moves a thread's tallies of one sum to the state."""
    place_of = sum_locator(form)

    @device
    def settle_sum(s: int, windows: Any, tallies: Any, words: Any, slot: int) -> None:
        for i in range(TALLY):
            parts = parts_of_integer(tallies[TALLY * s + i], exponent_of(windows[s], i))
            add_parts(words, place_of(slot, s), parts)
            tallies[TALLY * s + i] = 0

    return settle_sum


# ------------------------------------------------------------------------------------------------ the kernels


def kernel(form: Form, formula: Any) -> Callable[..., None]:
    """Return a kernel as a Python function, to be compiled or simulated; `formula` is compiled already."""
    survey, cut_share, add_share = surveyor(form, formula), share_cutter(form, formula), share_adder(form, formula)
    clear, stash, settle_sum = clearer(form), stasher(form), thread_settler(form)
    choose_windows, settle_block = window_chooser(form), block_settler(form)
    threads, share, tile, sums, state_words = form.threads, form.share, form.tile, form.sums, form.words
    pairs, tally_rows, room, lane_room = 2 * sums, TALLY * sums, rows_of(form) * threads, rows_of(form) * LANES

    def add(operands: Any, geometry: Any, parameters: Any, origin: int, size: int, words: Any) -> None:
        shared = cuda.shared.array(room, np.int64)
        lanes = cuda.shared.array(lane_room, np.int64)
        common = cuda.shared.array(sums, np.int64)  # the windows of the block
        windows = cuda.local.array(sums, np.int64)  # those of the thread
        cuts = cuda.local.array(pairs, np.float64)  # two constants for each window
        tallies = cuda.local.array(tally_rows, np.int64)
        totals = cuda.local.array(COUNTED, np.int64)
        found = cuda.local.array(pairs, np.int64)  # the upper and lower parts of a share, for each sum
        counts = cuda.local.array(COUNTED, np.int64)
        tops = cuda.local.array(sums, np.int64)  # the largest magnitudes of a share
        chunk = operands, geometry, parameters
        slot = cuda.blockIdx.x % SLOTS * state_words
        first = origin + cuda.blockIdx.x * tile + cuda.threadIdx.x

        survey(chunk, first, min(max((size - first + threads - 1) // threads, 0), share), tops)
        choose_windows(tops, shared, lanes, common)
        clear(tallies, totals)
        for s in range(sums):
            windows[s] = common[s]
            cuts[2 * s], cuts[2 * s + 1] = constants(windows[s])
        own = missed = False
        for begin in range(first, size, cuda.gridDim.x * tile):
            count = min((size - begin + threads - 1) // threads, share)
            if count == share:
                wrong = cut_share(chunk, begin, None, cuts, found, counts)
            else:
                wrong = cut_share(chunk, begin, count, cuts, found, counts)
            for i in range(COUNTED):
                totals[i] += counts[i]
            if wrong == 0:
                stash(found, tallies)
                missed = False
                continue
            add_share(chunk, begin, count, words, slot, tops)
            if missed:
                for s in range(sums):
                    if misfit(windows[s], tops[s]):
                        settle_sum(s, windows, tallies, words, slot)
                        windows[s] = window_for(tops[s])
                        cuts[2 * s], cuts[2 * s + 1] = constants(windows[s])
                        own = True
            missed = True
        if own:
            for s in range(sums):
                settle_sum(s, windows, tallies, words, slot)
        settle_block(operands, tallies, totals, shared, lanes, common, words, slot)

    return add


def grouped(form: Form, formula: Any) -> Callable[..., None]:
    """Return a kernel that adds each element to the state of its group, number by number, as a Python function.

    Its `words` are `copies` copies of the states of all groups; every block adds to one of them.
    """
    read, values_of, at, place_of = reader(form, formula), summands(form), locator(form), sum_locator(form)
    sums, state_words, counting = form.sums, form.words, not form.squares

    def add(
        operands: Any, geometry: Any, parameters: Any, origin: int, size: int, words: Any, groups: int, copies: int
    ) -> None:
        copy = cuda.blockIdx.x % copies * groups
        first, step = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.gridDim.x * cuda.blockDim.x
        for position in range(origin + first, size, step):
            term, weight, here, keep = read((operands[:5], geometry[:6], parameters), position)
            start = (copy + operands[5][at(position, geometry[0], geometry[6])]) * state_words
            if keep:
                values = values_of(term, weight)
                for s in range(sums):
                    add_parts(words, place_of(start, s), parts_of_float(values[s]))
            if counting:
                if keep:
                    cuda.atomic.add(words, start + COUNT, 1)
                    if weight != 0.0:
                        cuda.atomic.add(words, start + NONZERO, 1)
                elif here:
                    cuda.atomic.add(words, start + SKIPPED, 1)

    return add
