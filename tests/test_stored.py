"""States as bytes, files and pickles.

tests/data/state_v1.slstate was written once, by version 0.1.0, with

    frozen_rows_accumulator().save("tests/data/state_v1.slstate")

and is never written again: it stands for the files that users have.
"""

import copy
import hashlib
import json
import math
import os
import pickle
import random
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from streamloss import Accumulator, losses
from streamloss.losses import LOSSES

FROZEN = Path(__file__).parent / "data" / "state_v1.slstate"
FROZEN_DIGEST = "27d03cb418ebbdbb20f06fbc74fc4ee96fef06b7cdb22d48b315b00c0c8066c3"
FROZEN_COUNTS = (275, 250, 25)
FROZEN_LOSS_SUM = -7247759514.449219
FROZEN_WEIGHT_SUM = -274.0
FROZEN_MEAN = 26451677.060033645

PARAMETRISED = [
    LOSSES["huber"](delta=0.1),
    LOSSES["huber"](delta=5e-324),
    LOSSES["huber"](delta=1.7976931348623157e308),
    LOSSES["quantile"](q=1 / 3),
    LOSSES["binary_cross_entropy"](eps=1e-300),
]


def cubed(label, prediction):
    return abs(prediction - label) ** 3


def frozen_rows():
    """300 rows: labels, predictions and weights by integer arithmetic, every 17th label and every 41st weight NaN."""
    i = np.arange(300)
    labels = (i * 37 % 101 - 50) / 8
    predictions = (i * 53 % 97 - 48) / 4 + np.where(i % 50 == 7, 2.0**30, 0.0) + np.where(i % 50 == 9, 2.0**-200, 0.0)
    weights = (i * 29 % 11 - 7) / 2
    labels[::17] = np.nan
    weights[::41] = np.nan
    labels[i % 50 == 9] = 0.0
    predictions[i % 50 == 9] = 2.0**-200
    return labels, predictions, weights


def frozen_rows_accumulator():
    return Accumulator("huber(delta=1.5)", reduction="mean", nan="omit").update(*frozen_rows())


def filled(loss, **options):
    """An accumulator that has seen NaN, an infinity and negative sums."""
    acc = Accumulator(loss, **options).update([0.25, 0.5, math.nan], [0.5, 0.125, 1.0], [-3.0, 1e-300, 2.0])
    return acc.update_losses([math.inf], [-1e300])


def assert_same(back, acc):
    assert back is not acc
    assert back == acc
    assert back.state.tobytes() == acc.state.tobytes()
    assert (back.loss, back.reduction, back.nan) == (acc.loss, acc.reduction, acc.nan)
    assert repr(back) == repr(acc)
    assert back.to_bytes() == acc.to_bytes()
    before = acc.state.tobytes()
    back.update([1.0], [0.5])
    assert back != acc
    assert acc.state.tobytes() == before


def through_file(acc, tmp_path):
    acc.save(tmp_path / "state")
    return Accumulator.load(str(tmp_path / "state"))


ROUND_TRIPS = {
    "bytes": lambda acc, tmp_path: Accumulator.from_bytes(acc.to_bytes()),
    "bytearray": lambda acc, tmp_path: Accumulator.from_bytes(bytearray(acc.to_bytes())),
    "file": through_file,
    "copy": lambda acc, tmp_path: copy.copy(acc),
    "deepcopy": lambda acc, tmp_path: copy.deepcopy([acc])[0],
    "copy method": lambda acc, tmp_path: acc.copy(),
} | {
    f"pickle {protocol}": lambda acc, tmp_path, protocol=protocol: pickle.loads(pickle.dumps(acc, protocol))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("trip", ROUND_TRIPS)
@pytest.mark.parametrize("loss", [*LOSSES.values(), *PARAMETRISED], ids=repr)
def test_nothing_is_lost_on_a_round_trip(loss, trip, tmp_path):
    acc = filled(loss, reduction="mean", nan="omit")
    assert acc.skipped_count == 1
    assert_same(ROUND_TRIPS[trip](acc, tmp_path), acc)


@pytest.mark.parametrize("trip", ROUND_TRIPS)
def test_an_empty_accumulator_survives_a_round_trip(trip, tmp_path):
    assert_same(ROUND_TRIPS[trip](Accumulator(), tmp_path), Accumulator())


@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "sum_over_batch_size", "sum_by_nonzero_weights"])
@pytest.mark.parametrize("nan", ["propagate", "omit", "raise"])
def test_the_options_are_kept(reduction, nan):
    acc = Accumulator(reduction=reduction, nan=nan).update([1.0], [3.0])
    for back in (Accumulator.from_bytes(acc.to_bytes()), pickle.loads(pickle.dumps(acc)), acc.copy()):
        assert_same(back, acc)


