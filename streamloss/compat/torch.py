"""`torch.nn.MSELoss`, `torch.nn.functional.mse_loss` and others like them, on arrays: the prediction comes first."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import losses
from ..losses import Loss
from ..reduction import Reduction
from . import _streams
from ._streams import Array, Measured, Result, Seen, own_loss, promoted, read


def smooth_l1(label: float, prediction: float, beta: float) -> float:
    """0.5 * error**2 / beta below beta, error - 0.5 * beta beyond."""
    error = abs(prediction - label)
    if error < beta:
        return 0.5 * error * error / beta
    return error - 0.5 * beta


@losses.derivative_of(own_loss(smooth_l1, {"beta": 1.0}))
def _smooth_l1(label: float, prediction: float, beta: float) -> float:
    error = prediction - label
    if error >= beta:
        return 1.0
    if error <= -beta:
        return -1.0
    return error / beta


def smooth_l1_of(beta: float) -> Loss:
    """Return the loss of `smooth_l1_loss`: for beta 0, the absolute error."""
    number = losses.as_number("beta", beta)
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"beta must be 0 or more, got {beta!r}")
    return own_loss(smooth_l1, {"beta": number}) if number else losses.absolute_error


def is_huber(loss: Loss) -> bool:
    """Whether a loss is that of `huber_loss`.

    Its mean is over the number of elements, with a weight too, and it has the dtype of its input; the others divide by
    the sum of the weights, and promote.
    """
    return loss.name == "huber"


class Stream(_streams.Stream):
    """The streaming form of a loss; see `MSELoss.stream`."""

    def __init__(self, loss: Loss, reduction: str) -> None:
        if reduction not in ("none", "mean", "sum", "elementwise_mean"):
            raise ValueError(f"{reduction} is not a valid value for reduction")
        self._takes_weights = reduction != "elementwise_mean"
        if not self._takes_weights:
            _warn("reduction='elementwise_mean' is deprecated. Please use reduction='mean' instead.")
            reduction = "mean"
        super().__init__(loss, reduction)

    def update(
        self,
        input: npt.ArrayLike,  # noqa: A002  # torch's name
        target: npt.ArrayLike,
        weight: npt.ArrayLike | None = None,
        *,
        out: Array | None = None,
    ) -> Stream:
        """Add a chunk: `input` is the prediction; `weight` has exactly its size, and None stands for ones."""
        return self._update(target, input, weight, out)

    def _measure(self, labels: Any, predictions: Any, weights: Any, unreduced: bool) -> Measured:
        input, target = read("input", predictions), read("target", labels)  # noqa: A001  # torch's name
        if input.array.shape != target.array.shape:
            raise ValueError(
                f"input and target must have the same size, got {input.array.shape} and {target.array.shape}"
            )
        narrow = is_huber(self._loss) and input.dtype is not None
        dtype = input.dtype if narrow else promoted(input.dtype, target.dtype)
        weight: Any = 1.0
        if weights is not None:
            if not self._takes_weights:
                raise ValueError("Invalid reduction mode: elementwise_mean. Expected one of 'none', 'mean', 'sum'.")
            weight, weight_dtype = read("weight", weights)
            if weight.shape != input.array.shape:
                raise ValueError("Weights and input must have the same size.")
            dtype = promoted(dtype, weight_dtype)
        return _streams.measure(self._loss, target.array, input.array, weight, dtype, unreduced)

    def _value(self, seen: Seen) -> float:
        accumulator = seen.accumulator
        if self._reduction == "sum":
            return accumulator.loss_sum
        if is_huber(self._loss):
            return accumulator.result(Reduction.SUM_OVER_BATCH_SIZE)
        if accumulator.weight_sum == 0:  # no guard: x / 0 is infinite, 0 / 0 is NaN
            with np.errstate(all="ignore"):
                return float(np.float64(accumulator.loss_sum) / np.float64(0.0))
        return accumulator.result(Reduction.MEAN)


def _reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Return the reduction that the legacy arguments stand for, if there are any."""
    if size_average is not None or reduce is not None:
        average, reduced = size_average is None or size_average, reduce is None or reduce
        reduction = ("mean" if average else "sum") if reduced else "none"
        _warn(f"size_average and reduce args will be deprecated, please use reduction='{reduction}' instead.")
    return reduction


