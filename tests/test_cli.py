"""The command: most of it in this process, and what needs one as a process of its own."""

import csv
import io
import json
import math
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import streamloss
from streamloss import Accumulator, GroupedAccumulator, cli
from streamloss.files.bar import Bar
from streamloss.files.results import Results
from streamloss.files.scoring import Progress

ROOT = Path(streamloss.__file__).parent.parent


def process(*arguments, **options):
    command = [sys.executable, "-m", "streamloss", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs the command here: exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["streamloss", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return call


FLIGHTS = ["--labels", "arr_delay", "--predictions", "dep_delay"]


def test_json(run, flights_path):
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


def test_json_writes_nan_as_null_and_infinities_as_numbers(run, tmp_path):
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


def test_json_leaves_keys_as_they_are(run, tmp_path):
    keys = ["Infinity Pool", 'say "Infinity"', "NaN", "back\\slash", "-Infinity"]
    pl.DataFrame({"y": [math.inf] * 5, "p": np.zeros(5), "Infinity": keys}).write_parquet(tmp_path / "t.parquet")
    done = run("score", tmp_path / "t.parquet", "--labels", "y", "--predictions", "p", "--by", "Infinity", "--json")
    groups = json.loads(done.stdout)["groups"]
    assert {group["key"]["Infinity"] for group in groups} == set(keys)
    assert {group["results"]["mean"] for group in groups} == {math.inf}


def test_the_table_shows_every_reduction_and_the_skipped_rows(run, flights_path):
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
def test_losses_by_name(run, flights_path, loss):
    assert json.loads(run("score", flights_path, *FLIGHTS, "--loss", loss, "--json").stdout)["count"] == 327346


def test_the_command_is_the_library(run, flights_path):
    """As processes, once: by the module, and by the module that the installed command calls."""
    expected = streamloss.score(flights_path, labels="arr_delay", predictions="dep_delay").result("mean")
    for start in (["-m", "streamloss"], ["-c", "import streamloss_command as c; c.main()"]):
        command = [sys.executable, *start, "score", str(flights_path), *FLIGHTS, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=True)
        assert json.loads(done.stdout)["results"]["mean"] == expected
        assert done.stderr == ""


# ------------------------------------------------------------------------------------------- what is shown


@pytest.fixture
def frame(tmp_path, monkeypatch):
    """A small table, and its folder as the current one."""
    monkeypatch.chdir(tmp_path)
    columns = {
        "y": [1.0, 2.0, 3.0, 4.0, None],
        "a": [1.5, 2.0, 3.0, 8.0, 1.0],
        "b": [1.0, 2.5, None, 4.0, 1.0],
        "k": ['say "hi", you', None, "", "x", "x"],
        "n": [1, 2, 1, 2, 3],
    }
    frame = pl.DataFrame(columns)
    frame.write_parquet("t.parquet")
    return frame


A = ["score", "t.parquet", "--labels", "y", "--predictions", "a"]


def test_json_of_groups_and_predictions(run, frame):
    shown = json.loads(run(*A, "--predictions", "b", "--by", "k", "--by", "n", "--stderr", "--json").stdout)
    assert list(shown["predictions"]) == ["a", "b"]
    groups = shown["predictions"]["b"]["groups"]
    assert [group["key"] for group in groups] == [
        {"k": None, "n": 2},
        {"k": "", "n": 1},
        {"k": 'say "hi", you', "n": 1},
        {"k": "x", "n": 2},
        {"k": "x", "n": 3},
    ]
    assert [group["skipped_count"] for group in groups] == [0, 1, 0, 0, 1]
    assert shown["predictions"]["a"]["count"] == 3
    assert shown["predictions"]["a"]["results"]["mean"] == 16.25 / 3
    assert shown["predictions"]["a"]["standard_errors"]["mean"] > 0
    one = json.loads(run(*A, "--reduction", "sum", "--json").stdout)
    assert one["results"] == {"sum": 16.25}


def test_csv_is_rfc_4180(run, frame):
    text = run(*A, "--predictions", "b", "--by", "k", "--stderr", "--csv").stdout
    assert text.count("\r\n") == text.count("\n") == 9
    rows = list(csv.DictReader(io.StringIO(text), strict=True))
    assert [(row["prediction"], row["k"]) for row in rows[:4]] == [
        ("a", ""),
        ("a", ""),
        ("a", 'say "hi", you'),
        ("a", "x"),
    ]
    assert [line.split(",")[1] for line in text.splitlines()[1:3]] == ["", '""']  # null, and an empty string
    assert float(rows[3]["mean"]) == 16.0
    assert (rows[3]["count"], rows[3]["skipped_count"], rows[3]["mean_standard_error"]) == ("1", "1", "nan")
    plain = run(*A, "--csv", "--reduction", "mean").stdout
    assert plain == "count,nonzero_count,skipped_count,weight_sum,mean\r\n4,4,1,4.0,4.0625\r\n"


def test_the_table_of_predictions(run, frame):
    lines = [
        line.split() for line in run(*A, "--predictions", "b", "--stderr", "--reduction", "mean").stdout.splitlines()
    ]
    assert lines[0] == ["squared_error", "a", "b"]
    assert lines[1] == ["mean", "5.416666666666667", "0.08333333333333333"]
    assert lines[2][:2] == ["standard", "error"]
    assert ["elements", "3", "3"] in lines


def test_the_table_of_groups(run, frame):
    lines = run(*A, "--by", "k", "--stderr").stdout.splitlines()
    assert lines[0] == "squared_error"
    assert lines[1].split() == ["k", "sum_by_nonzero_weights", "standard", "error", "elements", "skipped"]
    assert lines[2].split() == ["(null)", "0.0", "nan", "1", "0"]
    assert lines[4].startswith('say "hi", you')
    assert lines[5].split() == ["x", "16.0", "nan", "1", "1"]
    assert lines[-1].split() == ["all", "4.0625", "3.98", "4", "1"]


def test_the_table_shows_the_largest_of_many_groups(run, tmp_path):
    sizes = [1] * 100 + [3] * 60
    keys = np.repeat(np.arange(160), sizes)
    pl.DataFrame({"y": np.zeros(280), "a": np.ones(280), "k": keys}).write_parquet(tmp_path / "t.parquet")
    options = ["score", tmp_path / "t.parquet", *A[2:], "--by", "k"]
    lines = run(*options).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines[2:-1]] == list(range(100, 160))
    assert lines[-1].startswith("all 160; the 60 largest are shown")
    assert run(*options, "--csv").stdout.count("\n") == 161


def test_a_table_is_never_cut_short(run, frame, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert "5.416666666666667  0.08333333333333333" in run(*A, "--predictions", "b").stdout


# ------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("options", [[], ["--by", "k"], ["--by", "k", "--by", "n", "--predictions", "b", "--stderr"]])
def test_states_of_parts_merge_to_the_whole(run, frame, options):
    frame[:2].write_parquet("1.parquet")
    frame[2:].write_parquet("2.parquet")
    whole = run(*A, *options, "--json", "--save-state", "whole.slstate").stdout
    for part in "12":
        assert run("score", f"{part}.parquet", *A[2:], *options, "--save-state", f"{part}.slstate").returncode == 0
    for form in ("--json", "--csv"):
        merged = run("merge", "1.slstate", "2.slstate", form, "-o", "merged.slstate")
        assert merged.stdout == run("merge", "whole.slstate", form).stdout == run("show", "whole.slstate", form).stdout
    assert run("merge", "1.slstate", "2.slstate", "--json").stdout == whole
    assert Path("merged.slstate").read_bytes() == Path("whole.slstate").read_bytes()
    if "b" not in options:
        load = GroupedAccumulator.load if options else Accumulator.load
        keys = {"by": "k"} if options else {}
        assert load("whole.slstate") == streamloss.score("t.parquet", labels="y", predictions="a", **keys)


def test_states_that_python_has_saved(run, frame):
    GroupedAccumulator().update([1.0, 2.0], [1.0, 4.0], by=([1, None], ["x", "y"])).save("g.slstate")
    lines = run("show", "g.slstate").stdout.splitlines()
    assert [line.split()[:2] for line in lines if line][1] == ["kind", "grouped"]
    assert next(line.split()[:4] for line in lines if line.startswith("key 1")) == ["key", "1", "key", "2"]
    assert ["(null)", "y", "4.0", "1", "0"] in [line.split() for line in lines]
    Accumulator("huber").update([1.0], [1.5]).save("a.slstate")
    assert run("merge", "a.slstate", "--csv", "--reduction", "sum").stdout.splitlines()[1] == "1,1,0,1.0,0.125"


def test_show_tells_what_a_checkpoint_is_about(run, frame):
    done = run(*A, "--by", "k", "--checkpoint", "run.ckpt")
    assert done.returncode == 0
    shown = run("show", "run.ckpt").stdout
    pairs = dict(line.split(maxsplit=1) for line in shown.split("\n\n")[0].splitlines())
    assert {name: value.strip() for name, value in pairs.items()} == {
        "file": "run.ckpt",
        "kind": "checkpoint",
        "labels": "y",
        "predictions": "a",
        "by": "k",
        "loss": "squared_error",
        "nan": "omit",
        "source": str(Path("t.parquet").resolve()),
        "position": "at the end, row 5",
    }
    assert "(null)" in shown
    assert run("show", "run.ckpt", "--json").stdout == run(*A, "--by", "k", "--json").stdout


def test_a_finished_run_started_again_says_so(run, frame):
    first = run(*A, "--checkpoint", "run.ckpt", "--json")
    again = run(*A, "--checkpoint", "run.ckpt", "--json")
    assert again.stdout == first.stdout
    assert (first.stderr, again.stderr) == ("", "streamloss: run.ckpt: goes on after row 5 of 5\n")


# ------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("options", [[], ["--by", "k"], ["--predictions", "b"], ["--by", "n", "--predictions", "b"]])
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plots(run, frame, options, suffix):
    done = run(*A, *options, "--plot", f"loss{suffix}")
    assert (done.returncode, done.stderr) == (0, "")
    content = Path(f"loss{suffix}").read_bytes()
    if suffix == ".png":
        assert content.startswith(b"\x89PNG\r\n")
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
        assert width == 1200
        assert height >= 300
    else:
        assert b"<!-- squared_error -->" in content
        assert (b"<!-- (null) -->" in content) == ("k" in options)
    assert sorted(os.listdir()) == [f"loss{suffix}", "t.parquet"]


def test_a_plot_of_nothing_finite_is_a_plot(run, frame):
    pl.DataFrame({"y": [math.inf, 1.0], "a": [1.0, math.inf], "k": ["$x$", "_" * 90]}).write_parquet("t.parquet")
    for options in ([], ["--by", "k"]):
        assert run(*A, *options, "--plot", "loss.png").stderr == ""
    pl.DataFrame({"y": [None, 1.0], "a": [1.0, None], "k": ["a", "b"]}).write_parquet("t.parquet")
    for options in ([], ["--by", "k"]):
        assert run(*A, *options, "--plot", "loss.png").stderr == ""


def test_a_plot_of_many_groups_has_the_largest(run, tmp_path):
    keys = np.repeat(np.arange(200), np.arange(1, 201))
    pl.DataFrame({"y": np.zeros(keys.size), "a": np.ones(keys.size), "k": keys}).write_parquet(tmp_path / "t.parquet")
    assert run("score", tmp_path / "t.parquet", *A[2:], "--by", "k", "--plot", tmp_path / "g.svg").returncode == 0
    content = (tmp_path / "g.svg").read_text()
    assert "the 40 largest of 200 groups" in content
    assert "<!-- 160 -->" in content
    assert "<!-- 150 -->" not in content


# ------------------------------------------------------------------------------------------- as a process


def test_a_progress_bar_fits_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bar() as progress_bar:
        results = Results({"p": Accumulator().update([1.0], [2.0])})
        progress_bar(Progress(10**8, 2 * 10**8, 10**9, 2 * 10**9, results))
    shown = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r" 50% -:--:-- loss 1, 100,000,000 rows", shown)


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


COMMAND = [sys.executable, "-c", "import streamloss_command as c; c.main()"]
MODULE = [sys.executable, "-m", "streamloss"]


@pytest.mark.parametrize("seconds", [0.15, 0.3, 0.5, 0.8, 1.2])
def test_ctrl_c_is_quiet_from_the_beginning(flights_path, seconds):
    script = "import streamloss_command as c; print('.', flush=True); c.main()"
    arguments = [sys.executable, "-c", script, "score", str(flights_path), *FLIGHTS]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as child:
        child.stdout.readline()
        time.sleep(seconds - 0.15)
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate()
    assert errors.strip() == b""  # click ends the line that a terminal shows ^C in
    if seconds > 0.15 and child.returncode == 0:  # it was quicker
        assert b"357.6053472472552" in output
    else:
        assert child.returncode == 130


def test_ctrl_c_while_an_object_is_finalized_is_not_lost():
    script = """
import sys, time
import streamloss.cli, streamloss_command

class Finalized:
    def __del__(self):
        raise KeyboardInterrupt

def run():
    try:
        Finalized()
        time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)

streamloss.cli.main = run
streamloss_command.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (130, b"")


def test_ctrl_c_after_the_result_changes_nothing_any_more():
    script = """
import atexit, os, signal, sys
import streamloss_command
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["streamloss", "--version"]
streamloss_command.main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [(COMMAND, signal.SIGINT, 130), (COMMAND, signal.SIGTERM, 143), (MODULE, signal.SIGTERM, 143)],
)
def test_ctrl_c_in_a_run_leaves_a_checkpoint_to_go_on_from(tmp_path, command, number, code):
    rows = 3_000_000
    text = "y,p\n" + "1.25,2.5\n" * rows
    (tmp_path / "t.csv").write_text(text)
    arguments = ["score", "t.csv", "--labels", "y", "--predictions", "p", "--checkpoint", "run.ckpt", "--json"]
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    child = subprocess.Popen([*command, *arguments, "--checkpoint-every", "0"], stderr=subprocess.PIPE, **options)
    while not (tmp_path / "run.ckpt").exists() and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(number)
    errors = child.communicate()[1]
    hint = b"streamloss: run.ckpt: the same command goes on from there\n"
    assert (child.returncode, errors) in [(code, hint + b"\n"), (0, b"")]
    done = process(*arguments, cwd=tmp_path, env=options["env"])
    assert json.loads(done.stdout)["count"] == rows
    assert done.stderr.startswith("streamloss: run.ckpt: goes on after row ")
    assert sorted(os.listdir(tmp_path)) == ["run.ckpt", "t.csv"]


