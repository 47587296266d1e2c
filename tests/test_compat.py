"""The compat modules by themselves: fixtures of the references, streams, errors, and the deliberate differences."""

import inspect
import os
import pickle
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamloss
from streamloss.compat import keras, tensorflow_v1, torch
from tests.differences import DIFFERENCES, as_markdown
from tests.strategies import cuts

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "compat.md"
V1 = tensorflow_v1.Reduction

# The fixture of TensorFlow's and Keras' own loss tests.
LABELS = np.array([[1, 9, 2], [-5, -2, 6]], np.float32)
PREDICTIONS = np.array([[4, 8, 12], [8, 1, 3]], np.float32)
FIXTURE = [  # weights, S, S / W, S / NZ, S / N, Keras' sum
    (1.0, 297, 49.5, 49.5, 49.5, 99),
    (2.3, 683.1, 49.5, 113.85, 113.85, 227.7),
    ([[1.2], [3.4]], 767.8, 767.8 / 13.8, 767.8 / 6, 767.8 / 6, 767.8 / 3),
    ([[3, 6, 5], [0, 4, 2]], 587, 29.35, 117.4, 587 / 6, ValueError),
]


def near(value):
    return pytest.approx(value, rel=1e-6, abs=0, nan_ok=True)


# ----------------------------------------------------------------------------------------------- the fixtures


@pytest.mark.parametrize(("weights", "total", "mean", "by_nonzero", "over_size", "keras_sum"), FIXTURE)
def test_the_fixture_of_the_references(weights, total, mean, by_nonzero, over_size, keras_sum):
    losses = (LABELS - PREDICTIONS) ** 2
    expected = {
        V1.SUM: total,
        V1.MEAN: mean,
        V1.SUM_BY_NONZERO_WEIGHTS: by_nonzero,
        V1.SUM_OVER_BATCH_SIZE: over_size,
        V1.NONE: losses * np.asarray(weights, np.float32),
    }
    for reduction, value in expected.items():
        results = [
            tensorflow_v1.mean_squared_error(LABELS, PREDICTIONS, weights, reduction=reduction),
            tensorflow_v1.compute_weighted_loss(losses, weights, reduction=reduction),
        ]
        for result in results:
            assert result == near(value)
            assert (result.dtype, np.shape(result)) == (np.float32, np.shape(value))
    if keras_sum is ValueError:
        with pytest.raises(ValueError, match="sample_weight must be"):
            keras.MeanSquaredError("sum")(LABELS, PREDICTIONS, weights)
        full = torch.mse_loss(PREDICTIONS, LABELS, weight=np.array(weights, np.float32))
        assert full == near(mean)
    else:
        assert keras.MeanSquaredError("sum")(LABELS, PREDICTIONS, weights) == near(keras_sum)
        assert keras.MeanSquaredError()(LABELS, PREDICTIONS, weights) == near(over_size)
        assert keras.MeanSquaredError("mean_with_sample_weight")(LABELS, PREDICTIONS, weights) == near(mean)
        rows = losses.mean(axis=1) * np.broadcast_to(np.ravel(weights), 2)
        assert keras.MeanSquaredError("none")(LABELS, PREDICTIONS, weights) == near(rows)


def test_the_zero_rules():
    nan = np.full((2, 3), np.nan, np.float32)
    results = {r: tensorflow_v1.compute_weighted_loss(nan, 0.0, reduction=r) for r in V1.all() if r != V1.NONE}
    assert results == {
        V1.SUM: near(np.nan),
        V1.SUM_OVER_BATCH_SIZE: near(np.nan),
        V1.MEAN: 0.0,
        V1.SUM_BY_NONZERO_WEIGHTS: 0.0,
    }
    assert tensorflow_v1.compute_weighted_loss([1.0, 3.0], [-0.0, 2.0]) == 6.0
    assert tensorflow_v1.compute_weighted_loss([1.0, 3.0], [-1.0, -1.0], reduction=V1.MEAN) == 2.0
    assert np.isnan(tensorflow_v1.compute_weighted_loss([np.inf, 3.0], [0.0, 2.0]))
    zeros = np.zeros(3, np.float32)
    assert torch.mse_loss(zeros + 1, zeros, weight=np.array([1.0, -1.0, 0.0])) != 0.0
    assert torch.mse_loss(np.array([2.0, 1.0]), np.zeros(2), weight=np.array([1.0, -1.0])) == np.inf
    assert torch.mse_loss(np.array([1.0, 2.0]), np.zeros(2), weight=np.array([1.0, -1.0])) == -np.inf
    assert np.isnan(torch.mse_loss(zeros[:0], zeros[:0]))
    assert torch.mse_loss(zeros[:0], zeros[:0], reduction="sum") == 0.0
    assert keras.MeanSquaredError("mean_with_sample_weight")(LABELS, PREDICTIONS, 0.0) == 0.0


