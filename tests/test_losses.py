"""The losses, one by one, against high precision and against their definitions elsewhere."""

import math
import os
import pickle
import subprocess
import sys
import types
from decimal import Decimal, localcontext

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st

import streamloss
from streamloss import Accumulator, Loss, stored
from streamloss.losses import LOSSES, as_loss, derivative, derivative_of


def one(loss, label, prediction):
    return Accumulator(loss).update(label, prediction).result()


@pytest.mark.parametrize(
    ("loss", "label", "prediction", "expected"),
    [
        ("squared_error", 3.0, 1.0, 4.0),
        ("absolute_error", 3.0, 1.0, 2.0),
        ("huber", 0.0, 0.5, 0.125),
        ("huber", 0.0, 3.0, 2.5),
        ("huber(delta=2)", 0.0, 3.0, 4.0),
        ("quantile", 3.0, 1.0, 1.0),
        ("quantile(q=0.75)", 3.0, 1.0, 1.5),
        ("quantile(q=0.75)", 1.0, 3.0, 0.5),
        ("squared_log_error", math.e - 1, 0.0, 1.0),
        ("log_cosh", 1.0, 1.0, 0.0),
        ("binary_cross_entropy", 1.0, 1.0, -math.log(1 - 1e-7)),
        ("binary_cross_entropy", 0.0, 0.25, -math.log(0.75)),
        ("binary_cross_entropy(eps=0.1)", 1.0, 0.0, -math.log(0.1)),
    ],
)
def test_values(loss, label, prediction, expected):
    assert one(loss, label, prediction) == pytest.approx(expected, rel=4e-16)


EPS = 1e-7  # of binary_cross_entropy


def log_cosh(label, prediction):
    error = prediction - label
    return ((error.exp() + (-error).exp()) / 2).ln()


def squared_log_error(label, prediction):
    return ((1 + prediction).ln() - (1 + label).ln()) ** 2


def binary_cross_entropy(label, prediction):
    p = min(max(prediction, Decimal(EPS)), Decimal(1 - EPS))
    return -(label * p.ln() + (1 - label) * (1 - p).ln())


def tenths(low, high, n=60):
    """Powers of ten, and what lies between."""
    return 10.0 ** np.random.default_rng(4).uniform(low, high, n)


NEAR = np.random.default_rng(5).uniform(-0.99, 3.0, 60)
HARD = [  # labels and predictions, and the largest error in units in the last place
    (log_cosh, 0.0, tenths(-60, 0), 4.0),
    (log_cosh, 0.0, np.linspace(-1.5, 1.5, 61), 4.0),
    (log_cosh, 0.0, -tenths(0, 5), 2.0),
    (log_cosh, 2.0, np.nextafter(2.0, [0.0, 3.0]), 2.0),
    (squared_log_error, NEAR, np.nextafter(NEAR, 9.0), 5.0),
    (squared_log_error, NEAR, NEAR[::-1], 5.0),
    (squared_log_error, tenths(-60, 0), 3 * tenths(-60, 0), 5.0),
    (squared_log_error, tenths(-15, 0) - 1, tenths(-15, 0)[::-1] - 1, 5.0),
    (squared_log_error, tenths(-15, 0) - 1, tenths(280, 308), 5.0),
    (squared_log_error, tenths(0, 308), tenths(0, 308)[::-1], 5.0),
    *[(binary_cross_entropy, y, p, 2.0) for y in (0.0, 0.3, 1.0) for p in (tenths(-8, 0), 1 - tenths(-8, 0), NEAR)],
]


@pytest.mark.parametrize(("exactly", "labels", "predictions", "largest"), HARD)
def test_losses_keep_their_digits_in_hard_places(exactly, labels, predictions, largest):
    labels, predictions = np.broadcast_arrays(labels, predictions)
    got = np.empty(labels.size)
    Accumulator(exactly.__name__).update(labels, predictions, out=got)
    with localcontext(prec=150, Emax=10**9, Emin=-(10**9)):
        for y, p, loss in zip(labels.tolist(), predictions.tolist(), got.tolist(), strict=True):
            error = abs(Decimal(loss) - exactly(Decimal(y), Decimal(p))) / Decimal(math.ulp(loss))
            assert error <= largest, (y, p)


