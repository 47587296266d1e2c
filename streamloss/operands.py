"""How compiled code reads the weights and the mask of a chunk, whatever form they come in.

They are None, one number, an array with an entry for every element, or a run (entries, repeat, period), in which
element i has entry (i // repeat) % period. The type of an operand decides, when a kernel is compiled, how a block of
it is had; a run is written out block by block, in cache, and never as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float64
from numba.core import types

from . import _jit
from ._jit import VECTOR

BLOCK = 2048  # elements; 2**11 patterns of 2**51 units add up to less than 2**63, see blocks.py

# The processor's own read-ahead keeps up with a loop that only reads. Here it left a third of the time to waiting.
TILE = 256  # elements of a block after which the next lines are asked for
AHEAD = 512  # bytes
CACHE_LINE = 64  # bytes


def scratch(operand: Any) -> Any:
    """Room for a block of the operand, where one has to be written out."""


@_jit.by_type(scratch)
def _scratch(operand: Any) -> Any:
    if isinstance(operand, types.BaseTuple):
        return lambda operand: np.empty(BLOCK + VECTOR, operand[0].dtype)
    return lambda operand: None


@_jit.scalar
def room_for(start: int, stop: int) -> Any:
    """Room for a block of the elements from start to stop."""
    return np.empty(min(stop - start, BLOCK))


def is_shared(operand: Any) -> Any:
    """Whether all elements share one entry, known at compile time."""


@_jit.by_type(is_shared)
def _is_shared(operand: Any) -> Any:
    if isinstance(operand, (types.Float, types.NoneType)):
        return lambda operand: True
    return lambda operand: False


def is_one(weights: Any) -> Any:
    """Whether there are no weights, known at compile time."""


@_jit.by_type(is_one)
def _is_one(weights: Any) -> Any:
    if isinstance(weights, types.NoneType):
        return lambda weights: True
    return lambda weights: False


def weigh(weights: Any, i: int, loss: float) -> Any:
    """The term of element i of a block: its weight times its loss."""


@_jit.by_type(weigh)
def _weigh(weights: Any, i: Any, loss: Any) -> Any:
    if isinstance(weights, types.NoneType):
        return lambda weights, i, loss: loss
    return lambda weights, i, loss: float64(item(weights, i)) * loss


def block(operand: Any, start: int, stop: int, room: Any) -> Any:
    """The operand for the elements from start to stop."""


@_jit.by_type(block)
def _block(operand: Any, start: Any, stop: Any, room: Any) -> Any:
    if isinstance(operand, types.BaseTuple):
        return lambda operand, start, stop, room: spread(operand, start, stop - start, room)
    if isinstance(operand, types.Array):
        return lambda operand, start, stop, room: operand[start:stop]
    return lambda operand, start, stop, room: operand


def item(operand: Any, i: int) -> Any:
    """Entry i of a block; for None it is True, which as a weight is 1."""


@_jit.by_type(item)
def _item(operand: Any, i: Any) -> Any:
    if isinstance(operand, types.Array):
        return lambda operand, i: operand[i]
    if isinstance(operand, types.NoneType):
        return lambda operand, i: True
    return lambda operand, i: operand


@_jit.scalar
def past_line(values: Any, i: int) -> int:
    """How many elements before element i the cache line that it lies in begins."""
    return (values.ctypes.data // values.itemsize + i) % (CACHE_LINE // values.itemsize)


def read_ahead(operand: Any, start: int) -> None:
    """Ask for the memory that will be read soon after element `start` of a block; what is not there does no harm."""


@_jit.by_type(read_ahead)
def _read_ahead(operand: Any, start: Any) -> Any:
    def ask(operand: Any, start: Any) -> None:
        begin = operand.ctypes.data + start * operand.itemsize + AHEAD
        for line in range(begin, begin + TILE * operand.itemsize, CACHE_LINE):
            _jit.prefetch(line)

    return ask if isinstance(operand, types.Array) else lambda operand, start: None


@_jit.routine
def spread(run: Any, start: int, size: int, room: Any) -> Any:
    """Write out a block of a run, in whole vectors: what goes beyond an entry's last element is written over.

    `room` has space for a vector more.
    """
    _jit.not_inlined()
    _jit.wide_vectors()
    entries, repeat, period = run
    entry, done = divmod(start % (repeat * period), repeat)
    for k in range(0, min(repeat - done, size), VECTOR):
        _jit.store_vector(room, k, entries[entry])
    i = repeat - done
    entry += 1
    while i < size:
        entry = entry if entry < period else 0
        stop = min(period, entry + (size - i + repeat - 1) // repeat)
        if repeat <= VECTOR:
            for e in range(np.uint64(entry), np.uint64(stop)):  # a signed index would be looked at for its sign
                _jit.store_vector(room, i, entries[e])
                i += repeat
        else:
            for e in range(np.uint64(entry), np.uint64(stop)):
                for k in range(i, min(i + repeat, size), VECTOR):
                    _jit.store_vector(room, k, entries[e])
                i += repeat
        entry = stop
    return room[:size]
