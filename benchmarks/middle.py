"""From 4 thousand to 4 million elements: an update against the better of its serial and its parallel kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import streamloss
from streamloss.cpu import updates

from .machine import time_short
from .plan import Plan, Row, Rows, progress
from .report import table
from .workloads import Workload

TITLE = "Middle sizes"


def run(plan: Plan) -> Rows:
    """One row for each dtype and size: microseconds of the update, and its time over the better of the two."""
    for dtype in (np.float32, np.float64):
        workload = Workload(dtype.__name__, dtype)
        for power in plan.pick((12, 18), tuple(range(12, 23))):
            progress(f"middle: {workload.name}, {1 << power} elements")
            arrays = workload.arrays((2 << power) * np.dtype(dtype).itemsize / 1e6)
            accumulator = streamloss.Accumulator()
            update = partial(accumulator.update, arrays["labels"], arrays["predictions"])
            calls: dict[str, Callable[[], Any]] = {
                "update": update,
                "serial": partial(_serial, update),
                "parallel": partial(_parallel, update),
            }
            for call in calls.values():
                call()
                assert accumulator.result("mean") == workload.answer(arrays)
            seconds = time_short(calls, plan.pick(1, 15), plan.pick(1e-4, 0.01))
            yield {
                "dtype": workload.name,
                "elements": 1 << power,
                **{f"{name}, us": time * 1e6 for name, time in seconds.items()},
                "time / the better": seconds["update"] / min(seconds["serial"], seconds["parallel"]),
            }


def _serial(update: Callable[[], Any]) -> None:
    streamloss.set_num_threads(1)
    try:
        update()
    finally:
        streamloss.set_num_threads(None)


def _parallel(update: Callable[[], Any]) -> None:
    """With the switches at 0, so that every update is shared among all threads."""
    before = updates.TIMED, updates.ALONE, updates.DRAWN
    updates.TIMED, updates.ALONE, updates.DRAWN = 0, 0.0, 0.0
    try:
        update()
    finally:
        updates.TIMED, updates.ALONE, updates.DRAWN = before


def show(rows: list[Row]) -> str:
    """The rows as they are, and the worst."""
    worst = max(row["time / the better"] for row in rows)
    return f"{table(rows)}\n\nAt worst {worst:.2f} times the better kernel."
