"""Arrays in .npy files, memory-mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .source import Batch, Names, Source

ELEMENTS = 1 << 22  # of a batch


def read(labels: Path, predictions: Path, weights: Path | None) -> Source:
    """The arrays as batches; rows are the entries of their first dimension."""
    paths = [labels, predictions] + ([] if weights is None else [weights])
    arrays = [_map(path) for path in paths]
    names = Names(str(labels), str(predictions), None if weights is None else str(weights))
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            f"labels and predictions must have the same shape, got {arrays[0].shape} in {labels}"
            f" and {arrays[1].shape} in {predictions}"
        )
    shape = arrays[0].shape
    if weights is not None and arrays[2].ndim and arrays[2].shape[:1] not in (shape[:1], (1,)):
        raise ValueError(f"weights of shape {arrays[2].shape} in {weights} do not fit labels of shape {shape}")
    return Source(_batches(arrays), names, shape[0] if shape else 1)


def _map(path: Path) -> npt.NDArray[Any]:
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, _ = read_header(file)
        if min(shape, default=1) < 0:
            raise ValueError(f"its shape is {shape}")
        # An array without elements cannot be mapped.
        return np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise anything
        raise ValueError(f"{path} is no readable .npy file: {' '.join(str(error).split())}") from error


def _batches(arrays: list[npt.NDArray[Any]]) -> Iterator[Batch]:
    memory = [array.base for array in arrays]
    labels = arrays[0]
    shape, rows = labels.shape, len(labels) if labels.ndim else 1
    transposed = not labels.flags.c_contiguous and all(array.flags.f_contiguous for array in arrays[:2])
    if transposed:  # what lies together in Fortran order are the entries of the last dimension
        full = [a.reshape(a.shape + (1,) * (len(shape) - a.ndim)) if a.ndim else a for a in arrays]
        arrays = [array.T for array in full]
    elements = 0
    for origin, parts in _cut(arrays):
        elements += parts[0].size
        row = partial(_row, origin, transposed)
        weights = parts[2] if len(parts) == 3 else None
        yield Batch(parts[0], parts[1], weights, rows * elements // max(1, labels.size), row)
        for pages in memory:
            _release(pages)


def _cut(arrays: list[npt.NDArray[Any]]) -> Iterator[tuple[tuple[int, ...], list[npt.NDArray[Any]]]]:
    """Parts of at most ELEMENTS elements, each with the index of its first one."""
    first = arrays[0]
    if first.ndim == 0:
        yield (), arrays
        return
    along = [array.ndim > 0 and len(array) == len(first) for array in arrays]
    step = ELEMENTS * len(first) // max(1, first.size)
    if step:
        for start in range(0, len(first), step):
            yield (
                (start,),
                [array[start : start + step] if cut else array for array, cut in zip(arrays, along, strict=True)],
            )
        return
    for i in range(len(first)):
        inside = [array[i if cut else 0] if array.ndim else array for array, cut in zip(arrays, along, strict=True)]
        for origin, parts in _cut(inside):
            yield (i, *origin), parts


def _row(origin: tuple[int, ...], transposed: bool, index: tuple[int, ...]) -> int:
    if not origin:
        return 0
    whole = (*origin[:-1], origin[-1] + index[0], *index[1:])
    return whole[-1 if transposed else 0]


def _release(pages: Any) -> None:
    """Let go of the pages read so far: they would count as the process's memory until the end."""
    if isinstance(pages, mmap.mmap) and hasattr(pages, "madvise"):
        pages.madvise(mmap.MADV_DONTNEED)
