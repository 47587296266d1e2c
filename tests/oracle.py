"""What a result must be, slowly: one element at a time in Python floats, sums in fractions.Fraction."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np


@dataclass
class ExactSum:
    value: Fraction = Fraction(0)
    nan: int = 0
    plus: int = 0
    minus: int = 0

    def add(self, number: float) -> None:
        if math.isnan(number):
            self.nan += 1
        elif math.isinf(number):
            self.plus += number > 0
            self.minus += number < 0
        else:
            self.value += Fraction(number)

    def special(self) -> float | None:
        if self.nan or (self.plus and self.minus):
            return math.nan
        if self.plus or self.minus:
            return math.inf if self.plus else -math.inf
        return None


@dataclass
class Oracle:
    count: int = 0
    nonzero: int = 0
    skipped: int = 0
    terms: ExactSum = field(default_factory=ExactSum)
    weights: ExactSum = field(default_factory=ExactSum)

    def result(self, reduction: str) -> float:
        denominators = {
            "sum": 1,
            "mean": self.weights.value if self.weights.special() is None else self.weights.special(),
            "sum_over_batch_size": self.count,
            "sum_by_nonzero_weights": self.nonzero,
        }
        return divide(self.terms.special(), self.terms.value, denominators[reduction])


def divide(special: float | None, top: Fraction, bottom: Fraction | float) -> float:
    """IEEE 754's answer for the exact quotient; NaN for a zero denominator."""
    if bottom == 0:
        return math.nan
    if special is not None or (isinstance(bottom, float) and not math.isfinite(bottom)):
        numerator = np.float64(special if special is not None else (top > 0) - (top < 0))
        denominator = bottom if isinstance(bottom, float) and not math.isfinite(bottom) else (bottom > 0) - (bottom < 0)
        with np.errstate(all="ignore"):
            return float(numerator / np.float64(denominator))
    return to_float(top / Fraction(bottom))


def to_float(value: Fraction) -> float:
    """The nearest float64, ties to even; Fraction's own conversion, with infinity instead of an error."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def evaluate(labels, predictions, weights, formula, *, mask=None, omit=False) -> Oracle:
    """The oracle of flat sequences: formula(label, prediction) is the loss of one element, in Python floats."""
    oracle = Oracle()
    labels, predictions = np.ravel(labels), np.ravel(predictions)
    weights = np.broadcast_to(1.0 if weights is None else np.ravel(weights), labels.shape)
    mask = np.broadcast_to(True if mask is None else np.ravel(mask), labels.shape)
    for label, prediction, weight, here in zip(labels, predictions, weights, mask, strict=True):
        y, p, w = float(label), float(prediction), float(weight)
        if not here:
            continue
        if omit and (math.isnan(y) or math.isnan(p) or math.isnan(w)):
            oracle.skipped += 1
            continue
        oracle.count += 1
        oracle.nonzero += w != 0.0
        oracle.weights.add(w)
        oracle.terms.add(w * formula(y, p))
    return oracle
