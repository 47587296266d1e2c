"""Metrics that are fed batches and keep a state: one function for each, as its own documentation shows it.

A function returns the update (labels, predictions and perhaps weights, as that library's arrays) and the result.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import streamloss

from .machine import Array

Make: TypeAlias = Callable[[], "Stream"]


class Stream(NamedTuple):
    """A metric that is at its beginning."""

    update: Callable[..., object]
    result: Callable[[], float]


@dataclass(frozen=True)
class Kind:
    """A library's metric."""

    name: str
    make: Make
    takes: str = "NumPy"  # the arrays of its users: NumPy, torch or floats
    weights: bool = True

    def convert(self, *arrays: Array) -> list[Any]:
        """Arrays as its users have them, without a copy."""
        if self.takes == "torch":
            import torch

            return [torch.from_numpy(array) for array in arrays]
        return [array.tolist()[0] if self.takes == "floats" else array for array in arrays]


STREAMS: list[Kind] = []


def stream(name: str, module: str, **options: Any) -> Callable[[Make], Make]:
    """Put a function into the table, if its library is installed."""

    def add(make: Make) -> Make:
        if importlib.util.find_spec(module):
            STREAMS.append(Kind(name, make, **options))
        return make

    return add


def _exact() -> Stream:
    accumulator = streamloss.Accumulator()
    return Stream(accumulator.update, lambda: accumulator.result("mean"))


stream("streamloss", "streamloss")(_exact)
stream("streamloss, torch tensors", "torch", takes="torch")(_exact)
stream("streamloss, Python floats", "streamloss", takes="floats")(_exact)


@stream("NumPy", "numpy")
def _numpy() -> Stream:
    """What people write by hand: a total in float64, each batch added in the arrays' own dtype."""
    sums = [0.0, 0.0]

    def update(y: Array, p: Array, w: Array | None = None) -> None:
        error = p - y
        sums[0] += float(np.dot(error, error) if w is None else np.dot(error * error, w))
        sums[1] += error.size if w is None else float(w.sum())

    return Stream(update, lambda: sums[0] / sums[1])


@stream("torch", "torch", takes="torch")
def _torch() -> Stream:
    """A total that stays a float32 tensor, as in training loops that avoid waiting for a device."""
    import torch

    sums = [torch.zeros(()), torch.zeros(())]

    def update(y: Any, p: Any, w: Any = None) -> None:
        losses = (p - y) ** 2
        sums[0] += losses.sum() if w is None else (losses * w).sum()
        sums[1] += losses.numel() if w is None else w.sum()

    return Stream(update, lambda: float(sums[0] / sums[1]))


@stream("torchmetrics", "torchmetrics", takes="torch", weights=False)
def _torchmetrics() -> Stream:
    """Its result is kept until the next update, so that asking again costs little."""
    import torchmetrics

    metric = torchmetrics.MeanSquaredError()
    return Stream(lambda y, p: metric.update(p, y), lambda: float(metric.compute()))


@stream("torcheval", "torcheval", takes="torch")
def _torcheval() -> Stream:
    from torcheval.metrics import MeanSquaredError

    metric = MeanSquaredError()
    return Stream(lambda y, p, w=None: metric.update(p, y, sample_weight=w), lambda: float(metric.compute()))


@stream("keras", "keras", takes="torch")
def _keras() -> Stream:
    """In its torch backend; elements get a last axis of their own, over which its losses are means."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    metric = keras.metrics.MeanSquaredError()
    return Stream(
        lambda y, p, w=None: metric.update_state(y[:, None], p[:, None], sample_weight=w),
        lambda: float(metric.result()),
    )


@stream("river", "river", takes="floats")
def _river() -> Stream:
    """One pair of floats at a time."""
    from river import metrics

    metric = metrics.MSE()
    return Stream(lambda y, p, w=1.0: metric.update(y, p, w), lambda: float(metric.get()))
