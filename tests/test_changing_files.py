"""Files that are damaged, that change while they are read, and what else a reader may meet on the way."""

import os
import subprocess
import sys
import zipfile

import h5py
import numcodecs
import numpy as np
import pandas as pd
import polars as pl
import pytest
import zarr

import streamloss
from streamloss import Accumulator
from streamloss.files import frames


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def grow(path):
    with open(path, "ab") as file:
        file.write(b"1.0,2.0\n")


@pytest.mark.parametrize("change", [cut, grow, os.utime])
@pytest.mark.parametrize("kind", ["csv", "h5", "parquet"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, kind, change):
    path = tmp_path / f"t.{kind}"
    frame = pl.DataFrame({"y": np.arange(3000.0), "p": np.arange(3000.0) + 1})
    if kind == "h5":
        with h5py.File(path, "w") as file:
            for name in frame.columns:
                file[name] = frame[name].to_numpy()
    else:
        getattr(frame, f"write_{kind}")(path)
    told = []

    def progress(progress):
        if not told:
            change(path)
        told.append(progress)

    with pytest.raises(ValueError, match=rf"t\.{kind}.* (was changed.* while it was read|cannot be read: )"):
        streamloss.score(path, labels="y", predictions="p", progress=progress, checkpoint=tmp_path / "c", every=0)
    # Parquet is read from its end: nothing of it may be readable.
    assert (tmp_path / "c").exists() or (kind == "parquet" and change is not os.utime)
    if (tmp_path / "c").exists():
        with pytest.raises(ValueError, match=r"has changed|cannot be read|no readable"):
            streamloss.score(path, labels="y", predictions="p", checkpoint=tmp_path / "c")


def test_a_file_that_is_removed_has_been_read_all_the_same(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("y,p\n" + "1,3\n" * 100)
    found = streamloss.score(path, labels="y", predictions="p", progress=lambda now: now.rows and path.unlink())
    assert (found.count, found.result()) == (100, 4.0)


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ([1.5], 301.5),
        ([7, None], 307.0),
        ([np.float32(0.5)], 300.5),
        (["text"], r"the DataFrame \(rows from 300 on\) must hold numbers"),
    ],
)
def test_objects_of_pandas_tell_their_type_in_every_piece(monkeypatch, late, expected):
    monkeypatch.setattr(frames, "ROWS", 300)
    frame = pd.DataFrame({"y": pd.Series([1] * 300 + late, dtype=object), "p": 0.0})
    if isinstance(expected, str):
        with pytest.raises(TypeError, match=expected):
            streamloss.score(frame, labels="y", predictions="p")
    else:
        found = streamloss.score(frame, labels="y", predictions="p", loss="absolute_error")
        assert found.result("sum") == expected


def test_other_columns_of_objects(monkeypatch):
    monkeypatch.setattr(frames, "ROWS", 300)
    keys = pd.DataFrame({"y": 1.0, "k": pd.Series([1] * 300 + [2.5, 1.0], dtype=object)})
    found = streamloss.score(keys, labels="y", predictions="y", by="k")
    assert {key: group.count for key, group in found.items()} == {1: 301, 2.5: 1}
    nothing = pd.DataFrame({"y": pd.Series([None] * 300 + [1.5], dtype=object), "p": 0.0})
    assert streamloss.score(nothing, labels="y", predictions="p").result() == 2.25
    mixed = pd.DataFrame({"y": pd.Series([1] * 300 + [2, "two"], dtype=object)})
    with pytest.raises(TypeError, match=r"column 'y' of the DataFrame \(rows from 300 on\): "):
        streamloss.score(mixed, labels="y", predictions="y")


@pytest.mark.parametrize("between", [[], [None] * 300], ids=["at once", "after nulls"])
def test_keys_of_pandas_that_change_their_kind_are_named_with_their_rows(monkeypatch, between):
    monkeypatch.setattr(frames, "ROWS", 300)
    keys = [1] * 300 + between + ["two"]
    frame = pd.DataFrame({"y": 1.0, "k": pd.Series(keys, dtype=object)})
    found = rf"column 'k' for by is Int64 in the DataFrame but String in the DataFrame \(rows from {len(keys) - 1} on\)"
    with pytest.raises(TypeError, match=found):
        streamloss.score(frame, labels="y", predictions="y", by="k")


