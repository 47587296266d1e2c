"""Reading while computing."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
END = object()


def ahead(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The items, fetched by another thread, at most `depth` of them before they are asked for.

    An exception comes where the item would have come. When this generator is closed, by an exception in the caller
    too, the thread ends after the item that it is fetching, and closes what it fetches from.
    """
    ready: SimpleQueue[Any] = SimpleQueue()
    slots = threading.Semaphore(depth)
    stopped = threading.Event()

    def fetch() -> None:
        try:
            while slots.acquire() and not stopped.is_set():
                ready.put((next(items, END), None))
        except BaseException as error:  # a panic in a reader is no Exception
            ready.put((END, error))
        finally:
            if stopped.is_set() and hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=fetch, name="streamloss-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is END:
                return
            yield item
            slots.release()
    finally:
        stopped.set()
        slots.release()
        thread.join()
