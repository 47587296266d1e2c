"""The CUDA kernels: one source, which the compiler specialises for a loss and the form of a chunk.

Every block of threads draws tiles of a chunk; a thread takes every THREADS-th element of a tile, its share. It cuts
the terms of a share at two places (`streamloss.blocks` says how), adds the parts as integers, and looks once at the
end whether all were inside their window and nothing was left. If so the sums go into its tallies; if not, it computes
this share again and adds term by term to the digits in the device's memory, by integer atomics. No thread waits for
another until all tiles are done; then the tallies of a block are added up, and its totals go to the digits.

The window is one for a block, from the largest term of its first tile. A thread that misses it twice in a row chooses
one for itself, and settles alone. All of it is addition of integers: no order, no rounding, the bits of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda

from ..exact import (
    COUNT,
    COUNTS,
    DIGIT_BITS,
    DIGIT_MASK,
    FIRST_DIGIT,
    NONZERO,
    SKIPPED,
    STATE_WORDS,
    SUM_WORDS,
    WEIGHT_SQUARES,
    WEIGHTS,
)
from .elements import LANES, SLOTS, Form, device, locator, reader, summands
from .numerics import (
    constants,
    cut,
    decomposed,
    exponent_of,
    magnitude,
    misfit,
    parts_of_float,
    parts_of_integer,
    plus,
    window_for,
)

TALLY = 4  # words: the upper parts and the lower parts of terms, each in two so that many sums fit


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
def settle(words: Any, start: int, window: int, tallies: Any, tally: int) -> None:
    """Move a thread's tally into its sum."""
    for i in range(TALLY):
        add_parts(words, start, parts_of_integer(tallies[TALLY * tally + i], exponent_of(window, i)))
        tallies[TALLY * tally + i] = 0


@device
def add_times(words: Any, start: int, value: float, times: int) -> None:
    """Add value * times to a sum."""
    kind, fraction, exponent = decomposed(value)
    if kind < FIRST_DIGIT:
        cuda.atomic.add(words, start + kind, times)
    else:
        add_parts(words, start, parts_of_integer((fraction & DIGIT_MASK) * times, exponent))
        add_parts(words, start, parts_of_integer((fraction >> DIGIT_BITS) * times, exponent + DIGIT_BITS))


# ------------------------------------------------------------------------------------------------ the kernel