def test_what_a_program_raises_between_frames_is_its_own():
    def chunks():
        yield pl.DataFrame({"y": [1.0]})
        raise OSError("the network is down")

    with pytest.raises(OSError, match=r"^the network is down$"):
        streamloss.score(chunks(), labels="y", predictions="y")


def test_damaged_footers_of_parquet_lose_no_rows(tmp_path):
    path, rows = tmp_path / "t.parquet", 1000
    pl.DataFrame({"y": np.arange(1000.0), "p": np.arange(1000.0)}).write_parquet(path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    reasons = []
    for place in range(footer, len(whole) - 8):
        for bit in range(0, 8, 2):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                assert streamloss.score(path, labels="y", predictions="p").count == rows
            except (TypeError, ValueError) as error:
                reasons.append(str(error))
    assert any("t.parquet cannot be read: its row groups have" in reason for reason in reasons)
    assert any("t.parquet cannot be read: its column y lies beyond its end" in reason for reason in reasons)


def test_links_in_hdf5_are_followed(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["deep/y"] = [1.0, 2.0]
        file["soft"] = h5py.SoftLink("/deep/y")
        file["gone"] = h5py.SoftLink("/nowhere")
        file["empty"] = h5py.Empty("f8")
    assert streamloss.score(tmp_path / "t.h5", labels="soft", predictions="deep/y").count == 2
    with pytest.raises(ValueError, match="has no array 'gone'"):
        streamloss.score(tmp_path / "t.h5", labels="gone", predictions="deep/y")
    with pytest.raises(ValueError, match=r"t\.h5:empty is empty: it has no shape"):
        streamloss.score(tmp_path / "t.h5", labels="empty", predictions="deep/y")


def test_damaged_hdf5(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["y"] = np.arange(10.0)
    damaged = bytearray((tmp_path / "t.h5").read_bytes())
    damaged[damaged.index(b"TREE")] ^= 1
    (tmp_path / "t.h5").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"t\.h5 is no readable HDF5 file: "):
        streamloss.score(tmp_path / "t.h5", labels="y", predictions="y")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_npz(tmp_path, method):
    np.save(tmp_path / "p.npy", np.random.default_rng(0).standard_normal(5000))
    with zipfile.ZipFile(tmp_path / "t.npz", "w", method) as file:
        file.write(tmp_path / "p.npy", "y.npy")
    whole = (tmp_path / "t.npz").read_bytes()
    named = []
    right = streamloss.score(labels=tmp_path / "t.npz:y", predictions=tmp_path / "p.npy")
    for place in range(60, len(whole), len(whole) // 50):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        (tmp_path / "t.npz").write_bytes(damaged)
        try:
            found = streamloss.score(labels=tmp_path / "t.npz:y", predictions=tmp_path / "p.npy")
        except ValueError as error:
            named.append("t.npz" in str(error))
        else:
            named.append(found == right)  # a byte that nobody reads
    assert len(named) >= 50
    assert all(named)


def test_damaged_zarr(tmp_path):
    store = zarr.create_array(
        tmp_path / "t.zarr", shape=(5000,), chunks=(1000,), dtype="f8", zarr_format=2, compressors=numcodecs.Zlib()
    )
    store[:] = np.random.default_rng(0).standard_normal(5000)
    cut(tmp_path / "t.zarr" / "3")
    with pytest.raises(ValueError, match=r"t\.zarr cannot be read: "):
        streamloss.score(labels=tmp_path / "t.zarr", predictions=tmp_path / "t.zarr")


def test_a_store_may_end_in_a_slash(tmp_path):
    group = zarr.open_group(tmp_path / "g.zarr", mode="w")
    group["y"] = np.ones(3)
    assert streamloss.score(f"{tmp_path}/g.zarr/", labels="y", predictions="y").count == 3


def test_columns_of_frames_are_arrays():
    keys = pl.Series(["a", None])
    found = streamloss.score(labels=pl.Series([1.0, None]), predictions=pd.Series([3.0, 1.0]), by=keys)
    counts = {key: (group.count, group.skipped_count) for key, group in found.items()}
    assert counts == {"a": (1, 0), None: (0, 1)}
    with pytest.raises(TypeError, match="chunk 0 must be a tuple or a mapping like those before it, got float"):
        streamloss.score(pd.Series([1.0], name="y"), labels="y", predictions="y")


def test_arrays_of_other_libraries_are_read_in_boxes():
    class Lazy:
        """What reads from somewhere when it is sliced, and all of it when it is asked for an array of NumPy."""

        shape, dtype = (100,), np.dtype(np.float64)

        def __getitem__(self, box):
            return np.ones(100)[box]

        def to_numpy(self):
            raise AssertionError

    assert streamloss.score(labels=Lazy(), predictions=Lazy()).count == 100


@pytest.mark.parametrize("name", ["y.npy", "y.npz:a", "y.h5:a"])
def test_pipes_of_arrays_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name.partition(":")[0])
    with pytest.raises(ValueError, match="is no regular file"):
        streamloss.score(labels=tmp_path / name, predictions=tmp_path / name)


def test_what_is_no_state_is_not_read(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(tmp_path / "pipe")
    for name, message in ("large", "not a streamloss state"), ("pipe", "it is no regular file"):
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            Accumulator.load(tmp_path / name)


@pytest.mark.parametrize("expression", ["k in (1, 3)", "k not in (2, 4)"])
def test_lists_of_constants_in_expressions(expression):
    frame = pl.DataFrame({"y": [1.0, 2.0, 3.0, 4.0], "k": [1, 2, 3, 4]})
    assert streamloss.score(frame, labels="y", predictions="y", weights=expression).weight_sum == 2.0


KEYS = {
    "wider": ([1], [2**40], [1, 2**40]),
    "unsigned": ([1], pl.Series([2**63 + 1], dtype=pl.UInt64), [1, 2**63 + 1]),
    "unsigned and negative": ([-1], pl.Series([2**63 + 1], dtype=pl.UInt64), "Int64, UInt64"),
    "fractions": ([2**53], [0.5], [2.0**53, 0.5]),
    "large beside fractions": ([2**53 + 1], [0.5], "Float64, Int64"),
    "null": (pl.Series([None], dtype=pl.Null), [7], [None, 7]),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_several_types_in_a_file_of_losses(tmp_path, name):
    *columns, expected = KEYS[name]
    for i, keys in enumerate(columns):
        pl.DataFrame({"y": [1.0], "k": keys}).write_parquet(tmp_path / f"{i}.parquet")
    paths, out = [tmp_path / "0.parquet", tmp_path / "1.parquet"], tmp_path / "losses.parquet"
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=f"losses.parquet has no type for the keys 'k', which are {expected}"):
            streamloss.score(paths, labels="y", predictions="y", by="k", losses_out=out)
        assert not out.exists()
    else:
        streamloss.score(paths, labels="y", predictions="y", by="k", losses_out=out)
        assert pl.read_parquet(out)["k"].to_list() == expected


def test_a_full_disk_at_the_beginning_leaves_nothing(tmp_path, monkeypatch):
    def full(path, data):
        path.touch()
        raise OSError(28, "No space left on device")

    np.save(tmp_path / "y.npy", np.ones(3))
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match=r"cannot write .*l\.npy: No space left on device"):
        streamloss.score(labels=tmp_path / "y.npy", predictions=tmp_path / "y.npy", losses_out=tmp_path / "l.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["y.npy"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path, closed):
    np.save(tmp_path / "y.npy", np.ones(3))
    files = "--labels y.npy --predictions y.npy --save-state s.slstate --losses-out l.npy"
    starter = "import streamloss_command; streamloss_command.main()"
    command = f"exec {sys.executable} -c '{starter}' score {files} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert Accumulator.load(tmp_path / "s.slstate").result() == 0.0
    assert len(np.load(tmp_path / "l.npy")) == 3
