"""Files: the same bits as the arrays in them, and errors that name what is wrong."""

import math
import os
import subprocess
import sys

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


def test_progress_is_told_how_far_it_has_come(table, npy):
    calls = []
    table({"y": np.zeros(3000), "p": np.ones(3000)}, progress=calls.append)
    assert [(call.rows, call.all_rows) for call in (calls[0], calls[-1])] == [(0, 3000), (3000, 3000)]
    assert 0 < calls[-1].bytes <= calls[-1].all_bytes
    assert calls[-1].results.accumulators["p"].count == 3000
    npy(np.zeros((5, 2)), np.ones((5, 2)), progress=calls.append)
    assert (calls[-1].rows, calls[-1].all_rows) == (5, 5)


def test_an_exception_in_progress_reaches_the_caller(table):
    def stop(_):
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


# ------------------------------------------------------------------------------------------- several results


@pytest.fixture
def models(tmp_path):
    """A file with two predictions that miss different rows, its columns, and which rows have all."""
    rng = np.random.default_rng(5)
    y, a, b, w = rng.standard_normal((4, 5000))
    for array in (y, a, b, w):
        array[rng.random(5000) < 0.05] = np.nan
    k = rng.integers(0, 3, 5000)
    path = tmp_path / "models.parquet"
    columns = {"y": y, "a": a, "b": b, "w": w, "k": k, "name": k.astype(str)}
    pl.DataFrame(columns).write_parquet(path, row_group_size=1000)
    return path, columns, ~np.isnan([y, a, b, w]).any(axis=0)


OPTIONS = {"stderr": True, "labels": "y", "weights": "w"}


def test_several_predictions_are_compared_on_the_same_rows(models):
    path, columns, whole = models
    found = streamloss.score(path, predictions=["a", "b"], **OPTIONS)
    for name in ("a", "b"):
        acc = Accumulator(stderr=True).update(columns["y"][whole], columns[name][whole], columns["w"][whole])
        assert found[name].result() == acc.result()
        assert found[name].standard_error() == acc.standard_error()
        assert (found[name].count, found[name].skipped_count) == (whole.sum(), (~whole).sum())
    alone = streamloss.score(path, predictions=["a"], **OPTIONS)
    assert list(alone) == ["a"]
    assert alone["a"].count > whole.sum()


@pytest.mark.parametrize("nan", ["propagate", "omit"])
@pytest.mark.parametrize("by", ["k", "name", ["name", "k"]])
def test_groups_are_those_of_the_arrays(models, by, nan):
    path, columns, _ = models
    found = streamloss.score(path, predictions="a", by=by, nan=nan, **OPTIONS)
    keys = columns[by] if isinstance(by, str) else tuple(columns[name] for name in by)
    expected = streamloss.GroupedAccumulator(nan=nan, stderr=True)
    expected.update(columns["y"], columns["a"], columns["w"], by=keys)
    assert found == expected
    assert len(found) == 3
    assert found.total() == streamloss.score(path, predictions="a", nan=nan, **OPTIONS)


def test_nan_is_named_by_its_prediction(models):
    path, columns, _ = models
    frame = pl.DataFrame({**columns, "a": 0.0, "y": 0.0, "w": 1.0, "b": [0.0] * 1234 + [None] * 3766})
    frame.write_parquet(path)
    with pytest.raises(ValueError, match="nan='raise': b has NaN or null in row 1234 of"):
        streamloss.score(path, predictions=["a", "b"], nan="raise", **OPTIONS)


@pytest.mark.parametrize(("predictions", "message"), [([], "got none"), (["a", "a"], "different ones, got a, a")])
def test_predictions_are_different_ones(models, predictions, message):
    with pytest.raises(ValueError, match=f"predictions must be .*{message}"):
        streamloss.score(models[0], labels="y", predictions=predictions)


def test_predictions_in_memory_are_compared_on_the_same_rows():
    y, a, b = np.zeros((3, 6))
    a[0], b[1] = np.nan, np.nan
    b = np.ma.array(b, mask=[False, False, True, False, False, False])
    found = streamloss.score(labels=y, predictions=[a, b, np.ones(6, np.int8)])
    assert [(acc.count, acc.skipped_count) for acc in found.values()] == [(3, 2)] * 3
    assert list(found) == ["predictions[0]", "predictions[1]", "predictions[2]"]


