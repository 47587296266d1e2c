"""The peak memory of scoring large array files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from .plan import Plan, Row, Rows, progress
from .report import table

TITLE = "Memory"

SCORE = """
import pathlib, sys, streamloss
accumulator = streamloss.score(labels=sys.argv[1], predictions=sys.argv[2])
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(accumulator.result("sum"), int(status["VmHWM"].split()[0]) * 1024)
"""


def run(plan: Plan) -> Rows:
    """One row for each size of a pair of .npy files: peak resident memory of a process that scores it (from /proc)."""
    megabytes = plan.pick(200, 2000)
    with tempfile.TemporaryDirectory() as folder:
        for total in (megabytes // 100, megabytes):
            progress(f"memory: {total} MB")
            size = total * 1_000_000 // 8
            paths = [Path(folder) / "labels.npy", Path(folder) / "predictions.npy"]
            for path, value in zip(paths, (1.0, 3.0), strict=True):
                array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size,))
                array[:] = value
                array.flush()
                del array
            command = [sys.executable, "-c", SCORE, *map(str, paths)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            answer, peak = map(float, output.split())
            assert answer == 4.0 * size
            yield {"pair of .npy files, MB": total, "peak resident memory, MB": peak / 1e6}


def show(rows: list[Row]) -> str:
    """The rows as they are."""
    return table(rows)