def test_the_examples_of_the_keras_page():
    y_true, y_pred = [[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]]
    assert keras.MeanSquaredError()(y_true, y_pred) == 0.5
    assert keras.MeanSquaredError()(y_true, y_pred, sample_weight=[0.7, 0.3]) == near(0.25)
    assert keras.MeanSquaredError(reduction=keras.ReductionV2.SUM)(y_true, y_pred) == 1.0
    assert keras.MeanSquaredError(reduction=keras.ReductionV2.NONE)(y_true, y_pred).tolist() == [0.5, 0.5]
    assert keras.MeanSquaredError()([1.0, 0.0, 1.0], [0.9, 0.1, 0.8]) == near(0.02)  # Keras 3's page


def test_the_example_of_the_torch_page():
    live = pytest.importorskip("torch")
    live.manual_seed(0)
    pair = live.randn(3, 5, requires_grad=True), live.randn(3, 5)
    assert torch.MSELoss()(*pair) == near(live.nn.MSELoss()(*pair).item())
    assert torch.L1Loss()(*pair) == near(live.nn.L1Loss()(*pair).item())


# ----------------------------------------------------------------------------------------------- names and signatures


def test_the_signatures_are_the_references():
    def names(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    empty, rest = inspect.Parameter.empty, [("scope", None), ("loss_collection", "losses"), ("reduction", V1.MEAN)]
    rest[-1] = ("reduction", "weighted_sum_by_nonzero_weights")
    pair = [("labels", empty), ("predictions", empty), ("weights", 1.0)]
    assert names(tensorflow_v1.mean_squared_error) == pair + rest == names(tensorflow_v1.absolute_difference)
    assert names(tensorflow_v1.compute_weighted_loss) == [("losses", empty), ("weights", 1.0), *rest]
    assert names(tensorflow_v1.huber_loss) == [*pair, ("delta", 1.0), *rest]
    assert names(tensorflow_v1.log_loss) == [*pair, ("epsilon", 1e-7), *rest]
    legacy = [("size_average", None), ("reduce", None), ("reduction", "mean")]
    assert names(torch.MSELoss) == legacy == names(torch.L1Loss)
    assert names(torch.mse_loss) == [("input", empty), ("target", empty), *legacy, ("weight", None)]
    assert names(torch.HuberLoss) == [("reduction", "mean"), ("delta", 1.0)]
    assert names(torch.SmoothL1Loss) == [*legacy, ("beta", 1.0)]


def test_tensorflow_reductions():
    assert V1.all() == (
        "none",
        "weighted_sum",
        "weighted_mean",
        "weighted_sum_over_batch_size",
        "weighted_sum_by_nonzero_weights",
        "weighted_sum_by_nonzero_weights",
    )
    V1.validate(V1.MEAN)
    for key in ("mean", "sum", None):
        with pytest.raises(ValueError, match="Invalid Reduction Key"):
            V1.validate(key)


def test_tensorflow_checks_in_its_order():
    with pytest.raises(ValueError, match="Argument `labels` must not be None"):
        tensorflow_v1.mean_squared_error(None, None, [1.0, 2.0])
    with pytest.raises(ValueError, match="Argument `predictions` must not be None"):
        tensorflow_v1.mean_squared_error([1.0], None)
    with pytest.raises(ValueError, match="incompatible"):
        tensorflow_v1.mean_squared_error([1.0], [1.0, 2.0], [[1.0]], reduction="mean")
    with pytest.raises(ValueError, match="Invalid Reduction Key mean"):
        tensorflow_v1.mean_squared_error([1.0], [1.0], [[1.0]], reduction="mean")
    for weights in ([1.0, 2.0], np.ones((2, 3, 1)), np.ones(3), np.ones((3, 2)), np.ones(1)):
        with pytest.raises(ValueError, match=r"^weights can not be broadcast to values\."):
            tensorflow_v1.mean_squared_error(LABELS, PREDICTIONS, weights)
    with pytest.raises(ValueError, match="weights"):
        tensorflow_v1.mean_squared_error(LABELS, PREDICTIONS, None)


def test_tensorflow_collections():
    assert tensorflow_v1.add_loss(np.float32(3.0)) is None
    assert tensorflow_v1.get_losses() == tensorflow_v1.get_regularization_losses() == []
    assert tensorflow_v1.get_regularization_loss() == 0.0
    with pytest.raises(ValueError, match="no losses"):
        tensorflow_v1.get_total_loss()


@pytest.mark.parametrize("average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
def test_torch_legacy_arguments(average, reduce):
    if average is None and reduce is None:
        assert torch.MSELoss(average, reduce, "sum").reduction == "sum"
        return
    expected = "none" if reduce is False else "sum" if average is False else "mean"
    message = f"size_average and reduce args will be deprecated, please use reduction='{expected}' instead."
    with pytest.warns(UserWarning, match=message) as caught:
        assert torch.MSELoss(average, reduce, "sum").reduction == expected
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match=message):
        result = torch.mse_loss([1.0, 3.0], [0.0, 0.0], average, reduce, "sum")
    assert np.array_equal(result, {"mean": 5.0, "sum": 10.0, "none": [1.0, 9.0]}[expected])


@pytest.mark.parametrize(
    "deprecated",
    [
        lambda: torch.MSELoss(size_average=True),
        lambda: torch.SmoothL1Loss(size_average=True),
        lambda: torch.l1_loss([1.0], [2.0], reduce=True),
        lambda: torch.smooth_l1_loss([1.0], [2.0], reduce=True),
        lambda: torch.MSELoss(reduction="elementwise_mean").stream(),
        lambda: torch.MSELoss(reduction="elementwise_mean")([1.0], [2.0]),
        lambda: torch.smooth_l1_loss([1.0], [2.0], reduction="elementwise_mean"),
    ],
)
def test_torch_deprecations_point_at_the_caller(deprecated):
    with pytest.warns(UserWarning, match="deprecated") as caught:
        deprecated()
    assert [warning.filename for warning in caught] == [__file__]


def test_torch_refuses_as_torch_does():
    with pytest.raises(ValueError, match="avg is not a valid value for reduction"):
        torch.MSELoss(reduction="avg")([1.0], [2.0])
    with pytest.raises(ValueError, match=r"Weights and input must have the same size\."):
        torch.mse_loss([1.0, 2.0], [1.0, 2.0], weight=[1.0])
    with pytest.warns(UserWarning, match="elementwise_mean"):
        assert torch.mse_loss([1.0, 3.0], [0.0, 0.0], reduction="elementwise_mean") == 5.0
    with pytest.warns(UserWarning, match="elementwise_mean"), pytest.raises(ValueError, match="elementwise_mean"):
        torch.mse_loss([1.0], [0.0], reduction="elementwise_mean", weight=[1.0])
    for make in (lambda: torch.HuberLoss(delta=0.0), lambda: torch.SmoothL1Loss(beta=-1.0)):
        with pytest.raises(ValueError, match="must"):
            make()
    assert torch.SmoothL1Loss(beta=0.0)([1.0], [3.0]) == 2.0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (torch.HuberLoss, "delta of huber"),
        (torch.SmoothL1Loss, "beta"),
        (keras.Huber, "delta of huber"),
        (keras.BinaryCrossentropy, "label_smoothing"),
        (partial(tensorflow_v1.log_loss, [1.0], [0.5]), "epsilon"),
    ],
)
@pytest.mark.parametrize("value", ["x", None, [1.0], True])
def test_parameters_must_be_numbers(make, name, value):
    with pytest.raises(TypeError, match=f"^{name} must be a number, got {type(value).__name__}$"):
        make(**{name.split()[0]: value})


