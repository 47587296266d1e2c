"""Scoring files: `streamloss.score` beside Polars' own streaming expression and DuckDB's SQL on the same file."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import streamloss

from . import exactly
from .machine import Array, time_in_turns
from .plan import Plan, Row, Rows, progress
from .report import pivot, table

TITLE = "Files"
GROUPS = 20
# Two threads of decoding differ by a tenth from turn to turn: in 11 turns, the best times of Polars' two expressions
# over CSV, which do the same work, differed by up to 9 %.
TURNS = 33
PATIENCE = 8.0  # seconds of turns for each engine
TOLERANCE = {"double": 1e-10, "float": 1e-3}  # relative, of answers by arithmetic in these types

Answer: TypeAlias = float | dict[Any, float]


@dataclass(frozen=True)
class Case:
    """A question about a file: the mean squared error, perhaps weighted, perhaps for each group."""

    name: str
    file: str
    weights: bool = False
    by: str | None = None


# The same rows, as each library writes them unless told otherwise; pandas writes through pyarrow.
PARQUET = {"pyarrow": "Parquet of pyarrow (snappy)", "polars": "Parquet of Polars (zstd)"}
CASES = [
    case
    for file, name in PARQUET.items()
    for case in (
        Case(name, file),
        Case(f"{name}, weights", file, weights=True),
        Case(f"{name}, by 20 integers", file, by="code"),
        Case(f"{name}, by 20 strings", file, by="carrier"),
    )
]
CASES.append(Case("CSV", "csv"))


def _score(path: Path, case: Case) -> Answer:
    weights = "weight" if case.weights else None
    by: dict[str, Any] = {"by": case.by} if case.by else {}
    return streamloss.score(path, labels="label", predictions="prediction", weights=weights, **by).result("mean")


def _polars(path: Path, case: Case, dtype: Any) -> Answer:
    """The expression of its users' guide, in the streaming engine; a product, as it is faster than pow()."""
    error = pl.col("prediction").cast(dtype) - pl.col("label").cast(dtype)
    loss = (error * error).mean()
    if case.weights:
        weight = pl.col("weight").cast(dtype)
        loss = (weight * (error * error)).sum() / weight.sum()
    scan = pl.scan_csv(path) if case.file == "csv" else pl.scan_parquet(path)
    if case.by is None:
        return float(scan.select(loss).collect(engine="streaming").item())
    return dict(scan.group_by(case.by).agg(loss).collect(engine="streaming").iter_rows())


def _duckdb(path: Path, case: Case, dtype: str) -> Answer:
    import duckdb

    errors = f"SELECT *, prediction::{dtype} - label::{dtype} AS e FROM '{path}'"
    loss = "sum(weight * (e * e)) / sum(weight)" if case.weights else "avg(e * e)"
    with duckdb.connect() as connection:
        if case.by is None:
            return float(connection.execute(f"SELECT {loss} FROM ({errors})").fetchall()[0][0])
        return dict(connection.execute(f"SELECT {case.by}, {loss} FROM ({errors}) GROUP BY 1").fetchall())


ENGINES: dict[str, tuple[Callable[[Path, Case], Answer], float]] = {
    "streamloss": (_score, 0.0),
    "Polars, float64": (partial(_polars, dtype=pl.Float64), TOLERANCE["double"]),
    "Polars, float32": (partial(_polars, dtype=pl.Float32), TOLERANCE["float"]),
}
if importlib.util.find_spec("duckdb"):
    ENGINES["DuckDB, double"] = partial(_duckdb, dtype="DOUBLE"), TOLERANCE["double"]
    ENGINES["DuckDB, float"] = partial(_duckdb, dtype="FLOAT"), TOLERANCE["float"]


def run(plan: Plan) -> Rows:
    """One row for each case and engine: seconds, rows per second; files are read from the system's cache."""
    with tempfile.TemporaryDirectory() as folder:
        written = _write_parquet(Path(folder), plan.pick(50_000, 100_000_000))
        written["csv"] = _write_csv(Path(folder) / "scores.csv", plan.pick(20_000, 10_000_000))
        for case in CASES:
            path, rows, exact = written[case.file]
            yield from _measure(case, path, rows, exact(case), plan)