@pytest.mark.parametrize(
    ("loss", "label", "prediction", "expected"),
    [
        ("log_cosh", 0.0, 1e-170, 0.0),
        ("log_cosh", 0.0, 1e308, 1e308),
        ("log_cosh", 1e308, -1e308, math.inf),
        ("log_cosh", math.inf, 1.0, math.inf),
        ("log_cosh", math.inf, math.inf, math.nan),
        ("squared_log_error", -1.0, 0.0, math.inf),
        ("squared_log_error", -1.0, -1.0, math.nan),
        ("squared_log_error", -3.0, -3.0, math.nan),
        ("squared_log_error", -2.5, -3.0, math.nan),
        ("squared_log_error", 5.0, -1.0000000000000002, math.nan),
        ("squared_log_error", 0.0, math.inf, math.inf),
        ("squared_log_error", -1.0, math.inf, math.inf),
        ("squared_log_error", math.inf, math.inf, math.nan),
        ("squared_log_error", -math.inf, 0.0, math.nan),
        ("binary_cross_entropy", 1.0, -math.inf, -math.log(1e-7)),
        ("binary_cross_entropy", 1.0, 7.0, -math.log(1 - EPS)),
        ("binary_cross_entropy", 0.0, 0.0, -math.log1p(-1e-7)),
        ("binary_cross_entropy(eps=1e-300)", 1.0, 0.0, -math.log(1e-300)),
        ("binary_cross_entropy(eps=1e-300)", 1.0, 1.0, 0.0),
        ("binary_cross_entropy(eps=1e-300)", 0.0, 1.0, math.inf),
    ],
)
def test_losses_at_the_edge(loss, label, prediction, expected):
    assert one(loss, label, prediction) == pytest.approx(expected, rel=2e-16, nan_ok=True)


@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        ("huber(delta=1.5)", lambda y, p: torch.nn.functional.huber_loss(p, y, delta=1.5)),
        ("absolute_error", lambda y, p: torch.nn.functional.l1_loss(p, y)),
        ("squared_error", lambda y, p: torch.nn.functional.mse_loss(p, y)),
        ("binary_cross_entropy", lambda y, p: torch.nn.functional.binary_cross_entropy(p, y)),
    ],
)
def test_agrees_with_torch(loss, reference):
    rng = np.random.default_rng(3)
    labels, predictions = rng.random(500), rng.random(500)
    expected = reference(torch.from_numpy(labels), torch.from_numpy(predictions)).item()
    assert Accumulator(loss).update(labels, predictions).result() == pytest.approx(expected, rel=1e-12)


@given(label=st.floats(-0.9, 1e6), prediction=st.floats(-0.9, 1e6))
def test_distances_are_zero_at_the_label_and_never_negative(label, prediction):
    for loss in ("squared_error", "absolute_error", "huber", "log_cosh", "squared_log_error", "quantile"):
        assert one(loss, label, label) == 0.0
        assert one(loss, label, prediction) >= 0.0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("place", ["label", "prediction"])
def test_nan_stays_nan(name, place):
    assert math.isnan(one(name, **{"label": 0.5, "prediction": 0.5, place: math.nan}))


