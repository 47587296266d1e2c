"""The number format against Python's integers and fractions."""

import math
from fractions import Fraction

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import streamloss
from streamloss import exact
from streamloss.exact import (
    DIGIT_BITS,
    DIGIT_MASK,
    FIRST_DIGIT,
    LOW,
    NAN,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    STATE_WORDS,
    SUM_WORDS,
    TERMS,
    WEIGHTS,
)

GUARD = 8  # words behind a sum, where nothing may be written
FINITE = st.floats(allow_nan=False, allow_infinity=False)
INT64 = st.integers(-(2**63), 2**63 - 1)
HIGHEST_EXPONENT = 1023
SMALLEST, LARGEST = 5e-324, 1.7976931348623157e308
SETTINGS = settings(max_examples=200)


@numba.njit
def deposit(total, quantities, exponents):
    for i in range(quantities.size):
        exact.deposit(total, quantities[i], exponents[i])


@numba.njit
def deposit_float(total, values, times):
    for i in range(values.size):
        exact.deposit_float(total, values[i], times)


@numba.njit
def carry(total):
    exact.carry(total)


def guarded():
    return np.zeros(SUM_WORDS + GUARD, np.int64)


def sum_of_quantities(pairs):
    words = guarded()
    quantities, exponents = zip(*pairs, strict=True)
    deposit(words[:SUM_WORDS], np.array(quantities, np.int64), np.array(exponents, np.int64))
    carry(words[:SUM_WORDS])
    assert not words[SUM_WORDS:].any(), "written behind the sum"
    return words[:SUM_WORDS]


def sum_of_floats(values, times=1):
    words = guarded()
    deposit_float(words[:SUM_WORDS], np.array(values, np.float64), times)
    carry(words[:SUM_WORDS])
    assert not words[SUM_WORDS:].any(), "written behind the sum"
    return words[:SUM_WORDS]


def units(value):
    """A number as an integer of the format's units."""
    scaled = Fraction(value) * 2**-LOW
    assert scaled.denominator == 1
    return scaled.numerator


def state_of(values):
    state = np.zeros(STATE_WORDS, np.int64)
    state[TERMS : TERMS + SUM_WORDS] = sum_of_floats(values)
    return state


def assert_carried(total):
    digits = total[FIRST_DIGIT:-1]
    assert digits.min() >= 0
    assert digits.max() <= DIGIT_MASK


def test_every_float_is_a_whole_number_of_units():
    assert LOW <= -1074
    assert units(1) == exact.ONE
    assert DIGIT_BITS * exact.DIGITS + LOW >= 63 + HIGHEST_EXPONENT


@SETTINGS
@given(st.lists(st.tuples(INT64, st.integers(LOW, HIGHEST_EXPONENT)), min_size=1, max_size=20))
@example([(-1, HIGHEST_EXPONENT)])
def test_deposit_adds_any_quantity_at_any_exponent(pairs):
    total = sum_of_quantities(pairs)
    assert_carried(total)
    assert exact.to_integer(total) == sum(quantity << (exponent - LOW) for quantity, exponent in pairs)


@pytest.mark.parametrize("quantity", [0, 1, -1, 2**32 - 1, -(2**32), 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("exponent", [LOW, LOW + 1, LOW + 31, LOW + 32, -1074, 0, 1001, 1003, 1023, HIGHEST_EXPONENT])
def test_deposit_holds_at_the_edges(quantity, exponent):
    assert exact.to_integer(sum_of_quantities([(quantity, exponent)])) == quantity << (exponent - LOW)


def test_deposits_fit_before_a_carry_is_due():
    pairs = [(quantity, LOW + 31) for quantity in (2**63 - 1, -(2**63), -1)] * 20_000
    assert exact.to_integer(sum_of_quantities(pairs)) == -2 * 20_000 << 31


@SETTINGS
@given(st.lists(FINITE, max_size=30))
@example([SMALLEST, -SMALLEST, LARGEST, LARGEST, -2.2250738585072014e-308])
@example([-LARGEST, -LARGEST, -SMALLEST])
@example([0.0, -0.0])
def test_deposit_float_adds_without_rounding(values):
    total = sum_of_floats(values)
    assert_carried(total)
    assert exact.is_finite(total)
    assert exact.to_integer(total) == sum(units(value) for value in values)


@SETTINGS
@given(FINITE, st.integers(0, 2**31 - 1))
@example(LARGEST, 2**31 - 1)
@example(-LARGEST, 2**31 - 1)
@example(-SMALLEST, 2**31 - 1)
@example(float(2**53 - 1), 2**31 - 1)
@example(1.0, 0)
def test_deposit_float_adds_many_copies_at_once(value, times):
    assert exact.to_integer(sum_of_floats([value], times)) == units(value) * times


@pytest.mark.parametrize("times", [0, 1, 2**31 - 1])
@pytest.mark.parametrize(
    ("value", "place"),
    [(math.nan, NAN), (-math.nan, NAN), (math.inf, POSITIVE_INFINITY), (-math.inf, NEGATIVE_INFINITY)],
)
def test_what_is_not_finite_is_counted(value, place, times):
    total = sum_of_floats([value], times)
    assert total[place] == times
    assert total.sum() == times


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([math.inf, 1.0], math.inf),
        ([-math.inf, LARGEST], -math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan], math.nan),
        ([math.inf, math.nan], math.nan),
    ],
)
def test_the_special_value_is_that_of_ieee(values, expected):
    total = sum_of_floats(values)
    assert not exact.is_finite(total)
    assert exact.special_value(total) == pytest.approx(expected, nan_ok=True)


