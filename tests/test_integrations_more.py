"""scikit-learn, XGBoost, LightGBM, JAX, transformers and river: each beside the framework's own numbers."""

import importlib
import math
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
sklearn = pytest.importorskip("sklearn")

from streamloss import Accumulator, compute_weighted_loss, losses  # noqa: E402
from tests.regression import SIZES, diabetes  # noqa: E402


@pytest.fixture(scope="module")
def data():
    return diabetes()


def batches(size, *columns):
    for start in range(0, len(columns[0]), size):
        yield tuple(column[start : start + size] for column in columns)


# ------------------------------------------------------------------------------------------- scikit-learn


def test_sklearn_scores_are_sklearns_with_weights_and_outputs():
    from sklearn import metrics

    from streamloss.integrations import sklearn as ours

    rng = np.random.default_rng(0)
    y_true, y_pred, weight = rng.standard_normal((50, 3)), rng.standard_normal((50, 3)), rng.random(50)
    for name in ("mean_squared_error", "mean_absolute_error", "root_mean_squared_error"):
        for multioutput in ("uniform_average", "raw_values", [0.5, 1.0, 2.0]):
            for sample_weight in (None, weight):
                options = {"multioutput": multioutput, "sample_weight": sample_weight}
                found, expected = (getattr(module, name)(y_true, y_pred, **options) for module in (ours, metrics))
                assert np.shape(found) == np.shape(expected)
                np.testing.assert_allclose(found, expected, rtol=1e-14)
        assert getattr(ours, name)([1.0, 2.0], [2.0, 4.0]) == pytest.approx(
            getattr(metrics, name)([1.0, 2.0], [2.0, 4.0])
        )
    pinball = ours.score_function("quantile(q=0.9)")
    assert pinball(y_true, y_pred) == pytest.approx(metrics.mean_pinball_loss(y_true, y_pred, alpha=0.9))


@pytest.mark.parametrize(
    ("multioutput", "error", "match"),
    [
        ([1.0], ValueError, r"multioutput must have one weight for each of 2 outputs, got shape \(1,\)"),
        ([1, 2, 3], ValueError, r"multioutput must have one weight for each of 2 outputs, got shape \(3,\)"),
        (0.5, ValueError, r"multioutput must have one weight for each of 2 outputs, got shape \(\)"),
        ([[0.5, 0.5]], ValueError, r"multioutput must have one weight for each of 2 outputs, got shape \(1, 2\)"),
        (["a", "b"], TypeError, "multioutput must be real numbers"),
        (None, TypeError, "multioutput must be real numbers"),
    ],
)
def test_sklearn_multioutput_has_a_weight_for_each_output(multioutput, error, match):
    from streamloss.integrations.sklearn import mean_squared_error

    with pytest.raises(error, match=match):
        mean_squared_error([[1.0, 2.0]], [[2.0, 4.0]], multioutput=multioutput)
    assert mean_squared_error([[1.0, 2.0]], [[2.0, 4.0]], multioutput=[3, 1]) == 1.75


def test_sklearn_scores_keep_masks_and_take_tensors():
    torch = pytest.importorskip("torch")
    from streamloss.integrations.sklearn import mean_squared_error

    masked = np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False])
    assert mean_squared_error(masked, [1.0, 7.0, 5.0]) == 2.0
    assert mean_squared_error(torch.tensor([1.0, 2.0], requires_grad=True), [1.0, 4.0]) == 2.0
    assert mean_squared_error(np.ma.array(np.zeros((2, 2)), mask=[[0, 1], [0, 0]]), np.ones((2, 2))) == 1.0


def test_sklearn_scorers_search_and_cross_validation(data):
    from sklearn.linear_model import Ridge
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GridSearchCV, cross_val_score

    from streamloss.integrations.sklearn import mean_squared_error

    scorer = make_scorer(mean_squared_error, greater_is_better=False)
    assert scorer(Ridge().fit(data.x, data.y), data.x, data.y, sample_weight=data.weights) < 0
    scores = cross_val_score(Ridge(), data.x, data.y, scoring=scorer, cv=3)
    np.testing.assert_allclose(scores, cross_val_score(Ridge(), data.x, data.y, scoring="neg_mean_squared_error", cv=3))
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1e6]}, scoring=scorer, cv=3).fit(data.x, data.y)
    assert search.best_params_ == {"alpha": 0.1}


