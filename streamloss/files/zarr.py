"""Zarr arrays, read along their own chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    import zarr
except ImportError as error:
    raise ImportError(f"Zarr stores are read with zarr: pip install 'streamloss[zarr]' ({error})") from error

from .members import chosen


def open_array(path: Path, member: str | None) -> Any:
    """Open an array of the store, or the store if it is one array."""
    try:
        store = zarr.open(path, mode="r")
    except Exception as error:  # damaged metadata can raise anything
        raise ValueError(f"{path} is no readable Zarr store: {' '.join(str(error).split())}") from error
    if isinstance(store, zarr.Array):
        if member is not None:
            raise ValueError(f"{path} is one array, without names, got the name {member!r}")
        return store
    names = sorted(name for name, item in store.members(max_depth=None) if isinstance(item, zarr.Array))
    groups = [name for name, item in store.members(max_depth=None) if isinstance(item, zarr.Group)]
    if member is not None and member.strip("/") in groups:
        raise ValueError(f"{path}:{member} is a group, expected an array; it has: {', '.join(names)}")
    return store[chosen(path, member, names)]
