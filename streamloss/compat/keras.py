"""`keras.losses` on arrays, of Keras 2.15 and Keras 3: the last axis is averaged first, sample_weight weighs rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .. import exact, losses
from ..accumulator import Accumulator
from ..reduction import Reduction, quotient
from . import _streams
from ._rows import add_rows
from ._streams import FLOAT32, Array, Measured, Result, Seen, own_loss, read, safe

EPSILON = 1e-7  # keras.backend.epsilon()
ONLY_AXIS = -1  # stands for the last axis of arrays of rank 1, which grows with every chunk


def squared_log_error(label: float, prediction: float) -> float:
    """(log(1 + prediction) - log(1 + label))**2, both clipped from below at EPSILON."""
    a = prediction if not prediction < EPSILON else EPSILON
    b = label if not label < EPSILON else EPSILON
    error = math.log(a + 1.0) - math.log(b + 1.0)
    return error * error


def cross_entropy(label: float, prediction: float, smoothing: float) -> float:
    """-(y * log(p) + (1 - y) * log(1 - p)), with p clipped to [EPSILON, 1 - EPSILON] and y smoothed."""
    y = label * (1.0 - smoothing) + 0.5 * smoothing
    p = prediction
    if p < EPSILON:
        p = EPSILON
    elif p > 1.0 - EPSILON:
        p = 1.0 - EPSILON
    return -(y * math.log(p) + (1.0 - y) * math.log(1.0 - p))


def cross_entropy_from_logits(label: float, prediction: float, smoothing: float) -> float:
    """cross_entropy of p = 1 / (1 + exp(-prediction)), not clipped, without overflow."""
    y = label * (1.0 - smoothing) + 0.5 * smoothing
    return max(prediction, 0.0) - prediction * y + math.log1p(math.exp(-abs(prediction)))


class ReductionV2:
    """The reductions of Keras 2.15; Keras 3 has "mean", "mean_with_sample_weight" and None besides, and no "auto"."""

    AUTO = "auto"
    NONE = "none"
    SUM = "sum"
    SUM_OVER_BATCH_SIZE = "sum_over_batch_size"

    @classmethod
    def all(cls) -> tuple[str, ...]:
        """Return all names."""
        return (cls.AUTO, cls.NONE, cls.SUM, cls.SUM_OVER_BATCH_SIZE)

    @classmethod
    def validate(cls, key: str | None) -> None:
        """Raise ValueError unless the key is the name of a reduction."""
        if key not in cls.all():
            raise ValueError(f'Invalid Reduction Key: {key}. Expected keys are "{cls.all()}"')


REDUCTIONS = (*ReductionV2.all(), "mean", "mean_with_sample_weight", None)


class Stream(_streams.Stream):
    """The streaming form of a loss; see `Loss.stream`.

    "sum" divides by the size of the last axis, which must therefore be the same in every update. The last axis of
    arrays of rank 1 is their only one: however you split them, they count as one row.
    """

    def __init__(self, loss: losses.Loss, reduction: str | None, dtype: np.dtype[Any] | None) -> None:
        super().__init__(loss, reduction)
        self._dtype = dtype

    def update(
        self,
        y_true: npt.ArrayLike,
        y_pred: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        *,
        out: Array | None = None,
    ) -> Stream:
        """Add a chunk: the arguments of `Loss.__call__`; `out` receives its weighted row losses, not reduced.

        Raises ValueError for "sum" where the last axis has another size than before.
        """
        return self._update(y_true, y_pred, sample_weight, out)

    def _joined(self, seen: Seen, more: Seen) -> Seen:
        joined = seen + more
        if self._reduction == "sum" and len(joined.last_axes) > 1:
            sizes = sorted(joined.last_axes)
            raise ValueError(f"reduction 'sum' needs last axes of one size (-1: arrays of rank 1), got {sizes}")
        return joined

    def _measure(self, labels: Any, predictions: Any, weights: Any, unreduced: bool) -> Measured:
        y_true, y_pred = read("y_true", labels).array, read("y_pred", predictions)
        shape = y_pred.array.shape
        if y_true.shape != shape or not shape:
            raise ValueError(
                f"y_true and y_pred must have one shape, of rank 1 or more, got {y_true.shape} and {shape}"
            )
        weights = row_weights(weights, shape)
        last_axes = frozenset([ONLY_AXIS] if len(shape) == 1 else [shape[-1]] if self._reduction == "sum" else [])
        seen = Seen(Accumulator(self._loss), self._dtype or y_pred.dtype, last_axes)
        if not unreduced and shape[-1] and not np.isinf(weights).any():
            seen.accumulator.update(y_true, y_pred.array, weights)
            return Measured(seen, None)
        return Measured(seen, add_rows(seen.accumulator, y_true, y_pred.array, weights))

    def _value(self, seen: Seen) -> float:
        accumulator = seen.accumulator
        if ONLY_AXIS in seen.last_axes and accumulator.count == 0:
            return math.nan  # one row, of no elements
        if self._reduction == "mean_with_sample_weight":
            return safe(accumulator, Reduction.MEAN, accumulator.weight_sum)
        if self._reduction != "sum" or ONLY_AXIS in seen.last_axes:
            return safe(accumulator, Reduction.SUM_OVER_BATCH_SIZE, accumulator.count)
        size = max(seen.last_axes, default=0) or 1
        return quotient(exact.section(accumulator.state, exact.TERMS), size * exact.ONE)


def row_weights(sample_weight: Any, shape: tuple[int, ...]) -> Any:
    """Return the weights of the rows with a last axis of 1: a scalar, or the leading axes, each 1 or equal."""
    if sample_weight is None:
        return 1.0
    array = read("sample_weight", sample_weight).array
    if array.ndim == 0:
        return array
    rows = shape[:-1]
    padded = array.shape + (1,) * (len(shape) - array.ndim)
    if len(padded) != len(shape) or padded[-1] != 1 or any(w not in (1, n) for w, n in zip(padded, rows, strict=False)):
        raise ValueError(
            "sample_weight must be a scalar or have the leading axes of the row losses (one weight a sample, or a row),"
            f" each 1 or equal; got shape {array.shape} for row losses of shape {rows}"
        )
    return array.reshape(padded)


class Loss:
    """The base class of all losses of this module.

    Parameters
    ----------
    reduction : str or None, default "auto"
        "sum_over_batch_size" (also "auto" and "mean"): the sum of the weighted row losses, divided by their number;
        "sum"; "mean_with_sample_weight": divided by the sum of the weights; "none" or None: the row losses.
    name : str, optional
        By default the loss' own.
    dtype : dtype, optional
        Of results. By default, as in Keras 2.15, that of y_pred; Keras 3 has float32 there.

    """

    _loss: losses.Loss
    _name: ClassVar[str]
    _dtype: np.dtype[Any] | None = None  # of results, where neither dtype nor y_pred decides

    def __init__(self, reduction: str | None = "auto", name: str | None = None, dtype: Any = None) -> None:
        if reduction not in REDUCTIONS:
            raise ValueError(f"Invalid Reduction Key: {reduction}. Expected one of {REDUCTIONS}")
        self.reduction, self.name = reduction, self._name if name is None else name
        self.dtype = None if dtype is None else np.dtype(getattr(dtype, "name", dtype))
        if self.dtype is not None and self.dtype.kind != "f":
            raise TypeError(f"dtype must be a float, got {self.dtype}")

    def __init_subclass__(cls, name: str | None = None, loss: losses.Loss | None = None) -> None:
        if name is not None and loss is not None:
            cls._name, cls._loss = name, loss

    def stream(self) -> Stream:
        """Return the streaming form: update(y_true, y_pred, sample_weight=None), result(), reset(), merge(*others)."""
        return Stream(self._loss, self.reduction, self.dtype or self._dtype)

    def __call__(
        self, y_true: npt.ArrayLike, y_pred: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> Result:
        """Return the loss of arrays that are at hand.

        Parameters
        ----------
        y_true, y_pred : array_like
            Of one shape, [batch, d0, .. dN].
        sample_weight : array_like, optional
            A scalar, [batch], [batch, d0, .. dN-1], or that with a last axis of 1.

        Returns
        -------
        NumPy scalar, or ndarray of shape [batch, d0, .. dN-1] without a reduction

        Raises
        ------
        ValueError, TypeError
            For shapes that do not fit, and for anything but arrays of real numbers.

        """
        return self.stream().once(y_true, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration from which `from_config` makes an equal object."""
        config: dict[str, Any] = {"reduction": self.reduction, "name": self.name}
        return config if self.dtype is None else config | {"dtype": self.dtype.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """Make a loss from a configuration, which may be one of Keras' own."""
        return cls(**{key: value for key, value in config.items() if key != "fn"})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and type(other) is type(self) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.get_config().items())})"


