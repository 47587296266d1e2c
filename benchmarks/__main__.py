"""Run with `python -m benchmarks`; `--quick` takes a minute and is for the assertions, not the times."""

from __future__ import annotations

import argparse
import datetime
from typing import Any

from . import bandwidth, latency, machine, memory


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    print(f"\n## {title}\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()) + " |")


def main() -> None:
    """Run every section and print its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small arrays, few repeats")
    quick = parser.parse_args().quick
    print(f"{datetime.date.today()}; {machine.describe()}")
    print_table("Large updates", bandwidth.run(40 if quick else 400, 3 if quick else 9))
    print_table("Small updates", latency.small_updates(3 if quick else 9))
    print_table("Cold start", latency.cold_start())
    print_table("Memory", memory.run(200 if quick else 2000))


if __name__ == "__main__":
    main()
