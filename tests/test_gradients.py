"""Gradients: against differences, whatever the loss, and against one batch, however it was cut."""

import math
from decimal import Context, Decimal

import numpy as np
import pytest

import streamloss
from streamloss import Accumulator, Reduction, gradient
from streamloss.losses import LOSSES, derivative

REDUCTIONS = [reduction for reduction in Reduction if reduction is not Reduction.NONE]
CONTEXT = Context(prec=60)
SHAPES = [(), (6,), (6, 1), (1, 4), (6, 4)]


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.uniform(0.1, 0.9, (6, 4)), rng.uniform(0.1, 0.9, (6, 4))


@pytest.mark.parametrize("loss", [*LOSSES.values(), LOSSES["huber"](delta=0.2), LOSSES["quantile"](q=0.9)], ids=repr)
def test_every_loss_of_the_table_has_its_derivative(loss, batch):
    labels, predictions = batch
    step = 1e-6
    losses = [
        streamloss.compute_weighted_loss(out, reduction="none")
        for shift in (step, -step)
        for out in [np.empty(labels.shape)]
        if Accumulator(loss).update(labels, predictions + shift, out=out)
    ]
    differences = (losses[0] - losses[1]) / (2 * step)
    np.testing.assert_allclose(
        gradient(labels, predictions, loss=loss, reduction="sum"), differences, rtol=1e-6, atol=1e-9
    )


def test_close_logarithms_do_not_cancel():
    for label, apart in ((1e10, 2e-6), (1e6, 1e-9), (1.0, 1e-12), (1.0, -1e-12), (3.0, -3.5), (0.1, 5.0)):
        y, p = Decimal(label), Decimal(label + apart)
        expected = 2 * ((1 + p).ln(CONTEXT) - (1 + y).ln(CONTEXT)) / (1 + p)
        found = gradient(label, label + apart, loss="squared_log_error", reduction="sum")
        assert float(found) == pytest.approx(float(expected), rel=1e-15)


def test_labels_that_are_no_numbers_have_no_gradient_where_predictions_are_clipped():
    found = gradient([math.nan, math.inf, 1.0], [0.0, 1.0, 0.0], loss="binary_cross_entropy", reduction="sum")
    np.testing.assert_array_equal(found, [math.nan, math.nan, 0.0])


def test_a_denominator_of_zero_gives_nan():
    assert np.isnan(gradient([1.0, 1.0], [3.0, 0.0], [1, -1], reduction="mean")).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_reduction_and_shape_of_weights(batch, reduction, shape):
    labels, predictions = batch
    weights = np.random.default_rng(1).integers(0, 3, shape).astype(float)
    found = gradient(labels, predictions, weights, reduction=reduction)
    step = 1e-4  # a squared error has no third derivative: central differences are exact but for rounding
    for place in [(0, 0), (3, 2), (5, 3)]:
        values = []
        for shift in (step, -step):
            moved = predictions.copy()
            moved[place] += shift
            values.append(Accumulator().update(labels, moved, weights).result(reduction))
        assert found[place] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "none"])