def test_a_plot_needs_a_checkpoint_with_a_plot(run, frame):
    """--plot asks for standard errors unseen: a refusal speaks of what was typed."""
    kept, plot = ["--checkpoint", "run.ckpt"], ["--plot", "loss.png"]
    assert run(*A, *kept).returncode == 0
    check(run(*A, *kept, *plot), "run.ckpt was written without --plot (history): there is no running loss")
    os.unlink("run.ckpt")
    assert run(*A, *kept, *plot).returncode == 0
    check(run(*A, *kept), "run.ckpt was written with standard errors (--stderr, and --plot has them, too)")
    assert run(*A, *kept, "--stderr").returncode == 0
    assert run(*A, *kept, *plot).returncode == 0
    os.unlink("run.ckpt")
    assert run(*A, "--by", "k", *kept, "--stderr").returncode == 0
    assert run(*A, "--by", "k", *kept, *plot).returncode == 0


def test_a_closed_pipe_is_no_error(flights_path):
    shell = f'"{sys.executable}" -m streamloss score "{flights_path}" {" ".join(FLIGHTS)} --by distance --csv | head -1'
    done = subprocess.run(
        ["bash", "-c", f"{shell}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0].startswith("distance,count")
    assert done.stdout.splitlines()[1] in ("0", "1")
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_output_is_one_line(flights_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "streamloss", "score", str(flights_path), *FLIGHTS, "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "streamloss: standard output: No space left on device\n"


@pytest.fixture
def small_disk(tmp_path):
    """A folder of 32 KiB; or, without the right to mount one, any folder and a limit to the size of files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    )

    def limit():
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))

    yield folder, limit
    if mounted:
        subprocess.run(["umount", folder], check=True)


OUTPUTS = [
    ["--losses-out", "losses.npy"],
    ["--losses-out", "losses.parquet", "--by", "carrier"],
    ["--save-state", "part.slstate", "--by", "distance", "--by", "carrier", "--by", "month", "--by", "origin"],
    ["--checkpoint", "run.ckpt", "--by", "distance", "--by", "carrier", "--by", "month", "--by", "origin"],
    ["--losses-out", "losses.npy", "--checkpoint", "run.ckpt"],
]


@pytest.mark.parametrize("options", OUTPUTS, ids=lambda options: " ".join(options[:2]))
def test_a_full_disk_is_one_line_and_leaves_nothing(flights_path, small_disk, options):
    folder, limit = small_disk
    done = process("score", flights_path, *FLIGHTS, *options, cwd=folder, preexec_fn=limit)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr in {
        f"streamloss: cannot write {options[1]}: {reason}\n" for reason in ("No space left on device", "File too large")
    }
    assert os.listdir(folder) == []


# ------------------------------------------------------------------------------------------- what users get wrong


def make_files(folder):
    frame = pl.DataFrame({"y": [1.0, 2.0], "p": [1.0, 2.0], "name": ["a", "b"], "dated": ["2020-01-01"] * 2, "loss": 1})
    frame = frame.with_columns(pl.col("dated").str.to_date(), listed=pl.Series([[1.0], [2.0]]))
    frame.write_parquet(folder / "t.parquet")
    frame.select("y", p="name").write_parquet(folder / "u.parquet")
    frame.select("y").write_parquet(folder / "v.parquet")
    frame.clear().write_parquet(folder / "norows.parquet")
    (folder / "empty.csv").write_text("")
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "header.csv").write_text("y,p\n")
    (folder / "semicolons.csv").write_text("y;p\n1;2\n")
    (folder / "spaces.csv").write_text("y, p\n1,2\n")
    (folder / "text.csv").write_text("y,p\n1,2\nx,3\n")
    (folder / "late.csv").write_text("y,p\n" + "1,2\n" * 20_000 + "oops,2\n")
    (folder / "ragged.csv").write_text("y,p\n" + "1,2\n" * 20 + "1,2,3,4\n")
    (folder / "bad.parquet").write_bytes(b"PAR1 nothing of the kind")
    (folder / "cut.parquet").write_bytes((folder / "t.parquet").read_bytes()[:-20])
    (folder / "t.xlsx").write_text("?")
    np.save(folder / "y.npy", np.zeros(4))
    np.save(folder / "short.npy", np.zeros(3))
    np.save(folder / "none.npy", np.zeros(0))
    np.save(folder / "nan.npy", np.array([0.0, 1.0, math.nan, 2.0]))
    np.save(folder / "objects.npy", np.array([{}, None], object), allow_pickle=True)
    np.save(folder / "complex.npy", np.zeros(4, complex))
    (folder / "bad.npy").write_bytes(b"not an array")
    (folder / "cut.npy").write_bytes((folder / "y.npy").read_bytes()[:-8])
    (folder / "folder").mkdir()
    Accumulator().update([1.0], [2.0]).save(folder / "a.slstate")
    Accumulator("huber").update([1.0], [2.0]).save(folder / "huber.slstate")
    Accumulator(stderr=True).update([1.0], [2.0]).save(folder / "stderr.slstate")
    Accumulator(lambda y, p: y - p).update([1.0], [2.0]).save(folder / "own.slstate")
    Accumulator(nan="omit").update([1.0], [2.0]).save(folder / "omit.slstate")
    GroupedAccumulator().update([1.0], [2.0], by=["k"]).save(folder / "g.slstate")
    GroupedAccumulator().update([1.0], [2.0], by=[1]).save(folder / "number.slstate")
    two = {"a": Accumulator(), "b": Accumulator()}
    (folder / "two.slstate").write_bytes(Results(two).to_bytes())
    state = (folder / "a.slstate").read_bytes()
    (folder / "cut.slstate").write_bytes(state[:-1])
    (folder / "flipped.slstate").write_bytes(state[:400] + bytes([state[400] ^ 1]) + state[401:])
    streamloss.score(folder / "t.parquet", labels="y", predictions="p", checkpoint=folder / "run.ckpt")
    kept = (folder / "run.ckpt").read_bytes()
    (folder / "flipped.ckpt").write_bytes(kept[:500] + bytes([kept[500] ^ 1]) + kept[501:])
    (folder / "notes.txt").write_text("dear diary")
    (folder / "link.slstate").symlink_to("a.slstate")


Y, P = ["--labels", "y"], ["--predictions", "p"]
T, N = ["score", "t.parquet", *Y, *P], ["score", "--labels", "y.npy", "--predictions"]
ANOTHER = "run.ckpt belongs to another run: "
WRONG = {
    # sources
    "no such file": (["score", "missing.parquet", *Y, *P], "no such file: missing.parquet"),
    "one of several missing": (["score", "t.parquet", "missing.parquet", *Y, *P], "no such file: missing.parquet"),
    "an empty file": (["score", "empty.csv", *Y, *P], "empty.csv is empty"),
    "an empty Parquet file": (["score", "empty.parquet", *Y, *P], "empty.parquet is empty"),
    "no rows": (["score", "header.csv", *Y, *P], "header.csv has no rows"),
    "no rows in Parquet": (["score", "norows.parquet", *Y, *P], "norows.parquet has no rows"),
    "damaged": (["score", "bad.parquet", *Y, *P], "bad.parquet cannot be read"),
    "cut short": (["score", "cut.parquet", *Y, *P], "cut.parquet cannot be read"),
    "unknown kind": (["score", "t.xlsx", *Y, *P], "unknown kind of file '.xlsx'"),
    "a folder without data": (["score", "folder", *Y, *P], "folder"),
    # columns
    "no such column": (["score", "t.parquet", "--labels", "z", *P], "no column 'z' for labels"),
    "a near column": (["score", "t.parquet", "--labels", "nam", *P], "did you mean 'name'?"),
    "no such prediction": ([*T, "--predictions", "q"], "no column 'q' for predictions"),
    "no such weights": ([*T, "--weights", "w"], "no column 'w' for weights"),
    "no such key": ([*T, "--by", "carrier"], "no column 'carrier' for by"),
    "a text column": (["score", "t.parquet", "--labels", "name", *P], "column 'name' of t.parquet must hold numbers"),
    "text for weights": ([*T, "--weights", "name"], "column 'name' of t.parquet must hold numbers for weights"),
    "dates for labels": (
        ["score", "t.parquet", "--labels", "dated", *P],
        "column 'dated' of t.parquet must hold numbers",
    ),
    "lists for keys": ([*T, "--by", "listed"], "column 'listed' of t.parquet must hold plain values for by"),
    "text in CSV": (["score", "text.csv", *Y, *P], "column 'y' of text.csv must hold numbers for labels, got String"),
    "text late in CSV": (["score", "late.csv", *Y, *P], "oops"),
    "a line with more fields": (["score", "ragged.csv", *Y, *P], "ragged.csv"),
    "text in another file": (["score", "t.parquet", "u.parquet", *Y, *P], "column 'p' of u.parquet must hold numbers"),
    "no column in another file": (["score", "t.parquet", "v.parquet", *Y, *P], "v.parquet has no column 'p'"),
    "a column twice": ([*T, *P], "predictions must be different ones, got p, p"),
    "a key twice": ([*T, "--by", "name", "--by", "name"], "by must be different ones, got name, name"),
    # arrays
    "unequal lengths": ([*N, "short.npy"], "(4,) in y.npy and (3,) in short.npy"),
    "no such array": ([*N, "q.npy"], "no such file: q.npy"),
    "no elements": (["score", "--labels", "none.npy", "--predictions", "none.npy"], "none.npy has no rows"),
    "objects": (
        ["score", "--labels", "objects.npy", "--predictions", "objects.npy"],
        "objects.npy is no readable .npy",
    ),
    "complex": (["score", "--labels", "complex.npy", "--predictions", "complex.npy"], "real numbers"),
    "no array": (["score", "--labels", "bad.npy", "--predictions", "bad.npy"], "bad.npy is no readable .npy file"),
    "an array cut short": (["score", "--labels", "cut.npy", "--predictions", "cut.npy"], "cut.npy is no readable .npy"),
    "weights": ([*N, "y.npy", "--weights", "short.npy"], "got shape (3,) in short.npy for elements of"),
    "NaN": ([*N, "nan.npy", "--nan", "raise"], "nan='raise': nan.npy has NaN or null in row 2"),
    # options
    "unknown loss": ([*T, "--loss", "mse"], "loss 'mse' is unknown; there are: squared_error"),
    "bad parameter": ([*T, "--loss", "huber(delta=-1)"], "delta of huber must lie strictly between"),
    "malformed loss": ([*T, "--loss", "huber(2)"], "loss 'huber(2)' is malformed"),
    "bad policy": ([*T, "--nan", "ignore"], "'ignore' is not one of"),
    "bad reduction": ([*T, "--reduction", "median"], "'median' is not one of"),
    "no labels": (["score", "t.parquet", *P], "Missing option '--labels'"),
    "no predictions": (["score", "t.parquet", *Y], "Missing option '--predictions'"),
    "unknown option": ([*T, "--wieghts", "w"], "--wieghts"),
    "unknown command": (["scroe", "t.parquet"], "No such command 'scroe'"),
    "two forms": ([*T, "--json", "--csv"], "--json and --csv exclude each other"),
    "no threads": ([*T, "--threads", "0"], "0 is not in the range 1<=x<=1024"),
    "no interval": ([*T, "--checkpoint", "c", "--checkpoint-every", "-1"], "-1.0 is not in the range x>=0"),
    "an interval of nothing": (
        [*T, "--save-state", "s", "--checkpoint-every", "1"],
        "--checkpoint-every needs --checkpoint FILE",
    ),
    # outputs
    "no folder for a state": ([*T, "--save-state", "no/a"], "cannot write no/a: there is no folder no"),
    "no folder for a plot": ([*T, "--plot", "no/a.png"], "cannot write no/a.png: there is no folder no"),
    "no folder for losses": ([*T, "--losses-out", "no/a.npy"], "cannot write no/a.npy: there is no folder no"),
    "no folder for a checkpoint": ([*T, "--checkpoint", "no/c"], "cannot write no/c: there is no folder no"),
    "a folder as a state": ([*T, "--save-state", "folder"], "cannot write folder: it is a directory"),
    "no name for a state": ([*T, "--save-state", ""], "cannot write '': the name of the file is empty"),
    "a folder as a checkpoint": ([*T, "--checkpoint", "folder"], "cannot write folder: it is a directory"),
    "a device as losses": ([*T, "--losses-out", os.devnull], "it is no regular file"),
    "a file as a folder": ([*T, "--plot", "t.parquet/a.png"], "there is no folder t.parquet"),
    "unknown kind of losses": ([*T, "--losses-out", "l.csv"], "unknown kind of file '.csv', expected .parquet or .npy"),
    "keys in .npy": ([*T, "--by", "name", "--losses-out", "l.npy"], "l.npy has no place for keys"),
    "two columns of a name": ([*T, "--by", "loss", "--losses-out", "l.parquet"], "would have two columns 'loss'"),
    "unknown kind of plot": ([*T, "--plot", "loss.txt"], "unknown kind of picture '.txt', expected one of"),
    "plot without ending": ([*T, "--plot", "loss"], "unknown kind of picture ''"),
    "one file for two": ([*T, "--save-state", "x", "--checkpoint", "./x"], "it is given for two outputs"),
    "losses over the source": ([*T, "--losses-out", "t.parquet"], "cannot write t.parquet: it belongs to what is read"),
    "losses over the labels": ([*N, "y.npy", "--losses-out", "./y.npy"], "it belongs to what is read, y.npy"),
    "losses among the sources": (
        ["score", "*.parquet", *Y, *P, "--losses-out", "l.parquet"],
        "cannot write l.parquet: it belongs to what is read, *.parquet",
    ),
    "a state over something else": ([*T, "--save-state", "notes.txt"], "it exists and holds no state of streamloss"),
    # checkpoints
    "a checkpoint of others": ([*T, "--by", "name", "--checkpoint", "run.ckpt"], ANOTHER + "by was [], is ['name']"),
    "of another loss": (
        [*T, "--loss", "huber", "--checkpoint", "run.ckpt"],
        ANOTHER + "loss was 'squared_error', is 'h",
    ),
    "of other files": (["score", "u.parquet", "t.parquet", *Y, "--predictions", "p", "--checkpoint", "run.ckpt"], ""),
    "a damaged checkpoint": ([*T, "--checkpoint", "flipped.ckpt"], "flipped.ckpt: the state is damaged"),
    "no checkpoint": ([*T, "--checkpoint", "notes.txt"], "notes.txt: not a streamloss state"),
    "a state as a checkpoint": ([*T, "--checkpoint", "a.slstate"], "a.slstate: it is of kind 'accumulator'"),
    # merge and show
    "nothing to merge": (["merge"], "Missing argument 'FILE...'"),
    "merge a missing file": (["merge", "a.slstate", "missing"], "missing: No such file or directory"),
    "merge a folder": (["merge", "folder"], "folder: Is a directory"),
    "merge something else": (["merge", "notes.txt"], "notes.txt: not a streamloss state"),
    "merge a cut state": (["merge", "a.slstate", "cut.slstate"], "cut.slstate: the state has"),
    "merge a damaged state": (["merge", "flipped.slstate"], "flipped.slstate: the state is damaged"),
    "merge a checkpoint": (["merge", "run.ckpt"], "run.ckpt: it is of kind 'checkpoint'"),
    "merge other losses": (
        ["merge", "a.slstate", "huber.slstate"],
        "huber.slstate cannot be merged with a.slstate: the losses",
    ),
    "merge with stderr": (["merge", "a.slstate", "stderr.slstate"], "stderr differs"),
    "merge with groups": (["merge", "a.slstate", "g.slstate"], "the groups differ: none here, by keys there"),
    "merge other keys": (
        ["merge", "g.slstate", "number.slstate"],
        "number.slstate cannot be merged with g.slstate: by must",
    ),
    "merge other predictions": (["merge", "two.slstate", "a.slstate"], "the predictions differ"),
    "merge twice the same": (["merge", "a.slstate", "./a.slstate"], "./a.slstate is given twice"),
    "merge other nan": (["merge", "omit.slstate", "a.slstate"], "nan differs: omit here, propagate there"),
    "semicolons": (["score", "semicolons.csv", *Y, *P], "has: y;p (are its fields separated by ';'?"),
    "spaces in names": (["score", "spaces.csv", *Y, *P], "it has: y, ' p'"),
    "arrays after a file": (
        ["score", "t.parquet", "--labels", "y.npy", *P],
        "files of arrays are scored without a file",
    ),
    "merge a user's function": (["merge", "own.slstate"], "own.slstate: the data is of a user's function <lambda>"),
    "merge over a file": (
        ["merge", "omit.slstate", "a.slstate", "--out", "a.slstate"],
        "--out: cannot write a.slstate: it belongs to what is read, a.slstate",
    ),
    "merge over a file by another path": (
        ["merge", "omit.slstate", "folder/../a.slstate", "-o", "./omit.slstate"],
        "--out: cannot write ./omit.slstate: it belongs to what is read, omit.slstate",
    ),
    "merge over a link": (["merge", "a.slstate", "-o", "link.slstate"], "it belongs to what is read, a.slstate"),
    "merge a link over its file": (["merge", "link.slstate", "-o", "a.slstate"], "cannot write a.slstate: it belongs"),
    "merge two to one": (
        ["merge", "a.slstate", "--out", "x.png", "--plot", "./x.png"],
        "--plot: cannot write ./x.png: it is given for two outputs",
    ),
    "merge to nowhere": (["merge", "a.slstate", "-o", "no/a"], "cannot write no/a: there is no folder no"),
    "show a missing file": (["show", "missing"], "missing: No such file or directory"),
    "show something else": (["show", "t.parquet"], "t.parquet: not a streamloss state"),
    "show a damaged checkpoint": (["show", "flipped.ckpt"], "flipped.ckpt: the state is damaged"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


def content(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def check(done, message):
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("streamloss: ")


@pytest.mark.parametrize("case", WRONG)
def test_what_the_user_got_wrong_is_one_line_and_exit_code_2_and_nothing_is_written(run, folder, monkeypatch, case):
    arguments, message = WRONG[case]
    monkeypatch.chdir(folder)
    before = content(folder)
    if arguments[0] == "score" and not {"--save-state", "--checkpoint", "--plot", "--losses-out"} & set(arguments):
        arguments = [*arguments, "--save-state", "out.slstate", "--checkpoint", "out.ckpt", "--plot", "out.png"]
        arguments += [] if "--by" in arguments else ["--losses-out", "out.npy"]
    check(run(*arguments), message)
    assert content(folder) == before


def test_there_are_enough_of_them():
    assert len(WRONG) >= 60


@pytest.mark.parametrize("case", ["no such file", "text late in CSV", "unknown loss", "no folder for a plot"])
def test_so_it_is_in_a_process(folder, case):
    check(process(*WRONG[case][0], cwd=folder), WRONG[case][1])


def test_a_folder_that_cannot_be_written(run, frame, monkeypatch):
    """Root may write anywhere; the system's refusal is made here."""
    opened = Path.open

    def refuse(self, mode="r", *arguments):
        if "a" in mode:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, mode, *arguments)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("streamloss.files.scoring._open", None)  # nothing is read before
    for option, path in [("--save-state", "a"), ("--checkpoint", "a"), ("--plot", "a.png"), ("--losses-out", "a.npy")]:
        check(run(*A, option, path), f"cannot write {path}: Permission denied")
    assert os.listdir() == ["t.parquet"]


def test_help(run):
    assert "streamloss score flights.parquet" in run("score", "--help").stdout
    assert run("--version").stdout.startswith("streamloss")
    for command in ("merge", "show"):
        assert "FILE" in run(command, "--help").stdout


def test_warmup_compiles_into_the_cache_folder(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = process("warmup", "--loss", "absolute_error", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "absolute_error" in done.stdout
    assert len(list(tmp_path.rglob("*accumulate*.nbc"))) >= 8
    assert process("warmup", "--loss", "mse").returncode == 2


def test_warmup_takes_one_thing_or_several():
    for one in ("float32", np.float32, np.dtype("f4"), ["float32"], iter([np.float32])):
        streamloss.warmup("squared_error", dtypes=one, nan="omit")


def test_warmup_leaves_nothing_to_compile_for_groups_and_standard_errors(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    assert process("warmup", "--by", "--stderr", env=environment).returncode == 0
    before = {path.name for path in tmp_path.rglob("*.nbc")}
    pl.DataFrame({"y": [1.0, 2.0], "p": [1.0, 1.0], "s": ["a", "b"], "n": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    for key in ("s", "n"):
        options = ["--labels", "y", "--predictions", "p", "--by", key, "--stderr"]
        assert process("score", str(tmp_path / "t.parquet"), *options, env=environment).returncode == 0
    assert {path.name for path in tmp_path.rglob("*.nbc")} == before


def test_tables_are_as_wide_as_they_must_be(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    key = "a key that is rather long"
    pl.DataFrame({"y": [1.0, 1 / 3], "p": [0.0, 0.0], "k": [key, "a\nb\x1b[31m"]}).write_parquet("t.parquet")
    several = [part for i in range(5) for part in ("--predictions", f"p + {i} / 3.0")]
    shown = run("score", "t.parquet", "--labels", "y", *several, "--by", "k", "--stderr").stdout.splitlines()
    assert len(shown) == 5
    assert shown[2].startswith(r"a\nb\x1b[31m  ")
    assert shown[3].startswith(key + "  ")
    assert "…" not in "".join(shown)
    shown = run("score", "t.parquet", "--labels", "y", *several).stdout.splitlines()
    assert [line.split("  ")[0] for line in shown[1:3]] == ["sum", "mean"]
    assert "…" not in "".join(shown)


def test_terms_that_are_not_finite_are_told(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"y": [1.0, -2.0, 3.0], "p": [0.0] * 3}).write_parquet("t.parquet")
    arguments = ["score", "t.parquet", "--labels", "y", "--predictions", "p", "--loss", "squared_log_error"]
    assert "terms NaN or infinite" in run(*arguments).stdout
    assert json.loads(run(*arguments, "--json").stdout)["nonfinite_count"] == 1
    assert "infinite" not in run(*arguments[:-2]).stdout