@pytest.mark.parametrize(
    ("loss", "name", "before", "after"),
    [
        (torch.HuberLoss(), "delta", 1.5, 2.0),
        (torch.SmoothL1Loss(), "beta", 1.5, 1.0),
        (keras.Huber(), "delta", 1.5, 2.0),
    ],
)
def test_an_assigned_parameter_counts(loss, name, before, after):
    assert loss([2.0], [0.0]) == before
    setattr(loss, name, 2.0)
    assert getattr(loss, name) == 2.0
    assert loss([2.0], [0.0]) == loss.stream().update([2.0], [0.0]).result() == after
    with pytest.raises(ValueError, match=name):
        setattr(loss, name, -1.0)
    assert pickle.loads(pickle.dumps(loss))([2.0], [0.0]) == after  # the one that was refused changes nothing


NAMES = ["mse", "MSE", "mean_squared_error", "mae", "MAE", "msle", "MSLE", "bce", "BCE", "huber", "log_cosh", "logcosh"]


def test_keras_get_serialize_deserialize():
    for name in NAMES:
        function = keras.get(name)
        assert function([[0.25, 1.0]], [[0.5, 0.5]]).shape == (1,)
        assert keras.deserialize(keras.serialize(function)) is function is keras.get(function)
    for name, cls in keras.CLASSES.items():
        loss = keras.get(name)
        assert type(loss) is cls
        assert cls.from_config(loss.get_config()) == loss == keras.deserialize(keras.serialize(loss))
        assert hash(loss) == hash(cls.from_config(loss.get_config()))
        assert loss != cls(reduction="sum")
    assert keras.get(None) is None
    assert keras.get(keras.serialize(keras.Huber(2.0))) == keras.Huber(2.0) != keras.Huber()
    assert keras.MeanSquaredError().get_config() == {"reduction": "auto", "name": "mean_squared_error"}
    config = {"reduction": "auto", "name": "mean_squared_error", "fn": "mean_squared_error"}  # of Keras 2.15
    assert keras.MeanSquaredError.from_config(config) == keras.MeanSquaredError()
    assert keras.MeanSquaredError(dtype="float64").get_config()["dtype"] == "float64"
    for bad in ("nope", 3, {"class_name": "Nope"}):
        with pytest.raises(ValueError, match="loss"):
            keras.get(bad)
    with pytest.raises(ValueError, match="Invalid Reduction Key"):
        keras.MeanSquaredError("avg")
    with pytest.raises(ValueError, match="Invalid Reduction Key"):
        keras.ReductionV2.validate("mean")
    with pytest.raises(TypeError, match="dtype"):
        keras.MeanSquaredError(dtype="int32")
    with pytest.raises(ValueError, match="cannot serialize"):
        keras.serialize(abs)


