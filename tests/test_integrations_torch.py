"""PyTorch: the training losses against torch's own, the metric against the accumulator, ranks that are real."""

import copy
import os
import pickle
import subprocess
import sys
from functools import partial

import numba
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streamloss import Accumulator, GroupedAccumulator, losses  # noqa: E402
from streamloss.integrations._tensors import approximate, evaluate, exact_sum, joined  # noqa: E402
from streamloss.integrations._torch import OPERATIONS, device_state  # noqa: E402
from streamloss.integrations.torch import (  # noqa: E402
    HuberLoss,
    L1Loss,
    Metric,
    MSELoss,
    SmoothL1Loss,
    all_reduce,
)
from streamloss.losses import as_loss  # noqa: E402

REDUCTIONS = ["none", "sum", "mean"]
F = torch.nn.functional
SIBLINGS = [
    (MSELoss, F.mse_loss, {}),
    (L1Loss, F.l1_loss, {}),
    (HuberLoss, F.huber_loss, {"delta": 0.7}),
    (SmoothL1Loss, F.smooth_l1_loss, {"beta": 0.6}),
    (SmoothL1Loss, F.smooth_l1_loss, {"beta": 0.0}),
]
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
CPU = torch.device("cpu")
DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]  # meta tensors have no data to wait for


def drawn(seed, shape=(4, 5), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


# ------------------------------------------------------------------------------------------- training losses


def test_the_example_of_torchs_own_page():
    loss = MSELoss()
    input = torch.randn(3, 5, requires_grad=True)
    target = torch.randn(3, 5)
    output = loss(input, target)
    output.backward()
    assert output.item() == pytest.approx(torch.nn.MSELoss()(input, target).item(), rel=1e-6)
    assert torch.allclose(input.grad, 2 * (input - target).detach() / 15)
    assert isinstance(loss, torch.nn.MSELoss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("cls", "function", "parameters", "weighted"),
    [(*sibling, False) for sibling in SIBLINGS] + [(*sibling, True) for sibling in SIBLINGS[:3]],
)  # torch has no smooth_l1_loss with weights
def test_values_and_gradients_are_torchs(cls, function, parameters, reduction, weighted, dtype):
    results = []
    for ours in (True, False):
        tensors = [drawn(seed, dtype=dtype) for seed in (1, 2)]
        weight = drawn(3, dtype=dtype).detach().abs().add(0.5).requires_grad_() if weighted else None
        if ours:
            value = cls(reduction=reduction, **parameters)(*tensors, weight)
        else:
            extra = {"weight": weight} if weighted else {}
            value = function(*tensors, reduction=reduction, **parameters, **extra)
        (value.to(torch.float64) * torch.arange(1, 1 + value.numel()).reshape(value.shape)).sum().backward()
        results.append((value, *(tensor.grad for tensor in (*tensors, weight) if tensor is not None)))
    rtol = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    for mine, reference in zip(*results, strict=True):
        assert mine.dtype == reference.dtype
        assert mine.shape == reference.shape
        torch.testing.assert_close(mine, reference, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("other", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("cls", "function", "parameters"), SIBLINGS)
def test_autocast_widens_halves_as_for_torchs_own(cls, function, parameters, reduction, other, dtype):
    results = []
    for loss in (cls(reduction=reduction, **parameters), partial(function, reduction=reduction, **parameters)):
        input, target = (300 * drawn(1)).to(dtype), drawn(2, dtype=other)
        input = input.detach().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(input, target)
        (value * torch.arange(1, 1 + value.numel()).reshape(value.shape)).sum().backward()
        results.append((value, input.grad, target.grad))
    for mine, reference in zip(*results, strict=True):
        assert mine.dtype == reference.dtype
        torch.testing.assert_close(mine, reference, rtol=1e-6 if mine is results[0][0] else 8e-3, atol=1e-6)
    assert torch.isfinite(results[0][0]).all()
    with torch.autocast("cpu", dtype=dtype):
        weighted = cls(**parameters)(*(torch.ones(2, dtype=dtype),) * 3)
    assert weighted.dtype == torch.float32


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("cls", "function", "parameters"), SIBLINGS)
def test_gradients_are_derivatives(cls, function, parameters, reduction, weighted):
    loss = cls(reduction=reduction, **parameters)
    tensors = [drawn(seed, (3, 2)) for seed in (1, 2, 3)][: 3 if weighted else 2]
    assert torch.autograd.gradcheck(loss, tensors)
    assert torch.autograd.gradgradcheck(loss, tensors)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("cls", "function", "parameters"), SIBLINGS)
