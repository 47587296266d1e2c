"""Arrays in .npy files, memory-mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .source import Batch, Columns, Position

ELEMENTS = 1 << 22  # of a batch


class Arrays:
    """Arrays of one leading dimension, whose entries are the rows."""

    identity: Mapping[str, Any] | None = None
    bytes: int | None = None

    def __init__(self, columns: Columns, arrays: list[npt.NDArray[Any]]) -> None:
        self.columns, self.arrays = columns, arrays
        self.rows: int | None = len(arrays[0]) if arrays[0].ndim else 1

    def batches(self, start: Position) -> Iterator[Batch]:
        """The arrays cut along their first dimension."""
        return _batches(self.arrays)


def read(columns: Columns) -> Arrays:
    """The arrays as batches; rows are the entries of their first dimension."""
    labels, (predictions,), weights, _ = columns
    paths = [labels, predictions] + ([] if weights is None else [weights])
    arrays = [_map(Path(path)) for path in paths]
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            f"labels and predictions must have the same shape, got {arrays[0].shape} in {labels}"
            f" and {arrays[1].shape} in {predictions}"
        )
    shape = arrays[0].shape
    if weights is not None and arrays[2].ndim and arrays[2].shape[:1] not in (shape[:1], (1,)):
        raise ValueError(f"weights of shape {arrays[2].shape} in {weights} do not fit labels of shape {shape}")
    return Arrays(columns, arrays)


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
        place = partial(_place, origin, transposed)
        weights = parts[2] if len(parts) == 3 else None
        done = rows * elements // max(1, labels.size)
        yield Batch(parts[0], (parts[1],), weights, (), Position(0, done, done), place)
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


def _place(origin: tuple[int, ...], transposed: bool, index: tuple[int, ...]) -> str:
    row = 0
    if origin:
        row = (*origin[:-1], origin[-1] + index[0], *index[1:])[-1 if transposed else 0]
    return f"row {row}"


def _release(pages: Any) -> None:
    """Let go of the pages read so far: they would count as the process's memory until the end."""
    if isinstance(pages, mmap.mmap) and hasattr(pages, "madvise"):
        pages.madvise(mmap.MADV_DONTNEED)
