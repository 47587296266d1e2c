"""Every number against exact arithmetic, and the cases that break other accumulators."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamloss
from streamloss import Accumulator, exact
from streamloss.losses import LOSSES
from tests import oracle
from tests.backend import BLOCK, examples
from tests.strategies import chunks

REDUCTIONS = [str(reduction) for reduction in streamloss.Reduction if reduction != "none"]
ARITHMETIC = ["squared_error", "absolute_error", "huber", "quantile"]  # the same bits in Python as compiled
UNIT = Fraction(2) ** exact.LOW


def assert_agrees(accumulator, expected):
    state = accumulator.state
    assert (accumulator.count, accumulator.nonzero_count) == (expected.count, expected.nonzero)
    assert accumulator.skipped_count == expected.skipped
    for start, total in ((exact.TERMS, expected.terms), (exact.WEIGHTS, expected.weights)):
        section = exact.section(state, start)
        assert section[: exact.FIRST_DIGIT].tolist() == [total.nan, total.plus, total.minus]
        assert exact.to_integer(section) * UNIT == total.value
    for reduction in REDUCTIONS:
        assert np.array_equal(accumulator.result(reduction), expected.result(reduction), equal_nan=True), reduction


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("nan", ["propagate", "omit"])
@examples(20)
@given(chunk=chunks(sizes=(0, 1, 33, BLOCK - 1, BLOCK + 1)))
def test_sums_and_results_are_exact(name, nan, chunk):
    loss = LOSSES[name]

    def formula(label, prediction):
        return loss.formula(label, prediction, *loss.values)

    accumulator = Accumulator(loss, nan=nan).update(*chunk)
    assert_agrees(accumulator, oracle.evaluate(*chunk, formula, omit=nan == "omit"))


@examples(25)
@given(chunk=chunks(sizes=(0, 1, 7, 33, 300), dtypes=[np.float64]))
def test_sums_of_losses_with_logarithms_are_exact_sums_of_their_elements(loss, chunk):
    labels, predictions, weights = chunk
    terms = np.empty(labels.shape)
    accumulator = Accumulator(loss).update(labels, predictions, weights, out=terms)
    expected = oracle.evaluate(terms, terms, None, lambda term, _: term)
    assert np.array_equal(accumulator.loss_sum, expected.result("sum"), equal_nan=True)
    for i in range(min(labels.size, 7)):
        weight = weights[i] if isinstance(weights, np.ndarray) else weights
        single = Accumulator(loss).update(labels[i], predictions[i], weight)
        assert np.array_equal(single.loss_sum, terms[i], equal_nan=True)


@examples(40)
@given(losses=st.lists(st.floats(width=64), max_size=20), weights=st.floats(width=64))
def test_precomputed_losses_are_exact(losses, weights):
    accumulator = Accumulator().update_losses(losses, weights)
    assert_agrees(accumulator, oracle.evaluate(losses, losses, weights, lambda value, _: value))


def total(*losses):
    return Accumulator().update_losses(losses).result("sum")


def test_cancellation():
    assert total(1e300, 1.0, -1e300) == 1.0
    assert total(1e300, 1e-300, -1e300) == 1e-300


def test_subnormals_do_not_vanish():
    assert total(*[5e-324] * 1000) == 1000 * 5e-324
    assert total(1.0, 5e-324, -1.0) == 5e-324


def test_a_sum_that_overflows_on_the_way_but_fits():
    largest = 1.7976931348623157e308
    assert total(largest, largest, -largest) == largest
    accumulator = Accumulator().update_losses([largest] * 4)
    assert accumulator.result("sum") == math.inf
    assert accumulator.result("mean") == largest


def test_a_term_that_overflows_is_an_infinity():
    accumulator = Accumulator().update([1e200, 1.0], [-1e200, 2.0])
    assert accumulator.result() == math.inf
    assert (accumulator - Accumulator().update(1e200, -1e200)).result() == 1.0


@pytest.mark.large
def test_more_ones_than_float32_can_count():
    ones = np.ones(2**24 + 1, np.float32)
    assert Accumulator().update(ones, np.zeros_like(ones)).result("sum") == 2**24 + 1


@pytest.mark.large
def test_a_tenth_a_million_times():
    tenth = np.full(1_000_000, 0.1, np.float32)
    exactly = Fraction(float(np.float32(0.1)))
    assert Accumulator().update_losses(tenth).result("sum") == oracle.to_float(exactly * 1_000_000)
    assert Accumulator().update_losses(tenth).result("mean") == float(exactly)


def test_negative_and_huge_weights():
    accumulator = Accumulator().update([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-1.0, 1e300, -1e300])
    assert accumulator.weight_sum == -1.0
    assert accumulator.result("sum") == oracle.to_float(-1 + Fraction(4.0 * 1e300) - Fraction(9.0 * 1e300))
    assert Accumulator().update([0.0], [2.0], -0.5).result("mean") == 4.0


def test_nan_with_weight_zero_is_nan_unless_omitted():
    labels, predictions, weights = [math.nan, 1.0], [0.0, 3.0], [0.0, 1.0]
    assert math.isnan(Accumulator().update(labels, predictions, weights).result())
    omitted = Accumulator(nan="omit").update(labels, predictions, weights)
    assert (omitted.result(), omitted.skipped_count) == (4.0, 1)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([math.inf, 1.0], math.inf),
        ([-math.inf, 1.0], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, math.inf], math.nan),
    ],
)
def test_infinities_are_counted_and_can_be_taken_out(losses, expected):
    accumulator = Accumulator().update_losses(losses)
    assert np.array_equal(accumulator.result("sum"), expected, equal_nan=True)
    special = [value for value in losses if not math.isfinite(value)]
    rest = accumulator - Accumulator().update_losses(special)
    assert rest.result("sum") == sum(value for value in losses if math.isfinite(value))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_score_of_nothing_is_no_perfect_score(reduction):
    empty = Accumulator().result(reduction)
    assert empty == 0.0 if reduction == "sum" else math.isnan(empty)
    zero_weights = Accumulator().update([1.0], [2.0], 0.0).result(reduction)
    assert zero_weights == 0.0 if reduction in ("sum", "sum_over_batch_size") else math.isnan(zero_weights)


def test_relative_error_is_bounded_whatever_the_length():
    rng = np.random.default_rng(0)
    labels, predictions, weights = rng.standard_normal(3000), rng.standard_normal(3000), rng.random(3000)
    exactly = sum(
        Fraction(w) * (Fraction(p) - Fraction(y)) ** 2
        for y, p, w in zip(labels.tolist(), predictions.tolist(), weights.tolist(), strict=True)
    ) / sum(map(Fraction, weights.tolist()))
    result = Fraction(Accumulator().update(labels, predictions, weights).result("mean"))
    assert abs(result - exactly) <= 5 * Fraction(2) ** -53 * exactly


def test_the_oracle_notices_a_lost_bit():
    accumulator = Accumulator().update_losses([1.0, 2.0**-1074])
    with pytest.raises(AssertionError):
        assert_agrees(accumulator, oracle.evaluate([1.0, 0.0], [0.0, 0.0], None, lambda value, _: value))
