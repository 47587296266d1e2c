"""Checks of what users pass, before anything happens; every error names the argument."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .chunks import (
    BFLOAT16,
    BOOL,
    FLOAT32,
    FLOAT64,
    FLOATS,
    READY,
    Arguments,
    Array,
    Chunk,
    NotInPlaceError,
    Whole,
    in_pieces,
    in_place,
)

# Passed as predictions where labels are losses that have been computed already.
COMPUTED = object()

ARRAY = np.ndarray  # a global, which is looked up in one step
DLPACK_CUDA = 2  # kDLCUDA


class NanFoundError(ValueError):
    """Raised by the policy nan="raise": which argument has the first NaN, and at which index."""

    def __init__(self, argument: str, index: tuple[int, ...]) -> None:
        super().__init__(f"nan='raise': {argument} has NaN at index {list(index)}")
        self.argument, self.index = argument, index


def chunk(labels: Any, predictions: Any, weights: Any = None, mask: Any = None, out: Any = None) -> Chunk:
    """Check the arguments of an update and make a chunk of them; every error names the argument."""
    return laid_out(checked(labels, predictions, weights, mask, out))


def ready(labels: Any, predictions: Any, weights: Any) -> Whole | None:
    """Return the operands of the usual update, whole arrays that are read in place; None for any other update.

    Small updates spend most of their time here.
    """
    if type(labels) is not ARRAY or type(predictions) is not ARRAY:
        return None
    if labels.flags.num & predictions.flags.num & READY != READY:
        return None
    shape, dtype, other = labels.shape, labels.dtype, predictions.dtype
    if predictions.shape != shape or (dtype is not FLOAT32 and dtype is not FLOAT64):
        return None
    if other is not dtype and other is not FLOAT32 and other is not FLOAT64:
        return None
    if weights is not None:
        if type(weights) is not ARRAY or weights.flags.num & READY != READY or weights.shape != shape:
            return None
        if weights.dtype is not FLOAT32 and weights.dtype is not FLOAT64:
            return None
    if len(shape) != 1:
        labels, predictions = labels.reshape(-1), predictions.reshape(-1)
        weights = None if weights is None else weights.reshape(-1)
    return labels, predictions, weights, None, None, 0, labels.size


def laid_out(arguments: Arguments, codes: Array | None = None) -> Chunk:
    """Make a chunk of checked arguments, read in place if possible; `codes` are those of the rows' groups."""
    try:
        return in_place(arguments, codes)
    except NotInPlaceError:
        return in_pieces(arguments, codes)


def from_torch(value: Any) -> Any:
    """Return the array that shares a tensor's memory if torch converts it directly, otherwise the value itself."""
    if type(value).__module__ != "torch":
        return value
    try:
        return value.detach().numpy() if value.requires_grad else value.numpy()
    except (AttributeError, RuntimeError, TypeError):  # it is a dtype, a tensor on a device, or one of bfloat16
        return value  # as_array knows what to do


def checked(labels: Any, predictions: Any, weights: Any, mask: Any, out: Any) -> Arguments:
    """Return the arguments of an update as arrays that fit each other."""
    masks: list[tuple[Array, bool]] = []  # those of numpy.ma arrays
    if predictions is COMPUTED:
        labels = predictions = as_numbers("losses", labels, masks)
        shape = labels.shape
    else:
        labels = as_numbers("labels", labels, masks)
        predictions = as_numbers("predictions", predictions, masks)
        shape = labels.shape
        if shape != predictions.shape:
            raise ValueError(f"labels and predictions must have the same shape, got {shape} and {predictions.shape}")
    if weights is not None and type(weights) is not float:
        weight_masks: list[tuple[Array, bool]] = []
        weights = broadcastable("weights", as_numbers("weights", weights, weight_masks), shape)
        masks += [(broadcastable("weights", masked, shape), keep) for masked, keep in weight_masks]
    if mask is not None:
        masks_of_mask: list[tuple[Array, bool]] = []
        mask = broadcastable("mask", as_mask(mask, masks_of_mask), shape)
        masks += [(broadcastable("mask", masked, shape), keep) for masked, keep in masks_of_mask]
    if out is not None:
        out = checked_out(out, shape, [labels, predictions, weights, mask, *(masked for masked, _ in masks)])
    return Arguments(labels, predictions, weights, mask, out, masks)


