"""The names of `driver.py` for Numba's CUDA simulator: device memory is host memory, and all is done at once."""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import starmap
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda
from numba.core import types
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator.kernelapi import FakeCUDAShared

from . import compiling

LEGACY = 0
DEVICES = 2  # pretended, so that there are several
_kept: list[np.ndarray[Any, Any]] = []
_borrowed: dict[int, np.ndarray[Any, Any]] = {}
_lock = threading.Lock()  # the simulator runs one kernel at a time


def _shared_array(self: Any, shape: int, dtype: Any) -> Any:
    """The array of a block that its threads share, one for each line that asks for one; Numba's own look-up is slow."""
    return self._allocations.setdefault(sys._getframe(1).f_lineno, np.empty(shape, dtype))


class _Thread(simulator.BlockThread):
    """A thread of a block, which runs when it is its turn, up to the next barrier."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._turn, self._rest, self.done = threading.Lock(), threading.Lock(), False
        self._turn.acquire()
        self._rest.acquire()

    def run(self) -> None:
        """Wait for the first turn, and run to the end."""
        self._turn.acquire()
        if not self.abort:
            super().run()
        self.done = True
        self._rest.release()

    def go(self) -> bool:
        """Let it run up to the next barrier; False if it came to its end."""
        self._turn.release()
        self._rest.acquire()
        if self.exception is not None:
            raise self.exception[0].with_traceback(self.exception[1])
        return not self.done

    def syncthreads(self) -> None:
        """Let the others come to the barrier, too."""
        self._rest.release()
        self._turn.acquire()
        if self.abort:
            raise SystemExit

    def stop(self) -> None:
        """Let it end at the barrier where it is."""
        self.abort = True
        if not self.done:
            self._turn.release()


class _Block(simulator.BlockManager):
    """A block whose threads take turns, in one order and then in the other: what lacks a barrier goes wrong.

    Numba's own lets them run at once and polls them; a small kernel takes six times as long.
    """

    def run(self, block: tuple[int, ...], *args: Any) -> None:
        """Run the kernel's threads."""
        threads = [
            _Thread(lambda: self._f(*args), self, block, thread, False) for thread in np.ndindex(*self._block_dim)
        ]
        for thread in threads:
            thread.start()
        try:
            while threads:
                threads = [thread for thread in reversed(threads) if thread.go()]
        finally:
            for thread in threads:
                thread.stop()


FakeCUDAShared.array = _shared_array
simulator.BlockManager = _Block


def count() -> int:
    """The number of devices."""
    return DEVICES


def current() -> int:
    """The device that this thread uses."""
    return 0


def device_of(address: int) -> int:
    """The device on which memory lies."""
    return 0


class Context:
    """A device."""

    processors, capability = 2, (9, 0)

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Function:
    """A kernel."""

    blocks = 3  # fewer than small data has tiles for

    def __init__(self, context: Context, source: Callable[..., None], signature: tuple[Any, ...], threads: int) -> None:
        self._kernel, self._signature, self._threads = cuda.jit(source), signature, threads
        self._struct = struct.Struct(compiling.layout(signature))

    def launch(self, blocks: int, stream: int, words: Sequence[Any], queued: list[Any] | None = None) -> None:
        """Run the kernel; its arguments go through the words that the driver would copy."""
        queued = [] if queued is None else queued
        left = list(self._struct.unpack(self._struct.pack(*words)))
        arguments = _arguments(self._signature, left)
        assert not left
        with _lock:
            queued.extend(starmap(self._kernel[blocks, self._threads], (arguments,)))


def _arguments(signature: tuple[Any, ...], left: list[Any]) -> tuple[Any, ...]:
    """Take a kernel's arguments from the front of its words."""
    return tuple(
        _arguments(tuple(argument.types), left) if isinstance(argument, types.BaseTuple) else _argument(argument, left)
        for argument in signature
    )


def _argument(argument: Any, left: list[Any]) -> Any:
    if not isinstance(argument, types.Array):
        return left.pop(0)
    _, _, size, itemsize, address, _, _ = (left.pop(0) for _ in range(compiling.ARRAY_WORDS))
    dtype = np.dtype(str(argument.dtype))
    assert dtype.itemsize == itemsize
    return Memory(memory(address, size * itemsize).view(dtype))


class Memory:
    """An array that the simulator hands to the kernel as it is: its own wrappers are slow."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __getitem__(self, index: int) -> Any:
        return self._array[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self._array[index] = value


def memory(address: int, size: int) -> np.ndarray[Any, Any]:
    """The bytes at an address."""
    buffer: Any = (ctypes.c_char * size).from_address(address) if size else b""
    return np.frombuffer(buffer, np.uint8)


def allocate(size: int) -> int:
    """The address of so many bytes of zeros."""
    array = np.zeros(size, np.uint8)
    _kept.append(array)
    return array.ctypes.data


def new_array(shape: tuple[int, ...]) -> Any:
    """An array of float64, with nothing particular in it."""
    array = np.full(shape, -7.0)
    return SimpleNamespace(host=array, __cuda_array_interface__={**array.__array_interface__, "stream": None})


def clear(places: Sequence[tuple[int, int]]) -> None:
    """Set bytes to zero."""
    for address, size in places:
        memory(address, size)[:] = 0


def wait() -> None:
    """Wait for all that is queued."""


def borrow(size: int, stream: int) -> int:
    """The address of so many bytes, with nothing particular in them."""
    array = np.full(size, 0xAA, np.uint8)
    _borrowed[array.ctypes.data] = array
    return array.ctypes.data


def give_back(address: int, stream: int) -> None:
    """Give back what `borrow` gave."""
    del _borrowed[address]


def zero(address: int, size: int, stream: int) -> None:
    """Set bytes to zero."""
    memory(address, size)[:] = 0


def fetch(address: int, array: np.ndarray[Any, Any]) -> None:
    """Copy from the device."""
    array.reshape(-1).view(np.uint8)[:] = memory(address, array.nbytes)


def pinned(size: int) -> np.ndarray[Any, Any]:
    """Bytes of host memory."""
    return np.zeros(size, np.uint8)


def send(address: int, array: np.ndarray[Any, Any], stream: int) -> None:
    """Copy to the device."""
    memory(address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)


def receive(array: np.ndarray[Any, Any], address: int, stream: int) -> None:
    """Copy from the device."""
    fetch(address, array)


def new_stream() -> int:
    """A stream."""
    return LEGACY


def check_not_captured(stream: int) -> None:
    """Refuse a stream that is captured in a graph."""


class Event:
    """A place in a stream; what comes before it is done."""

    def record(self, stream: int) -> None:
        """Move to the end of a stream."""

    def hold(self, stream: int) -> None:
        """Let a stream wait for this place."""

    def is_done(self) -> bool:
        """Whether the device has come past this place."""
        return True

    def wait(self) -> None:
        """Wait until it has."""
