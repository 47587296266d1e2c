"""What a process pays before its first result, and that importing pays nothing but Numba."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

from .plan import Plan, Row, Rows, progress
from .report import table

TITLE = "Cold start"

IMPORT = "import time; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"

FIRST_RESULT = """
import numpy as np, streamloss, time
labels = np.zeros(100, np.float32)
begin = time.perf_counter()
assert streamloss.Accumulator().update(labels, labels + 2).result() == 4.0
print(time.perf_counter() - begin)
"""


def run(plan: Plan) -> Rows:
    """Seconds to import, in new processes that alternate; and from there to the first result."""
    with tempfile.TemporaryDirectory() as folder:
        progress("cold: imports")
        _seconds(IMPORT.format(module="streamloss"), folder)  # writes what Python itself keeps of modules
        turns = plan.pick(1, 15)
        times: dict[str, list[float]] = {"numba": [], "streamloss": []}
        for _ in range(turns):
            for module, found in times.items():
                found.append(_seconds(IMPORT.format(module=module), folder))
        numba, ours = (statistics.median(found) for found in times.values())
        yield {"what": "import numba (median)", "seconds": numba}
        yield {"what": "import streamloss (median)", "seconds": ours, "times import numba": ours / numba}
    empty, warm = [], []
    for turn in range(plan.pick(1, 3)):
        progress(f"cold: first result, {turn + 1}")
        with tempfile.TemporaryDirectory() as folder:
            empty.append(_seconds(FIRST_RESULT, folder))
            warm += [_seconds(FIRST_RESULT, folder) for _ in range(plan.pick(1, 3))]
    yield {"what": "first result after import, cache folder empty (best)", "seconds": min(empty)}
    yield {"what": "first result after import, cache folder warm (best)", "seconds": min(warm)}


def _seconds(script: str, cache: str) -> float:
    """What a new process prints, with this folder as Numba's cache.

    A checkout may keep Python's bytecode, as an installed package does.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment, "NUMBA_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return float(done.stdout)


def show(rows: list[Row]) -> str:
    """The rows as they are."""
    return table(rows)
