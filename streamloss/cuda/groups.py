"""Groups of device arrays: every element goes to the state of its own group, on the device.

The keys are looked up on the host, in the dictionary that knows them, so an update waits for the device: for keys that
lie there, and at the end for the states. Labels, predictions, weights and masks stay where they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import arrays
from ..cpu.groups import carry_all
from ..exact import STATE_WORDS, Words
from ..keys import Coded, Codes
from ..losses import Loss
from . import compiling, devices, updates, views
from .devices import Device, driver
from .elements import SLOTS, Form
from .updates import Views
from .views import View

MOST = 1 << 28  # elements of one launch: each adds less than 2**33 to a digit, and that in all copies together
COPIED = 1 << 10  # states in all copies, unless there are more groups: not all blocks add to the same words


def on_host(by: Any) -> Any:
    """Return keys, or columns of them, in host memory; those on a device are copied, after all that is queued there."""
    if isinstance(by, Coded):
        return Coded(on_host(by.codes), by.values)
    if isinstance(by, (tuple, list)) and any(map(arrays.on_device, by)):
        return tuple(map(on_host, by))
    return views.as_host(views.view("by", by)) if arrays.on_device(by) else by


def added(loss: Loss, operands: Views, codes: Codes, groups: int, omit: bool, words: int) -> Words:
    """Return the states, each of so many words, of that many groups, for a chunk with a code below `groups` per row."""
    states = np.zeros((groups, words), np.int64)
    size, rank = operands.labels.size, operands.labels.ndim
    if not size:
        return states
    codes = np.ascontiguousarray(codes, np.int32)
    found = np.empty((min(SLOTS, max(1, COPIED // groups)), groups, words), np.int64)
    device = devices.of(operands.labels.device)
    with device.context:
        stream = updates.streams_of(operands)[0]
        driver.check_not_captured(stream)
        with Room(codes.nbytes, stream) as codes_room, Room(found.nbytes, stream) as room:
            driver.send(codes_room.address, codes, stream)
            shape, strides = codes.shape + (1,) * (rank - 1), (1,) + (0,) * (rank - 1)
            rows = View(codes_room.address, "i", shape, strides, 0, device.ordinal, None, None)
            adders = [Adder(device, loss, (*operands, rows), omit, words)]
            if words != STATE_WORDS:
                adders.append(Adder(device, loss, (*operands[:4], None, rows), omit, words, squares=True))
            for first in range(0, size, MOST):
                room.clear()
                for adder in adders:
                    adder.queue(first, min(first + MOST, size), room.address, found, stream)
                driver.fetch(room.address, found)
                states += found.sum(axis=0)
                carry_all(states)
    return states


class Adder:
    """A kernel, and its arguments but for the elements to add and where to."""

    def __init__(
        self, device: Device, loss: Loss, operands: tuple[Any, ...], omit: bool, words: int, *, squares: bool = False
    ) -> None:
        layout = updates.laid_out(device, [updates.described(operand) for operand in operands])
        form = Form._make((*layout.kinds[:5], layout.axes, omit, words, squares, True))
        self._function, self._threads = device.sums(form, loss), form.threads
        self._arguments = [*devices.filled(layout.arguments, layout.places, operands), *loss.values]

    def queue(self, first: int, end: int, address: int, states: Words, stream: int) -> None:
        """Queue it for the elements from the first to the end, and for states on the device, shaped like these."""
        blocks = min(-(-(end - first) // self._threads), self._function.blocks)
        target = compiling.array(address, states.itemsize, states.size)
        copies, groups, _ = states.shape
        self._function.launch(blocks, stream, [*self._arguments, first, end, *target, groups, copies])


class Room:
    """Memory of a device, for what is queued on a stream in the body of a `with`."""

    def __init__(self, size: int, stream: int) -> None:
        self._size, self._stream = size, stream

    def __enter__(self) -> Room:
        self.address = driver.borrow(self._size, self._stream)
        return self

    def __exit__(self, *_: object) -> None:
        driver.give_back(self.address, self._stream)

    def clear(self) -> None:
        """Queue to set it to zero."""
        driver.zero(self.address, self._size, self._stream)