def test_keras_reads_what_the_live_ones_write_and_they_read_ours():
    for name in ("tf_keras", "keras"):
        live = pytest.importorskip(name).losses
        for loss in (live.MeanSquaredError(reduction="sum"), live.Huber(delta=2.0), live.BinaryCrossentropy()):
            ours = keras.deserialize(live.serialize(loss))
            assert type(ours).__name__ == type(loss).__name__
            assert (ours.reduction, ours.name) == (loss.reduction, loss.name)
        back = live.deserialize(keras.serialize(keras.MeanSquaredError("sum", name="mine")))
        assert (type(back).__name__, back.reduction, back.name) == ("MeanSquaredError", "sum", "mine")


def test_keras_label_smoothing_and_logits():
    y, p = np.array([[1.0, 0.0]]), np.array([[0.8, 0.4]])
    smooth = y * 0.8 + 0.1
    expected = -(smooth * np.log(p) + (1 - smooth) * np.log(1 - p)).mean()
    assert keras.BinaryCrossentropy(label_smoothing=0.2)(y, p) == pytest.approx(expected, rel=1e-14)
    logits = np.log(p / (1 - p))
    assert keras.BinaryCrossentropy(True, 0.2)(y, logits) == pytest.approx(expected, rel=1e-14)
    assert keras.BinaryCrossentropy(True)(y, np.array([[-1e4, 1e4]])) == 1e4


def test_keras_functions_take_parameters_by_position():
    y, p = np.array([[1.0, 0.0]]), np.array([[0.8, 0.4]])
    assert keras.huber(y, p, 0.1) == keras.huber(y, p, delta=0.1) == keras.Huber(0.1)(y, p)
    assert keras.binary_crossentropy(y, p, True, 0.2, -1) == keras.BinaryCrossentropy(True, 0.2)(y, p)
    assert keras.binary_crossentropy(y, p, True) != keras.binary_crossentropy(y, p)
    live = pytest.importorskip("keras").losses
    for name, parameters in [("huber", (0.1,)), ("binary_crossentropy", (True, 0.2, -1))]:
        expected = np.asarray(getattr(live, name)(y, p, *parameters))
        assert getattr(keras, name)(y, p, *parameters) == pytest.approx(expected, rel=1e-6)
        ours, theirs = (inspect.signature(getattr(module, name)).parameters.values() for module in (keras, live))
        assert [(q.name, q.default) for q in theirs] == [(q.name, q.default) for q in ours][:-1]
    with pytest.raises(TypeError, match="positional"):
        keras.mean_squared_error(y, p, 0.5)


def test_an_infinite_weight_multiplies_the_mean_of_its_row():
    y, p = np.zeros((2, 2)), np.array([[0.0, 1.0], [1.0, 1.0]])
    assert keras.MeanSquaredError("sum")(y, p, [np.inf, 1.0]) == np.inf
    assert np.isnan(keras.MeanSquaredError("sum")(y, p * 0, [np.inf, 1.0]))


def test_what_is_array_like():
    live = pytest.importorskip("torch")
    p = live.tensor([[4.0, 8.0, 12.0]], requires_grad=True)
    for y in ([[1, 9, 2]], ((1, 9, 2),), np.array([[1, 9, 2]], np.int8), live.tensor([[1, 9, 2]])):
        assert torch.mse_loss(p, y, reduction="sum") == 110.0
        assert keras.MeanSquaredError()(y, p) == near(110 / 3)
        assert tensorflow_v1.mean_squared_error(y, p, live.tensor(2.0)) == near(220 / 3)
    assert tensorflow_v1.mean_squared_error([1.0], [3.0], np.float16(2)) == 8.0
    assert keras.MeanSquaredError()(np.ones((2, 1), ">f8"), np.zeros((2, 1), ">f8")).dtype == np.dtype("=f8")


