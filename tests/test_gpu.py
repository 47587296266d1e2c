"""On a real device: the bits of the CPU, whatever the arrays, the streams, and how often it is tried."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamloss import Accumulator, GroupedAccumulator
from streamloss.losses import LOSSES
from tests.backend import torch_may_not_wait
from tests.strategies import KINDS

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch") if importlib.util.find_spec("torch") else None

FLOATS = ["float16", "bfloat16", "float32", "float64"]
INTEGERS = ["int8", "uint8", "int16", "int32", "int64", "bool"]
# Around a warp, a block's tile for each element size, a wave of blocks on 132 processors, and nothing in particular.
SIZES = [0, 1, 2, 31, 32, 33, 255, 256, 257, 1023, 1024, 1025, 2047, 2048, 2049, 4097, 65_537]
SIZES += [132 * 2 * 2048 + d for d in (-1, 0, 1)] + [132 * 3 * 2048 + 7, 1_000_003]
# Few losses, since each takes seconds to compile for each form.
ARITHMETIC = ["squared_error", "absolute_error", "huber", "quantile"]


def draw(seed):
    """A chunk of tensors on the CPU: labels, predictions, weights, mask."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice(SIZES))
    kind = KINDS[sorted(KINDS)[rng.integers(len(KINDS))]]

    def values(dtype):
        with np.errstate(all="ignore"):
            numbers = torch.from_numpy(kind(rng, size))
            if dtype in INTEGERS:
                numbers = torch.from_numpy(rng.integers(-50 if dtype[0] == "i" else 0, 50, size))
            return numbers.to(getattr(torch, dtype))

    # Few combinations: each is a kernel to compile.
    forms = [("float32", "float32", None), ("float64", "float64", "float64"), ("float32", "float32", "float32")]
    forms += [(dtype, dtype, None) for dtype in (*FLOATS, *INTEGERS)] + [("bfloat16", "float32", "float16")]
    label, prediction, weight = forms[seed % len(forms)]
    weights = None if weight is None else values(weight)
    mask = torch.from_numpy(rng.random(size) < 0.8) if seed % 5 == 0 and weight == "float32" else None
    return values(label), values(prediction), weights, mask


def moved(parts):
    return [part.cuda() if isinstance(part, torch.Tensor) else part for part in parts]


