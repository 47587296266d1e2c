"""The devices: their kernels, and the copies of states in their memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..exact import COUNTS, DIGIT_BITS, DIGIT_MASK, FIRST_DIGIT, SUM_WORDS, Words, combine
from ..losses import Loss
from . import compiling, elements, kernels, slots
from .elements import SLOTS, Form

driver: Any
if elements.SIMULATED:
    from . import simulator

    driver = simulator
else:
    from . import driver as cuda_driver

    driver = cuda_driver

# A slot's digit must stay below 2**63. An element adds less than 2**33 to it: up to 2**32 if it is added by itself,
# and its part of what a thread settles when it changes a window. So 2**30 elements fit between two carries. A carry
# follows its own stream alone: what others have queued before may be added after it. So every stream has its share.
STREAMS = 16  # that add to one state: all is waited for before another one does
CARRY_AFTER = 1 << 25  # elements that a stream adds to a slot between two carries of its own
MOST = 1 << 24  # elements that one launch adds to a slot, rounded up to tiles
BLOCK_ADDS = 64  # a block's own totals: at most as much as so many elements, for each digit
MOST_DIRTY = 256  # states of accumulators that are gone: with fewer, a new one takes fresh memory and need not wait


class Device:
    """A device: its context, its kernels, and memory that is zero and belongs to nobody."""

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.context = driver.Context(ordinal)
        self._functions: dict[Any, Any] = {}
        self.plans: dict[Any, list[Launch]] = {}  # what was launched before
        self._spare: dict[int, list[int]] = {}
        self._dirty: deque[tuple[int, int]] = deque()  # of accumulators that are gone
        self._kept: deque[tuple[Any, Any]] = deque()
        self._lock = threading.RLock()

    def sums(self, form: Form, loss: Loss) -> Any:
        """Return the kernel that adds chunks of this form; TypeError if the loss cannot be compiled."""
        key = form, loss.fingerprint
        function = self._functions.get(key)
        if function is None:
            with self._lock:
                try:
                    source = kernels.grouped if form.grouped else kernels.kernel
                    signature = compiling.signature(form, len(loss.values))
                    function = driver.Function(
                        self.context, source(form, elements.compiled(loss)), signature, form.threads
                    )
                except RuntimeError:
                    raise
                except Exception as error:  # Numba's own errors, and whatever else its compiler stumbles over
                    reason = f"loss {loss.name} cannot be compiled by Numba for CUDA: {error}"
                    raise TypeError(reason) from None
                self._functions[key] = function
        return function

    def other(self, source: Any, signature: tuple[Any, ...]) -> Any:
        """Return one of the kernels in `slots`, compiled for this device."""
        function = self._functions.get(source)
        if function is None:
            with self._lock:
                function = self._functions[source] = driver.Function(self.context, source, signature, elements.THREADS)
        return function

    def take(self, words: int) -> int:
        """Return the address of SLOTS states of so many words, all zero."""
        with self._lock:
            spare = self._spare.setdefault(words, [])
            if not spare and len(self._dirty) >= MOST_DIRTY:
                gone = self.gone()
                driver.wait()
                self.clear(gone)
            if not spare:
                size = 8 * SLOTS * words
                start = driver.allocate(size * 16)
                spare += [start + size * k for k in range(16)]
            return spare.pop()

    def gone(self) -> list[tuple[int, int]]:
        """Return states of accumulators that are gone, to be cleared when all that is queued by now is done."""
        with self._lock:
            return [self._dirty.popleft() for _ in range(len(self._dirty))]

    def clear(self, gone: list[tuple[int, int]]) -> None:
        """Set states to zero, and keep them for `take`; no kernel may still be adding to them."""
        if gone:
            driver.clear([(address, 8 * SLOTS * words) for address, words in gone])
        for address, words in gone:
            self._spare.setdefault(words, []).append(address)

    def give_back(self, address: int, words: int) -> None:
        """Take back what `take` gave; kernels may still be adding to it. Called when Python collects garbage."""
        self._dirty.append((address, words))

    @property
    def nothing(self) -> int:
        """The address of zeros, for all to read."""
        return _nothing(self)

    def keep(self, owner: Any, stream: int) -> None:
        """Keep an object until the device has done what is queued on a stream."""
        event = driver.Event()
        event.record(stream)
        self._kept.append((event, owner))
        self.let_go()

    def let_go(self) -> None:
        """Give up the objects that `keep` keeps and the device has done with."""
        with self._lock:
            while self._kept and self._kept[0][0].is_done():
                self._kept.popleft()


@cache
def of(ordinal: int) -> Device:
    """Return the device of that number, always the same object."""
    return Device(ordinal)


@cache
def _nothing(device: Device) -> int:
    with device.context:
        return driver.allocate(16)


class Launch(NamedTuple):
    """A launch that can be repeated with other addresses."""

    function: Any
    blocks: int
    added: int  # elements to a slot, at most: no more than CARRY_AFTER
    arguments: list[Any]
    places: list[int]  # of the operands' addresses, or values, among the arguments
    state: int  # the place of the address of the state


def launches(
    device: Device, form: Form, loss: Loss, arguments: list[Any], places: list[int], size: int
) -> list[Launch]:
    """Return the launches that together add all elements of a chunk: one, unless a slot would get more than MOST."""
    function = device.sums(form, loss)
    most = MOST * min(SLOTS, function.blocks)
    result = []
    for first in range(0, size, most):
        end = min(first + most, size)
        tiles = -(-(end - first) // form.tile)
        blocks = min(tiles, function.blocks)
        added = -(-blocks // SLOTS) * (-(-tiles // blocks) * form.tile + BLOCK_ADDS)
        words = [*arguments, *loss.values, first, end]
        state = len(words) + compiling.ARRAY_ADDRESS
        words += compiling.array(0, 8, SLOTS * form.words)
        result.append(Launch(function, blocks, added, words, places, state))
    return result


def filled(arguments: list[Any], places: list[int], operands: Sequence[Any]) -> list[Any]:
    """Return a copy of a launch's arguments, with the addresses, or values, of operands put in."""
    result = arguments.copy()
    for operand, place in zip(operands, places, strict=True):
        if isinstance(operand, tuple):
            result[place] = operand[0]  # its address
        elif operand is not None:
            result[place] = operand
    return result


