"""The door: whatever form arrays come in, the state has the bits that plain contiguous arrays give."""

import math
import tracemalloc
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import streamloss
from streamloss import Accumulator
from tests.backend import SIMULATED, examples

SMALL, LARGE = (7, 5, 3), (9, 6, 7) if SIMULATED else (13, 211, 67)  # one piece; many pieces and threads


def numbers(shape, seed=0):
    """Whole numbers that every dtype but bool holds exactly."""
    return np.random.default_rng(seed).integers(0, 127, shape).astype(np.float64)


def plain(values):
    return np.array(values, np.float64, order="C")


def seen(labels, predictions, weights=None, **options):
    nan = options.pop("nan", "propagate")
    return Accumulator(nan=nan).update(labels, predictions, weights, **options)


def kept(labels, predictions, weights, mask):
    """What an accumulator has seen that never got the elements where the mask is False."""
    full = np.broadcast_to(mask, labels.shape)
    return seen(
        labels[full], predictions[full], None if weights is None else np.broadcast_to(weights, full.shape)[full]
    )


def fortran(array):
    return np.array(array, order="F")


def strided(array):
    room = np.full((*array.shape, 2), 99, array.dtype)
    room[..., 1] = array
    return room[..., 1]


def reversed_(array):
    turn = (..., *[slice(None, None, -1)] * array.ndim)
    return array[turn].copy()[turn]


def unaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    view = room[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def permuted(array):
    return np.ascontiguousarray(array.swapaxes(0, -1)).swapaxes(0, -1)


def sliced(array):
    room = np.full(tuple(n + 2 for n in array.shape), np.nan)
    inner = (slice(1, -1),) * array.ndim
    room[inner] = array
    return room[inner]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def fresh(folder):
    return folder / f"{len(list(folder.iterdir()))}.npy"


def mapped(array, folder):
    file = np.memmap(fresh(folder), array.dtype, "w+", shape=array.shape)
    file[...] = array
    return file


def loaded(array, folder):
    path = fresh(folder)
    np.save(path, array)
    return np.load(path, mmap_mode="r")


class HasArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


FORMS = {
    "list": lambda a, _: a.tolist(),
    "tuple": lambda a, _: tuple(a.tolist()),
    "list of arrays": lambda a, _: list(a),
    "memoryview": lambda a, _: memoryview(a),
    "__array__": lambda a, _: HasArray(a),
    "subclass": lambda a, _: a.view(np.recarray),
    "Fortran": lambda a, _: fortran(a),
    "Fortran float32": lambda a, _: fortran(a.astype(np.float32)),
    "strided": lambda a, _: strided(a),
    "strided float32": lambda a, _: strided(a.astype(np.float32)),
    "reversed": lambda a, _: reversed_(a),
    "permuted": lambda a, _: permuted(a),
    "sliced": lambda a, _: sliced(a),
    "read-only": lambda a, _: read_only(a),
    "read-only Fortran": lambda a, _: read_only(fortran(a)),
    "memmap": mapped,
    "load(mmap_mode)": loaded,
    "load(mmap_mode) Fortran": lambda a, folder: loaded(fortran(a), folder),
    "big-endian float64": lambda a, _: a.astype(">f8"),
    "big-endian float32": lambda a, _: a.astype(">f4"),
    "big-endian float16": lambda a, _: a.astype(">f2"),
    "big-endian int32": lambda a, _: a.astype(">i4"),
    "unaligned": lambda a, _: unaligned(a),
    "unaligned float32": lambda a, _: unaligned(a.astype(np.float32)),
    "unaligned int64": lambda a, _: unaligned(a.astype(np.int64)),
    **{d: lambda a, _, d=d: a.astype(d) for d in ("f2", "f4", *"bBhHiIlLqQ")},
    "strided int16": lambda a, _: strided(a.astype(np.int16)),
    "bfloat16": lambda a, _: a.astype(ml_dtypes.bfloat16),
    "strided bfloat16": lambda a, _: strided(a.astype(ml_dtypes.bfloat16)),
    "read-only bfloat16": lambda a, _: read_only(a.astype(ml_dtypes.bfloat16)),
    "torch float32": lambda a, _: torch.tensor(a, dtype=torch.float32),
    "torch float16": lambda a, _: torch.tensor(a, dtype=torch.float16),
    "torch bfloat16": lambda a, _: torch.tensor(a, dtype=torch.bfloat16),
    "torch int64": lambda a, _: torch.tensor(a, dtype=torch.int64),
    "torch requires grad": lambda a, _: torch.tensor(a, requires_grad=True),
    "torch bfloat16 requires grad": lambda a, _: torch.tensor(a, dtype=torch.bfloat16, requires_grad=True),
    "torch strided": lambda a, _: torch.tensor(a).transpose(0, 1).contiguous().transpose(0, 1),
    "torch strided bfloat16": lambda a, _: torch.tensor(np.repeat(a, 2, 1)).to(torch.bfloat16)[:, ::2],
    "masked, no mask": lambda a, _: np.ma.array(a),
    "masked, nothing masked": lambda a, _: np.ma.array(a, mask=np.zeros(a.shape, bool)),
}
PLACES = {"labels": (0,), "predictions": (1,), "weights": (2,), "both": (0, 1), "all": (0, 1, 2)}


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"], scope="module")
def data(request):
    """Labels, predictions, full weights, and what an accumulator has seen without and with the weights."""
    arrays = [numbers(request.param, seed) for seed in range(3)]
    return arrays, seen(*arrays[:2]), seen(*arrays)


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_an_array_gives_the_same_bits(data, form, places, tmp_path):
    arrays, unweighted, weighted = data
    inputs = [form(array, tmp_path) if i in places else array for i, array in enumerate(arrays)]
    if 2 not in places:
        assert seen(*inputs[:2]) == unweighted
    assert seen(*inputs) == weighted


def test_the_plain_form_agrees_with_exact_fractions():
    labels, predictions, weights = (numbers(SMALL, seed) / 7 for seed in range(3))
    terms = (weights * (predictions - labels) ** 2).ravel().tolist()
    accumulator = seen(labels, predictions, weights)
    assert accumulator.loss_sum == float(sum(map(Fraction, terms)))
    assert accumulator.weight_sum == float(sum(map(Fraction, weights.ravel().tolist())))
    assert (accumulator.count, accumulator.nonzero_count) == (weights.size, np.count_nonzero(weights))


@pytest.mark.parametrize(
    ("label", "prediction"),
    [(2, 5), (2.0, 5.0), (True, 4), (np.float32(2), np.int8(5)), (np.array(2), torch.tensor(5.0)), (np.bool_(1), 4)],
    ids=str,
)
def test_scalars_are_arrays_of_no_dimension(label, prediction):
    expected = seen(np.array(2.0), np.array(5.0)) if float(prediction) == 5 else seen(np.array(1.0), np.array(4.0))
    assert seen(label, prediction) == expected == seen([[float(label)]], [[float(prediction)]])
    assert seen(label, prediction, np.array(3)) == seen([float(label)], [float(prediction)], [3.0])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4), (0, 0)], ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, bool, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("order", "CF")
def test_an_empty_chunk_changes_nothing(shape, dtype, order):
    empty = np.zeros(shape, dtype, order)
    for weights in (None, 2, np.ones(shape), np.ones(shape[:1]), np.ones((1,) * len(shape), np.int8)):
        for mask in (None, True, np.ones(shape, bool), np.ones(shape[:1], bool)):
            assert seen(empty, empty, weights, mask=mask, out=np.zeros(shape)) == Accumulator()
    assert seen(empty.tolist() if shape == (0,) else empty, empty) == Accumulator()