@pytest.mark.parametrize("bad", [["a"], [object()], [[1.0], [1.0, 2.0]]])
def test_what_is_no_array_of_numbers(bad):
    one = [1.0]
    calls = [
        lambda: tensorflow_v1.mean_squared_error(bad, bad),
        lambda: tensorflow_v1.mean_squared_error(one, one, bad[0]),
        lambda: tensorflow_v1.compute_weighted_loss(bad),
        lambda: keras.MeanSquaredError()(bad, bad),
        lambda: keras.MeanSquaredError("none")(one, one, bad),
        lambda: torch.MSELoss()(bad, bad),
        lambda: torch.mse_loss(one, one, weight=bad),
    ]
    for call in calls[:1] + calls[2:]:
        with pytest.raises((TypeError, ValueError)):
            call()


# ----------------------------------------------------------------------------------------------- streams

TENSORFLOW = ["mean_squared_error", "absolute_difference", "huber_loss", "log_loss", "compute_weighted_loss"]
KERAS = [
    *(cls() for name, cls in keras.CLASSES.items()),
    keras.Huber(2.0),
    keras.BinaryCrossentropy(True, 0.25),
    keras.MeanSquaredError(dtype="float64"),
]
TORCH = [torch.MSELoss(), torch.L1Loss(), torch.HuberLoss(delta=0.5), torch.SmoothL1Loss(beta=2.0)]


def every_stream():
    """Pairs of a function that makes a stream, and the one-shot call."""
    for name in TENSORFLOW:
        for reduction in dict.fromkeys(V1.all()):
            call = getattr(tensorflow_v1, name)
            made = tensorflow_v1.stream(name, reduction=reduction)
            yield f"{name}-{reduction}", made, lambda *a, call=call, r=reduction, **k: call(*a, **k, reduction=r)
    for loss in KERAS:
        for reduction in keras.REDUCTIONS:
            made = type(loss).from_config(loss.get_config() | {"reduction": reduction})
            yield repr(made), made.stream(), made
    for loss in TORCH:
        for reduction in ("mean", "sum", "none"):
            made = pickle.loads(pickle.dumps(loss))
            made.reduction = reduction
            yield f"{made}-{reduction}", made.stream(), made.stream().once


STREAMS = [pytest.param(made, call, id=name) for name, made, call in every_stream()]


@st.composite
def arrays(draw):
    """Labels and predictions between 0 and 1, weights of rows, and chunks of them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (draw(st.integers(0, 12)), *draw(st.sampled_from([(), (1,), (3,), (2, 3)])))
    labels, predictions = rng.random((2, *shape), np.float32)
    kinds = [None, np.float32(0.5), rng.normal(size=(shape[0], *[1] * (len(shape) - 1))).astype(np.float32)]
    kinds += [kinds[-1] * 0, np.where(rng.random(kinds[-1].shape) < 0.2, np.inf, kinds[-1]).astype(np.float32)]
    return labels, predictions, draw(st.sampled_from(kinds)), draw(cuts(shape[0]))


def arguments(stream, labels, predictions, weights, part=slice(None)):
    """What the update and the call of a stream take, for a part of the data."""
    if isinstance(weights, np.ndarray):
        weights = weights[part]
    labels, predictions = labels[part], predictions[part]
    if isinstance(stream, torch.Stream):
        full = None if weights is None else np.ascontiguousarray(np.broadcast_to(weights, labels.shape))
        return labels, predictions, full
    if isinstance(stream, tensorflow_v1.WeightedLossStream):
        return (labels, 1.0 if weights is None else weights)
    if isinstance(stream, tensorflow_v1.Stream):
        return (labels, predictions, 1.0 if weights is None else weights)
    return labels, predictions, weights


@pytest.mark.parametrize(("stream", "call"), STREAMS)
@settings(max_examples=10)
@given(data=arrays())
def test_any_chunking_is_one_shot_to_the_bit(stream, call, data):
    labels, predictions, weights, parts = data
    if isinstance(stream, keras.Stream) and labels.ndim == 1 and isinstance(weights, np.ndarray):
        weights = np.float32(0.5)  # the row losses of one axis are one number
    expected = call(*arguments(stream, labels, predictions, weights))
    stream.reset()
    if stream._reduction in (None, "none"):
        rows = labels.shape[:-1] if isinstance(stream, keras.Stream) else labels.shape
        if not rows:
            return  # one number, of all chunks
        out = np.full(rows, 7, expected.dtype)
        for part in parts:
            stream.update(*arguments(stream, labels, predictions, weights, part), out=out[part])
        assert np.array_equal(out, expected, equal_nan=True)
        with pytest.raises(ValueError, match="without a reduction"):
            stream.result()
        return
    halves = [stream, pickle.loads(pickle.dumps(stream))]
    for number, part in enumerate(parts):
        halves[number % 2].update(*arguments(stream, labels, predictions, weights, part))
    stream.merge(pickle.loads(pickle.dumps(halves[1])))
    assert (stream.result().tobytes(), stream.result().dtype) == (expected.tobytes(), expected.dtype)


@pytest.mark.parametrize(("stream", "call"), STREAMS)
def test_streams_merge_reset_and_refuse(stream, call):
    stream.reset()
    other = pickle.loads(pickle.dumps(stream))
    y, p, w = LABELS / 16, np.abs(PREDICTIONS) / 16, np.float32(0.5)
    other.update(*arguments(stream, y, p, w))
    assert "n=6" in repr(other)
    assert "n=6" in repr(stream.merge(other, pickle.loads(pickle.dumps(stream))))
    assert "n=0" in repr(stream.reset())
    assert "n=6" in repr(other)
    with pytest.raises(TypeError, match="must be streams of"):
        stream.merge(streamloss.Accumulator())
    stranger = pickle.loads(pickle.dumps(stream))
    stranger._loss = streamloss.losses.quantile
    with pytest.raises(ValueError, match="differ"):
        stream.merge(stranger)


def test_merging_streams_of_another_class_names_both_in_full():
    losses, totals = tensorflow_v1.stream("mean_squared_error"), tensorflow_v1.stream("compute_weighted_loss")
    module = "streamloss.compat.tensorflow_v1"
    with pytest.raises(TypeError, match=f"must be streams of {module}.Stream, got {module}.WeightedLossStream$"):
        losses.merge(totals)
    with pytest.raises(TypeError, match=f"of streamloss.compat.torch.Stream, got {module}.Stream$"):
        torch.MSELoss().stream().merge(losses)


def mean_squared_error(labels, predictions):
    """Not TensorFlow's, but of the same name."""


