"""XGBoost: an evaluation metric and an objective, for `xgboost.train` and for its scikit-learn estimators.

pip install 'streamloss[xgboost]'
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

try:
    import xgboost
except ImportError as error:
    raise ImportError("streamloss.integrations.xgboost needs XGBoost: pip install 'streamloss[xgboost]'") from error

from ..accumulator import Accumulator
from ..losses import Formula, Loss
from ..reduction import Reduction
from ._boosting import boosted, gradient_and_hessian, named, value


def metric(
    loss: str | Loss | Formula = "squared_error",
    *,
    reduction: str | Reduction = Reduction.MEAN,
    name: str | None = None,
) -> Callable[..., Any]:
    """Return an evaluation metric: `custom_metric=` of `xgboost.train`, `eval_metric=` of an estimator; with weights.

    XGBoost keeps six decimals of the value. Predictions and labels are float32 there.
    """
    empty = Accumulator(loss, reduction=reduction)
    shown = name or empty.loss.name
    return named(partial(_evaluate, shown, empty), shown)


def _evaluate(name: str, empty: Accumulator, first: Any, second: Any, sample_weight: Any = None) -> Any:
    if isinstance(second, xgboost.DMatrix):
        return name, value(empty, second.get_label(), first, second.get_weight())
    return value(empty, first, second, sample_weight)


def objective(loss: str | Loss | Formula = "squared_error") -> Callable[..., tuple[Any, Any]]:
    """Return an objective: `obj=` of `xgboost.train`, `objective=` of an estimator; gradient and hessian with weights.

    "squared_error" is (prediction - label)**2: twice XGBoost's own, so that trees are the same where `reg_lambda` and
    `min_child_weight` are doubled, too. "huber(delta=...)" has the hessian 1, as in LightGBM. Others: ValueError.
    """
    found = boosted(loss)
    return named(partial(_derive, found), found.name)


def _derive(loss: Loss, first: Any, second: Any, sample_weight: Any = None) -> tuple[Any, Any]:
    if isinstance(second, xgboost.DMatrix):
        return gradient_and_hessian(loss, second.get_label(), first, second.get_weight())
    return gradient_and_hessian(loss, first, second, sample_weight)