def test_gradients_at_what_is_not_finite_are_torchs(cls, function, parameters, reduction, weighted):
    if weighted and cls is SmoothL1Loss:
        return  # torch has none
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, 1.0], dtype=torch.float64)
    found = []
    for loss in (cls(reduction=reduction, **parameters), partial(function, reduction=reduction, **parameters)):
        input, target = values.repeat(5).requires_grad_(), values.repeat_interleave(5).requires_grad_()
        extra = {"weight": torch.full((25,), 2.0, dtype=torch.float64)} if weighted else {}
        loss(input, target, **extra).sum().backward()
        found.append((input.grad, target.grad))
    for mine, reference in zip(*found, strict=True):
        torch.testing.assert_close(mine, reference, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("other", FLOATS)
def test_a_weight_widens_as_in_torch(dtype, other):
    input, weight = torch.zeros(2, dtype=dtype), torch.ones(2, dtype=other)
    for cls, function, _ in SIBLINGS[:3]:
        assert cls()(input, input + 1, weight).dtype == function(input, input + 1, weight=weight).dtype
    assert HuberLoss()(input, weight).dtype == F.huber_loss(input, weight).dtype


def test_a_model_learns_with_it():
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 1
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    criterion = MSELoss()
    for _ in range(200):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    assert criterion(model(x), y).item() < 1e-6
    assert copy.deepcopy(criterion)(y, y).item() == 0.0
    assert pickle.loads(pickle.dumps(HuberLoss(delta=2.0)))(y, y + 1).item() == 0.5


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.parametrize("cls", [MSELoss, HuberLoss])
def test_a_compiled_step_breaks_its_graph_there_and_goes_on(cls):
    input, target = drawn(1), drawn(2).detach()
    step = torch.compile(lambda input, target: cls()(2 * input, target) + 1, backend="eager")
    value = step(input, target)
    value.backward()
    (expected,) = torch.autograd.grad(cls()(2 * input, target) + 1, input)
    assert value.item() == (cls()(2 * input, target) + 1).item()
    assert torch.equal(input.grad, expected)


def test_what_the_losses_refuse():
    with pytest.raises(ValueError, match="input and target must have the same size"):
        MSELoss()(torch.zeros(3), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="Weights and input must have the same size"):
        MSELoss()(torch.zeros(3), torch.zeros(3), torch.ones(1))
    with pytest.raises(ValueError, match="avg is not a valid value for reduction"):
        MSELoss(reduction="avg")(torch.zeros(3), torch.zeros(3))
    x, z = torch.zeros(3), torch.zeros(3, dtype=torch.complex64)
    for reduction in REDUCTIONS:
        for position, name in enumerate(("input", "target", "weight")):
            for bad, message in [
                (z, "real numbers, got dtype torch.complex64"),
                (2.0, "a Tensor, got float"),
                ([1.0] * 3, "a Tensor, got list"),
                (np.zeros(3), "a Tensor, got ndarray"),
            ]:
                with pytest.raises(TypeError, match=f"^{name} must be {message}$"):
                    MSELoss(reduction=reduction)(*([x] * position), bad, *([x] * (2 - position)))
    assert torch.isnan(MSELoss()(torch.zeros(0), torch.zeros(0)))
    assert MSELoss(reduction="sum")(torch.zeros(0), torch.zeros(0)).item() == 0.0


# ------------------------------------------------------------------------------------------- the metric


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_metric_has_the_same_bits_for_any_batch_size(flights, dtype):
    target, input, weight = (torch.from_numpy(column[:20_000]).to(dtype) for column in flights)
    whole = Accumulator(reduction="mean", nan="omit").update(target, input, weight)
    framework = set()
    for size in (1, 7, 32, 20_000):
        metric = Metric("squared_error", nan="omit")
        batches = list(zip(input.split(size), target.split(size), weight.split(size), strict=True))
        for batch in batches[: 2000 if size == 1 else None]:
            metric.update(*batch)
        if size == 1:  # the rest at once: rows alone and together
            metric.update(input[2000:], target[2000:], weight[2000:])
        assert metric.accumulator == whole
        assert metric.compute() == whole.result()
        means = [F.mse_loss(i, t) for i, t, _ in batches]
        framework.add(torch.stack(means).nanmean().item())
    assert len(framework) > 1  # torch's mean of batch means is another number for every batch size


def test_a_float32_total_drifts():
    tenths = torch.full((2_000_000,), 0.1)
    metric, total = Metric("absolute_error"), torch.zeros(())
    for batch in tenths.split(100):
        metric.update(batch, torch.zeros(100))
    for tenth in tenths[:1].expand(2_000_000):
        total += tenth
    assert metric.compute() == tenth.item()
    assert abs(total.item() / 2_000_000 / tenth.item() - 1) > 1e-3


ALIKE = [("squared_error", "omit", dtype, (6, 1)) for dtype in [*FLOATS, torch.int32]]
ALIKE += [("squared_error", "propagate", torch.float64, shape) for shape in [(), (6,), (1, 5), (6, 5)]]
ALIKE += [(loss, "propagate", torch.float64, (6, 1)) for loss in ("absolute_error", "huber(delta=0.5)", "quantile")]


@pytest.mark.parametrize(("loss", "nan", "dtype", "shape"), ALIKE)
def test_digits_cut_by_tensor_operations_are_those_of_the_kernels(loss, nan, dtype, shape):
    rng = np.random.default_rng(0)
    input, target = (
        torch.from_numpy(rng.standard_normal((6, 5)) * 10.0 ** rng.integers(-200, 150, (6, 5))).to(dtype)
        for _ in range(2)
    )
    weight = torch.from_numpy(np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(-20, 20, shape)))
    mask = torch.from_numpy(np.asarray(rng.random(shape) < 0.7))
    for hard in (False, True) if dtype.is_floating_point else (False,):
        if hard:
            values = [torch.nan, torch.inf, -torch.inf, -0.0, 1e300, 5e-324]
            input[:, 0] = target[:, 1] = torch.tensor(values, dtype=torch.float64).to(dtype)
        accumulator = Accumulator(loss, nan=nan).update(target, input, weight, mask=mask)
        added = device_state(accumulator.loss, input, target, weight, mask, nan == "omit", CPU)
        state = joined(OPERATIONS, added, torch.zeros_like(added))
        assert Accumulator.from_state(state.numpy(), loss) == accumulator


