"""The accumulator: what users call, and the algebra of states. The arithmetic is elsewhere."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from . import arrays, cpu, exact, stored
from .exact import COUNT, NONZERO, SKIPPED, STATE_WORDS, TERMS, WEIGHTS, Words
from .losses import PRECOMPUTED, USER_FUNCTION, Formula, Loss, as_loss
from .reduction import Reduction, as_reduction, quotient, reduce

NanPolicy: TypeAlias = Literal["propagate", "omit", "raise"]


class Accumulator:
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

    Notes
    -----
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

    An update lands whole or not at all: after any exception the state is what it was. Concurrent updates of one
    accumulator are safe.

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

    __slots__ = ("__weakref__", "_lock", "_loss", "_nan", "_reduction", "_state")

    def __init__(
        self,
        loss: str | Loss | Formula = "squared_error",
        *,
        reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
        nan: NanPolicy = "propagate",
    ) -> None:
        if nan not in get_args(NanPolicy):
            raise ValueError(f"nan must be one of {', '.join(get_args(NanPolicy))}, got {nan!r}")
        self._loss = as_loss(loss)
        self._reduction = as_reduction(reduction)
        self._nan = nan
        self._lock = threading.Lock()
        self._state: Words = np.zeros(STATE_WORDS, np.int64)  # replaced, never changed in place
        if not self._loss.is_builtin:
            cpu.check_formula(self._loss)

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
            Of the shape of labels: receives the terms weight * loss of this chunk, NaN for elements left out. After an
            exception its content is undefined.

        Returns
        -------
        Accumulator
            Itself.

        Raises
        ------
        ValueError
            For shapes that do not fit, and for NaN where the policy is "raise".
        TypeError
            For what is not an array of real numbers in host memory.

        Examples
        --------
        >>> import streamloss
        >>> streamloss.Accumulator().update([[1, 9, 2], [-5, -2, 6]], [[4, 8, 12], [8, 1, 3]], [1.2, 3.4]).result("sum")
        767.8000000000001

        """
        return self._add(self._loss, labels, predictions, weights, mask, out)

    def update_losses(
        self,
        losses: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        *,
        mask: npt.ArrayLike | None = None,
        out: npt.NDArray[np.floating[Any]] | None = None,
    ) -> Accumulator:
        """Add a chunk of losses that have been computed already; otherwise as `update`.

        Examples
        --------
        >>> import streamloss
        >>> streamloss.Accumulator().update_losses([1e300, 1.0, -1e300]).result("sum")
        1.0

        """
        return self._add(PRECOMPUTED, losses, arrays.COMPUTED, weights, mask, out)

    def _add(self, loss: Loss, labels: Any, predictions: Any, weights: Any, mask: Any, out: Any) -> Accumulator:
        chunk = arrays.chunk(labels, predictions, weights, mask, out)
        before = self._state
        after = cpu.added(loss, chunk, self._nan != "propagate", before)
        if self._nan == "raise" and after[SKIPPED] != before[SKIPPED]:
            raise arrays.find_nan(labels, predictions, weights, mask)
        return self._step(before, after)

    def _step(self, before: Words, after: Words) -> Accumulator:
        """Take the step from one state to another, whole or not at all, whatever state other threads have led to."""
        taken = False
        try:
            with self._lock:
                state = after if self._state is before else exact.combine(self._state, after - before)
                self._state, taken = state, True
        except BaseException:
            if taken:  # KeyboardInterrupt came while the lock was let go
                with self._lock:
                    self._state = exact.combine(self._state, before - after)
            raise
        return self

    # ------------------------------------------------------------------------------------------- asking

    def result(self, reduction: str | Reduction | None = None) -> float:
        """The loss so far; asking changes nothing and may be repeated.

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
        return reduce(self._state, self._reduction if reduction is None else as_reduction(reduction))

    @property
    def loss(self) -> Loss:
        """The loss, with its parameters."""
        return self._loss

    @property
    def reduction(self) -> Reduction:
        """What `result()` returns unless told otherwise."""
        return self._reduction

    @property
    def nan(self) -> NanPolicy:
        """What becomes of elements with NaN."""
        return self._nan

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
        for other in others:
            if not isinstance(other, Accumulator):
                raise TypeError(f"others must be accumulators, got {type(other).__name__}")
            self._check_same_loss(other)
        before = after = self._state
        for other in others:
            after = exact.combine(after, other._state)
        return self._step(before, after)

    def __add__(self, other: object) -> Accumulator:
        """A new accumulator that has seen what both have: commutative and associative, to the bit."""
        if not isinstance(other, Accumulator):
            return NotImplemented
        return self.copy().merge(other)

    def __radd__(self, other: object) -> Accumulator:
        """Makes sum(accumulators) work, which starts from 0."""
        if isinstance(other, int) and other == 0:
            return self.copy()
        return NotImplemented

    def __sub__(self, other: object) -> Accumulator:
        """A new accumulator without what the other has seen: (a + b) - b == a, to the bit.

        Raises ValueError for another loss, and where the counts show that the other was never part of this one.
        """
        if not isinstance(other, Accumulator):
            return NotImplemented
        self._check_same_loss(other)
        state = exact.combine(self._state, -other._state)
        exact.check_counts(state, "what is taken out was never in: the counts would be negative")
        return self._with(state)

    def _check_same_loss(self, other: Accumulator) -> None:
        if self._loss != other._loss:
            raise ValueError(f"the losses differ: {self._loss!r} here, {other._loss!r} there")

    def __eq__(self, other: object) -> bool:
        """Whether both have seen the same: equal losses and equal exact sums and counts."""
        if not isinstance(other, Accumulator):
            return NotImplemented
        return self._loss == other._loss and bool(np.array_equal(self._state, other._state))

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Accumulator:
        """An independent accumulator that has seen the same."""
        return self._with(self._state)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Accumulator:
        return self.copy()

    def reset(self) -> Accumulator:
        """Forget all that was seen."""
        with self._lock:
            self._state = np.zeros(STATE_WORDS, np.int64)
        return self

    def __repr__(self) -> str:
        shown = Reduction.SUM if self._reduction is Reduction.NONE else self._reduction
        skipped = f", skipped={self.skipped_count:_}" if self.skipped_count else ""
        return f"Accumulator({self._loss!r}, n={self.count:_}{skipped}, {shown}={self.result(shown)!r})"

    # ------------------------------------------------------------------------------------------- keeping

    def _with(self, state: Words) -> Accumulator:
        made = Accumulator.__new__(type(self))
        made._loss, made._reduction, made._nan = self._loss, self._reduction, self._nan
        made._lock, made._state = threading.Lock(), state
        return made

    @property
    def state(self) -> Words:
        """The state, a copy: int64, the same words for the same exact sums.

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
        """The accumulator with this state, which may be a sum of states.

        Raises TypeError for another dtype than int64 and ValueError for another length or negative counts.

        Examples
        --------
        >>> import streamloss
        >>> a, b = streamloss.Accumulator().update(1, 3), streamloss.Accumulator().update(1, 2)
        >>> streamloss.Accumulator.from_state(a.state + b.state) == a + b
        True

        """
        return cls(loss, reduction=reduction, nan=nan)._with(exact.checked_state(state))

    def to_bytes(self) -> bytes:
        """The accumulator in about 1 KiB: little-endian, versioned, with a checksum; see `streamloss.stored`."""
        return stored.encode(self._loss.spec, str(self._reduction), self._nan, self._state)

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
        name, reduction, nan, state = stored.decode(data)
        if loss is None and name.startswith(USER_FUNCTION):
            raise ValueError(f"the data is of a {name}: pass that function as loss=")
        made = as_loss(name if loss is None else loss)
        if made.spec != name:
            raise ValueError(f"the data is of the loss {name!r}, got loss={made!r}")
        return cls.from_state(state, made, reduction=reduction, nan=cast(NanPolicy, nan))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_bytes()` to a file: whole, or not at all."""
        stored.write(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, loss: Loss | Formula | None = None) -> Accumulator:
        """Read what `save` wrote; the arguments and errors of `from_bytes`, and OSError."""
        try:
            return cls.from_bytes(Path(path).read_bytes(), loss=loss)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), self._loss, str(self._reduction), self._nan, self._state.tobytes())


def _unpickle(cls: type[Accumulator], loss: Loss, reduction: str, nan: NanPolicy, state: bytes) -> Accumulator:
    return cls.from_state(np.frombuffer(state, np.int64), loss, reduction=reduction, nan=nan)
