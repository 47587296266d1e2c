"""Opening what a caller wants scored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .source import Columns, Source


def open_source(source: Any, labels: Any, predictions: Any, weights: Any = None, by: Any = ()) -> Source:
    """The source, opened and checked; every refusal happens here, and nothing much has been read."""
    predictions = [predictions] if isinstance(predictions, (str, os.PathLike)) else list(predictions)
    columns = Columns(str(labels), tuple(map(str, predictions)), None if weights is None else str(weights), tuple(by))
    if source is None:
        from . import npy

        return npy.read(columns)
    paths = [source] if isinstance(source, (str, os.PathLike)) or not isinstance(source, Sequence) else list(source)
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(f"no such file: {os.fspath(path)}")
        if Path(path).is_dir():
            raise ValueError(f"{os.fspath(path)} is a directory, expected a file")
    try:
        from . import tables
    except ImportError as error:
        raise ImportError(f"tables are read with Polars: pip install 'streamloss[cli]' ({error})") from error
    return tables.read([Path(path) for path in paths], columns)
