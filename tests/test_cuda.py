"""Device arrays: the state has the bits that the same numbers give on the CPU, in whatever form they come.

On the simulator, or with --backend=cuda on a device; without either, only what is said of their absence.
"""

import pickle
import subprocess
import sys
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamloss import Accumulator, GroupedAccumulator, compute_weighted_loss, mean_squared_error
from streamloss.keys import Coded
from tests.backend import BLOCK, SIMULATED, DeviceArray, adding_on, examples
from tests.interrupts import at_every_step
from tests.strategies import SIZES, chunks, floats
from tests.test_arrays import fortran, full, patterns, permuted, reversed_, strided

on_cuda = pytest.mark.cuda


@pytest.fixture(scope="module", autouse=True)
def where_arrays_are():
    """Here, host arrays are for the CPU, to compare with."""
    with adding_on("auto"):
        yield


def on_device(value):
    return DeviceArray(value) if isinstance(value, np.ndarray) else value


def both(*chunk, loss="squared_error", nan="propagate", stderr=False, **options):
    """The accumulator of the CPU, which the one of the device has been compared with."""
    expected = Accumulator(loss, nan=nan, stderr=stderr).update(*chunk, **options)
    arrays = [on_device(part) for part in chunk]
    found = Accumulator(loss, nan=nan, stderr=stderr).update(*arrays, **{k: on_device(v) for k, v in options.items()})
    assert found == expected
    return found


def numbers(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 127, shape).astype(np.float64)


# ------------------------------------------------------------------------------------------------ the same bits


@on_cuda
@examples(40)
@given(chunk=chunks())
def test_every_loss_has_the_bits_of_the_cpu(loss, chunk):
    both(*chunk, loss=loss)


@on_cuda
@examples(60)
@given(chunk=chunks(), nan=st.sampled_from(["propagate", "omit"]), stderr=st.booleans())
def test_every_kind_of_chunk_has_the_bits_of_the_cpu(chunk, nan, stderr):
    both(*chunk, nan=nan, stderr=stderr)


DTYPES = ["f2", "f4", "f8", "?", *"bBhHiIlL", ml_dtypes.bfloat16]


@on_cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_every_dtype(dtype):
    labels, predictions, weights = (numbers(2 * BLOCK + 3, seed).astype(dtype) for seed in range(3))
    as_arrays = labels, predictions, weights
    if dtype is ml_dtypes.bfloat16:
        as_arrays = tuple(map(BFloat16, as_arrays))
    for weight, device_weight in ((None, None), (weights, as_arrays[2])):
        expected = Accumulator().update(labels, predictions, weight)
        found = Accumulator().update(*map(on_device, as_arrays[:2]), on_device(device_weight))
        assert found == expected


class BFloat16(DeviceArray):
    """bfloat16 as CuPy has it."""

    def __init__(self, array):
        super().__init__(array.view(np.uint16))
        self.dtype = "bfloat16"

    @property
    def __cuda_array_interface__(self):
        return {**super().__cuda_array_interface__, "typestr": "<V2"}


BITS16 = np.arange(1 << 16, dtype=np.uint16)


@on_cuda
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_all_bit_patterns_of_16_bits(dtype):
    values = BITS16.view(dtype)[:: 1 if dtype is np.float16 else 7].copy()
    array = DeviceArray(values) if dtype is np.float16 else BFloat16(values)
    assert Accumulator(nan="omit").update_losses(array) == Accumulator(nan="omit").update_losses(values)


@on_cuda
@pytest.mark.parametrize("edge", [2**53 + 1, 2**54 + 6, 2**62 + 3 * 2**9, 2**63 - 1, -(2**63), 2**64 - 1025])
def test_integers_beyond_53_bits_round_to_nearest_even(edge):
    values = np.array([edge] * 11, np.int64 if edge < 2**63 else np.uint64)
    expected = Accumulator().update_losses([float(edge)] * 11)
    assert Accumulator().update_losses(DeviceArray(values)) == expected


LAYOUTS = {"C": np.copy, "F": fortran, "strided": strided, "reversed": reversed_, "permuted": permuted}


