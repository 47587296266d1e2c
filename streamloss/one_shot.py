"""The one-shot functions: one chunk, one result."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays
from .accumulator import Accumulator
from .cuda import backend
from .reduction import Reduction, as_reduction


def mean_squared_error(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> float | npt.NDArray[np.float64]:
    """Return the weighted squared error of arrays.

    Parameters
    ----------
    labels, predictions, weights
        As for `Accumulator.update`.
    reduction : str or Reduction, default "sum_by_nonzero_weights"
        See `streamloss.Reduction`; "none" keeps every loss.

    Returns
    -------
    float, or ndarray of float64
        The array, of the shape of labels, for the reduction "none". It lies where they do: for CUDA arrays it is a
        torch tensor, a CuPy array or, for any other library, one of Numba's.

    Raises
    ------
    ValueError, TypeError
        As `Accumulator.update`, and for an unknown reduction.

    Examples
    --------
    >>> import streamloss
    >>> streamloss.mean_squared_error([1, 9, 2], [4, 8, 12])
    36.666666666666664
    >>> streamloss.mean_squared_error([1, 9, 2], [4, 8, 12], [1, 0, 2], reduction="none")
    array([  9.,   0., 200.])

    """
    accumulator, out = _prepare(reduction, "labels", labels)
    accumulator.update(labels, predictions, weights, out=out)
    return accumulator.result() if out is None else out


def compute_weighted_loss(
    losses: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    reduction: str | Reduction = Reduction.SUM_BY_NONZERO_WEIGHTS,
) -> float | npt.NDArray[np.float64]:
    """Weight and reduce losses that have been computed already; otherwise as `mean_squared_error`.

    Examples
    --------
    >>> import streamloss
    >>> streamloss.compute_weighted_loss([[1, 2], [3, 4]], [1, 0])
    1.5
    >>> streamloss.compute_weighted_loss([[1, 2], [3, 4]], [1, 0], reduction="sum_over_batch_size")
    0.75

    """
    accumulator, out = _prepare(reduction, "losses", losses)
    accumulator.update_losses(losses, weights, out=out)
    return accumulator.result() if out is None else out


def _prepare(reduction: str | Reduction, name: str, values: Any) -> tuple[Accumulator, npt.NDArray[np.float64] | None]:
    accumulator = Accumulator(reduction=reduction)
    if as_reduction(reduction) is not Reduction.NONE:
        return accumulator, None
    if arrays.on_device(values):
        return accumulator, backend().empty_like(name, values)
    return accumulator, np.empty(arrays.as_array(name, values, []).shape)
