"""What users would otherwise call on arrays in memory: one function for each, as its own experts would write it.

A function is given the arrays, sets up what its users would have anyway (tensors, frames, tables) and returns the
call to be timed: the weighted mean squared error. It raises `Unsupported` for what the library cannot do.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import streamloss

from .exactly import STEP
from .workloads import DIMENSIONS, Arrays

Call: TypeAlias = Callable[[], float]

# The largest relative error with which a rival's answer counts as one. Most of them add float32 in float32.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


class Unsupported(Exception):  # noqa: N818  # no error: a rival need not offer everything
    """The library has no way to compute it; the text says what is missing."""


@dataclass(frozen=True)
class Rival:
    """A library, and what it is called with."""

    name: str
    prepare: Callable[[Arrays], Call]
    starts_slowly: bool = False  # compiles for many seconds
    tolerance: float = 0.0  # if it needs more than others

    def accepts(self, result: float, exact: float, dtype: Any) -> bool:
        """Whether a result counts as an answer: streamloss has to be exact to the last bit."""
        tolerance = 0.0 if self.name == "streamloss" else max(self.tolerance, TOLERANCE[np.dtype(dtype).name])
        return abs(result - exact) <= tolerance * abs(exact)


RIVALS: list[Rival] = []


def rival(name: str, module: str, **options: Any) -> Callable[[Callable[[Arrays], Call]], Callable[[Arrays], Call]]:
    """Put a function into the table, if its library is installed."""

    def add(prepare: Callable[[Arrays], Call]) -> Callable[[Arrays], Call]:
        if importlib.util.find_spec(module):
            RIVALS.append(Rival(name, prepare, **options))
        return prepare

    return add


def _optional(a: Arrays) -> list[Any]:
    """Labels, predictions, weights and mask; None for what is not there."""
    return [a.get(name) for name in ("labels", "predictions", "weights", "mask")]


def _repeated(a: Arrays) -> Arrays:
    """Arrays whose weights have the shape of the labels, without a copy."""
    if "weights" not in a or a["labels"].ndim == 1:
        return a
    return {**a, "weights": np.broadcast_to(a["weights"][:, None], a["labels"].shape)}


@rival("streamloss", "streamloss")
def _streamloss(a: Arrays) -> Call:
    def call() -> float:
        accumulator = streamloss.Accumulator()
        accumulator.update(a["labels"], a["predictions"], a.get("weights"), mask=a.get("mask"))
        return accumulator.result("mean")

    return call


@rival("Numba, plain fast-math loop", "numba")
def _numba(a: Arrays) -> Call:
    """A parallel loop with a float64 total that may be reordered: what exactness is paid against."""
    from .plain import weighted_mean

    return partial(weighted_mean, a["labels"], a["predictions"], a.get("weights"), a.get("mask"))


@rival("NumPy, in blocks", "numpy")
def _numpy(a: Arrays) -> Call:
    """In blocks that stay in the cache: BLAS adds a block, Python the totals of blocks.

    The blocks are small enough for BLAS not to wake its threads, which cost more than they save here.
    BLAS alone adds float32 in float32 to the end; over 64 million elements it was off by 5e-4.
    """
    y, p, w, m = _optional(a)
    rows = (1 << 13) // (y.size // len(y))
    room = np.empty_like(y[:rows])

    def call() -> float:
        top, bottom = 0.0, 0.0
        for start in range(0, len(y), rows):
            here = slice(start, start + rows)
            error = np.subtract(p[here], y[here], out=room[: len(y[here])])
            if m is not None:
                error *= m[here]
                bottom += np.count_nonzero(m[here])
            if w is None:
                top += float(np.vdot(error, error))
                continue
            bottom += float(w[here].sum()) * (y.size // len(y))
            losses = np.square(error, out=error) if y.ndim == 1 else np.einsum("ij,ij->i", error, error)
            top += float(np.vdot(w[here], losses))
        return top / (bottom or y.size)

    return call


@rival("NumPy, as most write it", "numpy")
def _numpy_usual(a: Arrays) -> Call:
    y, p, w, m = _optional(a)

    def call() -> float:
        losses = (y - p) ** 2
        if m is not None:
            return float(losses.mean(where=m))
        if w is None:
            return float(losses.mean())
        return float(np.average(losses.mean(axis=1) if losses.ndim > 1 else losses, weights=w))

    return call


def _torch_mean(y: Any, p: Any, w: Any, m: Any) -> Any:
    if w is None and m is None:
        import torch

        return torch.nn.functional.mse_loss(p, y)
    losses = (p - y) ** 2
    if m is not None:
        return (losses * m).sum() / m.sum()
    if losses.ndim > 1:
        losses = losses.mean(1)
    return (losses * w).sum() / w.sum()


def _tensors(a: Arrays) -> list[Any]:
    import torch

    return [None if array is None else torch.from_numpy(array) for array in _optional(a)]


@rival("torch", "torch")
def _torch(a: Arrays) -> Call:
    """mse_loss (https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mse_loss.html), or by operators."""
    tensors = _tensors(a)
    return lambda: float(_torch_mean(*tensors))


@rival("torch.compile", "torch", starts_slowly=True)
def _torch_compile(a: Arrays) -> Call:
    """One fused loop in C++, on all threads; needs a C++ compiler."""
    import torch

    tensors = _tensors(a)
    compiled = torch.compile(_torch_mean, dynamic=False, fullgraph=True)
    return lambda: float(compiled(*tensors))


@rival("numexpr", "numexpr")
def _numexpr(a: Arrays) -> Call:
    """Its own sum() adds float32 one by one, 0.3 % off after 4 million: NumPy adds what it evaluates."""
    import numexpr

    weights = _repeated(a).get("weights")
    names = {"y": a["labels"], "p": a["predictions"]}
    names |= {"w": weights} if weights is not None else {}
    names |= {"w": a["mask"]} if "mask" in a else {}
    expression = (
        "(p - y)**2 * w" if weights is not None else "where(w, (p - y)**2, 0)" if "w" in names else "(p - y)**2"
    )
    divisor = a.get("weights", a.get("mask"))

    def call() -> float:
        top = numexpr.evaluate(expression, local_dict=names).sum(dtype=np.float64)
        if divisor is None:
            return float(top / a["labels"].size)
        return float(top / (divisor.sum(dtype=np.float64) * (a["labels"].size / divisor.size)))

    return call


def _flat_columns(a: Arrays) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The arrays as columns of a table, and the names of the pairs of label and prediction among them."""
    if a["labels"].ndim == 1:
        return dict(a), [("labels", "predictions")]
    columns = {
        f"{name}{k}": np.ascontiguousarray(a[name][:, k])
        for name in ("labels", "predictions")
        for k in range(DIMENSIONS)
    }
    return columns | {"weights": a["weights"]}, [(f"labels{k}", f"predictions{k}") for k in range(DIMENSIONS)]


