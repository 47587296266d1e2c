"""One section, in a process of its own: `python -m benchmarks.section NAME FILE [quick] [largest]`."""

from __future__ import annotations

import importlib
import json
import sys

from .plan import Plan


def main() -> None:
    """Write the rows to the file, one line of JSON each, as they come."""
    name, path, *words = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.{name}")
    with open(path, "w", encoding="utf-8") as file:
        for row in module.run(Plan(quick="quick" in words, largest="largest" in words)):
            print(json.dumps(row), file=file, flush=True)


if __name__ == "__main__":
    main()
