"""Tables: of rows, as Markdown; and the files that keep what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .plan import Row

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
MARKS = re.compile(r"(<!-- speed:.*?-->\n).*?(<!-- end of speed -->)", re.DOTALL)


def cell(value: Any) -> str:
    """Three digits of a number; text as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).replace("|", "\\|")
    if isinstance(value, int) or value == 0:
        return f"{value:,}" if isinstance(value, int) else "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows: Iterable[Row]) -> str:
    """Rows as a Markdown table; a row that lacks a column has an empty cell there.

    >>> print(table([{"what": "a", "ms": 1.2345}, {"what": "b", "failure": "no compiler"}]))
    | what | ms | failure |
    | --- | --- | --- |
    | a | 1.23 |  |
    | b |  | no compiler |
    """
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([cell(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pivot(rows: Iterable[Row], index: str, columns: str, value: str) -> list[Row]:
    """A row for each value of `index`, a column for each value of `columns`; what failed has a dash.

    >>> pivot([{"n": 1, "who": "a", "ms": 2}, {"n": 1, "who": "b", "failure": "none"}], "n", "who", "ms")
    [{'n': 1, 'a': 2, 'b': '–'}]
    """
    rows = list(rows)
    names = dict.fromkeys(row[columns] for row in rows)
    made: dict[Any, Row] = {}
    for row in rows:
        made.setdefault(row[index], {index: row[index], **dict.fromkeys(names, "")})[row[columns]] = row.get(value, "–")
    return list(made.values())


def failures(rows: Iterable[Row]) -> str:
    """What was not measured, and why: one line for each reason; empty if there is none."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.get("failure"):
            reasons.setdefault(f"{row.get('library', '')}: {row['failure']}", []).append(str(next(iter(row.values()))))
    return "\n".join(f"- {reason} ({'; '.join(dict.fromkeys(what))})" for reason, what in reasons.items())


def load(path: Path) -> dict[str, Any]:
    """The sections that a file of results holds."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def save(path: Path, sections: dict[str, Any]) -> None:
    """Keep the sections in a file of results."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(sections, indent=1) + "\n", encoding="utf-8")


def write_readme(text: str, path: Path = README) -> None:
    """Put a text between the marks in the README."""
    before = path.read_text(encoding="utf-8")
    if not MARKS.search(before):
        raise ValueError(f"{path.name} has no marks '<!-- speed: ... -->' and '<!-- end of speed -->'")
    path.write_text(MARKS.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", before), encoding="utf-8")