@pytest.mark.parametrize("trip", [name for name in ROUND_TRIPS if name.startswith(("pickle", "copy", "deep"))])
def test_a_users_function_survives_pickle_and_copy(trip, tmp_path):
    acc = filled(cubed, nan="omit")
    assert_same(ROUND_TRIPS[trip](acc, tmp_path), acc)


def test_a_users_function_is_passed_again_to_read_its_bytes(tmp_path):
    acc = filled(cubed, nan="omit")
    acc.save(tmp_path / "state")
    assert_same(Accumulator.from_bytes(acc.to_bytes(), loss=cubed), acc)
    assert_same(Accumulator.load(tmp_path / "state", loss=cubed), acc)
    with pytest.raises(ValueError, match="cubed"):
        Accumulator.from_bytes(acc.to_bytes())
    with pytest.raises(ValueError, match="cubed"):
        Accumulator.load(tmp_path / "state")
    with pytest.raises(ValueError, match="squared_error"):
        Accumulator.from_bytes(acc.to_bytes(), loss=losses.squared_error)


def test_bytes_of_another_loss_are_refused():
    data = Accumulator(losses.huber(delta=2)).to_bytes()
    with pytest.raises(ValueError, match="huber"):
        Accumulator.from_bytes(data, loss=losses.huber)
    assert Accumulator.from_bytes(data, loss=losses.huber(delta=2)).loss == losses.huber(delta=2)


def test_a_users_function_is_never_read_as_the_builtin_of_its_name():
    def squared_error(label, prediction):
        return abs(prediction - label)

    acc = Accumulator(squared_error).update([1.0], [4.0])
    with pytest.raises(ValueError, match="squared_error"):
        Accumulator.from_bytes(acc.to_bytes())


def test_the_layout_is_the_documented_one():
    acc = filled("huber(delta=1.5)", reduction="mean", nan="omit")
    data = acc.to_bytes()
    magic, version, header_length, words = struct.unpack_from("<8sIII", data)
    header, rest = data[20 : 20 + header_length], data[20 + header_length :]
    assert (magic, version) == (b"slstate\n", 1)
    assert json.loads(header) == {"loss": "huber(delta=1.5)", "reduction": "mean", "nan": "omit"}
    assert rest[:-32] == struct.pack(f"<{words}q", *acc.state.tolist())
    assert rest[-32:] == hashlib.sha256(data[:-32]).digest()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=repr)
def test_the_bytes_are_few(loss):
    assert len(filled(loss).to_bytes()) < 4096


def test_bytes_hold_no_pickle(monkeypatch):
    acc = filled("huber", nan="omit")

    def refuse(*args, **kwargs):
        raise AssertionError("pickle was used")

    for name in ("dumps", "loads", "dump", "load", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    data = acc.to_bytes()
    assert_same(Accumulator.from_bytes(data), acc)
    monkeypatch.undo()
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(data)


def test_a_flipped_bit_is_refused_wherever_it_is():
    data = filled("huber", nan="omit").to_bytes()
    bits = random.Random(1)
    flips = [(place, 1 << bits.randrange(8)) for place in range(len(data))]
    flips += [(place, 1 << bit) for place in (0, 7, 8, 12, 16, 20, 30, 200, len(data) - 1) for bit in range(8)]
    for place, flip in flips:
        damaged = bytearray(data)
        damaged[place] ^= flip
        with pytest.raises(ValueError):
            Accumulator.from_bytes(bytes(damaged))


def test_every_truncation_is_refused():
    data = filled("huber", nan="omit").to_bytes()
    for length in range(len(data)):
        with pytest.raises(ValueError):
            Accumulator.from_bytes(data[:length])


@pytest.mark.parametrize("tail", [b"\0", b"\n", b"\0" * 8, bytes(range(40))])
def test_appended_bytes_are_refused(tail):
    data = filled("huber", nan="omit").to_bytes()
    with pytest.raises(ValueError):
        Accumulator.from_bytes(data + tail)
    with pytest.raises(ValueError):
        Accumulator.from_bytes(data + data)


def forged(header, words, version=1):
    """What another program might write, with a checksum that is right."""
    body = struct.pack("<8sIII", b"slstate\n", version, len(header), len(words)) + header
    body += np.array(words, "<i8").tobytes()
    return body + hashlib.sha256(body).digest()


WORDS = Accumulator().state.tolist()
HEADER = {"loss": "squared_error", "reduction": "sum", "nan": "omit"}


def test_forging_is_done_right():
    assert Accumulator.from_bytes(forged(json.dumps(HEADER).encode(), WORDS)) == Accumulator()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b"{}",
        *(
            json.dumps(HEADER | change).encode()
            for change in (
                {"loss": "of nobody"},
                {"loss": "huber(delta=-1)"},
                {"loss": 5},
                {"loss": None},
                {"reduction": "median"},
                {"reduction": 5},
                {"nan": "ignore"},
                {"nan": []},
            )
        ),
    ],
)
def test_a_header_that_encode_never_writes_is_refused(header):
    with pytest.raises(ValueError):
        Accumulator.from_bytes(forged(header, WORDS))


