"""Chunks: arrays that fit each other, in the form that kernels read.

A chunk whose arrays are contiguous float32 or float64 is read where it lies (`Direct`). Anything else (other dtypes,
strides, numpy.ma masks, weights that do not repeat with one period) is copied piece by piece, never as a whole
(`Staged`), unless it is but one piece. Because a sum has no order, arrays that are both in Fortran order are read as
their transposes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .intrinsics import SEES_VECTORS, VECTOR

Array: TypeAlias = npt.NDArray[Any]
Run: TypeAlias = tuple[Array, int, int]
Shared: TypeAlias = Run | tuple[Array] | tuple[Run]  # in all the forms that cpu/operands.py reads
# One kernel call: labels, predictions, weights, mask, out, first element, end.
Operands: TypeAlias = tuple[
    Array, Array, "float | Array | Shared | None", "Array | Shared | None", "Array | None", int, int
]
Whole: TypeAlias = tuple[Array, Array, Array | None, None, None, int, int]  # the operands of the usual update

FLOAT32, FLOAT64, BOOL = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.bool_)
FLOATS = frozenset({FLOAT32, FLOAT64})  # what kernels read directly
# bfloat16 is not a NumPy dtype of its own: its bits travel under this one.
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])
EXACT_IN_FLOAT32 = frozenset(np.dtype(d) for d in "?bBhHe")

READY = 0x0101  # flags of an array that is C-contiguous and aligned
READY_TRANSPOSED = 0x0102  # flags of an array whose transpose is
PIECE = 1 << 16  # elements that are staged at once: they stay in the second-level cache
LARGEST_PIECE = 1 << 20  # elements that a thread draws at once, at most


class Arguments(NamedTuple):
    """The arguments of an update, checked: labels and predictions of one shape, the others broadcastable to it."""

    labels: Array
    predictions: Array
    weights: float | Array | None
    mask: Array | None
    out: Array | None
    masks: list[tuple[Array, bool]]  # of numpy.ma arrays: a mask, and the value that keeps an element


class Direct:
    """A chunk whose arrays are read where they lie, as one dimension."""

    __slots__ = ("arrays", "codes", "size")

    def __init__(
        self,
        labels: Array,
        predictions: Array,
        weights: float | Array | Shared | None,
        mask: Array | Shared | None,
        out: Array | None,
        codes: Array | Run | None = None,
    ) -> None:
        self.size = labels.size
        self.arrays = labels, predictions, weights, mask, out
        self.codes = codes

    def pieces(self, threads: int, least: int = PIECE) -> range:
        """Return where pieces begin that keep this many threads busy to the end.

        A piece has at least that many elements, or PIECE if that is less.
        """
        share = self.size
        if threads > 1:
            share = max(share // (8 * threads), min(share // threads, PIECE), min(least, PIECE))
        share = max(VECTOR, -(-share // VECTOR) * VECTOR)  # entries of operands may be for VECTOR elements each
        return range(0, self.size, min(share, LARGEST_PIECE))

    def operands(self, piece: int, pieces: range) -> Operands:
        """Return the arguments of the kernel for a piece."""
        stop = min(piece + pieces.step, self.size)
        return (*self.arrays, piece, stop)

    def codes_of(self, piece: int) -> Array | Run:
        """Return the codes of the elements' groups: of the whole chunk, like the other operands."""
        assert self.codes is not None
        return self.codes

    def finish(self, piece: int, operands: Operands) -> None:
        """Do nothing: the kernel wrote into the user's own array."""