def test_gradients_of_torch_and_tensorflow(batch, reduction, shape):
    """What their autograd makes of the formula, in float32 and float64."""
    torch = pytest.importorskip("torch")
    tf = pytest.importorskip("tensorflow")
    weights = np.asarray(np.random.default_rng(1).integers(0, 3, shape))
    full = np.broadcast_to(weights.reshape(weights.shape + (1,) * (2 - weights.ndim)), (6, 4))
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-14)):
        labels, predictions, w = (np.asarray(array, dtype) for array in (*batch, full))
        divisor = {"mean": w.sum(), "sum_over_batch_size": w.size, "sum_by_nonzero_weights": (w != 0).sum()}
        found = gradient(labels, predictions, weights, loss="huber(delta=0.3)", reduction=reduction)
        input = torch.from_numpy(predictions).requires_grad_()  # noqa: A001
        each = torch.nn.functional.huber_loss(input, torch.from_numpy(labels), reduction="none", delta=0.3)
        ((torch.from_numpy(w) * each).sum() / float(divisor.get(reduction, 1))).backward()
        np.testing.assert_allclose(found, input.grad, rtol=tolerance, atol=tolerance)
        with tf.GradientTape() as tape:
            variable = tf.Variable(predictions)
            error = abs(variable - labels)
            each = tf.where(error <= 0.3, 0.5 * error * error, 0.3 * (error - 0.15))
            total = tf.reduce_sum(w * each) / tf.cast(divisor.get(reduction, 1), dtype)
        np.testing.assert_allclose(found, tape.gradient(total, variable), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_parts_have_the_gradient_of_the_batch(flights, reduction):
    """Gradient accumulation over micro-batches, and next to it the mean of their means, which is another number."""
    labels, predictions, weights = (column[:1000] for column in flights)
    weights = weights * (np.arange(1000) % 3 > 0)
    options = {"loss": "huber(delta=10)", "reduction": reduction, "nan": "omit"}
    total = Accumulator(**options).update(labels, predictions, weights)
    whole = gradient(labels, predictions, weights, total=total)
    assert np.array_equal(whole[np.isnan(labels)], np.zeros(np.isnan(labels).sum()))
    for cut in (1, 7, 32, 999, 1000):
        parts = [slice(start, start + cut) for start in range(0, 1000, cut)]
        counted = Accumulator(**options)
        for part in parts:
            counted.update(labels[part], predictions[part], weights[part])
        assert np.array_equal(
            np.concatenate([gradient(labels[p], predictions[p], weights[p], total=counted) for p in parts]), whole
        )
        if cut < 1000 and reduction != "sum":  # each part with a denominator of its own
            alone = [Accumulator(**options).update(labels[p], labels[p], weights[p]) for p in parts]
            naive = [
                gradient(labels[p], predictions[p], weights[p], total=t) for p, t in zip(parts, alone, strict=True)
            ]
            assert not np.allclose(np.concatenate(naive) / len(parts), whole, rtol=1e-3)


@pytest.mark.parametrize("reduction", [*REDUCTIONS, "none"])
def test_a_chunk_that_is_the_whole_is_read_once(batch, reduction, monkeypatch):
    """Its denominators are those that the pass over its derivatives counts."""
    labels, predictions = batch
    weights, mask = np.arange(-2.0, 4.0), np.arange(6) != 4
    total = Accumulator(reduction=reduction).update(labels, labels, weights, mask=mask)
    expected = gradient(labels, predictions, weights, mask=mask, total=total)
    updates, update = [], Accumulator.update

    def counted(*arguments, **options):
        updates.append(arguments)
        return update(*arguments, **options)

    monkeypatch.setattr(Accumulator, "update", counted)
    found = gradient(labels, predictions, weights, mask=mask, reduction=reduction)
    assert found.tobytes() == expected.tobytes()
    assert len(updates) == 1


def test_masked_elements_have_no_gradient(batch):
    labels, predictions = batch
    mask = np.arange(6) % 2 == 0
    found = gradient(labels, predictions, mask=mask, reduction="mean")
    assert not found[1::2].any()
    assert np.array_equal(found[::2], gradient(labels[::2], predictions[::2], reduction="mean"))
    dropped = ~np.broadcast_to(mask[:, np.newaxis], labels.shape)
    for reduction in REDUCTIONS:
        found = gradient(labels, predictions, mask=mask, reduction=reduction)
        for pair in (
            (np.ma.array(labels, mask=dropped), predictions),
            (labels, np.ma.array(predictions, mask=dropped)),
        ):
            assert np.array_equal(gradient(*pair, reduction=reduction), found)


@pytest.mark.parametrize("weight", [math.nan, np.float64(math.nan), np.full(3, math.nan)])
def test_a_weight_that_is_nan_leaves_its_elements_out(weight):
    total = Accumulator(nan="omit").update([1.0, 2.0, 3.0], [2.0, 2.0, 6.0])
    assert np.array_equal(gradient([1.0, 2.0, 3.0], [2.0, 2.0, 6.0], weight, total=total), np.zeros(3))


def test_what_is_refused(batch):
    labels, predictions = batch
    with pytest.raises(ValueError, match="total is of another loss: squared_error, expected absolute_error"):
        gradient(labels, predictions, loss="absolute_error", total=Accumulator())
    with pytest.raises(ValueError, match="total must have seen the whole batch: 0 elements, and here are 24"):
        gradient(labels, predictions, total=Accumulator())
    with pytest.raises(ValueError, match="same shape"):
        gradient(labels, predictions[:, :1])
    with pytest.raises(ValueError, match="derivative_of"):
        gradient(labels, predictions, loss=lambda label, prediction: label - prediction)
    with pytest.raises(ValueError, match="reduction must be one of"):
        gradient(labels, predictions, reduction="avg")


def test_the_derivative_of_a_users_function_may_be_compiled_already():
    numba = pytest.importorskip("numba")

    def cubed(label, prediction):
        return (prediction - label) ** 3

    streamloss.losses.derivative_of(cubed)(numba.njit(lambda label, prediction: 3 * (prediction - label) ** 2))
    assert np.array_equal(gradient([0.0, 1.0], [2.0, 2.0], loss=cubed, reduction="sum"), [12.0, 3.0])
    for loss in ("huber(delta=2)", LOSSES["huber"](delta=2)):
        assert repr(derivative(loss)) == "derivative of huber(delta=2.0)"


@pytest.mark.parametrize("reduction", Reduction)
def test_what_is_left_out_has_no_gradient_whatever_the_denominator(reduction):
    assert gradient([1.0, 2.0], [2.0, 2.0], mask=False, reduction=reduction).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("total", [5, streamloss.GroupedAccumulator(reduction="mean")])
def test_only_an_accumulator_knows_the_denominators(total):
    with pytest.raises(TypeError, match="total must be an Accumulator, got"):
        gradient([1.0], [1.0], total=total)
