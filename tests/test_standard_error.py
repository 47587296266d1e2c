"""The standard error against exact fractions, NumPy, and its laws."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamloss import Accumulator, Reduction
from tests.backend import examples
from tests.strategies import chunks, cuts

REDUCTIONS = ["sum", "mean", "sum_over_batch_size", "sum_by_nonzero_weights"]


def root(value: Fraction) -> float:
    """The square root, rounded to nearest even: between two float64 the square of their middle decides."""
    guess = math.sqrt(value)
    for candidate in (math.nextafter(guess, 0.0), guess, math.nextafter(guess, math.inf)):
        above = (Fraction(candidate) + Fraction(math.nextafter(candidate, math.inf))) / 2
        if value < above**2:
            return candidate
    raise AssertionError("further from math.sqrt than one float64")


def oracle(terms, weights, reduction):
    """By the textbook: residuals first, then their squares, in fractions."""
    t, w = [Fraction(x) for x in terms], [Fraction(x) for x in weights]
    n = len(t) if reduction in ("sum", "sum_over_batch_size") else sum(x != 0 for x in w)
    if reduction == "mean":
        m, over = sum(t) / sum(w), sum(w)
        residuals = sum((a - m * b) ** 2 for a, b in zip(t, w, strict=True))
    else:
        m, over = sum(t) / n, 1 if reduction == "sum" else n
        residuals = sum((a - m) ** 2 for a in t) - (len(t) - n) * m**2
    return root(Fraction(n, n - 1) * residuals / over**2)


def filled(labels, predictions, weights=None):
    return Accumulator(stderr=True).update(labels, predictions, weights)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", ["normal", "constant", "large mean", "with zeros", "integers"])
def test_against_fractions(kind, reduction):
    rng = np.random.default_rng(5)
    size = 137
    losses, weights = rng.random(size), rng.random(size)
    if kind == "constant":
        losses[:] = 0.1
    elif kind == "large mean":
        losses = 1e8 + losses  # s / mean is 1e-9: sums of rounded squares would leave nothing right
    elif kind == "with zeros":
        weights[::3] = 0.0
    elif kind == "integers":
        losses, weights = rng.integers(0, 9, size) * 1.0, rng.integers(1, 5, size) * 1.0
    acc = Accumulator(stderr=True).update_losses(losses, weights)
    assert acc.standard_error(reduction) == oracle((losses * weights).tolist(), weights.tolist(), reduction)
    plain = Accumulator(stderr=True).update_losses(losses)
    assert plain.standard_error(reduction) == oracle(losses.tolist(), [1.0] * size, reduction)


def test_without_weights_it_is_the_familiar_one():
    losses = np.random.default_rng(0).random(1000)
    acc = Accumulator(stderr=True).update_losses(losses)
    assert acc.standard_error("mean") == pytest.approx(losses.std(ddof=1) / math.sqrt(1000), rel=1e-14)
    assert acc.standard_error("sum") == pytest.approx(losses.std(ddof=1) * math.sqrt(1000), rel=1e-14)


def test_weights_of_a_mean_may_be_scaled():
    losses, weights = np.random.default_rng(1).random((2, 500))
    one, four = (Accumulator(stderr=True).update_losses(losses, weights * k) for k in (1.0, 4.0))
    assert one.standard_error("mean") == four.standard_error("mean")


def test_equal_losses_have_none():
    assert filled(np.full(10_000, 0.1), np.zeros(10_000)).standard_error() == 0.0


@examples(60)
@given(st.data())
def test_chunks_order_merges_and_files_change_no_bit(data):
    labels, predictions, weights = data.draw(chunks(dtypes=(np.float64,)))
    whole = filled(labels, predictions, weights)
    parts = []
    for part in data.draw(cuts(labels.size)):
        w = weights[part] if isinstance(weights, np.ndarray) else weights
        parts.append(filled(labels[part], predictions[part], w))
    assert sum(parts) == whole
    assert sum(reversed(parts)) == whole
    assert whole + parts[0] - parts[0] == whole
    assert Accumulator.from_bytes(whole.to_bytes()).state.tobytes() == whole.state.tobytes()
    assert pickle.loads(pickle.dumps(whole)) == whole
    assert Accumulator.from_state(whole.state).stderr
    plain = Accumulator().update(labels, predictions, weights)
    assert whole.state[: plain.state.size].tobytes() == plain.state.tobytes()


@pytest.mark.large
def test_a_large_update_takes_threads():
    rng = np.random.default_rng(2)
    labels, predictions, weights = rng.random((3, 300_000))
    parts = [filled(*(a[i::3] for a in (labels, predictions, weights))) for i in range(3)]
    assert filled(labels, predictions, weights) == sum(parts)


def test_masks_and_skipped_elements_count_for_nothing():
    losses = np.array([1.0, 2.0, math.nan, 4.0, 100.0])
    acc = Accumulator(stderr=True, nan="omit").update_losses(losses, mask=[True, True, True, True, False])
    assert acc.standard_error() == Accumulator(stderr=True).update_losses([1.0, 2.0, 4.0]).standard_error()


@pytest.mark.parametrize("losses", [[], [3.0], [1.0, math.nan], [1.0, math.inf], [1.0, 1e200]])
def test_what_has_no_standard_error_has_nan(losses):
    acc = Accumulator(stderr=True).update_losses(losses)
    assert all(math.isnan(acc.standard_error(reduction)) for reduction in REDUCTIONS)


def test_weights_that_cancel_have_nan():
    assert math.isnan(Accumulator(stderr=True).update_losses([1.0, 2.0], [1.0, -1.0]).standard_error("mean"))


def test_refusals():
    with pytest.raises(ValueError, match="stderr=True"):
        Accumulator().update([1.0], [2.0]).standard_error()
    acc = Accumulator(stderr=True).update([1.0], [2.0])
    with pytest.raises(ValueError, match="none"):
        acc.standard_error("none")
    with pytest.raises(ValueError, match="reduction must be"):
        acc.standard_error("median")
    with pytest.raises(ValueError, match="stderr differs: True here, False there"):
        acc.merge(Accumulator())
    assert [str(r) for r in Reduction if r != "none"] == REDUCTIONS
