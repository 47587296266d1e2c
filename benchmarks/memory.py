"""The peak memory of scoring large array files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SCORE = """
import pathlib, sys, streamloss
accumulator = streamloss.score(labels=sys.argv[1], predictions=sys.argv[2])
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(accumulator.result("sum"), int(status["VmHWM"].split()[0]) * 1024)
"""


def run(megabytes: float) -> list[dict[str, Any]]:
    """One row for each size of a .npy pair: peak resident memory of a process that scores it (read from /proc)."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for total in (megabytes / 100, megabytes):
            size = int(total * 1e6 / 8)
            paths = [Path(folder) / "labels.npy", Path(folder) / "predictions.npy"]
            for path, value in zip(paths, (1.0, 3.0), strict=True):
                array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size,))
                array[:] = value
                array.flush()
                del array
            output = subprocess.run(
                [sys.executable, "-c", SCORE, *map(str, paths)],
                capture_output=True,
                text=True,
                check=True,
                env=os.environ,
            ).stdout
            answer, peak = map(float, output.split())
            assert answer == 4.0 * size
            rows.append({"pair of .npy files, MB": total, "peak resident memory, MB": peak / 1e6})
    return rows