class Partial:
    """The state of an accumulator on one device: SLOTS states to which kernels add, and whose sum it is.

    Their memory comes from the device's `take`, unless the address `memory` is given, where all are zero.
    """

    def __init__(self, device: Device, words: int, memory: int | None = None) -> None:
        self.device, self.words = device, words
        self.address = device.take(words) if memory is None else memory
        self._taken = memory is None
        self._uncarried: dict[int, int] = {}  # elements in a slot, at most, that a stream added since its last carry

    def __del__(self) -> None:
        if getattr(self, "_taken", False):
            self.device.give_back(self.address, self.words)

    def array(self) -> tuple[int, ...]:
        """Return the words of the array of these states, as an argument of a kernel."""
        return compiling.array(self.address, 8, SLOTS * self.words)

    def queue(self, launch: Launch, operands: Sequence[Any], stream: int, queued: list[Any]) -> None:
        """Queue a kernel that adds a chunk; `queued` gets one entry more in the same step."""
        self._make_room(launch.added, stream)
        arguments = filled(launch.arguments, launch.places, operands)
        arguments[launch.state] = self.address
        launch.function.launch(launch.blocks, stream, arguments, queued)

    def _make_room(self, added: int, stream: int) -> None:
        """Carry if need be, before a stream adds so many elements to a slot."""
        if stream not in self._uncarried and len(self._uncarried) >= STREAMS:
            driver.wait()
            self._uncarried.clear()
            self.carry(stream)
        if self._uncarried.get(stream, 0) + added > CARRY_AFTER:
            self.carry(stream)
        self._uncarried[stream] = self._uncarried.get(stream, 0) + added

    def carry(self, stream: int) -> None:
        """Queue the kernel that makes the digits small again."""
        sums = (self.words - COUNTS) // SUM_WORDS
        carry = self.device.other(slots.carry_slots, compiling.CARRY)
        blocks = min(-(-SLOTS * sums // elements.THREADS), carry.blocks)
        carry.launch(blocks, stream, (*self.array(), sums))
        self._uncarried[stream] = 1

    def move_to(self, other: Partial, stream: int) -> None:
        """Queue the kernel that adds all this to another partial state, and leaves zeros: all came by this stream."""
        if self._uncarried[stream] > CARRY_AFTER // 2:
            self.carry(stream)
        other._make_room(self._uncarried[stream], stream)
        size = SLOTS * self.words
        move = self.device.other(slots.move_words, compiling.MOVE)
        blocks = min(-(-size // elements.THREADS), move.blocks)
        move.launch(blocks, stream, (*self.array(), *other.array(), size))
        self._uncarried.clear()

    def fetch(self) -> Words:
        """Wait for all that is queued on the device, and return the state."""
        states = np.empty((SLOTS, self.words), np.int64)
        with self.device.context:
            gone = self.device.gone()
            driver.fetch(self.address, states)
            self.device.clear(gone)
            self.device.let_go()
        return total(states)


def total(states: Words) -> Words:
    """Return the carried sum of states that need not be carried."""
    result = np.zeros(states.shape[1], np.int64)
    result[:COUNTS] = states[:, :COUNTS].sum(axis=0)
    for start in range(COUNTS, states.shape[1], SUM_WORDS):
        digits = start + FIRST_DIGIT
        result[start:digits] = states[:, start:digits].sum(axis=0)
        part = states[:, digits : start + SUM_WORDS]
        lower, upper = (part & DIGIT_MASK).sum(axis=0), (part >> DIGIT_BITS).sum(axis=0)
        result[digits : start + SUM_WORDS] = lower
        result[digits + 1 : start + SUM_WORDS] += upper[:-1]
        result[start + SUM_WORDS - 1] += upper[-1] << DIGIT_BITS
    return combine(result, np.zeros(result.size, np.int64))
