"""torchmetrics, and Lightning by way of it: a metric for `self.log`, collections, checkpoints and DDP.

pip install 'streamloss[torchmetrics]'
"""

from __future__ import annotations

import hashlib
from typing import Any

try:
    import torchmetrics
except ImportError as error:
    raise ImportError(
        "streamloss.integrations.torchmetrics needs torchmetrics: pip install 'streamloss[torchmetrics]'"
    ) from error

import torch

from ..accumulator import Accumulator
from ..losses import Formula, Loss
from ..mergeable import NanPolicy
from ..reduction import Reduction
from ._names import Named
from ._tensors import joined
from ._torch import OPERATIONS, device_of, device_state, host

NAMES = Named(labels="target", predictions="preds")
ON_DEVICE = Named(input="preds", weight="weights")


class Metric(torchmetrics.Metric):
    """An exact loss over all batches and ranks: the same bits for any batch size and any number of processes.

    Parameters
    ----------
    loss, reduction, nan
        As for `streamloss.Accumulator`, but the reduction is "mean" by default: weighted if there are weights.
    **kwargs
        Those of `torchmetrics.Metric`.

    Notes
    -----
    The state is one tensor of int64, summed over ranks as integers. Its name holds a digest of the loss: metrics of a
    collection share a state only where they have the same loss, and a checkpoint of another loss does not load.
    On a device nothing waits before `compute`, see `streamloss.integrations.torch.Metric`. The result is float64.

    Examples
    --------
    >>> import torch
    >>> from streamloss.integrations.torchmetrics import Metric
    >>> metric = Metric("squared_error")
    >>> for batch in ([1.0, 2.0], [4.0]):
    ...     metric.update(torch.tensor(batch), torch.zeros(len(batch)))
    >>> metric.compute()
    tensor(7., dtype=torch.float64)

    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(
        self,
        loss: str | Loss | Formula = "squared_error",
        *,
        reduction: str | Reduction = Reduction.MEAN,
        nan: NanPolicy = "propagate",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._empty = Accumulator(loss, reduction=reduction, nan=nan)
        # torchmetrics lets metrics share a state whose names and values are equal after the first batch.
        digest = hashlib.sha256(f"{self._empty.loss.identity} {nan}".encode()).hexdigest()[:8]
        self._name = f"state_{digest}"
        self.add_state(self._name, torch.from_numpy(self._empty.state), dist_reduce_fx="sum")

    @property
    def accumulator(self) -> Accumulator:
        """A copy of all that was seen since the last reset: on this rank or, if the metric is synchronised, on all."""
        empty, state = self._empty, getattr(self, self._name)
        return Accumulator.from_state(state.cpu().numpy(), empty.loss, reduction=empty.reduction, nan=empty.nan)

    def update(self, preds: Any, target: Any, weights: Any = None, mask: Any = None) -> None:
        """Add a batch.

        Arguments and errors as for `streamloss.integrations.torch.Metric.update`, but `nan="raise"` is refused on every
        device.
        """
        loss, nan = self._empty.loss, self._empty.nan
        device = device_of(preds, target, weights, mask)
        if device is None:
            with NAMES:
                accumulator = self.accumulator.update(host(target), host(preds), host(weights), mask=host(mask))
            state = torch.from_numpy(accumulator.state).to(self.device)
        else:
            if nan == "raise":
                raise ValueError(f"nan='raise' would have to wait for {device}: use 'omit' or 'propagate'")
            with ON_DEVICE:
                added = device_state(loss, preds, target, weights, mask, nan == "omit", device)
            state = joined(OPERATIONS, getattr(self, self._name), added)
        setattr(self, self._name, state)

    def compute(self) -> torch.Tensor:
        """Return the loss, float64."""
        return torch.tensor(self.accumulator.result(), dtype=torch.float64, device=self.device)

    def merge_state(self, incoming_state: Any) -> None:
        """Add what another metric, or a dict of its state, has seen, and forget the value computed before."""
        super().merge_state(incoming_state)
        self._computed = None

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Stay as it is: the state is made of integers, and results are float64."""
        return self