@pytest.mark.parametrize("types", [("f4", "f8"), ("f8", "f4"), ("f4", "f2"), ("i8", "f4"), ("?", "f4"), ("f8", "u8")])
@pytest.mark.parametrize("weight_type", [None, "f4", "f8", "f2", "?", "u8"])
def test_mixtures_of_dtypes_give_the_same_bits(types, weight_type):
    labels, predictions = (numbers(SMALL, seed).astype(dtype) for seed, dtype in enumerate(types))
    weights = None if weight_type is None else (numbers(SMALL, 2) % 3).astype(weight_type)
    expected = None if weights is None else plain(weights)
    assert seen(labels, predictions, weights) == seen(plain(labels), plain(predictions), expected)


EDGES = [2**53 + 1, 2**53 + 2, 2**53 + 3, 2**54 + 2, 2**54 + 6, 2**60 + 1, 2**62 + 2**9, 2**62 + 2**9 + 1]
EDGES += [2**62 + 3 * 2**9, 2**63 - 1, 2**63 - 513, 2**63 - 512, 2**63 - 511]
HUGE = [2**63, 2**63 + 2**10, 2**63 + 2**10 + 1, 2**63 + 3 * 2**10, 2**64 - 1, 2**64 - 1024, 2**64 - 1025]
INTEGERS = {
    "int64": (np.int64, [*EDGES, *(-i for i in EDGES), -(2**63)]),
    "uint64": (np.uint64, EDGES + HUGE),
    "big-endian int64": (">i8", EDGES),
    "big-endian uint64": (">u8", EDGES + HUGE),
    "list": (list, EDGES),
    "list beyond int64": (list, HUGE),
}


@pytest.mark.parametrize(("dtype", "values"), INTEGERS.values(), ids=INTEGERS)
def test_integers_beyond_53_bits_round_to_nearest_even(dtype, values):
    values = values * 11  # long enough for vector code
    given_, expected = values if dtype is list else np.array(values, dtype), [float(i) for i in values]
    zeros = [0.0] * len(values)
    assert Accumulator().update_losses(given_) == Accumulator().update_losses(expected)
    assert seen(given_, zeros) == seen(expected, zeros)
    assert seen(zeros, given_, given_) == seen(zeros, expected, expected)
    for i in values[: len(values) // 11]:
        assert seen(0, 1, i if dtype is list else np.array(i, dtype)).loss_sum == float(i)


BITS16 = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize("nan", ["propagate", "omit"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_all_bit_patterns_of_16_bits_convert_exactly(dtype, nan):
    values = BITS16.view(dtype)
    with np.errstate(all="ignore"):
        expected = values.astype(np.float32).astype(np.float64)
    assert Accumulator(nan=nan).update_losses(values) == Accumulator(nan=nan).update_losses(expected)


# ------------------------------------------------------------------------------------------------ weights and masks


SCALARS = [0, 3, 2.5, True, np.float32(2.5), np.int64(3), np.array(2.5), np.array(3, np.int8), torch.tensor(2.5)]


@pytest.mark.parametrize("shape", [SMALL, LARGE, (), (4,)], ids=str)
@pytest.mark.parametrize("weight", SCALARS, ids=lambda w: f"{type(w).__name__} {w}")
def test_a_scalar_weight_is_the_weight_of_each_element(shape, weight):
    labels, predictions = numbers(shape, 0), numbers(shape, 1)
    assert seen(labels, predictions, weight) == seen(labels, predictions, np.full(shape, float(weight)))


def patterns(shape):
    """The shapes that weights and masks may have: the leading dimensions, and each choice of dimensions of 1."""
    leading = [shape[:k] for k in range(1, len(shape) + 1)]
    choices = [tuple(n if bit >> k & 1 else 1 for k, n in enumerate(shape)) for bit in range(2 ** len(shape))]
    return sorted({*leading, *choices})


def full(array, shape):
    return plain(np.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape))


WEIGHT_FORMS = {
    "float64": plain,
    "float32": lambda w: w.astype(np.float32),
    "int16": lambda w: w.astype(np.int16),
    "list": lambda w: w.tolist(),
    "Fortran": fortran,
    "strided": strided,
    "torch": torch.tensor,
}
LAYOUTS = {"C": plain, "F": fortran, "int": lambda a: a.astype(np.int32)}
SHAPED = [(shape, pattern) for shape in (SMALL, LARGE, (6, 1, 4), (1, 5)) for pattern in patterns(shape)]


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("shape", "pattern"), SHAPED, ids=str)
def test_weights_apply_as_their_full_array(shape, pattern, layout):
    labels, predictions, weights = numbers(shape, 0), numbers(shape, 1), numbers(pattern, 2) % 5
    expected = seen(labels, predictions, full(weights, shape))
    for form in WEIGHT_FORMS.values():
        assert seen(layout(labels), layout(predictions), form(weights)) == expected


MASK_FORMS = {
    "plain": np.ascontiguousarray,
    "list": lambda m: m.tolist(),
    "Fortran": fortran,
    "strided": strided,
    "reversed": reversed_,
    "read-only": read_only,
    "torch": torch.tensor,
}


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("shape", "pattern"), SHAPED, ids=str)
def test_masked_elements_were_never_there(shape, pattern, layout, weighted):
    labels, predictions, mask = numbers(shape, 0), numbers(shape, 1), numbers(pattern, 2) % 3 > 0
    weights = numbers(shape, 3) if weighted else None
    whole = full(mask, shape).astype(bool)
    labels[~whole] = np.nan if layout is not LAYOUTS["int"] else 99
    expected = kept(labels, predictions, weights, whole)
    for form in MASK_FORMS.values():
        assert seen(layout(labels), layout(predictions), weights, mask=form(mask)) == expected


