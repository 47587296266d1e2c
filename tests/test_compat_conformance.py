"""The compat modules against the live frameworks: thousands of generated calls, run through both.

Where the reference returns a number, compat returns the same, with the same shape and dtype; where it raises, compat
raises ValueError or TypeError. What differs on purpose is named by `deliberate`, with a row of tests/differences.py.
"""

import os
import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")
keras3 = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

from streamloss.compat import keras, tensorflow_v1  # noqa: E402  # the environment comes first
from streamloss.compat import torch as compat_torch  # noqa: E402  # likewise
from tests.differences import DIFFERENCES  # noqa: E402  # likewise

V1 = tf.compat.v1.losses
SHAPES = [
    (),
    (0,),
    (1,),
    (4,),
    (3, 2),
    (2, 0),
    (0, 4),
    (1, 1),
    (2, 3, 4),
    (2, 0, 1),
    (3, 3, 2),
    (2, 1, 3, 2),
    (1, 2, 2, 0),
]
REFUSED = {"broadcasting", "samples"}  # rows that may refuse what the reference computes
DTYPES = ["float16", "float32", "float64", "int32", "int8"]
RELATIVE = {"float16": 4e-3, "float32": 1e-6, "float64": 1e-12}
WEIGHTS = ["positive", "with zeros", "zeros", "negative", "nan", "infinite"]


class Case(NamedTuple):
    """A call: the loss, what it is made with, its arrays, and what they are like."""

    loss: str
    options: dict[str, Any]
    labels: np.ndarray
    predictions: np.ndarray
    weights: Any  # None: not passed


# ----------------------------------------------------------------------------------------------- what is drawn


def values(rng, shape, dtype, loss):
    """Multiples of 1/4, whose squares and sums float32 holds exactly, or what suits the domain of the loss."""
    if "log_loss" in loss or "Binary" in loss:
        drawn = rng.choice([0.25, 0.5, 0.75], shape)
    elif "Logarithmic" in loss:
        drawn = rng.choice([-2.0, 0.0, 1.0, 3.0, 7.0], shape)
    elif "Cosh" in loss:
        drawn = rng.choice([-8.0, -2.0, 3.0, 6.0], shape)
    else:
        drawn = rng.integers(-8, 9, shape) / (4 if dtype.startswith("f") else 1)
    return np.asarray(drawn, dtype)


