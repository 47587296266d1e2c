"""Run with `python -m benchmarks`, or `python -m benchmarks gpu` where there is one.

`--quick` takes a minute and is for the assertions, not the times.
"""

from __future__ import annotations

import argparse
import datetime
import re
from pathlib import Path
from typing import Any

from . import bandwidth, gpu, latency, machine, memory

README = Path(__file__).parent.parent / "README.md"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    cells = [[f"{v:,.3g}" if isinstance(v, float) and v < 1000 else str(v) for v in row.values()] for row in rows]
    return "\n".join(["| " + " | ".join(line) + " |" for line in (list(rows[0]), ["---"] * len(rows[0]), *cells)])


def write_readme(
    header: str, large: list[dict[str, Any]], small: list[dict[str, Any]], cold: list[dict[str, Any]]
) -> None:
    """Put what was measured between the marks in the README."""
    shares: dict[str, dict[str, Any]] = {}
    for row in large:
        if row["what"] != "read":
            shares.setdefault(row["workload"], {"fraction of the read bandwidth": row["workload"]})[row["what"]] = row[
                "of the roof"
            ]
    text = "\n\n".join(
        [
            f"Measured on {header}. The read bandwidth is that of all threads reading the same arrays in the same run.",
            table(list(shares.values())),
            table(small),
            table(cold),
        ]
    )
    marks = re.compile(r"(<!-- speed:.*?-->\n).*?(<!-- end of speed -->)", re.DOTALL)
    README.write_text(marks.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", README.read_text()))


def main() -> None:
    """Run every section and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["cpu", "gpu"], default="cpu", help="where arrays lie; default cpu")
    parser.add_argument("--quick", action="store_true", help="small arrays, few repeats")
    parser.add_argument("--readme", action="store_true", help="write the tables into README.md, too")
    options = parser.parse_args()
    quick = options.quick
    if options.what == "gpu":
        gpu.run(quick)
        return
    header = f"{datetime.date.today()}: {machine.describe()}"
    large = bandwidth.run(40 if quick else 400, 3 if quick else 9)
    small = latency.small_updates(3 if quick else 9)
    cold = latency.cold_start()
    for title, rows in (
        (header, []),
        ("Large updates", large),
        ("Small updates", small),
        ("Cold start", cold),
        ("Memory", memory.run(200 if quick else 2000)),
    ):
        print(f"\n## {title}\n", *([table(rows)] if rows else []), sep="\n")
    if options.readme:
        write_readme(header, large, small, cold)


if __name__ == "__main__":
    main()
