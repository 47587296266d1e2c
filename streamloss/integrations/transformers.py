"""transformers: a `compute_metrics` for `Trainer`, batch by batch in constant memory, or all at once.

pip install 'streamloss[transformers]'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

try:
    import transformers
except ImportError as error:
    raise ImportError(
        "streamloss.integrations.transformers needs transformers: pip install 'streamloss[transformers]'"
    ) from error

import numpy as np

from ..losses import Formula, Loss
from ..mergeable import NanPolicy
from ..reduction import Reduction
from ._torch import there
from .torch import Metric


class ComputeMetrics:
    """Exact losses of regression heads, with padding left out: `Trainer(compute_metrics=ComputeMetrics())`.

    With `TrainingArguments(batch_eval_metrics=True)` the trainer calls it for every batch and keeps no predictions;
    without, it calls it once for all. The numbers are the same, for any batch size. On several processes the trainer
    gathers every batch, without the rows that it added to fill the last one, so each process has them all.

    Parameters
    ----------
    metrics : mapping of str to loss, default {"mse": "squared_error"}
        The trainer puts "eval_" before the names.
    reduction, nan
        As for `streamloss.Accumulator`, but the reduction is "mean" by default.
    padding : float or None, default -100
        Elements whose label is this number are left out: the trainer fills shorter rows with it. None: all count.
    mask, weights : callable, optional
        From an `EvalPrediction` to the mask (True keeps an element) or the weights of its elements: of the labels'
        shape, or of its leading dimensions. Inputs are there with `include_for_metrics=["inputs"]`.

    Notes
    -----
    A head with one output has predictions of shape (n, 1) for labels of shape (n,): the last dimension is dropped.
    Where a model returns several arrays the first one counts. On a device nothing waits before the last batch.

    Examples
    --------
    >>> import numpy as np
    >>> from transformers import EvalPrediction
    >>> from streamloss.integrations.transformers import ComputeMetrics
    >>> compute_metrics = ComputeMetrics({"mse": "squared_error", "mae": "absolute_error"})
    >>> predictions, labels = np.zeros((2, 3)), np.array([[1.0, 2.0, -100.0], [4.0, -100.0, -100.0]])
    >>> compute_metrics(EvalPrediction(predictions, labels))
    {'mse': 7.0, 'mae': 2.3333333333333335}

    """

    def __init__(
        self,
        metrics: Mapping[str, str | Loss | Formula] | None = None,
        *,
        reduction: str | Reduction = Reduction.MEAN,
        nan: NanPolicy = "propagate",
        padding: float | None = -100,
        mask: Callable[[transformers.EvalPrediction], Any] | None = None,
        weights: Callable[[transformers.EvalPrediction], Any] | None = None,
    ) -> None:
        chosen = {"mse": "squared_error"} if metrics is None else metrics
        self.metrics = {name: Metric(loss, reduction=reduction, nan=nan) for name, loss in chosen.items()}
        self._padding, self._mask, self._weights = padding, mask, weights

    def __call__(self, batch: transformers.EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Add a batch; with `compute_result`, return the values and forget what was seen."""
        predictions, labels = (first(values) for values in (batch.predictions, batch.label_ids))
        if tuple(predictions.shape) == (*labels.shape, 1):
            predictions = predictions.reshape(labels.shape)
        mask = None if self._mask is None else self._mask(batch)
        weights = None if self._weights is None else self._weights(batch)
        if self._padding is not None:
            known = labels != self._padding
            mask = known if mask is None else known & aligned(mask, labels)
        for metric in self.metrics.values():
            metric.update(predictions, labels, weights, mask=mask)
        if not compute_result:
            return {}
        results = {name: metric.compute() for name, metric in self.metrics.items()}
        self.reset()
        return results

    def reset(self) -> None:
        """Forget all that was seen: after an evaluation that was aborted, whose batches would count in the next."""
        for metric in self.metrics.values():
            metric.reset()


def first(values: Any) -> Any:
    """Return the first of several arrays, or the only one."""
    return values[0] if isinstance(values, (tuple, list)) else values


def aligned(mask: Any, labels: Any) -> Any:
    """Return a mask of leading dimensions with as many dimensions as the labels: a tensor if they are, or an array."""
    mask = there(mask, labels.device) if hasattr(labels, "detach") else np.asarray(mask)
    return mask.reshape(tuple(mask.shape) + (1,) * (labels.ndim - mask.ndim))