class Staged:
    """A chunk of which one piece at a time is copied into a form that kernels read.

    All arrays have the shape of labels, as views; `masks` are pairs of an array and the value that keeps an element.
    """

    __slots__ = ("arrays", "axis", "codes", "masks", "out", "shape", "size", "step")

    def __init__(
        self,
        arrays: tuple[Array, Array, float | Array | None],
        masks: list[tuple[Array, bool]],
        out: Array | None,
        codes: Array | None = None,
    ) -> None:
        self.shape = arrays[0].shape
        self.arrays, self.masks, self.out, self.codes = arrays, masks, out, codes
        self.size = arrays[0].size
        # Pieces are runs of `step` entries along `axis`, and whole in the axes behind it.
        self.axis = next(k for k in range(len(self.shape)) if math.prod(self.shape[k + 1 :]) <= PIECE)
        self.step = max(1, PIECE // max(1, math.prod(self.shape[self.axis + 1 :])))

    def pieces(self, threads: int, least: int = PIECE) -> range:
        """Return the numbers of the pieces, which are as large as they can be in a cache."""
        if self.size == 0:
            return range(0)
        return range(math.prod(self.shape[: self.axis]) * math.ceil(self.shape[self.axis] / self.step))

    def where(self, piece: int) -> tuple[int | slice, ...]:
        """Return the index of a piece in any of the arrays."""
        outer, inner = divmod(piece, math.ceil(self.shape[self.axis] / self.step))
        start = inner * self.step
        index = np.unravel_index(outer, self.shape[: self.axis]) if self.axis else ()
        return (*(int(i) for i in index), slice(start, start + self.step))

    def offset(self, piece: int) -> int:
        """Return the position of a piece's first element, in C order."""
        outer, inner = divmod(piece, math.ceil(self.shape[self.axis] / self.step))
        return (outer * self.shape[self.axis] + inner * self.step) * math.prod(self.shape[self.axis + 1 :])

    def operands(self, piece: int, pieces: range) -> Operands:
        """Copy a piece and return the arguments of the kernel for it."""
        index = self.where(piece)
        labels, predictions = stage(self.arrays[0][index]), stage(self.arrays[1][index])
        weights = self.arrays[2]
        staged_weights = stage(weights[index]) if isinstance(weights, np.ndarray) else weights
        mask: Array | None = None
        for array, keep in self.masks:
            kept = array[index].reshape(-1) == keep
            mask = kept if mask is None else mask & kept
        out = None if self.out is None else np.empty(labels.size)
        return labels, predictions, staged_weights, mask, out, 0, labels.size

    def codes_of(self, piece: int) -> Array:
        """Return the codes of the groups of a piece's elements."""
        assert self.codes is not None
        return np.ascontiguousarray(self.codes[self.where(piece)]).reshape(-1)

    def finish(self, piece: int, operands: Operands) -> None:
        """Copy what the kernel wrote for a piece into the user's array."""
        if self.out is not None and operands[4] is not None:
            target = self.out[self.where(piece)]
            with np.errstate(over="ignore", under="ignore"):  # a float32 may be infinite or 0 where the term is not
                target[...] = operands[4].reshape(target.shape)


Chunk: TypeAlias = Direct | Staged


def as_floats(array: Array) -> Array:
    """Return an array that kernels read, in the smaller of float32 and float64 that holds the values exactly."""
    if array.dtype in FLOATS and array.flags.num & READY == READY:
        return array
    if array.dtype == BFLOAT16:
        upper = array["bfloat16"].astype(np.uint32, order="C")
        upper <<= 16
        return upper.view(np.float32)
    is_narrow = array.dtype in EXACT_IN_FLOAT32 or array.dtype.newbyteorder("=") == FLOAT32
    return array.astype(FLOAT32 if is_narrow else FLOAT64, order="C")


def stage(array: Array) -> Array:
    """Return the values of an array in one dimension, as kernels read them."""
    return as_floats(array).reshape(-1)


class NotInPlaceError(Exception):
    """Raised where an array cannot be read where it lies."""


def in_place(arguments: Arguments, codes: Array | None = None) -> Direct:
    """Make a chunk that is read in place; NotInPlaceError if that cannot be. Codes have the shape (rows, 1, ...).

    Of a chunk of one piece, what is not as kernels read it is copied now, and the copy read in place.
    """
    labels, predictions, weights, mask, out, masks = arguments
    if masks:
        raise NotInPlaceError
    flags = labels.flags.num & predictions.flags.num
    are_floats = labels.dtype in FLOATS and predictions.dtype in FLOATS
    if are_floats and flags & READY == READY:
        pass
    elif are_floats and flags & READY_TRANSPOSED == READY_TRANSPOSED:
        labels, predictions = labels.T, predictions.T
        weights = weights.T if isinstance(weights, np.ndarray) else weights
        mask = None if mask is None else mask.T
        out = None if out is None else out.T
        codes = None if codes is None else codes.T
    elif labels.size <= PIECE:
        same = predictions is labels  # losses that have been computed already
        labels = as_floats(labels)
        predictions = labels if same else as_floats(predictions)
    else:
        raise NotInPlaceError
    if labels.size <= PIECE:
        weights = as_floats(weights) if isinstance(weights, np.ndarray) else weights
        mask = mask if mask is None or mask.flags.num & READY == READY else mask.copy()
    shape = labels.shape
    read_weights: float | Array | Shared | None
    if not isinstance(weights, np.ndarray):
        read_weights = weights
    elif weights.size == 1:
        read_weights = float(stage(weights)[0])
    elif weights.dtype in FLOATS:
        read_weights = in_vectors(flat(weights, shape), labels.size)
    else:
        raise NotInPlaceError
    read_mask = None if mask is None else in_vectors(flat(mask, shape), labels.size)
    if out is not None and (out.dtype != FLOAT64 or out.flags.num & READY != READY):
        raise NotInPlaceError
    if len(shape) != 1:
        labels, predictions = labels.reshape(-1), predictions.reshape(-1)
        out = None if out is None else out.reshape(-1)
    read_codes = None if codes is None else flat(codes, shape)
    return Direct(labels, predictions, read_weights, read_mask, out, read_codes)


def flat(array: Array, shape: tuple[int, ...]) -> Array | Run:
    """Flatten an array that broadcasts to `shape`; one that lacks entries for some elements becomes a run."""
    if array.flags.num & READY != READY:
        raise NotInPlaceError
    if array.shape == shape:
        return array.reshape(-1)
    # The axes along which entries change must be neighbours: then the entries repeat with one period.
    changing = [axis for axis, length in enumerate(array.shape) if length != 1] or [len(shape) - 1]
    first, end = changing[0], changing[-1] + 1
    if array.size > 1 and array.shape[first:end] != shape[first:end]:
        raise NotInPlaceError
    repeat = math.prod(shape[end:]) if array.size > 1 else math.prod(shape)
    return array.reshape(-1), repeat, array.size


def in_vectors(operand: Array | Run, size: int) -> Array | Shared:
    """Rewrite a run for that many elements by entries for VECTOR elements each, if each entry fills whole ones."""
    if not isinstance(operand, tuple) or operand[1] % VECTOR or not SEES_VECTORS:
        return operand
    entries, repeat, period = operand
    if repeat * period == size and repeat == VECTOR:
        return (entries,)
    return ((entries, repeat // VECTOR, period),)


def in_pieces(arguments: Arguments, codes: Array | None = None) -> Staged:
    """Make a chunk that is copied piece by piece. Codes have the shape (rows, 1, ...)."""
    labels, predictions, weights, mask, out, masks = arguments
    if mask is not None:
        masks = [*masks, (mask, True)]
    shape = labels.shape or (1,)
    return Staged(
        (
            labels.reshape(shape),
            predictions.reshape(shape),
            np.broadcast_to(weights, shape) if isinstance(weights, np.ndarray) else weights,
        ),
        [(np.broadcast_to(array, shape), keep) for array, keep in masks],
        None if out is None else out.reshape(shape),
        None if codes is None else np.broadcast_to(codes, shape),
    )
