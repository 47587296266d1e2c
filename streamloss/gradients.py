"""The gradient of a loss, chunk by chunk, with the denominator of the whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays, losses
from .accumulator import Accumulator
from .chunks import stage
from .losses import Formula, Loss, as_loss
from .reduction import Reduction, as_reduction


def gradient(
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    loss: str | Loss | Formula | None = None,
    reduction: str | Reduction | None = None,
    total: Accumulator | None = None,
    mask: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float64]:
    """Return the gradient of a reduced loss with respect to the predictions of a chunk.

    A batch that is processed in parts (gradient accumulation, several ranks) has a single denominator that no part can
    know on its own. Pass as `total` an accumulator that has seen the labels of all parts: the gradients of the parts
    are then those of the batch, however it was cut.

    Parameters
    ----------
    labels, predictions, weights, mask
        As for `Accumulator.update`, in host memory.
    loss : str, Loss or callable, optional
        By default that of `total`, or "squared_error". A function of your own needs a derivative, see
        `streamloss.losses.derivative_of`.
    reduction : str or Reduction, optional
        By default that of `total`, or "sum_by_nonzero_weights". "none" and "sum" give weight * derivative.
    total : Accumulator, optional
        Knows the denominators, and the policy for NaN; by default, the chunk is the whole. Denominators are counts and
        sums of weights: it may have seen labels in the place of predictions.

    Returns
    -------
    ndarray of float64
        Of the shape of labels: weight * derivative / denominator; 0 for elements that are left out.

    Raises
    ------
    ValueError
        For a loss without a derivative or another than that of `total`, for a `total` that has seen fewer elements
        than there are here, and as `Accumulator.update`.
    TypeError
        As `Accumulator.update`, and for device arrays.

    Examples
    --------
    >>> import numpy as np, streamloss
    >>> labels, predictions = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 6.0])
    >>> streamloss.gradient(labels, predictions, reduction="mean")
    array([0.66666667, 0.        , 2.        ])
    >>> batch = streamloss.Accumulator(reduction="mean").update(labels, labels)
    >>> [streamloss.gradient(labels[part], predictions[part], total=batch) for part in (slice(1), slice(1, 3))]
    [array([0.66666667]), array([0., 2.])]

    """
    if total is not None and not isinstance(total, Accumulator):
        raise TypeError(f"total must be an Accumulator, got {type(total).__name__}")
    if total is not None and loss is not None and as_loss(loss) != total.loss:
        raise ValueError(f"total is of another loss: {total.loss!r}, expected {as_loss(loss)!r}")
    like = Accumulator("squared_error" if loss is None else loss) if total is None else total
    out = np.empty(arrays.as_array("labels", labels, []).shape)
    chunk = Accumulator(losses.derivative(like.loss), nan=like.nan)
    chunk.update(labels, predictions, weights, mask=mask, out=out)  # its terms are weight * derivative
    kind = as_reduction(like.reduction if reduction is None else reduction)
    if kind not in (Reduction.NONE, Reduction.SUM):
        whole = chunk if total is None else total  # a chunk has the counts and the sum of weights of its labels
        if whole.count < chunk.count:
            raise ValueError(
                f"total must have seen the whole batch: {whole.count} elements, and here are {chunk.count}"
            )
        with np.errstate(all="ignore"):
            out /= denominator(whole, kind) or math.nan
    if chunk.count < out.size:  # NaN stands where elements were left out
        out[~kept(labels, predictions, weights, mask, like.nan == "omit")] = 0.0
    return out


def denominator(total: Accumulator, reduction: Reduction) -> float:
    """Return the number that a reduction other than "sum" and "none" divides the sum of terms by."""
    if reduction is Reduction.MEAN:
        return total.weight_sum
    return total.count if reduction is Reduction.SUM_OVER_BATCH_SIZE else total.nonzero_count


def kept(labels: Any, predictions: Any, weights: Any, mask: Any, omit: bool) -> npt.NDArray[np.bool_]:
    """Return where the elements of a chunk are not left out, by masks or for NaN."""
    arguments = arrays.checked(labels, predictions, weights, mask, None)
    shape = arguments.labels.shape
    masks = arguments.masks if arguments.mask is None else [*arguments.masks, (arguments.mask, True)]
    present = np.ones(shape, np.bool_)
    for array, keep in masks:
        present &= array == keep
    for operand in (arguments.labels, arguments.predictions, arguments.weights) if omit else ():
        if isinstance(operand, np.ndarray):
            present &= ~np.isnan(stage(operand).reshape(operand.shape))
        elif operand is not None:  # one weight for all
            present &= operand == operand
    return present