@pytest.mark.parametrize(
    ("loss", "parameters", "error", "text"),
    [
        ("mean_squared_error", {"delta": 2.0}, TypeError, "mean_squared_error has no parameter 'delta'; it has: none"),
        ("compute_weighted_loss", {"delta": 2.0}, TypeError, "compute_weighted_loss has no parameter 'delta'"),
        ("huber_loss", {"beta": 2.0}, TypeError, "huber_loss has no parameter 'beta'; it has: delta"),
        ("huber_loss", {"delta": "x"}, TypeError, "delta of huber must be a number, got str"),
        ("mse", {}, ValueError, "loss must be compute_weighted_loss, .*, got 'mse'"),
        (mean_squared_error, {}, ValueError, "loss must be compute_weighted_loss, .*, got <function"),
    ],
)
def test_streams_of_what_there_is_not_are_refused(loss, parameters, error, text):
    with pytest.raises(error, match=text):
        tensorflow_v1.stream(loss, **parameters)
    assert repr(tensorflow_v1.stream(tensorflow_v1.mean_squared_error)) == repr(tensorflow_v1.stream())


def test_an_update_lands_whole_or_not_at_all():
    stream = keras.MeanSquaredError("sum").stream().update(LABELS, PREDICTIONS)
    before = repr(stream), stream.result()
    bad = [(LABELS, PREDICTIONS[:1]), (LABELS[:, :2], PREDICTIONS[:, :2]), (LABELS[0], PREDICTIONS[0]), (None, LABELS)]
    for y, p in bad:
        with pytest.raises(ValueError):
            stream.update(y, p)
    with pytest.raises(ValueError, match="out must be"):
        stream.update(LABELS, PREDICTIONS, out=np.empty(3))
    with pytest.raises(TypeError, match="out must be"):
        stream.update(LABELS, PREDICTIONS, out=np.empty(2, int))
    with pytest.raises(ValueError, match="last axes of one size"):
        stream.merge(keras.MeanSquaredError("sum").stream().update([[1.0]], [[2.0]]))
    assert (repr(stream), stream.result()) == before


