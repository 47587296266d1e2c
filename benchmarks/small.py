"""What a small update costs, beside other metrics that are fed batches; and what of it depends on the size."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import streamloss

from . import exactly
from .machine import Array, time_short
from .plan import Plan, Row, Rows, progress
from .report import pivot, table
from .streams import STREAMS, Kind

TITLE = "Small updates"
BATCH = 32
GROUPS = 4
KEYS: dict[str, Callable[[Array], Any]] = {
    "integer keys": lambda codes: codes,
    "keys of text": lambda codes: [f"group {code}" for code in codes.tolist()],
}
WHAT = ("update", "update, weights", "result")


def run(plan: Plan) -> Rows:
    """Microseconds per call, one row for each library and kind of call; then Python's own work for each size."""
    _splitting_changes_nothing()
    calls: dict[tuple[str, str, int], Callable[[], object]] = {}
    for kind in STREAMS:
        progress(f"small: {kind.name}")
        batch = 1 if kind.takes == "floats" else BATCH
        try:
            calls |= {(kind.name, what, batch): call for what, call in _calls(kind, batch).items()}
        except Exception as error:  # another library's: to be reported, and the others measured
            if kind.name.startswith("streamloss"):
                raise
            yield {"library": kind.name, "what": "update", "failure": f"{type(error).__name__}: {error}"[:200]}
    for name in KEYS:
        library = f"GroupedAccumulator, {GROUPS} groups, {name}"
        progress(f"small: {library}")
        calls |= {(library, what, BATCH): call for what, call in _calls_of_groups(name).items()}
    named = {" | ".join(map(str, key)): call for key, call in calls.items()}
    # A millisecond fits between two interruptions by whatever else the machine does; ten seldom do.
    seconds = time_short(named, plan.pick(1, 200), plan.pick(1e-4, 0.001))
    for (name, what, batch), key in zip(calls, named, strict=True):
        yield {"library": name, "pairs": batch, "what": what, "microseconds": seconds[key] * 1e6}
    progress("small: Python's own work")
    for size in plan.pick((1, 1000), (1, 32, 1000, 30_000, 1_000_000)):
        yield {"elements": size, "Python and C calls in an update": calls_of_python(size)}


def _calls(kind: Kind, batch: int) -> dict[str, Callable[[], object]]:
    """The calls to be timed, after their answers have been asserted."""
    rng = np.random.default_rng(1)
    y, p, w = (rng.random(batch, dtype=np.float32) for _ in range(3))
    calls: dict[str, Callable[[], object]] = {}
    for weights in (None, w) if kind.weights else (None,):
        stream = kind.make()
        arrays = kind.convert(y, p, *(() if weights is None else (weights,)))
        stream.update(*arrays)
        exact, result = exactly.squared_error(y, p, weights), stream.result()
        tolerance = 0.0 if kind.name.startswith("streamloss") else 1e-5
        assert abs(result - exact) <= tolerance * exact, f"{kind.name} answers {result!r}, not {exact!r}"
        calls["update" if weights is None else "update, weights"] = partial(stream.update, *arrays)
        calls["result"] = stream.result
    return calls


def _calls_of_groups(name: str) -> dict[str, Callable[[], object]]:
    """The same calls for rows of groups, whose answers are asserted group by group."""
    rng = np.random.default_rng(3)
    y, p, w = (rng.random(BATCH, dtype=np.float32) for _ in range(3))
    codes = rng.permutation(np.arange(BATCH) % GROUPS)
    by = KEYS[name](codes)
    calls: dict[str, Callable[[], object]] = {}
    for what, weights in {"update": (), "update, weights": (w,)}.items():
        accumulator = streamloss.GroupedAccumulator().update(y, p, *weights, by=by)
        for code in range(GROUPS):
            rows = codes == code
            exact = exactly.squared_error(y[rows], p[rows], *(weight[rows] for weight in weights))
            result = accumulator.result("mean")[KEYS[name](codes[rows])[0]]
            assert result == exact, f"group {code} answers {result!r}, not {exact!r}"
        calls[what] = partial(accumulator.update, y, p, *weights, by=by)
        calls["result"] = partial(accumulator.result, "mean")
    return calls


def _splitting_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    y, p = rng.random(BATCH, dtype=np.float32), rng.random(BATCH, dtype=np.float32)
    one_by_one = streamloss.Accumulator()
    for i in range(BATCH):
        one_by_one.update(y[i], p[i])
    assert one_by_one == streamloss.Accumulator().update(y, p)


def calls_of_python(size: int) -> int:
    """How many functions the calling thread calls in one update of this many float32 pairs, by Python's profiler."""
    y, p = np.zeros((2, size), np.float32)
    accumulator = streamloss.Accumulator().update(y, p)
    count = 0

    def seen(_frame: object, event: str, _what: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    accumulator.update(y, p)
    sys.setprofile(None)
    return count - 1  # without setprofile itself


def in_brief(row: Row) -> bool:
    """Whether the README shows it: not what says nothing to users."""
    return "elements" not in row


def show(rows: list[Row]) -> str:
    """Microseconds, a row for each library; then calls for each size."""
    timed = [
        row | {"": f"{row['library']}: {row['pairs']} pair{'s' * (row['pairs'] > 1)}"} for row in rows if "pairs" in row
    ]
    timed.sort(key=lambda row: WHAT.index(row["what"]))
    counted = [row for row in rows if "elements" in row]
    parts = ["Microseconds per call:", table(pivot(timed, "", "what", "microseconds"))]
    return "\n\n".join([*parts, table(counted)] if counted else parts)
