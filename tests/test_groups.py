"""Groups: for each key, to the bit, what an accumulator of its rows alone gives; and the laws of all accumulators."""

import copy
import datetime
import enum
import math
import pickle
import threading
from collections import deque
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

import streamloss
from streamloss import Accumulator, GroupedAccumulator, stored
from streamloss.keys import Coded, numbering
from tests.backend import examples
from tests.strategies import chunks, cuts

SETTINGS = examples(40)


def part(weights, rows):
    return weights[rows] if isinstance(weights, np.ndarray) else weights


def assert_groups(grouped, by, labels, predictions, weights=None, **options):
    """Every group is the accumulator of its own rows, and all together are that of all rows."""
    by = np.asarray(by)
    assert grouped.keys() == sorted(set(by.tolist()))
    for key in grouped:
        rows = by == key
        alone = Accumulator(**options).update(labels[rows], predictions[rows], part(weights, rows))
        assert grouped[key] == alone
        assert grouped[key].state.tobytes() == alone.state.tobytes()
    assert grouped.total() == Accumulator(**options).update(labels, predictions, weights)


@SETTINGS
@given(st.data())
def test_groups_are_accumulators_of_their_rows(data):
    labels, predictions, weights = data.draw(chunks())
    by = np.random.default_rng(0).integers(0, data.draw(st.integers(1, 9)), labels.size)
    options = {"nan": data.draw(st.sampled_from(["propagate", "omit"])), "stderr": data.draw(st.booleans())}
    grouped = GroupedAccumulator(**options)
    for rows in data.draw(cuts(labels.size)):
        grouped.update(labels[rows], predictions[rows], part(weights, rows), by=by[rows])
    assert_groups(grouped, by, labels, predictions, weights, **options)


def test_every_loss(loss):
    labels, predictions, weights = np.random.default_rng(0).random((3, 500))
    by = np.arange(500) % 7
    assert_groups(
        GroupedAccumulator(loss).update(labels, predictions, weights, by=by),
        by,
        labels,
        predictions,
        weights,
        loss=loss,
    )


@SETTINGS
@given(st.data())
def test_the_laws(data):
    def filled():
        labels, predictions, weights = data.draw(chunks(dtypes=(np.float64,)))
        by = np.random.default_rng(labels.size).integers(0, 5, labels.size)
        return GroupedAccumulator().update(labels, predictions, weights, by=by)

    a, b, c = filled(), filled(), filled()
    before = [x.to_bytes() for x in (a, b, c)]
    empty = GroupedAccumulator()
    assert a + empty == a == empty + a
    assert a + b == b + a
    assert (a + b) + c == a + (b + c) == sum([c, a, b]) == a.copy().merge(b, c)
    assert a + b - b == a
    assert a - a == empty
    assert (a + b).total() == a.total() + b.total()
    assert [x.to_bytes() for x in (a, b, c)] == before
    for back in (
        copy.copy(a),
        copy.deepcopy(a),
        pickle.loads(pickle.dumps(a)),
        GroupedAccumulator.from_bytes(before[0]),
    ):
        assert back == a
        assert back.to_bytes() == before[0]
    assert repr(a.result("mean")) == repr({key: group.result("mean") for key, group in a.items()})
    assert list(a) == a.keys()
    assert len(a) == len(a.keys())
    doubled = a.copy().merge(a)
    assert doubled == a + a
    assert a.to_bytes() == before[0]


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(60, 5), (60, 2, 3), (60, 1), (60, 0), (1, 70_000)])
def test_rows_of_several_elements(shape, order):
    rng = np.random.default_rng(1)
    labels, predictions = (np.asarray(rng.random(shape), order=order) for _ in range(2))
    weights = rng.random(shape[0])
    by = np.arange(shape[0]) % 4
    grouped = GroupedAccumulator().update(labels, predictions, weights, by=by)
    expected = {k: Accumulator().update(labels[by == k], predictions[by == k], weights[by == k]) for k in range(4)}
    assert dict(grouped.items()) == {key: group for key, group in expected.items() if group.count}


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.bool_])
def test_other_dtypes_strides_masks_and_out(dtype):
    rng = np.random.default_rng(2)
    labels, predictions = rng.integers(0, 2, (2, 1000)).astype(dtype)[:, ::2]
    mask, by, out = rng.random(500) < 0.5, np.arange(500) % 3, np.zeros(500)
    grouped = GroupedAccumulator().update(labels, predictions, by=by, mask=mask, out=out)
    single = np.zeros(500)
    total = Accumulator().update(labels, predictions, mask=mask, out=single)
    assert grouped.total() == total
    assert out.tobytes() == single.tobytes()
    for key in range(3):
        rows = mask & (by == key)
        assert grouped[key] == Accumulator().update(labels[rows], predictions[rows])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("run", [1, 600, 5_000, 300_000])