@SETTINGS
@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=exact.DIGITS, max_size=exact.DIGITS),
)
def test_carry_keeps_the_value(digits):
    total = np.array([0, 0, 0, *digits], np.int64)
    carry(total)
    assert_carried(total)
    assert exact.to_integer(total) == sum(digit << (DIGIT_BITS * i) for i, digit in enumerate(digits))
    again = total.copy()
    carry(again)
    assert np.array_equal(again, total)


def test_two_to_the_31_carried_sums_fit_before_a_carry():
    total = np.array([0, 0, 0] + [DIGIT_MASK << 31] * (exact.DIGITS - 1) + [-1 << 31], np.int64)
    carry(total)
    assert_carried(total)
    largest = sum(DIGIT_MASK << (DIGIT_BITS * i) for i in range(exact.DIGITS - 1))
    assert exact.to_integer(total) == (largest - (1 << DIGIT_BITS * (exact.DIGITS - 1))) << 31


@SETTINGS
@given(st.lists(FINITE, min_size=1, max_size=15), st.randoms(use_true_random=False), FINITE)
def test_equal_sums_have_equal_words(values, random, extra):
    expected = sum_of_floats(values)
    shuffled = [*values, extra, -extra]
    random.shuffle(shuffled)
    assert np.array_equal(sum_of_floats(shuffled), expected)
    cut = random.randrange(len(shuffled))
    parts = sum_of_floats(shuffled[:cut]) + sum_of_floats(shuffled[cut:])
    carry(parts)
    assert np.array_equal(parts, expected)
    by_bits = [(sign << bit, -1074) for value in values for sign, bit in bits_of(value)]
    if by_bits:
        assert np.array_equal(sum_of_quantities([(1, -1074), (-1, -1074), *spread(by_bits)]), expected)


def bits_of(value):
    """The bits of a float: the sign of each and its place above 2**-1074."""
    whole = int(abs(Fraction(value)) * 2**1074)
    sign = -1 if value < 0 else 1
    return [(sign, bit) for bit in range(whole.bit_length()) if whole >> bit & 1]


def spread(pairs):
    """The same numbers with quantities that fit int64."""
    for quantity, exponent in pairs:
        bit = abs(quantity).bit_length() - 1
        yield (1 if quantity > 0 else -1) << (bit % 60), exponent + bit - bit % 60


@SETTINGS
@given(st.lists(FINITE, max_size=8), st.lists(FINITE, max_size=8))
def test_combine_adds_and_takes_away(left, right):
    a, b = state_of(left), state_of(right)
    before = a.tobytes(), b.tobytes()
    total, difference = exact.combine(a, b), exact.combine(a, -b)
    for state, sign in ((total, 1), (difference, -1)):
        terms = exact.section(state, TERMS)
        assert_carried(terms)
        assert exact.to_integer(terms) == sum(map(units, left)) + sign * sum(map(units, right))
    assert np.array_equal(exact.combine(total, -b), a)
    assert np.array_equal(exact.combine(b, a), total)
    assert (a.tobytes(), b.tobytes()) == before


def test_sections_are_views_that_fill_the_state():
    state = np.arange(STATE_WORDS)
    terms, weights = exact.section(state, TERMS), exact.section(state, WEIGHTS)
    assert terms[0] == exact.COUNTS
    assert weights[0] == terms[-1] + 1
    assert weights[-1] == STATE_WORDS - 1
    assert np.shares_memory(terms, state)