@pytest.mark.parametrize("mask", [True, False, np.True_, np.False_, np.array(True), torch.tensor(False)], ids=repr)
def test_a_scalar_mask_keeps_all_or_nothing(mask):
    labels, predictions = numbers(SMALL, 0), numbers(SMALL, 1)
    assert seen(labels, predictions, mask=mask) == (seen(labels, predictions) if mask else Accumulator())


@pytest.mark.parametrize("nan", ["propagate", "omit", "raise"])
@pytest.mark.parametrize("layout", [plain, fortran, strided], ids=["C", "F", "strided"])
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=str)
@pytest.mark.parametrize("masked", [{"labels"}, {"predictions"}, {"weights"}, {"labels", "predictions", "weights"}])
def test_the_mask_of_a_masked_array_counts_as_a_mask(masked, shape, layout, nan):
    arrays = {name: numbers(shape, seed) for seed, name in enumerate(("labels", "predictions", "weights"))}
    expected_mask = np.ones(shape, bool)
    inputs = {}
    for seed, (name, array) in enumerate(arrays.items()):
        hidden = numbers(shape, 10 + seed) % 4 == 0
        inputs[name] = layout(array)
        if name in masked:
            expected_mask &= ~hidden
            inputs[name] = np.ma.array(layout(np.where(hidden, np.nan, array)), mask=hidden)
    expected = kept(*arrays.values(), expected_mask)
    assert seen(**inputs, nan=nan) == expected
    also = numbers(shape[:1], 20) % 2 == 0
    expected_mask &= also.reshape(-1, 1, 1)
    assert seen(**inputs, mask=also, nan=nan) == kept(*arrays.values(), expected_mask)


def test_the_mask_of_masked_weights_applies_to_whole_samples():
    labels, predictions = numbers(SMALL, 0), numbers(SMALL, 1)
    weights = np.ma.array(numbers(SMALL[:1], 2), mask=[0, 1, 0, 0, 1, 1, 0])
    rows = ~weights.mask
    assert seen(labels, predictions, weights) == seen(labels[rows], predictions[rows], weights.data[rows])
    assert seen(labels, predictions, np.ma.masked) == Accumulator()