@pytest.mark.parametrize("kind", ["integers", "text"])
def test_sorted_rows(dtype, run, kind):
    rows = np.random.default_rng(run)
    size = 2 * run + 1_000
    labels, predictions, weights = rows.normal(size=(3, size)).astype(dtype)
    labels[rows.integers(0, size, 7)] = np.nan
    by = np.arange(size) // run
    keys = [f"key {key}" for key in by] if kind == "text" else by
    for options in ({"nan": "omit"}, {"nan": "omit", "stderr": True}):
        for used in (None, 2.5, weights):
            out, alone = np.empty(size), np.empty(size)
            grouped = GroupedAccumulator(**options).update(labels, predictions, used, by=keys, out=out)
            Accumulator(**options).update(labels, predictions, used, out=alone)
            assert out.tobytes() == alone.tobytes()
            assert_groups(grouped, keys, labels, predictions, used, **options)
            chunked = GroupedAccumulator(**options)
            for start in range(0, size, max(1_000, run // 3)):
                piece = slice(start, start + max(1_000, run // 3))
                chunked.update(labels[piece], predictions[piece], part(used, piece), by=keys[piece])
            assert chunked == grouped


def test_one_key_for_all_rows_beside_columns():
    labels, predictions = np.random.default_rng(0).random((2, 40, 3))
    column = np.arange(40) % 3
    want = {("a", key, 7): Accumulator().update(labels[column == key], predictions[column == key]) for key in range(3)}
    text = np.broadcast_to(np.array("a", object), 40)
    for by in (("a", column, 7), (text, column, np.broadcast_to(7, 40)), (np.full(40, "a"), column, np.full(40, 7))):
        grouped = GroupedAccumulator().update(labels, predictions, by=by)
        assert dict(grouped.items()) == want
    for by in ("a", text, ["a"] * 40):
        assert dict(GroupedAccumulator().update(labels, predictions, by=by).items()) == {
            "a": Accumulator().update(labels, predictions)
        }
    for by in (np.broadcast_to(np.array("a", object), 39), np.broadcast_to(7, (40, 1)), ("a", np.broadcast_to(7, 41))):
        with pytest.raises(ValueError, match="by must have one key for each of 40 rows"):
            GroupedAccumulator().update(labels, predictions, by=by)
    assert len(GroupedAccumulator().update(labels[:0], predictions[:0], by=("a", np.broadcast_to(7, 0)))) == 0


def test_a_mask_that_hides_a_group_makes_none():
    grouped = GroupedAccumulator().update([1.0, 2.0], [1.0, 2.0], by=["a", "b"], mask=[True, False])
    assert grouped.keys() == ["a"]
    assert "b" not in grouped
    with pytest.raises(KeyError, match="no group 'b' among 1"):
        grouped["b"]


def test_a_group_of_skipped_rows_alone_is_there():
    grouped = GroupedAccumulator(nan="omit").update([1.0, math.nan], [1.0, 2.0], by=["a", "b"])
    assert grouped.keys() == ["a", "b"]
    assert grouped["b"].skipped_count == 1
    assert math.isnan(grouped.result()["b"])


@pytest.mark.large
@pytest.mark.parametrize("exponent", [*range(-1074, -960), *range(990, 1024)])
def test_sizes_at_both_ends_of_float64(exponent):
    sizes = np.ones(3000)
    sizes[:600:2] = math.ldexp(1.5, exponent)
    sizes[2000:] = 5e-324 * np.arange(1000)
    by = np.arange(3000) % 3
    terms = GroupedAccumulator().update_losses(sizes, by=by)
    weights = GroupedAccumulator().update_losses(np.ones(3000), sizes, by=by)
    for key in range(3):
        here = by == key
        assert terms[key] == Accumulator().update_losses(sizes[here])
        assert weights[key] == Accumulator().update_losses(np.ones(1000), sizes[here])


def test_threads_and_large_updates_change_no_bit():
    rng = np.random.default_rng(3)
    labels, predictions, weights = rng.random((3, 400_000), np.float32)
    by = rng.integers(0, 30, 400_000)
    small = GroupedAccumulator()
    for i in range(0, 400_000, 10_000):
        rows = slice(i, i + 10_000)
        small.update(labels[rows], predictions[rows], weights[rows], by=by[rows])
    assert GroupedAccumulator().update(labels, predictions, weights, by=by) == small
    streamloss.set_num_threads(1)
    try:
        assert GroupedAccumulator().update(labels, predictions, weights, by=by) == small
    finally:
        streamloss.set_num_threads(None)


def test_one_accumulator_in_several_threads():
    grouped = GroupedAccumulator()
    labels, by = np.arange(100.0), np.arange(100) % 10

    def work(shift):
        for i in range(50):
            grouped.update(labels, labels + 1, by=by + shift + i % 3)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = GroupedAccumulator()
    for shift in range(4):
        for i in range(50):
            expected.update(labels, labels + 1, by=by + shift + i % 3)
    assert grouped == expected


def test_a_hundred_thousand_groups():
    groups = 100_000
    labels = np.arange(groups, dtype=np.float64)
    by = np.random.default_rng(4).permutation(groups)
    grouped = GroupedAccumulator().update(labels, labels + 2, by=by)
    grouped.update(labels, labels + 2, by=by[::-1].copy())
    assert len(grouped) == groups
    assert grouped.count == 2 * groups
    assert set(grouped.result("mean").values()) == {4.0}
    data = grouped.to_bytes()
    assert len(data) < 200 * groups
    assert GroupedAccumulator.from_bytes(data) == grouped


# --------------------------------------------------------------------------------------------------- keys

NAT = np.datetime64("NaT")


class Color(str, enum.Enum):  # noqa: UP042 - str() of a member of a StrEnum is its value
    """Members whose str() is their name."""

    RED = "red"
    GREEN = "green"


KEYS = {
    "ints": ([3, 1, 3], [3, 1, 3]),
    "int8": (np.array([-100, 100, -100], np.int8), [-100, 100, -100]),
    "uint64": (np.array([2**64 - 1, 2**64 - 2, 0], np.uint64), [2**64 - 1, 2**64 - 2, 0]),
    "large uint64": (np.array([2**64 - 1, 2**64 - 2, 2**64 - 1], np.uint64), [2**64 - 1, 2**64 - 2, 2**64 - 1]),
    "int64": (np.array([-(2**63), 2**63 - 1, 0]), [-(2**63), 2**63 - 1, 0]),
    "bools": (np.array([True, False, True]), [True, False, True]),
    "strings": (["b", "a", ""], ["b", "a", ""]),
    "fixed strings": (np.array(["b", "a", ""]), ["b", "a", ""]),
    "string dtype": (np.array(["b", "a", "ä"], np.dtypes.StringDType()), ["b", "a", "ä"]),
    "objects": (np.array(["b", None, "b"], object), ["b", None, "b"]),
    "object ints": (np.array([2**70, None, 1], object), [2**70, None, 1]),
    "floats": ([0.5, math.nan, -0.0], [0.5, None, 0]),
    "float32": (np.array([2.0, 0.25, np.inf], np.float32), [2, 0.25, math.inf]),
    "masked": (np.ma.array([7, 8, 7], mask=[False, True, False]), [7, None, 7]),
    "masked strings": (np.ma.array(["x", "y", "x"], mask=[True, False, False]), [None, "y", "x"]),
    "dates": (np.array(["2026-01-02", NAT, "2026-01-01"], "M8[D]"), ["2026-01-02", None, "2026-01-01"]),
    "date objects": ([datetime.date(2026, 1, 2), None, datetime.date(2026, 1, 1)], ["2026-01-02", None, "2026-01-01"]),
    "coded": (Coded(np.array([1, -1, 0], np.int16), ["a", "b", "never"]), ["b", None, "a"]),
    "coded twice": (Coded(np.array([0, 1, 2]), ["a", "a", None]), ["a", "a", None]),
    "one for all": ("AA", ["AA", "AA", "AA"]),
    "None for all": (None, [None, None, None]),
    "one int for all": (7, [7, 7, 7]),
    "polars": (pl.Series(["b", None, "a"]), ["b", None, "a"]),
    "polars ints": (pl.Series([1, 2, 1]), [1, 2, 1]),
    "two columns": ((["a", "b", "a"], [1, 2, 3]), [("a", 1), ("b", 2), ("a", 3)]),
    "a list of columns": ([np.array([1, 1, 2]), np.array([5, 5, 5])], [(1, 5), (1, 5), (2, 5)]),
    "a column and one for all": ((["a", "b", "a"], 2026), [("a", 2026), ("b", 2026), ("a", 2026)]),
    "one column in a tuple": (([1, 2, 1],), [(1,), (2,), (1,)]),
    "nulls in columns": (([None, "b", "b"], [math.nan, 1.0, 2.0]), [(None, None), ("b", 1), ("b", 2)]),
    "members of an enumeration": ([Color.RED, "green", Color.GREEN], ["red", "green", "green"]),
    "a tuple as a column": ((("b", math.nan, "a"),), [("b",), (None,), ("a",)]),
    "a tuple of large integers": (((2**53 + 1, 2**53, None),), [(2**53 + 1,), (2**53,), (None,)]),
    "a deque": (deque(["b", None, "a"]), ["b", None, "a"]),
    "NumPy's times": (
        [np.datetime64("2026-01-02T05", "h"), np.datetime64("NaT"), np.datetime64(1, "ns")],
        ["2026-01-02T05:00:00", None, "1970-01-01T00:00:00.000000001"],
    ),
    "a time of NumPy's as an object": (
        np.array([np.datetime64(1, "ns"), None, "a"], object),
        ["1970-01-01T00:00:00.000000001", None, "a"],
    ),
    "masked objects": (np.ma.array(np.array([1, "a", "b"], object), mask=[1, 0, 0]), [None, "a", "b"]),
}


NO_KEYS = {
    "text and numbers in a tuple": ((1, "1"),),
    "bools and numbers in a tuple": ((True, 2),),
    "NumPy's bools and numbers": np.array([np.True_, 1], object),
    "durations": [np.timedelta64(1, "ns"), np.timedelta64(1, "ps")],
    "a duration and a number": [np.timedelta64(1, "ns"), 1],
    "a dictionary": {"a": [1]},
    "an int and what equals it": [1, Decimal(1)],
    "an int and a complex number": [1, 1 + 0j],
    "lists": np.array([[1], None], object),
    "durations as objects": np.array([np.timedelta64(1, "ns"), None], object),
}


@pytest.mark.parametrize("by", NO_KEYS.values(), ids=NO_KEYS)
def test_what_is_no_key_is_refused(by):
    grouped = GroupedAccumulator()
    with pytest.raises(TypeError, match="by must hold integers, strings, bools or floats"):
        grouped.update([1.0, 2.0], [0.0, 0.0], by=by)
    assert len(grouped) == 0


CRAFTED = {
    "rows of three words": lambda header: {**header, "words": 3, "keys": ["a"] * 96},
    "too many keys": lambda header: {**header, "keys": ["a", "b", "c"]},
    "no words": lambda header: {name: value for name, value in header.items() if name != "words"},
    "no keys": lambda header: {name: value for name, value in header.items() if name != "keys"},
    "keys of lists": lambda header: {**header, "keys": [["a", ["b"]], ["c", ["d"]]]},
    "an odd length": lambda header: {**header, "compressed": "x"},
}


@pytest.mark.parametrize("change", CRAFTED.values(), ids=CRAFTED)
def test_crafted_groups_are_refused(change):
    data = GroupedAccumulator().update([1.0, 2.0], [0.0, 0.0], by=["a", "b"]).to_bytes()
    kind, header, words = stored.unpack(data)
    with pytest.raises(ValueError, match="the state"):
        GroupedAccumulator.from_bytes(stored.pack(kind, change(header), words))


def test_a_column_and_a_tuple_of_one_are_not_mixed():
    plain = GroupedAccumulator().update([1.0], [0.0], by=["a"])
    tuples = GroupedAccumulator().update([1.0], [0.0], by=(["a"],))
    for call in (lambda: plain.update([2.0], [0.0], by=(["a"],)), lambda: plain + tuples, lambda: tuples - plain):
        with pytest.raises(ValueError, match="by must be one column, or a tuple of one, as before"):
            call()
    assert plain.result("sum") == {"a": 1.0}


@pytest.mark.parametrize("case", KEYS)
def test_kinds_of_keys(case):
    by, expected = KEYS[case]
    labels = np.array([1.0, 2.0, 4.0])
    grouped = GroupedAccumulator().update(labels, np.zeros(3), by=by)
    sums = {}
    for key, label in zip(expected, labels, strict=True):
        sums[key] = sums.get(key, 0.0) + label**2
    result = grouped.result("sum")
    assert result == sums
    assert [type(key) for key in result] == [type(key) for key in sorted(sums, key=streamloss.keys.order)]
    back = GroupedAccumulator.from_bytes(grouped.to_bytes())
    assert back == grouped
    assert back.keys() == grouped.keys()


def test_a_category_that_no_row_has():
    column = pd.Series(pd.Categorical([None, None], categories=np.array([], np.int64)))
    assert GroupedAccumulator().update([1.0, 2.0], [0.0, 0.0], by=column).result("sum") == {None: 5.0}


def test_a_dictionary_of_arrow_with_nulls():
    table = pa.table({"k": pa.chunked_array([["a", None, "b"]]).dictionary_encode(), "n": [1, 1, 2]})
    assert GroupedAccumulator().update([1.0] * 3, [0.0] * 3, by=table["k"]).keys() == [None, "a", "b"]
    assert GroupedAccumulator().update([1.0] * 3, [0.0] * 3, by=table).keys() == [(None, 1), ("a", 1), ("b", 2)]


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_frame_is_several_columns(frame):
    grouped = GroupedAccumulator().update([1.0, 2.0], [0.0, 0.0], by=frame({"k": ["x", "y"], "n": [7, None]}))
    assert grouped.result("sum") == {("x", 7): 1.0, ("y", None): 4.0}


def test_keys_are_the_same_whatever_dtype_nulls_made_of_them():
    whole = GroupedAccumulator().update([1.0, 2.0, 3.0], [0.0] * 3, by=[1.0, math.nan, 2.0])
    parts = GroupedAccumulator().update([1.0], [0.0], by=[1]).update([2.0], [0.0], by=[None])
    assert parts.update([3.0], [0.0], by=np.array([2], np.uint8)) == whole
    assert whole.keys() == [None, 1, 2]


@pytest.mark.parametrize("spread", [3, 1000, 9000, 100_000])
@pytest.mark.parametrize("low", [-(2**63), -(2**31) - 500, -500, 0, 1, 2**31 - 500, 2**32 - 500, 2**63 - 500, 2**63])
def test_whole_numbers_wherever_they_lie(low, spread):
    by = [low + int(offset) for offset in np.random.default_rng(7).integers(0, spread, 2000)]
    labels = np.arange(2000.0)
    array = np.array(by, np.uint64 if low + spread > 2**63 else np.int64)
    sums = {}
    for key, label in zip(by, labels.tolist(), strict=True):
        sums[key] = sums.get(key, 0.0) + label
    assert GroupedAccumulator().update_losses(labels, by=array).result("sum") == sums


@pytest.mark.parametrize("dtype", [*"bBhHiIlLqQ", ">i2", ">i4", ">u8"])
@pytest.mark.parametrize("groups", [20, 128, 256, 900])
def test_whole_numbers_of_many_rows_at_either_end_of_their_dtype(dtype, groups):
    rows, bounds = 2 * numbering.SLICE + 5, np.iinfo(dtype)
    for low in {int(bounds.min), 0, 1, int(bounds.max) - groups + 1}:
        if not bounds.min <= low <= bounds.max - groups + 1:
            continue
        by = (low + np.arange(rows, dtype=object) * 7 % groups).astype(dtype)
        kept, ones = by.copy(), np.ones(rows)
        grouped = GroupedAccumulator(reduction="sum").update(ones, 1 - ones, by=by)
        found, counts = np.unique(by, return_counts=True)
        assert grouped.result() == dict(zip(found.tolist(), counts.tolist(), strict=True))
        np.testing.assert_array_equal(by, kept)
        pairs = GroupedAccumulator(reduction="sum").update(ones[:999].reshape(-1, 3), np.zeros((333, 3)), by=by[:333])
        assert pairs.total().count == 999
        assert pairs.result() == {int(key): 3.0 * (by[:333] == key).sum() for key in by[:333]}


def test_numbers_far_apart_and_many():
    by = np.random.default_rng(5).integers(-(2**62), 2**62, 3000)
    by[::7] = by[0]
    labels = np.ones(3000)
    grouped = GroupedAccumulator().update(labels, labels, by=(by, by % 100_000))
    assert grouped.keys() == sorted(set(zip(by.tolist(), (by % 100_000).tolist(), strict=True)))


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, jnp.asarray], ids=["numpy", "torch", "jax"])
def test_a_list_of_scalars_of_a_library_is_one_column(make):
    keys = [make(key) for key in (1, 2, 1)]
    assert GroupedAccumulator().update([0.0] * 3, [0.0, 1.0, 2.0], by=keys).result("sum") == {1: 4.0, 2: 1.0}


WRONG = {
    "a list of tuples": (
        lambda acc: acc.update([1.0, 2.0], [1.0, 2.0], by=[("AA", "JFK"), ("UA", "LGA")]),
        TypeError,
        r"got a list of tuples; write tuple\(zip\(\*by\)\)",
    ),
    "masked in a list": (lambda acc: acc.update([1.0, 2.0], [1.0, 2.0], by=[1, np.ma.masked]), TypeError, "by must"),
    "subtract other values": (
        lambda acc: acc - GroupedAccumulator().update([1.0], [9.0], by=[1]),
        ValueError,
        "what is taken out was never in",
    ),
    "too few": (lambda acc: acc.update([1.0, 2.0], [1.0, 2.0], by=[1]), ValueError, r"by .* 2 rows, got shape \(1,\)"),
    "many, in two dimensions": (
        lambda acc: acc.update([1.0], [1.0], by=np.ones((2, 100_000), int)),
        ValueError,
        r"by .* 1 rows, got shape \(2, 100000\)",
    ),
    "two dimensions": (
        lambda acc: acc.update([1.0], [1.0], by=[np.zeros((1, 1), int)]),
        ValueError,
        "by must have one",
    ),
    "a scalar": (
        lambda acc: acc.update(1.0, 2.0, by=[1]),
        ValueError,
        r"labels must have at least one dimension \(the rows that `by` groups\), got a scalar",
    ),
    "text in two dimensions": (
        lambda acc: acc.update([1.0], [1.0], by=np.array([["a"]])),
        ValueError,
        r"by must have one key for each of 1 rows, got shape \(1, 1\)",
    ),
    "complex": (lambda acc: acc.update([1.0], [1.0], by=[1j]), TypeError, "by must hold .* got dtype complex128"),
    "durations": (lambda acc: acc.update([1.0], [1.0], by=np.zeros(1, "m8[s]")), TypeError, "by must hold"),
    "bytes": (lambda acc: acc.update([1.0], [1.0], by=np.array([b"a"])), TypeError, "by must hold"),
    "decimals": (lambda acc: acc.update([1.0], [1.0], by=[Decimal(1)]), TypeError, "got Decimal"),
    "mixed": (lambda acc: acc.update([1.0] * 2, [1.0] * 2, by=np.array(["a", 1], object)), TypeError, "got int, str"),
    "a list of both": (lambda acc: acc.update([1.0] * 2, [1.0] * 2, by=["1", 1]), TypeError, "got int, str"),
    "bools and numbers": (lambda acc: acc.update([1.0] * 2, [1.0] * 2, by=[True, 1]), TypeError, "bool and numbers"),
    "another kind": (
        lambda acc: acc.update([1.0], [1.0], by=["1"]),
        TypeError,
        "got strings after numbers in column 0",
    ),
    "more columns": (lambda acc: acc.update([1.0], [1.0], by=([1], [2])), ValueError, "as many columns as before, 1"),
    "no column": (lambda acc: acc.update([1.0], [1.0], by=()), ValueError, "at least one column"),
    "codes of floats": (lambda acc: acc.update([1.0], [1.0], by=Coded(np.zeros(1), ["a"])), TypeError, "codes of int"),
    "codes beyond": (
        lambda acc: acc.update([1.0], [1.0], by=Coded(np.ones(1, int), ["a"])),
        ValueError,
        "beyond its 1",
    ),
    "labels": (lambda acc: acc.update(["x"], [1.0], by=[1]), TypeError, "labels must be real numbers"),
    "shapes": (lambda acc: acc.update([1.0], [[1.0]], by=[1]), ValueError, "same shape"),
    "merge an accumulator": (lambda acc: acc.merge(Accumulator()), TypeError, "others must be GroupedAccumulators"),
    "merge another loss": (lambda acc: acc.merge(GroupedAccumulator("huber")), ValueError, "losses differ"),
    "merge other keys": (
        lambda acc: acc.merge(GroupedAccumulator().update([1.0], [1.0], by=["a"])),
        TypeError,
        "got strings after numbers",
    ),
    "merge two of other keys": (
        lambda acc: acc.merge(acc.copy(), GroupedAccumulator().update([1.0], [1.0], by=["a"])),
        TypeError,
        "got strings after numbers",
    ),
    "subtract what was not in": (
        lambda acc: acc - GroupedAccumulator().update([1.0], [1.0], by=[9]),
        ValueError,
        "never in",
    ),
    "standard error": (lambda acc: acc.standard_error(), ValueError, "stderr=True"),
    "unknown reduction": (lambda acc: acc.result("median"), ValueError, "reduction must be one of"),
    "bytes of an accumulator": (
        lambda acc: GroupedAccumulator.from_bytes(Accumulator().to_bytes()),
        ValueError,
        "of kind 'accumulator', expected 'grouped accumulator'",
    ),
    "bytes of groups": (
        lambda acc: Accumulator.from_bytes(acc.to_bytes()),
        ValueError,
        "of kind 'grouped accumulator', expected 'accumulator'",
    ),
}


def test_lists_keep_their_keys_apart():
    """NumPy would round one to a float64 beside a fraction, and drop the end of the other."""
    for by in ([2**53 + 1, 2**53, 0.5], ["a\0", "a", "b"], [2**63, -1, 0], [2**70, 1, 2]):
        found = GroupedAccumulator().update(np.zeros(3), np.ones(3), by=by)
        assert (len(found), set(found)) == (3, set(by))


def test_lists_of_numpy_scalars_are_those_of_python():
    for by in ([2**53 + 1, 2**53, 0.5], ["a\0", "a", "b"]):
        of_numpy = [np.str_(key) if isinstance(key, str) else np.array(key)[()] for key in by]
        found = GroupedAccumulator().update(np.zeros(3), np.ones(3), by=of_numpy)
        assert (len(found), set(found), set(map(type, found))) == (3, set(by), set(map(type, by)))
    for mixed in ([np.str_("1"), np.int64(1)], [np.bool_(True), np.int64(2)]):
        with pytest.raises(TypeError, match="one kind in a column"):
            GroupedAccumulator().update(np.zeros(2), np.ones(2), by=mixed)


def test_the_groups_are_a_mapping():
    grouped = GroupedAccumulator().update([1.0, 2.0, 4.0], np.zeros(3), by=["b", "a", "b"])
    assert [group.result("sum") for group in grouped.values()] == [4.0, 17.0]
    assert dict(zip(grouped.keys(), grouped.values(), strict=True)) == dict(grouped) == dict(grouped.items())
    assert grouped.get("a") == grouped["a"]
    assert grouped.get("c") is None
    assert grouped.get("c", 0) == 0
    grouped.get("a").update(1.0, 2.0)  # a copy
    assert grouped["a"].count == 1


TIMES = ["2020-01-01 00:00:00", "2020-01-01T00:00:00", "2020-01-01T00:00:00.000"]


@pytest.mark.parametrize("time", [*TIMES, np.datetime64(TIMES[0]), datetime.datetime(2020, 1, 1)])
def test_a_time_is_one_key_however_it_is_written(time):
    labels = np.ones(len(TIMES))
    found = GroupedAccumulator().update(labels, 0 * labels, by=TIMES)
    assert found.keys() == [TIMES[1]]
    alone = GroupedAccumulator().update([1.0], [0.0], by=[time])
    assert alone.keys() == [TIMES[1]]
    assert len(found + alone) == 1
    assert time in found
    assert found[time].count == 3
    both = GroupedAccumulator().update(labels, 0 * labels, by=(TIMES, [1, 2, 1]))
    assert both.keys() == [(TIMES[1], 1), (TIMES[1], 2)]
    assert both[time, 1].count == 2


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (
            ["2020-01-01 00:00:00+00", "2020-01-01T00:00:00.000000+0000", "2020-01-01 00:00:00Z"],
            "2020-01-01T00:00:00+00:00",
        ),
        (["2020-01-01T00:00:00.50-0330", "2020-01-01 00:00:00.5-03:30"], "2020-01-01T00:00:00.5-03:30"),
        (["12:30:15.500000000", "12:30:15.5", datetime.time(12, 30, 15, 500_000)], "12:30:15.5"),
        (["00:00:00", "00:00:00.000", datetime.time()], "00:00:00"),
    ],
)
def test_zones_and_times_of_the_day_have_one_form(texts, form):
    assert GroupedAccumulator().update(np.ones(len(texts)), np.ones(len(texts)), by=texts).keys() == [form]


