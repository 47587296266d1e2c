"""Adding a chunk to the partial states of an accumulator on devices: the door for device arrays, and the launches."""

from __future__ import annotations

import math
import numbers
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import arrays
from ..arrays import COMPUTED
from ..chunks import stage
from ..exact import STATE_WORDS, Words, combine
from ..losses import Loss
from . import compiling, devices, views
from .devices import Device, Launch, Partial, driver
from .elements import Form
from .views import ITEMSIZE, Borrowed, View

MOST_PLANS = 4096  # of forms and shapes; loops over data have few


class Views(NamedTuple):
    """The arguments of an update, checked: views that have, or may be spread to, the shape of labels."""

    labels: View
    predictions: View
    weights: View | float | None
    mask: View | None
    out: View | None


# ------------------------------------------------------------------------------------------------ the door


def checked(labels: Any, predictions: Any, weights: Any, mask: Any, out: Any) -> Views:
    """Check the arguments of an update that has device arrays; every refusal names the argument."""
    if predictions is COMPUTED:
        y = p = _view("losses", labels)
    else:
        y, p = _view("labels", labels), _view("predictions", predictions)
        if y.shape != p.shape:
            raise ValueError(f"labels and predictions must have the same shape, got {y.shape} and {p.shape}")
    masks: list[Any] = []  # of one weight for all, a numpy.ma array
    w = weights if weights is None else _weights(weights, y.shape, masks)
    k = mask if mask is None else _mask(mask, y)
    if any(masked != keep for masked, keep in masks):
        k = _mask(False, y)
    o = out if out is None else _out(out, y.shape)
    operands = Views(y, p, w, k, o)
    for name, operand in zip(("predictions", "weights", "mask", "out"), operands[1:], strict=True):
        if isinstance(operand, View) and operand.device != y.device:
            raise TypeError(f"{name} must lie on the device of labels, {y.device}, got one on {operand.device}")
    if o is not None and any(isinstance(operand, View) and _overlap(o, operand) for operand in operands[:4]):
        raise arrays.shared_out()
    return operands


def _view(name: str, value: Any) -> View:
    if not arrays.on_device(value):
        raise TypeError(
            f"{name} must lie on a CUDA device, as the other arrays of this update do, got {type(value).__name__};"
            " copy one to where the others are"
        )
    return views.view(name, value)


def _weights(weights: Any, shape: tuple[int, ...], masks: list[Any]) -> View | float:
    if isinstance(weights, (numbers.Real, np.generic)) or (isinstance(weights, np.ndarray) and weights.ndim == 0):
        return float(stage(arrays.as_numbers("weights", weights, masks))[0])
    return views.broadcast("weights", _view("weights", weights), shape)


def _mask(mask: Any, labels: View) -> View | None:
    if isinstance(mask, (bool, np.bool_)) or (type(mask) is np.ndarray and mask.ndim == 0 and mask.dtype == bool):
        nothing = View(devices.of(labels.device).nothing, "?", (), (), 0, labels.device, None, None)
        return None if mask else views.broadcast("mask", nothing, labels.shape)
    array = _view("mask", mask)
    if array.code != "?":
        raise arrays.no_mask(views.DTYPES[array.code])
    return views.broadcast("mask", array, labels.shape)


def _out(out: Any, shape: tuple[int, ...]) -> View:
    array = _view("out", out)
    interface = {} if hasattr(out, "data_ptr") else getattr(out, "__cuda_array_interface__", {})
    is_read_only = interface.get("data", (0, False))[1]
    arrays.check_out(array, views.DTYPES[array.code], shape, not is_read_only, 1)
    return array


def _overlap(a: View, b: View) -> bool:
    """Return whether two arrays share memory, or interleave."""
    return a.address < b.address + b.extent * ITEMSIZE[b.code] and b.address < a.address + a.extent * ITEMSIZE[a.code]


# ------------------------------------------------------------------------------------------------ launches


def plan(device: Device, loss: Loss, operands: Views, omit: bool, words: int) -> list[Launch]:
    """Return the launches that add a chunk to a state of so many words."""
    key = (
        loss.fingerprint,
        loss.values,
        omit,
        words,
        *map(described, operands),
    )
    launches = device.plans.get(key)
    if launches is None:
        launches = _launches(device, loss, key[4:], omit, words, squares=False)
        if words != STATE_WORDS:
            launches += _launches(device, loss, (*key[4:8], True), omit, words, squares=True)
        if len(device.plans) >= MOST_PLANS:
            device.plans.clear()
        device.plans[key] = launches
    return launches


def described(operand: Any) -> Any:
    """Return what a launch depends on: code, shape, strides and first index of a view, else whether there is None."""
    return operand[1:5] if type(operand) is View else operand is None


def _launches(
    device: Device, loss: Loss, operands: tuple[Any, ...], omit: bool, words: int, *, squares: bool
) -> list[Launch]:
    """Return the launches of one kernel, for operands as `described` returns them."""
    layout = laid_out(device, operands)
    form = Form._make((*layout.kinds, layout.axes, omit, words, squares, False))
    return devices.launches(device, form, loss, layout.arguments, layout.places, layout.size)


class Layout(NamedTuple):
    """The arguments with which a kernel finds the elements of its operands."""

    kinds: list[str]  # of the operands, as a form has them
    axes: int
    arguments: list[Any]  # operands and geometry, without addresses
    places: list[int]  # of the addresses, or values, among them
    size: int  # elements


