"""LightGBM: an evaluation metric and an objective, for `lightgbm.train` and for its scikit-learn estimators.

pip install 'streamloss[lightgbm]'
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

try:
    import lightgbm
except ImportError as error:
    raise ImportError("streamloss.integrations.lightgbm needs LightGBM: pip install 'streamloss[lightgbm]'") from error

from ..accumulator import Accumulator
from ..losses import Formula, Loss
from ..reduction import Reduction
from ._boosting import boosted, gradient_and_hessian, named, value


def metric(
    loss: str | Loss | Formula = "squared_error",
    *,
    reduction: str | Reduction = Reduction.MEAN,
    name: str | None = None,
) -> Callable[..., tuple[str, float, bool]]:
    """Return an evaluation metric: `feval=` of `lightgbm.train`, `eval_metric=` of an estimator; with weights."""
    empty = Accumulator(loss, reduction=reduction)
    shown = name or empty.loss.name
    return named(partial(_evaluate, shown, empty), shown)


def _evaluate(
    name: str, empty: Accumulator, first: Any, second: Any, sample_weight: Any = None
) -> tuple[str, float, bool]:
    if isinstance(second, lightgbm.Dataset):
        return name, value(empty, second.get_label(), first, second.get_weight()), False
    return name, value(empty, first, second, sample_weight), False


def objective(loss: str | Loss | Formula = "squared_error") -> Callable[..., tuple[Any, Any]]:
    """Return an objective: `params["objective"]` of `lightgbm.train`, `objective=` of an estimator; with weights.

    "squared_error" is (prediction - label)**2: twice LightGBM's own "regression", so that trees are the same where
    `min_sum_hessian_in_leaf` and `lambda_l2` are doubled, too. "huber(delta=...)" is LightGBM's "huber". Boosting from
    a custom objective starts at 0, not at the mean of the labels. Others: ValueError.
    """
    found = boosted(loss)
    return named(partial(_derive, found), found.name)


def _derive(loss: Loss, first: Any, second: Any, sample_weight: Any = None) -> tuple[Any, Any]:
    if isinstance(second, lightgbm.Dataset):
        return gradient_and_hessian(loss, second.get_label(), first, second.get_weight())
    return gradient_and_hessian(loss, first, second, sample_weight)
