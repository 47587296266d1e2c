"""Readers: every kind of source yields the same rows, from any position on, and what is wrong is one line."""

import gzip
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import streamloss
from streamloss import Accumulator
from streamloss.files import arrays, delimited, fields, parquet, part, remote, text, web
from streamloss.files.ahead import ahead, side_by_side
from streamloss.files.fields import are_regular, quotes_are_clear
from streamloss.files.opening import open_source
from streamloss.files.source import Position
from streamloss.keys import Coded, read

START = Position()


@pytest.fixture
def small(monkeypatch):
    """Batches of few rows, so that small files have many of them."""
    monkeypatch.setattr(part, "ROWS", 300)
    monkeypatch.setattr(parquet, "ROWS", 300)
    monkeypatch.setattr(parquet, "CHUNK", 100)
    monkeypatch.setattr(arrays, "ELEMENTS", 300)
    monkeypatch.setattr(text, "BLOCK", 5001)


def score(source, start=START, nan="omit"):
    """The loss of every prediction, and the keys of every row as text, from a position on."""
    found = [Accumulator(nan=nan) for _ in source.columns.predictions]
    keys = []
    for batch in source.batches(start):
        for accumulator, predictions in zip(found, batch.predictions, strict=True):
            accumulator.update(batch.labels, predictions, batch.weights)
        keys += zip(*map(as_text, batch.by), strict=True)
    return found, keys


def as_text(keys):
    if isinstance(keys, Coded):
        return [None if code < 0 else keys.values[code] for code in keys.codes]
    return [None if key is None else str(key) for key in np.ma.asarray(keys).tolist()]


def labels(source, start=START):
    batches = [np.asarray(batch.labels) for batch in source.batches(start)]
    return np.concatenate(batches) if batches else np.empty(0)


# --------------------------------------------------------------------------------- the flights, in every form

COLUMNS = ["arr_delay", "dep_delay", "distance", "carrier", "month"]
ZSTD = pa.Codec("zstd")


def packed(path, data):
    """Write text, compressed by the ending."""
    if path.suffix == ".gz":
        middle = len(data) // 2
        data = gzip.compress(data[:middle], 1) + gzip.compress(data[middle:], 1)  # members one after the other
    elif path.suffix == ".zst":
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    return path


def pieces(frame, count):
    step = -(-frame.height // count)
    return [frame[i : i + step] for i in range(0, frame.height, step)]


def many(folder, frame, count=50):
    paths = [folder / f"part-{i:02}.parquet" for i in range(count)]
    for path, piece in zip(paths, pieces(frame, count), strict=True):
        piece.write_parquet(path)
    return paths


def shuffled(folder, frame):
    paths = many(folder, frame)
    random.Random(1).shuffle(paths)
    return paths


def hive(folder, frame):
    for (carrier, month), rows in frame.partition_by("carrier", "month", as_dict=True).items():
        below = folder / f"carrier={carrier}" / f"month={month}"
        below.mkdir(parents=True)
        rows.drop("carrier", "month").write_parquet(below / "0.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.parquet").touch()
    return folder


def written(name, write):
    def make(folder, frame):
        path = folder / name
        write(frame, path)
        return path

    return make


def stream_file(frame, path):
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)


def csv_bytes(frame, **options):
    return frame.write_csv(**options).encode()


def ndjson_bytes(frame):
    return frame.write_ndjson().encode()