def test_text_of_times_that_earlier_versions_kept_becomes_one_key():
    kept = GroupedAccumulator().update(np.ones(2), np.zeros(2), by=["a", "b"])
    states = kept._canonical()[1]
    (time,) = kept.copy().reset()._filled(TIMES[:2], states).items()
    assert time == (TIMES[1], kept.total())


def test_a_group_is_looked_up_by_any_form_of_its_key():
    found = GroupedAccumulator().update(np.zeros(2), np.ones(2), by=[1, None])
    assert all(key in found for key in (1, 1.0, np.float32(1), None, float("nan")))
    assert 2 not in found
    both = GroupedAccumulator().update(np.zeros(2), np.ones(2), by=([1, None], ["a", "b"]))
    assert both[np.int8(1), "a"].count == both[float("nan"), "b"].count == 1


@pytest.mark.parametrize("case", WRONG)
def test_refusals_change_nothing(case):
    act, error, message = WRONG[case]
    acc = GroupedAccumulator().update([1.0, 2.0], [2.0, 4.0], by=[1, 2])
    before = acc.to_bytes()
    with pytest.raises(error, match=message):
        act(acc)
    assert acc.to_bytes() == before


def test_nan_raise_names_the_place():
    acc = GroupedAccumulator(nan="raise")
    with pytest.raises(ValueError, match=r"predictions has NaN at index \[1\]"):
        acc.update([1.0, 2.0], [1.0, math.nan], by=[1, 2])
    assert len(acc) == 0
    assert acc.update([1.0], [2.0], by=["any kind is still welcome"]).count == 1


def test_an_interrupt_when_all_is_done_undoes_it(monkeypatch):
    acc = GroupedAccumulator().update([1.0], [3.0], by=[1])
    before = acc.to_bytes()
    add_states = streamloss.grouped.add_states

    def interrupted(*arguments):
        add_states(*arguments)
        if arguments[3] > 0:
            raise KeyboardInterrupt

    monkeypatch.setattr("streamloss.grouped.add_states", interrupted)
    with pytest.raises(KeyboardInterrupt):
        acc.update([1.0, 2.0], [2.0, 4.0], by=[1, 2])
    assert acc.to_bytes() == before
    assert acc.keys() == [1]


def test_every_flipped_bit_is_noticed():
    data = GroupedAccumulator().update(np.arange(200.0), np.zeros(200), by=np.arange(200) % 150).to_bytes()
    rng = np.random.default_rng(6)
    for place in rng.integers(0, len(data), 300).tolist():
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(ValueError, match="state"):
            GroupedAccumulator.from_bytes(broken)
    for end in rng.integers(0, len(data), 100).tolist():
        with pytest.raises(ValueError, match="state"):
            GroupedAccumulator.from_bytes(data[:end])


def test_what_is_shown():
    acc = GroupedAccumulator("huber(delta=2)", nan="omit", stderr=True)
    assert repr(acc) == "GroupedAccumulator(huber(delta=2.0), groups=0, n=0, sum_by_nonzero_weights=nan)"
    acc.update([1.0, math.nan, 3.0], [2.0, 4.0, 3.0], by=["<a>", None, "b"])
    assert repr(acc) == "GroupedAccumulator(huber(delta=2.0), groups=3, n=2, skipped=1, sum_by_nonzero_weights=0.25)"
    page = acc._repr_html_()
    assert "&lt;a&gt;" in page
    assert "None" in page
    many = GroupedAccumulator().update(np.zeros(60), np.zeros(60), by=np.arange(60))
    assert "and 10 more" in many._repr_html_()
    assert "standard error" in Accumulator(stderr=True)._repr_html_()
    assert "mean" in Accumulator().update([1.0], [2.0])._repr_html_()


def test_update_losses_reset_and_save(tmp_path):
    acc = GroupedAccumulator(stderr=True).update_losses([1.0, 2.0, 6.0], [1.0, 1.0, 0.5], by=list("aba"))
    assert acc.result("sum") == {"a": 4.0, "b": 2.0}
    assert acc.standard_error("sum_over_batch_size")["a"] == 1.0
    assert (acc.count, acc.nonzero_count, acc.skipped_count) == (3, 3, 0)
    acc.save(tmp_path / "groups.slstate")
    assert GroupedAccumulator.load(tmp_path / "groups.slstate") == acc
    assert len(acc.reset()) == 0
    assert acc.update([1.0], [2.0], by=[1]).keys() == [1]