def a_users_loss(label, prediction):
    if prediction < 0.0:
        return 2.0
    return min(abs(label - prediction), 1.0) / (1.0 + label * label) if label != 0 else -prediction


def test_a_users_function_follows_tensors_both_ways():
    input, target = drawn(1).detach(), drawn(2).detach()
    target[0] = 0.0
    accumulator = Accumulator(a_users_loss).update(target, input)
    added = device_state(accumulator.loss, input, target, None, None, False, CPU)
    assert Accumulator.from_state(added.numpy(), a_users_loss) == accumulator


@pytest.mark.parametrize("device", DEVICES)
def test_on_a_device_nothing_waits_for_it(device):
    """An operation that asks for a number raises on meta tensors, and under the debug mode on CUDA."""
    input, target, weight = (drawn(seed).detach().float() for seed in (1, 2, 3))
    moved = [tensor.to(device) for tensor in (input, target, weight)]
    metric = Metric("huber", nan="omit").update(*moved)  # the first update copies constants
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(*moved, mask=torch.ones(4, dtype=torch.bool).to(device)).update(*moved[:2], 0.5)
        value = MSELoss()(moved[0].requires_grad_(), moved[1])
        value.backward()
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert value.dtype == torch.float32
    assert moved[0].grad.shape == (4, 5)
    if device == "cuda":
        expected = Metric("huber").update(input, target, weight).update(input, target, weight)
        assert metric.accumulator == expected.update(input, target, 0.5).accumulator
        assert value.item() == pytest.approx(MSELoss()(input, target).item(), rel=1e-6)


def test_the_value_that_is_read_on_a_device():
    for seed in range(20):
        values = drawn(seed, (50,)).detach() ** 2 * 10.0 ** (seed - 10)
        digits = exact_sum(OPERATIONS, values)
        exact = Accumulator().update_losses(values).result("sum")
        assert approximate(OPERATIONS, digits).item() == pytest.approx(exact, rel=4e-16)
    for special in ([torch.inf], [-torch.inf, 1.0], [torch.nan, torch.inf], [torch.inf, -torch.inf]):
        values = torch.tensor(special, dtype=torch.float64)
        value = approximate(OPERATIONS, exact_sum(OPERATIONS, values)).item()
        assert np.array_equal(value, values.sum().item(), equal_nan=True)


def test_merge_reset_and_checkpoint(tmp_path):
    a = Metric("huber(delta=2)").update(torch.ones(3), torch.zeros(3))
    b = Metric("huber(delta=2)").update(torch.full((2,), 3.0), torch.zeros(2), torch.tensor([1.0, 0.5]))
    before = b.accumulator.to_bytes()
    merged = Metric("huber(delta=2)").merge_state([a, b, Metric("huber(delta=2)")])
    assert merged.accumulator == a.accumulator + b.accumulator
    assert b.accumulator.to_bytes() == before
    torch.save(merged.state_dict(), tmp_path / "metric.pt")
    other = Metric("huber(delta=2)").update(torch.ones(1), torch.zeros(1))
    other.load_state_dict(torch.load(tmp_path / "metric.pt"))
    assert other.accumulator == merged.accumulator
    assert pickle.loads(pickle.dumps(merged)).compute() == merged.compute()
    merged.accumulator.reset()  # a copy
    assert merged.accumulator == a.accumulator + b.accumulator
    assert np.isnan(merged.reset().compute())
    with pytest.raises(ValueError, match="losses differ"):
        Metric().merge_state(a)
    with pytest.raises(ValueError, match="expected squared_error"):
        Metric().load_state_dict(a.state_dict())
    with pytest.raises(ValueError, match=r"must have the key 'accumulator', as from state_dict\(\), got \[\]"):
        merged.load_state_dict({})


def test_what_cannot_be_fetched_from_a_device_is_not_lost(monkeypatch):
    metric = Metric().update(*(torch.ones(3, device="meta"),) * 2)  # whose data nothing can copy
    for _ in range(2):
        with pytest.raises(NotImplementedError, match="meta"):
            metric.compute()

    def fail(*_):
        raise MemoryError

    metric = Metric()
    metric._on_devices[CPU] = device_state(losses.squared_error, torch.ones(3), torch.zeros(3), None, None, False, CPU)
    with monkeypatch.context() as patch:
        patch.setattr(Accumulator, "merge", fail)
        with pytest.raises(MemoryError):
            metric.compute()
    assert metric.compute("sum") == metric.compute("sum") == 3.0


def test_what_the_metric_refuses_leaves_it_as_it_was():
    metric = Metric("log_cosh").update(torch.ones(3), torch.zeros(3))
    before = metric.accumulator.to_bytes()
    cases = [
        (ValueError, "target and input must have the same shape", (torch.ones(3), torch.ones(3, 1)), {}),
        (ValueError, "weight must be a scalar", (torch.ones(3), torch.ones(3), torch.ones(2)), {}),
        (TypeError, "target must be real numbers", (torch.ones(3), torch.ones(3, dtype=torch.complex64)), {}),
        (TypeError, "mask must be bool", (torch.ones(3), torch.ones(3)), {"mask": torch.ones(3)}),
        (TypeError, "one device, got cpu, meta", (torch.ones(3), torch.ones(3, device="meta")), {}),
        (TypeError, "log_cosh cannot be computed where", (torch.ones(3, device="meta"),) * 2, {}),
        (ValueError, "same shape", (torch.ones(3, device="meta"), torch.ones(2, device="meta")), {}),
        (
            ValueError,
            "weight must be a scalar",
            (torch.ones(3, device="meta"),) * 2 + (torch.ones(2, device="meta"),),
            {},
        ),
        (
            ValueError,
            r"got shape \(2,\) for elements of shape \(3, 2\); .* write weight.reshape\(\(1, 2\)\)",
            (torch.ones(3, 2, device="meta"),) * 2 + (torch.ones(2, device="meta"),),
            {},
        ),
        (
            TypeError,
            "mask must be bool .* got dtype torch.float32; write mask != 0",
            (torch.ones(3, device="meta"),) * 2,
            {"mask": torch.ones(3, device="meta")},
        ),
    ]
    for error, match, arguments, options in cases:
        with pytest.raises(error, match=match):
            metric.update(*arguments, **options)
        assert metric.accumulator.to_bytes() == before
    with pytest.raises(ValueError, match="nan='raise' would have to wait"):
        Metric(nan="raise").update(*(torch.ones(3, device="meta"),) * 2)


# ------------------------------------------------------------------------------------------- ranks


def test_without_a_process_group_there_is_one_rank():
    accumulator = Accumulator().update([1.0], [3.0])
    assert all_reduce(accumulator) is accumulator
    assert accumulator == Accumulator().update([1.0], [3.0])
    metric = Metric().update(torch.ones(3), torch.zeros(3))
    assert all_reduce(metric) is metric
    assert metric.compute() == 1.0
    with pytest.raises(TypeError, match="seen must be a Metric or an Accumulator, got GroupedAccumulator"):
        all_reduce(GroupedAccumulator())