def test_losses_need_whole_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("streamloss.files.arrays.ELEMENTS", 10)
    y = np.zeros((4, 30))
    with pytest.raises(ValueError, match=r"losses_out: .*l\.npy needs whole rows"):
        streamloss.score(labels=y, predictions=y, losses_out=tmp_path / "l.npy")
    history = streamloss.files.History()
    assert streamloss.score(labels=y, predictions=y, history=history).count == 120
    assert history.points[-1].rows == 4
    assert list(tmp_path.iterdir()) == []


def test_the_running_loss_is_that_of_the_rows_so_far(models):
    path, columns, _ = models
    history = streamloss.files.History()
    whole = streamloss.score(path, predictions=["a", "b"], history=history, **OPTIONS)
    assert [point.rows for point in history.points] == [*range(128, 5000, 128), 5000]
    for point in history.points[::10]:
        y, a, b, w = (columns[name][: point.rows] for name in ("y", "a", "b", "w"))
        acc = Accumulator(nan="omit", stderr=True).update(y, np.where(np.isnan(b), np.nan, a), w)
        assert (point.losses[0], point.errors[0]) == (acc.result(), acc.standard_error())
    assert history.points[-1].losses == tuple(acc.result() for acc in whole.values())
    with pytest.raises(ValueError, match="history: the running loss is of all rows"):
        streamloss.score(path, predictions="a", by="k", history=history, **OPTIONS)


# ------------------------------------------------------------------------------------------- single losses


@pytest.mark.parametrize("by", [(), ("k",), ("name", "k")])
@pytest.mark.parametrize("predictions", [("a",), ("a", "b")])
def test_single_losses_in_parquet(models, tmp_path, predictions, by):
    path, columns, whole = models
    out = tmp_path / "losses.parquet"
    streamloss.score(path, predictions=predictions, by=by, losses_out=out, **OPTIONS)
    written = pl.read_parquet(out)
    assert written.columns == [*by, *(predictions if len(predictions) > 1 else ["loss"])]
    for name, column in zip(predictions, written.columns[len(by) :], strict=True):
        losses = np.empty(5000)
        hidden = columns[name] if len(predictions) == 1 else np.where(whole, columns[name], np.nan)
        Accumulator(nan="omit").update(columns["y"], hidden, columns["w"], out=losses)
        np.testing.assert_array_equal(written[column].to_numpy(), losses, strict=True)
    for name in by:
        assert written[name].to_list() == columns[name].tolist()