def kernel(form: Form, formula: Any) -> Callable[..., None]:
    """The Python source of a kernel, to be compiled or simulated, for a scalar function that is compiled already."""
    read, read_and_write, values_of = reader(form._replace(out=""), formula), reader(form, formula), summands(form)
    threads, share, sums = form.threads, form.share, form.sums
    counting, first_start, per_start = not form.squares, form.start, 2 if form.squares else 1
    pairs, tally_rows = 2 * sums, TALLY * sums
    rows = tally_rows + (3 if counting else 0)
    room, lane_room, in_lane = rows * threads, rows * LANES, threads // LANES
    weights_shared = counting and form.weights in ("", "1")
    count_squares = form.words != STATE_WORDS and form.weights == ""  # whose squares are 1
    state_words = form.words

    # Loops over `count` elements stay loops; with None, which is a full share, they are unrolled, so that all of a
    # share is read before the first of it is needed.

    @device
    def survey(operands: Any, geometry: Any, parameters: Any, begin: int, count: int, tops: Any) -> None:
        """Find the largest finite magnitudes of a share."""
        for s in range(sums):
            tops[s] = 0
        for k in range(count):
            term, weight, _, _ = read(operands, geometry, parameters, begin + k * threads)
            values = values_of(term, weight)
            for s in range(sums):
                tops[s] = max(tops[s], magnitude(values[s]))

    @device
    def cut_share(
        operands: Any, geometry: Any, parameters: Any, begin: int, count: Any, cuts: Any, found: Any, counts: Any
    ) -> int:
        """Cut the terms of a share and add the parts; 0 if all of them fitted."""
        for i in range(pairs):
            found[i] = 0
        wrong = present = kept = nonzero = 0
        for k in range(share if count is None else count):
            term, weight, here, keep = read_and_write(operands, geometry, parameters, begin + k * threads)
            values = values_of(term, weight)
            for s in range(sums):
                upper, lower, misfits = cut(values[s], cuts[2 * s], cuts[2 * s + 1])
                found[2 * s] = plus(found[2 * s], upper)
                found[2 * s + 1] = plus(found[2 * s + 1], lower)
                wrong |= misfits
            present += here
            kept += keep
            nonzero += keep & (weight != 0.0)
        counts[0], counts[1], counts[2] = kept, nonzero, present - kept
        return wrong

    @device
    def add_share(
        operands: Any, geometry: Any, parameters: Any, begin: int, count: int, words: Any, slot: int, tops: Any
    ) -> None:
        """Add the terms of a share one by one."""
        for s in range(sums):
            tops[s] = 0
        for k in range(count):
            term, weight, _, _ = read(operands, geometry, parameters, begin + k * threads)
            values = values_of(term, weight)
            for s in range(sums):
                add_parts(words, slot + first_start + s // per_start * SUM_WORDS, parts_of_float(values[s]))
                tops[s] = max(tops[s], magnitude(values[s]))

    if form.weights == "1":

        @device
        def shared_weight(operands: Any) -> float:
            return operands[2]
    else:

        @device
        def shared_weight(operands: Any) -> float:
            return 1.0

    def add(operands: Any, geometry: Any, parameters: Any, origin: int, size: int, words: Any) -> None:
        thread = cuda.threadIdx.x
        slot = cuda.blockIdx.x % SLOTS * state_words
        shared = cuda.shared.array(room, np.int64)
        lanes = cuda.shared.array(lane_room, np.int64)
        common = cuda.shared.array(sums, np.int64)  # the windows of the block
        tallies = cuda.local.array(tally_rows, np.int64)
        found = cuda.local.array(pairs, np.int64)
        counts = cuda.local.array(3, np.int64)
        totals = cuda.local.array(3, np.int64)
        tops = cuda.local.array(sums, np.int64)
        windows = cuda.local.array(sums, np.int64)
        cuts = cuda.local.array(pairs, np.float64)
        first = origin + cuda.blockIdx.x * share * threads + thread

        survey(operands, geometry, parameters, first, min(max((size - first + threads - 1) // threads, 0), share), tops)
        for s in range(sums):
            shared[s * threads + thread] = tops[s]
        cuda.syncthreads()
        for i in range(thread, sums * LANES, threads):
            top = 0
            for j in range(in_lane):
                top = max(top, shared[i // LANES * threads + i % LANES + j * LANES])
            lanes[i] = top
        cuda.syncthreads()
        for s in range(thread, sums, threads):
            top = 0
            for j in range(LANES):
                top = max(top, lanes[s * LANES + j])
            common[s] = window_for(top)
        cuda.syncthreads()
        for s in range(sums):
            windows[s] = common[s]
            cuts[2 * s], cuts[2 * s + 1] = constants(windows[s])
        for i in range(tally_rows):
            tallies[i] = 0
        for i in range(3):
            totals[i] = 0

        own = missed = False
        for begin in range(first, size, cuda.gridDim.x * share * threads):
            count = min((size - begin + threads - 1) // threads, share)
            if count == share:
                wrong = cut_share(operands, geometry, parameters, begin, None, cuts, found, counts)
            else:
                wrong = cut_share(operands, geometry, parameters, begin, count, cuts, found, counts)
            for i in range(3):
                totals[i] += counts[i]
            if wrong == 0:
                for i in range(pairs):
                    tallies[2 * i] += found[i] & DIGIT_MASK
                    tallies[2 * i + 1] += found[i] >> DIGIT_BITS
                missed = False
                continue
            add_share(operands, geometry, parameters, begin, count, words, slot, tops)
            if missed:
                for s in range(sums):
                    if misfit(windows[s], tops[s]):
                        start = slot + first_start + s // per_start * SUM_WORDS
                        settle(words, start, windows[s], tallies, s)
                        windows[s] = window_for(tops[s])
                        cuts[2 * s], cuts[2 * s + 1] = constants(windows[s])
                        own = True
            missed = True

        if own:
            for s in range(sums):
                settle(words, slot + first_start + s // per_start * SUM_WORDS, windows[s], tallies, s)
        for i in range(tally_rows):
            shared[i * threads + thread] = tallies[i]
        if counting:
            for i in range(3):
                shared[(tally_rows + i) * threads + thread] = totals[i]
        cuda.syncthreads()
        for i in range(thread, rows * LANES, threads):
            total = 0
            for j in range(in_lane):
                total += shared[i // LANES * threads + i % LANES + j * LANES]
            lanes[i] = total
        cuda.syncthreads()
        for row in range(thread, rows, threads):
            total = 0
            for j in range(LANES):
                total += lanes[row * LANES + j]
            if row < tally_rows:
                s = row // TALLY
                exponent = exponent_of(common[s], row % TALLY)
                add_parts(words, slot + first_start + s // per_start * SUM_WORDS, parts_of_integer(total, exponent))
            elif row == tally_rows:
                cuda.atomic.add(words, slot + COUNT, total)
                if weights_shared and total != 0:
                    add_times(words, slot + WEIGHTS, shared_weight(operands), total)
                    if count_squares:
                        add_times(words, slot + WEIGHT_SQUARES, 1.0, total)
            elif row == tally_rows + 1:
                cuda.atomic.add(words, slot + NONZERO, total)
            else:
                cuda.atomic.add(words, slot + SKIPPED, total)

    return add


def grouped(form: Form, formula: Any) -> Callable[..., None]:
    """The Python source of the kernel that adds each element to the state of its group, number by number.

    `words` holds copies of the states of so many groups; the blocks share them out.
    """
    read, values_of, at = reader(form, formula), summands(form), locator(form)
    sums, first_start, per_start, state_words = form.sums, form.start, 2 if form.squares else 1, form.words
    counting = not form.squares

    def add(
        operands: Any, geometry: Any, parameters: Any, origin: int, size: int, words: Any, groups: int, copies: int
    ) -> None:
        copy = cuda.blockIdx.x % copies * groups
        first, step = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.gridDim.x * cuda.blockDim.x
        for position in range(origin + first, size, step):
            term, weight, here, keep = read(operands[:5], geometry[:6], parameters, position)
            start = (copy + operands[5][at(position, geometry[0], geometry[6])]) * state_words
            if keep:
                values = values_of(term, weight)
                for s in range(sums):
                    add_parts(words, start + first_start + s // per_start * SUM_WORDS, parts_of_float(values[s]))
            if counting:
                if keep:
                    cuda.atomic.add(words, start + COUNT, 1)
                    if weight != 0.0:
                        cuda.atomic.add(words, start + NONZERO, 1)
                elif here:
                    cuda.atomic.add(words, start + SKIPPED, 1)

    return add


def carry_slots(words: Any, sums: int) -> None:
    """Carry the sums in all slots, each by one thread, by additions alone: others may add at the same time."""
    first, step = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.gridDim.x * cuda.blockDim.x
    for number in range(first, SLOTS * sums, step):
        start = number // sums * (COUNTS + sums * SUM_WORDS) + COUNTS + number % sums * SUM_WORDS
        for i in range(start + FIRST_DIGIT, start + SUM_WORDS - 1):
            over = words[i] >> DIGIT_BITS
            if over != 0:
                cuda.atomic.add(words, i, -(over << DIGIT_BITS))
                cuda.atomic.add(words, i + 1, over)


def move_words(source: Any, target: Any, size: int) -> None:
    """Add words to others, and leave zeros."""
    first, step = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.gridDim.x * cuda.blockDim.x
    for i in range(first, size, step):
        word = source[i]
        if word != 0:
            cuda.atomic.add(target, i, word)
            source[i] = 0
