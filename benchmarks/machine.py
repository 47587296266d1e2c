"""The machine: how fast its memory can be read, and how to time things that share it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np

import streamloss

_pool = ThreadPoolExecutor(streamloss.get_num_threads())


def describe() -> str:
    """The processor, the number of threads and the versions that the figures belong to."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as info:
            model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), model)
    return (
        f"{model}, {streamloss.get_num_threads()} threads; Python {platform.python_version()},"
        f" NumPy {np.__version__}, Numba {numba.__version__}, streamloss {streamloss.__version__}"
    )


@numba.njit(nogil=True)
def _xor(words: Any) -> int:
    result = 0
    for i in range(words.size):
        result ^= words[i]
    return result


def read_all(arrays: list[np.ndarray[Any, Any]]) -> int:
    """Read every byte of the arrays, each thread a part, and xor it: nothing reads them faster."""
    threads = streamloss.get_num_threads()

    def part(k: int) -> int:
        result = 0
        for array in arrays:
            words = array.reshape(-1).view(np.int64)
            result ^= _xor(words[words.size * k // threads : words.size * (k + 1) // threads])
        return result

    return sum(_pool.map(part, range(threads)))


class Timed(NamedTuple):
    """The shortest time of a call, in seconds, and what it returned."""

    seconds: float
    result: Any


def time_in_turns(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timed]:
    """Time calls against each other; they take turns, so that a slow moment of the machine hits all of them."""
    best = {name: Timed(float("inf"), call()) for name, call in calls.items()}  # warms caches and compilers
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            result = call()
            best[name] = min(best[name], Timed(time.perf_counter() - begin, result), key=lambda timed: timed.seconds)
    return best
