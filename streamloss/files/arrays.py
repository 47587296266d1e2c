"""Arrays of one leading dimension, whose entries are the rows: in memory, in files, or anything that can be sliced."""

from __future__ import annotations

import itertools
import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..arrays import fits, misfit, no_number
from ..keys import NULL, Coded
from .ahead import ahead
from .paths import check_unchanged
from .source import Batch, Columns, Position

ELEMENTS = 1 << 22  # of a batch, at most, unless a chunk has more

Box = tuple[slice, ...]


class Named(NamedTuple):
    """Something with shape, dtype and slicing, and where it comes from."""

    name: str  # for messages
    array: Any
    identity: Mapping[str, Any] | None = None  # for JSON; None: nothing can tell that it is the same


class Streamed(ABC):
    """An array that is read from beginning to end."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str  # "C" or "F": the order in which its elements come

    @abstractmethod
    def again(self) -> Streamed:
        """Return the same array, to be read from its beginning."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""


class Inputs(NamedTuple):
    """The arrays that a loss is computed from, and those of keys."""

    labels: Named
    predictions: Sequence[Named]
    weights: Named | None
    by: Sequence[Named]

    @property
    def all(self) -> list[Named]:
        """All arrays, keys included."""
        return [self.labels, *self.predictions, *([] if self.weights is None else [self.weights]), *self.by]

    def each(self, change: Callable[[Named], Named]) -> Inputs:
        """Return these inputs with every array changed."""
        weights = None if self.weights is None else change(self.weights)
        return Inputs(change(self.labels), [*map(change, self.predictions)], weights, [*map(change, self.by)])


