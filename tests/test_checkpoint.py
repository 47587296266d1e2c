"""Checkpoints: whatever ends a run, the next one goes on and ends with the bits of a run that nothing disturbed."""

import contextlib
import fcntl
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import streamloss
from streamloss import durable, stored
from streamloss.files import History, outputs, scoring
from streamloss.files.checkpoint import Kept
from streamloss.files.results import Results
from streamloss.files.source import Batch, Columns, Position

ROWS, CHUNK = 10_000, 700


class Arrays:
    """A source of arrays, cut into batches of another size on every pass."""

    bytes, paths = None, ()
    sizes = itertools.cycle([CHUNK, 999, 64])

    def __init__(self, columns, identity):
        rng = np.random.default_rng(1)
        self.columns, self.rows, self.identity = columns, ROWS, identity
        self.labels, self.weights = rng.standard_normal((2, ROWS))
        self.predictions = rng.standard_normal((len(columns.predictions), ROWS))
        self.labels[rng.random(ROWS) < 0.05] = np.nan
        self.predictions[0, rng.random(ROWS) < 0.05] = np.nan
        self.keys = tuple(rng.integers(0, 5, ROWS).astype(str) for _ in columns.by)
        self.opened = 0

    def check_unchanged(self):
        pass

    def batches(self, start):
        self.opened += 1
        size = next(self.sizes)
        for begin in range(start.rows, ROWS, size):
            part = slice(begin, min(begin + size, ROWS))
            weights = self.weights[part] if self.columns.weights else None
            keys = tuple(column[part] for column in self.keys)
            end = Position(0, part.stop, part.stop, 0)
            yield Batch(self.labels[part], tuple(self.predictions[:, part]), weights, keys, end, str)


@pytest.fixture
def arrays(monkeypatch):
    """Makes score() read arrays; the value is the list of sources opened so far."""
    opened = []

    def open_source(source, labels, predictions, weights, by):
        opened.append(Arrays(Columns(labels, predictions, weights, by), source))
        return opened[-1]

    monkeypatch.setattr(scoring, "_open", open_source)
    return opened


FILE = {"files": [{"path": "y.npy", "size": 80_000, "mtime_ns": 10**18}, {"path": "z.npy", "size": 8}]}
Y, Z = FILE["files"]
RUN = {"source": FILE, "labels": "y", "predictions": ["a", "b"], "weights": "w", "every": 0}
VARIANTS = {
    "plain": {"predictions": "a", "weights": None},
    "weights": {"predictions": "a"},
    "standard error": {"stderr": True},
    "groups": {"by": "k"},
    "two columns of keys": {"by": ["k", "l"], "stderr": True, "predictions": "a"},
    "propagate": {"nan": "propagate"},
}


class StoppedError(Exception):
    pass


def stopping_after(batches, error):
    """A progress that raises after so many batches."""
    calls = itertools.count()

    def progress(_):
        if next(calls) == batches:
            raise error

    return progress


def as_bytes(results):
    return Results(results if isinstance(results, dict) else {"": results}).to_bytes()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, StoppedError])
@pytest.mark.parametrize("suffix", [None, ".npy", ".parquet"])
def test_a_run_stopped_again_and_again_ends_with_the_bits_of_one(arrays, tmp_path, variant, error, suffix):
    run = RUN | VARIANTS[variant]
    if suffix == ".npy" and "by" in run:
        run.pop("by")
    undisturbed = streamloss.score(**run)
    run["checkpoint"] = tmp_path / "run.ckpt"
    if suffix:
        expected, run["losses_out"] = tmp_path / f"expected{suffix}", tmp_path / f"losses{suffix}"
        streamloss.score(**{**run, "checkpoint": None, "losses_out": expected})
    stops = 0
    for batches in (1, 2, 0, 3, 1):
        with pytest.raises(error):
            streamloss.score(**run, progress=stopping_after(batches, error))
        stops += 1
    resumed = streamloss.score(**run)
    assert stops == 5
    assert as_bytes(resumed) == as_bytes(undisturbed)
    if suffix == ".npy":
        np.testing.assert_array_equal(np.load(run["losses_out"]), np.load(expected), strict=True)
    if suffix == ".parquet":
        assert pl.read_parquet(run["losses_out"]).equals(pl.read_parquet(expected))
    kept = {path.name for path in (run["checkpoint"], run.get("losses_out"), locals().get("expected")) if path}
    assert set(os.listdir(tmp_path)) == kept


