"""Opening what a caller wants scored: files, tables in memory, arrays, or chunks that a program makes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..keys import plain_keys
from .arrays import Arrays, Inputs, Named, plain_column
from .formats import ARRAYS, CONTAINERS, MEMBER, ending, opener, unknown
from .iterables import Chunks
from .paths import check_regular, state_of
from .source import Columns, Source


def open_source(source: Any, labels: Any, predictions: Any, weights: Any = None, by: Sequence[Any] = ()) -> Source:
    """Open and check a source; every refusal happens here, before much is read.

    Parameters
    ----------
    source : path, list of paths, frame, iterable of chunks, or None
        Files, directories, patterns and URLs of tables; a table in memory; chunks, which are tuples (labels,
        predictions[, weights]), mappings from names to arrays, or frames; one such mapping; or None, and the others
        are arrays.
    labels, predictions, weights : str, path or array_like
        The name or expression of a column, or an array, or the path of one ("file.h5:/name"); of predictions a list,
        too.
    by : list of str, path or array_like
        The keys of groups.

    """
    predictions = tuple(predictions) if isinstance(predictions, (list, tuple)) else (predictions,)
    if not predictions:
        raise ValueError("predictions must be one or several, got none")
    if source is None:
        return _arrays(labels, predictions, weights, by)
    paths = _paths(source)
    if paths is not None and len(paths) == 1 and ending(paths[0], CONTAINERS):
        file = paths[0].rstrip("/")
        inside = [None if name is None else f"{file}:{name}" for name in (labels, weights)]
        return _arrays(inside[0], [f"{file}:{p}" for p in predictions], inside[1], [f"{file}:{k}" for k in by])
    if paths is not None:
        return _tables().read(paths, _columns(labels, predictions, weights, by))
    if labels is None and predictions == (None,):  # the arrays of tuples have no names
        labels, predictions = "labels", ("predictions",)
    return _in_memory(source, _columns(labels, predictions, weights, by))


def _columns(labels: Any, predictions: Sequence[Any], weights: Any, by: Sequence[Any]) -> Columns:
    for role, names in (("labels", [labels]), ("predictions", predictions), ("weights", [weights]), ("by", by)):
        for name in names:
            if not (isinstance(name, (str, os.PathLike)) or (role == "weights" and name is None)):
                raise TypeError(f"{role} must be the name of a column, got {type(name).__name__}")
    return Columns(
        str(labels), tuple(map(str, predictions)), None if weights is None else str(weights), tuple(map(str, by))
    )


def _paths(source: Any) -> list[str] | None:
    """Return the paths that a source names, None if it is something else."""
    if isinstance(source, (str, os.PathLike)):
        return [os.fspath(source)]
    if isinstance(source, (list, tuple)) and source and all(isinstance(each, (str, os.PathLike)) for each in source):
        return [os.fspath(each) for each in source]
    return None


def _in_memory(source: Any, columns: Columns) -> Source:
    """Open a table in memory, or chunks."""
    if _is_frame(source):
        return _tables().of_frame(source, columns)
    if isinstance(source, Mapping):
        source = [source]
    if isinstance(source, (tuple, np.ndarray)) or not isinstance(source, Iterable):
        raise TypeError(f"source must be paths, a table or an iterable of chunks, got {type(source).__name__}")
    chunks = iter(source)
    first = next(chunks, None)
    if first is None:
        raise ValueError("the source yields no chunks")
    return _tables().of_frames(first, chunks, columns) if _is_frame(first) else Chunks(first, chunks, columns)


def _is_frame(value: Any) -> bool:
    """Whether it is a table of Polars or pandas, or one that speaks Arrow."""
    return any(
        hasattr(value, each)
        for each in ("__arrow_c_stream__", "__arrow_c_array__", "iloc", "collect_schema", "to_batches")
    ) and (not hasattr(value, "to_numpy") or hasattr(value, "columns"))  # a single column is no table


def _tables() -> Any:
    try:
        from . import tables
    except ImportError as error:
        raise ImportError(f"tables are read with Polars and Arrow: pip install 'streamloss[cli]' ({error})") from error
    return tables


# ----------------------------------------------------------------------------------------------- arrays


def _arrays(labels: Any, predictions: Sequence[Any], weights: Any, by: Sequence[Any]) -> Arrays:
    named = [
        _named("labels", labels),
        *(
            _named("predictions" if len(predictions) == 1 else f"predictions[{i}]", p)
            for i, p in enumerate(predictions)
        ),
    ]
    weight = None if weights is None else _named("weights", weights)
    keys = [_named(f"by[{i}]", key) for i, key in enumerate(by)]
    names = [each.name for each in named]
    columns = Columns(
        names[0], tuple(names[1:]), None if weight is None else weight.name, tuple(key.name for key in keys)
    )
    return Arrays(Inputs(named[0], named[1:], weight, keys), columns)


def _named(role: str, value: Any) -> Named:
    """Name an array, or open the one that a path leads to."""
    if value is None:
        raise TypeError(f"{role} must be an array or its path, got None")
    if isinstance(value, (str, os.PathLike)):
        return _opened(os.fspath(value))
    value = plain_column(plain_keys(value) if role.startswith("by") else value)
    if hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__getitem__"):
        return Named(role, value)
    return Named(role, np.asarray(value))


def _opened(text: str) -> Named:
    """Open the array in a file, or in a file that holds several: FILE:NAME."""
    path, member = text, None
    if not os.path.exists(path) and (match := MEMBER.fullmatch(text)):
        path, member = match.group(1), match.group(2)
    if not os.path.lexists(path):
        hint = "" if Path(path).suffix else "; without a source, columns are files of arrays"
        raise FileNotFoundError(f"no such file: {path}{hint}")
    which = ending(path, ARRAYS) or (".zarr" if _is_zarr(path) else None)
    if os.path.isdir(path) and which != ".zarr":
        raise IsADirectoryError(f"{path} is a directory, expected a file")
    if which is None:
        raise unknown(path, ARRAYS)
    if which != ".zarr":
        check_regular(path)
    array = opener(ARRAYS, which).open_array(Path(path), member)
    identity = {
        "path": os.path.realpath(path),
        "member": member,
        **state_of(path),
        "dtype": str(array.dtype),
        "shape": list(array.shape),
    }
    return Named(text, array, identity)


def _is_zarr(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, name)) for name in ("zarr.json", ".zarray", ".zgroup"))