def test_the_order_of_a_set_does_not_change_what_a_function_is():
    program = """
from streamloss.fingerprints import fingerprint
print(fingerprint(lambda label, prediction: label if label in {"north", "east", "south", "west"} else prediction))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        for seed in "123"
    ]
    assert len({run.stdout for run in runs}) == 1


def test_what_many_accumulators_share_cannot_be_changed():
    for loss in (streamloss.losses.as_loss("huber(delta=3)"), Accumulator("huber(delta=3)").loss, LOSSES["huber"]):
        for values in (loss.parameters, loss.domain):
            with pytest.raises(TypeError):
                values["delta"] = 5.0
    assert Accumulator("huber(delta=3)").update([0.0], [10.0]).result() == 25.5


def test_a_domain_error_is_nan():
    assert math.isnan(one("squared_log_error", 1.0, -2.0))


def test_a_loss_is_what_its_repr_says():
    for loss in [*LOSSES.values(), streamloss.losses.huber(delta=0.1)]:
        assert Accumulator(repr(loss)).loss == loss
        assert pickle.loads(pickle.dumps(loss)) == loss
        assert hash(pickle.loads(pickle.dumps(loss))) == hash(loss)
    assert streamloss.losses.huber(delta=1) == streamloss.losses.huber
    assert streamloss.losses.huber(delta=2) != streamloss.losses.huber
    assert isinstance(streamloss.losses.squared_error, Loss)


def test_losses_written_by_users():
    scale = 3.0
    assert Accumulator(lambda label, prediction: scale * abs(label - prediction)).update(1, 3).result() == 6.0
    assert Accumulator(lambda label, prediction: label != prediction).update([1, 2], [1, 3]).result() == 0.5
    assert Accumulator(lambda label, prediction: math.exp(label) - prediction).update(0, 3).result() == -2.0


def test_a_function_that_numba_compiled_for_the_user_obeys_the_contract_too():
    import numba

    @numba.njit(fastmath=True)
    def squared(label, prediction):
        return (prediction - label) * (prediction - label)

    rng = np.random.default_rng(5)
    labels, predictions = rng.standard_normal(5000), rng.standard_normal(5000)
    ours = Accumulator("squared_error").update(labels, predictions)
    assert np.array_equal(Accumulator(squared).update(labels, predictions).state, ours.state)


def test_division_by_zero_in_a_loss_is_infinite():
    assert one(lambda label, prediction: 1.0 / (label - prediction), 1.0, 1.0) == math.inf


FACTOR = 1.0


def test_a_function_is_told_apart_by_the_values_that_it_takes_from_its_module_and_closure(monkeypatch):
    import numba

    def scaled():
        return lambda label, prediction: FACTOR * (label - prediction)

    def looked_up(table):
        return lambda label, prediction: table[500] * (label - prediction)

    def helped(helper):
        return lambda label, prediction: helper(label - prediction)

    first, second = np.zeros(2000), np.zeros(2000)
    first[500], second[500] = 1.0, 7.0
    same, tenfold = numba.njit(lambda x: x), numba.njit(lambda x: 10.0 * x)
    before = Accumulator(scaled())
    assert before.update(1, 0).result() == 1.0
    monkeypatch.setitem(globals(), "FACTOR", 100.0)
    after = Accumulator(scaled())
    assert after.update(1, 0).result() == 100.0
    assert before.loss != after.loss
    assert [one(looked_up(table), 1.0, 0.0) for table in (first, second)] == [1.0, 7.0]
    assert [one(helped(helper), 1.0, 0.0) for helper in (same, tenfold)] == [1.0, 10.0]


def test_a_function_is_told_apart_by_the_places_of_its_helpers():
    import numba

    def combined(*helpers):
        a, b, c = helpers
        return lambda label, prediction: a(label) + 10.0 * b(label) + 100.0 * c(label)

    square, cube = numba.njit(lambda x: x * x), numba.njit(lambda x: x * x * x)
    assert one(combined(square, cube, square), 3.0, 0.0) == 9.0 + 270.0 + 900.0
    assert one(combined(square, cube, cube), 3.0, 0.0) == 9.0 + 270.0 + 2700.0


def test_a_function_is_told_apart_by_the_libraries_that_it_calls():
    def called(function):
        return lambda label, prediction: function(label)

    assert one(called(np.floor), 1e300, 0.0) == 1e300
    assert as_loss(called(math.floor)) != as_loss(called(np.floor))
    assert as_loss(called(scipy.special.log1p)) != as_loss(called(np.log1p))


def test_a_variable_without_a_value_is_named():
    def early():
        accumulator = Accumulator(lambda label, prediction: factor * label)
        factor = 2.0
        return accumulator

    with pytest.raises(TypeError, match="uses the variable 'factor', which has no value yet"):
        early()


def test_a_function_is_told_apart_by_the_constants_of_modules():
    import numba

    settings = types.ModuleType("settings")
    settings.inner = types.ModuleType("inner")
    settings.itself = settings

    def direct():
        return lambda label, prediction: settings.scale * (label - prediction)

    def nested():
        return lambda label, prediction: settings.inner.scale * (label - prediction)

    def helped():
        helper = numba.njit(lambda x: settings.itself.scale * x)
        return lambda label, prediction: helper(label - prediction)

    def called():
        return lambda label, prediction: settings.scaled(label - prediction)

    found = []
    for scale in (1.0, 5.0):
        settings.scale = settings.inner.scale = scale
        settings.scaled = numba.njit([lambda x: x, lambda x: 5.0 * x][scale > 1.0])
        found.append([Accumulator(make()) for make in (direct, nested, helped, called)])
    assert [[each.update(1, 0).result() for each in row] for row in found] == [[1.0] * 4, [5.0] * 4]
    assert not any(before.loss == after.loss for before, after in zip(*found, strict=True))


def test_a_function_that_uses_numpy_stays_the_same_loss_in_another_process():
    program = "import test_losses as t; print(t.Accumulator(t.of_numpy).loss.fingerprint)"
    folder = os.path.dirname(__file__)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    assert run.stdout.strip() == Accumulator(of_numpy).loss.fingerprint


def of_numpy(label, prediction):
    return np.sqrt(np.abs(label - prediction)) * np.pi + np.where(label > prediction, 1.0, 0.0)


def test_a_loss_is_not_a_function_of_data():
    with pytest.raises(
        TypeError, match=r"use streamloss.Accumulator\('huber'\).update\(labels, predictions\).result\(\)"
    ):
        streamloss.losses.huber(1.0, 2.0)


def test_a_loss_is_entered_into_the_table_once():
    def squared_error(label, prediction):
        return 7.0

    with pytest.raises(ValueError, match="loss squared_error is in the table already"):
        streamloss.losses.define()(squared_error)
    assert one("squared_error", 1.0, 3.0) == 4.0


def test_a_function_is_what_it_was_when_its_accumulator_was_made():
    def made():
        factor = 2.5

        def scaled(label, prediction):
            return factor * (label - prediction)

        def change(value):
            nonlocal factor
            factor = value

        return scaled, change

    scaled, change = made()
    accumulator = Accumulator(scaled)
    change(3.0)
    assert accumulator.update(1, 0).result() == 2.5
    assert one(made()[0], 1.0, 0.0) == 2.5


def cubed(label, prediction, factor):
    return factor * abs(prediction - label) ** 3


def test_a_loss_of_ones_own_may_have_parameters():
    loss = Loss("cubed", cubed, {"factor": 2.0})
    assert one(loss, 0.0, 2.0) == 16.0
    assert one(loss(factor=3.0), 0.0, 2.0) == 24.0
    assert pickle.loads(pickle.dumps(loss)) == loss
    data = Accumulator(loss).update(0.0, 2.0).to_bytes()
    assert Accumulator.from_bytes(data, loss=loss).result() == 16.0
    older = stored.pack(
        stored.ACCUMULATOR, {**stored.unpack(data)[1], "loss": "user's function cubed"}, stored.unpack(data)[2]
    )
    assert Accumulator.from_bytes(older, loss=loss).result() == 16.0
    with pytest.raises(ValueError, match=r"user's function cubed\(factor=2.0\)\", got loss=cubed\(factor=3.0\)"):
        Accumulator.from_bytes(data, loss=loss(factor=3.0))


def test_a_derivative_is_a_loss_like_others():
    loss = derivative(streamloss.losses.huber(delta=2.0))
    accumulator = Accumulator(loss).update([0.0, 0.0], [1.0, 5.0])
    assert pickle.loads(pickle.dumps(loss)) == loss
    assert pickle.loads(pickle.dumps(accumulator)) == accumulator
    assert Accumulator.from_bytes(accumulator.to_bytes(), loss=loss).result("sum") == 3.0


def test_a_derivative_has_the_arguments_of_its_loss():
    with pytest.raises(TypeError, match=r"the derivative of huber\(delta=1.0\) must take the same 3 arguments: "):
        derivative_of("huber")(lambda label, prediction: prediction - label)


def test_a_formula_has_the_arrays_that_it_had_when_it_was_given():
    shares = np.array([0.0])
    pair = (np.array([1.0]), 2.0)

    def pinball(label, prediction):
        error = label - prediction
        return max(shares[0] * error, (shares[0] - 1.0) * error) * pair[0][0]

    made = []
    for share in (0.125, 0.5, 0.875):
        shares[0] = share
        made.append(Accumulator(pinball))
    assert [accumulator.update([1.0], [0.0]).result() for accumulator in made] == [0.125, 0.5, 0.875]
    pair[0][0] = 2.0
    assert made[0].update([1.0], [0.0]).result() == 0.125
    assert Accumulator(pinball).update([1.0], [0.0]).result() == 1.75


TABLE = np.array([1.0, 2.0])


def test_an_index_beyond_an_array_is_an_error_and_changes_nothing():
    accumulator = Accumulator(lambda label, prediction: TABLE[int(prediction)], device="auto").update([0.0], [1.0])
    for place in (2.0, -3.0, 1e6):
        with pytest.raises(IndexError):
            accumulator.update([0.0, 0.0], [1.0, place])
    assert (accumulator.count, accumulator.update([0.0], [-2.0]).loss_sum) == (1, 3.0)
