"""The streams of all reference APIs: one class that adds, merges and reads; subclasses check arguments and reduce."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..accumulator import Accumulator
from ..chunks import BFLOAT16, stage
from ..losses import Loss
from ..reduction import Reduction

Array: TypeAlias = npt.NDArray[Any]
Result: TypeAlias = Any  # a NumPy scalar, or an array where nothing is reduced
FLOAT32 = np.dtype(np.float32)  # what all three frameworks make of a Python float


class OwnLoss(Loss):
    """A loss that only a reference API has: its formula, a function of a module of ours, and its parameters."""

    def __reduce__(self) -> tuple[Any, ...]:
        return own_loss, (self.formula, dict(self.parameters))


def own_loss(formula: Callable[..., float], parameters: dict[str, float]) -> Loss:
    """Return the loss with that formula; it is compiled and cached as those of `streamloss.losses` are."""
    return OwnLoss(formula.__name__, formula, parameters, is_ours=True)


class Argument(NamedTuple):
    """The numbers of an argument, and the dtype that it asks of the result: None for integers, which ask for none."""

    array: Array
    dtype: np.dtype[Any] | None


def read(name: str, value: Any) -> Argument:
    """Read anything array-like in host memory; ValueError for None, TypeError for masked arrays."""
    if value is None:
        raise ValueError(f"Argument `{name}` must not be None.")
    masks: list[tuple[Array, bool]] = []
    array = arrays.as_array(name, value, masks)
    if masks:
        raise TypeError(f"{name} is a masked array: the reference APIs have no masks, pass weights of 0 and 1 instead")
    if array.dtype == BFLOAT16 or array.dtype.name == "bfloat16":  # NumPy has no such dtype of its own
        return Argument(stage(array.view(BFLOAT16)).reshape(array.shape), FLOAT32)
    if not hasattr(value, "dtype"):
        return Argument(array, FLOAT32)
    return Argument(array, array.dtype.newbyteorder("=") if array.dtype.kind == "f" else None)


def promoted(*dtypes: np.dtype[Any] | None) -> np.dtype[Any] | None:
    """Return the dtype that arrays of these promote to; None where none of them asks for one."""
    asked = [dtype for dtype in dtypes if dtype is not None]
    return np.result_type(*asked) if asked else None


def as_result(values: Any, dtype: np.dtype[Any] | None) -> Result:
    """Round float64 values to the dtype of a result."""
    with np.errstate(all="ignore"):
        return np.asarray(values, np.float64).astype(dtype or FLOAT32)[()]


class Seen(NamedTuple):
    """All that a stream has seen. Two of them add up, and an empty one adds nothing: update and merge are additions."""

    accumulator: Accumulator
    dtype: np.dtype[Any] | None = None
    last_axes: frozenset[int] = frozenset()  # see `keras.Stream`

    def __add__(self, other: Any) -> Seen:
        accumulator = self.accumulator + other.accumulator
        return Seen(accumulator, promoted(self.dtype, other.dtype), self.last_axes | other.last_axes)


class Measured(NamedTuple):
    """One chunk: all that it adds to a stream, and its losses, weighted and not reduced, if they were asked for."""

    seen: Seen
    unreduced: Array | None


class Stream(ABC):
    """A loss over any number of chunks, in constant memory; `update` takes the arguments of its framework.

    On any chunking the result has the bits that the one-shot call gives on the concatenated data: the call is one
    update of a stream. Nothing is kept where nothing is reduced: `update(..., out=array)` writes the losses of the
    chunk, and `result` raises ValueError. Streams can be pickled, and updated by several threads.
    """

    def __init__(self, loss: Loss, reduction: str | None) -> None:
        self._loss, self._reduction = loss, reduction
        self._seen = Seen(Accumulator(loss))
        self._lock = threading.Lock()

    @abstractmethod
    def _measure(self, labels: Any, predictions: Any, weights: Any, unreduced: bool) -> Measured:
        """Check the arguments of an update, by the framework's rules, and measure the chunk."""

    @abstractmethod
    def _value(self, seen: Seen) -> float:
        """Reduce by the framework's formula."""

    def _joined(self, seen: Seen, more: Seen) -> Seen:
        """Return the sum of the two; ValueError if they do not go together."""
        return seen + more

    def _update(self, labels: Any, predictions: Any, weights: Any, out: Array | None) -> Self:
        measured = self._measure(labels, predictions, weights, out is not None)
        if out is not None and measured.unreduced is not None:
            _write(out, measured.unreduced)
        with self._lock:
            self._seen = self._joined(self._seen, measured.seen)
        return self

    def once(self, labels: Any, predictions: Any, weights: Any) -> Result:
        """Return the result of a new stream after this one update: the one-shot call. This stream stays as it is."""
        unreduced = self._reduction in (None, "none")
        seen, losses = self._measure(labels, predictions, weights, unreduced)
        return as_result(losses if unreduced else self._value(seen), seen.dtype)

    def result(self) -> Result:
        """Return the loss so far, a NumPy scalar; asking changes nothing. ValueError where nothing is reduced."""
        seen = self._seen
        if self._reduction in (None, "none"):
            raise ValueError("without a reduction every loss is a result: pass out=array to update(), or call the loss")
        return as_result(self._value(seen), seen.dtype)

    def reset(self) -> Self:
        """Forget all that was seen."""
        with self._lock:
            self._seen = Seen(Accumulator(self._loss))
        return self

    def merge(self, *others: Self) -> Self:
        """Add what other streams have seen; they stay as they are, and an empty one changes nothing.

        Raises TypeError for anything but streams of the same class, and ValueError for another loss or reduction.
        """
        for other in others:
            if type(other) is not type(self):
                raise TypeError(f"others must be streams of {_full_name(type(self))}, got {_full_name(type(other))}")
            if (other._loss, other._reduction) != (self._loss, self._reduction):
                raise ValueError(f"streams differ: {self!r} here, {other!r} there")
        with self._lock:
            self._seen = reduce(self._joined, [other._seen for other in others], self._seen)
        return self

    def __repr__(self) -> str:
        return f"<stream of {self._loss!r}, reduction={self._reduction!r}, n={self._seen.accumulator.count:_}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


