"""The means of rows: to the bit those of exact sums, rounded and divided, whatever the rows hold, in bounded memory."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamloss.chunks import PIECE
from streamloss.compat import keras
from streamloss.compat._rows import rounded_sums, row_means

TINY, HUGE = 5e-324, 1.7976931348623157e308
AWKWARD = [0.0, -0.0, 1.0, -1.0, 2.0**-53, 3 * 2.0**-53, 2.0**-106, -(2.0**-106), 2.0**53, TINY, -TINY, 2.0**-1022]
LARGE = [HUGE, -HUGE, 2.0**970, -(2.0**970), 2.0**1023]
SPECIAL = [math.inf, -math.inf, math.nan]


def mean(row):
    """The oracle: by rational numbers."""
    special = {number for number in row.tolist() if not math.isfinite(number)}
    if special:
        return special.pop() if len(special) == 1 else math.nan
    total = sum(map(Fraction, row.tolist()))
    try:
        return float(total) / len(row)
    except OverflowError:  # the sum is beyond float64, its mean may not be
        return as_float(total / len(row))


def as_float(number):
    try:
        return float(number)
    except OverflowError:
        return math.copysign(math.inf, number)


@st.composite
def rows(draw):
    """Rows of one size: of awkward numbers, of any magnitude, or such that little is left of their sums."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.integers(0, 40)), draw(st.one_of(st.integers(2, 12), st.integers(13, 200)))
    kind = draw(st.sampled_from(["awkward", "large", "special", "magnitudes", "cancelling", "losses"]))
    if kind in ("awkward", "large", "special"):
        return rng.choice(AWKWARD + LARGE * (kind == "large") + SPECIAL * (kind == "special"), shape)
    if kind == "losses":
        return rng.standard_normal(shape, np.float32).astype(np.float64) ** 2
    span = draw(st.sampled_from([5, 60, 300, 1000]))
    with np.errstate(under="ignore"):
        values = np.ldexp(rng.uniform(-1.0, 1.0, shape), rng.integers(-span, span // 2, shape))
    if kind == "cancelling":
        half = shape[1] // 2
        values[:, half : 2 * half] = -values[:, :half] * rng.choice([1.0, 1.0, 1.0 + 2.0**-52], (shape[0], half))
    return rng.permuted(values, axis=1)


@settings(max_examples=400)
@given(rows())
@example(np.full((1, 3), -0.0))
def test_means_are_those_of_exact_sums(values):
    found = row_means(values)
    expected = np.array([mean(row) for row in values])
    missing = np.isnan(expected)
    assert np.array_equal(np.isnan(found), missing)
    assert found[~missing].tobytes() == expected[~missing].tobytes()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_decides_a_tie_may_be_far_away(sign):
    """The bits behind a tie decide: of second order, they are seen; of third order, the row is added exactly."""
    ulp = 2.0**-52
    values = sign * np.array(
        [
            [1.0, ulp / 2, 0.0, 0.0],  # a tie, to even
            [1.0 + ulp, ulp / 2, 0.0, 0.0],  # a tie, to even, upwards
            [1.0, ulp / 2, 2.0**-100, 0.0],
            [1.0, ulp / 2, 2.0**-600, 0.0],
            [1.0, ulp / 2, -(2.0**-600), 0.0],
            [1.0, ulp / 2, 2.0**-600, -(2.0**-600)],
        ]
    )
    sums, decided = rounded_sums(values)
    assert decided.tolist() == [True, True, True, False, False, False]
    assert (sign * row_means(values) * 4).tolist() == [1.0, 1.0 + 2 * ulp, 1.0 + ulp, 1.0 + ulp, 1.0, 1.0]
    assert sums[decided].tolist() == (row_means(values) * 4)[decided].tolist()


def test_nearly_all_rows_of_losses_are_decided_together():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for size in (2, 8, 100):
            losses = rng.standard_normal((2000, size)).astype(dtype).astype(np.float64) ** 2
            losses[::7, 0], losses[::11, 1] = np.nan, np.inf
            assert rounded_sums(losses)[1].mean() > 0.999


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 1), (70_000, 2), (3, PIECE // 2), (2, PIECE), (2, PIECE + 1)])
@pytest.mark.parametrize("weight", [None, 0.5, math.inf])
def test_losses_are_cut_into_pieces(shape, weight):
    rng = np.random.default_rng(0)
    y_true, y_pred = rng.standard_normal((2, *shape))
    losses = (y_true - y_pred) ** 2
    expected = np.array([math.fsum(row) / len(row) for row in losses])
    weights = None
    if weight is not None:
        weights = rng.random(shape[0])
        weights[: shape[0] // 2] = weight
        expected = expected * weights
    assert np.array_equal(keras.MeanSquaredError("none")(y_true, y_pred, weights), expected)
    stream, out = keras.MeanSquaredError("mean").stream(), np.empty(shape[0])
    assert stream.update(y_true, y_pred, weights, out=out).result() == keras.MeanSquaredError()(y_true, y_pred, weights)
    assert np.array_equal(out, expected)


def test_one_long_row():
    y_true, y_pred = np.random.default_rng(0).standard_normal((2, PIECE + 7))
    expected = math.fsum((y_true - y_pred) ** 2) / y_true.size
    assert keras.mean_squared_error(y_true, y_pred) == expected
    assert keras.mean_squared_error(y_true[None, ::-1], y_pred[None, ::-1]).tolist() == [expected]


def test_temporaries_are_small():
    """Beside the row losses, a few pieces: the losses of the elements would take 16 MB."""
    y_true = np.random.default_rng(0).standard_normal((250_000, 8), np.float32)
    keras.mean_squared_error(y_true[:10], y_true[:10])
    tracemalloc.start()
    try:
        keras.mean_squared_error(y_true, y_true)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10e6
