"""The accumulator: what users call, and the algebra of states. The arithmetic is elsewhere."""

from __future__ import annotations

import re
import threading
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import arrays, exact, html, stored
from .chunks import Chunk
from .cpu.updates import Adder, of_losses
from .cuda import backend, ordinal
from .exact import COUNT, NONZERO, SKIPPED, STATE_WORDS, STDERR_WORDS, TERMS, WEIGHTS, Words
from .losses import Formula, Loss
from .mergeable import Mergeable, NanPolicy, loss_of
from .reduction import Reduction, quotient, reduce, standard_error

NUMBERS = frozenset({float, np.float64})  # types of single numbers, which are added without an array around them
NUMBER_OR_NONE = NUMBERS | {type(None)}


class Accumulator(Mergeable):
    """An exact, weighted loss over any number of chunks.

    The state is one vector of integers, and everything else is addition. So the result has the same bits for one
    large chunk or many small ones, any order of rows, any number of threads, merged workers and resumed runs.

    Parameters
    ----------
    loss : str, Loss or callable, default "squared_error"
        A name from `streamloss.losses`, with parameters if it has any ("huber(delta=2)"); a `Loss`; or any function
        of two floats, label and prediction, that Numba compiles.
    reduction : str or Reduction, default "sum_by_nonzero_weights"
        What `result()` returns unless told otherwise.
    nan : {"propagate", "omit", "raise"}, default "propagate"
        What becomes of an element whose label, prediction or weight is NaN: IEEE arithmetic; left out of everything
        and counted in `skipped_count`; or a ValueError that says where it is.
    stderr : bool, default False
        Whether to keep the sums of squares that `standard_error()` needs; updates take several times as long.
    device : str, default "auto"
        Where chunks are added: "auto", where their arrays are; "cuda" or "cuda:1", on that device, to which arrays in
        host memory are copied piece by piece. Files and pickles do not keep it: what is read from them is "auto".

    Raises
    ------
    ValueError
        For an unknown loss, reduction, NaN policy or device, and for a parameter out of its domain.
    TypeError
        For a function that does not take two arguments or that Numba cannot compile, and for a `device` that is no str.
    RuntimeError
        For a `device` that is not there; it says what to install where CUDA support is missing.

    Notes
    -----
    Device arrays (torch, CuPy, Numba; JAX through DLPack) are read where they lie, on the stream that produces them,
    and an update waits for nothing: what it adds stays on the device until a result, the state or a copy is asked for.
    Several devices may take part; each keeps its own part until then. Only `nan="raise"` waits, to see whether to
    raise. The bits are those of the CPU, except for a user's function that calls a library (`**`, sin): CUDA's own are
    the same on one kind of device only.

    What the numbers mean:

    1. Inputs are converted exactly to float64: float16, bfloat16, float32, float64, bool and integers (beyond 2**53
       they round to nearest even).
    2. The loss of an element is computed in IEEE float64, every operation rounded once, in the order written. The
       term is weight * loss, one more rounding. For losses made of + - * / sqrt abs min max, comparisons, log, log1p,
       exp and expm1 a term has the same bits on every machine: these four are our own, in users' functions too, with
       errors below one unit in the last place. Losses that call anything else have the same bits on one machine only.
    3. Sums, of terms and of weights, are exact: no rounding, whatever their length, order or split.
    4. A result is the exact sum divided by the exact denominator, rounded once, to nearest even. A zero denominator
       gives NaN.
    5. So for weighted squared error with nonnegative weights the relative error against real arithmetic is at most
       5 * 2**-53, whatever the number of elements, unless a single term overflows or underflows.
    6. NaN and infinite terms and weights are counted, not added: a NaN, or infinities of both signs, makes the sum
       NaN; infinities of one sign make it that infinity. Merging and subtracting stay exact even then.

    An update lands whole or not at all: after any exception the state is what it was (only KeyboardInterrupt may find
    an update of device arrays queued already; then it lands). Concurrent updates of one accumulator are safe.

    Examples
    --------
    >>> import numpy as np, streamloss
    >>> acc = streamloss.Accumulator("squared_error")
    >>> for labels, predictions in [([1, 9, 2], [4, 8, 12]), ([-5, -2, 6], [8, 1, 3])]:
    ...     acc.update(labels, predictions)
    Accumulator(squared_error, n=3, sum_by_nonzero_weights=36.666666666666664)
    Accumulator(squared_error, n=6, sum_by_nonzero_weights=49.5)
    >>> acc.result("sum")
    297.0

    """

    __slots__ = ("_adder", "_base", "_device", "_partials")

    def __init__(
        self,
        loss: str | Loss | Formula = "squared_error",
        *,
        reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
        nan: NanPolicy = "propagate",
        stderr: bool = False,
        device: str = "auto",
    ) -> None:
        super().__init__(loss, reduction=reduction, nan=nan, stderr=stderr)
        self._adder = Adder(self._loss, nan != "propagate")
        # The sum of what was added on the host; it is replaced, never changed in place.
        self._base: Words = np.zeros(STDERR_WORDS if stderr else STATE_WORDS, np.int64)
        self._partials: Any = None  # what was added on devices
        self._device = checked_device(device)

    # ------------------------------------------------------------------------------------------- adding

    def update(
        self,
        labels: npt.ArrayLike,
        predictions: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        *,
        mask: npt.ArrayLike | None = None,
        out: npt.NDArray[np.floating[Any]] | None = None,
    ) -> Accumulator:
        """Add a chunk.

        Parameters
        ----------
        labels, predictions : array_like
            Of exactly equal shapes, any rank, empty too; bool, integers, float16, bfloat16, float32 or float64.
        weights : array_like, optional
            A scalar; or of the rank of labels, every dimension 1 or equal; or of the shape of labels' leading
            dimensions, applied to each sample as a whole. Default 1.
        mask : array_like of bool, optional
            Shaped like weights; an element where it is False was never there.
        out : ndarray of float32 or float64, optional
            Of the shape of labels, and where they are: receives the terms weight * loss of this chunk, NaN for elements
            left out. After an exception its content is undefined.

        Returns
        -------
        Accumulator
            Itself.

        Raises
        ------
        ValueError
            For shapes that do not fit, and for NaN where the policy is "raise".
        TypeError
            For what is not an array of real numbers, for arrays on the host and on a device or on two devices in one
            update, and for a loss that cannot be compiled for CUDA.
        RuntimeError
            For device arrays without CUDA support: it says what to install.

        Examples
        --------
        >>> import streamloss
        >>> streamloss.Accumulator().update([[1, 9, 2], [-5, -2, 6]], [[4, 8, 12], [8, 1, 3]], [1.2, 3.4]).result("sum")
        767.8000000000001

        """
        return self._add(self._adder, labels, predictions, weights, mask, out)

    def update_losses(
        self,
        losses: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        *,
        mask: npt.ArrayLike | None = None,
        out: npt.NDArray[np.floating[Any]] | None = None,
    ) -> Accumulator:
        """Add a chunk of losses that have been computed already.

        Parameters
        ----------
        losses : array_like
            Of any shape; the dtypes of `update`.
        weights, mask, out
            As for `update`, with the shape of losses for that of labels.

        Returns
        -------
        Accumulator
            Itself.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As `update` does.

        Examples
        --------
        >>> import streamloss
        >>> streamloss.Accumulator().update_losses([1e300, 1.0, -1e300]).result("sum")
        1.0

        """
        return self._add(of_losses(self._adder.omit), losses, arrays.COMPUTED, weights, mask, out)

    def _add(self, adder: Adder, labels: Any, predictions: Any, weights: Any, mask: Any, out: Any) -> Accumulator:
        before = self._base
        if type(labels) is not arrays.ARRAY and getattr(labels, "is_cpu", False):  # a tensor of torch
            labels, predictions = arrays.from_torch(labels), arrays.from_torch(predictions)
            weights = arrays.from_torch(weights)
        plain = mask is None and out is None and self._device is None
        operands = arrays.ready(labels, predictions, weights) if plain else None
        if operands is not None:
            after = adder.added(operands, before)
        elif plain and type(labels) in NUMBERS and type(predictions) in NUMBERS and type(weights) in NUMBER_OR_NONE:
            after = adder.added_one(labels, predictions, 1.0 if weights is None else weights, before)
        elif arrays.on_device(labels):
            return self._add_where_it_lies(adder.loss, labels, predictions, weights, mask, out)
        else:
            chunk = arrays.chunk(labels, predictions, weights, mask, out)
            if self._device is not None:
                return self._add_on_device(adder.loss, chunk, labels, predictions, weights, mask)
            after = adder.added_chunk(chunk, before)
        if adder.omit and self._nan == "raise" and after[SKIPPED] != before[SKIPPED]:
            raise arrays.find_nan(labels, predictions, weights, mask)
        return self._step(before, after)

    def _add_on_device(
        self, loss: Loss, chunk: Chunk, labels: Any, predictions: Any, weights: Any, mask: Any
    ) -> Accumulator:
        """Queue a chunk of host arrays for the device; for nan="raise", wait for it first."""
        if self._nan != "raise":
            omit = self._nan == "omit"
            backend().add_staged(self._on_devices(), loss, chunk, omit, self._device, self._base.size)
            return self
        state = backend().alone_staged(loss, chunk, self._device, self._base.size)
        if state[SKIPPED]:
            raise arrays.find_nan(labels, predictions, weights, mask)
        before = self._base
        return self._step(before, exact.combine(before, state))

    def _add_where_it_lies(
        self, loss: Loss, labels: Any, predictions: Any, weights: Any, mask: Any, out: Any
    ) -> Accumulator:
        """Queue a chunk of device arrays on their device."""
        if predictions is not arrays.COMPUTED and not arrays.on_device(predictions):
            raise TypeError(
                "labels lies on a CUDA device, predictions in host memory, expected both in one place; copy one of them"
            )
        updates = backend()
        operands = updates.checked(labels, predictions, weights, mask, out)
        if self._nan != "raise":
            self._on_devices().add(loss, operands, self._nan == "omit")
            return self
        state = updates.alone(loss, operands, self._base.size)
        if state[SKIPPED]:
            raise updates.find_nan(operands)
        before = self._base
        return self._step(before, exact.combine(before, state))

    def _on_devices(self) -> Any:
        """Return the sums kept on devices, made when they are first needed."""
        if self._partials is None:
            with self._lock:
                if self._partials is None:
                    self._partials = backend().Partials(self._base.size)
        return self._partials

    @property
    def _state(self) -> Words:
        """The sum of what was added on the host and on devices, for which it waits."""
        partials = self._partials
        return self._base if partials is None else exact.combine(self._base, partials.fetch())

    def _step(self, before: Words, after: Words) -> Accumulator:
        """Go from one state to another, whole or not at all; what other threads have added meanwhile is kept."""
        taken = False
        try:
            with self._lock:
                state = after if self._base is before else exact.combine(self._base, after - before)
                self._base, taken = state, True
        except BaseException:
            if taken:  # KeyboardInterrupt came while the lock was being released
                with self._lock:
                    self._base = exact.combine(self._base, before - after)
            raise
        return self

    # ------------------------------------------------------------------------------------------- asking

    def result(self, reduction: str | Reduction | None = None) -> float:
        """Return the loss so far; asking changes nothing and may be repeated.

        Parameters
        ----------
        reduction : str or Reduction, optional
            See `streamloss.Reduction`; by default the accumulator's own.

        Returns
        -------
        float
            The quotient of exact sums, rounded once; NaN if its denominator is zero.

        Raises
        ------
        ValueError
            For an unknown name, and for "none": the single losses are not kept.

        """
        return reduce(self._state, self._chosen(reduction))

    def standard_error(self, reduction: str | Reduction | None = None) -> float:
        """Return the standard error of the result, from the same pass; needs `stderr=True`.

        For "mean", S / W, it is that of a weighted mean m = sum(w * x) / sum(w) of n elements with nonzero weight::

            sqrt(n / (n - 1) * sum(w**2 * (x - m)**2)) / sum(w)

        the ratio variance of Cochran (1977), which Gatz and Smith (1995, doi:10.1016/1352-2310(94)00210-C) found
        closest to the bootstrap. Without weights it is the familiar s / sqrt(n). For "sum_over_batch_size" and
        "sum_by_nonzero_weights" it is that of the mean of the n terms w * x, and for "sum" n times that.

        Parameters
        ----------
        reduction : str or Reduction, optional
            By default the accumulator's own.

        Returns
        -------
        float
            From exact sums of squares and products, rounded once; NaN for fewer than two elements, and where a term,
            or a square of one, is not finite. Squares below 2**-1022, of terms below 1e-154, lose bits or vanish.

        Raises
        ------
        ValueError
            Without `stderr=True`, for an unknown name, and for "none".

        Examples
        --------
        >>> import streamloss
        >>> acc = streamloss.Accumulator(stderr=True).update([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0])
        >>> acc.result(), acc.standard_error()
        (7.5, 3.278719262151)

        """
        self._check_stderr()
        return standard_error(self._state, self._chosen(reduction))

    @property
    def device(self) -> str:
        """Where chunks are added: "auto", where their arrays are, or "cuda:N"."""
        return "auto" if self._device is None else f"cuda:{self._device}"

    @property
    def count(self) -> int:
        """The number of elements, without those masked or skipped."""
        return int(self._state[COUNT])

    @property
    def nonzero_count(self) -> int:
        """The number of elements whose weight is not 0."""
        return int(self._state[NONZERO])

    @property
    def skipped_count(self) -> int:
        """The number of elements left out because of NaN."""
        return int(self._state[SKIPPED])

    @property
    def weight_sum(self) -> float:
        """The exact sum of the weights, rounded once."""
        return quotient(exact.section(self._state, WEIGHTS), exact.ONE)

    @property
    def loss_sum(self) -> float:
        """The exact sum of weight * loss, rounded once."""
        return quotient(exact.section(self._state, TERMS), exact.ONE)

    # ------------------------------------------------------------------------------------------- algebra

    def merge(self, *others: Accumulator) -> Accumulator:
        """Add what other accumulators have seen; they stay as they are, and an empty one changes nothing.

        Raises TypeError for what is no accumulator and ValueError for another loss, before anything is merged.
        """
        self._check_others(others)
        before = after = self._base
        for other in others:
            after = exact.combine(after, other._state)
        return self._step(before, after)

    def __sub__(self, other: object) -> Accumulator:
        """Return a new accumulator without what the other has seen: (a + b) - b == a, to the bit.

        Raises ValueError for another loss, and where what is left shows that the other was never part of this one.
        """
        if not isinstance(other, Accumulator):
            return NotImplemented
        self._check_addable(other)
        state = exact.combine(self._state, -other._state)
        exact.check_left(state)
        return self._with(state)

    def __eq__(self, other: object) -> bool:
        """Whether both have seen the same: equal losses and equal exact sums and counts."""
        if not isinstance(other, Accumulator):
            return NotImplemented
        return self._loss == other._loss and bool(np.array_equal(self._state, other._state))

    __hash__ = None  # accumulators change

    def copy(self) -> Accumulator:
        """Return an independent accumulator that has seen the same."""
        return self._with(self._state)

    def reset(self) -> Accumulator:
        """Forget all that was seen."""
        with self._lock:
            self._base, self._partials = np.zeros(self._base.size, np.int64), None
        return self

    def __repr__(self) -> str:
        return f"Accumulator({self._loss!r}, {self._evidence()})"

    def _evidence(self) -> str:
        """Return the number of elements and the result, as `repr` shows them."""
        skipped = f", skipped={self.skipped_count:_}" if self.skipped_count else ""
        return f"n={self.count:_}{skipped}, {self._shown}={self.result(self._shown)!r}"

    def _repr_html_(self) -> str:
        shown = [reduction for reduction in Reduction if reduction is not Reduction.NONE]
        rows = [(str(reduction), *self._numbers(reduction)) for reduction in shown]
        counts = [
            ("elements", self.count),
            ("with nonzero weight", self.nonzero_count),
            ("skipped", self.skipped_count),
        ]
        rows += [(name, f"{number:,}", *[""] * self._stderr) for name, number in counts]
        return html.table(repr(self._loss), ("", "", *["standard error"] * self._stderr), rows)

    def _numbers(self, reduction: Reduction) -> list[str]:
        """Return the result, and its standard error if that is kept."""
        numbers = [self.result(reduction)]
        if self._stderr:
            numbers.append(self.standard_error(reduction))
        return [repr(number) for number in numbers]

    # ------------------------------------------------------------------------------------------- keeping

    def _with(self, state: Words) -> Accumulator:
        made = Accumulator.__new__(type(self))
        made._loss, made._reduction, made._nan = self._loss, self._reduction, self._nan
        made._adder = self._adder
        made._stderr, made._lock, made._base = state.size == STDERR_WORDS, threading.Lock(), state
        made._partials, made._device = None, self._device
        return made

    @property
    def state(self) -> Words:
        """The state, a copy: int64 of shape (145,), or (358,) with `stderr`; the same words for the same exact sums.

        States of equal losses can be added word by word by anything that adds int64 (up to 2**31 of them), and read
        with `from_state`. `streamloss.exact` says what the words mean.
        """
        return self._state.copy()

    @classmethod
    def from_state(
        cls,
        state: npt.ArrayLike,
        loss: str | Loss | Formula = "squared_error",
        *,
        reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
        nan: NanPolicy = "propagate",
    ) -> Accumulator:
        """Return the accumulator with this state, which may be a sum of states.

        Parameters
        ----------
        state : array_like of int64, of shape (145,) or (358,)
            What `state` returned, or the sum of several; the longer one is of an accumulator with `stderr`.
        loss, reduction, nan
            As for `Accumulator`.

        Raises
        ------
        TypeError
            For another dtype than int64.
        ValueError
            For another length or negative counts.

        Examples
        --------
        >>> import streamloss
        >>> a, b = streamloss.Accumulator().update(1, 3), streamloss.Accumulator().update(1, 2)
        >>> streamloss.Accumulator.from_state(a.state + b.state) == a + b
        True

        """
        return cls(loss, reduction=reduction, nan=nan)._with(exact.checked_state(state))

    def to_bytes(self) -> bytes:
        """Return a little-endian, versioned format with a checksum; see `streamloss.stored`.

        It takes about 1.2 KiB, with `stderr` 3 KiB.
        """
        return stored.pack(stored.ACCUMULATOR, self._settings(), self._state)

    @classmethod
    def from_bytes(cls, data: bytes, *, loss: Loss | Formula | None = None) -> Accumulator:
        """Read what `to_bytes` wrote.

        Parameters
        ----------
        data : bytes
            What `to_bytes` returned.
        loss : callable, optional
            The user's own function, where the accumulator was made with one: files keep its name only.

        Raises
        ------
        ValueError
            For data that is damaged, cut, of a later version, or of another loss.

        """
        settings, state = stored.unpack_as(stored.ACCUMULATOR, data)
        nan = cast(NanPolicy, settings["nan"])
        return cls.from_state(state, loss_of(settings, loss), reduction=settings["reduction"], nan=nan)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), self._loss, str(self._reduction), self._nan, self._state.tobytes())


def checked_device(device: str) -> int | None:
    """Return the number of the device that chunks go to, or None for where they are."""
    if not isinstance(device, str):
        raise TypeError(f"device must be a str, got {type(device).__name__}")
    if device == "auto":
        return None
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ValueError(f"device must be 'auto', 'cuda' or 'cuda:N', got {device!r}")
    return ordinal(device)


def _unpickle(cls: type[Accumulator], loss: Loss, reduction: str, nan: NanPolicy, state: bytes) -> Accumulator:
    return cls.from_state(np.frombuffer(state, np.int64), loss, reduction=reduction, nan=nan)
