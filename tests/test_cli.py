"""The command, as a process."""

import json
import math
import os
import pty
import subprocess
import sys

import numpy as np
import polars as pl
import pytest


def run(*arguments, **options):
    command = [sys.executable, "-m", "streamloss", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


FLIGHTS = ["--labels", "arr_delay", "--predictions", "dep_delay"]


def test_json(flights_path):
    done = run("score", flights_path, *FLIGHTS, "--weights", "distance", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "loss": "squared_error",
        "count": 327346,
        "nonzero_count": 327346,
        "skipped_count": 9430,
        "loss_sum": 148421019070.0,
        "weight_sum": 343180156.0,
        "results": {
            "sum": 148421019070.0,
            "mean": 432.48718340812223,
            "sum_over_batch_size": 453407.15655605996,
            "sum_by_nonzero_weights": 453407.15655605996,
        },
    }


def test_json_writes_nan_as_null_and_infinities_as_numbers(tmp_path):
    np.save(tmp_path / "y.npy", [math.inf, 1.0])
    np.save(tmp_path / "w.npy", [0.0, 0.0])
    files = ["--labels", tmp_path / "y.npy", "--predictions", tmp_path / "y.npy"]
    results = json.loads(run("score", *files, "--nan", "propagate", "--json").stdout)["results"]
    assert results["sum"] is None
    np.save(tmp_path / "p.npy", [0.0, 0.0])
    files[-1] = tmp_path / "p.npy"
    assert json.loads(run("score", *files, "--json").stdout)["results"]["sum"] == math.inf
    files += ["--weights", tmp_path / "w.npy"]
    assert json.loads(run("score", *files, "--json").stdout)["results"]["mean"] is None


def test_the_table_shows_every_reduction_and_the_skipped_rows(flights_path):
    done = run("score", flights_path, *FLIGHTS)
    shown = {line.rsplit(maxsplit=1)[0]: line.rsplit(maxsplit=1)[1] for line in done.stdout.splitlines()[1:]}
    rate = shown.pop("rows per second")
    assert float(rate.replace(",", "")) > 0
    assert shown == {
        "sum": "117060680.0",
        "mean": "357.6053472472552",
        "sum_over_batch_size": "357.6053472472552",
        "sum_by_nonzero_weights": "357.6053472472552",
        "weight sum": "327346.0",
        "elements": "327,346",
        "with nonzero weight": "327,346",
        "skipped (NaN or null)": "9,430",
    }
    assert done.stderr == ""


@pytest.mark.parametrize("loss", ["absolute_error", "huber(delta=2)", "quantile(q=0.9)"])
def test_losses_by_name(flights_path, loss):
    assert json.loads(run("score", flights_path, *FLIGHTS, "--loss", loss, "--json").stdout)["count"] == 327346


def test_a_progress_bar_on_a_terminal(flights_path):
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "streamloss", "score", str(flights_path), *FLIGHTS]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, env=environment) as process:
        os.close(writer)
        shown = b""
        while True:
            try:
                shown += os.read(reader, 1 << 16)
            except OSError:
                break
    os.close(reader)
    assert process.returncode == 0
    assert b"rows" in shown


def make_files(folder):
    pl.DataFrame({"y": [1.0, 2.0], "p": [1.0, 2.0], "name": ["a", "b"]}).write_parquet(folder / "t.parquet")
    (folder / "empty.csv").write_text("")
    (folder / "header.csv").write_text("y,p\n")
    (folder / "text.csv").write_text("y,p\n1,2\nx,3\n")
    (folder / "late.csv").write_text("y,p\n" + "1,2\n" * 20_000 + "oops,2\n")
    (folder / "bad.parquet").write_bytes(b"PAR1 nothing of the kind")
    (folder / "t.xlsx").write_text("?")
    np.save(folder / "y.npy", np.zeros(4))
    np.save(folder / "short.npy", np.zeros(3))
    np.save(folder / "none.npy", np.zeros(0))
    np.save(folder / "objects.npy", np.array([{}, None], object), allow_pickle=True)
    np.save(folder / "complex.npy", np.zeros(4, complex))
    (folder / "bad.npy").write_bytes(b"not an array")


Y, P = ["--labels", "y"], ["--predictions", "p"]
WRONG = {
    "no such file": (["missing.parquet", *Y, *P], "no such file: missing.parquet"),
    "no such column": (["t.parquet", "--labels", "z", *P], "no column 'z' for labels; it has: y, p, name"),
    "a near column": (["t.parquet", "--labels", "nam", *P], "did you mean 'name'?"),
    "a text column": (["t.parquet", "--labels", "name", *P], "column 'name' of t.parquet must hold numbers"),
    "text in CSV": (["text.csv", *Y, *P], "column 'y' of text.csv must hold numbers for labels, got String"),
    "text late in CSV": (["late.csv", *Y, *P], "oops"),
    "an empty file": (["empty.csv", *Y, *P], "empty.csv is empty"),
    "no rows": (["header.csv", *Y, *P], "header.csv has no rows"),
    "damaged": (["bad.parquet", *Y, *P], "bad.parquet cannot be read"),
    "unknown kind": (["t.xlsx", *Y, *P], "unknown kind of file '.xlsx'"),
    "a directory": ([".", *Y, *P], "is a directory"),
    "unequal lengths": (["--labels", "y.npy", "--predictions", "short.npy"], "(4,) in y.npy and (3,) in short.npy"),
    "no such array": (["--labels", "y.npy", "--predictions", "q.npy"], "no such file: q.npy"),
    "no elements": (["--labels", "none.npy", "--predictions", "none.npy"], "none.npy has no rows"),
    "objects": (["--labels", "objects.npy", "--predictions", "objects.npy"], "objects.npy is no readable .npy file"),
    "complex": (["--labels", "complex.npy", "--predictions", "complex.npy"], "real numbers"),
    "no array": (["--labels", "bad.npy", "--predictions", "bad.npy"], "bad.npy is no readable .npy file"),
    "weights": (["--labels", "y.npy", "--predictions", "y.npy", "--weights", "short.npy"], "weights of shape (3,)"),
    "unknown loss": (["t.parquet", *Y, *P, "--loss", "mse"], "loss 'mse' is unknown; there are: squared_error"),
    "bad parameter": (["t.parquet", *Y, *P, "--loss", "huber(delta=-1)"], "delta of huber must lie between"),
    "bad policy": (["t.parquet", *Y, *P, "--nan", "ignore"], "'ignore' is not one of"),
    "no labels": (["t.parquet", *P], "Missing option '--labels'"),
    "unknown option": (["t.parquet", *Y, *P, "--wieghts", "w"], "--wieghts"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2(folder, case):
    arguments, message = WRONG[case]
    done = run("score", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help():
    assert "streamloss score flights.parquet" in run("score", "--help").stdout
    assert run("--version").stdout.startswith("streamloss")
