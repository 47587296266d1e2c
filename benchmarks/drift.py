"""The error of metrics that are fed batches, against the number of elements so far.

A running error crosses zero now and then, so what counts is the largest since the last power of two.
"""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np

from . import exactly
from .machine import Array
from .plan import Plan, Row, Rows, progress
from .report import pivot, table
from .streams import STREAMS, Kind

TITLE = "Error against the number of elements"
BATCH = 256
PATIENCE = 20.0  # seconds for each library; what it has not reached by then is left out


def run(plan: Plan) -> Rows:
    """Relative errors of the mean squared error of float32 pairs in batches of 256, for every power of two."""
    size = plan.pick(1 << 12, 1 << 25)
    rng = np.random.default_rng(23)
    labels = rng.standard_normal(size, dtype=np.float32)
    predictions = labels + rng.standard_normal(size, dtype=np.float32)
    exact = _prefixes(labels, predictions)
    for kind in STREAMS:
        if kind.takes == "floats" or kind.name == "streamloss, torch tensors":
            continue
        progress(f"drift: {kind.name}")
        try:
            for elements, error in _errors(kind, labels, predictions, exact):
                assert error <= (2.0**-53 if kind.name == "streamloss" else 1e-2), f"{kind.name} is off by {error}"
                yield {"elements": elements, "library": kind.name, "relative error": error}
        except Exception as error:  # another library's: to be reported, and the others measured
            if kind.name == "streamloss":
                raise
            yield {"elements": size, "library": kind.name, "failure": f"{type(error).__name__}: {error}"[:200]}


def _prefixes(labels: Array, predictions: Array) -> dict[int, Fraction]:
    """The exact mean of the first elements, at the first 1024 and then four times until the number has doubled."""
    means, total, begin = {}, 0, 0
    ends = {(1 << power) * eighths // 8 for power in range(10, labels.size.bit_length()) for eighths in range(5, 9)}
    for end in sorted(end for end in ends if end % BATCH == 0):
        losses = np.square(predictions[begin:end].astype(np.float64) - labels[begin:end])
        total += exactly.total(losses)
        means[end] = Fraction(total, end << 1074)
        begin = end
    return means


def _errors(kind: Kind, labels: Array, predictions: Array, exact: dict[int, Fraction]) -> list[tuple[int, float]]:
    """For every power of two, the largest error since the last one."""
    stream = kind.make()
    found: dict[int, float] = {}
    y, p = kind.convert(labels, predictions)
    until = time.monotonic() + PATIENCE
    for begin in range(0, labels.size, BATCH):
        end = begin + BATCH
        stream.update(y[begin:end], p[begin:end])
        if end in exact:
            octave = 1 << (end - 1).bit_length()
            found[octave] = max(found.get(octave, 0.0), float(abs(Fraction(stream.result()) / exact[end] - 1)))
        if time.monotonic() > until:
            break
    return [(octave, error) for octave, error in found.items() if octave <= end]  # the last may be incomplete


def show(rows: list[Row]) -> str:
    """Relative errors, a row for each number of elements."""
    return table(pivot(rows, "elements", "library", "relative error"))