def on_device(value: Any) -> bool:
    """Whether an array lies on a CUDA device."""
    if type(value) is ARRAY:
        return False
    is_cuda = getattr(value, "is_cuda", None)  # of torch, which refuses the next question for some tensors
    if is_cuda is not None:
        return bool(is_cuda)
    if getattr(value, "__cuda_array_interface__", None) is not None:
        return True
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and not isinstance(value, np.ndarray) and where()[0] == DLPACK_CUDA


def as_numbers(name: str, value: Any, masks: list[tuple[Array, bool]]) -> Array:
    """Return the argument as an array of a dtype that converts exactly to float64; add its mask to `masks`."""
    if type(value) is not ARRAY:
        value = as_array(name, value, masks)
    dtype = value.dtype
    if dtype in FLOATS or dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return value
    if dtype == BFLOAT16:
        return value
    if dtype.name == "bfloat16":  # of ml_dtypes
        return value.view(BFLOAT16)
    raise no_number(name, dtype)


def no_number(name: str, dtype: object) -> TypeError:
    """Return the error for a dtype that does not convert exactly to float64."""
    return TypeError(f"{name} must be real numbers (bool, integer or a float of up to 64 bits), got dtype {dtype}")


def as_array(name: str, value: Any, masks: list[tuple[Array, bool]]) -> Array:
    """Return anything array-like as a plain ndarray, without a copy if it has memory of its own.

    The mask of a numpy.ma array goes into `masks`, with the value by which it keeps an element.
    """
    value = from_torch(value)
    if type(value) is ARRAY:
        return value
    if isinstance(value, np.ma.MaskedArray):
        if value.mask is not np.ma.nomask:
            masks.append((np.asarray(value.mask), False))
        return np.asarray(value.data)
    if on_device(value):
        raise TypeError(f"{name} lies on a CUDA device, expected host memory; copy it first, with .cpu() or .get()")
    if isinstance(value, (list, tuple)) and _holds_masked(value):
        raise TypeError(
            f"{name} must be one masked array, got a {type(value).__name__} of them; np.ma.stack joins them"
        )
    try:
        if hasattr(value, "detach"):  # a torch tensor: one that requires grad, or is bfloat16, refuses np.asarray
            value = value.detach().resolve_neg()
            if str(value.dtype) == "torch.bfloat16":
                return value.view(sys.modules["torch"].int16).numpy().view(BFLOAT16)
        return np.asarray(value)
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} cannot be read as an array of numbers, got {type(value).__name__}: {error}") from error


def _holds_masked(values: Any) -> bool:
    """Whether entries of a list are masked arrays, or masked, which NumPy would overlook."""
    kinds = set(map(type, values))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        return True
    return not kinds.isdisjoint((list, tuple)) and any(
        isinstance(value, (list, tuple)) and _holds_masked(value) for value in values
    )


def as_mask(value: Any, masks: list[tuple[Array, bool]]) -> Array:
    """Return the argument `mask` as an array of bool."""
    array = as_array("mask", value, masks)
    if array.dtype != BOOL:
        raise no_mask(array.dtype)
    return array


def no_mask(dtype: object) -> TypeError:
    """Return the error for a mask of another dtype than bool."""
    advice = "has it nulls?" if str(dtype) == "object" else "write mask != 0"
    return TypeError(f"mask must be bool (True keeps an element), got dtype {dtype}; {advice}")