def test_threads_may_update_one_stream():
    stream = keras.MeanSquaredError("sum").stream()
    threads = [
        threading.Thread(target=lambda: [stream.update(LABELS, PREDICTIONS) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.result() == 200 * 99.0


def test_keras_losses_can_be_subclassed():
    class Mine(keras.Huber):
        pass

    assert Mine(delta=2.0)([[0.0]], [[4.0]]) == 6.0
    assert Mine().name == "huber_loss"


def test_keras_sum_needs_the_size_of_the_last_axis():
    stream = keras.MeanSquaredError("sum").stream()
    assert stream.update(np.zeros((2, 3)), np.ones((2, 3))).result() == 2.0
    with pytest.raises(ValueError, match="last axes of one size"):
        stream.update(np.zeros((2, 4)), np.ones((2, 4)))
    assert stream.result() == 2.0
    mean = keras.MeanSquaredError().stream().update(np.zeros((2, 3)), np.ones((2, 3)))
    assert mean.update(np.zeros((2, 4)), np.zeros((2, 4))).result() == 6 / 14
    vector = keras.MeanSquaredError("sum").stream().update([0.0], [1.0]).update([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert vector.result() == keras.MeanSquaredError("sum")([0.0] * 4, [1.0, 0.0, 0.0, 0.0]) == 0.25


def test_streams_take_the_names_of_their_framework():
    tensorflow_v1.stream().update(labels=[1.0], predictions=[2.0], weights=1.0)
    tensorflow_v1.stream(tensorflow_v1.compute_weighted_loss).update(losses=[1.0], weights=1.0)
    keras.MeanSquaredError().stream().update(y_true=[1.0], y_pred=[2.0], sample_weight=1.0)
    torch.MSELoss().stream().update(input=[1.0], target=[2.0], weight=[1.0])
    assert tensorflow_v1.stream("huber_loss", delta=2.0).update([0.0], [4.0]).result() == 6.0
    for bad in ("nope", print):
        with pytest.raises(ValueError, match="loss must be"):
            tensorflow_v1.stream(bad)
    with pytest.raises(ValueError, match="Invalid Reduction Key"):
        tensorflow_v1.stream(reduction="mean")


def test_dtypes_of_chunks_promote_as_those_of_one_array_would():
    stream = torch.MSELoss().stream()
    assert stream.result().dtype == np.float32
    for dtype in (np.float16, np.float32, np.int64, np.float64):
        stream.update(np.ones(2, dtype), np.zeros(2, np.float16))
    assert stream.result().dtype == np.float64


# ----------------------------------------------------------------------------------------------- the differences

TESTED = {}


def shows(row):
    """Mark a test as that of a row of the table of differences."""

    def mark(test):
        TESTED[row] = test
        return test

    return mark


@pytest.mark.large
@shows("arithmetic")
def test_arithmetic_is_exact():
    labels, predictions = np.array([1e8, 1e8 + 1]), np.array([1e8, 1e8])  # one number, as float32
    assert tensorflow_v1.mean_squared_error(labels, predictions) == 0.5
    ones = np.full(2**24 + 2, 1, np.float32)
    assert keras.MeanSquaredError("sum")(ones[:, None], ones[:, None] * 0) == 2**24 + 2


@shows("integers")
def test_integers_stay_floating():
    assert tensorflow_v1.compute_weighted_loss(np.array([1, 2]), reduction=V1.MEAN) == 1.5
    for result in (
        keras.MeanSquaredError()(np.array([[0, 0]]), np.array([[1, 0]])),
        torch.MSELoss()(np.array([0, 0]), np.array([1, 0])),
        torch.L1Loss()(np.array([0, 0]), np.array([True, False])),
        torch.HuberLoss()(np.array([0, 0]), np.array([1.0, 1.0], np.float32)),
    ):
        assert (result, result.dtype) == (0.5, np.float32)


@shows("broadcasting")
def test_shapes_never_broadcast():
    a, b = np.zeros(3), np.zeros((3, 1))
    for call in (torch.MSELoss(), keras.MeanSquaredError(), tensorflow_v1.mean_squared_error):
        for pair in ((a, b), (b, a)):
            with pytest.raises(ValueError, match=r"shape|size|Shapes"):
                call(*pair)
    with pytest.raises(ValueError, match="sample_weight"):
        keras.MeanSquaredError()(np.zeros((1, 2)), np.zeros((1, 2)), [1.0, 2.0, 3.0])


@shows("weight sums")
def test_weights_are_counted_after_broadcasting():
    y, p = np.zeros((2, 2)), np.array([[1.0, 1.0], [2.0, 2.0]])
    for weights in (2.0, [2.0], [[2.0]], [2.0, 2.0]):
        assert keras.MeanSquaredError("mean_with_sample_weight")(y, p, weights) == 2.5


@shows("samples")
def test_weights_of_the_batch_are_of_samples():
    y, p = np.zeros((2, 2, 1)), np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    assert keras.MeanSquaredError("sum")(y, p, [1.0, 0.0]) == 5.0
    assert keras.MeanSquaredError("sum")(y[..., None, :], p[..., None, :], [1.0, 0.0]) == 5.0


@shows("unreduced shape")
def test_weights_do_not_reshape_row_losses():
    rows = keras.MeanSquaredError(None)(np.zeros((3, 2)), np.ones((3, 2)), np.ones((3, 1)))
    assert rows.shape == (3,)
    assert keras.MeanSquaredError(None)(np.zeros((1, 2)), np.ones((1, 2)), 2.0).shape == (1,)


@shows("nothing")
def test_an_empty_batch_reduces_to_zero():
    for reduction in ("auto", "sum", "sum_over_batch_size", "mean", "mean_with_sample_weight"):
        assert keras.MeanSquaredError(reduction)(np.empty((0, 3)), np.empty((0, 3))) == 0.0
        assert keras.MeanSquaredError(reduction).stream().result() == 0.0


@shows("keras dtype")
def test_the_dtype_of_keras_results():
    y, p = np.zeros((2, 2)), np.ones((2, 2))
    assert keras.MeanSquaredError()(y, p).dtype == np.float64
    assert keras.MeanSquaredError(dtype="float32")(y, p).dtype == np.float32
    assert keras.MeanSquaredError()(y, p.astype(np.float16)).dtype == np.float16
    assert keras.Huber()(y, p).dtype == np.float32
    assert keras.Huber(dtype="float64")(y, p).dtype == np.float64


@shows("reduction names")
def test_the_reductions_of_both_versions_of_keras():
    y, p = [[0.0], [0.0]], [[1.0], [2.0]]
    for reduction in ("auto", "mean", "mean_with_sample_weight", "sum_over_batch_size"):
        assert keras.MeanSquaredError(reduction)(y, p) == 2.5
    assert keras.MeanSquaredError(None)(y, p).tolist() == keras.MeanSquaredError("none")(y, p).tolist() == [1.0, 4.0]


@shows("log_cosh")
def test_log_cosh_does_not_cancel():
    assert keras.LogCosh(None)(np.zeros((3, 1)), np.array([[0.0], [np.inf], [-np.inf]])).tolist() == [0, np.inf, np.inf]


@shows("cross entropy")
def test_cross_entropy_clips_once():
    y, p = np.array([[0.0], [1.0]]), np.array([[1.0], [0.8]])
    expected = [-np.log1p(-(1.0 - 1e-7)), -np.log(0.8)]
    assert keras.BinaryCrossentropy(reduction=None)(y, p).tolist() == pytest.approx(expected, rel=1e-12)


@shows("cross entropy axis")
def test_only_the_last_axis_is_averaged():
    with pytest.raises(ValueError, match="axis must be -1"):
        keras.BinaryCrossentropy(axis=0)


@shows("delta")
def test_delta_is_positive():
    for make in (keras.Huber, lambda delta: tensorflow_v1.huber_loss([0.0], [1.0], delta=delta)):
        for delta in (0.0, -1.0):
            with pytest.raises(ValueError, match="delta"):
                make(delta)


@shows("bfloat16")
def test_bfloat16_gives_float32():
    ml_dtypes, live = pytest.importorskip("ml_dtypes"), pytest.importorskip("torch")
    one = np.ones((2, 1), np.float32)
    for ones in (one.astype(ml_dtypes.bfloat16), live.ones((2, 1), dtype=live.bfloat16)):
        results = [
            tensorflow_v1.compute_weighted_loss(ones, ones),
            keras.MeanSquaredError()(ones, ones, ones) + np.float32(1),
            torch.mse_loss(ones, ones, weight=ones) + np.float32(1),
            torch.mse_loss(ones, ones, weight=ones, reduction="none")[0, 0] + np.float32(1),
        ]
        assert [(result, result.dtype) for result in results] == [(1.0, np.float32)] * 4


@shows("masked arrays")
def test_masked_arrays_are_refused():
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    for call in (torch.MSELoss(), keras.MeanSquaredError(), tensorflow_v1.mean_squared_error):
        with pytest.raises(TypeError, match="masked"):
            call(masked, [1.0, 2.0])


@shows("complex")
def test_complex_numbers_are_refused():
    numbers = np.array([1 + 2j])
    for call in (torch.L1Loss(), keras.MeanSquaredError(), tensorflow_v1.mean_squared_error):
        with pytest.raises(TypeError, match="complex"):
            call(numbers, numbers)


def test_every_difference_has_its_test_and_its_line_on_the_page():
    assert list(TESTED) == list(DIFFERENCES)
    rows = [line for line in PAGE.read_text("utf-8").split("## Differences")[1].splitlines() if line.startswith("| ")]
    assert rows[1:] == [as_markdown(row) for row in DIFFERENCES.values()]


# ----------------------------------------------------------------------------------------------- the page, the imports


def test_the_programs_of_the_page_run():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    whole = LABELS, PREDICTIONS, np.array([[1.2], [3.4]], np.float32)
    chunks = [tuple(array[row : row + 1] for array in whole) for row in range(2)]
    for block in blocks:
        exec(block, dict(zip(("labels", "predictions", "weights"), whole, strict=True), chunks=chunks))


def test_no_framework_is_imported():
    frameworks = ["tensorflow", "tf_keras", "keras", "torch", "jax", "ml_dtypes"]
    script = f"""
import sys
import threading
from functools import partial
import streamloss.compat
from streamloss.compat import keras, tensorflow_v1, torch
assert torch.MSELoss()([1.0], [3.0]) == keras.MeanSquaredError()([1.0], [3.0]) == 4.0
assert tensorflow_v1.mean_squared_error([1.0], [3.0]) == 4.0
print(sorted(set({frameworks}) & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