def test_sklearn_scorers_can_be_pickled_and_cloned(data):
    from sklearn.base import clone
    from sklearn.linear_model import Ridge
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GridSearchCV

    from streamloss.integrations.sklearn import root_mean_squared_error, score_function

    for function, name in [
        (score_function("quantile(q=0.9)"), "mean_quantile"),
        (score_function(losses.huber(delta=2), name="robust"), "robust"),
        (root_mean_squared_error, "root_mean_squared_error"),
    ]:
        scorer = make_scorer(function, greater_is_better=False)
        again = pickle.loads(pickle.dumps(scorer))
        assert repr(again) == repr(scorer)
        assert name in repr(scorer)
        assert again._score_func([1.0, 2.0], [2.0, 5.0]) == function([1.0, 2.0], [2.0, 5.0])
        assert function.__doc__ == again._score_func.__doc__
        model = Ridge().fit(data.x, data.y)
        assert again(model, data.x, data.y) == scorer(model, data.x, data.y)
        search = clone(GridSearchCV(Ridge(), {"alpha": [0.1, 1e6]}, scoring=scorer, cv=3))
        assert search.fit(data.x, data.y).best_params_ == {"alpha": 0.1}
        assert pickle.loads(pickle.dumps(search)).best_score_ == search.best_score_


