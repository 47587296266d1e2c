"""What an update of 32 elements costs, and what the first result of a process costs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import streamloss


def small_updates(repeats: int) -> list[dict[str, Any]]:
    """Microseconds per call, the best of some thousands."""
    rng = np.random.default_rng(1)
    y, p, w = (rng.random(32, dtype=np.float32) for _ in range(3))
    accumulator = streamloss.Accumulator()
    calls: dict[str, Callable[[], object]] = {
        "update, 32 float32 pairs": lambda: accumulator.update(y, p),
        "update, 32 float32 pairs, weights": lambda: accumulator.update(y, p, w),
        "update, a pair of Python floats": lambda: accumulator.update(1.0, 2.0),
        "result": lambda: accumulator.result(),
    }
    if importlib.util.find_spec("torch"):
        import torch

        from streamloss.integrations.torch import Metric

        ty, tp = torch.tensor(y), torch.tensor(p)
        calls["update, 32 float32 pairs, torch tensors"] = partial(accumulator.update, ty, tp)
        calls["Metric.update, 32 x 1 torch tensors"] = partial(Metric().update, tp[:, None], ty[:, None])
    for call in calls.values():
        call()
    exact = streamloss.Accumulator().update(y, p)
    once = streamloss.Accumulator()
    for i in range(32):
        once.update(y[i], p[i])
    assert once == exact
    number = 2000
    best = {name: min(timeit.repeat(call, number=number, repeat=repeats)) / number for name, call in calls.items()}
    return [{"what": name, "microseconds": seconds * 1e6} for name, seconds in best.items()]


FIRST_RESULT = """
import time
begin = time.perf_counter()
import numba
numba_time = time.perf_counter() - begin
import numpy as np, streamloss
import_time = time.perf_counter() - begin
labels = np.zeros(100, np.float32)
begin = time.perf_counter()
assert streamloss.Accumulator().update(labels, labels + 2).result() == 4.0
print(numba_time, import_time, time.perf_counter() - begin)
"""


def cold_start() -> list[dict[str, Any]]:
    """Seconds to import, and from there to the first result: with an empty cache folder, and with a warm one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "warm", "warm"):
            output = subprocess.run(
                [sys.executable, "-c", FIRST_RESULT],
                env={**os.environ, "NUMBA_CACHE_DIR": folder},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            numba_time, import_time, first = map(float, output.split())
            rows.append(
                {
                    "cache folder": cache,
                    "import numba, s": numba_time,
                    "import streamloss, s": import_time,
                    "first result after that, s": first,
                }
            )
    return [rows[0], min(rows[1:], key=lambda row: row["first result after that, s"])]
