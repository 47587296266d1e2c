"""The machine: what it is, how fast its memory can be read, and how to time things that share it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numba
import numpy as np

import streamloss

Array: TypeAlias = np.ndarray[Any, Any]

LIBRARIES = (
    *("numpy", "numba", "torch", "numexpr", "polars", "duckdb", "scikit-learn"),
    *("torchmetrics", "torcheval", "keras", "river", "xsum"),
)
PIECE = 1 << 24  # bytes that a thread reads before it draws again, of large arrays
SMALL_PIECE = 1 << 20  # of others, at the least
PATIENCE = 2.0  # seconds of turns after which a call has had enough of them
LEAST = 3  # turns that every call gets
TAKEN = 0.02  # of the processors' time, from which on a turn does not count
LONGEST = 4  # times as much patience, and as many turns, before turns that do not count are enough

_pool = ThreadPoolExecutor(streamloss.get_num_threads())


def processor() -> str:
    """The model of the processor and the number of threads in use."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as info:
            model = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), model)
    return f"{model}, {streamloss.get_num_threads()} threads"


def versions() -> str:
    """Those of Python, streamloss and every rival that is installed."""
    found = [f"Python {platform.python_version()}", f"streamloss {streamloss.__version__}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def slug() -> str:
    """The processor as part of a file's name."""
    return re.sub(r"\W+", "-", re.sub(r"\(\w+\)", "", processor()).lower()).strip("-")


def resident(kind: str = "RssAnon") -> int:
    """Bytes of memory this process has of its own now (RssAnon), or had in all at most (VmHWM); Linux."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[kind].split()[0]) * 1024


@numba.njit(nogil=True)
def _xor(words: Any) -> int:
    result = 0
    for i in range(words.size):
        result ^= words[i]
    return result


def read_all(arrays: list[Array]) -> int:
    """Read every byte of the arrays and xor it, on all threads, which draw pieces."""
    words = [array.reshape(-1).view(np.int64) for array in arrays]
    size = sum(array.nbytes for array in arrays)
    count = max(1, size // PIECE, min(size // SMALL_PIECE, 4 * streamloss.get_num_threads()))
    pieces = iter(range(count))

    def work(_: int) -> int:
        result = 0
        for k in pieces:
            for w in words:
                result ^= _xor(w[w.size * k // count : w.size * (k + 1) // count])
        return result

    return sum(_pool.map(work, range(streamloss.get_num_threads())))


def read_alone(arrays: list[Array]) -> int:
    """The same on one thread, which is faster while the arrays are small."""
    result = 0
    for array in arrays:
        result ^= _xor(array.reshape(-1).view(np.int64))
    return result


class Timed(NamedTuple):
    """The shortest time of a call, in seconds, and what it returned."""

    seconds: float
    result: Any


def taken() -> float:
    """Seconds of all processors' time, since the start, that a hypervisor gave to other machines; Linux."""
    if not os.path.exists("/proc/stat"):
        return 0.0
    with open("/proc/stat") as stat:
        return int(stat.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def time_in_turns(calls: Mapping[str, Callable[[], Any]], turns: int, patience: float = PATIENCE) -> dict[str, Timed]:
    """Time calls against each other; they take turns, so that a slow moment of the machine hits all of them.

    Turn by turn in another order: what a call leaves behind in caches and in the allocator helps or hinders the next.
    Slow calls get fewer turns, and disturbed ones more: a turn during which others had the processors does not count.
    Every call should have been made once, to warm caches and compilers.
    """
    best = {name: Timed(float("inf"), None) for name in calls}
    ranks = {name: (True, float("inf")) for name in calls}  # of the best: whether it was disturbed, and its seconds
    counted, spent = dict.fromkeys(calls, 0), dict.fromkeys(calls, 0.0)
    for turn in range(LONGEST * turns if turns > 1 else 1):
        for name, call in random.Random(turn).sample(list(calls.items()), len(calls)):
            enough = turns if spent[name] <= patience else min(turns, LEAST)
            if counted[name] >= enough or (turn >= enough and spent[name] > LONGEST * patience):
                continue
            before, begin = taken(), time.perf_counter()
            result = call()
            seconds = time.perf_counter() - begin
            spent[name] += seconds
            disturbed = taken() - before > TAKEN * seconds * (os.cpu_count() or 1)
            counted[name] += not disturbed
            if (disturbed, seconds) < ranks[name]:
                ranks[name], best[name] = (disturbed, seconds), Timed(seconds, result)
    return best


def time_short(calls: Mapping[str, Callable[[], Any]], turns: int, seconds: float = 0.01) -> dict[str, float]:
    """Seconds per call of short calls, the best of several turns of many calls each.

    Before the clock starts, a tenth as many calls fetch back what the call before has driven out of the caches.
    """
    numbers = {name: max(1, int(seconds / _once(call))) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(turns):
        for name, call in calls.items():
            _repeat(call, numbers[name] // 10)
            best[name] = min(best[name], _repeat(call, numbers[name]) / numbers[name])
    return best


def _repeat(call: Callable[[], object], number: int) -> float:
    """The seconds that so many calls take."""
    begin = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - begin


def _once(call: Callable[[], Any], warm: Iterable[int] = range(3)) -> float:
    """About how long a call takes once it is warm."""
    times = []
    for _ in warm:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return max(min(times), 1e-9)
