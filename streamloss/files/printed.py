"""The results as a table for people."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..accumulator import Accumulator
from ..grouped import GroupedAccumulator
from ..reduction import Reduction
from .report import key_names, nonfinite_count, parts
from .results import Results

NARROWEST = 80  # columns
WIDEST = 1_000_000  # columns: no key and no number is cut short, whatever the terminal
MOST_SHOWN = 60  # groups: those with the most elements


def show(results: Results, reductions: Sequence[Reduction], rate: float | None = None) -> None:
    """Print the results; `rate` is in rows per second."""
    if isinstance(results.first, GroupedAccumulator):
        _show_groups(results, results.first.reduction if len(reductions) > 1 else reductions[0])
    else:
        _show_reductions(results, reductions, rate)


def _show_reductions(results: Results, reductions: Sequence[Reduction], rate: float | None) -> None:
    accumulators = cast(list[Accumulator], list(results.accumulators.values()))
    several = len(accumulators) > 1
    table = _table()
    table.add_column(repr(results.first.loss) if several else "", no_wrap=True)
    for name in results.accumulators:
        table.add_column(_name(name if several else repr(results.first.loss)), justify="right", no_wrap=True)
    for reduction in reductions:
        table.add_row(str(reduction), *(repr(accumulator.result(reduction)) for accumulator in accumulators))
        if results.first.stderr:
            errors = (accumulator.standard_error(reduction) for accumulator in accumulators)
            table.add_row("  standard error", *map(repr, errors))
    table.add_section()
    table.add_row("weight sum", *(repr(accumulator.weight_sum) for accumulator in accumulators))
    table.add_row("elements", *(f"{accumulator.count:,}" for accumulator in accumulators))
    table.add_row("with nonzero weight", *(f"{accumulator.nonzero_count:,}" for accumulator in accumulators))
    table.add_row("skipped (NaN or null)", *(f"{accumulator.skipped_count:,}" for accumulator in accumulators))
    lost = [nonfinite_count(accumulator) for accumulator in accumulators]
    if any(lost):
        table.add_row("terms NaN or infinite", *(f"{count:,}" for count in lost))
    if rate is not None:
        table.add_row("rows per second", f"{rate:,.0f}", *[""] * (len(accumulators) - 1))
    _print(table)


def _show_groups(results: Results, reduction: Reduction) -> None:
    accumulators = cast(dict[str, GroupedAccumulator], results.accumulators)
    first = next(iter(accumulators.values()))
    table = _table()
    for name in key_names(results):
        table.add_column(_name(name), no_wrap=True)
    for name in accumulators:
        table.add_column(_name(str(reduction) if len(accumulators) == 1 else name), justify="right", no_wrap=True)
        if first.stderr:
            table.add_column("standard error", justify="right", no_wrap=True)
    table.add_column("elements", justify="right", no_wrap=True)
    table.add_column("skipped", justify="right", no_wrap=True)
    for key in largest(first, MOST_SHOWN):
        table.add_row(*map(_key, parts(key)), *_numbers([each[key] for each in accumulators.values()], reduction))
    table.add_section()
    width = len(key_names(results))
    all_name = "all" if len(first) <= MOST_SHOWN else f"all {len(first):,}; the {MOST_SHOWN} largest are shown"
    totals = _numbers([each.total() for each in accumulators.values()], reduction)
    table.add_row(all_name, *[""] * (width - 1), *totals)
    what = f"{first.loss!r}" if len(accumulators) == 1 else f"{first.loss!r}, {reduction}"
    _print(Text(what, style="bold"), table)


def largest(groups: GroupedAccumulator, most: int) -> list[Any]:
    """Return the keys of the groups with the most elements, in the order of keys."""
    if len(groups) <= most:
        return list(groups)
    chosen = heapq.nlargest(most, ((group.count, -i, key) for i, (key, group) in enumerate(groups.items())))
    return [key for _, _, key in sorted(chosen, key=lambda each: -each[1])]


def _numbers(accumulators: Sequence[Accumulator], reduction: Reduction) -> list[str]:
    numbers = []
    for accumulator in accumulators:
        numbers.append(repr(accumulator.result(reduction)))
        if accumulator.stderr:
            numbers.append(f"{accumulator.standard_error(reduction):.4g}")
    return [*numbers, f"{accumulators[0].count:,}", f"{accumulators[0].skipped_count:,}"]


def _key(part: Any) -> Text:
    return Text("(null)", style="italic") if part is None else _name(str(part))


def _name(text: str) -> Text:
    """Return a name or a key without what a terminal would take for commands or ends of lines."""
    return Text("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text))


def _table() -> Table:
    return Table(box=None, header_style="bold", pad_edge=False)


def _print(*lines: Any) -> None:
    console = Console()
    wide = console.options.update(width=WIDEST)
    console.width = max(console.width, NARROWEST, *(console.measure(line, options=wide).maximum for line in lines))
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, Text))
