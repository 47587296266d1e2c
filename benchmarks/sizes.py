"""The fraction of the roof against the size of an update, from a thousand pairs to 64 million.

Of streamloss there are an update of an accumulator, as in a loop over batches, and what the others are: a call that
begins with nothing and ends with the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import streamloss

from .large import ready
from .machine import read_all, read_alone, time_short
from .plan import Plan, Row, Rows, progress
from .report import pivot, table
from .rivals import RIVALS
from .workloads import Arrays, Workload

TITLE = "Fraction of the roof against size"
SHOWN = (
    "streamloss",
    "NumPy, in blocks",
    "NumPy, as most write it",
    "torch",
    "Polars",
    "DuckDB",
    "scikit-learn",
    "torchmetrics",
    "keras",
)


def run(plan: Plan) -> Rows:
    """One row for each size and library; the roof is that of one thread or of all, whichever is higher."""
    workload = Workload("float32", np.float32)
    rivals = [rival for rival in RIVALS if rival.name in SHOWN]
    for power in plan.pick((10, 14), tuple(range(10, 27, 2))):
        size = 1 << power
        progress(f"sizes: {size} pairs")
        arrays = workload.arrays(size * 8 / 1e6)
        exact = workload.answer(arrays)
        every = list(arrays.values())
        calls: dict[str, Callable[[], Any]] = {
            "read": partial(read_all, every),
            "read alone": partial(read_alone, every),
            "streamloss, update": _update(arrays, exact),
        }
        for rival in rivals:
            call, failure = ready(rival, arrays, exact)
            if call is None:
                yield {"elements": size, "library": rival.name, "failure": failure}
            else:
                calls["streamloss, one shot" if rival.name == "streamloss" else rival.name] = call
        seconds = time_short(calls, plan.pick(1, 9), plan.pick(1e-4, 0.01))
        read = min(seconds.pop("read"), seconds.pop("read alone"))
        for name, time in seconds.items():
            yield {"elements": size, "library": name, "microseconds": time * 1e6, "of the roof": read / time}


def _update(arrays: Arrays, exact: float) -> Callable[[], Any]:
    """An update of an accumulator; however often the same pairs are added, their mean stays what it is."""
    accumulator = streamloss.Accumulator()
    call = partial(accumulator.update, arrays["labels"], arrays["predictions"])
    for _ in range(3):
        call()
        assert accumulator.result("mean") == exact
    return call


def show(rows: list[Row]) -> str:
    """Fractions, a row for each size."""
    return table(pivot(rows, "elements", "library", "of the roof"))
