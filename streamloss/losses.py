"""The losses: one plain scalar function each, and the table of them.

A loss takes the label and the prediction of one element as float64 and returns a float64. The loops around it, over
blocks and threads, are elsewhere and the same for all. To add a loss, write its function here under `@define`, and its
name into `__all__` and README; the command and the tests find it in the table. Its derivative, if there is one, stands
below it, under `@derivative_of`; gradients and training losses find it there.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from ._cached import cached_property
from .fingerprints import fingerprint

__all__ = [
    "LOSSES",
    "Loss",
    "absolute_error",
    "as_loss",
    "binary_cross_entropy",
    "derivative",
    "derivative_of",
    "huber",
    "log_cosh",
    "quantile",
    "squared_error",
    "squared_log_error",
]
USER_FUNCTION = "user's function "  # how the spec of one begins
Formula: TypeAlias = Callable[..., Any]  # a scalar function, plain or compiled with Numba


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss with its parameters.

    Calling it with other parameters returns another loss:

    >>> import streamloss
    >>> streamloss.losses.huber
    huber(delta=1.0)
    >>> streamloss.losses.huber(delta=2.5)
    huber(delta=2.5)

    Attributes
    ----------
    name : str
        The name in the table `LOSSES`, or the name of a user's function.
    formula : callable
        The scalar function: label, prediction and then the parameters, all float64, to float64.
    parameters : mapping of str to float
        Their values, in the order of the formula.

    """

    name: str
    formula: Formula = field(repr=False)
    parameters: Mapping[str, float] = field(default_factory=dict)
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False)
    is_ours: bool = field(default=False, repr=False)  # a formula of this package: it is sound, and never changes

    def __post_init__(self) -> None:
        for name in ("parameters", "domain"):  # many accumulators share a loss
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __call__(self, *data: object, **parameters: float) -> Loss:
        """Return the loss with other parameters, given by name; ValueError for one unknown or out of its domain."""
        if data:
            raise TypeError(
                f"{self.name} takes parameters, and those by name; for its value on data, use"
                f" streamloss.Accumulator({self.name!r}).update(labels, predictions).result()"
            )
        for name, value in parameters.items():
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                raise ValueError(f"loss {self.name} has no parameter {name!r}; it has: {known}")
            low, high = self.domain.get(name, (-math.inf, math.inf))
            if not low < as_number(f"{name} of {self.name}", value) < high:
                raise ValueError(f"{name} of {self.name} must lie strictly between {low} and {high}, got {value!r}")
        values = {name: float(parameters.get(name, value)) for name, value in self.parameters.items()}
        return Loss(self.name, self.formula, values, self.domain, self.is_ours)

    def __repr__(self) -> str:
        if not self.parameters:
            return self.name
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.parameters.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Loss):
            return NotImplemented
        return repr(self) == repr(other) and self.fingerprint == other.fingerprint

    @property
    def is_builtin(self) -> bool:
        """Whether it is in the table, so that its repr says all about it."""
        return self.name in LOSSES and LOSSES[self.name].formula is self.formula

    @property
    def spec(self) -> str:
        """The loss as files keep it: in full if it is in the table, otherwise without the code of its function."""
        return repr(self) if self.is_builtin else USER_FUNCTION + repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    @cached_property
    def values(self) -> tuple[float, ...]:
        """The parameters' values, in the order of the formula."""
        return tuple(self.parameters.values())

    @cached_property
    def fingerprint(self) -> str:
        """A digest of what the formula computes, by which a pickled copy is still the same loss."""
        return fingerprint(self.formula)

    @property
    def identity(self) -> str:
        """What tells it from all other losses, in other processes, too."""
        return repr(self) if self.is_builtin else f"{self!r} {self.fingerprint[:16]}"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.is_builtin:
            return as_loss, (self.spec,)
        return Loss, (self.name, self.formula, dict(self.parameters), dict(self.domain), self.is_ours)


LOSSES: dict[str, Loss] = {}


def define(**domain: tuple[float, float]) -> Callable[[Formula], Loss]:
    """Enter a formula into the table; its arguments with a default are parameters, each between two numbers."""

    def enter(formula: Formula) -> Loss:
        parameters = {
            name: float(parameter.default)
            for name, parameter in inspect.signature(formula).parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }
        loss = Loss(formula.__name__, formula, parameters, domain, is_ours=True)
        if loss.name in LOSSES:
            raise ValueError(f"loss {loss.name} is in the table already")
        object.__setattr__(loss, "__doc__", formula.__doc__)
        LOSSES[loss.name] = loss
        return loss

    return enter