def measure(
    loss: Loss | None, labels: Array, predictions: Array, weights: Any, dtype: np.dtype[Any] | None, unreduced: bool
) -> Measured:
    """Measure a chunk with a weight for each element; without a loss, the labels are losses, computed already.

    The unreduced losses take one kernel for all kinds of weights: weight * loss is one rounding here as there.
    """
    accumulator = Accumulator(loss or "squared_error")
    if unreduced:
        labels, loss = element_losses(loss, labels, predictions), None
    if loss is None:
        accumulator.update_losses(labels, weights)
    else:
        accumulator.update(labels, predictions, weights)
    with np.errstate(all="ignore"):
        return Measured(Seen(accumulator, dtype), labels * np.asarray(weights, np.float64) if unreduced else None)


def element_losses(loss: Loss | None, labels: Array, predictions: Array) -> Array:
    """Return the loss of every element, in float64; without a loss, the labels are losses already."""
    out = np.empty(labels.shape)
    if loss is None:
        Accumulator().update_losses(labels, out=out)
    else:
        Accumulator(loss).update(labels, predictions, out=out)
    return out


def safe(accumulator: Accumulator, reduction: Reduction, denominator: float) -> float:
    """Return the quotient, or 0.0 if its denominator is 0, whatever the numerator."""
    return 0.0 if denominator == 0 else accumulator.result(reduction)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _write(out: Array, values: Array) -> None:
    if not isinstance(out, np.ndarray) or out.dtype.kind != "f":
        raise TypeError(f"out must be a NumPy array of floats, got {getattr(out, 'dtype', type(out).__name__)}")
    if out.shape != values.shape or not out.flags.writeable:
        raise ValueError(f"out must be a writable array of shape {values.shape}, got shape {out.shape}")
    with np.errstate(all="ignore"):
        out[...] = values