@pytest.mark.parametrize("count", [2, 4321])
def test_states_may_be_added_by_numpy(count):
    rng = np.random.default_rng(count)
    values = rng.normal(size=(count, 3)) * 2.0 ** rng.integers(-450, 450, (count, 3))
    states = np.array([streamloss.Accumulator().update_losses(row, row[:1]).state for row in values])
    whole = streamloss.Accumulator().update_losses(values, values[:, :1])
    added = streamloss.Accumulator.from_state(np.add.reduce(states))
    assert added.state.tobytes() == whole.state.tobytes()
    assert added == whole
    terms = sum(units(float(term)) for term in (values[:, :1] * values).flat)
    assert exact.to_integer(exact.section(added.state, TERMS)) == terms


def test_a_state_from_outside_is_carried_and_copied():
    outside = np.zeros(STATE_WORDS, np.int64)
    outside[TERMS + FIRST_DIGIT] = -1
    outside.flags.writeable = False
    state = exact.checked_state(outside[::1])
    assert exact.to_integer(exact.section(state, TERMS)) == -1
    assert_carried(exact.section(state, TERMS))
    assert outside[TERMS + FIRST_DIGIT] == -1
    strided = np.zeros(2 * STATE_WORDS, np.int64)
    strided[::2] = outside
    assert np.array_equal(exact.checked_state(strided[::2]), state)
    assert np.array_equal(exact.checked_state(outside.tolist()), state)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint64, np.dtype(np.int64).newbyteorder()])
def test_a_state_of_another_dtype_is_refused(dtype):
    with pytest.raises(TypeError, match="int64"):
        exact.checked_state(np.zeros(STATE_WORDS, dtype))


@pytest.mark.parametrize("shape", [(0,), (STATE_WORDS - 1,), (STATE_WORDS + 1,), (1, STATE_WORDS)])
def test_a_state_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        exact.checked_state(np.zeros(shape, np.int64))


@pytest.mark.parametrize(
    "place", [*range(exact.COUNTS), *range(TERMS, TERMS + FIRST_DIGIT), *range(WEIGHTS, WEIGHTS + FIRST_DIGIT)]
)
def test_a_state_with_negative_counts_is_refused(place):
    state = np.zeros(STATE_WORDS, np.int64)
    state[place] = -1
    with pytest.raises(ValueError, match="counts that no elements have"):
        exact.checked_state(state)


def assert_rounded_to_nearest_even(quotient, result):
    """Not by Fraction's own conversion, which divides as `divide` does."""
    half = Fraction(2) ** 970
    if math.isinf(result):
        assert abs(quotient) >= Fraction(LARGEST) + half
        assert (quotient > 0) == (result > 0)
        return
    error = abs(Fraction(result) - quotient)
    for neighbour in (math.nextafter(result, math.inf), math.nextafter(result, -math.inf)):
        beyond = Fraction(result) + math.copysign(2 * half, neighbour)
        distance = abs((beyond if math.isinf(neighbour) else Fraction(neighbour)) - quotient)
        assert error <= distance
        if error == distance:
            assert np.float64(result).view(np.int64) % 2 == 0


BIG = st.integers(-(2**2200), 2**2200)


@SETTINGS
@given(BIG, BIG.filter(bool))
@example(2**1024 - 2**970, 1)
@example(2**1024 - 2**970 - 1, 1)
@example(-(2**1024) + 2**970, 1)
@example(2**2000, -1)
@example(1, 2**1075)
@example(3, 2**1075)
@example(-(2**1075) - 1, 2**2150)
@example(2**53 + 1, 1)
@example(2**53 + 3, -1)
@example(0, -7)
def test_divide_rounds_once_to_nearest_even(numerator, denominator):
    assert_rounded_to_nearest_even(Fraction(numerator, denominator), exact.divide(numerator, denominator))


@SETTINGS
@given(st.integers(-(2**60), 2**60), st.integers(1, 2**60), st.integers(1000, 1200))
def test_divide_rounds_subnormal_results_once(numerator, denominator, shift):
    denominator <<= shift
    assert_rounded_to_nearest_even(Fraction(numerator, denominator), exact.divide(numerator, denominator))


@SETTINGS
@given(FINITE)
def test_divide_gives_back_every_float(value):
    assert exact.divide(units(value), exact.ONE) == value
