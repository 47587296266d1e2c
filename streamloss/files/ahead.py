"""Threads that read while the caller computes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
END = object()


def ahead(
    items: Iterator[T], depth: int = 2, size: Callable[[Any], int] = lambda item: 1, enough: int = 0
) -> Generator[T, None, None]:
    """Yield the items, fetched by another thread, at most `depth` of them before they are asked for.

    Of small items there may be more, as long as they are not `enough` together. An exception is raised where its item
    would have come. When this generator is closed, by an exception in the caller too, the thread ends after the item
    that it is fetching, and closes what it fetches from.
    """
    # Queues are written in C: a Condition is Python code, where KeyboardInterrupt can leave its lock locked for ever.
    ready: SimpleQueue[Any] = SimpleQueue()
    finished: SimpleQueue[None] = SimpleQueue()  # one for each item that the caller has finished with, and the last
    stopped = False

    def fetch() -> None:
        sizes: deque[int] = deque()  # of the items that the caller has not finished with
        try:
            while not stopped:
                while not finished.empty() or (len(sizes) >= depth and sum(sizes) >= enough):
                    finished.get()
                    if stopped:
                        return
                    sizes.popleft()
                item: Any = next(items, END)
                if item is not END:
                    sizes.append(size(item))
                ready.put((item, None))
                if item is END:
                    return
        except BaseException as error:  # a panic in a reader is no Exception
            ready.put((END, error))
        finally:
            if stopped and hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=fetch, name="streamloss-ahead", daemon=True)
    try:
        thread.start()
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is END:
                return
            yield item
            finished.put(None)
    finally:
        stopped = True
        finished.put(None)
        with suppress(RuntimeError):  # interrupted while it was being started: it ends by itself
            thread.join()


def side_by_side(calls: Sequence[Callable[[], T]], threads: int) -> Generator[T, None, None]:
    """Make calls on that many threads, and yield what they return, in their order.

    At most one call more than there are threads is made before its value is asked for. An exception is raised where its
    value would have come. When this generator is closed, the threads end after the calls that they are in.
    """
    results: list[SimpleQueue[Any]] = [SimpleQueue() for _ in calls]
    slots = threading.Semaphore(threads + 1)
    numbers = iter(range(len(calls)))  # next() is one step under the GIL: no call is made twice
    stopped = threading.Event()

    def work() -> None:
        while slots.acquire() and not stopped.is_set():
            number = next(numbers, None)
            if number is None:
                return
            try:
                results[number].put((calls[number](), None))
            except BaseException as error:  # a panic in a reader is no Exception
                results[number].put((None, error))

    workers = [threading.Thread(target=work, name="streamloss-reader", daemon=True) for _ in calls[:threads]]
    try:
        for worker in workers:
            worker.start()
        for result in results:
            value, error = result.get()
            if error is not None:
                raise error
            yield value
            del value
            slots.release()
    finally:
        stopped.set()
        slots.release(threads)
        for worker in workers:
            with suppress(RuntimeError):  # it could not be started
                worker.join()