@pytest.mark.parametrize("shape", [(100,), (100, 3), (100, 2, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_single_losses_in_npy(npy, tmp_path, shape, weighted, monkeypatch):
    monkeypatch.setattr("streamloss.files.arrays.ELEMENTS", 60)
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal(shape) for _ in range(3 if weighted else 2)]
    npy(*arrays, losses_out=tmp_path / "losses.npy")
    losses = np.empty(shape)
    Accumulator().update(*arrays, out=losses)
    np.testing.assert_array_equal(np.load(tmp_path / "losses.npy"), losses, strict=True)


def test_single_losses_of_too_many_dimensions_for_npy(npy, tmp_path):
    array = np.ones((2,) + (1,) * 30)
    with pytest.raises(ValueError, match=r"losses\.npy has no room for the shape of a row"):
        npy(array, array, losses_out=tmp_path / "losses.npy")
    assert not (tmp_path / "losses.npy").exists()
    npy(array.reshape((2,) + (1,) * 12), array.reshape((2,) + (1,) * 12), losses_out=tmp_path / "losses.npy")
    assert np.load(tmp_path / "losses.npy").shape == (2,) + (1,) * 12


def test_keys_of_every_kind_in_the_file_of_losses(tmp_path):
    keys = {
        "text": ["x", None, "y", "x"],
        "number": [1, None, 2, 1],
        "truth": [True, None, False, True],
        "real": [0.5, None, 1.5, 0.5],
        "none": pl.Series([None] * 4, dtype=pl.String),
    }
    pl.DataFrame({"y": [1.0, 2.0, 3.0, 4.0], "p": 0.0, **keys}).write_parquet(tmp_path / "t.parquet")
    wanted = {"labels": "y", "predictions": "p", "by": list(keys)}
    found = streamloss.score(tmp_path / "t.parquet", losses_out=tmp_path / "l.parquet", **wanted)
    written = pl.read_parquet(tmp_path / "l.parquet")
    assert written["loss"].to_list() == [1.0, 4.0, 9.0, 16.0]
    assert {name: written[name].to_list() for name in keys} == {name: list(column) for name, column in keys.items()}
    assert found[None, None, None, None, None].result() == 4.0


def test_a_key_may_be_a_wider_integer_in_another_file(tmp_path):
    for i, dtype in enumerate([pl.Int8, pl.Int64]):
        pl.DataFrame({"y": [1.0], "p": [2.0], "k": [i]}, schema_overrides={"k": dtype}).write_parquet(
            tmp_path / f"{i}.parquet"
        )
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    streamloss.score(paths, labels="y", predictions="p", by="k", losses_out=tmp_path / "l.parquet")
    assert pl.read_parquet(tmp_path / "l.parquet")["k"].to_list() == [0, 1]


def test_a_file_of_losses_replaces_an_old_one_only_when_it_is_whole(models, tmp_path):
    path, out = models[0], tmp_path / "losses.npy"
    out.write_bytes(b"old")

    def stop(progress):
        if progress.rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streamloss.score(path, predictions="a", losses_out=out, progress=stop, **OPTIONS)
    assert out.read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["losses.npy", "models.parquet"]
    streamloss.score(path, predictions="a", losses_out=out, **OPTIONS)
    assert len(np.load(out)) == 5000


def test_what_a_call_returns_is_known_to_type_checkers(tmp_path):
    (tmp_path / "check.py").write_text(
        """
import streamloss
reveal_type(streamloss.score("f", labels="y", predictions="a", stderr=True))
reveal_type(streamloss.score("f", labels="y", predictions="a", by="k"))
reveal_type(streamloss.score("f", labels="y", predictions=["a", "b"], nan="raise"))
reveal_type(streamloss.score("f", labels="y", predictions=("a", "b"), by=["k"]))
"""
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(tmp_path / "check.py")]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    types = [
        line.split('"')[1].replace("streamloss.accumulator.", "").replace("streamloss.grouped.", "")
        for line in shown.splitlines()
        if "Revealed" in line
    ]
    assert types == ["Accumulator", "GroupedAccumulator", "dict[str, Accumulator]", "dict[str, GroupedAccumulator]"]


@pytest.mark.parametrize("make", ["torch, bfloat16", "torch, requires grad", "pandas, nullable"])
def test_chunks_of_other_libraries_are_compared_on_the_same_rows(make):
    import pandas
    import torch

    def column(values):
        return {
            "torch, bfloat16": lambda: torch.tensor(values, dtype=torch.bfloat16),
            "torch, requires grad": lambda: torch.tensor(values, requires_grad=True),
            "pandas, nullable": lambda: pandas.Series(values).convert_dtypes(),
        }[make]()

    chunk = {"y": column([1.0, 2.0, 3.0]), "a": column([0.0, 0.0, math.nan]), "b": column([math.nan, 1.0, 1.0])}
    found = streamloss.score(iter([chunk]), labels="y", predictions=["a", "b"])
    assert {name: (each.count, each.result()) for name, each in found.items()} == {"a": (1, 4.0), "b": (1, 1.0)}


def test_a_running_loss_may_be_used_again_and_never_has_more_rows_than_there_are(monkeypatch):
    monkeypatch.setattr("streamloss.files.arrays.ELEMENTS", 1000)
    history = streamloss.files.History()
    labels = np.asfortranarray(np.random.default_rng(0).standard_normal((2000, 4)))
    for rows in (2000, 1500):  # read column by column
        found = streamloss.score(labels=labels[:rows], predictions=np.zeros_like(labels[:rows]), history=history)
        assert [point.rows for point in history.points] == sorted({point.rows for point in history.points})
        assert history.points[-1] == (rows, (found.result(),), (math.nan,))


def test_keys_are_written_with_losses_though_their_array_is_used_again(tmp_path):
    def chunks():
        labels, keys = np.zeros(2), np.zeros(2, np.int64)
        for number in range(3):
            labels[:], keys[:] = number, number
            yield {"y": labels, "p": np.zeros(2), "k": keys}

    streamloss.score(chunks(), labels="y", predictions="p", by="k", losses_out=tmp_path / "losses.parquet")
    assert pl.read_parquet(tmp_path / "losses.parquet").rows() == [(k, float(k * k)) for k in (0, 0, 1, 1, 2, 2)]


def test_keys_that_are_objects_are_written_with_losses(tmp_path):
    for column in ([1, None, 2], [True, None, False], [0.5, None, 2.0], ["a", None, "b"]):
        by = np.array(column, object)
        streamloss.score(labels=np.ones(3), predictions=np.ones(3), by=[by], losses_out=tmp_path / "losses.parquet")
        assert pl.read_parquet(tmp_path / "losses.parquet").rows() == [(key, 0.0) for key in column]


@pytest.mark.parametrize("source", ["t.parquet", "*.parquet", ".", ["./t.parquet"]])
@pytest.mark.parametrize("output", ["losses_out", "checkpoint"])
def test_what_is_read_is_never_written_over(tmp_path, monkeypatch, source, output):
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"y": [1.0], "p": [0.0]}).write_parquet("t.parquet")
    with pytest.raises(ValueError, match=r"cannot write t\.parquet: it belongs to what is read"):
        streamloss.score(source, labels="y", predictions="p", **{output: "t.parquet"})
    assert pl.read_parquet("t.parquet").columns == ["y", "p"]
    assert os.listdir() == ["t.parquet"]