class Arrays:
    """Labels, predictions and weights, read in boxes of bounded size."""

    def __init__(self, inputs: Inputs, columns: Columns) -> None:
        check(inputs)
        self.columns, self._inputs = columns, inputs
        self._shape = tuple(inputs.labels.array.shape)
        self.rows: int | None = self._shape[0] if self._shape else 1
        self.bytes: int | None = sum(_nbytes(each.array) for each in inputs.all)
        identities = [each.identity for each in inputs.all]
        self.identity: Mapping[str, Any] | None = (
            None if None in identities else {"arrays": identities, "elements": ELEMENTS}
        )
        self.paths: Sequence[str] = [identity["path"] for identity in identities if identity is not None]

    def batches(self, start: Position) -> Iterator[Batch]:
        """Yield the boxes after the first `start.offset`, which have been read already."""
        # Arrays in memory, or mapped to it, are read by the threads that compute.
        at_hand = all(isinstance(each.array, np.ndarray) for each in self._inputs.all)
        return self._batches(start) if at_hand else ahead(self._batches(start))

    def check_unchanged(self) -> None:
        """Raise ValueError if a file is not what it was when it was opened."""
        for each in self._inputs.all:
            if each.identity is not None:
                check_unchanged(each.name, each.identity)

    def _batches(self, start: Position) -> Iterator[Batch]:
        inputs = self._inputs.each(_begin)
        mapped = [memory for each in inputs.all if (memory := _memory(each.array)) is not None]
        keys = [KeyColumn() for _ in inputs.by]
        try:
            for box, end in self._ends():
                if end.offset <= start.offset:
                    continue
                yield Batch(
                    _read(inputs.labels, box),
                    tuple(_read(each, box) for each in inputs.predictions),
                    None if inputs.weights is None else _read(inputs.weights, box),
                    tuple(key.encode(_read(each, box), each.name) for key, each in zip(keys, inputs.by, strict=True)),
                    end,
                    partial(_place, box),
                )
                for memory in mapped:
                    _release(memory)
        finally:
            for each in inputs.all:
                if isinstance(each.array, Streamed):
                    each.array.close()

    def _ends(self) -> Iterator[tuple[Box, Position]]:
        """Yield each box and where it ends; rows are counted in proportion where a box is no whole number of them."""
        size, rows, total = math.prod(self._shape), self.rows or 0, self.bytes or 0
        elements = 0
        layout = _layout([self._inputs.labels, *self._inputs.predictions])
        for number, box in enumerate(boxes(self._shape, *layout), 1):
            elements += math.prod(each.stop - each.start for each in box)
            done = rows * elements // size
            yield box, Position(int(elements == size), done, done, total * elements // size, number)


class KeyColumn:
    """A column of keys: numbers as they are, anything else as codes."""

    def __init__(self) -> None:
        self._coder: Any = None

    def encode(self, values: Any, name: str) -> Any:
        """Return keys as `GroupedAccumulator.update` takes them."""
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
        if isinstance(values, np.ma.MaskedArray) and values.dtype == object:
            values = np.where(np.ma.getmaskarray(values), np.array(None), values.data)
        try:
            codes = self._coder.encode_array(np.asarray(values))
        except UnicodeDecodeError as error:
            raise ValueError(f"keys of bytes must be UTF-8, got {error.object!r:.80} in {name}") from error
        except TypeError as error:
            raise TypeError(f"{error} in {name}") from error
        hidden = np.ma.getmaskarray(values)
        if not hidden.any():
            return codes
        if isinstance(codes, Coded):
            return codes._replace(codes=np.where(hidden, NULL, codes.codes), complete=False)
        return np.ma.array(codes, mask=hidden)


def boxes(shape: tuple[int, ...], order: str, chunks: tuple[int, ...]) -> Iterator[Box]:
    """Yield boxes that cover the shape: each is as many chunks as ELEMENTS allows, but at least one.

    Boxes grow along the last axes first, or, for order "F", along the first ones: without chunks, the elements of a box
    are then contiguous in C order, or in Fortran order.
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
    """Return in which order, and in multiples of which chunks, to read: neighbours are best read together."""
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
    """Read the part of an array that belongs to a box: along the leading axes it has, but all of axes of length 1."""
    name, array, _ = named
    cut = tuple(slice(None) if length == 1 else part for length, part in zip(array.shape, box, strict=False))
    try:
        return array[cut] if array.shape else array[()]
    except MemoryError:
        raise
    except Exception as error:  # damaged data can raise anything
        raise ValueError(f"{name} cannot be read: {' '.join(str(error).split())}") from error


def check(inputs: Inputs) -> None:
    """Refuse what does not hold numbers, and shapes that do not fit, before anything is read."""
    labels, predictions, weights, by = inputs
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
    if weights is not None and not fits(tuple(weights.array.shape), shape):
        raise misfit("weights", tuple(weights.array.shape), shape, f" in {weights.name}")
    for each in by:
        if getattr(each.array.dtype, "kind", "i") not in "biufSUTOM":
            raise TypeError(f"keys must be numbers, bools, text or times, got dtype {each.array.dtype} in {each.name}")
        if tuple(each.array.shape) != shape[:1] or not shape:
            raise ValueError(
                f"keys must have one dimension, as long as the first of labels, got {tuple(each.array.shape)}"
                f" in {each.name} for labels of shape {shape}"
            )


def plain_column(value: Any) -> Any:
    """Return a column of pandas or Polars, of whose types NumPy knows few, as an array; anything else as it is."""
    return value.to_numpy() if type(value).__module__.partition(".")[0] in ("pandas", "polars") else value


def _check_numbers(role: str, named: Named) -> None:
    dtype = named.array.dtype
    name = str(dtype).removeprefix("torch.")
    if name == "bfloat16":
        return
    kind = np.dtype(name).kind if name != str(dtype) else getattr(dtype, "kind", "?")
    if kind not in "biuf" or np.dtype(name).itemsize > 8:
        raise no_number(role, f"{dtype} in {named.name}")


def _nbytes(array: Any) -> int:
    return math.prod(array.shape) * int(array.dtype.itemsize)


def _place(box: Box, index: tuple[int, ...]) -> str:
    return f"row {box[0].start + index[0] if box else 0}"


def _memory(array: Any) -> mmap.mmap | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def _release(memory: mmap.mmap) -> None:
    """Release the pages read so far: they would count as the process's memory until the end."""
    if hasattr(memory, "madvise"):
        memory.madvise(mmap.MADV_DONTNEED)