@on_cuda
@pytest.mark.parametrize("mixed", [False, True], ids=["alike", "mixed"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shape", [(7,), (7, 5), (5, 7, 3), (1, 5), (2, 1, 3, 2)], ids=str)
def test_every_layout(shape, layout, mixed):
    labels, predictions, weights = (numbers(shape, seed) for seed in range(3))
    both(layout(labels), predictions if mixed else layout(predictions), layout(weights))


@on_cuda
@pytest.mark.parametrize("shape", [(6, 1, 4), (9, 6, 7), (1, 5)], ids=str)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, fortran], ids=["C", "F"])
def test_weights_and_masks_apply_as_their_full_arrays(shape, layout):
    labels, predictions = numbers(shape, 0), numbers(shape, 1)
    for pattern in patterns(shape):
        weights, mask = numbers(pattern, 2) % 5, numbers(pattern, 3) % 3 > 0
        found = both(layout(labels), layout(predictions), weights, mask=mask)
        whole = Accumulator().update(labels, predictions, full(weights, shape), mask=full(mask, shape).astype(bool))
        assert found == whole


@on_cuda
@pytest.mark.parametrize(
    "weight", [2, 0.0, -0.5, True, np.float32(3), np.array(2), float("nan"), float("inf")], ids=repr
)
@pytest.mark.parametrize("mask", [None, True, False])
def test_scalars_on_the_host_are_scalars(weight, mask):
    labels, predictions = numbers((4, 9), 0), numbers((4, 9), 1)
    for nan in ("propagate", "omit"):
        both(labels, predictions, weight, mask=mask, nan=nan)
    found = Accumulator().update(DeviceArray(labels), DeviceArray(predictions), DeviceArray(np.array(float(weight))))
    assert found == Accumulator().update(labels, predictions, float(weight))


