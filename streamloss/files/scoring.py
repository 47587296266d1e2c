"""The loss of what lies in files, chunk by chunk, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from ..accumulator import Accumulator, NanPolicy
from ..arrays import NanFoundError
from ..losses import Formula, Loss
from ..reduction import Reduction
from .source import Position, Source

PathLike: TypeAlias = str | os.PathLike[str]
Progress: TypeAlias = Callable[[int, int | None], object]


def score(
    path: PathLike | None = None,
    *,
    labels: PathLike,
    predictions: PathLike,
    weights: PathLike | None = None,
    loss: str | Loss | Formula = "squared_error",
    reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
    nan: NanPolicy = "omit",
    progress: Progress | None = None,
) -> Accumulator:
    """The loss of two columns of a table, or of two array files, in one pass and bounded memory.

    Parameters
    ----------
    path : path, optional
        A Parquet or CSV file, by its ending; nulls count as NaN. Without it, the next three are paths of .npy files,
        which are memory-mapped.
    labels, predictions, weights : str or path
        The columns, numeric or boolean; or the array files, of shapes as for `Accumulator.update`.
    loss, reduction
        As for `Accumulator`.
    nan : {"omit", "propagate", "raise"}, default "omit"
        As for `Accumulator`; the number of rows omitted is in `skipped_count`.
    progress : callable, optional
        Called after each chunk with the number of rows read and the number of all rows (None if not known).

    Returns
    -------
    Accumulator

    Raises
    ------
    OSError
        If a file cannot be opened.
    ValueError
        For a file that is damaged, empty or of an unknown kind, a column that is not there, shapes that do not fit.
    TypeError
        For a column or an array that does not hold numbers.

    Examples
    --------
    >>> import streamloss
    >>> streamloss.score("tests/data/flights.parquet", labels="arr_delay", predictions="dep_delay")
    Accumulator(squared_error, n=327_346, skipped=9_430, sum_by_nonzero_weights=357.6053472472552)

    """
    accumulator = Accumulator(loss, reduction=reduction, nan=nan)
    done = 0
    source = _open(path, labels, predictions, weights)
    for batch in source.batches(Position()):
        try:
            accumulator.update(batch.labels, batch.predictions[0], batch.weights)
        except NanFoundError as error:
            name = source.columns.predictions[0]
            name = name if error.argument == "predictions" else getattr(source.columns, error.argument)
            raise ValueError(f"nan='raise': {name} has NaN or null in {batch.place(error.index)}") from None
        done = batch.end.rows
        if progress is not None:
            progress(done, source.rows)
    if done == 0:
        raise ValueError(f"{path or labels} has no rows")
    return accumulator


def _open(path: PathLike | None, labels: PathLike, predictions: PathLike, weights: PathLike | None) -> Source:
    from .opening import open_source  # loads the readers, when the first one is needed

    return open_source(path, labels, predictions, weights)
