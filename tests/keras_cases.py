"""What holds on every backend of Keras; `test_integrations_keras.py` runs this file once for each."""

import csv
from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from streamloss import Accumulator
from streamloss.integrations._tensors import chunk_state, joined
from streamloss.integrations.keras import IN_GRAPHS, Evaluation, Loss, Metric, with_64_bits
from tests.regression import SIZES, diabetes

pytestmark = pytest.mark.filterwarnings("ignore")  # the backends' own
BACKEND = keras.backend.backend()
JIT = {"tensorflow": [False, True], "jax": [True], "torch": [False]}[BACKEND]


@pytest.fixture(scope="module")
def data():
    return diabetes()


def linear(data, **options):
    """A linear model that training does not change; with `rank=1`, of one output a row and no axis for it."""
    rank = options.pop("rank", 2)
    layers = [keras.layers.Input((10,)), keras.layers.Dense(1), *([keras.layers.Reshape(())] if rank == 1 else [])]
    model = keras.Sequential(layers)
    model.set_weights([data.kernel, data.bias])
    model.compile(optimizer=keras.optimizers.SGD(0.0), **{"loss": "mse", **options})
    return model


def compiled(function, *arguments):
    """What a function returns from inside a graph."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)(*arguments)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)(*arguments)
    return function(*arguments)


def gradient(function, values):
    """The gradient of a scalar function of an array."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tensor = tf.Variable(values)
            result = function(tensor)
        return tape.gradient(result, tensor).numpy()
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(values))
    tensor = ops.convert_to_tensor(values).requires_grad_()
    function(tensor).backward()
    return tensor.grad.numpy()


