"""How fast large chunks are added, as a fraction of how fast they can be read at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import exactly
from .machine import read_all, time_in_turns
from .plan import Plan, Row, Rows, progress
from .report import pivot, table
from .rivals import RIVALS, Call, Rival, Unsupported
from .workloads import WORKLOADS, Arrays, Workload

TITLE = "Large updates"
IN_BRIEF = ("float32", "float32, weights", "float32, mask", "float64", "float64, weights")


def run(plan: Plan) -> Rows:
    """One row for each workload, size and library: seconds, bytes per second, fraction of the roof, error in ulp.

    All rivals at one size; at the others streamloss and the plain loop.
    """
    sizes = plan.pick([4], [400, 100], [400, 100, 1000])
    rivals = [rival for rival in RIVALS if not (plan.quick and rival.starts_slowly)]
    for workload in WORKLOADS:
        for megabytes in sizes:
            yield from measure(workload, megabytes, rivals if megabytes == sizes[0] else rivals[:2], plan)


def measure(workload: Workload, megabytes: float, rivals: list[Rival], plan: Plan) -> Rows:
    """The rows of one workload at one size."""
    arrays = workload.arrays(megabytes)
    exact = workload.answer(arrays)
    size = sum(array.nbytes for array in arrays.values())
    calls: dict[str, Callable[[], Any]] = {"read": partial(read_all, list(arrays.values()))}
    calls["read"]()
    for rival in rivals:
        progress(f"large: {workload.name}, {size / 1e6:.0f} MB: {rival.name}")
        begun: Row = {"workload": workload.name, "MB": round(megabytes), "library": rival.name}
        call, failure = ready(rival, arrays, exact)
        if call is None:
            yield begun | {"failure": failure}
        else:
            calls[rival.name] = call
    timed = time_in_turns(calls, plan.pick(1, 25))
    for name in list(calls)[1:]:
        seconds, result = timed[name]
        yield {
            "workload": workload.name,
            "MB": round(megabytes),
            "library": name,
            "milliseconds": seconds * 1e3,
            "GB/s": size / seconds / 1e9,
            "of the roof": timed["read"].seconds / seconds,
            "error, ulp": exactly.ulps(result, exact),
            "roof, GB/s": size / timed["read"].seconds / 1e9,
        }


def ready(rival: Rival, arrays: Arrays, exact: float) -> tuple[Call | None, str]:
    """A rival's call, made once and its answer asserted; or None, and why there is none.

    A wrong bit of streamloss ends the section, and so does what it raises.
    """
    if rival.name == "streamloss":
        call = rival.prepare(arrays)
        result = call()
        assert rival.accepts(result, exact, arrays["labels"].dtype), f"streamloss: {result!r} is not {exact!r}"
        return call, ""
    try:
        call = rival.prepare(arrays)
        result = call()
    except Unsupported as error:
        return None, str(error)
    except Exception as error:  # whatever another library raises, it is to be reported and the others measured
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if not rival.accepts(result, exact, arrays["labels"].dtype):
        return None, f"relative error {abs(result / exact - 1):.1g}"
    return call, ""


def show(rows: list[Row]) -> str:
    """Fractions of the roof and errors, a row for each library; then what else was measured."""
    most = rows[0]["MB"]
    first = [row for row in rows if row["MB"] == most]
    others = [row for row in rows if row["MB"] != most]
    parts = [
        f"Fraction of the read bandwidth, {most} MB of arrays (roof: {_roof(first)} GB/s):",
        table(pivot(first, "library", "workload", "of the roof")),
        "Error of the same answers in units of the last place of a float64 (the exact answer has 0):",
        table(pivot(first, "library", "workload", "error, ulp")),
    ]
    if others:
        named = [row | {"size": f"{row['library']}, {row['MB']} MB"} for row in others]
        parts += ["Other sizes:", table(pivot(named, "size", "workload", "of the roof"))]
    return "\n\n".join(parts)


def in_brief(row: Row) -> bool:
    """Whether the README shows it: not the odder workloads."""
    return row["workload"] in IN_BRIEF


def brief(rows: list[Row]) -> str:
    """The fractions of the roof alone, and one column of errors."""
    most = [row for row in rows if row["MB"] == rows[0]["MB"]]
    made = pivot(most, "library", "workload", "of the roof")
    errors = {row["library"]: row.get("error, ulp", "–") for row in most if row["workload"] == "float32"}
    lines = [row | {"error on float32, ulp": errors[row["library"]]} for row in made]
    return (
        f"The roof is the bandwidth that all threads reach when they do nothing but read the same arrays,"
        f" {_roof(most)} GB/s here. Fraction of the roof on {rows[0]['MB']} MB of arrays, and the error of the answer"
        f" in units of the last place of a float64:\n\n{table(lines)}"
    )


def _roof(rows: list[Row]) -> str:
    roofs = [row["roof, GB/s"] for row in rows if "roof, GB/s" in row]
    return f"{min(roofs):.3g} to {max(roofs):.3g}"
