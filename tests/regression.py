"""A small real regression whose predictions are exact in float32, so that no batch size changes them."""

from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes

from streamloss import Accumulator

SIZES = (1, 7, 32, 442)  # of batches


class Regression(NamedTuple):
    """Features in quarters, a linear model in eighths: products and sums of them need at most 24 bits."""

    x: np.ndarray
    y: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    weights: np.ndarray

    @property
    def predictions(self):
        return (self.x.astype(float) @ self.kernel.astype(float) + self.bias).astype(np.float32)

    def accumulator(self, loss="squared_error", *, weighted=False, reduction="mean"):
        """The offline result."""
        weights = self.weights if weighted else None
        return Accumulator(loss, reduction=reduction).update(self.y[:, None], self.predictions, weights)


def diabetes():
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x = np.round(x * 4) / 4
    solution = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    kernel = np.round(solution * 8) / 8
    weights = np.random.default_rng(0).uniform(0.0, 2.0, len(y)) * (np.arange(len(y)) % 5 > 0)
    arrays = (x, y, kernel[:-1, None], kernel[-1:], weights)
    return Regression(*(np.asarray(array, np.float32) for array in arrays))