# ------------------------------------------------------------------------------------------------ out


OUTS = {
    "float64": lambda shape: np.zeros(shape),
    "float32": lambda shape: np.zeros(shape, np.float32),
    "Fortran": lambda shape: np.zeros(shape, order="F"),
    "Fortran float32": lambda shape: np.zeros(shape, np.float32, "F"),
    "strided": lambda shape: strided(np.zeros(shape)),
    "strided float32": lambda shape: strided(np.zeros(shape, np.float32)),
    "reversed": lambda shape: reversed_(np.zeros(shape)),
    "unaligned": lambda shape: unaligned(np.zeros(shape)),
    "masked array": lambda shape: np.ma.zeros(shape),
}


@pytest.mark.parametrize("nan", ["propagate", "omit"])
@pytest.mark.parametrize("shape", [SMALL, LARGE, (9,), ()], ids=str)
@pytest.mark.parametrize("layout", [plain, fortran, strided], ids=["C", "F", "strided"])
@pytest.mark.parametrize("make", OUTS.values(), ids=OUTS)
def test_out_receives_the_terms_and_nan_for_elements_left_out(make, layout, shape, nan):
    labels, predictions, weights = (numbers(shape, seed) / 7 for seed in range(3))
    terms = np.asarray(weights * (predictions - labels) ** 2)
    for mask in (None, numbers(shape, 3) % 3 > 0):
        gone = np.array(False) if mask is None else ~mask
        if nan == "omit" and shape:
            labels.flat[1] = np.nan
            terms.flat[1] = np.nan
        out = make(shape)
        accumulator = seen(layout(labels), layout(predictions), layout(weights), mask=mask, out=out, nan=nan)
        np.testing.assert_array_equal(np.asarray(out), np.where(gone, np.nan, terms).astype(out.dtype))
        assert accumulator == seen(labels, predictions, weights, mask=mask, nan=nan)


@pytest.mark.parametrize("shape", [(2, 3), (1, 7), (7, 1), (3000, 3), (400, 500)], ids=str)
@pytest.mark.parametrize("subclass", [np.matrix, np.recarray, np.ma.MaskedArray])
def test_out_as_a_subclass_of_ndarray(subclass, shape):
    out = np.zeros(shape).view(subclass)
    labels, predictions = numbers(shape, 0), numbers(shape, 1)
    seen(labels, predictions, out=out)
    np.testing.assert_array_equal(np.asarray(out), (predictions - labels) ** 2)


def test_out_of_losses_that_are_not_float64():
    out = np.zeros(3)
    Accumulator().update_losses(np.array([1, 2, 3], np.int8), [1, 0, 2], out=out)
    assert out.tolist() == [1, 0, 6]


# ------------------------------------------------------------------------------------------------ NaN


NAN_AT = {"C": plain, "F": fortran, "strided": strided, "float32": lambda a: a.astype(np.float32)}


@pytest.mark.parametrize("layout", NAN_AT.values(), ids=NAN_AT)
@pytest.mark.parametrize("argument", ["labels", "predictions", "weights"])
@pytest.mark.parametrize(
    ("shape", "index"),
    [((9,), (4,)), (SMALL, (3, 4, 1)), (LARGE, (LARGE[0] - 1, 0, LARGE[2] - 1)), (LARGE, (5, LARGE[1] - 1, 0))],
    ids=str,
)
def test_raise_names_the_argument_and_the_first_index_in_c_order(shape, index, argument, layout):
    arrays = {name: numbers(shape, seed) for seed, name in enumerate(("labels", "predictions", "weights"))}
    arrays[argument][index] = np.nan
    arrays["predictions"][(-1,) * len(shape)] = np.nan
    inputs = {name: layout(array) for name, array in arrays.items()}
    place = rf"{argument} has NaN at index \[{', '.join(map(str, index))}\]"
    with pytest.raises(ValueError, match=place):
        seen(**inputs, nan="raise")
    mask = np.ones(shape, bool)
    mask[(-1,) * len(shape)] = False
    mask.flat[0] = False
    inputs["labels"].flat[0] = np.nan
    with pytest.raises(ValueError, match=place):
        seen(**inputs, mask=mask, nan="raise")
    mask[index] = False
    assert seen(**inputs, mask=mask, nan="raise") == kept(*arrays.values(), mask)