DERIVATIVES: dict[Formula, Formula] = {}


def derivative_of(loss: str | Loss | Formula) -> Callable[[Formula], Formula]:
    """Enter the derivative of a loss with respect to the prediction: a function of the same arguments.

    >>> import streamloss
    >>> def fourth_power(label, prediction):
    ...     return (prediction - label) ** 4
    >>> @streamloss.losses.derivative_of(fourth_power)
    ... def slope(label, prediction):
    ...     return 4 * (prediction - label) ** 3
    >>> streamloss.gradient([1.0, 2.0], [3.0, 2.0], loss=fourth_power, reduction="sum")
    array([32.,  0.])
    """
    of = as_loss(loss)
    count = 2 + len(of.parameters)

    def enter(derivative: Formula) -> Formula:
        try:
            inspect.signature(getattr(derivative, "py_func", derivative)).bind(*[0.0] * count)
        except TypeError as error:
            raise TypeError(f"the derivative of {of!r} must take the same {count} arguments: {error}") from None
        DERIVATIVES[of.formula] = derivative
        return derivative

    return enter


def derivative(loss: str | Loss | Formula) -> Loss:
    """Return the derivative of a loss with respect to the prediction, as a loss; ValueError if none is known."""
    loss = as_loss(loss)
    if loss.formula not in DERIVATIVES:
        raise ValueError(
            f"loss {loss.name} has no derivative here: write it as a function of the same arguments,"
            " under @streamloss.losses.derivative_of(the loss)"
        )
    formula = getattr(DERIVATIVES[loss.formula], "py_func", DERIVATIVES[loss.formula])
    is_ours = formula.__module__.partition(".")[0] == __package__
    return Loss(f"derivative of {loss.name}", formula, loss.parameters, is_ours=is_ours)


NOT_PLAIN = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def as_loss(loss: str | Loss | Formula) -> Loss:
    """Return the loss that a name such as "huber(delta=2)", a loss or a function of two floats stands for."""
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        return _parse(loss)
    formula = getattr(loss, "py_func", loss)  # a function that the user compiled with Numba
    if not isinstance(formula, types.FunctionType):
        raise TypeError(
            f"loss must be one of {', '.join(LOSSES)}, a Loss or a function of label and prediction,"
            f" got {type(loss).__name__}"
        )
    if formula.__code__.co_flags & NOT_PLAIN:
        raise TypeError(f"loss {formula.__name__} must be a plain function, got a generator or a coroutine")
    signature = inspect.signature(formula)
    try:
        signature.bind(0.0, 0.0)
        _check_no_more(signature)
    except TypeError as error:
        raise TypeError(f"loss {formula.__name__} must take two arguments, label and prediction: {error}") from None
    return Loss(formula.__name__, formula)


def _check_no_more(signature: inspect.Signature) -> None:
    """Refuse further arguments: compiled code knows neither defaults nor variable numbers of arguments."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for number, parameter in enumerate(signature.parameters.values()):
        if number >= 2 or parameter.kind in several:
            raise TypeError(f"got {str(parameter)!r}, too; let that be a variable outside of the function instead")


def as_number(name: str, value: Any) -> float:
    """Return the value of a parameter, infinite if no float is so large; TypeError if it is not a real number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if cast(Any, value) > 0 else -math.inf


@lru_cache  # an accumulator is often made anew for each of many small batches
def _parse(text: str) -> Loss:
    """Read "name" or "name(parameter=number, ...)"."""
    name = text.partition("(")[0]
    if name not in LOSSES:
        raise ValueError(f"loss {text!r} is unknown; there are: {', '.join(LOSSES)}")
    call = re.fullmatch(r"\w+(?:\((.*)\))?", text)
    pairs = [part.partition("=") for part in call[1].split(",")] if call and call[1] else []
    try:
        values = {parameter.strip(): float(value) for parameter, _, value in pairs}
    except ValueError:
        values = {}
    if call is None or len(values) != len(pairs):
        raise ValueError(f"loss {text!r} is malformed; write it as {LOSSES[name]!r}")
    return LOSSES[name](**values)


@define()
def squared_error(label: float, prediction: float) -> float:
    """(prediction - label)**2."""
    error = prediction - label
    return error * error


