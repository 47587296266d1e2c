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
    """Open a dataset of the file."""
    try:
        file = h5py.File(path, "r")
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no readable HDF5 file: {error}") from error
    try:
        return _found(file, path, member)
    except ValueError:
        file.close()
        raise
    except Exception as error:  # damaged metadata can raise anything
        file.close()
        raise ValueError(f"{path} is no readable HDF5 file: {' '.join(str(error).split())}") from error


def _found(file: Any, path: Path, member: str | None) -> Any:
    """Find the dataset of that name, also through links, or the only one."""
    datasets: list[str] = []
    groups: list[str] = []
    file.visititems(lambda name, item: (datasets if isinstance(item, h5py.Dataset) else groups).append(name))
    wanted = None if member is None else member.strip("/")
    if wanted in ["", *groups]:
        below = [name for name in datasets if not wanted or name.startswith(f"{wanted}/")]
        raise ValueError(f"{path}:{member} is a group, expected a dataset, one of: {', '.join(below) or 'none'}")
    is_linked = wanted is not None and isinstance(file.get(wanted), h5py.Dataset)
    dataset = file[wanted if is_linked else chosen(path, member, datasets)]
    if dataset.shape is None:
        raise ValueError(f"{path}:{dataset.name.strip('/')} is empty: it has no shape, only a dtype")
    return dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset
