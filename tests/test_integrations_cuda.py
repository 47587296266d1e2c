"""Tensors on a CUDA device go to the kernels: the bits of the CPU, nothing copied to the host, nothing waited for.

On the simulator tensors in host memory pretend to lie on a device, and refuse to be read by the host.
"""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from streamloss import Accumulator, mean_squared_error  # noqa: E402
from streamloss.integrations import _torch  # noqa: E402
from streamloss.integrations import torch as integration  # noqa: E402
from tests.backend import SIMULATED, adding_on, torch_may_not_wait  # noqa: E402

pytestmark = pytest.mark.cuda


class Pretended(torch.Tensor):
    """A tensor that says of itself that it lies on a device."""

    is_cpu, is_cuda, device = False, True, torch.device("cuda", 0)

    def refuse(self, *_, **__):
        raise AssertionError("the host reads a tensor on a device")

    cpu = numpy = item = tolist = __array__ = __bool__ = __float__ = __int__ = refuse


def moved(tensor):
    if not SIMULATED:
        return tensor.cuda()
    return tensor.clone().as_subclass(Pretended)


def host(tensor):
    tensor = tensor.detach()
    return tensor.as_subclass(torch.Tensor) if SIMULATED else tensor.cpu()


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """Kernels for tensors; in the simulator torch has no CUDA to ask for a stream, or to copy constants to."""
    if SIMULATED:
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=0))
        monkeypatch.setattr(_torch, "_constant", lambda values, _: torch.tensor(values, dtype=torch.float64))
    with adding_on("auto"):
        yield


@contextmanager
def nothing_waits():
    """What waits for a device, or copies from it, fails."""
    from streamloss.cuda import devices

    def fail(*_):
        raise AssertionError("an update waits for the device")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("fetch", "wait"):
            patch.setattr(devices.driver, name, fail)
        patch.setattr(devices.driver.Event, "wait", fail)
        with nullcontext() if SIMULATED else torch_may_not_wait():
            yield


def batches(dtype=torch.float32):
    """Predictions, target and weight: for the host and for the device."""
    generator = torch.Generator().manual_seed(0)
    for rows in (4, 1, 33):
        batch = [(torch.rand((rows, 3), generator=generator, dtype=torch.float64) * 0.9).to(dtype) for _ in range(3)]
        yield batch, [moved(tensor) for tensor in batch]


def test_the_metric_takes_every_loss_and_waits_for_nothing(loss):
    metric, expected = integration.Metric(loss), Accumulator(loss)
    for number, ((preds, target, weight), there) in enumerate(batches()):
        mask = moved(preds > 0.2)
        with nothing_waits() if number else nullcontext():  # the first takes memory
            metric.update(there[0].requires_grad_(), there[1], there[2][:, 0], mask=mask)
            metric.update(*there[:2], 0.5)
        expected.update(target, preds, weight[:, 0], mask=preds > 0.2)
        expected.update(target, preds, 0.5)
    assert metric.accumulator == expected
    assert metric.compute("mean") == expected.result("mean")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool], ids=str)
def test_the_metric_takes_every_dtype(dtype):
    metric, expected = integration.Metric(), Accumulator()
    for (preds, target, _), there in batches(dtype):
        metric.update(*there[:2])
        expected.update(target, preds)
    assert metric.accumulator == expected


def test_the_metric_waits_where_nan_must_be_found():
    metric = integration.Metric(nan="raise").update(*(moved(torch.ones(3)),) * 2)
    before = metric.accumulator.to_bytes()
    with pytest.raises(ValueError, match=r"input has NaN at index \[1\]"):
        metric.update(moved(torch.tensor([1.0, torch.nan])), moved(torch.ones(2)))
    with pytest.raises(ValueError, match="target and input must have the same shape"):
        metric.update(moved(torch.ones(2)), moved(torch.ones(3)))
    with pytest.raises(TypeError, match="all tensors must lie on one device, got cpu, cuda:0"):
        metric.update(moved(torch.ones(2)), torch.ones(2))
    assert metric.accumulator.to_bytes() == before


@pytest.mark.parametrize("loss", ["squared_error", "log_cosh"])
def test_torchmetrics_waits_for_nothing(loss):
    torchmetrics = pytest.importorskip("streamloss.integrations.torchmetrics", exc_type=ImportError)
    metric, expected = torchmetrics.Metric(loss, nan="omit"), Accumulator(loss, nan="omit")
    metric = metric if SIMULATED else metric.cuda()
    for (preds, target, weight), there in batches():
        preds[0, 0] = torch.nan
        there[0][0, 0] = torch.nan
        with nothing_waits():
            metric.update(*there)
            metric.update(*there[:2])
        expected.update(target, preds, weight).update(target, preds)
    (state,) = metric.metric_state.values()
    assert Accumulator.from_state(host(state).numpy(), loss, nan="omit") == expected


def test_the_training_loss_waits_for_nothing():
    for warm in (False, True):  # the first copies constants
        for (preds, target, weight), there in batches(torch.float64):
            with nothing_waits() if warm else nullcontext():
                value = integration.MSELoss()(there[0].requires_grad_(), *there[1:])
                value.backward()
            expected = Accumulator(reduction="mean").update(target, preds, weight).result()
            assert abs(float(host(value)) - expected) <= 4e-16 * expected


def test_transformers_leaves_padding_out():
    transformers = pytest.importorskip("transformers")
    from streamloss.integrations.transformers import ComputeMetrics

    metrics, expected = ComputeMetrics({"cosh": "log_cosh"}), Accumulator("log_cosh", reduction="mean")
    for number, ((preds, target, _), there) in enumerate(batches()):
        target[0, 1:] = -100.0
        there[1][0, 1:] = -100.0
        with nothing_waits() if number else nullcontext():  # the first takes memory
            metrics(transformers.EvalPrediction(*there[:2]), compute_result=False)
        expected.update(target, preds, mask=target != -100.0)
    assert metrics.metrics["cosh"].compute() == expected.result()


def test_the_losses_of_elements_are_tensors_there():
    for (preds, target, weight), there in batches():
        found = mean_squared_error(there[1], there[0], there[2], reduction="none")
        assert isinstance(found, torch.Tensor)
        expected = mean_squared_error(target, preds, weight, reduction="none")
        assert host(found).numpy().tobytes() == expected.tobytes()