def test_sklearn_scorers_go_to_other_processes():
    """From a process of its own: what forks should have no threads of other frameworks."""
    script = """
import joblib, numpy as np
from sklearn.linear_model import Ridge
from sklearn.metrics import make_scorer
from sklearn.model_selection import cross_val_score
from streamloss.integrations.sklearn import score_function
x, y = np.arange(20.0)[:, None], np.arange(20.0) ** 2
scorer = make_scorer(score_function("quantile(q=0.9)"), greater_is_better=False)
alone = cross_val_score(Ridge(), x, y, scoring=scorer, cv=2)
with joblib.parallel_config(backend="multiprocessing"):
    together = cross_val_score(Ridge(), x, y, scoring=scorer, cv=2, n_jobs=2)
assert np.array_equal(alone, together)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=200)


def test_sklearn_chunked_score_has_the_same_bits_for_any_batch_size(data):
    from sklearn.metrics import mean_squared_error

    from streamloss.integrations.sklearn import ChunkedScore

    class Linear:
        def predict(self, x):
            return (x @ data.kernel + data.bias)[:, 0]

    expected, theirs = data.accumulator(weighted=True).result(), set()
    for size in SIZES:
        score, means = ChunkedScore(Linear()), []
        for x, y, weight in batches(size, data.x, data.y, data.weights):
            score.partial_fit(x, y, weight)
            means.append(mean_squared_error(y, Linear().predict(x)))
        assert score.result() == expected
        theirs.add(float(np.mean(means)))
    assert len(theirs) == len(SIZES)  # scikit-learn has no streaming metric: this is what people write
    before = score.outputs.accumulators[0].to_bytes()
    score.outputs.accumulators[0].reset()  # a copy
    for bad, match in [
        ((x, np.zeros((len(x), 2))), "must both have the shape"),
        ((x, y, weight[1:]), "sample_weight must"),
    ]:
        with pytest.raises(ValueError, match=match):
            score.partial_fit(*bad)
        assert score.outputs.accumulators[0].to_bytes() == before
    with pytest.raises(ValueError, match="multioutput must be"):
        ChunkedScore(Linear(), multioutput="average")


# ------------------------------------------------------------------------------------------- boosting


def test_xgboost_objective_grows_xgboosts_own_trees(data):
    xgboost = pytest.importorskip("xgboost")
    from streamloss.integrations import xgboost as ours

    train = xgboost.DMatrix(data.x, data.y, weight=data.weights)
    common = {"max_depth": 3, "base_score": 0.0, "nthread": 1, "eta": 0.5}
    history = {}
    own = xgboost.train(
        common | {"objective": "reg:squarederror", "reg_lambda": 1.0, "min_child_weight": 1.0}, train, 8
    )
    mine = xgboost.train(
        common | {"reg_lambda": 2.0, "min_child_weight": 2.0, "disable_default_eval_metric": 1},
        train,
        8,
        obj=ours.objective(),
        custom_metric=ours.metric(name="exact"),
        evals=[(train, "train")],
        evals_result=history,
        verbose_eval=False,
    )
    np.testing.assert_allclose(mine.predict(train), own.predict(train), rtol=1e-4)
    expected = Accumulator(reduction="mean").update(data.y, mine.predict(train), data.weights).result()
    assert ours.metric(name="exact")(mine.predict(train), train) == ("exact", expected)
    assert history["train"]["exact"][-1] == round(expected, 6)  # XGBoost passes values on as text


def test_xgboost_estimators_take_both(data):
    xgboost = pytest.importorskip("xgboost")
    from streamloss.integrations import xgboost as ours

    model = xgboost.XGBRegressor(
        n_estimators=30,
        n_jobs=1,
        objective=ours.objective("huber(delta=50)"),
        eval_metric=ours.metric("huber(delta=50)"),
    )
    model.fit(
        data.x,
        data.y,
        sample_weight=data.weights,
        eval_set=[(data.x, data.y)],
        sample_weight_eval_set=[data.weights],
        verbose=False,
    )
    expected = Accumulator("huber(delta=50)", reduction="mean").update(data.y, model.predict(data.x), data.weights)
    assert model.evals_result()["validation_0"]["huber"][-1] == round(expected.result(), 6)
    assert expected.result() < 2000
    with pytest.raises(ValueError, match="one of squared_error, huber to be an objective"):
        ours.objective("absolute_error")


@pytest.mark.parametrize(
    ("loss", "theirs", "factor"), [("squared_error", "regression", 2), ("huber(delta=50)", "huber", 1)]
)
def test_lightgbm_objective_grows_lightgbms_own_trees(data, loss, theirs, factor):
    lightgbm = pytest.importorskip("lightgbm")
    from streamloss.integrations import lightgbm as ours

    def train(**options):
        parameters = {"verbosity": -1, "num_threads": 1, "deterministic": True, "num_leaves": 7}
        dataset = lightgbm.Dataset(data.x, data.y, weight=data.weights, init_score=np.full(442, 150.0))
        found = {}
        record = lightgbm.record_evaluation(found)
        feval = ours.metric(loss, name="exact")
        parameters |= options
        model = lightgbm.train(parameters, dataset, 8, valid_sets=[dataset], feval=feval, callbacks=[record])
        return model, found["training"]["exact"]

    own, _ = train(objective=theirs, alpha=50.0, lambda_l2=1.0, min_sum_hessian_in_leaf=1.0)
    mine, values = train(objective=ours.objective(loss), lambda_l2=1.0 * factor, min_sum_hessian_in_leaf=1.0 * factor)
    np.testing.assert_allclose(mine.predict(data.x), own.predict(data.x), rtol=1e-4)
    predictions = 150.0 + mine.predict(data.x)
    expected = Accumulator(loss, reduction="mean").update(data.y, predictions, data.weights).result()
    assert values[-1] == pytest.approx(expected, rel=1e-12)  # LightGBM adds the trees of predict() in another order
    assert values == sorted(values, reverse=True)


@pytest.mark.filterwarnings("ignore")  # new names of arguments
def test_lightgbm_estimators_take_both(data):
    lightgbm = pytest.importorskip("lightgbm")
    from streamloss.integrations import lightgbm as ours

    model = lightgbm.LGBMRegressor(n_estimators=20, verbosity=-1, n_jobs=1, objective=ours.objective())
    options = {
        "eval_set": [(data.x, data.y)],
        "eval_sample_weight": [data.weights],
        "eval_metric": ours.metric(name="e"),
    }
    model.fit(data.x, data.y, sample_weight=data.weights, **options)
    assert model.evals_result_["training" if "training" in model.evals_result_ else "valid_0"]["e"][-1] < 3000


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
@pytest.mark.filterwarnings("ignore")  # LightGBM's new names of arguments
def test_boosted_estimators_can_be_cloned_and_pickled(data, library):
    module = pytest.importorskip(library)
    ours = importlib.import_module(f"streamloss.integrations.{library}")
    metric, objective = ours.metric("huber(delta=2)", name="close"), ours.objective("huber(delta=50)")
    assert (metric.__name__, objective.__name__) == ("close", "huber")
    assert (ours.metric("absolute_error").__name__, ours.objective().__name__) == ("absolute_error", "squared_error")
    made = {"xgboost": {"verbosity": 0, "eval_metric": metric}, "lightgbm": {"verbosity": -1}}[library]
    estimator = {"xgboost": "XGBRegressor", "lightgbm": "LGBMRegressor"}[library]
    model = getattr(module, estimator)(n_estimators=5, n_jobs=1, objective=objective, **made)
    expected = model.fit(data.x, data.y).predict(data.x)
    for same in (pickle.loads(pickle.dumps(model)), sklearn.base.clone(model).fit(data.x, data.y)):
        np.testing.assert_array_equal(same.predict(data.x), expected)
    for first, second in ((metric, data.y), (objective, data.y)):
        found, wanted = pickle.loads(pickle.dumps(first))(second, expected), first(second, expected)
        np.testing.assert_equal(found, wanted)


def test_boosting_gradients_are_those_of_the_weighted_loss(data):
    from streamloss.integrations._boosting import boosted, gradient_and_hessian

    for loss, curvature in (("squared_error", 2.0), ("huber(delta=1000)", 1.0)):  # both quadratic there
        shifts = [
            compute_weighted_loss(out, reduction="none")
            for shift in (1.0, 0.0, -1.0)
            for out in [np.empty(442)]
            if Accumulator(loss).update(data.y, data.predictions[:, 0].astype(float) + shift, data.weights, out=out)
        ]
        first, second = gradient_and_hessian(boosted(loss), data.y, data.predictions[:, 0], data.weights)
        np.testing.assert_allclose(first, (shifts[0] - shifts[2]) / 2, rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(second, shifts[0] - 2 * shifts[1] + shifts[2], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(second, curvature * data.weights)


# ------------------------------------------------------------------------------------------- JAX


def test_jax_state_has_the_same_bits_inside_jit_and_out(data):
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from streamloss.integrations.jax import empty, pack, unpack, update

    whole = data.accumulator(weighted=True)
    step, theirs = jax.jit(update), set()
    for size in SIZES:
        state, means = empty(), []
        for columns in batches(size, data.y[:, None], data.predictions, data.weights):
            arrays = [jnp.asarray(column) for column in columns]
            state = step(state, *arrays)
            means.append(jnp.mean((arrays[0] - arrays[1]) ** 2))
        assert unpack(state) == whole
        assert unpack(state).result() == whole.result()
        theirs.add(float(jnp.mean(jnp.stack(means))))
    assert len(theirs) > 1
    assert unpack(pack(whole)) == whole
    negative = Accumulator("absolute_error").update([3.0, 1e-300], [0.0, 0.0], [-1.0, 1.0])
    assert unpack(pack(negative), "absolute_error") == negative


def hinge(label, prediction):
    sign = 1.0 if label else -1.0
    return max(0.0, 1.0 - sign * prediction)


HALF, HALVES = np.float64(0.5), np.array([0.5])
TRUTHS = {
    "a number as a condition": hinge,
    "not": lambda label, prediction: 1.0 if not label else 2.0,
    "and": lambda label, prediction: label and prediction,
    "or": lambda label, prediction: label or prediction,
    "bool": lambda label, prediction: 1.0 if bool(prediction) else 0.0,
    "NumPy's numbers": lambda label, prediction: HALF * abs(prediction - label) + HALVES[0] / (HALF + label * label),
    "NumPy's number in a comparison": lambda label, prediction: 1.0 if prediction > HALF else HALVES[0] - label,
    "NumPy's arithmetic": lambda label, prediction: np.abs(np.subtract(label, np.square(prediction))),
}


@pytest.mark.parametrize("loss", TRUTHS.values(), ids=TRUTHS)
def test_jax_takes_the_branches_of_the_kernels(loss):
    pytest.importorskip("jax")
    from streamloss.integrations.jax import empty, unpack, update

    labels, predictions = np.array([0.0, 1.0, 0.0, -0.0, math.nan]), np.array([2.0, 0.0, -3.0, 0.5, 1.0])
    assert unpack(update(empty(), labels, predictions, loss=loss), loss) == Accumulator(loss).update(
        labels, predictions
    )


def test_jax_refuses_what_numpy_would_do_to_objects():
    pytest.importorskip("jax")
    from streamloss.integrations.jax import empty, update

    with pytest.raises(TypeError, match="cannot be computed where these tensors are"):
        update(empty(), [1.0], [math.nan], loss=lambda label, prediction: np.maximum(label - prediction, 0.0))


@pytest.mark.parametrize("loss", ["huber(delta=30)", losses.quantile(q=0.75), lambda label, prediction: abs(label)])
def test_jax_compiles_any_loss_and_policy_as_static_arguments(data, loss):
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from streamloss.integrations.jax import empty, unpack, update

    step, state, expected = jax.jit(update, static_argnames=("loss", "nan")), empty(), Accumulator(loss, nan="omit")
    for y, p, w in batches(250, data.y, data.predictions[:, 0], data.weights):
        arrays = [jnp.asarray(y).at[3].set(jnp.nan), *map(jnp.asarray, (p, w))]
        state = step(state, *arrays, loss=loss, nan="omit")
        expected.update(*arrays)
    assert expected.skipped_count == 2
    assert unpack(state, loss, nan="omit") == expected


def test_jax_says_what_must_be_static():
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from streamloss.integrations.jax import empty, update

    zeros = jnp.zeros(2)
    for options in ({"loss": 1}, {"nan": True}):
        with pytest.raises(TypeError, match="loss and nan must be static"):
            jax.jit(update)(empty(), zeros, zeros, **options)
    for nan in ("raise", True):
        with pytest.raises(ValueError, match="nan must be 'propagate' or 'omit' here"):
            update(empty(), zeros, zeros, nan=nan)


def test_jax_states_add_up_over_devices(data):
    """psum over a mapped axis: the same collective on one device that several run."""
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from streamloss.integrations.jax import empty, unpack, update

    def of_one(y, p, w):
        return jax.lax.psum(update(empty(), y, p, w, nan="omit"), "ranks")

    y, p, w = (jnp.asarray(column[:440]).reshape(4, 110) for column in (data.y, data.predictions[:, 0], data.weights))
    y = y.at[2].set(jnp.nan)  # a rank without data
    total = jax.vmap(of_one, axis_name="ranks")(y, p, w)
    expected = Accumulator(nan="omit").update(y, p, w)
    for rank in range(4):
        assert unpack(jax.tree.map(lambda limbs, rank=rank: limbs[rank], total), nan="omit") == expected


def test_jax_arrays_are_read_where_they_lie():
    pytest.importorskip("jax")
    import jax.numpy as jnp

    from streamloss.arrays import as_array
    from streamloss.integrations.jax import empty, update

    labels = jnp.arange(1000.0)
    assert as_array("labels", labels, []).__array_interface__["data"][0] == labels.unsafe_buffer_pointer()
    assert Accumulator().update(labels, labels + 1).result() == 1
    halves = jnp.arange(8, dtype=jnp.bfloat16)
    assert Accumulator().update(halves, halves * 0).result("sum") == 140
    with pytest.raises(ValueError, match="same shape"):
        update(empty(), labels, labels[:, None])
    with pytest.raises(TypeError, match="cannot be computed where"):
        update(empty(), labels, labels, loss="log_cosh")
    with pytest.raises(TypeError, match="mask must be bool"):
        update(empty(), labels, labels, mask=labels)


# ------------------------------------------------------------------------------------------- transformers


@pytest.mark.filterwarnings("ignore")
def test_transformers_trainer_has_the_same_bits_for_any_batch_size(data, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from streamloss.integrations.transformers import ComputeMetrics

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(10, 1)
            self.linear.weight.data, self.linear.bias.data = torch.tensor(data.kernel.T), torch.tensor(data.bias)

        def forward(self, x, labels):
            logits = self.linear(x)
            return {"loss": torch.nn.functional.mse_loss(logits[:, 0], labels), "logits": logits}

    rows = [{"x": x, "labels": y} for x, y in zip(torch.tensor(data.x), torch.tensor(data.y), strict=True)]
    expected, theirs = data.accumulator().result(), set()
    for size in SIZES:
        for batchwise in (True, False):
            arguments = transformers.TrainingArguments(
                output_dir=str(tmp_path),
                per_device_eval_batch_size=size,
                per_device_train_batch_size=64,
                batch_eval_metrics=batchwise,
                learning_rate=0.0,
                max_steps=1,
                eval_strategy="steps" if size == 32 else "no",
                eval_steps=1,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                save_strategy="no",
            )
            metrics = ComputeMetrics({"mse": "squared_error", "cosh": "log_cosh"})
            trainer = transformers.Trainer(
                Head(), arguments, train_dataset=rows, eval_dataset=rows, compute_metrics=metrics
            )
            if size == 32:
                trainer.train()  # evaluates after its step
                assert trainer.state.log_history[0]["eval_mse"] == expected
            found = trainer.evaluate()
            assert found["eval_mse"] == expected
            assert found["eval_cosh"] == data.accumulator("log_cosh").result()
            theirs.add(found["eval_loss"])
    assert len(theirs) > 1  # the trainer's own loss, a float32 mean of batch means


def test_transformers_padding_masks_and_weights():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from streamloss.integrations.transformers import ComputeMetrics

    labels = torch.tensor([[1.0, 2.0, -100.0], [3.0, -100.0, -100.0]])
    logits = torch.zeros(2, 3, 1, dtype=torch.bfloat16)
    inputs = {"attention_mask": torch.tensor([[1, 0, 0], [1, 1, 1]])}
    batch = transformers.EvalPrediction((logits, None), labels, inputs)
    assert ComputeMetrics()(batch) == {"mse": (1 + 4 + 9) / 3}
    assert ComputeMetrics(mask=lambda batch: batch.inputs["attention_mask"] == 1)(batch) == {"mse": 5.0}
    assert ComputeMetrics(weights=lambda batch: torch.tensor([1.0, 3.0]))(batch) == {"mse": (1 + 4 + 27) / 5}
    assert ComputeMetrics(mask=lambda batch: torch.tensor([True, False]))(batch) == {"mse": 2.5}
    plain = transformers.EvalPrediction(logits.float().numpy(), labels.numpy())
    for mask in ([True, False], np.array([True, False]), torch.tensor([True, False])):
        for given in (batch, plain):
            assert ComputeMetrics(mask=lambda _, mask=mask: mask)(given) == {"mse": 2.5}
    with pytest.raises(TypeError, match=r"mask must be bool .* got dtype int64"):
        ComputeMetrics(mask=lambda batch: batch.inputs["attention_mask"])(batch)
    streamed = ComputeMetrics(reduction="sum")
    assert streamed(batch, compute_result=False) == {}
    assert streamed(batch, compute_result=True) == {"mse": 28.0}
    assert streamed(batch, compute_result=False) == {}
    streamed.reset()  # an evaluation that was aborted
    assert streamed(batch, compute_result=True) == {"mse": 14.0}
    assert np.isnan(ComputeMetrics(padding=None)(transformers.EvalPrediction(logits[:0], labels[:0]))["mse"])


# ------------------------------------------------------------------------------------------- river


def test_river_windows_do_not_drift(data):
    metrics = pytest.importorskip("river.metrics")
    from streamloss.integrations.river import Metric

    mine, theirs, window = Metric(), metrics.MSE(), []
    pairs = list(zip(data.y.tolist(), (data.predictions[:, 0] / 3).tolist(), data.weights.tolist(), strict=True))
    for pair in [(1e9, 0.0, 1.0), *pairs]:
        window.append(pair)
        for metric in (mine, theirs):
            metric.update(*pair)
        if len(window) > 50:
            gone = window.pop(0)
            for metric in (mine, theirs):
                metric.revert(*gone)
    labels, predictions, weights = map(np.array, zip(*window, strict=True))
    expected = Accumulator(reduction="mean").update(labels, predictions, weights)
    mine.accumulator.reset()  # a copy
    assert mine.accumulator == expected
    assert mine.get() == expected.result()
    assert abs(theirs.get() / expected.result() - 1) > 1e-6  # what 1e18 left behind
    assert not mine.bigger_is_better
    assert mine.clone().get() == 0.0
    with pytest.raises(ValueError, match="never in"):
        Metric().revert(1.0, 2.0)


def test_river_evaluates_progressively():
    pytest.importorskip("river")
    from river import datasets, evaluate, linear_model, metrics, preprocessing

    from streamloss.integrations.river import Metric

    model = preprocessing.StandardScaler() | linear_model.LinearRegression()
    found = evaluate.progressive_val_score(datasets.TrumpApproval(), model, Metric("absolute_error"))
    model = preprocessing.StandardScaler() | linear_model.LinearRegression()
    theirs = evaluate.progressive_val_score(datasets.TrumpApproval(), model, metrics.MAE())
    assert found.get() == pytest.approx(theirs.get(), rel=1e-12)
