"""river: an exact metric with update, revert and get.

pip install 'streamloss[river]'
"""

from __future__ import annotations

try:
    import river.metrics
except ImportError as error:
    raise ImportError("streamloss.integrations.river needs river: pip install 'streamloss[river]'") from error

from ..accumulator import Accumulator
from ..losses import Formula, Loss


class Metric(river.metrics.base.RegressionMetric):
    """The weighted mean of a loss, exact: `revert` undoes an `update` to the bit, so rolling windows never drift.

    Parameters
    ----------
    loss : str, Loss or callable, default "squared_error"

    Examples
    --------
    >>> from streamloss.integrations.river import Metric
    >>> metric = Metric("squared_error")
    >>> for label, prediction in [(3, 2.5), (-0.5, 0.0), (2, 2), (7, 8)]:
    ...     metric.update(label, prediction)
    >>> metric
    squared_error: 0.375
    >>> metric.revert(7, 8)
    >>> metric.get()
    0.16666666666666666

    """

    def __init__(self, loss: str | Loss | Formula = "squared_error") -> None:
        self.loss = loss
        self._accumulator = Accumulator(loss, reduction="mean")

    @property
    def accumulator(self) -> Accumulator:
        """A copy of all that was seen so far."""
        return self._accumulator.copy()

    def update(self, y_true: float, y_pred: float, w: float = 1.0) -> None:
        """Add an observation."""
        self._accumulator.update(float(y_true), float(y_pred), float(w))

    def revert(self, y_true: float, y_pred: float, w: float = 1.0) -> None:
        """Take an observation out again; ValueError where more are taken out than were added."""
        self._accumulator -= self._accumulator.copy().reset().update(float(y_true), float(y_pred), float(w))

    def get(self) -> float:
        """Return the mean, or 0 if nothing was seen, as river's own metrics do."""
        return self._accumulator.result() if self._accumulator.weight_sum else 0.0

    @property
    def bigger_is_better(self) -> bool:
        """Whether a larger value is better: never, it is a loss."""
        return False

    def __repr__(self) -> str:
        return f"{self._accumulator.loss!r}: {self.get():{self._fmt}}".rstrip("0")