def test_a_finished_run_is_not_read_again(arrays, tmp_path):
    run = RUN | {"checkpoint": tmp_path / "run.ckpt", "losses_out": tmp_path / "l.npy"}
    first, calls = streamloss.score(**run), []
    again = streamloss.score(**run, progress=calls.append, reduction="mean")
    assert [source.opened for source in arrays] == [1, 0]
    assert as_bytes(again) != as_bytes(first)  # another reduction, of the same sums
    assert all(again[name] == first[name] and again[name].result() == first[name].result("mean") for name in first)
    assert [call.rows for call in calls] == [ROWS]
    run["losses_out"].unlink()
    with pytest.raises(ValueError, match=r"l\.npy is gone"):
        streamloss.score(**run)


def test_the_running_loss_goes_on(arrays, tmp_path):
    run = RUN | {"checkpoint": tmp_path / "run.ckpt", "stderr": True}
    whole, first, second, third = (History() for _ in range(4))
    streamloss.score(**RUN, stderr=True, history=whole)
    with pytest.raises(StoppedError):
        streamloss.score(**run, history=first, progress=stopping_after(5, StoppedError))
    streamloss.score(**run, history=second)
    assert 0 < len(first.points) < len(second.points)
    assert second.points[: len(first.points)] == first.points
    assert second.points == whole.points
    streamloss.score(**run, history=third)
    assert third.points == second.points


@pytest.mark.parametrize("finished", [False, True])
def test_a_running_loss_needs_all_rows(arrays, tmp_path, finished):
    run = RUN | {"checkpoint": tmp_path / "run.ckpt"}
    stop = None if finished else stopping_after(2, StoppedError)
    with contextlib.nullcontext() if finished else pytest.raises(StoppedError):
        streamloss.score(**run, progress=stop)
    before = run["checkpoint"].read_bytes()
    with pytest.raises(ValueError, match=r"run\.ckpt was written without --plot \(history\): there is no running loss"):
        streamloss.score(**run, history=History())
    assert run["checkpoint"].read_bytes() == before
    assert as_bytes(streamloss.score(**run)) == as_bytes(streamloss.score(**RUN))


def test_a_running_loss_may_be_given_up(arrays, tmp_path):
    run = RUN | {"checkpoint": tmp_path / "run.ckpt"}
    with pytest.raises(StoppedError):
        streamloss.score(**run, history=History(), progress=stopping_after(2, StoppedError))
    streamloss.score(**run)
    with pytest.raises(ValueError, match="there is no running loss of the rows before it"):
        streamloss.score(**run, history=History())


def test_a_history_has_few_points_evenly_apart(arrays):
    history = History()
    for rows in range(1, 300_000, 7):
        if rows >= history.due:
            history.add(rows, [])
    steps = np.diff([point.rows for point in history.points])
    assert 400 < len(history.points) < 1000
    assert steps.max() < 1.2 * steps.min()


# ------------------------------------------------------------------------------------------- other runs


def cubed(label, prediction):
    return abs(prediction - label) ** 3