def laid_out(device: Device, operands: Sequence[Any]) -> Layout:
    """Return the layout of operands as `described` returns them."""
    arrays_ = [View._make((0, *part, device.ordinal, None, None)) for part in operands if isinstance(part, tuple)]
    shape = arrays_[0].shape
    lengths, strides = views.merged(shape, [array.spread(shape) for array in arrays_])
    plain = len(lengths) == 1 and all(s == (1,) for s in strides) and not any(array.first for array in arrays_)
    kinds = [operand[0] if isinstance(operand, tuple) else "" if operand else "1" for operand in operands]
    arguments: list[Any] = []
    places: list[int] = []
    steps: list[int] = []
    left = iter(zip(arrays_, strides, strict=True))
    for operand in operands:
        if isinstance(operand, tuple):
            array, step = next(left)
            places.append(len(arguments) + compiling.ARRAY_ADDRESS)
            arguments += compiling.array(0, ITEMSIZE[array.code], array.extent)
            steps += (*step, array.first)
        else:
            places.append(len(arguments))
            arguments.append(0)
            steps += (0,) * (len(lengths) + 1)
    arguments += [0] * (1 + len(operands)) if plain else [*lengths, *steps]
    return Layout(kinds, 0 if plain else len(lengths), arguments, places, math.prod(shape))


def launch(partial: Partial, loss: Loss, operands: Views, omit: bool, stream: int) -> None:
    """Queue the kernels that add a chunk to a partial state: all of them, or none."""
    launches = plan(partial.device, loss, operands, omit, partial.words)
    queued: list[Any] = []
    try:
        for one in launches:
            partial.queue(one, operands, stream, queued)
    except KeyboardInterrupt:
        for one in launches[len(queued) :] if queued else ():  # what is queued cannot be taken back
            partial.queue(one, operands, stream, queued)
        raise


def streams_of(operands: Sequence[Any]) -> list[int]:
    """Return the producers' streams. The first is the one to launch on: it waits for the others."""
    named = [_normal(view.stream) for view in operands if type(view) is View and view.stream is not None]
    first, *others = dict.fromkeys(named) or [driver.LEGACY]
    for other in others:
        _follow(first, other)
    return [first, *others]


def _normal(stream: int) -> int:
    return driver.LEGACY if stream in (0, views.LEGACY_STREAM) else stream


def _follow(stream: int, other: int) -> None:
    """Let a stream wait for what is queued on another."""
    event = driver.Event()
    event.record(other)
    event.hold(stream)


def hand_back(streams: list[int]) -> None:
    """Let the others wait for the first: what is queued on them next may write to their arrays, or use their memory."""
    for other in streams[1:]:
        _follow(other, streams[0])


class Partials:
    """The state of an accumulator on devices: a partial state on each to which it added."""

    def __init__(self, words: int) -> None:
        self._words = words
        self._partials: dict[int, Partial] = {}
        self._lock = threading.Lock()
        self._fetched: Words | None = np.zeros(words, np.int64)  # the state, if nothing came since

    def add(self, loss: Loss, operands: Views, omit: bool) -> None:
        """Queue an update with device arrays."""
        if 0 in operands.labels.shape:
            return
        device = devices.of(operands.labels.device)
        with self._lock, device.context:
            streams = streams_of(operands)
            driver.check_not_captured(streams[0])
            launch(self._of(device), loss, operands, omit, streams[0])
            hand_back(streams)
            for view in operands:
                if type(view) is View and type(view.owner) is Borrowed:
                    device.keep(view.owner, streams[0])

    @contextmanager
    def on(self, device: Device) -> Iterator[Partial]:
        """Lock the partial state on a device, to add to it."""
        with self._lock, device.context:
            yield self._of(device)

    def _of(self, device: Device) -> Partial:
        self._fetched = None
        partial = self._partials.get(device.ordinal)
        if partial is None:
            partial = self._partials[device.ordinal] = Partial(device, self._words)
        return partial

    def fetch(self) -> Words:
        """Wait for the devices, and return the state."""
        with self._lock:
            if self._fetched is None:
                state = np.zeros(self._words, np.int64)
                for partial in self._partials.values():
                    state = combine(state, partial.fetch())
                self._fetched = state
            return self._fetched


def alone(loss: Loss, operands: Views, words: int) -> Words:
    """Wait for the device, and return the state of one chunk without its elements with NaN."""
    if math.prod(operands.labels.shape) == 0:
        return np.zeros(words, np.int64)
    device = devices.of(operands.labels.device)
    with device.context:
        stream = streams_of(operands)[0]
        driver.check_not_captured(stream)
        partial = Partial(device, words)
        launch(partial, loss, operands, True, stream)
    return partial.fetch()


def add_to(memory: int, loss: Loss, operands: Views, omit: bool, words: int) -> None:
    """Queue an update for SLOTS states at an address on the device of the operands; their sum is the state."""
    if operands.labels.size:
        device = devices.of(operands.labels.device)
        with device.context:
            streams = streams_of(operands)
            partial = Partial(device, words, memory)
            launch(partial, loss, operands, omit, streams[0])
            if operands.labels.size > devices.CARRY_AFTER:  # the caller adds up all slots
                partial.carry(streams[0])
            hand_back(streams)


def find_nan(operands: Views) -> arrays.NanFoundError:
    """Return the error for the first NaN among the elements that the mask keeps, found in copies on the host."""
    y, p, w, k = (views.as_host(part) if isinstance(part, View) else part for part in operands[:4])
    return arrays.find_nan(y, COMPUTED if operands.predictions is operands.labels else p, w, k)
