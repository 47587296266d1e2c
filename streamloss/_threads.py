"""Sharing one update among threads.

Threads of our own, not Numba's parallel loops: those end the process when a forked child launches one after OpenMP,
or when two threads launch one where only the workqueue layer is there, and each costs another second of compiling.
Kernels release the GIL, so ordinary Python threads run them side by side, under any threading layer, in forked and
spawned processes, and inside the threads of dask or of a data loader.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numba

R = TypeVar("R")

_threads: int | None = None
_pool: ThreadPoolExecutor | None = None


def get_num_threads() -> int:
    """How many threads an update may use: as set, otherwise NUMBA_NUM_THREADS, otherwise all cores.

    >>> import streamloss
    >>> streamloss.set_num_threads(2)
    >>> streamloss.get_num_threads()
    2
    >>> streamloss.set_num_threads(None)
    """
    return _threads or int(numba.config.NUMBA_NUM_THREADS)


def set_num_threads(threads: int | None) -> None:
    """Let updates use this many threads from now on; None for the default. It changes the time, never a result."""
    global _threads
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int)):
        raise TypeError(f"threads must be an int or None, got {type(threads).__name__}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    _threads = threads
    _forget_pool()


def _forget_pool() -> None:
    global _pool
    _pool = None  # its threads end when the last task has


os.register_at_fork(after_in_child=_forget_pool)  # a forked child has none of its parent's threads


def share(pieces: range, work: Callable[[Iterator[int]], R]) -> list[R]:
    """Call `work` on several threads at once, each drawing from the same pieces; return what each call returned.

    The calling thread works too, and never waits for a helper that has not started. An exception in any thread,
    KeyboardInterrupt included, stops all at their next piece, and is raised when all have stopped.
    """
    queue = iter(pieces)  # next() on a range is one step under the GIL: no piece is drawn twice
    stopped = False

    def draw() -> Iterator[int]:
        return itertools.takewhile(lambda _: not stopped, queue)

    helpers = _start(min(get_num_threads(), len(pieces)) - 1, lambda: work(draw()))
    try:
        results = [work(draw())]
        results += [helper.result() for helper in helpers if not helper.cancel()]
    finally:
        stopped = True
        wait(helpers)
    return results


def _start(count: int, work: Callable[[], R]) -> list[Future[R]]:
    """Have `work` done by up to `count` helpers; fewer where the system grants no more threads."""
    global _pool
    helpers: list[Future[R]] = []
    if count < 1:
        return helpers
    pool = _pool = _pool or ThreadPoolExecutor(get_num_threads() - 1, thread_name_prefix="streamloss")
    submitted = threading.Lock()

    def help_out(number: int) -> R:
        # A submit() that fails for want of a thread has put its task in the queue already, where an idle thread may
        # find it: what it did would be lost.
        with submitted:
            if number >= len(helpers):
                raise CancelledError
        return work()

    with submitted:
        try:
            for number in range(count):
                helpers.append(pool.submit(help_out, number))
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            pass
    return helpers
