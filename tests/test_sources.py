"""Readers: every kind of source yields the same rows, from any position on, and what is wrong is one line."""

import gzip
import math
import os
import random

import h5py
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc
import pytest
import zarr

from streamloss import Accumulator
from streamloss.files import arrays, parquet, part, text
from streamloss.files.opening import open_source
from streamloss.files.source import Position
from streamloss.keys import Coded

START = Position()


@pytest.fixture
def small(monkeypatch):
    """Batches of few rows, so that small files have many of them."""
    monkeypatch.setattr(part, "ROWS", 300)
    monkeypatch.setattr(parquet, "ROWS", 300)
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
    return [None if key is None else str(key) for key in np.ma.asarray(keys).astype(object).filled(None)]


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
    "file url": lambda folder, frame: many(folder, frame, 1)[0].as_uri(),
    "DataFrame": lambda folder, frame: frame,
    "LazyFrame": lambda folder, frame: frame.lazy().filter(pl.col("distance") > -1),
    "pandas": lambda folder, frame: frame.to_pandas(),
    "pandas, arrow types": lambda folder, frame: frame.to_pandas(use_pyarrow_extension_array=True),
    "arrow table": lambda folder, frame: frame.to_arrow(),
    "reader": lambda folder, frame: frame.to_arrow().to_reader(max_chunksize=1000),
    "dataset": lambda folder, frame: many(folder, frame) and pyarrow.dataset.dataset(folder, format="parquet"),
    "frames": lambda folder, frame: iter(pieces(frame, 7)),
    "list of frames": lambda folder, frame: [piece.to_pandas() for piece in pieces(frame, 3)],
    "record batches": lambda folder, frame: iter(frame.to_arrow().to_batches(max_chunksize=5000)),
    "mappings": lambda folder, frame: (one_column_at_a_time(piece) for piece in pieces(frame, 9)),
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
    if kind in ("list in any order", "hive", "hive pattern"):
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
    assert open_source(paths, "y", ["p"]).identity == before
    status = paths[1].stat()
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert open_source(paths, "y", ["p"]).identity != before
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert open_source(paths, "y", ["p"]).identity == before
    sample[1000:].with_columns(pl.col("p").cast(pl.Float32)).write_parquet(paths[1])
    assert open_source(paths, "y", ["p"]).identity["files"][1]["columns"] == {"y": "Float64", "p": "Float32"}


@pytest.mark.parametrize("kind", ["DataFrame", "LazyFrame", "pandas", "reader", "frames", "mappings"])
def test_what_lies_in_memory_has_no_identity(tmp_path, frame, kind):
    assert open_source(TABLES[kind](tmp_path, frame), "arr_delay", "dep_delay").identity is None
    assert open_source(None, np.zeros(3), np.zeros(3)).identity is None