@rival("Polars", "polars")
def _polars(a: Arrays) -> Call:
    """One expression, in the streaming engine, which keeps pieces in the cache: it is faster than the in-memory one."""
    import polars as pl

    columns, pairs = _flat_columns(a)
    frame = pl.DataFrame(columns).lazy()
    squares = [(pl.col(p) - pl.col(y)) * (pl.col(p) - pl.col(y)) for y, p in pairs]
    loss = squares[0] if len(pairs) == 1 else pl.sum_horizontal(squares) / len(pairs)
    mean = loss.mean()
    if "mask" in a:
        mean = loss.filter(pl.col("mask")).mean()
    elif "weights" in a:
        mean = (loss * pl.col("weights")).sum() / pl.col("weights").sum()
    query = frame.select(mean)
    return lambda: float(query.collect(engine="streaming").item())


@rival("DuckDB", "duckdb")
def _duckdb(a: Arrays) -> Call:
    """SQL over the arrays in place; avg() and sum() of FLOAT add in DOUBLE."""
    import duckdb

    columns, pairs = _flat_columns(a)
    connection = duckdb.connect()
    connection.register("t", columns)
    loss = "(" + " + ".join(f"({p} - {y}) * ({p} - {y})" for y, p in pairs) + f") / {len(pairs)}"
    mean = f"avg({loss})"
    if "mask" in a:
        mean += " FILTER (WHERE mask)"
    elif "weights" in a:
        mean = f"sum({loss} * weights) / sum(weights)"
    return lambda: float(connection.execute(f"SELECT {mean} FROM t").fetchall()[0][0])