@derivative_of(squared_error)
def _squared_error(label: float, prediction: float) -> float:
    return 2.0 * (prediction - label)


@define()
def absolute_error(label: float, prediction: float) -> float:
    """abs(prediction - label)."""
    return abs(prediction - label)


@derivative_of(absolute_error)
def _absolute_error(label: float, prediction: float) -> float:
    """0 at 0, where there is no derivative, as in torch and TensorFlow."""
    error = prediction - label
    if error > 0.0:
        return 1.0
    if error < 0.0:
        return -1.0
    return error  # 0 or NaN


@define(delta=(0.0, math.inf))
def huber(label: float, prediction: float, delta: float = 1.0) -> float:
    """Half the squared error up to delta, linear beyond: Huber (1964), doi:10.1214/aoms/1177703732."""
    error = abs(prediction - label)
    if error <= delta:
        return 0.5 * error * error
    return delta * (error - 0.5 * delta)


@derivative_of(huber)
def _huber(label: float, prediction: float, delta: float) -> float:
    error = prediction - label
    if error > delta:
        return delta
    if error < -delta:
        return -delta
    return error


@define()
def log_cosh(label: float, prediction: float) -> float:
    """log(cosh(prediction - label)), without overflow for large errors and without cancellation for small ones."""
    error = abs(prediction - label)
    small = error < 1.0
    decay = math.expm1(-error)
    rest = 1.0 + decay  # exp(-x); cosh(x) = 1 + expm1(-x)**2 / (2 exp(-x)) = exp(x) (1 + exp(-x)**2) / 2
    more = math.log1p(0.5 * decay * decay / rest if small else rest * rest)
    return more if small else (error - math.log(2.0)) + more


@derivative_of(log_cosh)
def _log_cosh(label: float, prediction: float) -> float:
    return math.tanh(prediction - label)


@define()
def squared_log_error(label: float, prediction: float) -> float:
    """(log1p(prediction) - log1p(label))**2, without cancellation where they are close; NaN below -1."""
    apart = abs(prediction - label)
    base = 1.0 + min(label, prediction)
    far = 2.0**-200 * apart > base  # apart / base may overflow
    error = math.log1p((2.0**-100 * apart if far else apart) / base)  # abs(log1p(prediction) - log1p(label))
    error = error + 100.0 * math.log(2.0) if far else error
    return error * error if base >= 0.0 else math.nan


@derivative_of(squared_log_error)
def _squared_log_error(label: float, prediction: float) -> float:
    apart, base = prediction - label, 1.0 + label
    if abs(apart) < 0.5 * base:  # the difference of the logarithms would cancel
        return 2.0 * math.log1p(apart / base) / (1.0 + prediction)
    return 2.0 * (math.log1p(prediction) - math.log1p(label)) / (1.0 + prediction)


@define(q=(0.0, 1.0))
def quantile(label: float, prediction: float, q: float = 0.5) -> float:
    """The pinball loss of the q-quantile: Koenker and Bassett (1978), doi:10.2307/1913643."""
    error = label - prediction
    if error >= 0.0:
        return q * error
    return (q - 1.0) * error


@derivative_of(quantile)
def _quantile(label: float, prediction: float, q: float) -> float:
    """At 0, where there is no derivative, the one from below."""
    error = label - prediction
    if error >= 0.0:
        return -q
    if error < 0.0:
        return 1.0 - q
    return error  # NaN


@define(eps=(0.0, 0.5))
def binary_cross_entropy(label: float, prediction: float, eps: float = 1e-7) -> float:
    """-(label * log(p) + (1 - label) * log(1 - p)), where p is the prediction clipped to [eps, 1 - eps]."""
    p, rest = prediction, 1.0 - label
    if p < eps:
        p = eps
    elif p > 1.0 - eps:
        p = 1.0 - eps
    other = rest * math.log1p(-p)
    return -(label * math.log(p) + (other if rest != 0.0 else 0.0))  # below 2**-53, eps leaves p = 1


@derivative_of(binary_cross_entropy)
def _binary_cross_entropy(label: float, prediction: float, eps: float) -> float:
    """0 where the prediction is clipped."""
    if prediction < eps or prediction > 1.0 - eps:
        return label - label  # NaN for a label that makes the loss NaN
    return (prediction - label) / (prediction * (1.0 - prediction))


# The loss of update_losses(): the caller passes losses that are computed already, as labels and predictions.
PRECOMPUTED = Loss("precomputed", lambda label, prediction: label, is_ours=True)
