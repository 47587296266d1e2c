"""Arrays of one leading dimension, whose entries are the rows: in memory, in files, or anything that can be sliced."""

from __future__ import annotations

import itertools
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .ahead import ahead
from .source import Batch, Columns, Position

ELEMENTS = 1 << 22  # of a batch

Box = tuple[slice, ...]


class Named(NamedTuple):
    """Something with shape, dtype and slicing, and where it comes from."""

    name: str  # for messages
    array: Any
    identity: Mapping[str, Any] | None = None  # for JSON; None: nothing can tell that it is the same


class Streamed:
    """An array that is read from beginning to end."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str  # "C" or "F": in which its elements come

    def again(self) -> Streamed:
        """The same array, at its beginning."""
        raise NotImplementedError


class Arrays:
    """Labels, predictions and weights, read in boxes of bounded size."""

    def __init__(
        self, labels: Named, predictions: Sequence[Named], weights: Named | None, by: Sequence[Named], columns: Columns
    ) -> None:
        self.columns = columns
        self._labels, self._predictions, self._weights, self._by = labels, predictions, weights, by
        check(labels, predictions, weights, by)
        shape = tuple(labels.array.shape)
        self.rows: int | None = shape[0] if shape else 1
        every = [labels, *predictions, *([] if weights is None else [weights]), *by]
        self._mapped = [memory for each in every if (memory := _memory(each.array)) is not None]
        self.bytes: int | None = sum(_nbytes(each.array) for each in every)
        identities = [each.identity for each in every]
        self.identity: Mapping[str, Any] | None = (
            None if None in identities else {"arrays": identities, "elements": ELEMENTS}
        )

    def batches(self, start: Position) -> Iterator[Batch]:
        """The boxes after the first `start.offset` ones, which have been read."""
        batches = self._batches(start)
        every = [self._labels, *self._predictions]
        # What lies in memory, or is mapped to it, is read by those who compute.
        return batches if all(isinstance(each.array, np.ndarray) for each in every) else ahead(batches)

    def _batches(self, start: Position) -> Iterator[Batch]:
        shape, rows = tuple(self._labels.array.shape), self.rows or 0
        size, elements = math.prod(shape), 0
        keys = [Keys() for _ in self._by]
        operands = [_begin(self._labels), *map(_begin, self._predictions)]
        weights = None if self._weights is None else _begin(self._weights)
        by = [_begin(each) for each in self._by]
        for number, box in enumerate(boxes(shape, *_layout([self._labels, *self._predictions]))):
            elements += math.prod(each.stop - each.start for each in box)
            if number < start.offset:
                continue
            done = rows * elements // max(1, size)
            end = Position(0, done, done, (self.bytes or 0) * elements // max(1, size), number + 1)
            if elements == size:
                end = Position(1, 0, rows, self.bytes or 0, number + 1)
            yield Batch(
                _read(operands[0], box),
                tuple(_read(each, box) for each in operands[1:]),
                None if weights is None else _read(weights, box),
                tuple(key.encode(_read(each, box)) for key, each in zip(keys, by, strict=True)),
                end,
                partial(_place, box),
            )
            for memory in self._mapped:
                _release(memory)


class Keys:
    """A column of keys: numbers as they are, anything else as codes."""

    def __init__(self) -> None:
        self._coder: Any = None

    def encode(self, values: Any) -> Any:
        """What `GroupedAccumulator.update` takes."""
        if np.asarray(values).dtype.kind in "biuf":
            return values
        if self._coder is None:
            try:
                from .coding import Coder
            except ImportError as error:
                raise ImportError(
                    f"keys of text are coded with Polars: pip install 'streamloss[cli]' ({error})"
                ) from error
            self._coder = Coder()
        return self._coder.encode_array(np.asarray(values))


def boxes(shape: tuple[int, ...], order: str, chunks: tuple[int, ...]) -> Iterator[Box]:
    """Boxes that cover the shape: a chunk, or as many as ELEMENTS allows, grown along the last axes first.

    Without chunks what a box covers lies together in C order; for order "F", grown along the first axes, in Fortran's.
    """
    if 0 in shape:
        return
    axes = range(len(shape))
    steps = [min(chunk, length) for chunk, length in zip(chunks or (1,) * len(shape), shape, strict=True)]
    for axis in reversed(axes) if order == "C" else axes:
        steps[axis] = min(shape[axis], steps[axis] * max(1, ELEMENTS // math.prod(steps)))
    cuts = [[slice(i, min(i + steps[axis], shape[axis])) for i in range(0, shape[axis], steps[axis])] for axis in axes]
    if order == "C":
        yield from itertools.product(*cuts)
    else:
        yield from (box[::-1] for box in itertools.product(*cuts[::-1]))


def _layout(arrays: Sequence[Named]) -> tuple[str, tuple[int, ...]]:
    """In which order to read, and in multiples of what: what lies together should be read together."""
    chunks = getattr(arrays[0].array, "chunks", None) or ()
    orders = {_order(each.array) for each in arrays}
    return "F" if orders == {"F"} else "C", tuple(int(c[0] if isinstance(c, tuple) else c) for c in chunks)


def _order(array: Any) -> str:
    if isinstance(array, np.ndarray):
        return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return str(getattr(array, "order", "C")) if isinstance(array, Streamed) else "C"


def _begin(named: Named) -> Named:
    return named._replace(array=named.array.again()) if isinstance(named.array, Streamed) else named


def _read(named: Named, box: Box) -> Any:
    """What of an array belongs to a box: the leading axes it has, all of an axis of length 1."""
    name, array, _ = named
    cut = tuple(slice(None) if length == 1 else part for length, part in zip(array.shape, box, strict=False))
    try:
        return array[cut] if array.shape else array[()]
    except (OSError, ValueError, TypeError, RuntimeError, EOFError) as error:
        raise ValueError(f"{name} cannot be read: {' '.join(str(error).split())}") from error


def check(labels: Named, predictions: Sequence[Named], weights: Named | None, by: Sequence[Named]) -> None:
    """Refuse what does not hold numbers, and shapes that do not fit, before anything is read."""
    shape = tuple(labels.array.shape)
    roles = [("labels", labels), *(("predictions", each) for each in predictions)]
    for role, each in [*roles, *([] if weights is None else [("weights", weights)])]:
        _check_numbers(role, each)
    for each in predictions:
        if tuple(each.array.shape) != shape:
            raise ValueError(
                f"labels and predictions must have the same shape, got {shape} in {labels.name}"
                f" and {tuple(each.array.shape)} in {each.name}"
            )
    if weights is not None and not _fits(tuple(weights.array.shape), shape):
        raise ValueError(
            "weights must be a scalar, or have the leading dimensions of labels, or as many, each 1 or equal;"
            f" got weights of shape {tuple(weights.array.shape)} in {weights.name} for labels of shape {shape}"
        )
    for each in by:
        if tuple(each.array.shape) != shape[:1] or not shape:
            raise ValueError(
                f"keys must have one dimension, as long as the first of labels, got {tuple(each.array.shape)}"
                f" in {each.name} for labels of shape {shape}"
            )


def _fits(weights: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if len(weights) < len(shape):
        return weights == shape[: len(weights)]
    return len(weights) == len(shape) and all(a in (1, b) for a, b in zip(weights, shape, strict=True))


def _check_numbers(role: str, named: Named) -> None:
    dtype = named.array.dtype
    name = str(dtype).removeprefix("torch.")
    if name == "bfloat16":
        return
    kind = np.dtype(name).kind if name != str(dtype) else getattr(dtype, "kind", "?")
    if kind not in "biuf" or np.dtype(name).itemsize > 8:
        raise TypeError(
            f"{role} must be real numbers (bool, integer or a float of up to 64 bits), got dtype {dtype}"
            f" in {named.name}"
        )


def _nbytes(array: Any) -> int:
    return math.prod(array.shape) * int(array.dtype.itemsize)


def _place(box: Box, index: tuple[int, ...]) -> str:
    return f"row {box[0].start + index[0] if box else 0}"


def _memory(array: Any) -> mmap.mmap | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def _release(memory: mmap.mmap) -> None:
    """Let go of the pages read so far: they would count as the process's memory until the end."""
    if hasattr(memory, "madvise"):
        memory.madvise(mmap.MADV_DONTNEED)