WORKER = """
import sys
from datetime import timedelta
import numpy as np, torch
import torch.distributed as dist
from streamloss import Accumulator
from streamloss.integrations.torch import Metric, all_reduce

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=3, timeout=timedelta(seconds=60))
groups = [dist.new_group(list(range(size))) for size in (1, 2, 3)]
labels, predictions, weights = np.load(f"{folder}/flights.npy")
for group, bounds in zip(groups, ([(0, 5000)], [(0, 4001), (4001, 5000)], [(0, 17), (17, 17), (17, 5000)])):
    if rank >= len(bounds):
        continue
    metric = Metric("squared_error", nan="omit")
    for start in range(*bounds[rank], 7 + rank):  # another number of batches on every rank, and none on one
        part = slice(start, min(start + 7 + rank, bounds[rank][1]))
        metric.update(*(torch.from_numpy(column[part]) for column in (predictions, labels, weights)))
    seen = metric.accumulator
    total = all_reduce(metric.accumulator, group)
    assert metric.accumulator == seen  # it was a copy that was reduced
    assert all_reduce(metric, group) is metric
    assert metric.accumulator == total  # again, with the same bits
    np.save(f"{folder}/{len(bounds)}-{rank}.npy", metric.accumulator.state)
everywhere = all_reduce(Accumulator(nan="omit").update(*np.array_split(np.stack([labels, predictions]), 3, 1)[rank]))
np.save(f"{folder}/all-{rank}.npy", everywhere.state)
differing = (lambda y, p: y - p), (lambda y, p: y + p)
for one, other in ("huber", "squared_error"), differing:
    try:
        all_reduce(Accumulator(one if rank == 1 else other))
    except ValueError as error:
        assert "different losses" in str(error)
    else:
        raise AssertionError
try:
    all_reduce(Accumulator(stderr=rank == 1))
except ValueError as error:
    assert f"differ in stderr; here it is squared_error, stderr={rank == 1}" in str(error)
else:
    raise AssertionError
errors = all_reduce(Accumulator(stderr=True).update([1.0 + rank], [0.0]))
assert errors == Accumulator(stderr=True).update([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
assert all_reduce(Accumulator(differing[0]).update([3.0], [1.0])).loss_sum == 6.0
dist.destroy_process_group()
"""


def test_ranks_hold_the_same_bits_whatever_they_have_seen(flights, tmp_path):
    columns = np.stack([column[:5000] for column in flights])
    np.save(tmp_path / "flights.npy", columns)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(tmp_path)], env=environment) for rank in range(3)
    ]
    try:
        assert [rank.wait(timeout=120) for rank in ranks] == [0, 0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    whole = Accumulator(nan="omit").update(*columns)
    for world in (1, 2, 3):
        for rank in range(world):
            assert np.array_equal(np.load(tmp_path / f"{world}-{rank}.npy"), whole.state)
    unweighted = Accumulator(nan="omit").update(*columns[:2])
    for rank in range(3):
        assert np.array_equal(np.load(tmp_path / f"all-{rank}.npy"), unweighted.state)


def test_a_loss_without_a_derivative_says_what_to_do():
    with pytest.raises(ValueError, match="derivative_of"):
        losses.derivative(losses.as_loss(a_users_loss))


def test_tensors_and_kernels_take_a_formula_as_it_was():
    factor = 2.5
    metric = Metric(lambda label, prediction: factor * (label - prediction))
    factor = 3.0
    assert metric.update(torch.zeros(1), torch.ones(1)).compute() == 2.5
    assert evaluate(metric.accumulator.loss, torch, torch.ones(1), torch.zeros(1), exact=True).item() == 2.5


@pytest.mark.parametrize("broken", ["compiled helper", "division by zero"])
def test_a_formula_that_tensors_cannot_follow_is_refused_in_one_line(broken):
    helper = numba.njit(lambda x: x * x)
    formula = {
        "compiled helper": lambda label, prediction: helper(prediction - label),
        "division by zero": lambda label, prediction: prediction - label + 1.0 / (2.0 * 0.0),
    }[broken]
    with pytest.raises(TypeError, match=r"^loss .* cannot be computed where these tensors are: [^\n]*$"):
        evaluate(as_loss(formula), torch, torch.ones(1), torch.zeros(1), exact=True)