@pytest.mark.parametrize("layout", NAN_AT.values(), ids=NAN_AT)
@pytest.mark.parametrize("shape", [(9,), SMALL, LARGE], ids=str)
def test_omit_leaves_out_what_has_nan_and_counts_it(shape, layout):
    arrays = [numbers(shape, seed) for seed in range(3)]
    present = np.ones(shape, bool)
    for seed, array in enumerate(arrays):
        missing = numbers(shape, 10 + seed) % 5 == 0
        array[missing] = np.nan
        present &= ~missing
    accumulator = seen(*map(layout, arrays), nan="omit")
    assert accumulator.skipped_count == present.size - present.sum()
    expected = kept(*arrays, present)
    assert (accumulator.state[3:] == expected.state[3:]).all()
    assert (accumulator.count, accumulator.nonzero_count) == (expected.count, expected.nonzero_count)


@pytest.mark.parametrize("weights", [float("nan"), np.float32("nan"), np.array([1, np.nan, 1])[:, None, None]], ids=str)
def test_nan_in_weights_that_repeat(weights):
    labels = numbers((3, 2, 2))
    missing = 12 if np.ndim(weights) == 0 else 4
    assert seen(labels, labels, weights, nan="omit").skipped_count == missing
    first = r"\[0, 0, 0\]" if np.ndim(weights) == 0 else r"\[1, 0, 0\]"
    with pytest.raises(ValueError, match=f"weights has NaN at index {first}"):
        seen(labels, labels, weights, nan="raise")


def test_nan_in_losses_is_named():
    with pytest.raises(ValueError, match=r"losses has NaN at index \[1\]"):
        Accumulator(nan="raise").update_losses([1, math.nan])


LENGTHS = st.one_of(st.integers(1, 40), st.sampled_from([64, 700] if SIMULATED else [700, 4099]))
SPECIAL = [0.0, -0.0, 1.0, -2.5, 1e-310, 2.0**-1074, 1e300, math.inf, -math.inf, math.nan]


