"""What a thread of a CUDA kernel does by itself: it reads its share of a tile, cuts the terms, and keeps tallies.

No memory is touched here that threads share.
"""

from __future__ import annotations

from typing import Any

from ..exact import DIGIT_BITS, DIGIT_MASK
from .elements import Form, device, reader, summands
from .numerics import cut, magnitude, plus

TALLY = 4  # words of a sum: the upper parts and the lower parts of terms, each in two so that many fit
COUNTED = 3  # counts of a share: elements that are kept, those of them with a weight other than 0, and skipped ones


def rows_of(form: Form) -> int:
    """Return how many numbers a thread keeps until its block is done: tallies, and counts unless it adds squares."""
    return TALLY * form.sums + (0 if form.squares else COUNTED)


def surveyor(form: Form, formula: Any) -> Any:
    """Return a function that finds the largest finite magnitudes of a share, one for each sum."""
    read, values_of = reader(form._replace(out=""), formula), summands(form)
    threads, sums = form.threads, form.sums

    @device
    def survey(chunk: Any, begin: int, count: int, tops: Any) -> None:
        for s in range(sums):
            tops[s] = 0
        for k in range(count):
            term, weight, _, _ = read(chunk, begin + k * threads)
            values = values_of(term, weight)
            for s in range(sums):
                tops[s] = max(tops[s], magnitude(values[s]))

    return survey


def share_cutter(form: Form, formula: Any) -> Any:
    """Return a function that cuts the terms of a share and adds up the parts; it returns 0 if all of them fitted.

    With a `count` its loop stays a loop; with None, which is a full share, it is unrolled, so that all of a share is
    read before the first of it is needed.
    """
    read, values_of = reader(form, formula), summands(form)
    threads, share, sums = form.threads, form.share, form.sums
    pairs = 2 * sums

    @device
    def cut_share(chunk: Any, begin: int, count: Any, cuts: Any, found: Any, counts: Any) -> int:
        for i in range(pairs):
            found[i] = 0
        wrong = present = kept = nonzero = 0
        for k in range(share if count is None else count):
            term, weight, here, keep = read(chunk, begin + k * threads)
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

    return cut_share


def clearer(form: Form) -> Any:
    """Return a function that sets a thread's tallies and counts to zero."""
    tally_rows = TALLY * form.sums

    @device
    def clear(tallies: Any, totals: Any) -> None:
        for i in range(tally_rows):
            tallies[i] = 0
        for i in range(COUNTED):
            totals[i] = 0

    return clear


def stasher(form: Form) -> Any:
    """Return a function that adds what was found in a share, an upper and a lower part for each sum, to the tallies."""
    pairs = 2 * form.sums

    @device
    def stash(found: Any, tallies: Any) -> None:
        for i in range(pairs):
            tallies[2 * i] += found[i] & DIGIT_MASK
            tallies[2 * i + 1] += found[i] >> DIGIT_BITS

    return stash