def test_arrays_that_are_read_are_never_written_over(tmp_path):
    np.save(tmp_path / "y.npy", np.zeros(3))
    for output in (tmp_path / "y.npy", str(tmp_path / "." / "y.npy")):
        with pytest.raises(ValueError, match="it belongs to what is read"):
            streamloss.score(labels=tmp_path / "y.npy", predictions=np.ones(3), losses_out=output)
    assert np.load(tmp_path / "y.npy").tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("first", "late", "by"),
    [
        ('{"y":1,"p":0,"k":"6","m":{"k":"z"}}', '{"y":2,"p":0,"k":6,"m":{"k":"x"}}', "k"),
        ('{"y":1,"p":0,"k":"6","m":{"j":"z"}}', '{"y":2,"p":0,"k":6,"m":{"k":"x"}}', "k"),
        ('{"y":1,"p":0,"k":"6"}', '{"y":2,"p":0,"k":6}', "UPPER(k)"),
        ('{"y":1,"p":0,"k":"6"}', '{"y":2,"p":0,"k":{"k":"a"}}', "k"),
        ('{"y":1,"p":0,"k\\u00e9":"6"}', '{"y":2,"p":0,"k\\u00e9":6}', "ké"),
        ('{"y":1,"p":0,"ké":"6"}', '{"y":2,"p":0,"k\\u00e9":6}', "ké"),
        ('{"y":1,"p":0,"k":"6"}', '{"y":2,"p":0,"\\u006b":6}', "k"),
    ],
)
def test_keys_of_text_in_ndjson_stay_text(tmp_path, monkeypatch, first, late, by):
    monkeypatch.setattr("streamloss.files.ndjson.SAMPLE", 200)
    path = tmp_path / "t.ndjson"
    path.write_text("\n".join([first] * 20 + [late] * 2) + "\n")
    with pytest.raises(ValueError, match=r"the key 'k.?' is .* there and text in other lines"):
        streamloss.score(path, labels="y", predictions="p", by=by)


def test_lines_that_are_nested_too_deeply_are_refused(tmp_path):
    path = tmp_path / "t.ndjson"
    path.write_text('{"y":1,"p":0,"d":' + "[" * 3000 + "]" * 3000 + "}\n")
    with pytest.raises(ValueError, match="cannot be read"):
        streamloss.score(path, labels="y", predictions="p")


@pytest.mark.parametrize("end", ['3,"4', '3,4,"b', '"'])
@pytest.mark.parametrize("by", [None, "k"])
def test_a_csv_that_ends_within_quotes_is_refused(tmp_path, end, by):
    path = tmp_path / "t.csv"
    path.write_text("y,p,k\n1,2,a\n" + end)
    with pytest.raises(ValueError, match=r"line 3 of \S+t.csv cannot be read: it has a quote"):
        streamloss.score(path, labels="y", predictions="p", by=by)