def one_column_at_a_time(frame):
    return {name: frame[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in COLUMNS[:3]} | {
        name: frame[name].to_numpy() for name in COLUMNS[3:]
    }


TABLES = {
    "parquet": written("t.parquet", lambda frame, path: frame.write_parquet(path)),
    "one row group": written("t.pq", lambda frame, path: frame.write_parquet(path, row_group_size=10**9)),
    "many row groups": written("t.parquet", lambda frame, path: frame.write_parquet(path, row_group_size=1000)),
    "csv": written("t.csv", lambda frame, path: frame.write_csv(path)),
    "csv, quoted": written("t.csv", lambda frame, path: frame.write_csv(path, quote_style="always")),
    "csv, crlf": written("t.csv", lambda frame, path: frame.write_csv(path, line_terminator="\r\n")),
    "csv, bom": written("t.csv", lambda frame, path: frame.write_csv(path, include_bom=True)),
    "csv, no last newline": written("t.csv", lambda frame, path: path.write_bytes(csv_bytes(frame).rstrip(b"\n"))),
    "csv named tsv before": written("t.tsv.csv", lambda frame, path: frame.write_csv(path)),
    "tsv": written("t.tsv", lambda frame, path: frame.write_csv(path, separator="\t")),
    "csv.gz": written("t.csv.gz", lambda frame, path: packed(path, csv_bytes(frame))),
    "csv.zst": written("t.CSV.zst", lambda frame, path: packed(path, csv_bytes(frame))),
    "tsv.gz": written("t.tsv.gz", lambda frame, path: packed(path, csv_bytes(frame, separator="\t"))),
    "ndjson": written("t.ndjson", lambda frame, path: frame.write_ndjson(path)),
    "jsonl.gz": written("t.jsonl.gz", lambda frame, path: packed(path, ndjson_bytes(frame))),
    "ndjson.zst": written("t.ndjson.zst", lambda frame, path: packed(path, ndjson_bytes(frame))),
    "arrow": written("t.arrow", lambda frame, path: frame.write_ipc(path)),
    "arrow, compressed": written("t.ipc", lambda frame, path: frame.write_ipc(path, compression="zstd")),
    "arrow stream": written("t.arrow", stream_file),
    "feather": written("t.feather", lambda frame, path: frame.to_pandas().to_feather(path)),
    "list in any order": shuffled,
    "pattern": lambda folder, frame: many(folder, frame) and folder / "part-*.parquet",
    "deep pattern": lambda folder, frame: many(folder, frame) and folder / "**" / "part-[0-4][0-9].parquet",
    "directory": lambda folder, frame: many(folder, frame) and folder,
    "hive": hive,
    "hive pattern": lambda folder, frame: hive(folder, frame) / "carrier=*" / "*" / "*.parquet",
    "hive folders": lambda folder, frame: hive(folder, frame) / "carrier=*" / "month=*",
    "file url": lambda folder, frame: many(folder, frame, 1)[0].as_uri(),
    "DataFrame": lambda folder, frame: frame,
    "LazyFrame": lambda folder, frame: frame.lazy().filter(pl.col("distance") > -1),
    "pandas": lambda folder, frame: frame.to_pandas(),
    "pandas, arrow types": lambda folder, frame: frame.to_pandas(use_pyarrow_extension_array=True),
    "arrow table": lambda folder, frame: frame.to_arrow(),
    "reader": lambda folder, frame: frame.to_arrow().to_reader(max_chunksize=1000),
    "dataset": lambda folder, frame: many(folder, frame) and pyarrow.dataset.dataset(folder, format="parquet"),
    "scanner": lambda folder, frame: many(folder, frame) and pyarrow.dataset.dataset(folder).scanner(COLUMNS),
    "frames": lambda folder, frame: iter(pieces(frame, 7)),
    "list of frames": lambda folder, frame: [piece.to_pandas() for piece in pieces(frame, 3)],
    "record batches": lambda folder, frame: iter(frame.to_arrow().to_batches(max_chunksize=5000)),
    "mappings": lambda folder, frame: (one_column_at_a_time(piece) for piece in pieces(frame, 9)),
    "mapping": lambda folder, frame: one_column_at_a_time(frame),
}


@pytest.fixture(scope="session")
def frame(flights_path):
    return pl.read_parquet(flights_path).select(COLUMNS)


@pytest.fixture(scope="session")
def expected(frame, flights):
    labels, predictions, weights = flights
    found = [Accumulator(nan="omit").update(labels, p, weights) for p in (predictions, weights)]
    return found, frame.select(pl.col("carrier"), pl.col("month").cast(pl.String)).rows()


@pytest.mark.parametrize("kind", TABLES)
def test_every_table_gives_the_bits_and_the_keys_of_the_arrays(tmp_path, frame, expected, kind):
    source = open_source(
        TABLES[kind](tmp_path, frame), "arr_delay", ["dep_delay", "distance"], "distance", ["carrier", "month"]
    )
    found, keys = score(source)
    assert found == expected[0]
    if kind in ("list in any order", "hive", "hive pattern", "hive folders"):
        assert sorted(keys) == sorted(expected[1])
    else:
        assert keys == expected[1]


def save_npy(folder, columns):
    for name, values in columns.items():
        np.save(folder / f"{name}.npy", values)
    return lambda name: folder / f"{name}.npy"


def save_npz(folder, columns, save=np.savez):
    save(folder / "t.npz", **columns)
    return lambda name: f"{folder / 't.npz'}:{name}"


def save_hdf5(folder, columns, **options):
    with h5py.File(folder / "t.h5", "w") as file:
        for name, values in columns.items():
            values = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values
            file.create_dataset(f"deep/{name}", data=values, **options)
    return lambda name: f"{folder / 't.h5'}:/deep/{name}"


def save_zarr(folder, columns):
    store = zarr.open_group(folder / "t.zarr", mode="w")
    for name, values in columns.items():
        if values.dtype.kind == "U":  # its own string types are still changing
            values = values.astype("S").view(np.uint8).reshape(len(values), -1)[:, 0]
        store.create_array(name, data=values, chunks=(7000,))
    return lambda name: f"{folder / 't.zarr'}:{name}"


ARRAYS = {
    "npy": save_npy,
    "npz": save_npz,
    "npz, compressed": lambda folder, columns: save_npz(folder, columns, np.savez_compressed),
    "hdf5": save_hdf5,
    "hdf5, chunked": lambda folder, columns: save_hdf5(folder, columns, chunks=(10_000,), compression="gzip"),
    "zarr": save_zarr,
    "arrays": lambda folder, columns: columns.__getitem__,
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_every_kind_of_arrays_gives_the_same_bits_and_keys(tmp_path, frame, flights, expected, kind, monkeypatch):
    monkeypatch.setattr(arrays, "ELEMENTS", 50_000)
    columns = dict(zip(("y", "p", "w"), flights, strict=True))
    columns |= {"carrier": frame["carrier"].to_numpy().astype("U2"), "month": frame["month"].to_numpy()}
    name = ARRAYS[kind](tmp_path, columns)
    by = [name("month")] if kind == "zarr" else [name("carrier"), name("month")]
    found, keys = score(open_source(None, name("y"), [name("p"), name("w")], name("w"), by))
    assert found == expected[0]
    assert keys == [row[-len(by) :] for row in expected[1]]


def test_a_file_of_several_arrays_is_a_table_of_them(tmp_path, flights, expected):
    save_npz(tmp_path, dict(zip(("y", "p", "w"), flights, strict=True)))
    assert score(open_source(tmp_path / "t.npz", "y", ["p", "w"], "w"))[0] == expected[0]


def test_tuples_need_no_names(flights, expected):
    labels, predictions, weights = flights
    cuts = [(0, 5), (5, 200_000), (200_000, len(labels))]
    chunks = ((labels[a:b], predictions[a:b], weights[a:b]) for a, b in cuts)
    assert score(open_source(chunks, None, None))[0] == expected[0][:1]
    chunks = ((labels[a:b], [predictions[a:b], weights[a:b]], weights[a:b]) for a, b in cuts)
    assert score(open_source(chunks, "y", ["a", "b"]))[0] == expected[0]


def test_arrays_of_any_kind_that_can_be_sliced(flights, expected, monkeypatch):
    import dask.array
    import torch

    monkeypatch.setattr(arrays, "ELEMENTS", 50_000)
    labels, predictions, weights = flights
    every = [torch.from_numpy(labels), dask.array.from_array(predictions, chunks=9999), list(weights)]
    assert score(open_source(None, *every))[0] == expected[0][:1]
    masked = np.ma.masked_invalid(labels)
    assert score(open_source(None, masked, predictions, weights))[0][0].count == expected[0][0].count


# --------------------------------------------------------------------------------- positions

SOME = 2000


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(5)
    text = [None if i % 11 == 0 else f'a "long", name\n number {i % 7}' if i % 3 else f"b{i % 5}" for i in range(SOME)]
    return pl.DataFrame({"y": np.arange(SOME, dtype=float), "p": rng.random(SOME), "s": text})


POSITIONED = {
    "parquet": lambda folder, frame: many(folder, frame, 3),
    "one row group": lambda folder, frame: many(folder, frame, 1),
    "csv": lambda folder, frame: [
        packed(folder / f"{i}.csv", csv_bytes(piece)) for i, piece in enumerate(pieces(frame, 3))
    ],
    "csv.gz": lambda folder, frame: [
        packed(folder / f"{i}.csv.gz", csv_bytes(piece)) for i, piece in enumerate(pieces(frame, 2))
    ],
    "ndjson.zst": lambda folder, frame: [packed(folder / "0.ndjson.zst", ndjson_bytes(frame))],
    "arrow": lambda folder, frame: written("t.arrow", lambda f, path: f.write_ipc(path, record_batch_size=700))(
        folder, frame
    ),
    "arrow stream": written("t.arrow", stream_file),
    "hive": lambda folder, frame: hive(folder, frame.with_columns(carrier=pl.col("y") // 700, month=1)),
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", POSITIONED)
def test_from_every_position_the_rest_of_the_rows_comes_once(tmp_path, sample, small, kind, large, monkeypatch):
    if large:
        monkeypatch.setattr(parquet, "LARGE", 0)
    by = [] if kind == "hive" else ["s"]
    source = open_source(POSITIONED[kind](tmp_path, sample), "y", ["p"], by=by)
    whole = labels(source)
    assert sorted(whole) == sample["y"].to_list()
    ends = [batch.end for batch in source.batches(Position())]
    assert len(ends) > 3
    for end in ends:
        assert np.array_equal(labels(source, Position(*end)), whole[end.rows :])
    sizes = [end.bytes for end in ends]
    assert sizes == sorted(sizes)
    assert (ends[-1].rows, sizes[-1]) == (SOME, source.bytes)
    if by:
        assert [key for (key,) in score(source, ends[1])[1]] == sample["s"].to_list()[ends[1].rows :]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(2000,), (40, 50), (2, 1000), (7, 11, 13), (3, 2, 500), ()])
@pytest.mark.parametrize("kind", ["npy", "npz, compressed", "hdf5, chunked", "zarr"])
def test_arrays_of_any_shape_from_every_position(tmp_path, small, kind, shape, order):
    if shape == () and kind in ("hdf5, chunked", "zarr"):
        return
    rng = np.random.default_rng(6)
    columns = {name: np.asarray(rng.random(shape), order=order) for name in ("y", "p")}
    columns["w"] = rng.random(shape[:1])
    if kind == "zarr":
        store = zarr.open_group(tmp_path / "t.zarr", mode="w")
        for name, values in columns.items():
            store.create_array(name, data=values, chunks=tuple(-(-n // 3) for n in values.shape))
        name = f"{tmp_path}/t.zarr:{{}}".format
    elif kind == "hdf5, chunked":
        name = save_hdf5(tmp_path, columns, chunks=True)
    else:
        name = ARRAYS[kind](tmp_path, columns)
    source = open_source(None, name("y"), name("p"), name("w"))
    whole = Accumulator().update(columns["y"], columns["p"], columns["w"])
    assert score(source)[0] == [whole]
    before = Accumulator()
    for batch in source.batches(Position()):
        before.update(batch.labels, batch.predictions[0], batch.weights)
        assert before + score(source, batch.end)[0][0] == whole
    assert batch.end.rows == (shape[0] if shape else 1)
    assert batch.end.bytes == source.bytes


def test_a_finished_file_is_not_opened_again(tmp_path, sample, small):
    source = open_source(many(tmp_path, sample, 3), "y", "p")
    first = next(batch.end for batch in source.batches(Position()) if batch.end.file == 1)
    (tmp_path / "part-00.parquet").unlink()
    assert np.array_equal(labels(source, first), sample["y"].to_numpy()[first.rows :])


def test_identity_tells_that_a_file_has_changed(tmp_path, sample):
    paths = many(tmp_path, sample, 2)
    before = open_source(paths, "y", ["p"]).identity
    assert json.loads(json.dumps(before)) == before
    status = paths[1].stat()
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_source(paths, "y", ["p"]).identity != before
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert open_source(paths, "y", ["p"]).identity == before
    sample[1000:].with_columns(pl.col("p").cast(pl.Float32)).write_parquet(paths[1])
    assert open_source(paths, "y", ["p"]).identity["files"][1]["columns"] == {"y": "Float64", "p": "Float32"}


@pytest.mark.parametrize("kind", ["npy", "npz", "hdf5", "zarr"])
def test_identity_tells_that_arrays_have_changed(tmp_path, kind):
    columns = {"y": np.zeros(20_000), "p": np.ones(20_000)}
    name = ARRAYS[kind](tmp_path, columns)
    before = open_source(None, name("y"), name("p")).identity
    assert open_source(None, name("y"), name("p")).identity == before
    assert json.loads(json.dumps(before)) == before
    if kind == "zarr":
        zarr.open_group(tmp_path / "t.zarr", mode="r+")["p"][8000:8001] = 7.0
    else:
        ARRAYS[kind](tmp_path, columns | {"p": np.full(20_000, 2.0)})
    assert open_source(None, name("y"), name("p")).identity != before


def test_what_a_program_makes_is_made_by_the_thread_that_asks():
    def chunks(make):
        for _ in range(3):
            threads.add(threading.current_thread())
            yield make({"y": np.zeros(3)})

    threads = set()
    for make in (pl.DataFrame, dict):
        assert len(labels(open_source(chunks(make), "y", "y"))) == 9
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("kind", ["DataFrame", "LazyFrame", "pandas", "reader", "frames", "mappings"])
def test_what_lies_in_memory_has_no_identity(tmp_path, frame, kind):
    assert open_source(TABLES[kind](tmp_path, frame), "arr_delay", "dep_delay").identity is None
    assert open_source(None, np.zeros(3), np.zeros(3)).identity is None


# --------------------------------------------------------------------------------- what the caller got wrong


def make_wrong(folder):
    """A folder of good and of bad files."""
    good = pl.DataFrame({"y": [1.0, 2.0, 3.0], "p": [1.5, 2.5, 3.5], "arr_delay": [1, 2, 3], "name": ["a", "b", "c"]})
    good.write_parquet(folder / "t.parquet")
    good.write_csv(folder / "t.csv")
    good.write_ipc(folder / "t.arrow")
    good.write_ndjson(folder / "t.ndjson")
    good.with_columns(y=pl.col("name")).write_parquet(folder / "text.parquet")
    good.drop("p").write_parquet(folder / "narrow.parquet")
    good.with_columns(name=1).write_parquet(folder / "numbered.parquet")
    nested = good.with_columns(y=pl.concat_list("y", "p"), p=pl.struct("y", "p"), b=pl.lit(b"x"))
    nested.write_parquet(folder / "nested.parquet")
    data = (folder / "t.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(data[: len(data) // 2])
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    (folder / "footer.parquet").write_bytes(data[:footer] + bytes(64) + data[footer + 64 :])
    (folder / "length.parquet").write_bytes(data[:-8] + b"\xff\xff\xff\x7f" + data[-4:])
    big = pl.DataFrame({"y": np.arange(50_000.0), "p": np.arange(50_000.0)})
    big.write_parquet(folder / "big.parquet", compression="snappy")
    data = bytearray((folder / "big.parquet").read_bytes())
    data[1000:200_000] = bytes(199_000)
    (folder / "pages.parquet").write_bytes(data)
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "empty.arrow").write_bytes(b"")
    (folder / "early.csv").write_text('y,p\n1,3\n"1,3\n' + "1,3\n" * 300_000)
    (folder / "header.csv").write_text('y,p,5" pipe\n' + "1,3,x\n" * 300_000)
    (folder / "mark.csv").write_bytes(b"\xef\xbb\xbf")
    (folder / "same.csv").write_text("y,p,y,y_duplicated_0\n1,3,5,7\n")
    (folder / "not.parquet").write_text("y,p\n1,2\n")
    (folder / "not.arrow").write_text("y,p\n1,2\n")
    data = (folder / "t.arrow").read_bytes()
    (folder / "cut.arrow").write_bytes(data[: len(data) // 2])
    (folder / "word.csv").write_text('y,p,n\n1,2,"a\nb"\nx1,3,c\n')
    (folder / "late.csv").write_text("y,p\n" + "1,2\n" * 30_000 + "oops,2\n" + "1,2\n" * 10)
    (folder / "long.csv").write_text("y,p\n" + "1,2\n" * 20_000 + "1,2,3\n" + "1,2\n" * 10)
    (folder / "late.ndjson").write_text('{"y":1,"p":2}\n' * 20_000 + '{"y":1,"p":\n' + '{"y":1,"p":2}\n')
    (folder / "text.ndjson").write_text('{"y":1,"p":2}\n' * 20_000 + '{"y":"one","p":2}\n')
    (folder / "not.ndjson").write_text("y,p\n1,2\n")
    (folder / "cr.csv").write_bytes(b"y,p\r1,2\r")
    lines = "".join(f"{i},{i * i % 7919}\n" for i in range(30_000))
    squeezed = gzip.compress(("y,p\n" + lines).encode())
    (folder / "cut.csv.gz").write_bytes(squeezed[: len(squeezed) // 2])
    (folder / "not.csv.gz").write_text("y,p\n1,2\n")
    (folder / "not.csv.zst").write_text("y,p\n1,2\n")
    (folder / "cut.csv.zst").write_bytes(pa.compress(lines.encode(), "zstd", asbytes=True)[:10_000])
    (folder / "empty.csv.gz").write_bytes(gzip.compress(b""))
    (folder / "late.csv.gz").write_bytes(gzip.compress((folder / "late.csv").read_bytes()))
    (folder / "t.xlsx").write_text("?")
    (folder / "none").mkdir()
    (folder / "none" / "_SUCCESS").touch()
    (folder / "both").mkdir()
    good.write_parquet(folder / "both" / "a.parquet")
    good.write_csv(folder / "both" / "b.csv")
    for place in ("hive/k=1", "hive/j=1"):
        (folder / place).mkdir(parents=True)
        good.write_parquet(folder / place / "a.parquet")
    os.mkfifo(folder / "pipe.csv")
    good.with_columns(name=None).write_parquet(folder / "null.parquet")
    (folder / "both_hive" / "k=1").mkdir(parents=True)
    good.with_columns(k=2).write_parquet(folder / "both_hive" / "k=1" / "a.parquet")
    (folder / "pipe_.csv").write_text('y,p,k\n1,2,5" pipe\n3,4,b\n')
    (folder / "quote.csv").write_text("y,p,k\n" + "1,2,3\n" * 20_000 + '1,2,5" pipe\n' + "1,2,3\n" * 10)
    (folder / "quotes.csv").write_text('y,p,k\n1,2,5" pipe\n3,x,6" pipe\n')
    (folder / "blank.csv").write_text("\n\n\n")
    (folder / "short.csv").write_text("y,p\n" + "1,2\n" * 20_000 + "1\n" + "1,2\n" * 10)
    (folder / "few.csv").write_text('y,p,k\n1,2,"a,b,c"\n1,2\n1,2,3\n')
    (folder / "repeated.csv").write_text("y,p,y\n1,2,3\n")
    (folder / "word.ndjson").write_text('{"y":1,"p":2}\n{"y":"one","p":2}\n')
    odd = pl.DataFrame({"y": [1.0], "p": [1.0], "d": [timedelta(1)]})
    odd.write_parquet(folder / "odd.parquet")
    make_wrong_arrays(folder)


def make_wrong_arrays(folder):
    zeros = np.zeros(4)
    for name, values in {
        "y": zeros,
        "short": zeros[:3],
        "wide": np.zeros((4, 2)),
        "names": np.array(["a"] * 4),
        "m8": np.arange(4).astype("m8[s]"),
        "bytes": np.array([b"a", b"\xff", b"b", b"c"]),
    }.items():
        np.save(folder / f"{name}.npy", values)
    np.save(folder / "objects.npy", np.array([{}, None, 1, 2], object), allow_pickle=True)
    np.savez(folder / "t.npz", y=zeros, p=zeros, o=np.array([{}, None], object))
    np.savez_compressed(folder / "big.npz", y=np.random.default_rng(0).random(10_000))
    data = bytearray((folder / "big.npz").read_bytes())
    data[40_000:40_100] = bytes(100)
    (folder / "bad.npz").write_bytes(data)
    (folder / "cut.npz").write_bytes(data[:1000])
    (folder / "cut.npy").write_bytes((folder / "y.npy").read_bytes()[:-8])
    with h5py.File(folder / "t.h5", "w") as file:
        file["group/y"] = zeros
        file["group/p"] = zeros
        file["group/table"] = np.zeros(4, [("y", float), ("p", float)])
        file["group/names"] = np.array(["a"] * 4, h5py.string_dtype())
    (folder / "not.h5").write_text("no")
    store = zarr.open_group(folder / "t.zarr", mode="w")
    store.create_array("deep/y", data=zeros)
    store.create_array("deep/short", data=zeros[:3])
    (folder / "not.zarr").mkdir()


def table(source, labels="y", predictions="p", weights=None, by=()):
    return source, labels, predictions, weights, by


def files(labels, predictions=None, weights=None, by=()):
    return None, labels, predictions or labels, weights, by


GONE = FileNotFoundError
LARGE = pl.DataFrame({"y": [1.0], "p": [1.0], "i": [2**64]}, schema_overrides={"i": pl.Int128})
WRONG = {
    "no such file": (table("missing.parquet"), GONE, "no such file: missing.parquet"),
    "no such file in a list": (table(["t.parquet", "missing.parquet"]), GONE, "no such file: missing.parquet"),
    "no match": (table("missing-*.parquet"), GONE, "no file matches missing-*.parquet"),
    "no data": (table("none"), ValueError, "none is a directory without data files; expected .parquet, "),
    "several formats": (table("both"), ValueError, "both is a directory of several formats, .csv, .parquet"),
    "twice": (table(["t.parquet", "./t.parquet"]), ValueError, "./t.parquet is given twice"),
    "partitions": (table("hive"), ValueError, "hive/k=1/a.parquet lies under the partition keys ['k'], but hive/j=1/"),
    "unknown kind": (table("t.xlsx"), ValueError, "t.xlsx: unknown kind of file '.xlsx', expected one of .parquet, "),
    "an array as a table": (table("y.npy"), ValueError, "unknown kind of file '.npy', expected one of .parquet"),
    "a pipe": (table("pipe.csv"), ValueError, "pipe.csv is no regular file"),
    "a number": (table(3), TypeError, "source must be paths, a table or an iterable of chunks, got int"),
    "no chunks": (table([]), ValueError, "the source yields no chunks"),
    "chunks of numbers": (table([3]), TypeError, "chunk 0 must be"),
    "chunks of two kinds": (
        table([pl.DataFrame({"y": [1.0], "p": [1.0]}), {"y": np.ones(1), "p": np.ones(1)}]),
        TypeError,
        "chunk 1: expected a table, got dict",
    ),
    "a key above what is named": (table("hive/k=1", by=["k"]), ValueError, "no column 'k' for by (keys of directories"),
    "a mapping": (table({"y": np.ones(1)}), ValueError, "chunk 0 has no 'p' for predictions; it has: y"),
    "no column": (table("t.parquet", "z"), ValueError, "t.parquet has no column 'z' for labels; it has: y, p, arr_d"),
    "near column": (
        table("t.csv", "ar_delay"),
        ValueError,
        "no column 'ar_delay' for labels (did you mean 'arr_delay'?)",
    ),
    "a name in two words": (table("t.parquet", "y p"), ValueError, "no column 'y p' for labels"),
    "another name": (
        table("t.parquet", "y AS p"),
        ValueError,
        "no column 'y AS p' for labels, and as an expression it ",
    ),
    "a comment": (table("t.parquet", "y--p"), ValueError, "no column 'y--p' for labels, and as an expression it would"),
    "carriage returns": (table("cr.csv"), ValueError, "cr.csv has lines that end in CR alone, expected LF or CR LF"),
    "other capitals": (table("t.csv", "ARR_DELAY"), ValueError, "no column 'ARR_DELAY' for labels (did you mean 'arr_"),
    "standard input": (table("-"), GONE, "no such file: -; standard input cannot be read"),
    "no prediction": (table("t.ndjson", "y", ["p", "q"]), ValueError, "t.ndjson has no column 'q' for predictions"),
    "no weights": (table("t.arrow", weights="w"), ValueError, "t.arrow has no column 'w' for weights"),
    "no key": (table("t.parquet", by=["nam"]), ValueError, "no column 'nam' for by (did you mean 'name'?)"),
    "no column in one": (
        table(["t.parquet", "narrow.parquet"]),
        ValueError,
        "narrow.parquet has no column 'p' for pred",
    ),
    "no column to compute": (
        table("t.csv", "y + q"),
        ValueError,
        "t.csv has no column 'q' for labels, used in 'y + q'",
    ),
    "no name of a column": (table("t.csv", np.zeros(3)), TypeError, "labels must be the name of a column, got ndarray"),
    "no labels": (table("t.csv", None), TypeError, "labels must be the name of a column, got NoneType"),
    "no predictions": (table("t.csv", "y", []), ValueError, "predictions must be one or several, got none"),
    "SQL": (table("t.csv", "y +"), ValueError, "no column 'y +' for labels, and as an expression it fails: "),
    "aggregate": (
        table("t.csv", "max(y)"),
        ValueError,
        "'max(y)' for labels must be a column of t.csv, or an expression",
    ),
    "hidden aggregate": (table("t.csv", "y - avg(y)"), ValueError, "'y - avg(y)' for labels must be a column of t.csv"),
    "window": (
        table("t.csv", "sum(y) over (order by p)"),
        ValueError,
        "whose value in a row depends on columns of that",
    ),
    "constant": (table("t.csv", "y", "1"), ValueError, "'1' for predictions must be a column of t.csv"),
    "SQL types": (table("t.parquet", "y + name"), (ValueError, TypeError), "'y + name'"),
    "text": (
        table("t.parquet", "name"),
        TypeError,
        "column 'name' of t.parquet must hold numbers for labels, got String",
    ),
    "text in CSV": (
        table("word.csv"),
        TypeError,
        "column 'y' of word.csv must hold numbers for labels, got String: line 4 of word.csv cannot be read: could not"
        " parse `x1`",
    ),
    "lone quote": (table("pipe_.csv"), ValueError, 'line 2 of pipe_.csv cannot be read: it has a quote (") that no'),
    "lone quote, late": (table("quote.csv"), ValueError, "line 20002 of quote.csv cannot be read: "),
    "two lone quotes": (table("quotes.csv"), ValueError, "line 2 of quotes.csv cannot be read: it has a quote"),
    "blank lines only": (table("blank.csv"), ValueError, "blank.csv has no header: it begins with 3 bytes of blank"),
    "too few fields": (table("short.csv"), ValueError, "line 20002 of short.csv cannot be read: 1 fields, expected 2"),
    "too few quoted fields": (
        table("few.csv", "y", "y", by=["k"]),
        ValueError,
        "line 3 of few.csv cannot be read: 2 fields, expected 3",
    ),
    "repeated column": (table("repeated.csv"), ValueError, "repeated.csv has several columns 'y', of which one is"),
    "repeated column of pandas": (
        table(pl.DataFrame({"y": [1.0], "p": [1.0]}).to_pandas()[["y", "p", "y"]]),
        ValueError,
        "the DataFrame has several columns 'y'",
    ),
    "text in NDJSON": (table("word.ndjson"), ValueError, "line 2 of word.ndjson cannot be read: cannot parse 'one'"),
    "durations": (
        table("odd.parquet", by=["d"]),
        TypeError,
        "column 'd' of odd.parquet must hold plain values for by, got Duration",
    ),
    "large integers": (
        table(LARGE, by=["i"]),
        ValueError,
        "column 'i' of the DataFrame for by: keys must be integers of int64 or uint64, got some from 1844674407370955",
    ),
    "durations in .npy": (
        files("y.npy", by=["m8.npy"]),
        TypeError,
        "keys must be numbers, bools, text or times, got dtype timedelta64[s] in m8.npy",
    ),
    "bytes that are no UTF-8": (
        files("y.npy", by=["bytes.npy"]),
        ValueError,
        "keys of bytes must be UTF-8, got b'\\xff' in bytes.npy",
    ),
    "a key twice": (
        table("both_hive", by=["k"]),
        ValueError,
        "'k' for by is both a column of both_hive/k=1/a.parquet and a key of its directories, k=1",
    ),
    "kinds of keys": (
        table(["null.parquet", "t.parquet", "numbered.parquet"], by=["name"]),
        TypeError,
        "column 'name' for by is String in t.parquet but Int32 in numbered.parquet",
    ),
    "computed text": (table("t.csv", "upper(name)"), TypeError, "column 'upper(name)' of t.csv must hold numbers"),
    "mixed": (
        table(["t.parquet", "text.parquet"]),
        TypeError,
        "column 'y' of text.parquet must hold numbers for labels",
    ),
    "mixed keys": (
        table(["t.parquet", "numbered.parquet"], by=["name"]),
        TypeError,
        "column 'name' for by is String in t.parquet but Int32 in numbered.parquet",
    ),
    "lists": (
        table("nested.parquet"),
        TypeError,
        "column 'y' of nested.parquet must hold numbers for labels, got List",
    ),
    "structs": (table("nested.parquet", "arr_delay"), TypeError, "column 'p' of nested.parquet must hold numbers for"),
    "list keys": (
        table("nested.parquet", "arr_delay", "arr_delay", by=["y"]),
        TypeError,
        "must hold plain values for by",
    ),
    "binary keys": (table("nested.parquet", "arr_delay", "arr_delay", by=["b"]), TypeError, "got Binary"),
    "empty Parquet": (table("empty.parquet"), ValueError, "empty.parquet is empty"),
    "truncated Parquet": (table("cut.parquet"), ValueError, "cut.parquet cannot be read: "),
    "damaged footer": (table("footer.parquet"), ValueError, "footer.parquet cannot be read: "),
    "wrong footer length": (table("length.parquet"), ValueError, "length.parquet cannot be read: "),
    "damaged pages": (table("pages.parquet"), ValueError, "pages.parquet cannot be read: "),
    "not Parquet": (table("not.parquet"), ValueError, "not.parquet cannot be read: "),
    "empty Arrow": (table("empty.arrow"), ValueError, "empty.arrow is empty"),
    "truncated Arrow": (table("cut.arrow"), ValueError, "cut.arrow cannot be read: "),
    "not Arrow": (table("not.arrow"), ValueError, "not.arrow cannot be read: "),
    "a lone quote among many lines": (
        table("early.csv"),
        ValueError,
        "line 3 of early.csv cannot be read: it has a quote",
    ),
    "a lone quote in the header": (
        table("header.csv"),
        ValueError,
        "line 1 of header.csv cannot be read: it has a quote",
    ),
    "a byte order mark alone": (table("mark.csv"), ValueError, "mark.csv has no header"),
    "names that Polars cannot tell apart": (table("same.csv"), ValueError, "same.csv cannot be read: "),
    "empty CSV": (table("empty.csv"), ValueError, "empty.csv is empty, and has no header"),
    "late text in CSV": (
        table("late.csv"),
        ValueError,
        "line 30002 of late.csv cannot be read: could not parse `oops`",
    ),
    "too many fields": (table("long.csv"), ValueError, "line 20002 of long.csv cannot be read: 3 fields, expected 2"),
    "late text in gzip": (
        table("late.csv.gz"),
        ValueError,
        "line 30002 of late.csv.gz cannot be read: could not parse",
    ),
    "truncated gzip": (table("cut.csv.gz"), ValueError, "cut.csv.gz cannot be read: "),
    "not gzip": (table("not.csv.gz"), ValueError, "not.csv.gz cannot be read: "),
    "empty gzip": (table("empty.csv.gz"), ValueError, "empty.csv.gz is empty"),
    "truncated zstd": (table("cut.csv.zst", "0", "0"), ValueError, "cut.csv.zst cannot be read: "),
    "not zstd": (table("not.csv.zst"), ValueError, "not.csv.zst cannot be read: "),
    "malformed NDJSON": (table("late.ndjson"), ValueError, "line 20001 of late.ndjson cannot be read: "),
    "late text in NDJSON": (table("text.ndjson"), ValueError, "line 20001 of text.ndjson cannot be read: "),
    "not NDJSON": (table("not.ndjson"), ValueError, "not.ndjson cannot be read: "),
    "URL of nobody": (table("http://localhost:9/t.parquet"), OSError, "http://localhost:9/t.parquet cannot be reached"),
    "no such array": (files("y.npy", "missing.npy"), GONE, "no such file: missing.npy"),
    "unequal lengths": (
        files("y.npy", "short.npy"),
        ValueError,
        "the same shape, got (4,) in y.npy and (3,) in short.npy",
    ),
    "weights": (
        files("y.npy", weights="short.npy"),
        ValueError,
        "weights must be a scalar, or have the leading dimensions of the elements, or as many dimensions, each 1 or"
        " equal; got shape (3,) in short.npy for elements of shape (4,)",
    ),
    "weights of more axes": (
        files("y.npy", weights="wide.npy"),
        ValueError,
        "got shape (4, 2) in wide.npy for elements of",
    ),
    "keys": (
        files("y.npy", by=["short.npy"]),
        ValueError,
        "keys must have one dimension, as long as the first of labels",
    ),
    "keys of more axes": (files("wide.npy", by=["wide.npy"]), ValueError, "keys must have one dimension"),
    "objects": (files("objects.npy"), ValueError, "objects.npy is no readable .npy file: "),
    "objects in .npz": (
        files("t.npz:o"),
        ValueError,
        "t.npz:o is no readable array: it holds Python objects, which are",
    ),
    "array of text": (files("names.npy"), TypeError, "labels must be real numbers (bool, integer or a float of up to"),
    "truncated .npy": (files("cut.npy"), ValueError, "cut.npy is no readable .npy file: "),
    "no name in .npz": (
        files("t.npz"),
        ValueError,
        "t.npz has 3 arrays, name one of them: t.npz:NAME; it has: y, p, o",
    ),
    "no such name in .npz": (
        files("t.npz:yy"),
        ValueError,
        "t.npz has no array 'yy' (did you mean 'y'?); it has: y, p",
    ),
    "truncated .npz": (files("cut.npz:y"), ValueError, "cut.npz is no readable .npz file: "),
    "damaged .npz": (files("bad.npz:y"), ValueError, "bad.npz:y cannot be read: it is damaged: "),
    "no HDF5": (files("missing.h5:/y"), GONE, "no such file: missing.h5"),
    "not HDF5": (files("not.h5:/y"), ValueError, "not.h5 is no readable HDF5 file: "),
    "no such dataset": (
        files("t.h5:/group/yy"),
        ValueError,
        "t.h5 has no array '/group/yy' (did you mean 'group/y' or ",
    ),
    "group": (files("t.h5:/group"), ValueError, "t.h5:/group is a group, expected a dataset, one of: group/names, "),
    "compound": (files("t.h5:/group/table"), TypeError, "labels must be real numbers"),
    "text in HDF5": (files("t.h5:group/names"), TypeError, "labels must be real numbers"),
    "not Zarr": (files("not.zarr:y"), ValueError, "not.zarr is no readable Zarr store: "),
    "no such Zarr array": (files("t.zarr:deep/z"), ValueError, "t.zarr has no array 'deep/z'"),
    "Zarr group": (files("t.zarr:deep"), ValueError, "t.zarr:deep is a group, expected an array"),
    "unequal Zarr": (
        files("t.zarr:deep/y", "t.zarr:deep/short"),
        ValueError,
        "must have the same shape, got (4,) in t.z",
    ),
    "a table as an array": (files("t.csv"), ValueError, "t.csv: unknown kind of file '.csv', expected one of .npy, "),
    "a directory as an array": (files("none"), IsADirectoryError, "none is a directory, expected a file"),
}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    make_wrong(folder)
    return folder


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(wrong, case, large, monkeypatch):
    monkeypatch.chdir(wrong)
    if large:
        monkeypatch.setattr(parquet, "LARGE", 0)
    arguments, kind, message = WRONG[case]
    with pytest.raises(kind) as caught:
        for _ in open_source(*arguments).batches(START):
            pass
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"y": [1.0]}).write_parquet(path)
    for folder in (tmp_path, *(parent for parent in tmp_path.parents if "pytest" in str(parent))):
        folder.chmod(0o755)
    path.chmod(0)
    script = f"""
import os, sys
import polars, pyarrow.parquet  # whoever one becomes may not be allowed to read where they are installed
from streamloss.files import tables
from streamloss.files.opening import open_source
if os.getuid() == 0:
    os.setuid(65534)
try:
    open_source({str(path)!r}, "y", "y")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "ermission denied" in done.stdout, done.stderr
    assert "t.parquet" in done.stdout


# --------------------------------------------------------------------------------- names, expressions, keys


def test_a_path_that_exists_is_no_pattern(tmp_path):
    for name, y in (("run[12].parquet", 1.0), ("run1.parquet", 100.0), ("*.parquet", 2.0)):
        pl.DataFrame({"y": [y]}).write_parquet(tmp_path / name)
    for name, found in (("run[12].parquet", [1.0]), ("*.parquet", [2.0]), ("run[0-9].parquet", [100.0])):
        assert labels(open_source(tmp_path / name, "y", "y")).tolist() == found


def test_directories_and_patterns_are_read_in_sorted_order(tmp_path):
    for y, name in enumerate(["a/1.csv", "a/10.csv", "a/2.csv", "b.csv"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"y\n{y}\n")
    for source in (tmp_path, tmp_path / "**" / "*.csv", [tmp_path / "a", tmp_path / "b.csv"]):
        assert labels(open_source(source, "y", "y")).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_partition_keys_are_numbers_only_if_all_are(tmp_path):
    for place in ("k=1/s=07/n=a%20b", "k=2/s=x/n=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / place).mkdir(parents=True)
        pl.DataFrame({"y": [1.0]}).write_parquet(tmp_path / place / "0.parquet")
    source = open_source(tmp_path, "y", ["k + 1"], by=["k", "s", "n"])
    batches = list(source.batches(START))
    assert [batch.predictions[0].tolist() for batch in batches] == [[2.0], [3.0]]
    assert batches[0].by[0].dtype.kind == "i"
    assert score(source)[1] == [("1", "07", "a b"), ("2", "x", None)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "arrow"])
def test_keys_of_partitions_are_columns_like_others(tmp_path, kind):
    frame = pl.DataFrame({"y": np.arange(12) / 8, "c": ["u", "v"] * 6})
    partitions = {"k=1/s=07": slice(0, 3), "k=2/s=x": slice(3, 9), "k=__HIVE_DEFAULT_PARTITION__/s=x": slice(9, 12)}
    for place, rows in partitions.items():
        (tmp_path / "parts" / place).mkdir(parents=True)
        TABLES[kind](tmp_path / "parts" / place, frame[rows])
    keys = {"k": [1] * 3 + [2] * 6 + [None] * 3, "s": ["07"] * 3 + ["x"] * 9}
    whole = frame.with_columns(pl.Series(name, values) for name, values in keys.items())
    for labels, by in {"y": "k", "2 * y": "s", "k": "k", "k + y": ["c", "k", "s"], "y / 2": ["s", "k + 1"]}.items():
        options = {"labels": labels, "predictions": "y", "by": by}
        assert streamloss.score(tmp_path / "parts", **options) == streamloss.score(whole, **options)
    out = tmp_path / "losses.parquet"
    streamloss.score(
        tmp_path / "parts", labels="y", predictions="y", by=["k", "s"], losses_out=out, checkpoint=tmp_path / "c"
    )
    assert pl.read_parquet(out).select("k", "s").equals(whole.sort("k", nulls_last=True).select("k", "s"))


def test_times_of_partitions_are_written_as_times_in_columns_are(tmp_path):
    place = tmp_path / "parts" / "at=2024-01-05 00%3A00%3A00"
    place.mkdir(parents=True)
    pl.DataFrame({"y": [1.0]}).write_parquet(place / "t.parquet")
    out = tmp_path / "losses.parquet"
    scored = streamloss.score(tmp_path / "parts", labels="y", predictions="y", by="at", losses_out=out)
    assert pl.read_parquet(out)["at"].to_list() == scored.keys() == ["2024-01-05T00:00:00"]


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "arrow", "DataFrame", "pandas", "frames"])
def test_expressions(tmp_path, sample, small, kind):
    frame = sample.with_columns(carrier=1, month=2)
    source = open_source(
        TABLES[kind](tmp_path, frame), "ln(y + 1)", ["p / 2", "round(p, 1)"], "case when p > 0.5 then 2 else 1 end"
    )
    batches = list(source.batches(START))
    for got, want in (
        ([batch.labels for batch in batches], (frame["y"] + 1).log()),
        ([batch.predictions[0] for batch in batches], frame["p"] / 2),
        ([batch.predictions[1] for batch in batches], frame["p"].round(1)),
        ([batch.weights for batch in batches], 1.0 + (frame["p"] > 0.5).cast(pl.Float64)),
    ):
        assert np.array_equal(np.concatenate(got), want.to_numpy())


WIDE = {
    "a - b": lambda a, b, s, i, f: a - b,
    "-a": lambda a, b, s, i, f: -a,
    "a * 2": lambda a, b, s, i, f: a * 2,
    "a * b * s": lambda a, b, s, i, f: a * b * s,
    "pow(a, 2)": lambda a, b, s, i, f: a**2,
    "abs(a - b)": lambda a, b, s, i, f: np.abs(a - b),
    "abs(s)": lambda a, b, s, i, f: np.abs(s),
    "a / b": lambda a, b, s, i, f: a / b,
    "s + 1000": lambda a, b, s, i, f: s + 1000,
    "i + 1": lambda a, b, s, i, f: i + 1,
    "i * i": lambda a, b, s, i, f: i * i,
    "i - a": lambda a, b, s, i, f: i - a,
    "f * 0.1": lambda a, b, s, i, f: f * 0.1,
    "f - s": lambda a, b, s, i, f: f - s,
    "sqrt(f)": lambda a, b, s, i, f: np.sqrt(f),
    "case when a > b then a - b else b - a end": lambda a, b, s, i, f: np.abs(a - b),
    "greatest(a, s) - least(b, f)": lambda a, b, s, i, f: np.maximum(a, s) - np.minimum(b, f),
    "coalesce(a, 1) - b": lambda a, b, s, i, f: a - b,
}


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "ndjson", "DataFrame", "LazyFrame", "pandas", "hive"])
def test_expressions_are_computed_in_float64(tmp_path, small, kind):
    random = np.random.default_rng(0)
    count = 1000
    frame = pl.DataFrame(
        {
            "a": random.integers(1, 256, count).astype(np.uint8),
            "b": random.integers(1, 256, count).astype(np.uint8),
            "s": random.integers(-(2**15), 2**15, count).astype(np.int16),
            "i": random.integers(2**53 - 9, 2**53 + 9, count),
            "f": random.random(count).astype(np.float32),
            "carrier": "x",
            "month": 1,
            "distance": 1,
        }
    )
    wide = frame.with_columns(pl.col("a", "b", "s", "f").cast(pl.Float64))  # what text says of them
    source = TABLES[kind](tmp_path, wide if kind in {"csv", "ndjson"} else frame)
    batches = list(open_source(source, "i", [*WIDE, "f"], "a + b", by=["s"]).batches(START))
    columns = [frame[name].to_numpy().astype(np.float64) for name in "absif"]
    for place, of in enumerate(WIDE.values()):
        got = np.concatenate([np.asarray(batch.predictions[place], np.float64) for batch in batches])
        assert got.tobytes() == of(*columns).tobytes()
    assert np.concatenate([batch.predictions[-1] for batch in batches]).tolist() == columns[4].tolist()
    assert np.concatenate([batch.labels for batch in batches]).tolist() == columns[3].tolist()
    assert np.concatenate([batch.weights for batch in batches]).tolist() == (columns[0] + columns[1]).tolist()


def test_keys_are_computed_in_the_types_of_their_columns():
    names = ["0", "_0", "__1", "a b", "a.b", "*", "^a.*$"]
    frame = pl.DataFrame({name: pl.Series([2**62 + place, 7], dtype=pl.Int64) for place, name in enumerate(names)})
    frame = frame.with_columns(pl.Series("u", [3, 250], dtype=pl.UInt8))
    by = ['"0" + 0', '"_0"', '"__1" + 1', '"a b" - 0', "u", "u - 3", "*", "^a.*$"]
    labels = '"0" - "_0" + "__1" - "a b" + "a.b" - u'
    (batch,) = open_source(frame, labels, ["^a.*$", "u", "0"], by=by).batches(START)
    assert batch.labels.tolist() == [float(2**62) - 3, 7.0 - 250]
    assert [each.tolist() for each in batch.predictions] == [[float(2**62 + 6), 7.0], [3.0, 250.0], [float(2**62), 7.0]]
    wanted = [[2**62, 7], [2**62 + 1, 7], [2**62 + 3, 8], [2**62 + 3, 7], [3, 250], [0, 247], [2**62 + 5, 7]]
    assert [as_text(keys) for keys in batch.by] == [[str(key) for key in keys] for keys in [*wanted, [2**62 + 6, 7]]]


def test_values_within_columns_are_float64_too(tmp_path):
    small = pl.List(pl.UInt8)
    frame = pl.DataFrame({"l": [[1, 2], [200, 255]], "r": [{"x": 1}, {"x": 3}]}, schema_overrides={"l": small})
    frame = frame.with_columns(pl.col("r").cast(pl.Struct({"x": pl.UInt8})))
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ndjson(tmp_path / "t.ndjson")
    for name in ("t.parquet", "t.ndjson"):
        (batch,) = open_source(tmp_path / name, "l[1] - l[2]", "r.x - 2").batches(START)
        assert (batch.labels.tolist(), batch.predictions[0].tolist()) == ([-1.0, -55.0], [-1.0, 1.0])


SEVERAL_TYPES = pl.DataFrame(
    {
        "y": [1.0, 2.5, 2.5, -3.0, None, 7.0],
        "x": [2, 9, -4, 1, 6, 3],
        "s": ["a", "bb", "a", None, "2020-01-05", ""],
        "b": [True, False, None, True, False, True],
        "d": [date(2020, 1, day) for day in range(1, 7)],
        "l": [[1, 2], [3], [5, 4, 6], [], [9], None],
        "n": [[[1], [2]]] * 6,
        "r": [{"a": i} for i in range(6)],
    }
)

# What reads other rows, or how many there are.
ACROSS_ROWS = """
count(*); count(y); count(1); sum(y); sum(1); avg(y); min(y); max(1); first(y); first(1); last(y); median(y);
stddev(y); variance(y); corr(y, x); covar(y, x); quantile_cont(y, 0.5); quantile_disc(y, 0.5); first_value(y);
count(distinct y); sum(distinct y); sum(y) filter (where x > 1); length(string_agg(s, ',')); length(listagg(s));
length(group_concat(s)); array_agg(y)[1]; array_agg(1)[1]; array_length(array_agg(1)); array_sum(array_agg(y));
row_number() over (); row_number() over (order by y); rank() over (order by y); dense_rank() over (order by y);
percent_rank() over (order by y); cume_dist() over (order by y); ntile(4) over (order by y);
lag(y) over (order by x); lead(y) over (order by x); first_value(y) over (order by x);
last_value(y) over (order by x); nth_value(y, 2) over (order by x); sum(y) over (order by x);
sum(y) over (partition by s); avg(y) over (); count(*) over (); count(*) over (partition by s); max(1) over ();
sum(round(y)); median(pow(y, 2)); stddev(round(y)); first(round(y)); last(round(y)); min(round(y)); max(y in (1, 2));
avg(case when s in ('a', 'bb') then 1 else y end); quantile_cont(pow(y, 2), 0.5); corr(round(y), round(x));
count(distinct round(y)); array_agg(round(y))[1]; lag(round(y)) over (order by y); lag(y) over (order by round(x));
sum(y) over (partition by round(x)); sum(y) over (order by x rows between 1 preceding and current row)
"""

# What takes none, one or several rows of one.
OTHER_ROWS = """
unnest(l); array_sum(unnest(n)); unnest(array_reverse(l)); array_reverse(unnest(n))[1]; abs(unnest(l));
unnest(case when y in (1, 2) then l else l end); case when b then unnest(l) else 0 end; round(unnest(l)); -unnest(l)
"""

# What is done to each row by itself.
WITHIN_ROWS = """
y + 1; 1 - y; -x; y / x; x % 3; mod(x, 3); x // 2; div(x, 2); pow(y, 2); y + pow(2, 3); y * pi(); abs(y); sqrt(x);
y * x; cbrt(x); sign(y); round(y); round(y, 1); floor(y); ceil(y); exp(y); ln(y); log(y, 10);
sin(y); atan2(y, x); degrees(y);
y > x; y between x and 3; y in (1, 2.5); y in (-3, 7); y in (x, 1); s in ('a', 'bb'); s not in ('a');
d in (date '2020-01-01', date '2020-01-03'); y is null; b is true; not b; b and y > 1 or x < 2; y <=> x;
y is distinct from x; coalesce(y, x, 1); ifnull(y, 0); nullif(y, 7); least(y, x, 1); greatest(y, 1); if(b, y, 2);
case when s in ('a', 'bb') then 1 else y end; case s when 'a' then 1 when 'bb' then x end; case when true then y end;
length(s); length('abc') + y; strpos(s, 'b'); s like 'a%'; s ilike '%B'; s ~ '^a'; regexp_like(s, 'b');
length(s || 'x'); length(concat(s, 'x')); length(concat_ws('-', s, s)); length(substr(s, 1, 1));
length(replace(s, 'a', 'bb'));
length(upper(s)); length(split_part(s, '-', 1)); length(reverse(s)); starts_with(s, 'a'); try_cast(s as double);
extract(year from d); date_part('day', d); d > date '2020-01-03'; length(strftime(d, '%Y-%m')); cast(y as int) + 1;
l[1]; l[2] - l[1]; array_get(l, 1); array_reverse(l)[1]; array_sum(array_reverse(l)); array_reverse(array_unique(l))[1];
array_length(l); array_mean(l); array_contains(l, x); l[cast(x as bigint)]; array_get(n[1], 1);
r.a + 1; coalesce(l[1], 0) + y
"""


def expressions(text):
    return [each.strip() for each in text.split(";")]


@pytest.mark.parametrize(
    "form", ["{}", "y + {}", "coalesce(y, {})", "nullif({}, 2)", "case when x > {} then 1 else y end"]
)
@pytest.mark.parametrize("text", expressions(ACROSS_ROWS))
def test_expressions_that_read_other_rows_are_refused(text, form):
    with pytest.raises(ValueError, match="depends on columns of that row alone"):
        open_source(SEVERAL_TYPES, form.format(text), "y")
    with pytest.raises(
        ValueError, match="for by must be a column of the DataFrame, or an expression whose value in a row"
    ):
        open_source(SEVERAL_TYPES, "y", "y", by=[form.format(text)])


def test_lists_that_become_rows_are_refused(tmp_path):
    path = tmp_path / "t.ndjson"
    path.write_text('{"l":[1,2],"p":[5]}\n{"l":[3],"p":[1,2]}\n')
    for source in (path, pl.read_ndjson(path), pl.scan_ndjson(path)):
        with pytest.raises(ValueError, match=r"'unnest\(l\)' for labels must be a column of .* of that row alone"):
            streamloss.score(source, labels="unnest(l)", predictions="unnest(p)")
    for expression in expressions(OTHER_ROWS):
        with pytest.raises(ValueError, match="depends on columns of that row alone"):
            open_source(SEVERAL_TYPES, expression, "y")


@pytest.mark.parametrize("text", expressions(WITHIN_ROWS))
def test_expressions_that_read_one_row_are_computed(text):
    whole = labels(open_source(SEVERAL_TYPES, text, "y"))
    rows = [SEVERAL_TYPES[i : i + 1] for i in range(SEVERAL_TYPES.height)]
    assert whole.shape == (SEVERAL_TYPES.height,)
    assert whole.tobytes() == labels(open_source(iter(rows), text, "y")).tobytes()


def test_a_sum_of_many_models():
    frame = pl.DataFrame({f"m{i}": [float(i), 2.0] for i in range(200)})
    text = f"({' + '.join(f'pow({name}, 2)' for name in frame.columns)}) / 200"
    wanted = [sum(i * i for i in range(200)) / 200, 4.0]
    assert labels(open_source(frame, text, "m0")).tolist() == wanted


@pytest.mark.parametrize(
    "clock", ["NOW()", "current_date", "CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP()", "localtimestamp"]
)
def test_expressions_that_read_the_clock_are_refused(clock):
    text = f"extract(year from {clock}) - y"
    with pytest.raises(ValueError, match="depends on columns of that row alone"):
        open_source(SEVERAL_TYPES, text, "y")
    frame = SEVERAL_TYPES.with_columns(pl.col("d").alias(clock))
    text = f"extract(year from \"{clock}\") - x + length('{clock}')"
    assert labels(open_source(frame, text, "y"))[0] == 2020 - 2 + len(clock)


def test_a_name_is_a_column_before_it_is_an_expression():
    frame = pl.DataFrame({"p": [1.0], "p + 1": [7.0], "*": [3.0], "^p.*$": [5.0]})
    for name in frame.columns:
        assert labels(open_source(frame, name, "p")).tolist() == frame[name].to_list()


KEYS = {
    "text": ["a", "a text that is longer than a view", None, "b", "a text that is longer than a view", ""],
    "int": pl.Series([1, -5, None, 2**40, -5, 0]),
    "small": pl.Series([1, -5, 3, 2, -5, 0], dtype=pl.Int8),
    "unsigned": pl.Series([1, 2**64 - 1, 3, 2, 5, 0], dtype=pl.UInt64),
    "bool": [True, False, None, True, True, False],
    "float": [1.5, -2.25, 3.0, 1.5, 0.0, 7.0],
    "category": pl.Series(["x", "y", None, "x", "z", "y"], dtype=pl.Categorical),
    "enum": pl.Series(["x", "y", None, "x", "z", "y"], dtype=pl.Enum(["z", "y", "x"])),
    "date": pl.Series(["2013-01-31", None, "1950-02-03", "2013-01-31", "2013-02-01", "0001-01-01"]).str.to_date(),
    "time": pl.Series([1, None, 3, 1, 2, 10**15], dtype=pl.Datetime("us")),
    "decimal": pl.Series(["1.50", None, "-2.25", "1.50", "99999999999999999999999.75", "0"]).cast(pl.Decimal(30, 2)),
    "nothing": pl.Series([None] * 6),
}


@pytest.mark.parametrize("kind", ["parquet", "arrow", "frames"])
def test_keys_of_every_type(tmp_path, kind):
    names = ["a", "b", "c"]
    batches = [pl.DataFrame({**KEYS, "arr_delay": 1.0}).cast({"bool": pl.Boolean}) for _ in names]
    if kind == "frames":
        source = iter(batches)
    else:
        suffix = {"parquet": ".parquet", "arrow": ".arrow"}[kind]
        source = [tmp_path / (name + suffix) for name in names]
        for path, frame in zip(source, batches, strict=True):
            frame.write_parquet(path) if kind == "parquet" else frame.write_ipc(path)
    found = score(open_source(source, "arr_delay", "arr_delay", by=list(KEYS)))[1]
    frame = pl.concat(batches)
    for i, name in enumerate(KEYS):
        want = [None if value is None else str(value) for value in frame[name].cast(pl.String).to_list()]
        if name == "time":
            want = [None if value is None else read(np.array([value]), 1).keys[0] for value in frame[name].to_list()]
        if name == "bool":
            want = [None if value is None else value.capitalize() for value in want]
        assert [row[i] for row in found] == want, name


@pytest.mark.parametrize("length", [3, 40])
def test_many_different_keys_keep_their_codes(length):
    """More keys than the table of codes has room for at first, the same ones in another order in each batch."""
    rng = np.random.default_rng(8)
    names = np.array([f"{i:0{length}d}" for i in range(30_000)])
    frames = [pl.DataFrame({"y": np.zeros(30_000), "k": names[rng.permutation(30_000)]}) for _ in range(3)]
    source = open_source(iter(frames), "y", "y", by=["k"])
    assert [key for (key,) in score(source)[1]] == pl.concat(frames)["k"].to_list()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("pages", ["dictionaries", "plain", "dictionaries, then plain", "of Arrow's categories"])
def test_keys_of_text_whatever_their_dictionaries(tmp_path, pages, large, monkeypatch):
    """Every row group has a dictionary of its own, in an order of its own, with values that no row has."""
    if large:
        monkeypatch.setattr(parquet, "LARGE", 0)
    rng = np.random.default_rng(9)
    names = pa.array([f"key {i} that is longer than a view" for i in range(300)] + ["", "2013-01-31 05:00:00"])
    tables = []
    for _ in range(5):
        codes = pa.array(rng.integers(0, 250, 3000).astype(np.int32), mask=rng.random(3000) < 0.1)
        keys = pa.DictionaryArray.from_arrays(codes, names.take(pa.array(rng.permutation(len(names)))))
        keys = keys if "categories" in pages else keys.dictionary_decode()
        tables.append(pa.table({"y": np.zeros(3000), "k": keys}))
    options = {"use_dictionary": pages != "plain", "dictionary_pagesize_limit": 2000 if "then" in pages else 1 << 20}
    with pq.ParquetWriter(tmp_path / "t.parquet", tables[0].schema, **options) as writer:
        for table in tables:
            writer.write_table(table)
    found = score(open_source(tmp_path / "t.parquet", "y", "y", by=["k"]))[1]
    expected = [name for table in tables for name in table["k"].cast(pa.string()).to_pylist()]
    assert [key for (key,) in found] == [name and name.replace(" 05", "T05") for name in expected]


@pytest.mark.parametrize("chunk", [1, 1 << 16])
def test_keys_of_text_beside_numbers_in_portions_of_their_own(tmp_path, small, chunk, monkeypatch):
    """Row groups of all sizes, none at all among them; a reader that stops leaves no thread behind."""
    monkeypatch.setattr(parquet, "CHUNK", chunk)
    rng = np.random.default_rng(10)
    frame = pl.DataFrame({"y": np.arange(5000.0), "p": rng.random(5000), "k": rng.choice(["a", "bb", "ccc"], 5000)})
    table = frame.to_arrow()
    with pq.ParquetWriter(tmp_path / "t.parquet", table.schema) as writer:
        ends = [0, 1, 1, 700, 2301, 2302, 2302, 4990, 5000]
        for start, end in itertools.pairwise(ends):
            writer.write_table(table.slice(start, end - start))
    source = open_source(tmp_path / "t.parquet", "y", ["p + y"], by=["k"])
    for row in (0, 1, 699, 2301, 4999):
        batches = list(source.batches(Position(0, row, row)))
        assert np.array_equal(np.concatenate([batch.labels for batch in batches]), frame["y"][row:])
        keys = [batch.by[0].values[code] for batch in batches for code in batch.by[0].codes]
        assert keys == frame["k"][row:].to_list()
        sums = (frame["p"] + frame["y"])[row:]
        assert np.array_equal(np.concatenate([batch.predictions[0] for batch in batches]), sums)
    batches = source.batches(Position())
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("streamloss-reader")]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv"])
def test_a_file_without_rows_decides_no_kind(tmp_path, name, first):
    """Whoever writes no rows often calls every column text."""
    nothing = pl.DataFrame({"y": [], "p": [], "k": []}, schema={"y": pl.String, "p": pl.String, "k": pl.String})
    some = pl.DataFrame({"y": [1.0, 2.0], "p": [1.5, 1.0], "k": [3, 4]})
    for frame, folder in ((nothing, "0" if first else "2"), (some, "1")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / name
        {"t.parquet": frame.write_parquet, "t.arrow": frame.write_ipc, "t.csv": frame.write_csv}[name](path)
    assert streamloss.score(tmp_path, labels="y - 1", predictions="p", by="k").keys() == [3, 4]
    found = streamloss.score(tmp_path, labels="y", predictions="p")
    assert (found.count, found.result()) == (2, 0.625)
    with pytest.raises(ValueError, match="no column 'z' for labels"):
        streamloss.score(tmp_path, labels="z", predictions="p")


def test_a_file_under_two_names_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"y": [1.0]}).write_parquet(path)
    (tmp_path / "b.parquet").symlink_to(path)
    with pytest.raises(
        ValueError, match=r"b\.parquet is given twice, first as .*a\.parquet: its rows would count twice"
    ):
        open_source(tmp_path, "y", "y")


def test_equal_files_that_a_store_has_linked_count_twice(tmp_path):
    pl.DataFrame({"y": [1.0]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").hardlink_to(tmp_path / "a.parquet")
    assert streamloss.score(tmp_path, labels="y", predictions="y").count == 2


@pytest.mark.parametrize("by", [None, "k"])
def test_a_reader_that_stops_early_is_noticed(tmp_path, monkeypatch, by):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"y": range(5000), "k": ["a", "b"] * 2500}).write_parquet(path, row_group_size=1000)
    whole = parquet.Parquet._through_polars

    def half(self, columns, row, without=()):
        yield next(whole(self, columns, row, without)).head(3000)

    monkeypatch.setattr(parquet.Parquet, "_through_polars", half)
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read: its reader stopped after 3000 of 5000 rows"):
        streamloss.score(path, labels="y", predictions="y", by=by)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_keys_of_text_in_every_encoding(tmp_path, monkeypatch, encoding, large):
    monkeypatch.setattr(parquet, "LARGE", 0 if large else parquet.LARGE)
    table = pa.table({"y": np.arange(6.0), "k": ["one", "two", None, "one", "", "one"]})
    pq.write_table(table, tmp_path / "t.parquet", use_dictionary=False, column_encoding={"k": encoding, "y": "PLAIN"})
    found = streamloss.score(tmp_path / "t.parquet", labels="y", predictions="0 * y", by="k")
    assert {key: group.loss_sum for key, group in found.items()} == {"one": 34.0, "two": 1.0, None: 4.0, "": 16.0}


def test_keys_of_directories_that_are_not_written_as_numbers_are_text(tmp_path):
    for name in ("k=--1", "k=1", "k=01"):
        (tmp_path / name).mkdir()
        pl.DataFrame({"y": [1.0]}).write_parquet(tmp_path / name / "t.parquet")
    assert streamloss.score(tmp_path, labels="y", predictions="0 * y", by="k").keys() == ["--1", "01", "1"]


def test_a_key_with_a_dot_beside_a_struct(tmp_path):
    struct = pa.array([{"b": "x"}, {"b": "y"}])
    pq.write_table(pa.table({"y": [1.0, 2.0], "a.b": ["k", "l"], "a": struct}), tmp_path / "t.parquet")
    assert streamloss.score(tmp_path / "t.parquet", labels="y", predictions="y", by="a.b").keys() == ["k", "l"]


def test_keys_that_are_no_text(tmp_path):
    bad = pa.array([b"ok", b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"y": [1.0, 2.0], "k": bad}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read: .*UTF-?8"):
        streamloss.score(tmp_path / "t.parquet", labels="y", predictions="y", by="k")


@pytest.mark.parametrize("null", [False, True])
def test_codes_of_text_beyond_its_dictionary(tmp_path, null):
    path = tmp_path / "t.parquet"
    keys = [f"{i % 20}" for i in range(24)] + ["5"] * 64 + [None] * null
    pq.write_table(pa.table({"y": np.ones(len(keys)), "k": keys}), path, compression="none", write_statistics=False)
    data, run = path.read_bytes(), b"\x80\x01"  # of 64 times
    assert data.count(run + b"\x05") == 1
    path.write_bytes(data.replace(run + b"\x05", run + b"\x1f"))
    with pytest.raises(ValueError, match=r"t\.parquet cannot be read: "):
        streamloss.score(path, labels="y", predictions="y", by="k")


def test_decimals_of_several_kinds_are_refused(tmp_path):
    for name, keys in {"a": pa.array([1], pa.decimal128(10, 2)), "b": pa.array([1], pa.decimal128(10, 1))}.items():
        pq.write_table(pa.table({"y": [1.0], "k": keys}), tmp_path / f"{name}.parquet")
    with pytest.raises(TypeError, match=r"'k' for by is Decimal.* in .*a\.parquet but Decimal.* in .*b\.parquet"):
        streamloss.score(tmp_path, labels="y", predictions="y", by="k")


def test_a_column_that_polars_cannot_hold_is_in_nobodys_way(tmp_path):
    wide = pa.array([1], pa.decimal256(50, 2))
    pq.write_table(pa.table({"y": [1.0], "wide": wide, "j": pa.array(["{}"], pa.json_())}), tmp_path / "t.parquet")
    assert streamloss.score(tmp_path / "t.parquet", labels="y", predictions="y").count == 1
    with pytest.raises(TypeError, match=r"column 'j' of .*t\.parquet must hold plain values for by"):
        streamloss.score(tmp_path / "t.parquet", labels="y", predictions="y", by="j")


def test_categories_of_several_kinds_are_text():
    def frame(keys, dtype):
        return pl.DataFrame({"y": np.ones(len(keys)), "k": pl.Series(keys, dtype=dtype)})

    one, other = (pl.Categorical(pl.Categories(name)) for name in ("one", "other"))
    kinds = [one, other, pl.Categorical(), pl.String(), pl.Enum(["c", "b", "a"]), one]
    chunks = [frame(["a", "b", "a"][i % 2 :], kind) for i, kind in enumerate(kinds)]
    found = streamloss.score(iter(chunks), labels="y", predictions="y", by="k")
    assert {key: group.count for key, group in found.items()} == {"a": 9, "b": 6}


def test_an_expression_that_categories_do_not_have(tmp_path):
    frame = pl.DataFrame({"y": [1.0, 2.0], "k": pl.Series(["a", "b"], dtype=pl.Categorical)})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"'upper\(k\)' for by cannot be computed from .*t\.parquet"):
        streamloss.score(tmp_path / "t.parquet", labels="y", predictions="y", by="upper(k)")


def test_numbers_in_the_path_beside_keys_in_the_file(tmp_path):
    folder = tmp_path / "y=1" / "p=3"
    folder.mkdir(parents=True)
    pl.DataFrame({"k": ["a", "b", "a"]}).write_parquet(folder / "t.parquet")
    assert streamloss.score(tmp_path, labels="y", predictions="p").count == 3
    found = streamloss.score(tmp_path, labels="y", predictions="p", by="k")
    assert {key: (group.count, group.result()) for key, group in found.items()} == {"a": (2, 4.0), "b": (1, 4.0)}


MISSING = {
    "pandas, text": lambda: pd.Series(["a", np.nan, "b"]),
    "pandas, objects": lambda: pd.Series(["a", np.nan, "b"], dtype=object),
    "pandas, its own text": lambda: pd.array(["a", None, "b"], dtype="string"),
    "pandas, categories": lambda: pd.Series(pd.Categorical(["a", None, "b"])),
    "bytes": lambda: np.array([b"a", None, b"b"], object),
}


@pytest.mark.parametrize("column", MISSING.values(), ids=MISSING)
def test_a_missing_key_of_an_array_is_null(column):
    assert streamloss.score(labels=np.arange(3), predictions=np.ones(3), by=[column()]).keys() == [None, "a", "b"]


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        ([1, None, 2**70], [None, 1, 2**70]),
        ([True, None, False], [None, False, True]),
        ([np.int64(3), None, np.float32(2.5)], [None, 2.5, 3]),
        ([date(2026, 1, 31), None, date(2025, 1, 1)], [None, "2025-01-01", "2026-01-31"]),
        ([None] * 3, [None]),
    ],
)
def test_python_objects_as_keys(column, keys):
    by = np.array([*column, None], object)[:3]
    found = streamloss.score(labels=np.arange(3), predictions=np.ones(3), by=[by])
    assert found.keys() == keys
    assert found == streamloss.GroupedAccumulator(nan="omit").update(np.arange(3), np.ones(3), by=by)


@pytest.mark.parametrize(("column", "got"), [([1, "a", None], "int, str"), ([1, True, None], "bool, int")])
def test_python_objects_that_are_no_keys(column, got):
    with pytest.raises(TypeError, match=f"one kind in a column, got {got}"):
        streamloss.score(labels=np.arange(3), predictions=np.ones(3), by=[np.array(column, object)])


IDS = [2**53 + 1, 2**53, 2**62 + 1, 2**62, None]
INTEGERS_BESIDE_NULLS = {
    "pandas": lambda: pd.Series(IDS, dtype="Int64"),
    "pandas, unsigned": lambda: pd.array(IDS, dtype="UInt64"),
    "pandas, Arrow": lambda: pd.Series(IDS, dtype="int64[pyarrow]"),
    "pandas, categories of its integers": lambda: pd.Series(pd.array(IDS, dtype="Int64")).astype("category"),
    "Arrow, a dictionary": lambda: pa.array(IDS).dictionary_encode(),
    "Arrow, chunks of a dictionary": lambda: pa.chunked_array([pa.array(IDS).dictionary_encode()]),
    "Polars, wide": lambda: pl.Series(IDS, dtype=pl.Int128),
    "pandas, categories": lambda: pd.Series(pd.Categorical(IDS)),
    "pandas, an index": lambda: pd.Index(pd.array(IDS, dtype="Int64")),
    "Polars": lambda: pl.Series(IDS),
    "Arrow": lambda: pa.array(IDS),
    "Arrow, chunks": lambda: pa.chunked_array([IDS[:2], IDS[2:]]),
    "masked": lambda: np.ma.array([*IDS[:4], 0], mask=[0, 0, 0, 0, 1]),
}


@pytest.mark.parametrize("column", INTEGERS_BESIDE_NULLS.values(), ids=INTEGERS_BESIDE_NULLS)
@pytest.mark.parametrize("how", ["update", "arrays", "chunks"])
def test_integers_beside_nulls_stay_what_they_are(column, how):
    y, p, by = np.arange(5.0), np.zeros(5), column()
    found = {
        "update": lambda: streamloss.GroupedAccumulator().update(y, p, by=by),
        "arrays": lambda: streamloss.score(labels=y, predictions=p, by=[by]),
        "chunks": lambda: streamloss.score(iter([{"y": y, "p": p, "k": by}]), labels="y", predictions="p", by="k"),
    }[how]()
    assert found.result() == {key: float(i * i) for i, key in enumerate(IDS)}


@pytest.mark.parametrize(
    "keys",
    [np.array(["a", "b", "c"]), np.array(["a", 2, "c"], object), np.array(["2026-01-01"] * 3, "M8[ns]"), np.arange(3)],
)
def test_hidden_keys_are_null(keys):
    by, y = np.ma.array(keys, mask=[0, 1, 0]), np.arange(3.0)
    expected = streamloss.GroupedAccumulator().update(y, y, by=by)
    assert expected.keys()[0] is None
    assert streamloss.score(labels=y, predictions=y, by=[by]) == expected
    assert streamloss.score(iter([{"y": y, "p": y, "k": by}]), labels="y", predictions="p", by="k") == expected


def groups_of(*columns):
    grouped = streamloss.GroupedAccumulator()
    for by in columns:
        grouped.update(np.zeros(len(by)), np.ones(len(by)), by=by)
    return {key: group.count for key, group in grouped.items()}


NEW_YORK = pa.array([1793511000, 1793514600], pa.timestamp("s", "America/New_York"))  # the clocks go back between them
NOON = [datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 13, tzinfo=timezone(timedelta(hours=1)))]


@pytest.mark.parametrize(
    "by",
    [
        NEW_YORK,
        NEW_YORK.dictionary_encode(),
        NEW_YORK.to_pylist(),
        pl.from_arrow(NEW_YORK),
        NOON,
        np.array(NOON, object),
    ],
    ids=["Arrow", "dictionary", "list", "Polars", "zones", "objects"],
)
def test_times_that_are_written_differently_are_different_keys_in_any_chunks(by):
    assert groups_of(by) == groups_of(by[:1], by[1:]) == groups_of(by[1:], by[:1])
    assert list(groups_of(by).values()) == [1, 1]


def test_keys_that_arrow_encodes_by_runs_are_what_they_were():
    whole = pa.array([2**53, None, 2**53 + 1])
    for column in (whole, NEW_YORK):
        encoded = pa.compute.run_end_encode(column)
        assert groups_of(encoded) == groups_of(column) == groups_of(pa.chunked_array([encoded]))


def test_times_beyond_those_of_python_are_refused():
    with pytest.raises(ValueError, match="by has times that Python cannot hold"):
        groups_of(pa.array([253402300799], pa.timestamp("s", "Asia/Tokyo")))


@pytest.mark.parametrize("values", [[1, 2], [1, None, 2**100], [None]])
def test_wide_integers_are_keys(values):
    assert groups_of(pl.Series(values, dtype=pl.Int128)) == groups_of(values)


def test_times_with_a_zone_are_keys_with_their_offset():
    times = pl.Series([datetime(2026, 1, 31, 9), None]).dt.replace_time_zone("Europe/Berlin")
    for by in (times, times.to_pandas(), times.to_arrow(), pa.chunked_array([times.to_arrow()])):
        found = streamloss.score(labels=np.arange(2), predictions=np.zeros(2), by=[by])
        assert found.keys() == [None, "2026-01-31T09:00:00+01:00"]
        assert streamloss.GroupedAccumulator().update([1, 2], [1, 2], by=by).keys() == found.keys()


# --------------------------------------------------------------------------------- lines


@pytest.mark.parametrize("record", ["1,5,2,a,7", "1,2,a,71,2,a,7", "1,2,a,7,99", '1,2,"x,y",7,8', "1,2,a,7,"])
@pytest.mark.parametrize("by", [None, "k"])
def test_too_many_fields_are_refused_beyond_the_sample_and_in_columns_that_are_not_asked_for(tmp_path, record, by):
    lines = ["y,p,k,c", *['1,2,"a,b",7'] * 110_000, record, "1,2,a,7"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"line 110002 of .*: [567] fields, expected 4"):
        streamloss.score(str(tmp_path / "t.csv"), labels="y", predictions="p", by=by)


def test_lines_of_json_may_be_missing_in_a_partition(tmp_path):
    for name, lines in {"k=1": '{"y": 1, "p": 2}', "k=2": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.ndjson").write_text(lines)
    assert streamloss.score(tmp_path, labels="y", predictions="p", by="k").result() == {1: 1.0}


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n \r\n", b"\n\t\n"])
def test_lines_of_json_without_any_object_have_no_rows(tmp_path, content):
    (tmp_path / "t.ndjson").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.ndjson has no rows"):
        streamloss.score(str(tmp_path / "t.ndjson"), labels="y", predictions="p")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "escapes",
    [
        r"a\ud800",
        r"a\uDaBc",
        r"\udfff",
        r"\ude00\ud83d",
        r"\\\ud800",
        r"\\ud83d\ude00",
        r"\ud83d\\ude00",
        r"\ud83d\ud83d\ude00",
    ],
)
def test_half_a_character_of_json_is_refused(tmp_path, small, escapes, late):
    lines = [r'{"y":1,"p":2,"k":"\ud83d\ude00","c":"\\"}'] * 600
    lines[599 if late else 3] = f'{{"y":1,"p":2,"k":"b","c":"{escapes}"}}'
    (tmp_path / "t.ndjson").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"line {600 if late else 4} of .*t.ndjson cannot be read: it has half a char"):
        list(open_source(tmp_path / "t.ndjson", "y", "p", by=["k"]).batches(START))


def test_escapes_of_json_that_look_like_halves_of_characters(tmp_path):
    keys = [r"\ud800", r"\\ud800", "\U0001f600", "\\\U0001f600", "\ud7ff\ue000", "\U0010ffff\U00010000"]
    lines = [json.dumps({"y": 1, "k": key}) for key in keys]
    (tmp_path / "t.ndjson").write_text("\n".join([*lines, r'{"y":1,"k":"\uD83D\uDE00"}']))
    assert score(open_source(tmp_path / "t.ndjson", "y", "y", by=["k"]))[1] == [(key,) for key in [*keys, keys[2]]]


def test_records_with_too_many_fields_are_refused_beside_others_with_too_few(tmp_path):
    lines = ["y,p,k,c", *["1,2,a,7"] * 9, "1,2,a", "1,2,b,3,4", *["1,2,a,7"] * 9]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"line 12 of .*: 5 fields, expected 4"):
        streamloss.score(str(tmp_path / "t.csv"), labels="y", predictions="p")


FIELDS = [b"a", b"12345", b"", b'"x"', b'",\n"', b'"\r\n,,"']


@settings(max_examples=500)
@given(st.integers(0, 3), st.data())
def test_regular_lines_are_told_from_others(width, data):
    line = st.lists(st.sampled_from(FIELDS), min_size=width + 1, max_size=width + 1).map(b",".join)
    lines = data.draw(st.lists(line | st.sampled_from([b"", b"\r"]), max_size=40))
    text = b"\n".join(lines) + data.draw(st.sampled_from([b"", b"\n"]))
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(st.sampled_from([b",", b"\n", b'"', b""])) + text[place + 1 :]
    records = re.findall(rb'(?:"[^"]*"|[^"\n])+(?:"[^"]*)?(?:\n|\Z)|\n|"[^"]*\Z', text)
    assert b"".join(records) == text
    widths = [re.sub(rb'"[^"]*("|\Z)', b"", r).count(b",") for r in records if r not in (b"\n", b"\r\n")]
    assert are_regular(text, ",", width) == all(found == width for found in widths)


def are_clear(text):
    """Whether no separator or end stands in quotes by one reading only: each counts, or only a field's first opens."""
    odd = [count % 2 == 1 for count in itertools.accumulate(byte == ord('"') for byte in text)]
    careful, at = [], 0
    while at < len(text):
        quoted = re.compile(rb'"(?:[^"]|"")*("|\Z)').match(text, at)
        if quoted:
            careful += [True] * (len(quoted[0]) - 1) + [not quoted[1]]
            at = quoted.end()
        plain = re.compile(rb"[^,\n]*[,\n]?").match(text, at)
        careful += [False] * len(plain[0])
        at = plain.end()
    places = [i for i, byte in enumerate(text) if byte in b",\n"]
    return [odd[i] for i in places] == [careful[i] for i in places] and not (text and (odd[-1] or careful[-1]))


PIECES = [b"a" * 61, b"b", b",", b"\n", b"\r\n", b"\r", b'"', b'""', b'"x",', b'"y\n,"\n', b',"z""', b'5" x', b' "c",']


@settings(max_examples=1000)
@given(
    st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), st.sampled_from([b"", b'"k"\n', b'\xef\xbb\xbf"k"\n'])
)
def test_quotes_that_may_be_read_in_two_ways_are_told_from_others(text, header):
    expected = are_clear(text)
    assert quotes_are_clear(header + text, ",", len(header)) == expected
    data = np.frombuffer(text, np.uint8)
    assert fields._compiled_clear()(data, ord(",")) == expected
    assert expected or not fields._compiled_proper()(data, ord(","))


@settings(max_examples=200)
@given(st.lists(st.lists(st.sampled_from(FIELDS), min_size=2, max_size=2).map(b",".join), max_size=40))
def test_quotes_as_writers_of_csv_put_them_are_seen_by_the_fast_kernel(lines):
    for end in (b"\n", b"\r\n"):
        assert fields._compiled_proper()(np.frombuffer(end.join(lines), np.uint8), ord(","))


UNCLEAR = {
    "the second at the end": (12, "y,p,note\n" + "1,2,ok\n" * 10 + '1,2,5" pipe\n' + "1,2,ok\n" * 988 + '1,2,7"'),
    "two records": (2, 'y,p,note\n0,2,5" x\n4,7,a"'),
    "two records, with an end": (2, 'y,p,note\n0,2,5" x\n4,7,a"\n'),
    "before quotes": (
        12,
        "note,y,p,n\n" + '"a",1,2,ok\n' * 10 + '"b",1,2,5" pipe\n"c",1,2,7" pipe\n' + '"a",1,2,ok\n' * 988,
    ),
    "around records": (
        5,
        "y,p,note\n" + "3,5,ok\n" * 3 + '"1",2,5" x\n' + "3,5,ok\n" * 3 + '"4",9,7" x\n' + "3,5,ok\n" * 20,
    ),
    "around a separator": (2, 'y,p,note\n"1000",400,a"b,c"d'),
    "around a line feed": (2, 'y,p,note\n6,NA,a"\nb"c'),
    "beyond the sample": (90_002, "y,p,note\n" + "1,2,x\n" * 90_000 + ('1,2,5" x\n' + "1,2,x\n" * 9) * 2),
    "in the header": (1, 'y,p,note,a"b,c"d\n1,2,3,4,5\n'),
}


@pytest.mark.parametrize("by", [[], ["note"], ["note", "p"]])
@pytest.mark.parametrize("case", UNCLEAR)
def test_quotes_that_may_be_read_in_two_ways_are_refused(tmp_path, small, case, by):
    line, content = UNCLEAR[case]
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=rf"line {line} of \S+t.csv cannot be read: it has a quote"):
        list(open_source(tmp_path / "t.csv", "y", "p", by=by).batches(START))


@pytest.mark.parametrize(
    ("line", "content", "reason"),
    [
        (2, "y,p\n1,2\r3,5\n1,2\n", "a carriage return"),
        (2, 'y,p,k\n1,2,"a\r\n"\r3,x,""\n', "a carriage return"),
        (1, "y,p\r1,2\n1,2\n", "a carriage return"),
        (2, 'y,p,k\n1,2,"a\r"b\n', "a quote"),
        (2, 'y,p,k\n1,2\r3,b"\n', "a quote"),
    ],
)
def test_a_carriage_return_within_a_line_is_told_from_a_quote(tmp_path, line, content, reason):
    (tmp_path / "t.csv").write_text(content, newline="")
    with pytest.raises((ValueError, TypeError), match=rf"line {line} of \S+t.csv cannot be read: it has {reason}"):
        list(open_source(tmp_path / "t.csv", "y", "p").batches(START))


def test_quotes_within_a_field_that_mislead_nobody_are_letters(tmp_path):
    content = '\ufeff"y",p,note\n1,2, "Paris"\n3,4,5"x"\n5,6,""\n7,8,"a ""b"" c"\n9,1,"x\ny"\n"0",0,5""'
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    source = open_source(tmp_path / "t.csv", "y", "p", by=["note"])
    assert labels(source).tolist() == [1, 3, 5, 7, 9, 0]
    assert score(source)[1] == [(key,) for key in [' "Paris"', '5"x"', None, 'a "b" c', "x\ny", '5""']]


ODD = {
    "blank lines": "y,s\n1,a\n\n2,b\n\n\n3,c\n",
    "quotes": 'y,s\n1,"a\nb"\n2,"c ""d""\n\n"\n3,"\n"\n4,e\n',
    "crlf": 'y,s\r\n1,"a\r\nb"\r\n2,c\r\n3,d\r\n',
    "no end": "y,s\n1,a\n2,b",
    "quoted header": '"y","s\nt"\n1,a\n2,b\n3,c\n',
    "missing": "y,s\n1,\nNA,b\n,c\n4,\n5,d\n",
    "letters": "y,s\n1,äöü\n2,日本語\n3,\N{GRINNING FACE}\n",
}


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ODD)
def test_a_file_of_lines_may_be_cut_at_any_byte(tmp_path, name, packing, monkeypatch):
    path = packed(tmp_path / f"t.csv{packing}", ODD[name].encode())
    monkeypatch.setattr(delimited, "MISSING", ["", "NA"])
    whole = pl.read_csv(ODD[name].encode(), null_values=["", "NA"], schema_overrides={"y": pl.Float64})
    expected = whole["y"].fill_null(math.nan).to_numpy(), whole[whole.columns[1]].to_list()
    for block in range(1, len(path.read_bytes()) + 2):
        monkeypatch.setattr(text, "BLOCK", block)
        source = open_source(path, "y", "y", by=['"s\nt"' if name == "quoted header" else "s"])
        assert np.array_equal(labels(source), expected[0], equal_nan=True)
        assert [key for (key,) in score(source)[1]] == expected[1]


@pytest.mark.parametrize(("suffix", "content"), [("csv", "a,b\n1,2\nNA,NA\n"), ("ndjson", '{"a":1}\n{"a":null}\n')])
def test_all_columns_may_stand_in_the_path(tmp_path, suffix, content):
    folder = tmp_path / "y=1" / "p=2"
    folder.mkdir(parents=True)
    (folder / f"t.{suffix}").write_text(content)
    assert labels(open_source(tmp_path, "y", "p")).tolist() == [1.0, 1.0]


NINE = 2**53 + 1
KEYS_OF_LINES = {
    "whole numbers": ("csv", "y,k\n1,9007199254740992\n1,9007199254740993\n", [2**53, NINE]),
    "unsigned": ("csv", f"y,k\n1,{2**64 - 1}\n1,{2**64 - 2}\n", [2**64 - 1, 2**64 - 2]),
    "fractions": ("csv", "y,k\n1,0.5\n1,9007199254740991\n1,inf\n", [0.5, 2**53 - 1, math.inf]),
    "late large": (
        "csv",
        f"y,k\n1,0.5\n1,{NINE}\n",
        "line 3 of t.csv cannot be read: the key 9007199254740992 of 'k' is not",
    ),
    "large": (
        "ndjson",
        f'{{"y":1,"k":0.5}}\n{{"y":1,"k":{NINE}}}\n',
        "line 2 of t.ndjson cannot be read: the key 9007199254740992 ",
    ),
    "mixed": (
        "ndjson",
        '{"y":1,"k":"1"}\n{"y":1,"k":1}\n',
        "line 2 of t.ndjson cannot be read: the key 'k' is 1 there and text in",
    ),
    "late": (
        "ndjson",
        '{"y":1,"k": "1"}\n' * 99_999 + '{"y":1,"k" : true}',
        "line 100000 of t.ndjson cannot be read: the key 'k' is ",
    ),
    "within": ("ndjson", '{"y":1,"m":{"k":1},"k":"a"}\n{"k":"b"}\n{}\n{"k" : null}', ["a", "b", None]),
}


@pytest.mark.parametrize("name", KEYS_OF_LINES)
def test_keys_of_lines_are_never_united(tmp_path, name, monkeypatch):
    suffix, content, expected = KEYS_OF_LINES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"t.{suffix}").write_text(content)
    arguments = {"labels": "y", "predictions": "y", "by": "k", "nan": "omit"}
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=re.escape(expected)):
            streamloss.score(f"t.{suffix}", **arguments)
    else:
        assert set(streamloss.score(f"t.{suffix}", **arguments)) == set(expected)


def test_what_python_writes_as_json(tmp_path):
    path = tmp_path / "t.ndjson"
    records = [{"k": 'a": NaN, "', "p": 1.0}, {"k": "NaN", "p": math.nan}, {"k": "NaN", "p": 3.0}]
    path.write_text("\ufeff" + "".join(json.dumps(record) + "\n" for record in records))
    found = streamloss.score(path, labels="p + 1", predictions="p", by="k", nan="omit")
    assert {key: (group.count, group.skipped_count) for key, group in found.items()} == {
        'a": NaN, "': (1, 0),
        "NaN": (1, 1),
    }
    path.write_text('{"p": 1}\n{"p": Infinity}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*t\.ndjson cannot be read: JSON has no Infinity"):
        streamloss.score(path, labels="p", predictions="p")


@pytest.mark.parametrize("missing", delimited.MISSING)
def test_what_is_missing_is_missing_in_every_block(tmp_path, missing, monkeypatch):
    """Blocks in which nothing is missing are parsed in another way than the others."""
    rows = [["1", "1.5", "a"], [missing, "1.5", "a"], ["1", missing, "b"], ["1", "2.5", missing], ["2", "2.5", "b"]] * 2
    (tmp_path / "t.csv").write_text("\n".join(map(",".join, [["y", "x", "k"], *rows])))
    values = [[None if value == missing else value for value in row] for row in rows]
    for block in (8, 16, 40, 1 << 20):
        monkeypatch.setattr(text, "BLOCK", block)
        source = open_source(tmp_path / "t.csv", "coalesce(y, 7)", "x", by=["k", "x"])
        assert labels(source).tolist() == [float(y or 7) for y, _, _ in values]
        assert score(source)[1] == [(k, x) for _, x, k in values]


def test_numbers_look_alike_in_the_first_records_and_later(tmp_path):
    odd = ["+1", " 1", "Infinity", "NAN", "#N/A", "<NA>", "-inf", "1e5"]
    early = [f"{value},{value}\n" for value in odd]
    late = ["1,1\n"] * 20_000
    for name, lines in (("early.csv", early + late), ("late.csv", late + early)):
        (tmp_path / name).write_text("y,p\n" + "".join(lines))
        found = np.sort(labels(open_source(tmp_path / name, "y", "p")))
        assert np.array_equal(found, [-math.inf, *[1.0] * 20_002, 1e5, math.inf, *[math.nan] * 3], equal_nan=True)


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_ndjson_without_lines_has_no_rows(tmp_path, packing):
    def write(name, text):
        (tmp_path / name).write_bytes(gzip.compress(text) if packing else text)

    write(f"a.ndjson{packing}", b"")
    write(f"d.ndjson{packing}", b"\n  \n" * 300_000)
    with pytest.raises(ValueError, match="has no rows"):
        streamloss.score(tmp_path, labels="y", predictions="p", by="k")
    write(f"b.ndjson{packing}", b'{"y": 1, "p": 3, "k": "x"}\n')
    write(f"c.ndjson{packing}", b"")
    found = streamloss.score(tmp_path, labels="y", predictions="p", by="k", checkpoint=tmp_path / "run.ckpt")
    assert (found.count, found["x"].result()) == (1, 4.0)
    write(f"c.ndjson{packing}", b'{"y": 1, "p": 3, "k": "x"}\n')
    with pytest.raises(ValueError, match=r"c\.ndjson"):
        streamloss.score(tmp_path, labels="y", predictions="p", by="k", checkpoint=tmp_path / "run.ckpt")


@pytest.mark.parametrize("late", [20_000, 200_000])
def test_numbers_of_ndjson_may_become_floats_at_any_record(tmp_path, late):
    path = tmp_path / "t.ndjson"
    path.write_text('{"y":1,"p":2,"x":1}\n' * late + '{"y":1.5,"p":2,"x":{"a":[1]}}\n{"y":2,"p":2,"x":"text"}\n')
    assert labels(open_source(path, "y", "p"))[late:].tolist() == [1.5, 2.0]
    path.write_text('{"y":1,"p":2,"x":{"a":[1]}}\n{"y":1.5,"p":2,"x":"text"}\n{"y":2,"p":2,"x":3}\n')
    assert labels(open_source(path, "y", "p")).tolist() == [1.0, 1.5, 2.0]


def test_keys_with_leading_zeros_are_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("y,zip,n\n1,00501,1\n2,501,2\n3,0,3\n4,90210,4\n")
    assert score(open_source(path, "y", "y", by=["zip", "n"]))[1] == [
        ("00501", "1"),
        ("501", "2"),
        ("0", "3"),
        ("90210", "4"),
    ]
    assert labels(open_source(path, "zip", "y")).tolist() == [501.0, 501.0, 0.0, 90210.0]


def test_a_file_of_text_may_be_compared_with_text(tmp_path):
    (tmp_path / "t.csv").write_text("y,s\n1,a\n2,b\n")
    assert labels(open_source(tmp_path / "t.csv", "case when s = 'a' then y else 7 end", "y")).tolist() == [1.0, 7.0]


# --------------------------------------------------------------------------------- times

TIMES = [datetime(2020, 1, 1), datetime(2020, 1, 1, 12, 30, 15, 500_000), None, datetime(1969, 12, 31, 23, 59, 59, 1)]
ONE_FORM = ["2020-01-01T00:00:00", "2020-01-01T12:30:15.5", None, "1969-12-31T23:59:59.000001"]
TIMED = {
    **{kind: TABLES[kind] for kind in ("parquet", "csv", "ndjson", "arrow", "DataFrame", "pandas", "arrow table")},
    "csv of pandas": written("t.csv", lambda frame, path: frame.to_pandas().to_csv(path, index=False)),
    "nanoseconds": lambda folder, frame: frame.cast({"t": pl.Datetime("ns")}),
    "mappings": lambda folder, frame: iter([{"y": frame["y"].to_numpy(), "t": frame["t"].to_numpy()}]),
}


@pytest.mark.parametrize("kind", TIMED)
def test_a_time_is_one_key_however_it_is_stored(tmp_path, kind):
    frame = pl.DataFrame({"y": [1.0, 2.0, 3.0, 4.0], "t": TIMES})
    assert [key for (key,) in score(open_source(TIMED[kind](tmp_path, frame), "y", "y", by=["t"]))[1]] == ONE_FORM


@pytest.mark.parametrize("unit", ["h", "m", "s", "ms", "us", "ns"])
def test_a_time_in_an_array_is_the_same_key(tmp_path, unit):
    times = np.array(["2020-01-01", "2020-01-01T12", "NaT"], f"M8[{unit}]")
    np.save(tmp_path / "t.npy", times)
    keys = ["2020-01-01T00:00:00", "2020-01-01T12:00:00", None]
    assert [key for (key,) in score(open_source(None, np.ones(3), np.ones(3), by=[tmp_path / "t.npy"]))[1]] == keys
    for column in (times, [None if each is None else each for each in times.astype("M8[us]").tolist()]):
        found = read(np.array(column, object) if isinstance(column, list) else column, 3)
        assert [found.keys[code] for code in found.codes] == keys


LATER = {  # after 20,000 records with the key 501
    "fractions": ("501.5", "k", {501: 20_000.0, 501.5: 1.0}),
    "an exponent": ("1e3", "k", {501: 20_000.0, 1000: 1.0}),
    "a key computed from it": ("501.5", "CONCAT(k, 'x')", "line 20002 of .*could not parse `501.5`"),
    "text beside a number": ("501.5", ("CAST(k AS TEXT)", "k + 1"), "line 20002 of .*could not parse `501.5`"),
    "a leading zero": ("00501", "k", {501: 20_001.0}),
    "a leading zero, as text": ("00501", "CAST(k AS TEXT)", {"00501": 1.0, "501": 20_000.0}),
    "text, as text": ("abc", 'cast("k" as varchar)', {"501": 20_000.0, "abc": 1.0}),
    "text": ("abc", "k", "line 20002 of .*could not parse `abc`"),
    "too large beside fractions": (f"{2**60}\n3,4,1.5", "k", "is not below 2.*53"),
}


@pytest.mark.parametrize("case", LATER)
def test_keys_of_csv_that_begin_as_whole_numbers(tmp_path, case):
    later, by, expected = LATER[case]
    path = tmp_path / "t.csv"
    path.write_text("y,p,k\n" + "1,2,501\n" * 20_000 + f"3,4,{later}\n")
    if isinstance(expected, dict):
        assert streamloss.score(path, labels="y", predictions="p", by=by).result("sum") == expected
    else:
        with pytest.raises(ValueError, match=expected):
            streamloss.score(path, labels="y", predictions="p", by=by)


# --------------------------------------------------------------------------------- URLs


@pytest.fixture
def server(tmp_path):
    """A web server of a folder, with HEAD and ranges; a file's tag is its content."""

    class Handler(BaseHTTPRequestHandler):
        sent, breaks, share = 0, 0, 0.5  # bytes in all; answers still to be cut short, and to which share
        length, most, encoding = True, 1 << 40, None  # is the length told; bytes of an answer; of the content

        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, with_body):
            path = tmp_path / unquote(self.path[1:].partition("?")[0])
            if not path.exists():
                self.send_error(404)
                return
            data, status = path.read_bytes(), 200
            wanted = None if "no-ranges" in self.path else self.headers.get("Range")
            tag = str(hash(data))
            size = len(data)
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                first = int(first) if first else max(0, size - int(last))
                last = min(int(last), size - 1) if last and wanted[6] != "-" else size - 1
                last = min(last, first + Handler.most - 1)
                data, status = data[first : last + 1], 206
            self.send_response(status)
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            if with_body or Handler.length:
                self.send_header("Content-Length", str(len(data)))
            if Handler.encoding:
                self.send_header("Content-Encoding", Handler.encoding)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{tag}"')
            self.send_header("Last-Modified", "Sun, 22 Nov 2026 06:00:00 GMT")
            self.end_headers()
            if not with_body:
                return
            if wanted and len(data) > 1 and Handler.breaks:
                Handler.breaks -= 1
                data = data[: int(len(data) * Handler.share)]
                self.close_connection = True
            with suppress(ConnectionError):  # of a reader that has seen enough
                for start in range(0, len(data), 1 << 16):
                    self.wfile.write(data[start : start + (1 << 16)])
                    Handler.sent += len(data[start : start + (1 << 16)])

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Server(f"http://127.0.0.1:{server.server_port}", Handler)
        server.shutdown()
        thread.join()


class Server(NamedTuple):
    url: str
    handler: type[BaseHTTPRequestHandler]

    def __str__(self):
        return self.url


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "arrow"])
def test_urls(tmp_path, sample, server, small, kind):
    frame = sample.with_columns(carrier=1, month=2)
    path = TABLES[kind](tmp_path, frame)
    source = open_source(f"{server}/{path.name}", "y", ["p"], by=["s"])
    assert labels(source).tolist() == frame["y"].to_list()
    assert [key for (key,) in score(source)[1]] == frame["s"].to_list()
    end = next(source.batches(START)).end
    assert labels(source, end).tolist() == frame["y"].to_list()[end.rows :]
    before = source.identity
    assert open_source(f"{server}/{path.name}", "y", ["p"], by=["s"]).identity == before
    TABLES[kind](tmp_path, frame.with_columns(p=pl.lit(0.5)))
    assert open_source(f"{server}/{path.name}", "y", ["p"], by=["s"]).identity != before
    with pytest.raises(ValueError, match=r"the server of http\S+ does not support range requests"):
        open_source(f"{server}/{path.name}?no-ranges", "y", "p")
    with pytest.raises(OSError, match="cannot be reached: HTTP Error 404"):
        open_source(f"{server}/missing.parquet", "y", "p")


TEXTS = {
    "leading_zeros.csv": b"y,p,s\r\n1,2,00501\r\n3,4,501\r\n",
    "quotes.csv": b'y,p,s\n1,2,"a\nb, c"\n3,,"d ""e"""\n',
    "lines_in_quotes.csv": b'y,p,s\r\n1,2,"a\r\nb"\r\n3,4,"a\nb"\r\n',
    "no_utf8.csv": b"y,p,s\n1,2,a\n3,4,\xff\xfe\n",
    "zstd.ndjson.zst": ZSTD.compress(b'{"y": 1, "p": 2, "s": "a"}\n' * 9, asbytes=True),
    "no_end.tsv": b"y\tp\ts\n1\t2\ta\n\n3\t4\tb",
    "missing.csv.gz": gzip.compress(b"y,p,s\n1,NA,a\n3,4,b\n"),
    "nan.ndjson": b'{"y": 1, "p": 2, "s": "a"}\n{"y": 3, "p": NaN, "s": "b"}\n',
    "short_record.csv": b"y,p,s\n1,2,a\n3,4\n",
    "long_record.csv": b"y,p,s\n1,2,a\n3,4,b,5\n",
    "name_twice.csv": b"y,p,s,y\n1,2,a,3\n",
    "key_of_two_kinds.ndjson": b'{"y": 1, "p": 2, "s": "1"}\n{"y": 3, "p": 4, "s": 1}\n',
    "header_only.csv": b"y,p,s\n",
    "empty.csv": b"",
    "empty.ndjson": b"",
    "no_number.csv": b"y,p,s\n1,2,a\nx,4,b\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_behind_a_url_is_read_as_one_in_a_file(tmp_path, server, name):
    (tmp_path / name).write_bytes(TEXTS[name])

    def outcome(path):
        try:
            return score(open_source(path, "y", ["p"], by=["s"]))
        except (TypeError, ValueError) as error:
            return str(error).replace(path, name)

    assert outcome(f"{server}/{name}") == outcome(str(tmp_path / name))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("store", [False, True])
def test_a_text_behind_a_url_is_read_on_from_any_position(tmp_path, server, monkeypatch, store, packed):
    """A store is read by the lines that Polars brings, here from a server."""
    monkeypatch.setattr(text, "BLOCK", 1000)
    monkeypatch.setattr(remote, "LINES", 64)
    monkeypatch.setattr(web, "has", lambda url: not store)
    data = "y,p\n" + "".join(f"{i},{i * i}\n" for i in range(2000))
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(data.encode()) if packed else data.encode())
    source = open_source(f"{server}/{path.name}", "y", "p")
    ends = [batch.end for batch in source.batches(START)]
    assert len(ends) > 5
    assert source.bytes == (None if store else path.stat().st_size)
    assert ends[-1].bytes == (0 if store else path.stat().st_size)
    for end in ends:
        assert labels(source, end).tolist() == list(range(end.rows, 2000))


def test_connections_that_break_are_made_anew(tmp_path, server, monkeypatch):
    monkeypatch.setattr(web, "PAUSE", 0.001)
    (tmp_path / "t.csv").write_text("y,p\n" + "".join(f"{i},{i * i}\n" for i in range(20_000)))
    source = open_source(f"{server}/t.csv", "y", "p")
    server.handler.breaks = 3
    assert labels(source).tolist() == list(range(20_000))
    assert server.handler.breaks == 0
    server.handler.breaks, server.handler.share = 1000, 0.0
    with pytest.raises(ValueError, match=r"t.csv cannot be read: the connection ended, at byte \d+ of \d+"):
        labels(source)


@pytest.mark.parametrize("length", [False, True])
@pytest.mark.parametrize("fault", ["short answers", "broken connections"])
def test_no_byte_is_lost_whatever_a_server_leaves_unsaid(tmp_path, server, monkeypatch, length, fault):
    monkeypatch.setattr(web, "PAUSE", 0.001)
    (tmp_path / "ä b.csv").write_text("y,p\n" + "".join(f"{i},{i * i}\n" for i in range(20_000)))
    server.handler.length = length
    if fault == "short answers":
        server.handler.most = 10_000
    else:
        server.handler.breaks = 3
    source = open_source(f"{server}/ä b.csv", "y", "p")
    assert labels(source).tolist() == list(range(20_000))


def test_texts_that_a_server_has_compressed(tmp_path, server):
    data = "y,p\n" + "".join(f"{i},{i * i}\n" for i in range(1000))
    (tmp_path / "t.csv").write_bytes(gzip.compress(data.encode()))
    server.handler.encoding = "gzip"
    assert labels(open_source(f"{server}/t.csv", "y", "p")).tolist() == list(range(1000))
    server.handler.encoding = "br"
    with pytest.raises(ValueError, match="comes in the encoding 'br', expected one of identity, gzip, zstd"):
        open_source(f"{server}/t.csv", "y", "p")


def test_a_file_that_changes_on_its_server_is_refused(tmp_path, server):
    path = tmp_path / "t.csv"
    path.write_text("y,p\n" + "1,2\n" * 1000)
    source = open_source(f"{server}/t.csv", "y", "p")
    path.write_text("y,p\n" + "3,4\n" * 1000)
    with pytest.raises(ValueError, match=r"t.csv was changed while it was read"):
        labels(source)


@pytest.mark.parametrize("name", ["t.csv", "t.ndjson"])
def test_opening_a_url_reads_little_of_it(tmp_path, server, name):
    line = b"12345,67890\n" if name == "t.csv" else b'{"y":12345,"p":67890}\n'
    (tmp_path / name).write_bytes(b"y,p\n" * (name == "t.csv") + line * 3_000_000)
    size = (tmp_path / name).stat().st_size
    source = open_source(f"{server}/{name}", "y", "p")
    assert server.handler.sent < 0.4 * size
    server.handler.sent = 0
    assert sum(len(batch.labels) for batch in source.batches(START)) == 3_000_000
    assert 0.9 * size < server.handler.sent <= size


# --------------------------------------------------------------------------------- reading ahead


def test_reading_ahead_keeps_the_order_and_brings_errors():
    def items():
        yield from range(10)
        raise KeyError("late")

    reader = ahead(items())
    assert [next(reader) for _ in range(10)] == list(range(10))
    with pytest.raises(KeyError, match="late"):
        next(reader)


def test_reading_ahead_is_bounded_and_ends_with_its_reader():
    fetched, closed = [], []

    def items():
        try:
            for i in range(100):
                fetched.append(i)
                yield i
        finally:
            closed.append(threading.current_thread().name)

    before = threading.active_count()
    reader = ahead(items(), depth=2)
    assert [next(reader), next(reader)] == [0, 1]
    reader.close()
    assert threading.active_count() == before
    assert closed == ["streamloss-ahead"]
    assert len(fetched) <= 5


def test_of_small_items_more_are_read_ahead():
    fetched = []

    def items():
        for i in range(100):
            fetched.append(i)
            yield [i] * 10

    with closing(ahead(items(), depth=2, size=len, enough=50)) as reader:
        assert next(reader) == [0] * 10
        deadline = time.monotonic() + 60
        while len(fetched) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(fetched) == 5
        assert next(reader) == [1] * 10
    assert len(fetched) <= 6


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_calls_side_by_side_keep_their_order_and_bring_errors(threads):
    def call(i):
        time.sleep(0.01 * (i % 3 == 0))
        return i if i < 20 else {}[i]

    reader = side_by_side([partial(call, i) for i in range(30)], threads)
    assert [next(reader) for _ in range(20)] == list(range(20))
    with pytest.raises(KeyError, match="20"):
        next(reader)
    assert list(side_by_side([], threads)) == []


def test_calls_side_by_side_end_where_the_system_grants_few_threads(monkeypatch):
    before, start, granted = threading.active_count(), threading.Thread.start, iter(range(2))

    def starts(thread):
        if next(granted, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(side_by_side([lambda: None] * 10, 4))
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_calls_side_by_side_are_bounded_and_end_with_their_reader(threads):
    called = []
    before = threading.active_count()
    reader = side_by_side([partial(called.append, i) for i in range(100)], threads)
    next(reader)
    next(reader)
    reader.close()
    assert threading.active_count() == before
    assert sorted(called) == list(range(len(called)))
    assert len(called) <= 2 + threads + 1


@pytest.mark.parametrize("kind", ["parquet", "one row group", "csv", "csv.gz", "ndjson.zst", "arrow"])
def test_whoever_stops_early_leaves_no_thread(tmp_path, sample, small, kind, monkeypatch):
    if kind == "one row group":
        monkeypatch.setattr(parquet, "LARGE", 0)
    source = open_source(POSITIONED[kind](tmp_path, sample), "y", "p", by=["s"])
    before = {thread.name for thread in threading.enumerate()}

    def consume():
        for _ in source.batches(START):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if name.startswith("streamloss")]


# --------------------------------------------------------------------------------- memory

SCRIPT = """
import resource, sys
from streamloss.files.opening import open_source
from streamloss.files.source import Position
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
for _ in open_source(sys.argv[1], "y", "p").batches(Position()): pass
before = peak()
rows = 0
for batch in open_source(sys.argv[2], "y", "p").batches(Position()): rows += len(batch.labels)
print(rows, peak() - before)
"""


@pytest.mark.parametrize("kind", ["one row group", "csv.gz", "csv.zst", "arrow"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    """The larger file holds 320 MB of numbers, or as much text; the smaller one a tenth of that."""
    paths = []
    for rows in (2_000_000, 20_000_000):
        rows = rows // 2 if kind.startswith("csv") else rows
        folder = tmp_path / str(rows)
        folder.mkdir()
        frame = pl.DataFrame({"y": np.arange(rows) * 1.25, "p": np.arange(rows) * 1.5})
        paths.append(TABLES[kind](folder, frame))
    command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    rows, grown = map(int, done.stdout.split())
    assert rows == (10_000_000 if kind.startswith("csv") else 20_000_000)
    assert grown < 100
