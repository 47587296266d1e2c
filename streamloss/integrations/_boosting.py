"""Gradients and hessians for boosting."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..accumulator import Accumulator
from ..gradients import gradient
from ..losses import Formula, Loss, as_loss

# Second derivatives; for huber, whose own is 0 beyond delta, the bound 1, as LightGBM has it: no leaf divides by 0.
CURVATURES = {"squared_error": 2.0, "huber": 1.0}


def boosted(loss: str | Loss | Formula) -> Loss:
    """Return the loss if it can be an objective; ValueError if its curvature is not known here."""
    found = as_loss(loss)
    if found.name not in CURVATURES or not found.is_builtin:
        raise ValueError(f"loss must be one of {', '.join(CURVATURES)} to be an objective, got {found!r}")
    return found


def gradient_and_hessian(loss: Loss, labels: Any, predictions: Any, weights: Any) -> tuple[Any, Any]:
    """Return the gradient and the hessian of every row's weighted loss; without weights, all are 1."""
    weights = _given(weights)
    first = gradient(labels, predictions, weights, loss=loss, reduction="sum")
    second = np.full(first.shape, CURVATURES[loss.name])
    return first, second if weights is None else second * np.asarray(weights, np.float64)


def value(empty: Accumulator, labels: Any, predictions: Any, weights: Any) -> float:
    """Return the loss of all rows."""
    return empty.copy().update(labels, predictions, _given(weights)).result()


def named(function: partial[Any], name: str) -> partial[Any]:
    """Give a function a name, which both libraries ask for; as a `partial` it can be pickled, within estimators too."""
    vars(function)["__name__"] = name
    return function


def _given(weights: Any) -> Any:
    """Return the weights of a data set, or None for none: XGBoost has an empty array then."""
    return None if weights is None or np.size(weights) == 0 else weights
