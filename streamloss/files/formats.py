"""Which module reads a file: a table of endings. A new format is a row here and a module that opens it.

What is read from URLs, too, is also a row of a table in `remote`, and a kind of text one in `delimited`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

# Modules with `open_part(path)`: tables, whose columns have names.
TABLES: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "ipc",
    ".ipc": "ipc",
    ".feather": "ipc",
    **{kind + packed: "delimited" for kind in (".csv", ".tsv") for packed in ("", ".gz", ".zst")},
    **{kind + packed: "ndjson" for kind in (".ndjson", ".jsonl") for packed in ("", ".gz", ".zst")},
}

# Modules with `open_array(path, member)`: arrays, one a file, or many under names.
ARRAYS: Mapping[str, str] = {
    ".npy": "npy",
    ".npz": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".zarr": "zarr",
}
CONTAINERS = (".npz", ".h5", ".hdf5", ".zarr")  # files that hold several arrays

MEMBER = re.compile(rf"(.+(?:{'|'.join(map(re.escape, CONTAINERS))})):(.+)", re.IGNORECASE)  # FILE.h5:/path/in/it


def ending(path: str, endings: Mapping[str, str] | tuple[str, ...] = TABLES) -> str | None:
    """Return the ending of a path if a table has it, otherwise None."""
    name = path.lower().rstrip("/")
    return next((each for each in sorted(endings, key=len, reverse=True) if name.endswith(each)), None)


def opener(endings: Mapping[str, str], which: str) -> Any:
    """Import the module for an ending."""
    return import_module(f".{endings[which]}", __package__)


def unknown(path: str, endings: Mapping[str, str]) -> ValueError:
    """Return the error for a file whose ending is unknown."""
    name = path.rstrip("/").rpartition("/")[2]
    suffix = "." + name.rpartition(".")[2] if "." in name else ""
    hint = ""
    if endings is TABLES and ending(path, ARRAYS):
        hint = "; arrays are given as labels and predictions, without a file before them"
    return ValueError(f"{path}: unknown kind of file {suffix!r}, expected one of {', '.join(endings)}{hint}")
