"""Measure streamloss against the machine and against what users would pick instead.

Each section runs in a process of its own; a table of all goes to standard output and, unless --quick, with the
numbers to benchmarks/results. Sections that are measured alone replace their part of today's results.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from . import machine, plots, report
from .plan import Plan, Row, progress

SECTIONS = ["large", "losses", "hard", "sizes", "drift", "small", "middle", "growth", "cold", "memory", "files"]
IN_README = ["large", "losses", "small", "cold", "files"]
PICTURES = {"sizes": plots.roof, "drift": plots.drift}
LIMIT = 900.0  # seconds for a section


def main() -> None:
    """Run sections, print and keep what they found; exit with 1 if one of them failed, or streamloss in it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    sections = f"of {', '.join(SECTIONS)}, default all; or gpu, alone"
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=sections)
    parser.add_argument("--quick", action="store_true", help="a minute, for the assertions; nothing is kept")
    parser.add_argument("--largest", action="store_true", help="also arrays of 1 GB and files of 8 GB")
    parser.add_argument("--readme", action="store_true", help="write today's results into README.md, too")
    options = parser.parse_args()
    if options.sections == ["gpu"]:  # it needs a device, and keeps its figures by the name of the card
        importlib.import_module("benchmarks.gpu").run(options.quick)
        return
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are: {', '.join(SECTIONS)}")
    if options.quick and options.readme:
        parser.error("--readme takes measured times, --quick measures none")
    wanted = [name for name in options.sections or SECTIONS if importlib.util.find_spec(f"benchmarks.{name}")]
    sys.exit(run(wanted, Plan(options.quick, options.largest), options.readme))


def run(wanted: list[str], plan: Plan, readme: bool) -> int:
    """Run sections, one after the other so that they do not disturb each other; return the exit status."""
    with ThreadPoolExecutor(2 if plan.quick else 1) as pool:  # quick times mean nothing
        found = dict(zip(wanted, pool.map(partial(run_section, plan=plan), wanted), strict=True))
    path = report.RESULTS / f"{datetime.date.today()}-{machine.slug()}.json"
    sections = found if plan.quick else report.load(path) | found
    sections = {name: sections[name] for name in SECTIONS if name in sections}
    if not plan.quick:
        report.save(path, sections)
    text = markdown(sections)
    print(text)
    if not plan.quick:
        path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
        draw(sections)
    if readme:
        report.write_readme(readme_text(sections))
    failed = [name for name in wanted if has_failed(found[name])]
    if failed:
        progress(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def run_section(name: str, plan: Plan) -> dict[str, Any]:
    """What a section finds in a process of its own; what ends that process early is part of it."""
    begin, before = time.monotonic(), machine.taken()
    failure = ""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows"
        rows.touch()
        words = [word for word in ("quick", "largest") if getattr(plan, word)]
        command = [sys.executable, "-m", "benchmarks.section", name, str(rows), *words]
        try:
            done = subprocess.run(command, timeout=LIMIT, stdout=2, check=False)
            failure = f"ended with status {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            failure = f"took more than {LIMIT:.0f} seconds"
        lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may not be whole
    seconds = time.monotonic() - begin
    progress(f"{name}: {seconds:.0f} s")
    return {
        "date": str(datetime.date.today()),
        "machine": machine.processor(),
        "versions": machine.versions(),
        "seconds": seconds,
        "taken by other machines": (machine.taken() - before) / seconds / (os.cpu_count() or 1),
        "failure": failure,
        "rows": found,
    }


def has_failed(section: dict[str, Any]) -> bool:
    """Whether a section, or streamloss in it, has failed; rivals may."""
    ours = (row for row in section["rows"] if row.get("failure") and row["library"].startswith("streamloss"))
    return bool(section["failure"] or next(ours, None))


def markdown(sections: dict[str, Any]) -> str:
    """All sections with their titles."""
    parts = [f"# {header(sections)}"]
    for name, section in sections.items():
        parts += [f"## {module(name).TITLE}", *body(name, section)]
        share = section.get("taken by other machines")  # results of before do not say
        parts += [] if share is None else [f"Other machines took {share:.1%} of the processors' time meanwhile."]
    return "\n\n".join(parts)


def body(name: str, section: dict[str, Any], brief: bool = False) -> list[str]:
    """A section's tables, and what is missing from them; its brief ones if it has such."""
    show, rows = module(name).show, section["rows"]
    if brief:
        show = getattr(module(name), "brief", show)
        rows = [row for row in rows if getattr(module(name), "in_brief", bool)(row)]
    measured = any(not row.get("failure") for row in rows)
    missing = report.failures(rows)
    parts = [show(rows)] if measured else []
    parts += [f"Not measured:\n\n{missing}"] if missing else []
    return parts + ([f"**This section failed: it {section['failure']}.**"] if section["failure"] else [])


def readme_text(sections: dict[str, Any]) -> str:
    """The README's part: pictures, then the tables that answer its reader's questions."""
    parts = [f"Measured on {header(sections)}. `benchmarks/NOTES.md` says how."]
    for name in PICTURES:
        if name in sections:
            parts.append(f"![{module(name).TITLE}](benchmarks/results/{name}.png)")
    for name in IN_README:
        if name in sections:
            parts += [f"### {module(name).TITLE}", *body(name, sections[name], brief=True)]
    return "\n\n".join(parts)


def header(sections: dict[str, Any]) -> str:
    """Date, machine and versions; more than one of them only if sections differ."""
    lines = dict.fromkeys(f"{part['date']}: {part['machine']}; {part['versions']}" for part in sections.values())
    return "; and ".join(lines)


def draw(sections: dict[str, Any]) -> None:
    """The pictures, where Matplotlib is installed."""
    for name, picture in PICTURES.items():
        rows: list[Row] = sections.get(name, {}).get("rows", [])
        if rows and importlib.util.find_spec("matplotlib"):
            picture(rows, report.RESULTS / f"{name}.png")


def module(name: str) -> Any:
    """The module of a section."""
    return importlib.import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    main()