CHANGES = {
    "labels": ({"labels": "z"}, "labels was 'y', is 'z'"),
    "predictions": ({"predictions": ["a", "c"]}, r"predictions was \['a', 'b'\], is \['a', 'c'\]"),
    "fewer predictions": ({"predictions": "a"}, r"predictions was \['a', 'b'\], is \['a'\]"),
    "weights": ({"weights": None}, "weights was 'w', is None"),
    "groups": ({"by": "k"}, r"by was \[\], is \['k'\]"),
    "loss": ({"loss": "absolute_error"}, "loss was 'squared_error', is 'absolute_error'"),
    "parameters": ({"loss": "huber(delta=2)"}, r"loss was 'squared_error', is 'huber\(delta=2.0\)'"),
    "a function": ({"loss": cubed}, "loss was 'squared_error', is 'cubed [0-9a-f]{16}'"),
    "policy": ({"nan": "propagate"}, "nan was 'omit', is 'propagate'"),
    "standard error": ({"stderr": True}, "was written without standard errors .* and this run is with them"),
    "losses": ({"losses_out": "l.npy"}, "losses_out was None, is '.*l.npy'"),
    "a later file": (
        {"source": {"files": [Y | {"mtime_ns": 10**18 + 10**10}, Z]}},
        r"y.npy has changed: it was last written on 2001-09-\d\d \d\d:\d\d:40, and now on 2001-09-\d\d \d\d:\d\d:50$",
    ),
    "a file a moment later": (
        {"source": {"files": [Y | {"mtime_ns": 10**18 + 1}, Z]}},
        r"last written on 2001-.*:40\.000000000, and now on 2001-.*:40\.000000001$",
    ),
    "changed data": ({"source": {"files": [Y | {"size": 9}, Z]}}, "y.npy has changed: size was 80000, is 9"),
    "more files": ({"source": {"files": [Y, Z, {"path": "x"}]}}, "x was not among its files"),
    "fewer files": ({"source": {"files": [Z]}}, "it read y.npy"),
    "other files": ({"source": {"files": [{"path": "x"}]}}, "it read y.npy, z.npy and x was not among its files"),
    "another order": ({"source": {"files": [Z, Y]}}, "the files in another order, beginning with y.npy, z.npy"),
    "another kind of source": ({"source": {"arrays": [1]}}, r"files was \[.*; arrays was None, is \[1\]"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("finished", [False, True])
def test_a_checkpoint_of_another_run_is_refused(arrays, tmp_path, monkeypatch, change, finished):
    monkeypatch.chdir(tmp_path)
    run = RUN | {"checkpoint": "run.ckpt"}
    try:
        streamloss.score(**run, progress=None if finished else stopping_after(2, KeyboardInterrupt))
    except KeyboardInterrupt:
        assert not finished
    before = Path("run.ckpt").read_bytes()
    change, reason = CHANGES[change]
    with pytest.raises(ValueError, match=rf"^run\.ckpt .*{reason}"):
        streamloss.score(**run | change)
    assert Path("run.ckpt").read_bytes() == before
    assert os.listdir() == ["run.ckpt"]


def test_a_checkpoint_of_another_function_of_that_name_is_refused(arrays, tmp_path):
    def of(power):
        def mine(label, prediction):
            return abs(prediction - label) ** power

        return mine

    run = RUN | {"checkpoint": tmp_path / "run.ckpt"}
    with pytest.raises(StoppedError):
        streamloss.score(**run, loss=of(3), progress=stopping_after(2, StoppedError))
    with pytest.raises(ValueError, match=r"loss was 'mine \w+', is 'mine \w+'"):
        streamloss.score(**run, loss=of(2))
    assert as_bytes(streamloss.score(**run, loss=of(3))) == as_bytes(streamloss.score(**RUN, loss=of(3)))


def test_a_source_that_cannot_be_read_again_has_no_checkpoint(arrays, tmp_path):
    with pytest.raises(ValueError, match="checkpoint: this source cannot be read again"):
        streamloss.score(**RUN | {"source": None}, checkpoint=tmp_path / "run.ckpt")
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("variant", ["plain", "groups"])
def test_damaged_checkpoints_and_states_are_refused(arrays, tmp_path, variant):
    path = tmp_path / "run.ckpt"
    run = RUN | VARIANTS[variant] | {"checkpoint": path}
    found = streamloss.score(**run)
    whole, bits = path.read_bytes(), random.Random(2)
    state = as_bytes(found)
    for data, read in ((whole, Kept.from_bytes), (state, Results.from_bytes)):
        read(data)
        for place in range(0, len(data), max(1, len(data) // 2000)):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bits.randrange(8)
            for damaged in (bytes(flipped), data[:place]):
                with pytest.raises(ValueError):
                    read(damaged)
        with pytest.raises(ValueError):
            read(data + b"\0")
    for damaged in (whole[:-1], b"", state, whole.replace(b"squared", b"cquared", 1)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run\.ckpt: "):
            streamloss.score(**run)
        assert path.read_bytes() == damaged


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_losses_that_a_checkpoint_counts_on_must_be_there(arrays, tmp_path, suffix):
    out = tmp_path / f"losses{suffix}"
    run = RUN | {"checkpoint": tmp_path / "run.ckpt", "losses_out": out}
    with pytest.raises(StoppedError):
        streamloss.score(**run, progress=stopping_after(3, StoppedError))
    part = outputs.temporary(out)
    os.truncate(part, 1000) if suffix == ".npy" else (part / "00000000.parquet").unlink()
    with pytest.raises(ValueError, match="the checkpoint counts on its"):
        streamloss.score(**run)


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("step", ["place", "save", "discard"])
def test_the_last_steps_may_be_cut_short_anywhere(arrays, tmp_path, monkeypatch, suffix, step):
    run = RUN | {"checkpoint": tmp_path / "run.ckpt", "losses_out": tmp_path / f"losses{suffix}", "every": 1e9}
    expected = tmp_path / f"expected{suffix}"
    undisturbed = streamloss.score(**RUN, losses_out=expected)

    def die(*args, **options):
        raise SystemExit  # leaves everything as it is

    from streamloss.files import checkpoint, losses_out

    kind = losses_out.NpyWriter if suffix == ".npy" else losses_out.ParquetWriter
    with monkeypatch.context() as patch:
        if step == "place":
            patch.setattr(durable, "place", die)
        elif step == "discard":
            patch.setattr(kind, "discard", die)
        else:
            save = checkpoint.Checkpoint.save

            def unless_finished(self, kept):
                die() if kept.finished else save(self, kept)

            patch.setattr(checkpoint.Checkpoint, "save", unless_finished)
        with pytest.raises(SystemExit):
            streamloss.score(**run)
    assert as_bytes(streamloss.score(**run)) == as_bytes(undisturbed)
    assert run["losses_out"].read_bytes() == expected.read_bytes()
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("suffix", [None, ".npy", ".parquet"])
@pytest.mark.parametrize("step", ["placed", "saved", "discard"])
def test_ctrl_c_in_the_last_steps_takes_nothing_back(arrays, tmp_path, monkeypatch, suffix, step):
    from streamloss.files import checkpoint, losses_out

    run = RUN | {"checkpoint": tmp_path / "run.ckpt", "every": 1e9 if suffix else 0}
    if suffix:
        run["losses_out"] = tmp_path / f"losses{suffix}"
    writer = losses_out.NpyWriter if suffix == ".npy" else losses_out.ParquetWriter
    save, finish, discard = checkpoint.Checkpoint.save, writer.finish, writer.discard

    def interrupted(function):
        def call(self, *arguments):
            function(self, *arguments)
            if step != "saved" or arguments[0].finished:
                patch.undo()
                raise KeyboardInterrupt

        return call

    with monkeypatch.context() as patch:
        if step == "saved" or not suffix:
            step = "saved"
            patch.setattr(checkpoint.Checkpoint, "save", interrupted(save))
        elif step == "placed":
            patch.setattr(writer, "finish", interrupted(finish))
        else:
            begun = []
            patch.setattr(writer, "discard", lambda self: interrupted(discard)(self) if begun else discard(self))
            patch.setattr(writer, "finish", lambda self: (finish(self), begun.append(self)))
        with pytest.raises(KeyboardInterrupt):
            streamloss.score(**run)
    assert stored.unpack(run["checkpoint"].read_bytes())[1]["finished"] == (step != "placed")
    assert as_bytes(streamloss.score(**run)) == as_bytes(streamloss.score(**RUN))
    assert stored.unpack(run["checkpoint"].read_bytes())[1]["finished"]
    assert sorted(os.listdir(tmp_path)) == sorted(
        path.name for path in map(run.get, ("checkpoint", "losses_out")) if path
    )
    if suffix:
        streamloss.score(**RUN, losses_out=tmp_path / f"expected{suffix}")
        assert run["losses_out"].read_bytes() == (tmp_path / f"expected{suffix}").read_bytes()


# ------------------------------------------------------------------------------------------- two at once


@pytest.mark.parametrize("option", ["checkpoint", "losses_out"])
def test_a_file_that_another_run_is_writing_is_refused(arrays, tmp_path, option):
    path, told = tmp_path / "x.npy", []
    run = RUN | {option: path}

    def second(progress):
        before = {each: each.read_bytes() for each in tmp_path.iterdir()}
        with pytest.raises(ValueError, match=r"x\.npy is in use by another run$"):
            streamloss.score(**run)
        assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before
        told.append(progress.rows)

    expected = as_bytes(streamloss.score(**RUN))
    assert as_bytes(streamloss.score(**run, progress=second)) == expected
    assert told[-1] == ROWS
    assert os.listdir(tmp_path) == ["x.npy"]
    assert as_bytes(streamloss.score(**run)) == expected


def test_the_file_of_a_killed_run_is_free(tmp_path):
    holding = "with outputs.claimed(sys.argv[1]): print(flush=True); input()"
    code = f"import sys; from streamloss.files import outputs\n{holding}"
    child = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"\n"
    with pytest.raises(ValueError, match="x is in use by another run"):
        outputs.check(tmp_path / "x")
    child.kill()
    child.communicate()
    assert os.listdir(tmp_path) == [".x.lock"]
    outputs.check(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_a_lock_that_its_owner_has_removed_is_none(tmp_path, monkeypatch):
    """Between opening the file and locking it, another run may end, and a third begin."""
    flock, others = fcntl.flock, contextlib.ExitStack()

    def late(file, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        (tmp_path / ".x.lock").unlink()
        others.enter_context(outputs.claimed(tmp_path / "x"))
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with others, pytest.raises(ValueError, match="in use"):
        outputs.check(tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("missing", ["system", "file system"])
def test_without_locks_there_are_none(arrays, tmp_path, monkeypatch, missing):
    def unsupported(*args):
        raise OSError(95, "Operation not supported")

    if missing == "system":
        monkeypatch.setattr(outputs, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", unsupported)
    streamloss.score(**RUN, checkpoint=tmp_path / "run.ckpt", losses_out=tmp_path / "losses.npy")
    assert sorted(os.listdir(tmp_path)) == ["losses.npy", "run.ckpt"]


# ------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_the_disk_keeps_the_name_of_the_losses_before_a_checkpoint_counts_on_them(
    arrays, tmp_path, monkeypatch, suffix
):
    synced, losses = [], tmp_path / "losses"
    losses.mkdir()
    sync = durable.sync
    monkeypatch.setattr(durable, "sync", lambda path: (synced.append(path), sync(path)))
    streamloss.score(**RUN, checkpoint=tmp_path / "run.ckpt", losses_out=losses / f"l{suffix}")
    assert losses in synced[: synced.index(outputs.temporary(tmp_path / "run.ckpt"))]


def test_what_killed_runs_leave_does_not_pile_up(arrays, tmp_path):
    for name in ("run.ckpt", "losses.npy"):
        outputs.temporary(tmp_path / name).write_bytes(b"what a killed run was writing")
    streamloss.score(**RUN, checkpoint=tmp_path / "run.ckpt", losses_out=tmp_path / "losses.npy")
    assert sorted(os.listdir(tmp_path)) == ["losses.npy", "run.ckpt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(arrays, tmp_path, monkeypatch, step):
    path = tmp_path / "run.ckpt"
    run = RUN | {"checkpoint": path}
    with pytest.raises(StoppedError):
        streamloss.score(**run, progress=stopping_after(2, StoppedError))
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.raises(OSError, match=r"cannot write .*run\.ckpt: No space left on device"):
            streamloss.score(**run)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.ckpt"]
    assert as_bytes(streamloss.score(**run)) == as_bytes(streamloss.score(**RUN))


def test_checkpoints_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    from streamloss.files import checkpoint

    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)

    def slow(path, data):
        nonlocal now
        now += 2.0

    monkeypatch.setattr(checkpoint.outputs, "write", slow)
    kept = Kept({}, Position(), False, Results({"p": streamloss.Accumulator()}))
    writer = checkpoint.Checkpoint(tmp_path / "run.ckpt", {}, 5.0)
    for seconds, is_due in ((4.9, False), (5.0, True), (11.0, True)):
        now = seconds
        assert writer.is_due == is_due
    writer.save(kept)
    for seconds, is_due in ((18.0, False), (32.9, False), (33.1, True)):
        now = seconds
        assert writer.is_due == is_due


@pytest.mark.parametrize("every", [-1.0, float("nan"), "often"])
def test_every_is_a_number_of_seconds(arrays, tmp_path, every):
    with pytest.raises((ValueError, TypeError), match="every must be"):
        streamloss.score(**RUN | {"every": every}, checkpoint=tmp_path / "run.ckpt")


# ------------------------------------------------------------------------------------------- processes

CHILD = """
import json, os, signal, sys, time
import streamloss
from streamloss.files.results import Results

run, step, countdown = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def dying(function):
    def call(*arguments):
        global countdown
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call


if step != "none":
    setattr(os, step, dying(getattr(os, step)))
print("loaded", flush=True)
found = streamloss.score(**run, progress=lambda _: time.sleep(0.04))  # so that there is something to interrupt
sys.stdout.buffer.write(Results({"p": found}).to_bytes())
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """At least 200 MB in four files, and rows per file."""
    folder = tmp_path_factory.mktemp("big")
    rng = np.random.default_rng(3)
    for number in range(4):
        rows = 2_100_000
        y, p, w = rng.standard_normal((3, rows))
        y[::1000] = np.nan
        frame = pl.DataFrame({"y": y, "p": p, "w": w, "k": rng.integers(0, 20, rows).astype(np.int32)})
        frame.write_parquet(folder / f"{number}.parquet", compression="uncompressed", row_group_size=100_000)
    paths = [str(folder / f"{number}.parquet") for number in range(4)]
    assert sum(map(os.path.getsize, paths)) >= 200_000_000
    return paths, 4 * rows


def start(run, step="none", countdown=0):
    arguments = [sys.executable, "-c", CHILD, json.dumps(run), step, str(countdown)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return process, process.stdout.readline() == b"loaded\n"


def to_the_end(run):
    """The bytes of the result, and how long reading took."""
    process, loaded = start(run)
    begin = time.monotonic()
    state = process.communicate()[0]
    assert loaded
    assert process.returncode == 0
    return state, time.monotonic() - begin


OPTIONS = {
    "plain": {"weights": "w"},
    "groups and losses": {"by": "k", "losses_out": "losses.parquet"},
}


@pytest.mark.parametrize(("options", "kills"), [("plain", 30), ("groups and losses", 10)])
def test_runs_killed_at_random_moments_end_with_the_bits_of_one(big, tmp_path, options, kills):
    paths, rows = big
    run = {"source": paths, "labels": "y", "predictions": "p", "every": 0.05, **OPTIONS[options]}
    if "losses_out" in run:
        run["losses_out"] = str(tmp_path / run["losses_out"])
    to_the_end(run)  # compiles
    undisturbed, seconds = to_the_end(run)
    found = Results.from_bytes(undisturbed).first
    assert found.count + found.skipped_count == rows
    losses = Path(run["losses_out"]).read_bytes() if "losses_out" in run else None
    checkpoint = tmp_path / "run.ckpt"
    run["checkpoint"] = str(checkpoint)
    moments, in_writing, resumed, killed = random.Random(4), 0, 0, 0
    while killed < kills or resumed < kills // 6 or in_writing == 0:
        step = moments.choice(["none", "none", "fsync", "replace"])
        process, loaded = start(run, step, moments.randrange(1, 4))
        assert loaded
        resumed += checkpoint.exists()
        try:
            process.wait(moments.random() * seconds / 2)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        state = process.communicate()[0]
        if process.returncode == 0:
            assert state == undisturbed
            checkpoint.unlink()  # done too soon: begin anew
        else:
            assert process.returncode == -signal.SIGKILL
            killed += 1
            in_writing += step != "none"
    assert to_the_end(run)[0] == undisturbed
    assert losses is None or Path(run["losses_out"]).read_bytes() == losses
    kept = stored.unpack(checkpoint.read_bytes())[1]
    assert (kept["position"][2], kept["finished"]) == (rows, True)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
