"""Files: the same bits as the arrays in them, and errors that name what is wrong."""

import math

import numpy as np
import polars as pl
import pytest

import streamloss
from streamloss import Accumulator


@pytest.fixture
def table(tmp_path):
    """A function that writes a frame as Parquet or CSV and scores its columns y, p and perhaps w."""

    def score(columns, suffix=".parquet", **options):
        frame = pl.DataFrame(columns)
        path = tmp_path / f"table{suffix}"
        frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path, row_group_size=1000)
        weights = {"weights": "w"} if "w" in frame.columns else {}
        return streamloss.score(path, labels="y", predictions="p", **weights, **options)

    return score


@pytest.fixture
def npy(tmp_path):
    """A function that saves arrays and scores the files."""

    def score(*arrays, **options):
        paths = {name: tmp_path / f"{name}.npy" for name in ("labels", "predictions", "weights")[: len(arrays)]}
        for path, array in zip(paths.values(), arrays, strict=True):
            np.save(path, array)
        return streamloss.score(**paths, **options)

    return score


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_table_gives_the_bits_of_its_columns(table, suffix, weighted):
    rng = np.random.default_rng(1)
    columns = {name: rng.standard_normal(5000) for name in ("y", "p", "w")[: 3 if weighted else 2]}
    assert table(columns, suffix) == Accumulator().update(*columns.values())


NUMERIC = [pl.Boolean, pl.Int8, pl.UInt8, pl.Int16, pl.UInt16, pl.Int32, pl.UInt32, pl.Int64, pl.UInt64, pl.Float32]


@pytest.mark.parametrize("dtype", [*NUMERIC, pl.Float64, pl.Decimal(10, 2)], ids=str)
def test_every_numeric_column_and_null_is_nan(table, dtype):
    y = pl.Series([0, 1, None, 1, 1]).cast(dtype)
    result = table({"y": y, "p": [3.0, 4.0, 5.0, None, math.nan]})
    assert (result.count, result.skipped_count, result.result("sum")) == (2, 3, 18.0)


def test_a_csv_column_that_begins_with_whole_numbers_may_go_on_with_others(table):
    values = [1.0] * 20_000 + [2.5, 3.25]
    assert table({"y": [str(int(v)) if v == 1 else str(v) for v in values], "p": [0.0] * len(values)}, ".csv").result(
        "sum"
    ) == sum(v * v for v in values)


@pytest.mark.parametrize("missing", ["", "NA", "null", "NaN"])
def test_missing_numbers_in_csv(tmp_path, missing):
    (tmp_path / "t.csv").write_text(f"y,p\n1,2\n{missing},3\n4,6\n")
    result = streamloss.score(tmp_path / "t.csv", labels="y", predictions="p")
    assert (result.count, result.skipped_count, result.result("sum")) == (2, 1, 5.0)


def test_one_column_may_serve_twice(table):
    assert table({"y": [1.0, 2.0], "p": [1.0, 2.0], "w": [1.0, 1.0]}).result() == 0.0
    assert streamloss.score


def test_nan_policies(table):
    columns = {"y": [1.0, None], "p": [2.0, 3.0]}
    assert math.isnan(table(columns, nan="propagate").result())
    with pytest.raises(ValueError, match="y has NaN or null in row 1"):
        table(columns, nan="raise")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (7,), (3000, 3), (2, 3000), (4, 5, 6)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_array_files_give_the_bits_of_their_arrays(npy, shape, order, dtype):
    rng = np.random.default_rng(2)
    labels, predictions = (np.asarray(rng.integers(-9, 9, shape), dtype, order=order) for _ in range(2))
    assert npy(labels, predictions) == Accumulator().update(labels, predictions)


