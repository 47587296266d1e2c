"""Sharing one update among threads.

Threads of our own, not Numba's parallel loops: those end the process when a forked child launches one after OpenMP,
or when two threads launch one where only the workqueue layer is there, and each costs another second of compiling.
Kernels release the GIL, so ordinary Python threads run them side by side, under any threading layer, in forked and
spawned processes, and inside the threads of dask or of a data loader.
"""

from __future__ import annotations

import itertools
import os
import weakref
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable, Iterator
from numbers import Integral
from queue import SimpleQueue
from typing import Any, TypeVar

import numba
from numba.core.compiler_lock import global_compiler_lock

R = TypeVar("R")

PATIENCE = 1.0  # seconds that a fork waits for a lock: a signal handler that forks may have interrupted its holder

_threads: int | None = None
_locks: dict[int, weakref.ref[Any]] = {}
_taken: dict[int, list[Any]] = {}  # by each thread that is forking
# The workers' tasks. This queue and these threads are written in C: the locks of concurrent.futures are taken by Python
# code, where KeyboardInterrupt can leave them locked for ever.
_tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
_workers = 0


def get_num_threads() -> int:
    """Return how many threads an update may use: as set, otherwise NUMBA_NUM_THREADS, otherwise all cores.

    >>> import streamloss
    >>> streamloss.set_num_threads(2)
    >>> streamloss.get_num_threads()
    2
    >>> streamloss.set_num_threads(None)
    """
    return _threads or int(numba.config.NUMBA_NUM_THREADS)


def set_num_threads(threads: int | None) -> None:
    """Let updates use this many threads from now on; None for the default. It affects speed, never a result.

    Raises TypeError for what is neither an int nor None, and ValueError for less than 1.
    """
    global _threads
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, Integral)):
        raise TypeError(f"threads must be an int or None, got {type(threads).__name__}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    _threads = None if threads is None else int(threads)


def lock() -> Any:
    """Return a lock that forks wait for: what another thread holds would stay locked in the child for ever."""
    made = allocate_lock()
    key = id(made)
    _locks[key] = weakref.ref(made, lambda _: _locks.pop(key, None))
    return made


def _before_fork() -> None:
    """Take all locks, Numba's last: who holds one of ours may be compiling."""
    taken = _taken[get_ident()] = []
    for reference in list(_locks.values()):
        ours = reference()
        if ours is not None and ours.acquire(timeout=PATIENCE):
            taken.append(ours)
    global_compiler_lock.acquire()
    taken.append(global_compiler_lock)


def _after_fork() -> None:
    """Release what was taken: not all, if KeyboardInterrupt came between."""
    for held in reversed(_taken.pop(get_ident(), [])):
        held.release()


def _begin_child() -> None:
    """Begin without workers in a forked child, which has none of its parent's threads."""
    global _tasks, _workers
    _tasks, _workers = SimpleQueue(), 0
    _after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_begin_child)


def share(pieces: range, work: Callable[[Iterator[int]], R]) -> list[R]:
    """Call `work` on several threads at once, each drawing from the same pieces; return what each call returned.

    The calling thread works too, and never waits for a helper that has not started. An exception in any thread,
    KeyboardInterrupt included, stops all at their next piece, and is raised when all have stopped.
    """
    queue = iter(pieces)  # next() on a range is one step under the GIL: no piece is drawn twice
    stopped = False
    wanted = max(0, min(get_num_threads(), len(pieces)) - 1)
    results: list[R] = []
    errors: list[BaseException] = []
    # Helpers are counted by lists, which change in one step: an interrupt may swallow what wakes, but not what counts.
    begun: list[None] = []
    ended: list[None] = []
    enough = False  # a helper that begins from now on has nothing to do
    wake: SimpleQueue[None] = SimpleQueue()

    def draw() -> Iterator[int]:
        return itertools.takewhile(lambda _: not stopped, queue)

    def help_out() -> None:
        nonlocal stopped
        begun.append(None)
        try:
            if not enough:
                results.append(work(draw()))
        except BaseException as error:
            stopped = True
            errors.append(error)
        ended.append(None)
        wake.put(None)

    try:
        _send(help_out, wanted)
        results.append(work(draw()))
    except BaseException:
        stopped = True
        raise
    finally:
        enough = True
        while True:
            try:
                while len(ended) < len(begun):
                    wake.get()
                break
            except BaseException as interrupt:  # all are waited for all the same: they write to the caller's arrays
                stopped = True
                errors.append(interrupt)
    if errors:
        raise errors[0]
    return results


def _send(task: Callable[[], None], times: int) -> None:
    """Give a task to that many workers, starting more of them as far as the system allows."""
    global _workers
    try:
        while _workers < times:
            start_new_thread(_serve, (_tasks,))
            _workers += 1
    except RuntimeError:  # no more threads, or the interpreter is shutting down
        pass
    for _ in range(times):
        _tasks.put(task)


def _serve(tasks: SimpleQueue[Any]) -> None:
    while True:
        tasks.get()()