@examples(150)
@given(
    outer=st.integers(1, 7),
    period=LENGTHS,
    repeat=st.one_of(LENGTHS, st.sampled_from([8, 16, 72])),  # whole vectors that share an entry, or not
    special=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
    masked=st.sampled_from(["no", "elements", "samples"]),
    nan=st.sampled_from(["propagate", "omit"]),
    offset=st.integers(0, 17),
)
def test_weights_that_repeat_count_as_often_as_they_are_there(
    outer, period, repeat, special, dtype, masked, nan, offset
):
    shape = outer, period, min(repeat, max(1, 300_000 // (outer * period)))
    rng = np.random.default_rng(period)
    labels, predictions = (rng.normal(size=math.prod(shape) + offset).astype(dtype)[offset:] for _ in range(2))
    labels, predictions = labels.reshape(shape), predictions.reshape(shape)
    with np.errstate(over="ignore"):
        weights = (rng.choice(SPECIAL, period) if special else rng.normal(size=period)).astype(dtype)[None, :, None]
    mask = {"no": None, "elements": rng.random(shape) < 0.7, "samples": rng.random((1, period, 1)) < 0.7}[masked]
    repeated = seen(labels, predictions, weights, mask=mask, nan=nan)
    mask = None if mask is None else np.broadcast_to(mask, shape).copy()
    assert repeated == seen(labels, predictions, np.broadcast_to(weights, shape).copy(), mask=mask, nan=nan)


@pytest.mark.large
def test_weights_of_samples_across_the_pieces_of_threads():
    """Pieces begin with whole samples, whatever the number of threads: of a million elements for each, and some."""
    rng = np.random.default_rng(3)
    labels, predictions = rng.standard_normal((2, 200_001, 8), dtype=np.float32)
    weights = rng.random(200_001, dtype=np.float32)
    expected = seen(labels, predictions, np.repeat(weights, 8).reshape(labels.shape))
    for threads in (3, 5, 7):
        streamloss.set_num_threads(threads)
        try:
            assert seen(labels, predictions, weights) == expected
        finally:
            streamloss.set_num_threads(None)


# ------------------------------------------------------------------------------------------------ memory and inputs


def test_a_term_that_the_output_cannot_hold_is_infinite_there():
    out = np.empty(3, np.float32)
    accumulator = streamloss.Accumulator().update([0.0, 0.0, 0.0], [1e30, 1e-30, 2.0], out=out)
    assert out.tolist() == [np.inf, 0.0, 4.0]
    assert accumulator.result("sum") == 1e30**2


def wide(n, dtype=np.float32):
    return np.zeros((n, 4), dtype)[:, 1:3]


BIG = {
    "strided": lambda n, _: (wide(n), wide(n), None),
    "strided and contiguous": lambda n, _: (wide(n), np.zeros((n, 2)), None),
    "int64": lambda n, _: (np.zeros((n, 2), np.int64), np.zeros((n, 2), np.int64), None),
    "Fortran": lambda n, _: (np.zeros((n, 2), order="F"), np.zeros((n, 2), order="F"), None),
    "Fortran, one of both": lambda n, _: (np.zeros((n, 2), order="F"), np.zeros((n, 2)), None),
    "Fortran, long rows": lambda n, _: (np.zeros((2, n), order="F"), np.zeros((2, n)), None),
    "memmap int32": lambda n, folder: (
        np.memmap(folder / "labels", np.int32, "w+", shape=(n, 2)),
        np.memmap(folder / "predictions", np.int32, "w+", shape=(n, 2)),
        None,
    ),
    "memmap": lambda n, folder: (np.memmap(folder / "both", np.float64, "w+", shape=(n, 2)),) * 2 + (None,),
    "bfloat16": lambda n, _: (np.zeros((n, 8), ml_dtypes.bfloat16), np.zeros((n, 8), ml_dtypes.bfloat16), None),
    "masked": lambda n, _: (np.ma.array(np.zeros((n, 2)), mask=np.zeros((n, 2), bool)), np.zeros((n, 2)), None),
    "weights per sample": lambda n, _: (np.zeros((n, 2)), np.zeros((n, 2)), np.zeros(n)),
    "weights per column": lambda n, _: (np.zeros((n, 2)), np.zeros((n, 2)), np.zeros((1, 2))),
    "weights per sample, int": lambda n, _: (np.zeros((n, 2)), np.zeros((n, 2)), np.zeros(n, int)),
    "weights (n, 1, d)": lambda n, _: (np.zeros((n, 2, 2)), np.zeros((n, 2, 2)), np.zeros((n, 1, 2))),
}


@pytest.fixture
def two_threads():
    streamloss.set_num_threads(2)
    yield
    streamloss.set_num_threads(None)


@pytest.mark.large
@pytest.mark.parametrize("make", BIG.values(), ids=BIG)
def test_no_input_is_copied_as_a_whole(make, tmp_path, two_threads):
    (tmp_path / "small").mkdir()
    seen(*make(70_000, tmp_path / "small"))
    labels, predictions, weights = make(4 << 20, tmp_path)
    assert labels.nbytes >= 32 << 20
    tracemalloc.start()
    try:
        seen(labels, predictions, weights)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("nan", ["propagate", "omit"])
@pytest.mark.parametrize("form", ["float64", "f4", "strided", "Fortran", "q", "bfloat16", "big-endian float64"])
def test_inputs_are_never_modified(form, nan, tmp_path):
    make = FORMS.get(form, lambda a, _: a)
    inputs = [make(numbers(SMALL, seed), tmp_path) for seed in range(3)]
    mask = numbers(SMALL, 3) % 2 == 0
    before = [array.tobytes() for array in (*inputs, mask)]
    seen(*inputs, mask=mask, out=np.zeros(SMALL), nan=nan)
    assert [array.tobytes() for array in (*inputs, mask)] == before


def test_masked_arrays_are_never_modified():
    labels = np.ma.array([1.0, np.nan, 3.0], mask=[0, 1, 0])
    data, mask = labels.data.tobytes(), labels.mask.tobytes()
    seen(labels, labels, labels, mask=[True, True, False], out=np.zeros(3))
    assert (labels.data.tobytes(), labels.mask.tobytes()) == (data, mask)


@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
def test_one_shot_functions_take_the_same_forms(reduction):
    labels, predictions, weights = (numbers(SMALL, seed) for seed in range(3))
    expected = streamloss.mean_squared_error(labels, predictions, weights, reduction=reduction)
    forms = fortran(labels), torch.tensor(predictions, requires_grad=True), weights.astype(np.int8)
    np.testing.assert_array_equal(streamloss.mean_squared_error(*forms, reduction=reduction), expected)
    losses = (predictions - labels) ** 2
    np.testing.assert_array_equal(streamloss.compute_weighted_loss(losses, weights, reduction=reduction), expected)


# ------------------------------------------------------------------------------------------------ any combination

ANY_DTYPE = ["f8", "f4", "f2", ">f8", ">i2", "?", "b", "H", "i8", "u8", ml_dtypes.bfloat16]
ANY_LAYOUT = [np.ascontiguousarray, fortran, strided, reversed_, unaligned, permuted, read_only]


@st.composite
def chunks(draw):
    """A chunk in some form, and its plain form: full contiguous float64 arrays, and a full mask."""
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
    seeds = iter(range(draw(st.integers(0, 1000)), 10_000))

    def array(of):
        values = (numbers(of, next(seeds)) % 9).astype(draw(st.sampled_from(ANY_DTYPE)))
        return draw(st.sampled_from(ANY_LAYOUT))(values)

    labels, predictions = array(shape), array(shape)
    weights = draw(st.none() | st.floats(-8, 8) | st.sampled_from(patterns(shape)).map(array))
    mask = draw(st.none() | st.booleans() | st.sampled_from(patterns(shape)).map(lambda of: array(of) > 2))
    spread = full(np.asarray(1 if weights is None else weights).astype(float), shape)
    keep = full(np.asarray(True if mask is None else mask), shape).astype(bool)
    return (labels, predictions, weights, mask), (plain(labels)[keep], plain(predictions)[keep], spread[keep])


@examples(100)
@given(chunks(), st.sampled_from([16, streamloss.chunks.PIECE]))
def test_any_combination_of_forms_gives_the_bits_of_the_plain_form(chunk, piece):
    (labels, predictions, weights, mask), expected = chunk
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamloss.chunks, "PIECE", piece)  # chunks of one piece are read in other ways
        assert seen(labels, predictions, weights, mask=mask) == seen(*expected)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 2047, 2048, 2112])
def test_masks_are_counted_whatever_their_bytes(size):
    rng = np.random.default_rng(size)
    labels, predictions = rng.random((2, size), dtype=np.float32)
    mask = rng.integers(0, 4, size, dtype=np.uint8).view(np.bool_)
    kept = mask.view(np.uint8) != 0
    masked = Accumulator().update(labels, predictions, mask=mask)
    masked.update(labels, predictions, mask=mask)  # once more, with the window known
    assert masked.count == 2 * np.count_nonzero(kept)
    assert masked == Accumulator().update(labels[kept], predictions[kept]).update(labels[kept], predictions[kept])
