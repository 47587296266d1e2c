"""Score files and other sources, chunk by chunk, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypedDict, Unpack, overload

from ..accumulator import Accumulator
from ..grouped import GroupedAccumulator
from ..losses import Formula, Loss
from ..mergeable import NanPolicy
from ..reduction import Reduction
from . import outputs
from .checkpoint import Checkpoint, check_seconds
from .history import History
from .losses_out import open_writer
from .results import Results
from .run import Run
from .source import Source

PathLike: TypeAlias = str | os.PathLike[str]
Several: TypeAlias = list[Any] | tuple[Any, ...]


class Progress(NamedTuple):
    """How far a run has come."""

    rows: int
    all_rows: int | None  # None if unknown
    bytes: int
    all_bytes: int | None
    results: Results  # so far


class Options(TypedDict, total=False):
    """The options of `score` that say nothing about what it returns."""

    weights: Any
    loss: str | Loss | Formula
    reduction: str | Reduction
    nan: NanPolicy
    stderr: bool
    checkpoint: PathLike | None
    every: float
    losses_out: PathLike | None
    history: History | None
    progress: Callable[[Progress], object] | None


@overload
def score(
    source: Any = None, *, labels: Any, predictions: Several, by: None = None, **options: Unpack[Options]
) -> dict[str, Accumulator]: ...
@overload
def score(
    source: Any = None, *, labels: Any, predictions: Several, by: Any, **options: Unpack[Options]
) -> dict[str, GroupedAccumulator]: ...
@overload
def score(
    source: Any = None, *, labels: Any, predictions: Any, by: None = None, **options: Unpack[Options]
) -> Accumulator: ...
@overload
def score(
    source: Any = None, *, labels: Any, predictions: Any, by: Any, **options: Unpack[Options]
) -> GroupedAccumulator: ...


def score(
    source: Any = None,
    *,
    labels: Any,
    predictions: Any,
    weights: Any = None,
    by: Any = None,
    loss: str | Loss | Formula = "squared_error",
    reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
    nan: NanPolicy = "omit",
    stderr: bool = False,
    checkpoint: PathLike | None = None,
    every: float = 5.0,
    losses_out: PathLike | None = None,
    history: History | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Accumulator | GroupedAccumulator | dict[str, Accumulator] | dict[str, GroupedAccumulator]:
    """Compute the loss of columns of a table, or of arrays in files, in one pass and bounded memory.

    Parameters
    ----------
    source : path, list of paths, table or iterable of chunks, optional
        Files, folders, patterns or URLs of tables: Parquet, CSV, NDJSON or Arrow; nulls count as NaN. Or a table in
        memory, a mapping from names to arrays, or chunks that are one or the other. Without it, the next ones are
        arrays, or paths of arrays.
    labels, weights : str, path or array_like
        The columns, numeric or boolean, or expressions of them, or the arrays, of shapes as for `Accumulator.update`.
    predictions : str, path or array_like, or list of them
        Likewise. Several are scored in the same pass; with nan="omit" a row where any of them is NaN is left out of
        all, so that they are compared on the same rows.
    by : str, path or array_like, or list of them, optional
        The columns or arrays whose values are the keys of groups.
    loss, reduction
        As for `Accumulator`.
    nan : {"omit", "propagate", "raise"}, default "omit"
        As for `Accumulator`; the number of elements left out is in `skipped_count`.
    stderr : bool, default False
        Whether to keep what `standard_error()` needs.
    checkpoint : path, optional
        A file that keeps what has been found, and how far it has been read. The same call, after whatever has ended
        the first one, goes on from there, to the same bits. It is written every few seconds, at the end, and, where
        it can be, on KeyboardInterrupt. One run at a time may use it.
    every : float, default 5
        Seconds from one checkpoint to the next, at least; ten times as long as writing it takes, if that is more.
    losses_out : path, optional
        A .parquet or .npy file for the single losses, weighted, float64, NaN for rows left out; with the columns of
        `by` in Parquet. With `checkpoint` it has every row once, too.
    history : History, optional
        Is given the running loss.
    progress : callable, optional
        Called at the beginning and after each chunk with a `Progress`.

    Returns
    -------
    Accumulator
        A `GroupedAccumulator` with `by`. For several predictions a dict of such, by their names.

    Raises
    ------
    OSError
        If a file cannot be opened or written.
    ValueError
        For a file that is damaged, empty or of an unknown kind, a column that is not there, shapes that do not fit;
        for a `checkpoint` or `losses_out` that another run is using; and for a checkpoint that is damaged or belongs
        to another run, to other files, or to files that have changed.
    TypeError
        For a column or an array that does not hold numbers.

    Examples
    --------
    >>> import streamloss
    >>> streamloss.score("tests/data/flights.parquet", labels="arr_delay", predictions="dep_delay")
    Accumulator(squared_error, n=327_346, skipped=9_430, sum_by_nonzero_weights=357.6053472472552)

    """
    several = isinstance(predictions, (list, tuple))
    wanted = tuple(predictions) if several else (predictions,)
    keys = () if by is None else tuple(by) if isinstance(by, (list, tuple)) else (by,)
    if history is not None and not isinstance(history, History):
        raise TypeError(f"history must be a History, got {type(history).__name__}")
    if history is not None and keys:
        raise ValueError("history: the running loss is of all rows, and by asks for groups")
    check_seconds(every)
    make = GroupedAccumulator if keys else Accumulator
    made = [make(loss, reduction=reduction, nan=nan, stderr=stderr) for _ in wanted]  # checks the options
    with ExitStack() as claims:
        losses_path, checkpoint_path = (
            None if path is None else claims.enter_context(outputs.claimed(path)) for path in (losses_out, checkpoint)
        )
        opened = _open(source, labels, wanted, weights, keys)
        outputs.check_apart([str(path) for path in (losses_path, checkpoint_path) if path is not None], opened.paths)
        names = opened.columns.predictions
        for role, texts in (("predictions", names), ("by", opened.columns.by)):
            if len(set(texts)) < len(texts):
                raise ValueError(f"{role} must be different ones, got {', '.join(texts)}")
        run = Run(opened, Results(dict(zip(names, made, strict=True)), opened.columns.by), history)
        if losses_path is not None:
            run.losses = open_writer(losses_path, opened.columns)
        if checkpoint_path is not None:
            run.checkpoint = Checkpoint(checkpoint_path, _description(run, losses_path), every)
        name = _name(labels if source is None else source)
        run.go(lambda: None if progress is None else progress(_progress(run)), name)
    accumulators: Any = run.results.accumulators  # all of one type
    return accumulators if several else run.results.first


def _open(source: Any, labels: Any, predictions: tuple[Any, ...], weights: Any, by: tuple[str, ...]) -> Source:
    from .opening import open_source  # loads the readers, when the first one is needed

    return open_source(source, labels, predictions, weights, by)


def _description(run: Run, losses_out: Path | None) -> dict[str, Any]:
    """Describe what must stay the same for a checkpoint to be of use; the reduction may change."""
    columns, first = run.source.columns, run.results.first
    if run.source.identity is None:
        raise ValueError("checkpoint: this source cannot be read again from where a run has ended; files can")
    return {
        "labels": columns.labels,
        "predictions": list(columns.predictions),
        "weights": columns.weights,
        "by": list(columns.by),
        "loss": first.loss.identity,
        "nan": first.nan,
        "stderr": first.stderr,
        "losses_out": None if losses_out is None else os.path.abspath(losses_out),
        "source": run.source.identity,
    }


def _progress(run: Run) -> Progress:
    return Progress(run.position.rows, run.source.rows, run.position.bytes, run.source.bytes, run.results)


def _name(source: Any) -> str:
    if isinstance(source, (list, tuple)):
        return ", ".join(map(_name, source))
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "the source"