@pytest.mark.parametrize("words", [[], WORDS[:-1], [*WORDS, 0], [-1, *WORDS[1:]]])
def test_words_that_are_no_state_are_refused(words):
    with pytest.raises(ValueError):
        Accumulator.from_bytes(forged(json.dumps(HEADER).encode(), words))


def test_a_later_version_is_refused_by_its_number():
    with pytest.raises(ValueError, match="version 2"):
        Accumulator.from_bytes(forged(json.dumps(HEADER).encode(), WORDS, version=2))


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "broken").write_bytes(b"slstate\n")
    with pytest.raises(ValueError, match="broken"):
        Accumulator.load(tmp_path / "broken")
    with pytest.raises(FileNotFoundError):
        Accumulator.load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        Accumulator().save(tmp_path / "missing" / "state")


def test_saving_replaces_a_file(tmp_path):
    path = tmp_path / "state"
    Accumulator().save(path)
    acc = filled("squared_error")
    acc.save(path)
    assert_same(Accumulator.load(path), acc)
    assert os.listdir(tmp_path) == ["state"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError("no space left on device"), KeyboardInterrupt()], ids=lambda e: type(e).__name__
)
def test_a_save_that_fails_leaves_the_old_file(step, error, tmp_path, monkeypatch):
    path = tmp_path / "state"
    acc = filled("squared_error")
    acc.save(path)
    old = path.read_bytes()

    def fail(*args):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        acc.copy().update([1.0], [9.0]).save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["state"]


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        Accumulator().save(tmp_path / "state")
    assert os.listdir(tmp_path) == []


def test_the_frozen_file_stays_readable():
    acc = Accumulator.load(FROZEN)
    assert acc.to_bytes() == FROZEN.read_bytes()
    assert hashlib.sha256(FROZEN.read_bytes()).hexdigest() == FROZEN_DIGEST
    assert repr(acc.loss) == "huber(delta=1.5)"
    assert (str(acc.reduction), acc.nan) == ("mean", "omit")
    assert (acc.count, acc.nonzero_count, acc.skipped_count) == FROZEN_COUNTS
    assert acc.loss_sum == FROZEN_LOSS_SUM
    assert acc.weight_sum == FROZEN_WEIGHT_SUM
    assert acc.result() == FROZEN_MEAN


def test_the_frozen_file_is_what_its_rows_add_up_to():
    acc = frozen_rows_accumulator()
    assert acc.to_bytes() == FROZEN.read_bytes()
    terms = weights = Fraction(0)
    for label, prediction, weight in zip(*map(np.ndarray.tolist, frozen_rows()), strict=True):
        if not math.isnan(label + weight):
            error = abs(prediction - label)
            loss = 0.5 * error * error if error <= 1.5 else 1.5 * (error - 0.75)
            terms += Fraction(weight * loss)
            weights += Fraction(weight)
    assert (float(terms), float(weights), float(terms / weights)) == (FROZEN_LOSS_SUM, FROZEN_WEIGHT_SUM, FROZEN_MEAN)
