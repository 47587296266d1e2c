"""The command takes the same memory for more rows, with groups and with a plot, too."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamloss

ROOT = Path(streamloss.__file__).parent.parent
MEGABYTES = 100
SCRIPT = """
import resource, sys
import streamloss_command
try:
    streamloss_command.main()
except SystemExit:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of 400 MB, under ten names."""
    folder, rows = tmp_path_factory.mktemp("memory"), 3_000_000
    rng = np.random.default_rng(7)
    y, p = rng.standard_normal((2, rows))
    table = pa.table({"y": y, "p": p, "k": rng.integers(0, 20, rows).astype(str)})
    with pq.ParquetWriter(folder / "0.parquet", table.schema) as writer:
        while (folder / "0.parquet").stat().st_size < 400_000_000:
            writer.write_table(table, row_group_size=500_000)
    for number in range(1, 10):
        os.link(folder / "0.parquet", folder / f"{number}.parquet")
    return [str(folder / f"{number}.parquet") for number in range(10)]


def megabytes(sources, options, folder):
    command = [sys.executable, "-c", SCRIPT, "score", *sources, "--labels", "y", "--predictions", "p", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=True)
    assert done.stdout
    return int(done.stderr)


@pytest.mark.parametrize("options", [["--plot", "run.png"], ["--by", "k", "--plot", "by.png"]], ids=["plot", "groups"])
def test_ten_times_the_rows_take_the_same_memory(files, tmp_path, options):
    assert megabytes(files, options, tmp_path) - megabytes(files[:1], options, tmp_path) < MEGABYTES