@on_cuda
@pytest.mark.parametrize("nan", ["propagate", "omit"])
@pytest.mark.parametrize("layout", [np.ascontiguousarray, strided, reversed_], ids=["C", "strided", "reversed"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_receives_the_terms(dtype, layout, nan):
    labels, predictions, weights = (numbers((9, 6), seed) / 7 for seed in range(3))
    labels[2, 3] = np.nan
    mask = numbers((9, 1), 5) % 3 > 0
    expected = np.empty((9, 6), dtype)
    accumulator = Accumulator(nan=nan).update(labels, predictions, weights, mask=mask, out=expected)
    out = DeviceArray(layout(np.zeros((9, 6), dtype)))
    arrays = map(DeviceArray, (labels, predictions, weights))
    assert Accumulator(nan=nan).update(*arrays, mask=DeviceArray(mask), out=out) == accumulator
    np.testing.assert_array_equal(out.host(), expected)


@on_cuda
def test_windows_follow_the_data():
    """Sizes that change along the array, are zero at first, or lie too far apart for any window."""
    rng = np.random.default_rng(3)
    size = 6 * BLOCK
    rising = np.ldexp(rng.standard_normal(size), np.arange(size) // 9 - 300)
    late = np.where(np.arange(size) < size // 2, 0.0, rng.standard_normal(size))
    apart = np.where(np.arange(size) % 2, 1e300, 1e-300) * rng.standard_normal(size)
    huge = rng.uniform(-1, 1, size) * 1.7e308
    lone = rng.standard_normal(size)
    lone[size // 3] = 1e200
    for losses in (rising, rising[::-1].copy(), late, apart, huge, lone):
        for weights in (None, losses[::-1].copy()):
            expected = Accumulator(stderr=True).update_losses(losses, weights)
            assert Accumulator(stderr=True).update_losses(DeviceArray(losses), on_device(weights)) == expected


# ------------------------------------------------------------------------------------------------ the algebra


@on_cuda
@examples(16)
@given(data=st.data())
def test_states_of_both_backends_merge_save_and_compare(data, tmp_path_factory):
    a, b = data.draw(chunks()), data.draw(chunks())
    host, device = Accumulator().update(*a), Accumulator().update(*map(on_device, b))
    expected = Accumulator().update(*a).update(*b)
    assert host + device == device + host == expected
    assert device.copy().merge(host) == expected
    assert Accumulator().update(*a).update(*map(on_device, b)) == expected
    assert Accumulator().update(*map(on_device, b)).update(*a) == expected
    assert expected - device == host
    assert pickle.loads(pickle.dumps(device)) == device
    assert Accumulator.from_bytes(device.to_bytes()) == device
    path = tmp_path_factory.mktemp("states") / "state"
    device.save(path)
    assert Accumulator.load(path) == device
    before = device.copy()
    device.update(*map(on_device, a))
    assert device == expected
    assert before == Accumulator().update(*b)
    assert device.reset() == Accumulator()
    assert device.update(*map(on_device, b)) == before


@on_cuda
def test_asking_between_updates_changes_nothing():
    asked, quiet = Accumulator(), Accumulator()
    for seed in range(5):
        part = [DeviceArray(numbers(BLOCK + seed, seed + k) / 3) for k in range(3)]
        asked.update(*part)
        quiet.update(*part)
        assert asked.result() == asked.result()
        repr(asked), asked.state
    assert asked == quiet


@on_cuda
def test_each_device_keeps_its_part(monkeypatch):
    from streamloss.cuda import devices

    if not SIMULATED:
        pytest.skip("pretends that memory lies on another device; tests/test_gpu.py has it for real ones")
    labels, predictions = numbers(100, 0), numbers(100, 1)
    halves = [DeviceArray(part[half]) for half in (slice(0, 50), slice(50, 100)) for part in (labels, predictions)]
    second = {half.__cuda_array_interface__["data"][0] for half in halves[2:]}
    monkeypatch.setattr(devices.driver, "device_of", lambda address: int(address in second))
    accumulator = Accumulator().update(*halves[:2]).update(*halves[2:])
    assert sorted(accumulator._partials._partials) == [0, 1]
    assert accumulator == Accumulator().update(labels, predictions)
    with pytest.raises(TypeError, match="predictions must lie on the device of labels, 0, got one on 1"):
        Accumulator().update(halves[0], halves[3])


@on_cuda
def test_carrying_keeps_sums_in_their_words(monkeypatch):
    from streamloss.cuda import devices

    monkeypatch.setattr(devices, "CARRY_AFTER", 100)
    monkeypatch.setattr(devices, "MOST", 32)
    losses = np.random.default_rng(0).choice([1.7e308, -1.7e308, 5e-324, 1.0], 300)
    accumulator, expected = Accumulator(stderr=True), Accumulator(stderr=True)
    for _ in range(3):
        accumulator.update_losses(DeviceArray(losses))
        expected.update_losses(losses)
    assert accumulator == expected


@on_cuda
def test_every_stream_carries_what_it_has_added_itself(monkeypatch):
    from streamloss.cuda import devices

    if not SIMULATED:
        pytest.skip("pretends that there are streams")
    monkeypatch.setattr(devices, "CARRY_AFTER", 1000)
    monkeypatch.setattr(devices, "STREAMS", 3)
    uncarried, waits = {}, []
    make_room, carry = devices.Partial._make_room, devices.Partial.carry

    def carrying(self, stream):
        carry(self, stream)
        uncarried[stream] = 1

    def making_room(self, added, stream):
        make_room(self, added, stream)
        uncarried[stream] = uncarried.get(stream, 0) + added
        assert uncarried[stream] <= 1000
        assert len(self._uncarried) <= 3

    monkeypatch.setattr(devices.Partial, "_make_room", making_room)
    monkeypatch.setattr(devices.Partial, "carry", carrying)
    monkeypatch.setattr(devices.driver, "wait", lambda: waits.append(dict(uncarried)) or uncarried.clear())
    labels = numbers(50, 0)
    accumulator = Accumulator()
    for stream in [101, 102] * 20 + [103, 104, 105, 101]:
        accumulator.update_losses(DeviceArray(labels, stream=stream))
    assert accumulator == Accumulator().update_losses(np.tile(labels, 44))
    assert [list(each) for each in waits] == [[101, 102, 103]]


@on_cuda
@pytest.mark.parametrize("argument", ["labels", "predictions", "weights"])
def test_raise_names_the_argument_and_keeps_the_state(argument):
    arrays = {name: numbers((5, 4), seed) for seed, name in enumerate(("labels", "predictions", "weights"))}
    accumulator = Accumulator(nan="raise").update(*map(DeviceArray, arrays.values()))
    before = accumulator.copy()
    arrays[argument][3, 1] = np.nan
    with pytest.raises(ValueError, match=rf"{argument} has NaN at index \[3, 1\]"):
        accumulator.update(*map(DeviceArray, arrays.values()))
    assert accumulator == before
    mask = np.ones((5, 4), bool)
    mask[3, 1] = False
    accumulator.update(*map(DeviceArray, arrays.values()), mask=DeviceArray(mask))
    assert accumulator.count == 39
    with pytest.raises(ValueError, match=r"losses has NaN at index \[3, 1\]"):
        Accumulator(nan="raise").update_losses(DeviceArray(arrays[argument]))


# ------------------------------------------------------------------------------------------------ groups


def both_grouped(*chunk, by, nan="propagate", stderr=False, loss="squared_error", **options):
    """The groups of the CPU, which those of the device have been compared with."""
    expected = GroupedAccumulator(loss, nan=nan, stderr=stderr).update(*chunk, by=by, **options)
    arrays = map(on_device, chunk)
    moved = {name: on_device(value) for name, value in options.items()}
    found = GroupedAccumulator(loss, nan=nan, stderr=stderr)
    for keys in (by, on_device(by)):
        assert found.reset().update(*arrays, by=keys, **moved) == expected
        arrays = map(on_device, chunk)
    return expected


@on_cuda
@examples(80)
@given(chunk=chunks(), nan=st.sampled_from(["propagate", "omit"]), stderr=st.booleans(), groups=st.integers(1, 9))
def test_groups_of_every_kind_of_chunk_have_the_bits_of_the_cpu(chunk, nan, stderr, groups):
    by = np.random.default_rng(0).integers(0, groups, chunk[0].size)
    both_grouped(*chunk, by=by, nan=nan, stderr=stderr)


@on_cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shape", [(7,), (7, 5), (5, 7, 3), (1, 5), (2, 1, 3, 2), (4, 0)], ids=str)
def test_groups_of_every_layout(shape, layout):
    labels, predictions, weights = (layout(numbers(shape, seed)) for seed in range(3))
    both_grouped(labels, predictions, weights, by=np.arange(shape[0]) % 3)
    mask, out = numbers(shape[:1], 3) % 2 == 0, np.zeros(shape)
    both_grouped(labels, predictions, by=np.arange(shape[0]) % 2, mask=mask, out=out)
    single = np.zeros(shape)
    both(labels, predictions, mask=mask, out=single)
    assert out.tobytes() == single.tobytes()


@on_cuda
def test_keys_on_a_device_are_those_on_the_host():
    labels, numbers_, flags = numbers(6), np.array([5, 7, 5, 9, 9, 5], np.int16), np.arange(6) % 2 == 0
    floats_ = np.array([0.5, np.nan, 2.0, 2.0, np.nan, 0.5], np.float32)
    for by in (numbers_, flags, floats_):
        both_grouped(labels, labels + 1, by=by)
    expected = GroupedAccumulator().update(labels, labels + 1, by=(numbers_, flags))
    found = GroupedAccumulator().update(DeviceArray(labels), DeviceArray(labels + 1), by=(DeviceArray(numbers_), flags))
    assert found == expected
    codes, values = np.array([0, 1, -1, 0, 1, 1]), ["a", "b"]
    expected = GroupedAccumulator().update(labels, labels + 1, by=Coded(codes, values))
    assert (
        GroupedAccumulator().update(*map(DeviceArray, (labels, labels + 1)), by=Coded(DeviceArray(codes), values))
        == expected
    )


@on_cuda
def test_many_groups_and_launches(monkeypatch):
    from streamloss.cuda import groups

    monkeypatch.setattr(groups, "MOST", 64)
    monkeypatch.setattr(groups, "COPIED", 4)
    losses = np.random.default_rng(0).choice([1.7e308, -1.7e308, 5e-324, 1.0, np.inf, np.nan], 300)
    for count in (1, 3, 200):
        both_grouped(losses, losses[::-1].copy(), losses, by=np.arange(300) % count, stderr=True)


@on_cuda
def test_groups_that_raise_name_the_place_and_change_nothing():
    labels, predictions = numbers((5, 4)), numbers((5, 4), 1)
    accumulator = GroupedAccumulator(nan="raise").update(*map(DeviceArray, (labels, predictions)), by=list("abcab"))
    before = accumulator.copy()
    labels[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"labels has NaN at index \[3, 1\]"):
        accumulator.update(*map(DeviceArray, (labels, predictions)), by=list("abcab"))
    assert accumulator == before


# ------------------------------------------------------------------------------------------------ host arrays


@on_cuda
@pytest.mark.parametrize("piece", [40, 1 << 18])
@examples(10)
@given(chunk=chunks(), stderr=st.booleans())
def test_host_arrays_for_the_device(piece, chunk, stderr):
    from streamloss.cuda import staged

    before, staged.PIECE = staged.PIECE, piece
    try:
        found, expected = Accumulator(stderr=stderr, device="cuda"), Accumulator(stderr=stderr)
        for _ in range(2):
            assert found.update(*chunk) == expected.update(*chunk)
    finally:
        staged.PIECE = before


@on_cuda
def test_the_host_writes_one_piece_while_the_other_is_added(monkeypatch):
    from streamloss.cuda import staged

    finish, finished = staged.Lane.finish, []
    monkeypatch.setattr(staged.Lane, "finish", lambda lane: finished.append(lane) or finish(lane))
    monkeypatch.setattr(staged, "PIECE", 16)
    accumulator = Accumulator(device="cuda")
    for size in (3, 40, 5, 1):
        accumulator.update(numbers(size), numbers(size))
    assert len(finished) == 6
    assert all(one is not other for one, other in pairwise(finished))


@on_cuda
def test_an_accumulator_says_where_it_adds():
    accumulator = Accumulator(device="cuda").update(numbers(3), numbers(3))
    assert (Accumulator().device, accumulator.device, accumulator.copy().device) == ("auto", "cuda:0", "cuda:0")
    kept = pickle.loads(pickle.dumps(accumulator))
    assert (kept.device, kept == accumulator) == ("auto", True)  # where it is read there may be no device


@on_cuda
def test_an_update_of_many_pieces_lands_whole_or_not_at_all(monkeypatch):
    from streamloss.cuda import staged

    monkeypatch.setattr(staged, "PIECE", 16)
    labels, predictions = numbers(100, 0), numbers(100, 1)
    accumulator = Accumulator(device="cuda").update(labels, predictions)
    queue, left = staged.Lane.queue, [3]

    def interrupted(*args):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        queue(*args)

    with monkeypatch.context() as patch:
        patch.setattr(staged.Lane, "queue", interrupted)
        with pytest.raises(KeyboardInterrupt):
            accumulator.update(labels, predictions)
    expected = Accumulator().update(labels, predictions)
    assert accumulator == expected
    assert accumulator.update(labels, predictions) == expected.update(labels, predictions)


@on_cuda
@pytest.mark.parametrize("where", ["launch", "queue"])
def test_an_update_of_several_launches_lands_whole_or_not_at_all(where):
    """Interrupted wherever Python looks for signals, in turn."""
    from streamloss.cuda import devices, updates

    code = {"launch": updates.launch, "queue": devices.Partial.queue}[where].__code__
    labels, predictions = on_device(numbers(3, 0)), on_device(numbers(3, 1))
    whole, empty = Accumulator(stderr=True).update(labels, predictions), Accumulator(stderr=True)
    made = []

    def update():
        made.append(Accumulator(stderr=True))
        made[-1].update(labels, predictions)

    outcomes = [made[-1] == whole for _ in at_every_step(code, update)]
    assert all(each in (whole, empty) for each in made)
    assert True in outcomes
    assert False in outcomes


# ------------------------------------------------------------------------------------------------ refusals

V = np.array([1.0, 2.0, 3.0])


@on_cuda
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a, d: a.update(d, V), TypeError, "labels lies on a CUDA device, predictions in host memory"),
        (lambda a, d: a.update(V, d), TypeError, "predictions lies on a CUDA device"),
        (lambda a, d: a.update(d, d, V), TypeError, "weights must lie on a CUDA device"),
        (lambda a, d: a.update(V, V, d), TypeError, "weights lies on a CUDA device"),
        (lambda a, d: a.update(d, d, mask=V > 1), TypeError, "mask must lie on a CUDA device"),
        (lambda a, d: a.update(d, d, out=np.zeros(3)), TypeError, "out must lie on a CUDA device"),
        (lambda a, d: a.update(V, V, out=d), TypeError, "out must be a NumPy array"),
        (lambda a, d: a.update(d, DeviceArray(V[:2])), ValueError, r"same shape, got \(3,\) and \(2,\)"),
        (lambda a, d: a.update(d, d, DeviceArray(V[:2])), ValueError, "weights must be a scalar, or have the leading"),
        (lambda a, d: a.update(d, d, mask=d), TypeError, "mask must be bool .* got dtype float64; write mask != 0"),
        (lambda a, d: a.update(d, d, mask=DeviceArray(np.ones(3, np.int8))), TypeError, "got dtype int8; write"),
        (lambda a, d: a.update(d, DeviceArray(V.astype(complex))), TypeError, "predictions must be real numbers"),
        (lambda a, d: a.update(d, DeviceArray(V.astype(">f8"))), TypeError, "predictions must be real numbers"),
        (lambda a, d: a.update(d, d, "x"), TypeError, "weights must lie on a CUDA device"),
        (lambda a, d: a.update(d, d, out=d), ValueError, "out must not share memory"),
        (
            lambda a, d: a.update(d, d, out=DeviceArray(V.astype(int))),
            TypeError,
            "out must be float32 or float64, got dtype int",
        ),
        (lambda a, d: a.update(d, d, out=DeviceArray(V[:2].copy())), ValueError, "out must have the shape"),
        (lambda a, d: GroupedAccumulator().update(d, V, by=V), TypeError, "predictions must lie on a CUDA device"),
        (lambda a, d: GroupedAccumulator().update(V, V, by=d), TypeError, "by lies on a CUDA device"),
        (lambda a, d: GroupedAccumulator().update(d, d, by=[1, 2]), ValueError, "by must have one key for each of 3"),
        (
            lambda a, d: GroupedAccumulator().update(*[DeviceArray(np.ones(()))] * 2, by=1),
            ValueError,
            "labels must have a",
        ),
        (lambda a, d: Accumulator(device="gpu"), ValueError, "device must be 'auto', 'cuda' or 'cuda:N', got 'gpu'"),
        (lambda a, d: Accumulator(device=0), TypeError, "device must be a str, got int"),
        (lambda a, d: Accumulator(device="cuda:99"), RuntimeError, "no CUDA device 99"),
    ],
)
def test_refusals_name_the_argument_and_change_nothing(call, error, message):
    accumulator = Accumulator().update(V, V + 1)
    with pytest.raises(error, match=message):
        call(accumulator, DeviceArray(V.copy()))
    assert accumulator == Accumulator().update(V, V + 1)


@on_cuda
def test_one_shot_functions_take_device_arrays():
    assert mean_squared_error(DeviceArray(V), DeviceArray(V[::-1])) == mean_squared_error(V, V[::-1])
    weights = np.array([1.0, 0.5, 0.0])
    found = mean_squared_error(*map(DeviceArray, (V, V[::-1], weights)), reduction="none")
    np.testing.assert_array_equal(copied(found), mean_squared_error(V, V[::-1], weights, reduction="none"))
    found = compute_weighted_loss(DeviceArray(V.astype(np.float32)), 0.1, reduction="none")
    np.testing.assert_array_equal(copied(found), V * 0.1)
    with pytest.raises(TypeError, match="losses must be real numbers"):
        compute_weighted_loss(DeviceArray(V.astype(complex)), reduction="none")


def copied(array):
    return array.host if SIMULATED else array.copy_to_host()


class WithDLPack:
    """An array as JAX hands it over: through DLPack alone, by a capsule that keeps the memory."""

    def __init__(self, array):
        self._array = DeviceArray(array)._array if SIMULATED else DeviceArray(array)

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, stream):
        assert stream == 1  # the legacy stream
        if SIMULATED:
            return self._array.__dlpack__()
        from numba import cuda

        torch = pytest.importorskip("torch")
        if any(stride < 0 for stride in self._array.host().strides):
            pytest.skip("torch, which makes the capsules here, has no negative strides")
        return torch.as_tensor(cuda.as_cuda_array(self._array), device="cuda").__dlpack__()


@on_cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u2", "?"])
def test_arrays_that_have_dlpack_alone(layout, dtype):
    labels, predictions = (layout(numbers((5, 4), seed).astype(dtype)) for seed in range(2))
    found = Accumulator().update(WithDLPack(labels), WithDLPack(predictions))
    assert found == Accumulator().update(labels, predictions)


@on_cuda
@examples(10)
@given(size=st.sampled_from(SIZES), data=st.data())
def test_empty_chunks_and_computed_losses(size, data):
    losses = data.draw(floats(size, np.float64))
    expected = Accumulator().update_losses(losses)
    assert Accumulator().update_losses(DeviceArray(losses)) == expected
    empty = DeviceArray(np.empty((0, 3)))
    assert Accumulator().update_losses(DeviceArray(losses)).update(empty, empty) == expected


# ------------------------------------------------------------------------------------------------ without a device

WITHOUT = """
import sys
import numpy as np
import streamloss

class OnDevice:
    __cuda_array_interface__ = {"shape": (3,), "typestr": "<f4", "data": (4096, False), "version": 3}

for hidden in sys.argv[1:]:
    sys.modules[hidden] = None
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == hidden else find(name, *rest)
a = streamloss.Accumulator().update([1.0], [3.0])
for call in (lambda: a.update(OnDevice(), OnDevice()), lambda: streamloss.Accumulator(device="cuda")):
    try:
        call()
    except RuntimeError as error:
        assert "pip install 'streamloss[cuda13]'" in str(error) and "\\n" not in str(error), error
        print(str(error).split(";")[0][:60])
assert a.result() == 4.0
"""


@pytest.mark.parametrize("hidden", [[], ["numba_cuda"]], ids=["no device", "no numba-cuda"])
def test_without_cuda_asking_for_a_device_says_what_to_install(hidden, monkeypatch):
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    command = [sys.executable, "-W", "error", "-c", WITHOUT, *hidden]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == 2
    assert all(line.startswith("no CUDA") for line in printed)


@on_cuda
def test_one_weight_or_mask_for_all_may_be_an_array_of_no_dimension():
    labels, predictions = numbers(50, 0), numbers(50, 1)
    two = np.array(2.0)
    for weight in (two, ml_dtypes.bfloat16(2), two.astype(ml_dtypes.bfloat16), np.ma.array(2.0, mask=False)):
        found = Accumulator().update(DeviceArray(labels), DeviceArray(predictions), weight)
        assert found == Accumulator().update(labels, predictions, 2.0)
    for masked in (np.ma.array(2.0, mask=True), np.ma.masked):
        assert Accumulator().update(DeviceArray(labels), DeviceArray(predictions), masked).count == 0
    for keep in (True, False):
        found = Accumulator().update(DeviceArray(labels), DeviceArray(predictions), mask=np.array(keep))
        assert found == Accumulator().update(labels, predictions, mask=keep)
