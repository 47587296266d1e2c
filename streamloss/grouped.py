"""The accumulator of groups: one exact state for each key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import _threads, arrays, exact, html, keys, stored
from .accumulator import Accumulator
from .cpu.groups import add_states, added
from .cpu.updates import Adder, of_losses
from .cuda import backend
from .exact import COUNT, NONZERO, SKIPPED, STATE_WORDS, STDERR_WORDS, Words
from .keys import Key
from .losses import Formula, Loss
from .mergeable import Mergeable, NanPolicy, loss_of
from .reduction import Reduction, reduce, standard_error

Default = TypeVar("Default")
SHOWN = 50  # groups, in a notebook


class GroupedAccumulator(Mergeable):
    """An exact, weighted loss for each group of rows: what an `Accumulator` per key would give, to the bit.

    Parameters
    ----------
    loss, reduction, nan, stderr
        As for `Accumulator`.

    Notes
    -----
    A group is there if one of its elements is, skipped elements included. Groups are listed by their keys in ascending
    order, None (null) first. A state takes about 1 KiB (3 KiB with `stderr`), so 100,000 groups take some 120 MB,
    and as much again while rows of all of them are added at once. Rows that all have one key, as in sorted data, are
    added as fast as without groups.

    Device arrays are added on their device. Their keys may lie in host memory or there, but are looked up on the host:
    so each update waits for the device, where an `Accumulator` does not.

    Examples
    --------
    >>> import streamloss
    >>> acc = streamloss.GroupedAccumulator()
    >>> acc.update([1.0, 2.0, 3.0], [2.0, 2.0, 5.0], by=["AA", "UA", "AA"])
    GroupedAccumulator(squared_error, groups=2, n=3, sum_by_nonzero_weights=1.6666666666666667)
    >>> acc.result()
    {'AA': 2.5, 'UA': 0.0}
    >>> acc["AA"]
    Accumulator(squared_error, n=2, sum_by_nonzero_weights=2.5)

    """

    __slots__ = ("_adder", "_kinds", "_rows", "_states")

    def __init__(
        self,
        loss: str | Loss | Formula = "squared_error",
        *,
        reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
        nan: NanPolicy = "propagate",
        stderr: bool = False,
    ) -> None:
        super().__init__(loss, reduction=reduction, nan=nan, stderr=stderr)
        self._adder = Adder(self._loss, nan != "propagate")
        self._lock = _threads.lock()  # it is held for as long as adding takes
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[Key, int] = {}  # the row of each key in the states
        self._kinds: tuple[str | None, ...] | None = None  # the kinds of the columns of keys
        self._states: Words = np.zeros((0, STDERR_WORDS if self._stderr else STATE_WORDS), np.int64)

    # ------------------------------------------------------------------------------------------- adding

    def update(
        self,
        labels: npt.ArrayLike,
        predictions: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        *,
        by: Any,
        mask: npt.ArrayLike | None = None,
        out: npt.NDArray[np.floating[Any]] | None = None,
    ) -> GroupedAccumulator:
        """Add a chunk.

        Parameters
        ----------
        labels, predictions, weights, mask, out
            As for `Accumulator.update`; labels need a leading dimension, that of the rows.
        by : array_like, tuple of array_like, or frame
            The key of each row: an array of integers, strings, bools or floats of length rows, in which None, NaN, NaT
            and what a numpy.ma mask hides are the key None, a group of its own; or one key for all rows; or a tuple of
            such columns, whose keys are tuples. Times are text, and text such as "2026-01-31 12:00:00.50" is the same
            key as that time: "2026-01-31T12:00:00.5".

        Returns
        -------
        GroupedAccumulator
            Itself.

        Raises
        ------
        ValueError, TypeError
            As `Accumulator.update`, and for keys of another number than rows, or of another kind than those so far.

        """
        return self._add(self._adder, labels, predictions, weights, by, mask, out)

    def update_losses(
        self,
        losses: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        *,
        by: Any,
        mask: npt.ArrayLike | None = None,
        out: npt.NDArray[np.floating[Any]] | None = None,
    ) -> GroupedAccumulator:
        """Add a chunk of losses that have been computed already; otherwise as `update`."""
        return self._add(of_losses(self._adder.omit), losses, arrays.COMPUTED, weights, by, mask, out)

    def _add(
        self, adder: Adder, labels: Any, predictions: Any, weights: Any, by: Any, mask: Any, out: Any
    ) -> GroupedAccumulator:
        if arrays.on_device(labels):
            return self._add_where_it_lies(adder.loss, labels, predictions, weights, by, mask, out)
        arguments = arrays.checked(labels, predictions, weights, mask, out)
        shape = arguments.labels.shape
        codes, found, kinds = self._looked_up(by, shape)
        if len(found) == 1 or _are_equal(codes):  # as in sorted data
            found = [found[codes[0]]] if codes.size else []
            alone = np.zeros(self._states.shape[1], np.int64)
            states = adder.added_chunk(arrays.laid_out(arguments), alone)[np.newaxis]
        else:
            chunk = arrays.laid_out(arguments, codes.reshape(codes.shape + (1,) * (len(shape) - 1)))
            states = added(adder.loss, chunk, adder.omit, len(found), self._states.shape[1])
        if self._nan == "raise" and states[:, SKIPPED].any():
            raise arrays.find_nan(labels, predictions, weights, mask)
        return self._step(found, kinds, states, 1)

    def _add_where_it_lies(
        self, loss: Loss, labels: Any, predictions: Any, weights: Any, by: Any, mask: Any, out: Any
    ) -> GroupedAccumulator:
        """Add device arrays on their device, and wait for it."""
        device = backend()
        operands = device.checked(labels, predictions, weights, mask, out)
        codes, found, kinds = self._looked_up(device.on_host(by), operands.labels.shape)
        omit, words = self._nan != "propagate", self._states.shape[1]
        states = device.added_by_groups(loss, operands, codes, len(found), omit, words)
        if self._nan == "raise" and states[:, SKIPPED].any():
            raise device.find_nan(operands)
        return self._step(found, kinds, states, 1)

    def _looked_up(self, by: Any, shape: tuple[int, ...]) -> keys.Keys:
        """Read the keys of the rows of a chunk of that shape, and check their kinds."""
        if not shape:
            raise ValueError("labels must have at least one dimension (the rows that `by` groups), got a scalar")
        read = keys.read(by, shape[0])
        self._check_kinds(read.kinds)
        return read

    def _check_kinds(self, kinds: tuple[str | None, ...]) -> None:
        if self._kinds is None or kinds == self._kinds:
            return
        if len(kinds) != len(self._kinds):
            raise ValueError(f"by must have as many columns as before, {len(self._kinds)}, got {len(kinds)}")
        for number, (old, new) in enumerate(zip(self._kinds, kinds, strict=True)):
            if None not in (old, new) and old != new:
                raise TypeError(f"by must have keys of one kind in a column, got {new} after {old} in column {number}")

    def _check_form(self, key: Key) -> None:
        known = next(iter(self._rows), key)
        if isinstance(key, tuple) != isinstance(known, tuple):
            raise ValueError(f"by must be one column, or a tuple of one, as before: the keys {known!r} and {key!r}")

    def _step(self, found: list[Key], kinds: tuple[str | None, ...], states: Words, sign: int) -> GroupedAccumulator:
        """Add the states of groups to those here, or subtract them: whole, or not at all."""
        if np.count_nonzero(states[:, COUNT]) < len(found):  # some keys may have no rows
            present = _present(states)
            found = [key for key, here in zip(found, present, strict=True) if here]
            states = states[present]
        if not found:
            return self
        done = np.zeros(1, np.int64)
        try:
            with self._lock:
                kinds_before = self._kinds
                self._check_kinds(kinds)
                self._check_form(found[0])
                rows = self._rows_of(found)
                add_states(self._states, rows, states, sign, done)
                if kinds != self._kinds:
                    known = self._kinds or (None,) * len(kinds)
                    self._kinds = tuple(new or old for new, old in zip(kinds, known, strict=True))
        except BaseException:
            if done[0]:  # KeyboardInterrupt came after the states were added
                with self._lock:
                    add_states(self._states, rows, states, -sign, done)
                    self._kinds = kinds_before
            raise
        return self

    def _rows_of(self, found: list[Key]) -> Words:
        """Return the rows of these keys, adding rows for new keys."""
        new = [key for key in found if key not in self._rows]
        wanted = len(self._rows) + len(new)
        if wanted > len(self._states):
            larger = np.zeros((max(wanted, 2 * len(self._states)), self._states.shape[1]), np.int64)
            larger[: len(self._states)] = self._states
            self._states = larger
        for key in new:
            self._rows.setdefault(key, len(self._rows))
        return np.fromiter(map(self._rows.__getitem__, found), np.int64, len(found))

    # ------------------------------------------------------------------------------------------- asking

    def result(self, reduction: str | Reduction | None = None) -> dict[Key, float]:
        """Return the loss of each group so far; see `Accumulator.result`."""
        chosen = self._chosen(reduction)
        found, states = self._canonical()
        return {key: reduce(state, chosen) for key, state in zip(found, states, strict=True)}

    def standard_error(self, reduction: str | Reduction | None = None) -> dict[Key, float]:
        """Return the standard error of each group's result; see `Accumulator.standard_error`."""
        self._check_stderr()
        chosen = self._chosen(reduction)
        found, states = self._canonical()
        return {key: standard_error(state, chosen) for key, state in zip(found, states, strict=True)}

    def total(self) -> Accumulator:
        """Return all groups together: what an `Accumulator` that saw the same rows would be."""
        with self._lock:
            state = self._states.sum(axis=0)
        return self._alone(state)

    def keys(self) -> list[Key]:
        """Return the keys of the groups, in ascending order, None first."""
        return self._canonical()[0]

    def items(self) -> Iterator[tuple[Key, Accumulator]]:
        """Return the groups: each key with an accumulator of its own."""
        found, states = self._canonical()
        return ((key, self._alone(state)) for key, state in zip(found, states, strict=True))

    def values(self) -> Iterator[Accumulator]:
        """Return the groups, each an accumulator of its own, in the order of their keys."""
        return (group for _, group in self.items())

    def get(self, key: Key, default: Default | None = None) -> Accumulator | Default | None:
        """Return the group of that key, a copy, or the default if there is none."""
        group = self._find(key)
        return default if group is None else group

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys())

    def __len__(self) -> int:
        with self._lock:
            return int(_present(self._states).sum())

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return self._row_of(cast(Key, key)) is not None

    def __getitem__(self, key: Key) -> Accumulator:
        """Return the group of that key, a copy; KeyError if there is none."""
        group = self._find(key)
        if group is None:
            raise KeyError(f"no group {key!r} among {len(self)}")
        return group

    def _find(self, key: Key) -> Accumulator | None:
        with self._lock:
            row = self._row_of(key)
            state = None if row is None else self._states[row].copy()
        return None if state is None else self._alone(state)

    def _row_of(self, key: Key) -> int | None:
        """Return the row of a key's state, if it has elements."""
        row = self._rows.get(keys.form_of(key))
        return row if row is not None and _present(self._states[row : row + 1]).all() else None

    @property
    def count(self) -> int:
        """The number of elements, without those masked or skipped: the total of all groups."""
        return self._counted(COUNT)

    @property
    def nonzero_count(self) -> int:
        """The number of elements whose weight is not 0: the total of all groups."""
        return self._counted(NONZERO)

    @property
    def skipped_count(self) -> int:
        """The number of elements left out because of NaN: the total of all groups."""
        return self._counted(SKIPPED)

    def _counted(self, word: int) -> int:
        with self._lock:
            return int(self._states[:, word].sum())

    def _alone(self, state: Words) -> Accumulator:
        return Accumulator.from_state(state, self._loss, reduction=self._reduction, nan=self._nan)

    def _canonical(self) -> tuple[list[Key], Words]:
        """Return the keys in order, and a row of state for each."""
        with self._lock:
            present = _present(self._states)
            found = sorted((key for key, row in self._rows.items() if present[row]), key=keys.order)
            return found, self._states[[self._rows[key] for key in found]]

    # ------------------------------------------------------------------------------------------- algebra

    def merge(self, *others: GroupedAccumulator) -> GroupedAccumulator:
        """Add what other accumulators have seen, group by group; they stay as they are.

        Raises TypeError for what is no grouped accumulator or has keys of another kind, and ValueError for another loss
        or another number of key columns, before anything is merged.
        """
        self._check_others(others)
        if len(others) > 1:
            more = others[0].copy()
            for other in others[1:]:
                more.merge(other)
            others = (more,)
        for other in others:
            found, states = other._canonical()
            self._step(found, keys.kinds_of(found), states, 1)
        return self

    def __sub__(self, other: object) -> GroupedAccumulator:
        """Return a new accumulator without what the other has seen: (a + b) - b == a, to the bit.

        Raises ValueError for another loss, and where what is left shows that the other was never part of this one.
        """
        if not isinstance(other, GroupedAccumulator):
            return NotImplemented
        self._check_addable(other)
        made = self.copy()
        found, states = other._canonical()
        made._step(found, keys.kinds_of(found), states, -1)
        exact.check_left(made._states)
        return made

    def __eq__(self, other: object) -> bool:
        """Whether both have seen the same: equal losses, and equal groups with equal exact sums and counts."""
        if not isinstance(other, GroupedAccumulator):
            return NotImplemented
        if self._loss != other._loss:
            return False
        (found, states), (other_found, other_states) = self._canonical(), other._canonical()
        return found == other_found and bool(np.array_equal(states, other_states))

    __hash__ = None  # accumulators change

    def copy(self) -> GroupedAccumulator:
        """Return an independent accumulator that has seen the same."""
        made = type(self)(self._loss, reduction=self._reduction, nan=self._nan, stderr=self._stderr)
        with self._lock:
            made._rows, made._kinds, made._states = dict(self._rows), self._kinds, self._states.copy()
        return made

    def reset(self) -> GroupedAccumulator:
        """Forget all that was seen."""
        with self._lock:
            self._clear()
        return self

    def __repr__(self) -> str:
        return f"GroupedAccumulator({self._loss!r}, groups={len(self):_}, {self.total()._evidence()})"

    def _repr_html_(self) -> str:
        shown = self._shown
        found, states = self._canonical()
        groups = [(key, self._alone(state)) for key, state in zip(found[:SHOWN], states[:SHOWN], strict=True)]
        rows = [(str(key), f"{group.count:,}", repr(group.result(shown))) for key, group in groups]
        if len(found) > SHOWN:
            rows.append((f"and {len(found) - SHOWN:,} more", "", ""))
        rows.append(("total", f"{self.count:,}", repr(self.total().result(shown))))
        return html.table(repr(self._loss), ("", "elements", str(shown)), rows)

    # ------------------------------------------------------------------------------------------- keeping

    def to_bytes(self) -> bytes:
        """Return a little-endian, versioned format with a checksum; see `streamloss.stored`.

        It takes about 1.2 KiB a group; from a hundred groups on it is compressed, mostly to some 50 bytes a group.
        """
        found, states = self._canonical()
        header = {**self._settings(), "words": states.shape[1], "keys": found}
        return stored.pack(stored.GROUPED, header, states.reshape(-1))

    @classmethod
    def from_bytes(cls, data: bytes, *, loss: Loss | Formula | None = None) -> GroupedAccumulator:
        """Read what `to_bytes` wrote; see `Accumulator.from_bytes`."""
        settings, words = stored.unpack_as(stored.GROUPED, data)
        found, each = settings.get("keys"), settings.get("words")
        if not isinstance(found, list) or each not in (STATE_WORDS, STDERR_WORDS) or words.size != len(found) * each:
            raise ValueError(f"the state has no valid groups: {words.size} words")
        made = cls(
            loss_of(settings, loss),
            reduction=settings["reduction"],
            nan=cast(NanPolicy, settings["nan"]),
            stderr=each == STDERR_WORDS,
        )
        try:
            return made._filled(
                [tuple(key) if isinstance(key, list) else key for key in found], words.reshape(-1, each)
            )
        except TypeError as error:
            raise ValueError(f"the state has no valid keys: {error}") from error

    def _filled(self, found: list[Key], states: Words) -> GroupedAccumulator:
        """Take over groups that come from outside."""
        exact.check_counts(states, "the data has counts that no elements have")
        found = list(map(keys.form_of, found))  # earlier versions kept times as they were written
        return self._step(found, keys.kinds_of(found), states, 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (type(self), self._loss, str(self._reduction), self._nan, self._stderr, *self._canonical())


def _are_equal(codes: keys.Codes) -> bool:
    return bool(codes.size and codes[0] == codes[-1] and (codes == codes[0]).all())


def _present(states: Words) -> npt.NDArray[np.bool_]:
    """Return which rows have seen an element: a group without one does not exist."""
    return (states[:, COUNT] != 0) | (states[:, SKIPPED] != 0)


def _unpickle(
    cls: type[GroupedAccumulator],
    loss: Loss,
    reduction: str,
    nan: NanPolicy,
    stderr: bool,
    found: list[Key],
    states: Words,
) -> GroupedAccumulator:
    return cls(loss, reduction=reduction, nan=nan, stderr=stderr)._filled(found, states)