@pytest.mark.parametrize("shape", [(), (1,), (6,), (6, 5), (1, 5), (6, 1)])
def test_weights_of_array_files(npy, shape, monkeypatch):
    monkeypatch.setattr("streamloss.files.arrays.ELEMENTS", 10)
    rng = np.random.default_rng(3)
    labels, predictions, weights = rng.random((6, 5)), rng.random((6, 5)), rng.random(shape)
    if shape == (1,):
        with pytest.raises(ValueError, match="weights"):
            npy(labels, predictions, weights)
    else:
        assert npy(labels, predictions, weights) == Accumulator().update(labels, predictions, weights)


def test_progress_is_told_all_rows(table, npy):
    calls = []
    table({"y": np.zeros(3000), "p": np.ones(3000)}, progress=lambda done, rows: calls.append((done, rows)))
    assert calls[-1] == (3000, 3000)
    npy(np.zeros((5, 2)), np.ones((5, 2)), progress=lambda done, rows: calls.append((done, rows)))
    assert calls[-1] == (5, 5)


def test_an_exception_in_progress_reaches_the_caller(table):
    def stop(done, rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table({"y": np.zeros(3000), "p": np.ones(3000)}, progress=stop)


def test_polars_reads_in_bounded_batches(tmp_path):
    """Polars calls collect_batches unstable: this notices if batches come larger, smaller or in another order."""
    from streamloss.files import part, tables
    from streamloss.files.source import Columns, Position

    rows = 3 * part.ROWS + 17
    pl.DataFrame({"y": np.arange(rows, dtype=np.float64), "p": np.zeros(rows)}).write_parquet(tmp_path / "t.parquet")
    table = tables.read([str(tmp_path / "t.parquet")], Columns("y", ("p",)))
    batches = list(table.batches(Position()))
    assert sum(len(batch.labels) for batch in batches) == rows
    assert max(len(batch.labels) for batch in batches) <= 2 * part.ROWS
    assert [batch.end.rows for batch in batches][-1] == rows
    assert all(batch.place((3,)) == f"row {int(batch.labels[3])} of {tmp_path / 't.parquet'}" for batch in batches)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_names_are_names_and_no_patterns(tmp_path, suffix):
    for name, a in (("run[12]", 1.0), ("run1", 100.0)):
        frame = pl.DataFrame({"a": [100.0], "^a.*$": [a], "*": [2.0]})
        path = tmp_path / f"{name}{suffix}"
        frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    result = streamloss.score(tmp_path / f"run[12]{suffix}", labels="^a.*$", predictions="*")
    assert (result.count, result.result("sum")) == (1, 1.0)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "weights"), [((2, 50), ()), ((1, 30, 3), (1, 30, 1)), ((40, 3), (40,)), ((3, 40), (3,))]
)
def test_array_files_of_any_layout_are_read_in_small_parts(npy, shape, weights, order, monkeypatch):
    monkeypatch.setattr("streamloss.files.arrays.ELEMENTS", 8)
    rng = np.random.default_rng(4)
    labels, predictions = (np.asarray(rng.random(shape), order=order) for _ in range(2))
    weight = rng.random(weights)
    assert npy(labels, predictions, weight) == Accumulator().update(labels, predictions, weight)
    place = tuple(length - 1 for length in shape)
    predictions[place] = math.nan
    with pytest.raises(ValueError, match=rf"predictions.npy has NaN or null in row {place[0]}$"):
        npy(labels, predictions, weight, nan="raise")


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [(b"(1000,)", b"(-5,)  "), (b"{'descr'", b"[[[[[[[["), (b"(1000,)", b"(9**99,)"), (b"(1000,)", b"(9999,)")],
    ids=["negative", "no header", "no shape", "cut short"],
)
def test_a_damaged_array_file_is_named(tmp_path, whole, damaged):
    path = tmp_path / "bad.npy"
    np.save(path, np.zeros(1000))
    path.write_bytes(path.read_bytes().replace(whole, damaged))
    with pytest.raises(ValueError, match=r"bad\.npy is no readable \.npy file"):
        streamloss.score(labels=path, predictions=path)