def spoil(rng, array):
    """The same with a NaN or an infinity somewhere."""
    array = array.copy()
    if array.size and array.dtype.kind == "f":
        array.reshape(-1)[rng.integers(array.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return array


def weight_shapes(shape):
    """What the references accept and what they reject."""
    found = [(), shape, (1,) * len(shape), shape[:1], shape[:-1], (*shape[:-1], 1), shape[-1:], (1,), (*shape, 1)]
    found += [(1, *shape[1:]), (2, *shape), tuple(n + 1 for n in shape), shape[1:], (*shape[:-1], 1, 1), shape[:-2]]
    return sorted(set(found))


def weights(rng, shape, kind, dtype):
    found = rng.integers(1, 9, shape) / 4
    if kind == "with zeros":
        found = found * rng.integers(0, 2, shape)
    elif kind == "zeros":
        found = np.zeros(shape)
    elif kind == "negative":
        found = found * rng.choice([-1, 1], shape)
    elif kind in ("nan", "infinite") and np.size(found):
        found = np.asarray(found)
        found.reshape(-1)[rng.integers(found.size)] = np.nan if kind == "nan" else rng.choice([np.inf, -np.inf])
    if dtype.startswith("i"):
        found = np.nan_to_num(found, posinf=3, neginf=-3) * 4
    return np.asarray(found).astype(dtype)


def positive_only(loss, dtype):
    """Losses that the reference rounds: with weights of both signs its errors would be all that is left."""
    return dtype == "float16" or any(word in loss for word in ("log_loss", "Binary", "Logarithmic", "Cosh"))


def cases(losses, options, seed, *, per, fitting=0, weighted=True, dtypes=DTYPES):
    """For every loss, shape and reduction: `per` shapes of weights, `fitting` times full weights, once no weights."""
    rng = np.random.default_rng(seed)
    for loss in losses:
        for shape in SHAPES:
            shapes_of_weights = weight_shapes(shape)
            for option in options:
                drawn = [shapes_of_weights[i] for i in rng.permutation(len(shapes_of_weights))[:per]]
                for draw in [*drawn, *([shape] * fitting), None]:
                    dtype = str(rng.choice(dtypes))
                    y, p = (values(rng, shape, dtype, loss) for _ in range(2))
                    if rng.random() < 0.15 and not positive_only(loss, dtype):
                        p = spoil(rng, p)
                    w = None
                    if draw is not None and weighted:
                        kind = "positive" if positive_only(loss, dtype) else str(rng.choice(WEIGHTS))
                        w = weights(rng, draw, kind, dtype)
                    yield Case(loss, option, y, p, w)
                if rng.random() < 0.3:  # labels and predictions that do not fit
                    other = [*shape[:-1], *[n + 2 for n in shape[-1:]]] if rng.random() < 0.5 else [*shape, 1]
                    yield Case(loss, option, values(rng, tuple(other), "float32", loss), y.astype("float32"), None)


# ----------------------------------------------------------------------------------------------- running both


def outcome(call):
    """What a call comes to: an array, or an exception."""
    with warnings.catch_warnings():
        # The references warn of shapes that they broadcast and of casts; what they return is what counts here.
        warnings.simplefilter("ignore")
        try:
            result = call()
        except Exception as error:
            return error
    return result.detach().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)


def agree(expected, actual, relative):
    if isinstance(expected, Exception) or isinstance(actual, Exception):
        return False
    return (
        expected.shape == actual.shape
        and expected.dtype == actual.dtype
        and np.allclose(actual.astype(np.float64), expected.astype(np.float64), rtol=relative, atol=0, equal_nan=True)
    )


def compare(calls, deliberate, relative=lambda case, expected: tolerance(expected)):
    """Run every case through both, and count what came of it; any difference that no row allows fails."""
    tally, wrong = Counter(), []
    for case, reference, here in calls:
        expected, actual = outcome(reference), outcome(here)
        if isinstance(actual, Exception) and not isinstance(actual, (ValueError, TypeError)):
            wrong.append((case, expected, actual))
        if isinstance(expected, Exception) and isinstance(actual, Exception):
            tally["both raise"] += 1
        elif agree(expected, actual, relative(case, expected)):
            tally["equal"] += 1
        else:
            row = deliberate(case, expected)
            tally[f"deliberate: {row}"] += 1
            if row not in DIFFERENCES or (isinstance(actual, Exception) and row not in REFUSED):
                wrong.append((case, expected, actual))
    report = "\n".join(
        f"{case.loss} {case.options} y={case.labels.tolist()} {case.labels.dtype} p={case.predictions.tolist()}"
        f" w={None if case.weights is None else case.weights.tolist()} {np.shape(case.weights)}:"
        f" expected {expected!r:.300}, got {actual!r:.300}"
        for case, expected, actual in wrong[:12]
    )
    assert not wrong, f"{len(wrong)} differences; {dict(tally)}\n{report}"
    print(dict(tally))
    return tally


def tolerance(expected):
    return 0.0 if isinstance(expected, Exception) else RELATIVE.get(expected.dtype.name, 1e-6)


def enlarges(shape, rows):
    """Whether broadcasting would make more of the row losses than there are."""
    try:
        return np.broadcast_shapes(shape, rows) != rows
    except ValueError:
        return False


# ----------------------------------------------------------------------------------------------- TensorFlow 1


def tensorflow_calls():
    options = [{"reduction": reduction} for reduction in dict.fromkeys(V1.Reduction.all())]
    for case in cases(["mean_squared_error", "compute_weighted_loss"], options, 1, per=6):
        yield case
    for case in cases(
        ["absolute_difference", "huber_loss", "log_loss"], options, 2, per=2, dtypes=["float32", "float64"]
    ):
        yield case


def run_tensorflow(module, case):
    weighted = {} if case.weights is None else {"weights": case.weights}
    if case.loss == "compute_weighted_loss":
        return getattr(module, case.loss)(case.labels, **weighted, **case.options)
    return getattr(module, case.loss)(case.labels, case.predictions, **weighted, **case.options)


def tensorflow_deliberate(case, expected):
    return "integers" if case.loss == "compute_weighted_loss" and case.labels.dtype.kind == "i" else None


def test_tensorflow_v1():
    calls = (
        (case, lambda case=case: run_tensorflow(V1, case), lambda case=case: run_tensorflow(tensorflow_v1, case))
        for case in tensorflow_calls()
    )
    # TensorFlow computes in float32 whatever the dtype.
    tally = compare(calls, tensorflow_deliberate, lambda case, e: max(1e-6, tolerance(e)))
    assert tally["equal"] + tally["both raise"] >= 1000
    assert tally["both raise"] >= 100


# ----------------------------------------------------------------------------------------------- Keras

QUICK = ["MeanAbsoluteError", "Huber", "LogCosh", "MeanSquaredLogarithmicError", "BinaryCrossentropy"]


def keras_calls(reductions, seed):
    options = [{"reduction": reduction} for reduction in reductions]
    yield from cases(["MeanSquaredError"], options, seed, per=7)
    yield from cases(QUICK, options, seed + 1, per=1, dtypes=["float32", "float64"])


def run_keras(module, case, **extra):
    loss = getattr(module, case.loss)(**case.options, **extra)
    return loss(case.labels, case.predictions, sample_weight=case.weights)


def keras_deliberate(version):
    def deliberate(case, expected):
        shape, rows = case.predictions.shape, case.predictions.shape[:-1]
        reduced = case.options["reduction"] not in (None, "none")
        if case.labels.shape != shape:
            return "broadcasting"
        if case.weights is not None:
            rank = case.weights.ndim
            trailing = rank == len(shape) and case.weights.shape[-1] == 1
            bare = case.weights.shape[:-1] if trailing else case.weights.shape
            if 0 < rank < len(rows) and (version == 3 or rank < len(rows) - 1):
                return "samples"
            if enlarges(bare, rows):
                return "broadcasting"
            if version == 3 and not reduced and ((len(rows), rank) == (1, 2) or (rows, rank) == ((1,), 0)):
                return "unreduced shape"
            if case.options["reduction"] == "mean_with_sample_weight" and (bare != rows or not rows):
                return "weight sums"
        if version == 3 and rows == (0,) and reduced:
            return "nothing"
        if version == 2 and case.predictions.dtype.kind == "i":
            return "integers"
        if case.loss == "LogCosh" and expected.dtype == np.float64:
            return "log_cosh"
        return None

    return deliberate


def keras_relative(case, expected):
    return max(1e-6, tolerance(expected)) if case.loss == "BinaryCrossentropy" else tolerance(expected)


def test_keras_2():
    calls = (
        (case, lambda case=case: run_keras(tf_keras.losses, case), lambda case=case: run_keras(keras, case))
        for case in keras_calls(tf_keras.losses.Reduction.all(), 10)
    )
    tally = compare(calls, keras_deliberate(2), keras_relative)
    assert tally["equal"] + tally["both raise"] >= 500
    assert tally["both raise"] >= 50


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_keras_3(dtype):
    calls = (
        (
            case,
            lambda case=case: run_keras(keras3.losses, case, dtype=dtype),
            lambda case=case: run_keras(keras, case, dtype=dtype),
        )
        for case in keras_calls(["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None], 20)
    )
    tally = compare(calls, keras_deliberate(3), keras_relative)
    assert tally["equal"] + tally["both raise"] >= 500
    assert tally["both raise"] >= 50


# ----------------------------------------------------------------------------------------------- torch

MODULES = {"mse_loss": "MSELoss", "l1_loss": "L1Loss", "huber_loss": "HuberLoss", "smooth_l1_loss": "SmoothL1Loss"}


def torch_calls():
    options = [{"reduction": reduction} for reduction in ("mean", "sum", "none", "avg")]
    yield from cases(["mse_loss"], options, 30, per=2, fitting=4)
    yield from cases(["l1_loss", "huber_loss"], options, 31, per=1, fitting=2, dtypes=["float32", "float64", "float16"])
    yield from cases(["smooth_l1_loss"], options, 32, per=2, weighted=False, dtypes=["float32", "float64", "int32"])


def run_torch(functions, modules, tensor, case):
    predictions, labels = tensor(case.predictions), tensor(case.labels)
    if case.weights is None:
        return getattr(modules, MODULES[case.loss])(**case.options)(predictions, labels)
    return getattr(functions, case.loss)(predictions, labels, weight=tensor(case.weights), **case.options)


def torch_deliberate(case, expected):
    if case.labels.shape != case.predictions.shape:
        return "broadcasting"
    return "integers" if case.predictions.dtype.kind == "i" else None


def test_torch():
    functional = torch.nn.functional
    calls = (
        (
            case,
            lambda case=case: run_torch(functional, torch.nn, torch.from_numpy, case),
            lambda case=case: run_torch(compat_torch, compat_torch, np.asarray, case),
        )
        for case in torch_calls()
    )
    tally = compare(calls, torch_deliberate)
    assert tally["equal"] + tally["both raise"] >= 500
    assert tally["both raise"] >= 100


@pytest.mark.parametrize("first", ["float16", "float32", "float64", "int64"])
@pytest.mark.parametrize("second", ["float16", "float32", "float64"])
@pytest.mark.parametrize("loss", ["mse_loss", "huber_loss"])
def test_torch_promotes_dtypes(loss, first, second):
    pair = torch.arange(6).to(getattr(torch, first)), torch.ones(6, dtype=getattr(torch, second))
    expected = outcome(lambda: getattr(torch.nn.functional, loss)(*pair))
    if isinstance(expected, Exception):
        assert (loss, first) == ("huber_loss", "int64")  # the row on integers
        return
    actual = getattr(compat_torch, loss)(*pair)
    assert agree(expected, np.asarray(actual), tolerance(expected))


def test_tensors_of_tensorflow_are_read():
    y, p = np.array([[0.0, 1.0], [0.0, 0.0]], np.float32), np.array([[1.0, 1.0], [1.0, 0.5]], np.float32)
    for dtype in ("float16", "float32", "float64", "bfloat16"):
        expected = tf_keras.losses.MeanSquaredError()(tf.constant(y, dtype), tf.constant(p, dtype))
        for made in (tf.constant, tf.Variable):
            labels, predictions = made(y, dtype=dtype), made(p, dtype=dtype)
            result = keras.MeanSquaredError()(labels, predictions, tf.constant([1.0, 1.0], dtype))
            assert result == float(expected)
            assert result.dtype == ("float32" if dtype == "bfloat16" else dtype)  # the row on bfloat16
            assert tensorflow_v1.mean_squared_error(labels, predictions) == V1.mean_squared_error(y, p).numpy()


ZEROS, ONES = np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)
K2, K3, F = tf_keras.losses, keras3.losses, torch.nn.functional
REFERENCES = {  # what the references do, row by row of the table of differences
    "arithmetic": lambda: V1.mean_squared_error(np.array([1e8, 1e8 + 1]), np.array([1e8, 1e8])).numpy() == 0.0,
    "integers": lambda: (
        V1.compute_weighted_loss(np.array([1, 2]), reduction=V1.Reduction.MEAN).numpy() == 1
        and K2.MeanSquaredError()(np.array([[0, 0]]), np.array([[1, 0]])).numpy() == 0
        and isinstance(outcome(lambda: F.mse_loss(torch.tensor([1]), torch.tensor([2]))), NotImplementedError)
    ),
    "broadcasting": lambda: (
        outcome(lambda: F.mse_loss(torch.zeros(3), torch.zeros(3, 1), reduction="none")).shape == (3, 3)
        and K2.MeanSquaredError("none")(np.zeros(3), np.zeros((3, 1))).shape == (3,)
        and K2.MeanSquaredError("none")(tf.zeros(3), tf.zeros((3, 1))).shape == ()
        and K3.MeanSquaredError("none")(np.zeros(3), np.zeros((3, 1))).shape == (3,)
        and K2.MeanSquaredError("none")(ZEROS[:1], ONES[:1], [1.0, 2.0, 3.0]).shape == (3,)
    ),
    "weight sums": lambda: (
        K3.MeanSquaredError("mean_with_sample_weight")(np.zeros((3, 2)), np.ones((3, 2)), 2.0).numpy() == 3.0
        and K3.MeanSquaredError("mean_with_sample_weight")(np.zeros(3), np.ones(3), 2.0).numpy() == 2.0
    ),
    "samples": lambda: (
        K3.MeanSquaredError("none")(ZEROS[..., None], ONES[..., None], [1.0, 0.0]).numpy().tolist() == [[1, 0], [1, 0]]
        and K2.MeanSquaredError("none")(np.zeros((2, 1, 2, 1)), np.ones((2, 1, 2, 1)), [1.0, 0.0]).numpy().tolist()
        == [[[1, 0]], [[1, 0]]]
        and isinstance(
            outcome(lambda: K3.MeanSquaredError()(np.zeros((2, 3, 1)), np.ones((2, 3, 1)), [1, 0])), Exception
        )
    ),
    "unreduced shape": lambda: (
        K3.MeanSquaredError(None)(ZEROS, ONES, [[1.0], [1.0]]).shape == (2, 1)
        and K3.MeanSquaredError(None)(ZEROS[:1], ONES[:1], 1.0).shape == ()
        and K2.MeanSquaredError("none")(ZEROS, ONES, [[1.0], [1.0]]).shape == (2,)
    ),
    "nothing": lambda: (
        K3.MeanSquaredError()(ZEROS[:0], ONES[:0]).shape == (0,) and K2.MeanSquaredError()(ZEROS[:0], ONES[:0]) == 0.0
    ),
    "keras dtype": lambda: (
        K3.MeanSquaredError()(np.zeros((2, 2)), np.ones((2, 2))).dtype == tf.float32
        and K2.MeanSquaredError()(np.zeros((2, 2)), np.ones((2, 2))).dtype == tf.float64
        and K2.Huber()(np.zeros((2, 2)), np.ones((2, 2))).dtype == tf.float32
    ),
    "reduction names": lambda: (
        isinstance(outcome(lambda: K2.MeanSquaredError("mean")), ValueError)
        and isinstance(outcome(lambda: K3.MeanSquaredError("auto")), ValueError)
    ),
    "log_cosh": lambda: (
        K2.LogCosh()(np.zeros((1, 1)), np.zeros((1, 1))) < 0
        and np.isnan(K3.LogCosh()(np.zeros((1, 1)), np.full((1, 1), -np.inf)))
    ),
    "cross entropy": lambda: (
        abs(K2.BinaryCrossentropy()(np.zeros((1, 1)), np.ones((1, 1))).numpy() + np.log(2e-7)) < 1e-6
        and abs(K3.BinaryCrossentropy(dtype="float64")(np.zeros((1, 1)), np.ones((1, 1))).numpy() + np.log(1e-7)) < 1e-6
    ),
    "cross entropy axis": lambda: K2.BinaryCrossentropy(axis=0)(ZEROS, ONES / 2).shape == (),
    "delta": lambda: K2.Huber(delta=-1.0)(ZEROS, ONES) < 0 and V1.huber_loss(ZEROS, ONES, delta=0.0) == 0,
    "bfloat16": lambda: F.mse_loss(torch.zeros(2).bfloat16(), torch.zeros(2).bfloat16()).dtype == torch.bfloat16,
    "masked arrays": lambda: V1.mean_squared_error(np.ma.masked_array([3.0], [True]), [0.0]) == 9.0,
    "complex": lambda: outcome(lambda: F.l1_loss(torch.tensor([3 + 4j]), torch.tensor([0j]))) == 5.0,
}


@pytest.mark.parametrize("row", DIFFERENCES)
def test_the_references_do_what_the_table_of_differences_says(row):
    assert REFERENCES[row]()
