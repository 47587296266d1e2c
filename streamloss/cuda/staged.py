"""Host arrays for a device: copied piece by piece through pinned memory, two pieces in flight.

While the device copies and adds one piece, the host writes the next. A chunk of several pieces goes to a partial state
of its own, which is added to the accumulator's when all are queued: whole, or not at all.
"""

from __future__ import annotations

import threading
from functools import cache
from itertools import cycle
from typing import Any

import numpy as np

from ..chunks import Chunk, Direct
from ..exact import Words
from ..intrinsics import VECTOR
from ..losses import Loss
from . import devices
from .devices import Device, Partial, driver
from .updates import Partials, Views, launch
from .views import View

PIECE = 1 << 18  # elements
ROOM = PIECE * (4 * 8 + 1) + 64  # bytes: labels, predictions, weights, out and mask


class Lane:
    """Pinned memory and as much of the device's, for one piece."""

    def __init__(self, device: Device) -> None:
        self.host, self.address = driver.pinned(ROOM), driver.allocate(ROOM)
        self._ordinal = device.ordinal
        self._event = driver.Event()
        self._used = 0
        self._out: Any = None

    def put(self, array: np.ndarray[Any, Any], stream: int) -> View:
        """Copy an array to the next free bytes."""
        target, result = self._reserve(array.dtype, array.size, stream)
        target[:] = array
        return result

    def _reserve(self, dtype: Any, size: int, stream: int) -> tuple[np.ndarray[Any, Any], View]:
        start = self._used
        end = start + size * dtype.itemsize
        self._used = -(-end // 8) * 8
        target = self.host[start:end].view(dtype)
        return target, View(self.address + start, dtype.char, (size,), (1,), 0, self._ordinal, stream, self)

    def queue(
        self, partial: Partial, loss: Loss, chunk: Chunk, piece: int, pieces: range, omit: bool, stream: int
    ) -> None:
        """Copy a piece, and queue its way to the device and its kernels."""
        operands = chunk.operands(piece, pieces)
        labels, predictions, weights, mask, out, start, stop = operands
        y, p = self.put(labels[start:stop], stream), self.put(predictions[start:stop], stream)
        w = weights if weights is None or type(weights) is float else self.put(_part(weights, start, stop), stream)
        k = None if mask is None else self.put(_part(mask, start, stop), stream)
        sent = self._used
        o = None
        if out is not None:
            self._out = *self._reserve(out.dtype, stop - start, stream), chunk, piece, operands
            o = self._out[1]
        driver.send(self.address, self.host[:sent], stream)
        launch(partial, loss, Views(y, p, w, k, o), omit, stream)
        if o is not None:
            driver.receive(self._out[0], o.address, stream)
        self._event.record(stream)

    def finish(self) -> None:
        """Wait for the piece before, and hand on what it wrote."""
        self._event.wait()
        self._used = 0
        if self._out is not None:
            written, _, chunk, piece, operands = self._out
            operands[4][operands[5] : operands[6]] = written
            chunk.finish(piece, operands)
            self._out = None

    @property
    def writes(self) -> bool:
        """Whether its piece writes terms that the host waits for."""
        return self._out is not None

    def forget(self) -> None:
        """Give up what an update that failed has left."""
        self._event.wait()
        self._used, self._out = 0, None


def _part(operand: Any, start: int, stop: int) -> np.ndarray[Any, Any]:
    """Return the entries of an operand, in any of its forms, for the elements from start to stop."""
    if not isinstance(operand, tuple):
        return operand[start:stop]
    elements = np.arange(start, stop)
    if len(operand) == 1:
        operand, elements = operand[0], elements // VECTOR
    if not isinstance(operand, tuple):
        return operand[elements]
    values, repeat, period = operand
    return values[elements // repeat % period]


class Staging:
    """The stream and the two lanes by which chunks from the host reach a device."""

    def __init__(self, device: Device) -> None:
        self.device, self.lock = device, threading.Lock()
        self.stream = driver.new_stream()
        self._lanes = [Lane(device), Lane(device)]
        self._turns = cycle(self._lanes)  # also from update to update: the host writes one while the other is added
        self._scratch: dict[int, Partial] = {}

    def send(self, loss: Loss, chunk: Chunk, pieces: range, omit: bool, partial: Partial) -> None:
        """Queue pieces of a chunk."""
        try:
            for piece, lane in zip(pieces, self._turns, strict=False):
                lane.finish()
                lane.queue(partial, loss, chunk, piece, pieces, omit, self.stream)
            if any(lane.writes for lane in self._lanes):
                for lane in self._lanes:
                    lane.finish()
        except BaseException:
            for lane in self._lanes:
                lane.forget()
            raise

    def take_scratch(self, words: int) -> Partial:
        """Return a partial state for this stream alone; it is zero when the stream comes to what is queued next."""
        return self._scratch.pop(words, None) or Partial(self.device, words)

    def keep(self, scratch: Partial) -> None:
        """Take back such a partial state, with what makes it zero again queued."""
        self._scratch[scratch.words] = scratch


@cache
def of(ordinal: int) -> Staging:
    """Return the staging of a device, always the same object."""
    device = devices.of(ordinal)
    with device.context:
        return Staging(device)


def add_staged(partials: Partials, loss: Loss, chunk: Chunk, omit: bool, ordinal: int, words: int) -> None:
    """Queue an update with host arrays."""
    if not chunk.size:
        return
    staging, pieces = of(ordinal), cut(chunk)
    with staging.lock:
        if len(pieces) == 1:
            with partials.on(staging.device) as partial:
                staging.send(loss, chunk, pieces, omit, partial)
            return
        with staging.device.context:
            scratch = staging.take_scratch(words)
            staging.send(loss, chunk, pieces, omit, scratch)
        with partials.on(staging.device) as partial:
            scratch.move_to(partial, staging.stream)
        staging.keep(scratch)


def cut(chunk: Chunk) -> range:
    """Return where the pieces of a chunk begin."""
    return range(0, chunk.size, PIECE) if isinstance(chunk, Direct) else chunk.pieces(1)


def alone_staged(loss: Loss, chunk: Chunk, ordinal: int, words: int) -> Words:
    """Wait for the device, and return the state of one chunk without its elements with NaN."""
    if not chunk.size:
        return np.zeros(words, np.int64)
    staging = of(ordinal)
    with staging.lock, staging.device.context:
        partial = Partial(staging.device, words)
        staging.send(loss, chunk, cut(chunk), True, partial)
        return partial.fetch()
