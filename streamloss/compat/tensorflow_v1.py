"""`tf.compat.v1.losses` on arrays: mean_squared_error, compute_weighted_loss, and the element-wise rest of the family.

`scope` and `loss_collection` are accepted and ignored, as TensorFlow does when it executes eagerly.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from .. import losses as core
from .. import reduction as core_reduction
from ..losses import Loss
from . import _streams
from ._streams import FLOAT32, Array, Measured, Result, Seen, own_loss, read, safe


class Reduction:
    """The reductions: S = sum(weight * loss), W = sum(weight) and the counts of elements.

    A result is 0.0 if and only if its denominator is 0, whatever the numerator.

    >>> Reduction.SUM_OVER_NONZERO_WEIGHTS is Reduction.SUM_BY_NONZERO_WEIGHTS
    True
    """

    NONE = "none"
    """The weighted losses, in the shape of the losses."""
    SUM = "weighted_sum"
    """S."""
    SUM_OVER_BATCH_SIZE = "weighted_sum_over_batch_size"
    """S / number of elements."""
    MEAN = "weighted_mean"
    """S / W."""
    SUM_BY_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"
    """S / number of elements whose weight is not 0."""
    SUM_OVER_NONZERO_WEIGHTS = SUM_BY_NONZERO_WEIGHTS

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """Return all names."""
        return (
            cls.NONE,
            cls.SUM,
            cls.MEAN,
            cls.SUM_OVER_BATCH_SIZE,
            cls.SUM_OVER_NONZERO_WEIGHTS,
            cls.SUM_BY_NONZERO_WEIGHTS,
        )

    @classmethod
    def validate(cls, key: str) -> None:
        """Raise ValueError unless the key is the name of a reduction."""
        if key not in cls.all():
            raise ValueError(f"Invalid Reduction Key {key}. Key should be one of {cls.all()}.")


def log_loss_of(label: float, prediction: float, epsilon: float) -> float:
    """Cross entropy, with epsilon added before the logarithms; NaN outside of their domain, infinite on its edge."""
    p, q = prediction + epsilon, 1.0 - prediction + epsilon
    log_p = math.log(p) if p > 0.0 else (-math.inf if p == 0.0 else math.nan)
    log_q = math.log(q) if q > 0.0 else (-math.inf if q == 0.0 else math.nan)
    return -label * log_p - (1.0 - label) * log_q


class Stream(_streams.Stream):
    """The streaming form of a loss of labels and predictions; see `stream`."""

    def update(
        self,
        labels: npt.ArrayLike,
        predictions: npt.ArrayLike,
        weights: npt.ArrayLike = 1.0,
        *,
        out: Array | None = None,
    ) -> Stream:
        """Add a chunk: the arguments of `mean_squared_error`; `out` receives its weighted losses, not reduced."""
        return self._update(labels, predictions, weights, out)

    def _measure(self, labels: Any, predictions: Any, weights: Any, unreduced: bool) -> Measured:
        y, p = read("labels", labels).array, read("predictions", predictions).array
        if y.shape != p.shape:
            raise ValueError(f"Shapes {p.shape} and {y.shape} of predictions and labels are incompatible")
        Reduction.validate(str(self._reduction))  # here, because TensorFlow looks at the shapes first
        return _streams.measure(self._loss, y, p, _weights(weights, y.shape), FLOAT32, unreduced)

    def _value(self, seen: Seen) -> float:
        accumulator = seen.accumulator
        if self._reduction == Reduction.SUM:
            return accumulator.loss_sum
        if self._reduction == Reduction.MEAN:
            return safe(accumulator, core_reduction.Reduction.MEAN, accumulator.weight_sum)
        if self._reduction == Reduction.SUM_OVER_BATCH_SIZE:
            return safe(accumulator, core_reduction.Reduction.SUM_OVER_BATCH_SIZE, accumulator.count)
        return safe(accumulator, core_reduction.Reduction.SUM_BY_NONZERO_WEIGHTS, accumulator.nonzero_count)


class WeightedLossStream(Stream):
    """The streaming form of `compute_weighted_loss`; see `stream`."""

    def update(  # type: ignore[override]  # the reference has one argument less, too
        self, losses: npt.ArrayLike, weights: npt.ArrayLike = 1.0, *, out: Array | None = None
    ) -> Stream:
        """Add a chunk: the arguments of `compute_weighted_loss`; `out` receives its weighted losses, not reduced."""
        return self._update(losses, None, weights, out)

    def _measure(self, labels: Any, predictions: Any, weights: Any, unreduced: bool) -> Measured:
        Reduction.validate(str(self._reduction))
        losses, dtype = read("losses", labels)
        return _streams.measure(None, losses, losses, _weights(weights, losses.shape), dtype, unreduced)


def _weights(weights: Any, shape: tuple[int, ...]) -> Any:
    """Return the weights of elements: a scalar, or of the same rank with every dimension 1 or equal."""
    if isinstance(weights, float):
        return weights
    array = read("weights", weights).array
    if array.ndim not in (0, len(shape)) or any(w not in (1, n) for w, n in zip(array.shape, shape, strict=False)):
        raise ValueError(
            "weights can not be broadcast to values."
            f" values.rank={len(shape)}. weights.rank={array.ndim}."
            f" values.shape={shape}. weights.shape={array.shape}."
        )
    return array


_LOSSES: dict[str, Callable[..., Loss]] = {
    "mean_squared_error": lambda: core.squared_error,
    "absolute_difference": lambda: core.absolute_error,
    "huber_loss": lambda delta=1.0: core.huber(delta=delta),
    "log_loss": lambda epsilon=1e-7: own_loss(log_loss_of, {"epsilon": core.as_number("epsilon", epsilon)}),
}


def stream(
    loss: str | Callable[..., Result] = "mean_squared_error",
    *,
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
    **parameters: float,
) -> Stream:
    """Return the streaming form of a loss of this module.

    Parameters
    ----------
    loss : str or function, default "mean_squared_error"
        One of the functions of this module that return a loss, or its name.
    reduction : str, default Reduction.SUM_BY_NONZERO_WEIGHTS
        See `Reduction`.
    **parameters
        The loss' own: delta of huber_loss, epsilon of log_loss.

    Returns
    -------
    Stream
        Its update takes (labels, predictions, weights=1.0), or (losses, weights=1.0) for compute_weighted_loss.

    Raises
    ------
    ValueError
        For an unknown loss or reduction.

    Examples
    --------
    >>> s = stream("mean_squared_error", reduction=Reduction.MEAN)
    >>> for labels, predictions, weights in [([[1, 9, 2]], [[4, 8, 12]], [[1.2]]), ([[-5, -2, 6]], [[8, 1, 3]], 3.4)]:
    ...     _ = s.update(labels, predictions, weights)
    >>> s.result()
    np.float32(55.63768)

    """
    Reduction.validate(reduction)
    return _stream(loss, reduction, **parameters)


def _stream(loss: str | Callable[..., Result], reduction: str, **parameters: float) -> Stream:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", repr(loss))
    known = name in _LOSSES or name == "compute_weighted_loss"
    if not known or (callable(loss) and globals()[name] is not loss):
        raise ValueError(f"loss must be compute_weighted_loss, {', '.join(_LOSSES)}, got {loss!r}")
    has = inspect.signature(_LOSSES[name]).parameters if name in _LOSSES else ()
    for parameter in parameters:
        if parameter not in has:
            raise TypeError(f"{name} has no parameter {parameter!r}; it has: {', '.join(has) or 'none'}")
    if name == "compute_weighted_loss":
        return WeightedLossStream(core.squared_error, reduction)
    return Stream(_LOSSES[name](**parameters), reduction)


def compute_weighted_loss(
    losses: npt.ArrayLike,
    weights: npt.ArrayLike = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Result:
    """Weight and reduce losses that have been computed already: `tf.compat.v1.losses.compute_weighted_loss`.

    Parameters
    ----------
    losses : array_like
        Of any shape.
    weights : array_like, default 1.0
        A scalar, or of the rank of losses with every dimension 1 or equal.
    scope, loss_collection
        Ignored.
    reduction : str
        See `Reduction`.

    Returns
    -------
    NumPy scalar, or ndarray for Reduction.NONE
        Of the dtype of losses, float32 if they are integers.

    Raises
    ------
    ValueError, TypeError
        For an unknown reduction, shapes that do not fit, and anything but arrays of real numbers.

    Examples
    --------
    >>> compute_weighted_loss([[9.0, 1.0], [169.0, 9.0]], [[1.0], [0.0]])
    np.float32(5.0)

    """
    return WeightedLossStream(core.squared_error, reduction).once(losses, None, weights)


def mean_squared_error(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Result:
    """Return the weighted squared error: `tf.compat.v1.losses.mean_squared_error`.

    labels and predictions have equal shapes; everything else is as for `compute_weighted_loss`. The result is float32.

    >>> mean_squared_error([[1, 9, 2], [-5, -2, 6]], [[4, 8, 12], [8, 1, 3]], [[1.2], [3.4]], reduction=Reduction.MEAN)
    np.float32(55.63768)
    """
    return _stream(mean_squared_error, reduction).once(labels, predictions, weights)


def absolute_difference(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Result:
    """Return the weighted absolute error: `tf.compat.v1.losses.absolute_difference`; see `mean_squared_error`."""
    return _stream(absolute_difference, reduction).once(labels, predictions, weights)


def huber_loss(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike = 1.0,
    delta: float = 1.0,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Result:
    """Return half the squared error up to delta, linear beyond: `tf.compat.v1.losses.huber_loss`."""
    return _stream(huber_loss, reduction, delta=delta).once(labels, predictions, weights)


def log_loss(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike = 1.0,
    epsilon: float = 1e-7,
    scope: str | None = None,
    loss_collection: str | None = "losses",
    reduction: str = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> Result:
    """Return the cross entropy of labels and probabilities: `tf.compat.v1.losses.log_loss`."""
    return _stream(log_loss, reduction, epsilon=epsilon).once(labels, predictions, weights)


def add_loss(loss: Any, loss_collection: str | None = "losses") -> None:
    """Do nothing, as TensorFlow does when it executes eagerly: a collection that nobody empties would leak."""


def get_losses(scope: str | None = None, loss_collection: str | None = "losses") -> list[Any]:
    """Return the losses that have been added: none."""
    return []


def get_regularization_losses(scope: str | None = None) -> list[Any]:
    """Return the regularization losses that have been added: none."""
    return []


def get_regularization_loss(scope: str | None = None, name: str = "total_regularization_loss") -> np.float32:
    """Return the sum of no regularization losses: 0.0."""
    return np.float32(0.0)


def get_total_loss(
    add_regularization_losses: bool = True, name: str = "total_loss", scope: str | None = None
) -> NoReturn:
    """Raise ValueError, always: there are no losses to add."""
    raise ValueError("there are no losses to add: eager execution collects none, keep what the loss functions return")