def broadcastable(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """Return a view with as many dimensions as `shape`, each 1 or equal; ValueError if neither rule allows it."""
    if array.shape == shape:
        return array
    if not fits(array.shape, shape):
        raise misfit(name, tuple(array.shape), shape)
    return array.reshape(array.shape + (1,) * (len(shape) - array.ndim))


def fits(shape: tuple[int, ...], elements: tuple[int, ...]) -> bool:
    """Whether weights or a mask of that shape go with elements of the other: by samples, or by the same dimensions."""
    if len(shape) < len(elements):
        return shape == elements[: len(shape)]
    return len(shape) == len(elements) and all(a in (1, b) for a, b in zip(shape, elements, strict=True))


def misfit(name: str, shape: tuple[int, ...], elements: tuple[int, ...], where: str = "") -> ValueError:
    """Return the error for a shape that does not fit."""
    missing = len(elements) - len(shape)
    trailing = missing > 0 and shape == elements[missing:]
    return ValueError(
        f"{name} must be a scalar, or have the leading dimensions of the elements, or as many dimensions, each 1 or"
        f" equal; got shape {shape}{where} for elements of shape {elements}"
        + (f"; along the last dimensions, write {name}.reshape({(1,) * missing + shape})" if trailing else "")
    )


def checked_out(out: Any, shape: tuple[int, ...], inputs: list[Any]) -> Array:
    """Return the argument `out`, if terms can be written to it."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    check_out(out, str(out.dtype), shape, out.flags.writeable, out.itemsize)
    if any(isinstance(array, np.ndarray) and overlap(out, array) for array in inputs):
        raise shared_out()
    return np.asarray(out)


def check_out(out: Any, dtype: str, shape: tuple[int, ...], writable: bool, step: int) -> None:
    """Refuse an array, or a view of one on a device, that terms cannot be written to.

    `step` is the stride from one element to the next one in memory.
    """
    if dtype not in ("float32", "float64"):
        raise TypeError(f"out must be float32 or float64, got dtype {dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape of the elements, {shape}, got {out.shape}")
    if not writable:
        raise ValueError("out must be writable, got a read-only array")
    if out.size and _overlaps_itself(out.strides, shape, step):
        raise ValueError(f"out must have memory for every element, got strides {out.strides} for shape {shape}")


def _overlaps_itself(strides: tuple[int, ...], shape: tuple[int, ...], step: int) -> bool:
    """Whether an array is none of whole elements, rows, planes and so on, one beside the other."""
    reach = step  # of all dimensions so far
    for stride, length in sorted((abs(stride), length) for stride, length in zip(strides, shape, strict=True)):
        if length > 1 and stride < reach:
            return True
        reach += stride * (length - 1)
    return False


def shared_out() -> ValueError:
    """Return the error for an `out` in the memory of another argument."""
    return ValueError("out must not share memory with the other arguments")


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share memory; also True where that is too hard to tell."""
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # the stubs know -1 and 0 alone
    except np.exceptions.TooHardError:
        return True


def find_nan(labels: Any, predictions: Any, weights: Any, mask: Any) -> NanFoundError:
    """Return the error for the first NaN among the elements that the mask keeps."""
    names = ("losses", "losses", "weights") if predictions is COMPUTED else ("labels", "predictions", "weights")
    rank = np.ndim(labels)
    chunk = in_pieces(checked(labels, predictions, weights, mask, None))
    pieces = chunk.pieces(1)
    for piece in pieces:
        operands = chunk.operands(piece, pieces)
        values: Any = [1.0 if operand is None else operand for operand in operands[:3]]
        kept = True if operands[3] is None else operands[3]
        found = [
            (int(np.argmax(missing)), name)
            for name, value in zip(names, values, strict=True)
            if (missing := np.broadcast_to(np.isnan(value) & kept, values[0].shape)).any()
        ]
        if found:
            offset, name = min(found, key=lambda item: item[0])
            index = np.unravel_index(chunk.offset(piece) + offset, chunk.shape)
            return NanFoundError(name, tuple(int(i) for i in index[:rank]))
    raise AssertionError("no NaN among the elements")