def second(function, values):
    """The gradient of the sum of squares of the gradient: 2 * gradient * second derivative, if elements are apart."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tensor = tf.Variable(values)
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                result = function(tensor)
            square = tf.reduce_sum(tape.gradient(result, tensor) ** 2)
        return outer.gradient(square, tensor).numpy()
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(lambda y: (jax.grad(function)(y) ** 2).sum())(values))
    import torch

    tensor = ops.convert_to_tensor(values).requires_grad_()
    (first,) = torch.autograd.grad(function(tensor), tensor, create_graph=True)
    square = (first**2).sum()
    return torch.autograd.grad(square, tensor)[0].numpy() if square.requires_grad else np.zeros_like(values)


# ------------------------------------------------------------------------------------------- the metric


@pytest.mark.parametrize("jit", JIT)
def test_fit_and_evaluate_have_the_same_bits_for_any_batch_size(data, jit):
    plain, weighted = data.accumulator().result(), data.accumulator(weighted=True).result()
    model = linear(data, metrics=[Metric(name="exact")], weighted_metrics=[Metric(name="weighted")], jit_compile=jit)
    for size in SIZES:
        arguments = {"sample_weight": data.weights, "batch_size": size, "verbose": 0}
        history = model.fit(data.x, data.y, **arguments).history
        result = model.evaluate(data.x, data.y, return_dict=True, **arguments)
        assert history["exact"][-1] == result["exact"] == plain
        assert history["weighted"][-1] == result["weighted"] == weighted
    history = model.fit(data.x, data.y, epochs=3, validation_split=0.25, batch_size=32, verbose=0).history
    assert len(set(history["val_exact"])) == 1  # of every epoch, from zero


def test_on_arrays_of_rank_1_keras_own_metric_changes(data):
    model = linear(data, rank=1, metrics=[Metric(name="exact"), keras.metrics.MeanSquaredError(name="theirs")])
    results = [model.evaluate(data.x, data.y, batch_size=size, verbose=0, return_dict=True) for size in SIZES]
    assert {result["exact"] for result in results} == {data.accumulator().result()}
    theirs = [result["theirs"] for result in results]
    assert max(theirs) / min(theirs) > 1.001  # a mean of batch means, whose last batch is small


def test_inside_a_graph_the_value_is_an_approximation(data):
    model = linear(data, metrics=[Metric(name="exact")])
    result = model.test_on_batch(data.x, data.y, return_dict=True)
    assert float(result["exact"]) == pytest.approx(data.accumulator().result(), rel=1e-7)
    metric = Metric("absolute_error", reduction="sum", nan="omit")
    state = compiled(lambda y: stateless(metric, y), np.array([1.0, np.nan, 3.0], np.float32))
    assert float(state) == 4.0


def stateless(metric, y):
    variables = [ops.zeros(variable.shape, variable.dtype) for variable in metric.variables]
    return metric.stateless_result(metric.stateless_update_state(variables, y, ops.zeros_like(y)))


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber(delta=0.5)", "quantile(q=0.9)"])
def test_digits_cut_inside_a_graph_are_those_of_the_kernels(loss):
    rng = np.random.default_rng(0)
    shape = 8, 5
    y_true, y_pred, weight = (rng.standard_normal(shape) * 10.0 ** rng.integers(-150, 100, shape) for _ in range(3))
    y_true[:3, 0] = y_pred[:3, 1] = [np.nan, np.inf, -np.inf]
    mask = rng.random(shape) < 0.7
    for omit in (False, True):
        accumulator = Accumulator(loss, nan="omit" if omit else "propagate").update(y_true, y_pred, weight, mask=mask)

        if BACKEND == "torch":
            break  # its eager operations are those of test_integrations_torch.py
        with with_64_bits():
            words = np.array(compiled(state_of(accumulator.loss, omit), y_true, y_pred, weight, mask))
        assert Accumulator.from_state(words, loss) == accumulator


def state_of(loss, omit):
    def state(*arguments):
        added = chunk_state(IN_GRAPHS, loss, *arguments, omit)
        return joined(IN_GRAPHS, added, ops.zeros_like(added))

    return state


def test_weights_masks_and_ranks():
    y_true, y_pred = np.arange(6.0).reshape(3, 2), np.zeros((3, 2))
    for weight in (2.0, [1.0, 0.0, 2.0], [[1.0], [0.0], [2.0]], np.arange(6.0).reshape(3, 2)):
        metric = Metric(nan="omit")
        metric.update_state(y_true, y_pred, weight)
        assert metric.accumulator == Accumulator(nan="omit").update(y_true, y_pred, weight)
    metric = Metric()
    for labels, predictions in [((3,), (3, 1)), ((3, 1), (3,)), ((3,), (3,)), ((3, 1), (3, 1))]:
        metric.update_state(np.ones(labels), np.zeros(predictions), np.ones((3, 1)))
    assert float(metric.result()) == 1
    assert metric.accumulator.count == 12
    tensor = ops.convert_to_tensor(y_pred)
    try:
        tensor._keras_mask = ops.convert_to_tensor([True, False, True])
    except AttributeError:  # JAX arrays take no attributes; there Keras masks nothing after compilation either
        assert BACKEND == "jax"
    else:
        metric.reset_state()
        metric.update_state(y_true, tensor)
        assert metric.accumulator == Accumulator().update(y_true, y_pred, mask=np.array([True, False, True]))
    metric.reset_state()
    assert np.isnan(float(metric.result()))
    for arguments, message in [
        ((np.zeros(3), np.zeros((3, 2))), "same shape"),
        ((np.zeros((3, 2)), np.zeros((3, 2)), np.zeros(2)), "sample_weight must have leading axes"),
    ]:
        with pytest.raises(ValueError, match=message):
            metric.update_state(*arguments)
    assert metric.accumulator.count == 0


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize(
    ("labels", "weights", "named"),
    [
        ((7, 3), (7,), None),
        ((7, 3), (7, 1), None),
        ((7, 1), (7,), "y_true and y_pred must have the same shape"),
        ((1, 3), (1,), "y_true and y_pred must have the same shape"),
        ((7, 3), (3,), "sample_weight must have leading axes of y_true and y_pred"),
        ((7, 3), (7, 2), "sample_weight must have leading axes of y_true and y_pred"),
    ],
)
def test_axes_that_a_graph_does_not_know_are_checked_when_it_runs(labels, weights, named, jit):
    if BACKEND != "tensorflow":
        return  # the others know all axes
    import tensorflow as tf

    rng = np.random.default_rng(0)
    y_true, y_pred, weight = (rng.standard_normal(shape).astype(np.float32) for shape in (labels, (7, 3), weights))
    metric, loss = Metric(nan="omit"), Loss()
    unknown = [tf.TensorSpec((None,) * array.ndim, tf.float32) for array in (y_true, y_pred, weight)]

    @tf.function(input_signature=unknown, jit_compile=jit)
    def step(y_true, y_pred, weight):
        metric.update_state(y_true, y_pred, weight)

    @tf.function(input_signature=unknown[:2], jit_compile=jit)
    def value(y_true, y_pred):
        return loss(y_true, y_pred)

    if named is None:
        step(y_true, y_pred, weight)
        assert metric.accumulator == Accumulator(nan="omit").update(y_true, y_pred, weight)
        assert float(value(y_true, y_pred)) == pytest.approx(np.mean((y_true - y_pred) ** 2), rel=1e-6)
        return
    shown = named.replace(" ", "_") if jit else named  # XLA shows the name of an operation
    with pytest.raises(tf.errors.InvalidArgumentError, match=shown):
        step(y_true, y_pred, weight)
    assert metric.accumulator.count == 0
    if labels != (7, 3):
        with pytest.raises(tf.errors.InvalidArgumentError, match=shown):
            value(y_true, y_pred)


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("options", [{"loss": Loss()}, {"loss": "mse", "metrics": [Metric()]}])
def test_batches_of_unknown_axes_are_checked_in_evaluate(options, jit):
    if BACKEND != "tensorflow":
        return  # the others know all axes
    import tensorflow as tf

    def batches():
        yield np.ones((7, 3), np.float32), np.ones((7, 1), np.float32)

    signature = tuple(tf.TensorSpec(shape, tf.float32) for shape in [(None, 3), (None, None)])
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(3)])
    model.compile("sgd", jit_compile=jit, **options)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"y_true.and.y_pred.must.have.the.same.shape"):
        model.evaluate(tf.data.Dataset.from_generator(batches, output_signature=signature), verbose=0)


def test_what_a_graph_cannot_compute_is_refused():
    with pytest.raises(ValueError, match="nan='raise' would have to leave the graph"):
        Metric(nan="raise")
    if BACKEND != "torch":
        with pytest.raises(TypeError, match="log_cosh cannot be computed where these tensors are"):
            Metric("log_cosh").update_state(np.ones(3), np.zeros(3))


def test_a_saved_model_keeps_its_metric_and_its_loss(data, tmp_path):
    metric = Metric("huber(delta=10)", reduction="sum_over_batch_size", name="robust")
    model = linear(data, loss=Loss("quantile(q=0.25)"), metrics=[metric])
    model.evaluate(data.x, data.y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    result = loaded.evaluate(data.x, data.y, verbose=0, return_dict=True)
    assert result["robust"] == data.accumulator("huber(delta=10)", reduction="sum_over_batch_size").result()
    assert Metric.from_config(metric.get_config()).get_config() == metric.get_config()
    assert result["loss"] == pytest.approx(data.accumulator("quantile(q=0.25)").result(), rel=1e-6)


# ------------------------------------------------------------------------------------------- the training loss

PAIRS = [
    ("squared_error", keras.losses.MeanSquaredError),
    ("absolute_error", keras.losses.MeanAbsoluteError),
    ("huber(delta=0.7)", lambda **options: keras.losses.Huber(delta=0.7, **options)),
    ("log_cosh", keras.losses.LogCosh),
    ("binary_cross_entropy", keras.losses.BinaryCrossentropy),
]


@pytest.mark.parametrize("shape", [None, (), (6,), (6, 1)])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_values_and_gradients_are_keras_own(loss, reference, reduction, shape):
    rng = np.random.default_rng(0)
    y_true, y_pred = (rng.uniform(0.05, 0.95, (6, 4)).astype(np.float32) for _ in range(2))
    weight = None if shape is None else np.asarray(rng.integers(0, 3, shape), np.float32)
    if shape == () and reduction == "mean_with_sample_weight":
        weight = None  # Keras counts a scalar once, whatever the number of rows
    found, expected = (
        (float(cls(y_true, y_pred, weight)), gradient(lambda y, cls=cls: cls(y_true, y, weight), y_pred))
        for cls in (Loss(loss, reduction=reduction), reference(reduction=reduction))
    )
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-6)


def test_lists_and_what_is_not_finite_are_keras_own():
    assert float(Loss()([[0.0, 1.0]], [[1.0, 3.0]])) == 2.5
    assert float(Loss("absolute_error")([0.0, 1.0], [1.0, 4.0])) == 2.0
    values = np.array([[np.inf], [-np.inf], [np.nan], [3e38]], np.float32)
    for loss, reference in [("squared_error", keras.losses.MeanSquaredError), ("huber", keras.losses.Huber)]:
        found, expected = (
            cls(reduction="none")(np.ones_like(values), values) for cls in (partial(Loss, loss), reference)
        )
        np.testing.assert_array_equal(*(ops.convert_to_numpy(array) for array in (found, expected)))


@pytest.mark.parametrize(("loss", "reference"), PAIRS)
def test_second_derivatives_are_keras_own(loss, reference):
    rng = np.random.default_rng(0)
    y_true, y_pred = (rng.uniform(0.05, 0.95, (6, 4)).astype(np.float32) for _ in range(2))
    found, expected = (second(lambda y, cls=cls: cls()(y_true, y), y_pred) for cls in (partial(Loss, loss), reference))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_no_gradient_is_nan_for_the_branch_that_was_not_taken():
    y_true, y_pred = np.array([[0.0, 1.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    found = gradient(lambda y: Loss("binary_cross_entropy")(y_true, y), y_pred)
    assert np.array_equal(found, np.zeros((1, 2)))


def test_a_model_learns_the_same_with_it():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    y = (x @ [[1.0], [-2.0], [0.5]]).astype(np.float32)
    kernels = []
    for loss in (Loss("squared_error"), "mean_squared_error"):
        model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
        model.fit(x, y[:, 0], epochs=5, batch_size=8, shuffle=False, verbose=0)
        kernels.append(model.get_weights()[0])
    np.testing.assert_allclose(*kernels, rtol=1e-5)
    assert abs(kernels[0][0, 0] - 1) < 0.05
    with pytest.raises(ValueError, match="derivative_of"):
        Loss(lambda label, prediction: label)


# ------------------------------------------------------------------------------------------- the callback


def test_the_callback_puts_exact_values_into_the_logs(data, tmp_path):
    metrics = {
        "val_exact_mse": Accumulator("squared_error", reduction="mean"),
        "val_cosh": "log_cosh",
        "val_robust": Accumulator("huber(delta=10)", reduction="sum"),
    }
    expected = {name: accumulator(metric, data) for name, metric in metrics.items()}
    sources = [((data.x, data.y, data.weights), {"batch_size": size}) for size in SIZES[1:]]
    cut = [slice(start, start + 50) for start in range(0, 442, 50)]
    batches = [(data.x[part], data.y[part], data.weights[part]) for part in cut]
    sources += [(batches, {}), (lambda: iter(batches), {})]
    for source, options in sources:
        stopping = keras.callbacks.EarlyStopping(monitor="val_exact_mse", patience=1, mode="min")
        logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
        model = linear(data)
        callbacks = [Evaluation(source, metrics, **options), stopping, logger]
        history = model.fit(data.x[:64], data.y[:64], epochs=5, callbacks=callbacks, verbose=0).history
        assert {name: history[name] for name in metrics} == {name: [value] * 2 for name, value in expected.items()}
        assert stopping.stopped_epoch == 1  # the value stays the same
        with open(tmp_path / "log.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["val_exact_mse"]) for row in rows] == [expected["val_exact_mse"]] * 2


def accumulator(metric, data):
    empty = metric if isinstance(metric, Accumulator) else Accumulator(metric, reduction="mean")
    return empty.copy().update(data.y[:, None], data.predictions, data.weights).result()


def test_the_callbacks_default_name(data):
    history = linear(data).fit(data.x, data.y, callbacks=[Evaluation((data.x, data.y))], verbose=0).history
    assert history["val_exact_mse"] == [data.accumulator().result()]
