"""That time per element and memory do not grow with the number of elements; and a merge of 10,000 states."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import streamloss

from . import exactly
from .machine import Array, resident, time_in_turns
from .plan import Plan, Row, Rows, progress
from .report import table

TITLE = "Growth"
TILE = 1_000_000  # elements, repeated in the files


def run(plan: Plan) -> Rows:
    """One row for each number of float32 pairs in two memory-mapped files; then one for the merge."""
    rng = np.random.default_rng(24)
    labels, predictions = rng.standard_normal((2, TILE), dtype=np.float32)
    exact = exactly.squared_error(labels, predictions)  # of any number of tiles
    tiles = plan.pick((1, 2), (1, 10, 100, 200), (1, 10, 100, 1000))
    with tempfile.TemporaryDirectory() as folder:
        mapped = (
            _tiled(Path(folder) / "labels.npy", labels, tiles[-1]),
            _tiled(Path(folder) / "predictions.npy", predictions, tiles[-1]),
        )
        _scored(*mapped, TILE)()
        for count in tiles:
            size = count * TILE
            progress(f"growth: {size} elements")
            with _peak_of_own_memory() as peak:
                (timed,) = time_in_turns({"": _scored(*mapped, size)}, plan.pick(1, 5)).values()
            assert timed.result == exact
            yield {
                "elements": size,
                "nanoseconds per element": timed.seconds / size * 1e9,
                "GB/s": 8 * size / timed.seconds / 1e9,
                "memory above that before, MB": peak[0] / 1e6,
            }
        del mapped
    yield _merge(plan.pick(100, 10_000), labels, predictions)


def _tiled(path: Path, tile: Array, count: int) -> Array:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=tile.dtype, shape=(tile.size * count,))
    for start in range(0, array.size, tile.size):
        array[start : start + tile.size] = tile
    array.flush()
    del array
    return np.load(path, mmap_mode="r")


def _scored(labels: Array, predictions: Array, size: int) -> Callable[[], float]:
    """A call that scores the first elements."""
    return lambda: streamloss.Accumulator().update(labels[:size], predictions[:size]).result("mean")


@contextmanager
def _peak_of_own_memory() -> Iterator[list[int]]:
    """A list with the highest memory of this process's own, above that at the beginning, looked at every 2 ms."""
    before, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _merge(states: int, labels: Array, predictions: Array) -> Row:
    progress(f"growth: a merge of {states} states")
    length = labels.size // states
    parts = [
        streamloss.Accumulator().update(labels[start : start + length], predictions[start : start + length])
        for start in range(0, length * states, length)
    ]
    timed = time_in_turns({"merge": lambda: streamloss.Accumulator().merge(*parts)}, 3)["merge"]
    assert timed.result.result("mean") == exactly.squared_error(
        labels[: length * states], predictions[: length * states]
    )
    return {
        "states merged": states,
        "milliseconds": timed.seconds * 1e3,
        "microseconds per state": timed.seconds / states * 1e6,
    }


def show(rows: list[Row]) -> str:
    """Two tables."""
    return "\n\n".join(table(row for row in rows if key in row) for key in ("elements", "states merged"))
