"""Datasets in HDF5 files, read along their own chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    import h5py
except ImportError as error:
    raise ImportError(f"HDF5 files are read with h5py: pip install 'streamloss[hdf5]' ({error})") from error

from .members import chosen


def open_array(path: Path, member: str | None) -> Any:
    """A dataset of the file."""
    try:
        file = h5py.File(path, "r")
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise
        raise ValueError(f"{path} is no readable HDF5 file: {error}") from error
    datasets: list[str] = []
    groups: list[str] = []
    file.visititems(lambda name, item: (datasets if isinstance(item, h5py.Dataset) else groups).append(name))
    if member is not None and member.strip("/") in ["", *groups]:
        below = [name for name in datasets if name.startswith(member.strip("/"))]
        raise ValueError(f"{path}:{member} is a group, expected a dataset, one of: {', '.join(below) or 'none'}")
    dataset = file[chosen(path, member, datasets)]
    return dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset
