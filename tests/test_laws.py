"""The laws of the algebra, for every loss: equality is always to the bit."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamloss
from streamloss import Accumulator
from tests.backend import examples
from tests.strategies import chunks, cuts

pytestmark = pytest.mark.filterwarnings("error")
few, many = examples(12), examples(60)


def seen(loss, *parts, nan="propagate"):
    accumulator = Accumulator(loss, nan=nan)
    for part in parts:
        accumulator.update(*part)
    return accumulator


def rows(chunk, index):
    """The same rows of labels, predictions and weights."""
    return tuple(part[index] if isinstance(part, np.ndarray) else part for part in chunk)


@few
@given(a=chunks())
def test_empty_is_the_identity(loss, a):
    assert seen(loss, a) + Accumulator(loss) == Accumulator(loss) + seen(loss, a) == seen(loss, a)


@few
@given(a=chunks(), b=chunks())
def test_merge_is_commutative(loss, a, b):
    left, right = seen(loss, a), seen(loss, b)
    assert left + right == right + left == seen(loss, a, b)


@few
@given(a=chunks(), b=chunks(), c=chunks())
def test_merge_is_associative(loss, a, b, c):
    x, y, z = seen(loss, a), seen(loss, b), seen(loss, c)
    assert (x + y) + z == x + (y + z) == Accumulator(loss).merge(x, y, z) == sum([x, y, z])


@few
@given(a=chunks(), data=st.data())
def test_any_chunking_is_one_shot(loss, a, data):
    parts = [rows(a, part) for part in data.draw(cuts(a[0].size))]
    assert seen(loss, *parts) == seen(loss, a)


@few
@given(a=chunks(), seed=st.integers(0, 1000))
def test_any_order_of_rows_is_the_same(loss, a, seed):
    order = np.random.default_rng(seed).permutation(a[0].size)
    assert seen(loss, rows(a, order)) == seen(loss, a)


@few
@given(a=chunks())
def test_weight_two_is_the_row_twice_for_the_sums(loss, a):
    labels, predictions, _ = a
    once, twice = seen(loss, (labels, predictions, 2.0)), seen(loss, a[:2], a[:2])
    assert once.count * 2 == twice.count
    # 2 * loss overflows where loss + loss, exactly added, does not.
    if np.isfinite(once.loss_sum):
        assert once.loss_sum == twice.loss_sum
    assert once.weight_sum == twice.weight_sum


@few
@given(a=chunks())
def test_weight_zero_changes_no_sum(loss, a):
    before = seen(loss, a)
    after = before.copy().update(np.ones(5), np.full(5, 0.5), 0.0)  # where every loss is finite
    assert (after.loss_sum, after.weight_sum, after.nonzero_count) == pytest.approx(
        (before.loss_sum, before.weight_sum, before.nonzero_count), rel=0, abs=0, nan_ok=True
    )
    assert after.count == before.count + 5


@few
@given(a=chunks(), b=chunks())
def test_merge_leaves_its_arguments_unchanged(loss, a, b):
    left, right = seen(loss, a), seen(loss, b)
    before = left.state.tobytes(), right.state.tobytes()
    merged = Accumulator(loss).merge(left, right)
    merged.update(*a)
    assert (left.state.tobytes(), right.state.tobytes()) == before


@few
@given(a=chunks(), b=chunks())
def test_subtraction_undoes_a_merge_and_an_update(loss, a, b):
    x, y = seen(loss, a), seen(loss, b)
    assert (x + y) - y == x
    assert x.copy().update(*b) - y == x
    assert (x + y) - (x + y) == Accumulator(loss)


@few
@given(a=chunks(), b=chunks())
def test_asking_changes_nothing_and_may_be_repeated(loss, a, b):
    quiet = seen(loss, a, b)
    asked = seen(loss, a)
    first = [asked.result(r) for r in streamloss.Reduction if r != "none"]
    again = [asked.result(r) for r in streamloss.Reduction if r != "none"]
    repr(asked), asked.state, asked.loss_sum
    assert np.array_equal(first, again, equal_nan=True)
    assert asked.update(*b) == quiet


@few
@given(a=chunks())
def test_an_empty_chunk_is_a_no_op(loss, a):
    x = seen(loss, a)
    assert x.copy().update([], []).update(np.empty((0, 3)), np.empty((0, 3)), np.empty(0)) == x


@few
@given(a=chunks(), b=chunks())
def test_a_copy_is_independent(loss, a, b):
    x = seen(loss, a)
    before = x.state.tobytes()
    for other in (x.copy(), copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other == x
        other.update(*b).reset()
        assert x.state.tobytes() == before
    assert x.copy().reset() == Accumulator(loss)


@few
@given(a=chunks(), b=chunks())
def test_states_may_be_added_by_anything_that_adds_int64(loss, a, b):
    x, y = seen(loss, a), seen(loss, b)
    assert Accumulator.from_state(x.state + y.state, loss) == x + y
    assert Accumulator.from_state(x.state, loss).state.tobytes() == x.state.tobytes()


@few
@given(a=chunks())
def test_equal_states_are_equal_bytes(loss, a):
    x = seen(loss, a)
    around = (x + seen(loss, ([1e300, -3.0], [2.0, 1e-300]))) - seen(loss, ([1e300, -3.0], [2.0, 1e-300]))
    assert around.state.tobytes() == x.state.tobytes()
    digits = x.state[-68:]
    assert (digits[:-1] >= 0).all()
    assert (digits[:-1] < 2**32).all()


@many
@given(a=chunks(), b=chunks())
def test_omitting_nan_is_leaving_the_rows_out(a, b):
    for labels, predictions, weights in (a, b):
        column = np.broadcast_to(1.0 if weights is None else weights, labels.shape)
        keep = ~(np.isnan(labels) | np.isnan(predictions) | np.isnan(column))
        omitted = Accumulator(nan="omit").update(labels, predictions, weights)
        left = rows((labels, predictions, weights), keep)
        assert omitted.skipped_count == labels.size - keep.sum()
        assert omitted.count == keep.sum()
        assert np.array_equal(omitted.state[3:], Accumulator().update(*left).state[3:])


@many
@given(a=chunks(), seed=st.integers(0, 1000))
def test_a_masked_element_was_never_there(a, seed):
    mask = np.random.default_rng(seed).random(a[0].size) < 0.7
    assert Accumulator().update(*a, mask=mask) == Accumulator().update(*rows(a, mask))


@many
@given(a=chunks())
def test_losses_computed_before_give_the_same(a):
    labels, predictions, weights = (part.astype(np.float64) if isinstance(part, np.ndarray) else part for part in a)
    with np.errstate(all="ignore"):
        losses = (predictions - labels) * (predictions - labels)
    assert Accumulator().update_losses(losses, weights) == Accumulator().update(labels, predictions, weights)


def test_accumulators_of_a_subclass_are_added_in_any_order():
    class Named(Accumulator):
        pass

    a, b = Accumulator().update(1.0, 3.0), Named().update(2.0, 5.0)
    assert a + b == b + a == sum([b, a]) == Accumulator().update([1.0, 2.0], [3.0, 5.0])
    assert a.merge(b) - b == Accumulator().update(1.0, 3.0)


@pytest.mark.parametrize("nan", ["propagate", "omit"])
@pytest.mark.parametrize("weighted", [False, True])
def test_updates_of_other_sizes_than_those_before(nan, weighted):
    """What one update needed is a guess for the next: here it is always wrong."""
    rng = np.random.default_rng(8)
    accumulator, parts = Accumulator("absolute_error", nan=nan), []
    scales = [0, 300, -300, 1, -320, 306, 0, 150, -20, 20]
    for rows, scale, other in zip(2 * [1, 7, 700, 3000, 9], scales, reversed(scales), strict=True):
        labels, predictions = rng.standard_normal((2, rows)) * 10.0**scale
        weights = rng.standard_normal(rows) * 10.0**other if weighted else None
        if scale == 150:
            predictions[0] = np.nan
        accumulator.update(labels, predictions, weights)
        parts.append(Accumulator("absolute_error", nan=nan).update(labels, predictions, weights))
        assert accumulator == sum(parts)
    assert np.array_equal(accumulator.state, sum(parts).state)


def test_incompatible_losses_refuse():
    a, b = Accumulator("huber"), Accumulator("huber(delta=2)")
    for mix in (lambda: a + b, lambda: a - b, lambda: a.merge(b)):
        with pytest.raises(ValueError, match=r"huber\(delta=1.0\) here, huber\(delta=2.0\) there"):
            mix()
    assert a != b


def test_what_was_never_in_cannot_be_taken_out():
    a, b = Accumulator().update(1, 2), Accumulator().update([1, 2], [3, 4])
    with pytest.raises(ValueError, match="never in"):
        a - b
    assert a == Accumulator().update(1, 2)


def test_accumulators_of_the_same_user_function_merge_after_pickling():
    a = Accumulator(lambda label, prediction: label * prediction).update([1, 2], [3, 4])
    b = Accumulator(lambda label, prediction: label * prediction).update([1, 2], [3, 4])
    c = Accumulator(lambda label, prediction: label + prediction).update([1, 2], [3, 4])
    assert (a + b).result("sum") == 22.0
    with pytest.raises(ValueError, match="differ"):
        a + c