@pytest.mark.parametrize("block", range(20))
def test_a_thousand_chunks_have_the_bits_of_the_cpu(block):
    for seed in range(50 * block, 50 * block + 50):
        labels, predictions, weights, mask = draw(seed)
        loss = ARITHMETIC[seed // 50 % 2]
        nan = ("propagate", "omit")[seed // 100 % 2] if seed % 4 == 0 else "propagate"
        expected = Accumulator(loss, nan=nan).update(labels, predictions, weights, mask=mask)
        y, p, w, k = moved((labels, predictions, weights, mask))
        found = Accumulator(loss, nan=nan).update(y, p, w, mask=k)
        assert found.state.tobytes() == expected.state.tobytes(), seed


@pytest.mark.parametrize(
    "name", [name for name, loss in LOSSES.items() if "math" not in loss.formula.__code__.co_names]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_loss(name, dtype):
    labels, predictions = torch.rand((2, 300_001), dtype=getattr(torch, dtype))
    assert Accumulator(name).update(*moved((labels, predictions))) == Accumulator(name).update(labels, predictions)


@pytest.mark.parametrize("weights", [None, 0.3, "array"])
def test_standard_errors_and_special_values(weights):
    rng = np.random.default_rng(0)
    labels, predictions, w = torch.from_numpy(
        np.stack([KINDS[kind](rng, 70_001) for kind in ("rare", "normal", "spread")])
    )
    chunk = labels, predictions, w if weights == "array" else weights
    expected = Accumulator(stderr=True).update(*chunk)
    assert Accumulator(stderr=True).update(*moved(chunk)) == expected


@pytest.mark.parametrize("groups", [1, 20, 5000])
def test_groups(groups):
    rng = np.random.default_rng(4)
    labels, predictions, weights = torch.from_numpy(rng.standard_normal((3, 300_001), np.float32))
    by = torch.from_numpy(rng.integers(0, groups, 300_001))
    expected = GroupedAccumulator(stderr=True).update(labels, predictions, weights, by=by)
    for keys in (by, by.cuda()):
        found = GroupedAccumulator(stderr=True).update(*moved((labels, predictions, weights)), by=keys)
        assert found == expected


def test_layouts_weights_masks_and_out():
    labels, predictions = torch.rand((2, 37, 41, 5), dtype=torch.float64)
    weights, mask = torch.rand(37, 1, 5), torch.rand(37, 41) < 0.5
    for change in (lambda t: t, lambda t: t.transpose(0, 2), lambda t: t[::2, 1:, ::3]):
        y, p, w, k = change(labels), change(predictions), None, None
        if change(labels).shape == labels.shape:
            w, k = weights, mask
        out = torch.empty(y.shape, dtype=torch.float64)
        expected = Accumulator().update(y, p, w, mask=k, out=out.numpy())
        written = torch.empty(y.shape, dtype=torch.float64, device="cuda")
        dy, dp = change(labels.cuda()), change(predictions.cuda().requires_grad_())
        found = Accumulator().update(dy, dp, *moved([w]), mask=moved([k])[0], out=written)
        assert found == expected
        assert torch.equal(torch.nan_to_num(written.cpu(), 7.0), torch.nan_to_num(out, 7.0))


def test_four_gigabytes():
    torch.manual_seed(0)
    predictions = torch.randn(1 << 30, device="cuda")
    found = Accumulator().update(torch.zeros_like(predictions), predictions)
    on_host = predictions.cpu().numpy()
    assert found == Accumulator().update(np.zeros_like(on_host), on_host)


def test_more_elements_than_32_bits_count():
    if torch.cuda.mem_get_info()[0] < 12 << 30:
        pytest.skip("needs 12 GB of free device memory")
    ones = torch.ones((1 << 32) + 5, dtype=torch.bool, device="cuda")
    ones[-1] = False
    assert Accumulator().update_losses(ones).result("sum") == (1 << 32) + 4
    assert Accumulator().update_losses(ones[::2]).result("sum") == (1 << 31) + 2


def test_streams_are_respected():
    """Two streams fill and add at the same time; each update sees what its own stream wrote before."""
    streams = [torch.cuda.Stream() for _ in range(2)]
    accumulator, expected = Accumulator(), Accumulator()
    for step in range(50):
        for number, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(100_000)
                values = torch.full((100_003,), float(step + number), device="cuda")
                accumulator.update_losses(values)
                values.fill_(1e30)
            expected.update_losses(np.full(100_003, float(step + number)))
    assert accumulator == expected


@pytest.mark.filterwarnings("ignore")  # what CuPy says of itself when it is imported
def test_producers_on_two_streams():
    """The arrays of one update: each is there before it is read, and may be written to by its own stream after."""
    cupy = pytest.importorskip("cupy")
    theirs, ours = cupy.cuda.Stream(non_blocking=True), torch.cuda.Stream()
    accumulator, expected = Accumulator(), Accumulator()
    for step in range(20):
        with theirs, torch.cuda.stream(ours):
            labels = torch.full((1_000_003,), float(step), device="cuda")
            predictions = cupy.full(1_000_003, 2.0 * step, cupy.float32)
            torch.cuda._sleep(1_000_000)
            accumulator.update(labels, predictions)
            predictions.fill(1e30)
            labels.fill_(-1e30)
        expected.update(np.full(1_000_003, float(step)), np.full(1_000_003, 2.0 * step))
    assert accumulator == expected


def test_each_device_keeps_its_part():
    if torch.cuda.device_count() < 2:
        pytest.skip("one device")
    labels, predictions = torch.rand((2, 300_001))
    accumulator = Accumulator()
    for device in ("cuda:1", "cuda:0", "cuda:1"):
        accumulator.update(labels.to(device), predictions.to(device))
    assert accumulator == sum([Accumulator().update(labels, predictions)] * 3)
    with pytest.raises(TypeError, match="predictions must lie on the device of labels"):
        accumulator.update(labels.to("cuda:0"), predictions.to("cuda:1"))


def test_an_update_is_not_captured_in_a_graph():
    y = torch.ones(100, device="cuda")
    accumulator = Accumulator().update_losses(y)
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        doubled = y + y  # an empty graph is warned of
        with pytest.raises(RuntimeError, match="cannot be captured"):
            accumulator.update_losses(doubled)
    assert accumulator.update_losses(y).result("sum") == 200.0


def test_a_hundred_runs_give_one_answer():
    torch.manual_seed(1)
    y, p, w = torch.randn((3, 3_000_001), device="cuda")
    assert len({Accumulator().update(y, p, w).state.tobytes() for _ in range(100)}) == 1


def test_a_thousand_updates_wait_for_nothing():
    y, p = torch.randn((2, 4096), device="cuda")
    accumulator = Accumulator().update(y, p)
    once = accumulator.copy()
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    with torch_may_not_wait():
        torch.cuda._sleep(4_000_000_000)  # two seconds and more of the device's clock
        for _ in range(1000):
            accumulator.update(y, p)
        done.record()
        assert not done.query()
    assert accumulator == sum([once] * 1001)


def test_host_arrays_for_the_device():
    y, p, w = np.random.default_rng(2).standard_normal((3, 1_500_007))
    for _ in range(3):
        assert Accumulator(device="cuda").update(y, p, w) == Accumulator().update(y, p, w)


@pytest.mark.filterwarnings("ignore")  # what they say of themselves when they are imported
def test_other_libraries(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the memory
    values = np.random.default_rng(3).standard_normal(10_001).astype(np.float32)
    expected = Accumulator().update(values, values[::-1].copy())
    found = 0
    for name, make in LIBRARIES.items():
        if importlib.util.find_spec(name.split(".")[0]):
            assert Accumulator().update(make(values), make(values[::-1].copy())) == expected, name
            found += 1
    assert found


def _cupy(array):
    import cupy

    return cupy.asarray(array)


def _numba(array):
    from numba import cuda

    return cuda.to_device(array)


def _jax(array):
    import jax

    return jax.device_put(array, jax.devices("gpu")[0])


LIBRARIES = {"numba_cuda": _numba, "cupy": _cupy, "jax": _jax}
SANITIZER = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
SMALL_RUN = """
import numpy as np
from numba import cuda
from streamloss import Accumulator, GroupedAccumulator, chunks
chunks.PIECE = 4096  # so that arrays are staged
rng = np.random.default_rng(0)
y, p, w = rng.standard_normal((3, 20_011))
y[7], p[9] = np.nan, 1e300
for stderr in (False, True):
    expected = Accumulator(stderr=stderr).update(y, p, w)
    assert Accumulator(stderr=stderr).update(*map(cuda.to_device, (y, p, w))) == expected
    assert Accumulator(stderr=stderr, device="cuda").update(y[::-1], p[::-1], w[::-1]) == expected
out = cuda.device_array(20_011)
Accumulator(nan="omit").update(cuda.to_device(y), cuda.to_device(p), 2.0, mask=cuda.to_device(w > 0), out=out).result()
GroupedAccumulator(stderr=True).update(*map(cuda.to_device, (y, p, w)), by=np.arange(20_011) % 7)
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool):
    if not os.path.exists(SANITIZER):
        pytest.skip("compute-sanitizer is not installed")
    command = [SANITIZER, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SMALL_RUN]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=root, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