class MeanSquaredError(Loss, name="mean_squared_error", loss=losses.squared_error):
    """The mean of the squared errors: `keras.losses.MeanSquaredError`.

    Examples
    --------
    >>> from streamloss.compat import keras
    >>> y_true, y_pred = [[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]
    >>> mse = keras.MeanSquaredError()
    >>> mse(y_true, y_pred)
    np.float32(0.5)
    >>> mse(y_true, y_pred, sample_weight=[0.7, 0.3])
    np.float32(0.25)
    >>> keras.MeanSquaredError(reduction=keras.ReductionV2.SUM)(y_true, y_pred)
    np.float32(1.0)
    >>> keras.MeanSquaredError(reduction=keras.ReductionV2.NONE)(y_true, y_pred)
    array([0.5, 0.5], dtype=float32)

    In chunks:

    >>> stream = mse.stream()
    >>> for row in range(2):
    ...     _ = stream.update(y_true[row : row + 1], y_pred[row : row + 1], sample_weight=[[0.7], [0.3]][row])
    >>> stream.result()
    np.float32(0.25)

    """


class MeanAbsoluteError(Loss, name="mean_absolute_error", loss=losses.absolute_error):
    """The mean of the absolute errors: `keras.losses.MeanAbsoluteError`."""


class MeanSquaredLogarithmicError(Loss, name="mean_squared_logarithmic_error", loss=own_loss(squared_log_error, {})):
    """The mean of (log(1 + y_true) - log(1 + y_pred))**2: `keras.losses.MeanSquaredLogarithmicError`."""