@rival("scikit-learn", "sklearn")
def _sklearn(a: Arrays) -> Call:
    """Its metric (https://scikit-learn.org/stable/modules/generated/sklearn.metrics.mean_squared_error.html)."""
    from sklearn.metrics import mean_squared_error

    y, p, w, m = _optional(a)
    if m is not None:
        return lambda: float(mean_squared_error(y[m], p[m]))
    return lambda: float(mean_squared_error(y, p, sample_weight=w))


@rival("torchmetrics", "torchmetrics")
def _torchmetrics(a: Arrays) -> Call:
    """MeanSquaredError has no weights; with weights its MeanMetric of the losses is what users take."""
    import torchmetrics

    y, p, w, m = _tensors(a)
    if w is None:
        metric = torchmetrics.MeanSquaredError().set_dtype(y.dtype)
        return lambda: float(metric(p, y) if m is None else metric(p[m], y[m]))
    mean = torchmetrics.MeanMetric(nan_strategy="ignore").set_dtype(y.dtype)
    return lambda: float(mean((p - y).square_() if y.ndim == 1 else (p - y).square_().mean(1), w))


@rival("torcheval", "torcheval", tolerance=TOLERANCE["float32"])
def _torcheval(a: Arrays) -> Call:
    """It divides by a number of elements in float32."""
    from torcheval.metrics.functional import mean_squared_error

    y, p, w, m = _tensors(a)
    if m is not None:
        return lambda: float(mean_squared_error(p[m], y[m]))
    return lambda: float(mean_squared_error(p, y, sample_weight=w))


@rival("keras", "keras", tolerance=TOLERANCE["float32"])
def _keras(a: Arrays) -> Call:
    """The metric in its torch backend, on tensors; the mean over the last axis is its own, so elements get one.

    It adds in the dtype that it is given, but its result is a float32 even then.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    metric = keras.metrics.MeanSquaredError(dtype=a["labels"].dtype.name)
    y, p, w, m = _tensors(a)
    if y.ndim == 1:
        y, p = y[:, None], p[:, None]

    def call() -> float:
        metric.reset_state()
        metric.update_state(y, p, sample_weight=w if m is None else m)
        return float(metric.result())

    return call


@rival("xsum superaccumulator", "xsum")
def _xsum(a: Arrays) -> Call:
    """Neal's superaccumulator (https://arxiv.org/abs/1505.05571), exact too; in pieces that stay in the cache."""
    import xsum

    if "mask" in a or "weights" in a:
        raise Unsupported("adds squares without weights")
    y, p = a["labels"].reshape(-1), a["predictions"].reshape(-1)

    def call() -> float:
        sums = xsum.xsum_large()
        for start in range(0, y.size, STEP >> 4):
            here = slice(start, start + (STEP >> 4))
            sums.add_sqnorm(p[here].astype(np.float64) - y[here])
        return float(sums.round() / y.size)

    return call


@rival("math.fsum", "math")
def _fsum(a: Arrays) -> Call:
    """Exact too, one Python float at a time."""
    if "mask" in a or "weights" in a:
        raise Unsupported("adds what it is given")
    y, p = a["labels"], a["predictions"]
    pieces = [slice(start, start + STEP) for start in range(0, y.size, STEP)]

    def call() -> float:
        squares = (np.square(np.subtract(p[here], y[here], dtype=np.float64)).tolist() for here in pieces)
        return math.fsum(itertools.chain.from_iterable(squares)) / y.size

    return call
