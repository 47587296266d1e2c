"""Files that a power loss leaves as they were or as they should be."""

from __future__ import annotations

import os
from pathlib import Path


def place(new: Path, path: Path) -> None:
    """Rename a file; after a power loss there is the old one or the new one."""
    sync(new)
    os.replace(new, path)
    sync_names(path.parent)


def sync_names(folder: Path) -> None:
    """Write the names in a folder to the disk itself."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        sync(folder)


def sync(path: Path) -> None:
    """Write a file to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