class LogCosh(Loss, name="log_cosh", loss=losses.log_cosh):
    """The mean of log(cosh(y_pred - y_true)): `keras.losses.LogCosh`."""


class Huber(Loss, name="huber_loss", loss=losses.huber):
    """Half the squared error up to delta, linear beyond: `keras.losses.Huber`, whose results are float32.

    >>> Huber(delta=2.0)([[0.0, 1.0]], [[4.0, 2.0]])
    np.float32(3.25)
    """

    _dtype = FLOAT32

    def __init__(
        self, delta: float = 1.0, reduction: str | None = "auto", name: str | None = None, dtype: Any = None
    ) -> None:
        super().__init__(reduction, name, dtype)
        self.delta = delta

    @property
    def delta(self) -> float:
        """Where the loss becomes linear; another one can be assigned."""
        return self._delta

    @delta.setter
    def delta(self, delta: float) -> None:
        self._loss, self._delta = losses.huber(delta=delta), delta

    def get_config(self) -> dict[str, Any]:
        """Return the configuration from which `from_config` makes an equal object."""
        return super().get_config() | {"delta": self.delta}


class BinaryCrossentropy(Loss, name="binary_crossentropy", loss=own_loss(cross_entropy, {"smoothing": 0.0})):
    """The mean cross entropy of labels and probabilities, or logits: `keras.losses.BinaryCrossentropy`.

    Only the last axis can be averaged (ValueError): the first is the one that chunks add to.

    >>> BinaryCrossentropy()([[0.0], [1.0]], [[0.5], [0.5]])
    np.float32(0.6931472)
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "auto",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(reduction, name, dtype)
        if axis != -1:
            raise ValueError(f"axis must be -1, got {axis!r}")
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        formula = cross_entropy_from_logits if from_logits else cross_entropy
        self._loss = own_loss(formula, {"smoothing": losses.as_number("label_smoothing", label_smoothing)})

    def get_config(self) -> dict[str, Any]:
        """Return the configuration from which `from_config` makes an equal object."""
        own = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing, "axis": -1}
        return super().get_config() | own


def _function(cls: Callable[..., Loss], name: str) -> Callable[..., Result]:
    def row_losses(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, **parameters: Any) -> Result:
        return cls(reduction=None, **parameters)(y_true, y_pred)

    row_losses.__name__ = row_losses.__qualname__ = name
    row_losses.__doc__ = f"The loss of every row, reduced over its last axis only: `keras.losses.{name}`."
    return row_losses


mean_squared_error = _function(MeanSquaredError, "mean_squared_error")
mean_absolute_error = _function(MeanAbsoluteError, "mean_absolute_error")
mean_squared_logarithmic_error = _function(MeanSquaredLogarithmicError, "mean_squared_logarithmic_error")
log_cosh = _function(LogCosh, "log_cosh")


def huber(y_true: npt.ArrayLike, y_pred: npt.ArrayLike, delta: float = 1.0, **parameters: Any) -> Result:
    """Return the loss of every row, reduced over its last axis only: `keras.losses.huber`."""
    return Huber(delta, reduction=None, **parameters)(y_true, y_pred)


def binary_crossentropy(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
    **parameters: Any,
) -> Result:
    """Return the loss of every row, reduced over its last axis only: `keras.losses.binary_crossentropy`."""
    return BinaryCrossentropy(from_logits, label_smoothing, axis, reduction=None, **parameters)(y_true, y_pred)


CLASSES = {cls.__name__: cls for cls in Loss.__subclasses__()}
FUNCTIONS: dict[str, Callable[..., Result]] = {
    **dict.fromkeys(("mse", "MSE", "mean_squared_error"), mean_squared_error),
    **dict.fromkeys(("mae", "MAE", "mean_absolute_error"), mean_absolute_error),
    **dict.fromkeys(("msle", "MSLE", "mean_squared_logarithmic_error"), mean_squared_logarithmic_error),
    **dict.fromkeys(("logcosh", "log_cosh"), log_cosh),
    **dict.fromkeys(("huber", "huber_loss"), huber),
    **dict.fromkeys(("bce", "BCE", "binary_crossentropy"), binary_crossentropy),
}


def get(identifier: Any) -> Any:
    """Return the loss that a name, a configuration or a loss stands for; None for None, ValueError if there is none.

    >>> get("mse")([[0.0, 1.0]], [[2.0, 1.0]])
    array([2.], dtype=float32)
    >>> get("MeanSquaredError")
    MeanSquaredError(reduction='auto', name='mean_squared_error')
    """
    if isinstance(identifier, (str, dict)):
        return deserialize(identifier)
    if identifier is None or callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret loss identifier: {identifier}")


def serialize(loss: Any) -> dict[str, Any]:
    """Return the configuration of a loss, in the form that Keras writes.

    >>> deserialize(serialize(Huber(delta=2.0)))
    Huber(reduction='auto', name='huber_loss', delta=2.0)
    """
    if isinstance(loss, Loss):
        config, module, registered = loss.get_config(), "keras.losses", None
        return {"module": module, "class_name": type(loss).__name__, "config": config, "registered_name": registered}
    name = getattr(loss, "__name__", None)
    if FUNCTIONS.get(str(name)) is not loss:
        raise ValueError(f"cannot serialize {loss!r}: it is not a loss of this module")
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def deserialize(name: str | dict[str, Any]) -> Any:
    """Return the loss that a name or a configuration (Keras' own, too) stands for; ValueError if there is none."""
    config: Any = {}
    if isinstance(name, dict):
        config = name.get("config", {})
        name = str(config if name.get("class_name") == "function" else name.get("class_name"))
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name not in CLASSES:
        raise ValueError(f"Unknown loss: {name!r}; there are: {', '.join([*CLASSES, *FUNCTIONS])}")
    return CLASSES[name].from_config(config)