def _warn(message: str) -> None:
    """Warn at the line that called this module, however deep in it the warning arises."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


class MSELoss:
    """The mean squared error: `torch.nn.MSELoss`.

    Parameters
    ----------
    size_average, reduce : bool, optional
        Deprecated in torch, with the same warning here: either of them overrides `reduction`.
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean over all elements, their sum, or an array of the losses.

    Notes
    -----
    The result has the dtype that torch promotes input and target to. The prediction comes first, although the order
    changes nothing here. Sizes that differ raise ValueError, where torch warns and broadcasts.

    Examples
    --------
    >>> import numpy as np
    >>> from streamloss.compat import torch as nn
    >>> loss = nn.MSELoss()
    >>> rng = np.random.default_rng(0)
    >>> input, target = rng.standard_normal((2, 3, 5), dtype=np.float32)
    >>> loss(input, target)
    np.float32(1.2049572)

    The same in chunks:

    >>> stream = loss.stream()
    >>> for row in range(3):
    ...     _ = stream.update(input[row], target[row])
    >>> stream.result()
    np.float32(1.2049572)

    """

    _loss: Loss = losses.squared_error

    def __init__(self, size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean") -> None:
        self.reduction = _reduction(size_average, reduce, reduction)

    def stream(self) -> Stream:
        """Return the streaming form: update(input, target, weight=None), result(), reset(), merge(*others)."""
        return Stream(self._loss, self.reduction)

    def forward(self, input: npt.ArrayLike, target: npt.ArrayLike) -> Result:  # noqa: A002  # torch's name
        """Return the loss of arrays that are at hand: a NumPy scalar, or an array for the reduction "none"."""
        return self.stream().once(target, input, None)

    __call__ = forward

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class L1Loss(MSELoss):
    """The mean absolute error: `torch.nn.L1Loss`.

    >>> L1Loss(reduction="sum")([1.0, 4.0], [2.0, 2.0])
    np.float32(3.0)
    """

    _loss = losses.absolute_error


class HuberLoss(MSELoss):
    """Half the squared error up to delta, linear beyond: `torch.nn.HuberLoss`.

    >>> HuberLoss(delta=2.0)([1.0, 4.0], [2.0, 0.0])
    np.float32(3.25)
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    @property
    def delta(self) -> float:
        """Where the loss becomes linear; another one can be assigned."""
        return self._delta

    @delta.setter
    def delta(self, delta: float) -> None:
        self._loss, self._delta = losses.huber(delta=delta), delta


class SmoothL1Loss(MSELoss):
    """HuberLoss divided by beta; for beta 0, L1Loss: `torch.nn.SmoothL1Loss`.

    >>> SmoothL1Loss(beta=2.0)([1.0, 4.0], [2.0, 0.0])
    np.float32(1.625)
    """

    def __init__(
        self,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    @property
    def beta(self) -> float:
        """Where the loss becomes linear; another one can be assigned."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._loss, self._beta = smooth_l1_of(beta), beta


def mse_loss(
    input: npt.ArrayLike,  # noqa: A002  # torch's name
    target: npt.ArrayLike,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: npt.ArrayLike | None = None,
) -> Result:
    """`torch.nn.functional.mse_loss`: with a weight, the mean is sum(weight * loss) / sum(weight), without a guard.

    >>> mse_loss([1.0, 2.0], [0.0, 0.0], weight=[3.0, 1.0])
    np.float32(1.75)
    """
    return Stream(losses.squared_error, _reduction(size_average, reduce, reduction)).once(target, input, weight)


def l1_loss(
    input: npt.ArrayLike,  # noqa: A002  # torch's name
    target: npt.ArrayLike,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: npt.ArrayLike | None = None,
) -> Result:
    """`torch.nn.functional.l1_loss`, with a weight as `mse_loss`."""
    return Stream(losses.absolute_error, _reduction(size_average, reduce, reduction)).once(target, input, weight)


def huber_loss(
    input: npt.ArrayLike,  # noqa: A002  # torch's name
    target: npt.ArrayLike,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: npt.ArrayLike | None = None,
) -> Result:
    """`torch.nn.functional.huber_loss`: with a weight too, the mean is over the number of elements."""
    return HuberLoss(reduction, delta).stream().once(target, input, weight)


def smooth_l1_loss(
    input: npt.ArrayLike,  # noqa: A002  # torch's name
    target: npt.ArrayLike,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Result:
    """`torch.nn.functional.smooth_l1_loss`."""
    return SmoothL1Loss(None, None, _reduction(size_average, reduce, reduction), beta)(input, target)
