"""scikit-learn: score functions for `make_scorer`, and the score of an estimator over data that comes in chunks.

pip install 'streamloss[sklearn]'
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

try:
    import sklearn  # noqa: F401  (what is scored here are its estimators)
except ImportError as error:
    raise ImportError(
        "streamloss.integrations.sklearn needs scikit-learn: pip install 'streamloss[sklearn]'"
    ) from error

import numpy as np
import numpy.typing as npt

from ..accumulator import Accumulator
from ..arrays import as_numbers
from ..losses import Formula, Loss
from ..reduction import Reduction
from ._names import Named

NAMES = Named(labels="y_true", predictions="y_pred", weights="sample_weight")


class Outputs:
    """The mean loss of every output: columns of an array of rank 2, or the one of rank 1, over any number of chunks.

    Parameters
    ----------
    loss : str, Loss or callable, default "squared_error"
    multioutput : {"uniform_average", "raw_values"} or array of shape (n_outputs,)
        As in `sklearn.metrics`: what becomes of the outputs' means.

    """

    def __init__(
        self, loss: str | Loss | Formula = "squared_error", *, multioutput: str | npt.ArrayLike = "uniform_average"
    ) -> None:
        if isinstance(multioutput, str) and multioutput not in ("uniform_average", "raw_values"):
            raise ValueError(f"multioutput must be 'uniform_average', 'raw_values' or weights, got {multioutput!r}")
        self._empty = Accumulator(loss, reduction=Reduction.MEAN)
        self._multioutput = multioutput if isinstance(multioutput, str) else as_numbers("multioutput", multioutput, [])
        self._accumulators: list[Accumulator] = []  # one for each output

    @property
    def accumulators(self) -> list[Accumulator]:
        """Copies of all that was seen so far, one for each output."""
        return [accumulator.copy() for accumulator in self._accumulators]

    def update(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Self:
        """Add a chunk; ValueError where shapes differ from each other, from those before or from `multioutput`."""
        labels, predictions = map(_columns, (y_true, y_pred))
        if labels.ndim != 2 or labels.shape != predictions.shape:
            raise ValueError(
                "y_true and y_pred must both have the shape (n_samples,) or (n_samples, n_outputs),"
                f" got {np.shape(y_true)} and {np.shape(y_pred)}"
            )
        before = self._accumulators or [self._empty] * labels.shape[1]
        if len(before) != labels.shape[1]:
            raise ValueError(f"y_true must have {len(before)} outputs as before, got {labels.shape[1]}")
        if not isinstance(self._multioutput, str) and self._multioutput.shape != (len(before),):
            raise ValueError(
                f"multioutput must have one weight for each of {len(before)} outputs, got shape"
                f" {self._multioutput.shape}"
            )
        with NAMES:
            self._accumulators = [
                accumulator.copy().update(labels[:, column], predictions[:, column], sample_weight)
                for column, accumulator in enumerate(before)
            ]
        return self

    def result(self, transform: Callable[[Any], Any] = np.asarray) -> Any:
        """Return the score: a float, or an array for "raw_values"; `transform` changes each output's mean first."""
        means = transform(np.array([accumulator.result() for accumulator in self._accumulators]))
        if isinstance(self._multioutput, str):
            if self._multioutput == "raw_values":
                return means
            shares: Any = np.ones(means.size)
        else:
            shares = self._multioutput
        return Accumulator(reduction=Reduction.MEAN).update_losses(means, shares).result() if means.size else np.nan


def _columns(y: Any) -> Any:
    """Return outputs as the columns of an array: with its mask, or as a tensor, if it is one."""
    array = y if isinstance(y, np.ma.MaskedArray) or hasattr(y, "detach") else np.asarray(y)
    return array[:, None] if array.ndim == 1 else array


def score_function(
    loss: str | Loss | Formula, transform: Callable[[Any], Any] = np.asarray, name: str | None = None
) -> Callable[..., Any]:
    """Make a function with the arguments of `sklearn.metrics.mean_squared_error`, for any loss.

    It can be pickled, within scorers and searches too, if the loss and `transform` can.

    Examples
    --------
    >>> from sklearn.metrics import make_scorer
    >>> from streamloss.integrations.sklearn import score_function
    >>> pinball = score_function("quantile(q=0.9)")
    >>> pinball([1.0, 2.0], [2.0, 1.0])
    0.5
    >>> make_scorer(pinball, greater_is_better=False)
    make_scorer(mean_quantile, greater_is_better=False, response_method='predict')

    """
    found = Accumulator(loss).loss
    return _Score(found, transform, name or f"mean_{found.name}")


class _Score:
    """A score function; as an object of a class it can be pickled, and it has a name that scikit-learn shows."""

    def __init__(self, loss: Loss, transform: Callable[[Any], Any], name: str) -> None:
        self._loss, self._transform = loss, transform
        self.__name__ = self.__qualname__ = name
        self.__doc__ = f"The mean of {loss!r}, exact, with sample_weight and multioutput."

    def __call__(
        self,
        y_true: Any,
        y_pred: Any,
        *,
        sample_weight: Any = None,
        multioutput: str | npt.ArrayLike = "uniform_average",
    ) -> Any:
        return (
            Outputs(self._loss, multioutput=multioutput).update(y_true, y_pred, sample_weight).result(self._transform)
        )


mean_squared_error = score_function("squared_error")
mean_absolute_error = score_function("absolute_error")
root_mean_squared_error = score_function("squared_error", np.sqrt, "root_mean_squared_error")


class ChunkedScore:
    """The score of a fitted estimator over data that comes in chunks, in the manner of `partial_fit`.

    Parameters
    ----------
    estimator
        Anything with `predict`.
    loss, multioutput
        As for `Outputs`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from streamloss.integrations.sklearn import ChunkedScore
    >>> X, y = np.arange(6.0)[:, None], np.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0])
    >>> score = ChunkedScore(LinearRegression().fit(X[:4], y[:4]))
    >>> for rows in (slice(0, 4), slice(4, 6)):
    ...     _ = score.partial_fit(X[rows], y[rows])
    >>> round(score.result(), 12)
    2.666666666667

    """

    def __init__(
        self,
        estimator: Any,
        loss: str | Loss | Formula = "squared_error",
        *,
        multioutput: str | npt.ArrayLike = "uniform_average",
    ) -> None:
        self.estimator = estimator
        self.outputs = Outputs(loss, multioutput=multioutput)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:  # noqa: N803  # scikit-learn's
        """Predict a chunk and add its losses."""
        self.outputs.update(y, self.estimator.predict(X), sample_weight)
        return self

    def result(self) -> Any:
        """Return the score so far."""
        return self.outputs.result()