def _measure(case: Case, path: Path, rows: int, exact: Answer, plan: Plan) -> Rows:
    calls, failed = {}, []
    for name, (engine, tolerance) in ENGINES.items():
        progress(f"files: {case.name}: {name}")
        try:
            answer = engine(path, case)
        except Exception as error:  # another library's, or what score() cannot do: to be reported
            failed.append((name, " ".join(f"{type(error).__name__}: {error}".split())[:200]))
            continue
        if not _agree(answer, exact, tolerance):
            assert name != "streamloss", f"{case.name}: {answer} is not {exact}"
            failed.append((name, f"wrong by more than {tolerance:g}"))
            continue
        calls[name] = partial(engine, path, case)
    timed = time_in_turns(calls, plan.pick(1, TURNS), PATIENCE)
    best = {name: timed[name].seconds for name in calls}
    size = path.stat().st_size
    for name, seconds in best.items():
        row = {"case": f"{case.name}, {rows / 1e6:g} million rows", "library": name, "seconds": seconds}
        row |= {"million rows per second": rows / seconds / 1e6, "file, MB": size / 1e6}
        if "streamloss" in best:
            row["streamloss takes"] = best["streamloss"] / seconds
        yield row
    for name, failure in failed:
        yield {"case": f"{case.name}, {rows / 1e6:g} million rows", "library": name, "failure": failure}


def _agree(answer: Answer, exact: Answer, tolerance: float) -> bool:
    if isinstance(exact, dict):
        if not isinstance(answer, dict) or answer.keys() != exact.keys():
            return False
        return all(_agree(answer[key], value, tolerance) for key, value in exact.items())
    return not isinstance(answer, dict) and abs(answer - exact) <= tolerance * exact


Written: TypeAlias = tuple[Path, int, Callable[[Case], Answer]]


def _write_parquet(folder: Path, rows: int) -> dict[str, Written]:
    """Normal float32 labels and errors, uniform weights and codes; the same rows by each of the writers."""
    progress(f"files: write {rows} rows of Parquet, twice")
    rng = np.random.default_rng(25)
    labels = rng.standard_normal(rows, dtype=np.float32)
    predictions = labels + rng.standard_normal(rows, dtype=np.float32)
    weights = rng.random(rows, dtype=np.float32)
    codes = rng.integers(0, GROUPS, rows, dtype=np.int8)
    names = [f"carrier {code:02}" for code in range(GROUPS)]
    columns = {"label": labels, "prediction": predictions, "weight": weights, "code": codes}
    paths = {writer: folder / f"{writer}.parquet" for writer in PARQUET}
    _write_by_pyarrow(paths["pyarrow"], columns, names)
    frame = pl.DataFrame(columns).with_columns(carrier=pl.Series(names).gather(pl.Series(codes).cast(pl.UInt32)))
    frame.write_parquet(paths["polars"])
    del frame
    progress("files: the exact answers")
    of_groups = _by_code(labels, predictions, codes)
    answers: dict[tuple[bool, str | None], Answer] = {
        (False, None): exactly.squared_error(labels, predictions),
        (True, None): exactly.squared_error(labels, predictions, weights),
        (False, "code"): dict(enumerate(of_groups)),
        (False, "carrier"): dict(zip(names, of_groups, strict=True)),
    }
    return {writer: (path, rows, lambda case: answers[case.weights, case.by]) for writer, path in paths.items()}


def _write_by_pyarrow(path: Path, columns: dict[str, Array], names: list[str]) -> None:
    """Row group by row group, of the size that `write_table` makes them."""
    step, carriers = 1 << 20, pa.array(names)

    def piece(start: int) -> pa.Table:
        here = {name: values[start : start + step] for name, values in columns.items()}
        return pa.table({**here, "carrier": carriers.take(pa.array(here["code"]))})

    with pq.ParquetWriter(path, piece(0).schema) as writer:
        for start in range(0, len(columns["code"]), step):
            writer.write_table(piece(start))


def _write_csv(path: Path, rows: int) -> Written:
    """Numbers of four decimals."""
    progress(f"files: write {rows} rows of CSV")
    rng = np.random.default_rng(26)
    labels, predictions = (np.round(rng.standard_normal(rows) * 10, 4) for _ in range(2))
    pl.DataFrame({"label": labels, "prediction": predictions}).write_csv(path)
    exact = exactly.squared_error(labels, predictions)
    return path, rows, lambda case: exact


def _by_code(labels: Array, predictions: Array, codes: Array) -> list[float]:
    """The exact mean squared error of each group."""
    sums = [0] * GROUPS
    for start in range(0, codes.size, exactly.STEP):
        here = slice(start, start + exactly.STEP)
        losses = np.square(predictions[here].astype(np.float64) - labels[here])
        for code in range(GROUPS):
            sums[code] += exactly.total(losses[codes[here] == code])
    counts = np.bincount(codes, minlength=GROUPS)
    return [total / (int(count) << 1074) for total, count in zip(sums, counts, strict=True)]


def show(rows: list[Row]) -> str:
    """Seconds for each case, then how many times as long as each of them streamloss takes."""
    return "\n\n".join(
        [
            "Seconds:",
            table(pivot(rows, "case", "library", "seconds")),
            "The time of streamloss over that of each (below 1: streamloss is faster):",
            table(
                pivot((row for row in rows if row["library"] != "streamloss"), "case", "library", "streamloss takes")
            ),
        ]
    )
