"""Arrays in .npy files, memory-mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .source import Batch, Names, Source

ELEMENTS = 1 << 22  # of a batch, if a row has no more


def read(labels: Path, predictions: Path, weights: Path | None) -> Source:
    """The arrays as batches of rows (entries of the first dimension)."""
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
            np.lib.format.read_magic(file)  # np.load would take other kinds of files, too
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:  # an array without elements cannot be mapped, but read
            return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no readable .npy file: {error}") from error


def _batches(arrays: list[npt.NDArray[Any]]) -> Iterator[Batch]:
    first = arrays[0]
    if first.ndim == 0:
        yield Batch(0, first, arrays[1], arrays[2] if len(arrays) == 3 else None)
        return
    rows = max(1, ELEMENTS * len(first) // max(1, first.size))
    for start in range(0, len(first), rows):
        parts = [
            array if array.ndim == 0 or len(array) != len(first) else array[start : start + rows] for array in arrays
        ]
        yield Batch(start, parts[0], parts[1], parts[2] if len(parts) == 3 else None)
        for array in arrays:
            _release(array)


def _release(array: npt.NDArray[Any]) -> None:
    """Let go of the pages read so far: they would count as the process's memory until the end."""
    if isinstance(array.base, mmap.mmap) and hasattr(array.base, "madvise"):
        array.base.madvise(mmap.MADV_DONTNEED)
