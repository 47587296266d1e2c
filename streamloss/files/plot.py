"""Pictures of the results: the running loss over the rows, or a bar for each group."""

from __future__ import annotations

import io
import math
import textwrap
from pathlib import Path
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ..accumulator import Accumulator
from ..grouped import GroupedAccumulator
from ..reduction import Reduction
from .history import History
from .printed import largest
from .report import key_names, parts, total
from .results import Results

MOST_DRAWN = 40  # groups: those with the most elements
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: told apart by all eyes
LETTERS = 105  # of a line below the title
GREY, INK = "#6b6b6b", "#222222"
SETTLED = 0.02  # of the rows: before them the loss jumps about, and would stretch the axis


def check(path: Path) -> None:
    """Refuse a file that no picture can be written to, by its ending."""
    known = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise ValueError(f"{path}: unknown kind of picture {path.suffix!r}, expected one of .{', .'.join(known)}")


def draw(results: Results, history: History | None, reduction: Reduction, kind: str) -> bytes:
    """Draw a picture of this kind ("png"): the running loss where there is one, and bars otherwise."""
    figure = Figure(figsize=(8.0, 4.5), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)
    if history is not None and history.points:
        _running(axes, results, history)
    else:
        _bars(figure, axes, results, reduction)
    content = io.BytesIO()
    figure.savefig(content, format=kind)
    return content.getvalue()


def _title(axes: Axes, title: str, subtitle: str) -> None:
    lines = textwrap.wrap(subtitle, LETTERS)
    axes.set_title(title, loc="left", fontweight="bold", fontsize=12, pad=10 + 12 * len(lines))
    axes.annotate(
        "\n".join(lines), (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=GREY
    )


def _running(axes: Axes, results: Results, history: History) -> None:
    rows = [point.rows for point in history.points]
    low, high = math.inf, -math.inf
    for i, name in enumerate(results.accumulators):
        losses = [_finite(point.losses[i]) for point in history.points]
        errors = [_finite(point.errors[i], 0.0) for point in history.points]
        under = [loss - error for loss, error in zip(losses, errors, strict=True)]
        over = [loss + error for loss, error in zip(losses, errors, strict=True)]
        colour = COLOURS[i % len(COLOURS)]
        axes.fill_between(rows, under, over, color=colour, alpha=0.2, linewidth=0)
        axes.plot(rows, losses, color=colour, linewidth=1.6, label=_in_legend(name, history, i))
        settled = [i for i, row in enumerate(rows) if row >= SETTLED * rows[-1] and math.isfinite(losses[i])]
        low = min([low, *(under[i] for i in settled)])
        high = max([high, *(over[i] for i in settled)])
    if low < high:
        room = 0.06 * (high - low)
        axes.set_ylim(low - room, high + room)
    axes.set_xlim(0, rows[-1])
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.set_xlabel("rows")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.legend(frameon=False, loc="best")
    counts = total(results.first)
    skipped = f", {counts.skipped_count:,} skipped" if counts.skipped_count else ""
    subtitle = f"running {results.first.reduction} with its standard error; {counts.count:,} elements{skipped}"
    _title(axes, repr(results.first.loss), subtitle)


def _bars(figure: Figure, axes: Axes, results: Results, reduction: Reduction) -> None:
    labels, bars, counts = _rows(results)
    figure.set_size_inches(8.0, max(2.5, 1.4 + 0.26 * len(labels) * max(1.0, 0.6 * len(bars))))
    height = 0.8 / len(bars)
    for i, (name, accumulators) in enumerate(bars.items()):
        places = [row - 0.4 + (i + 0.5) * height for row in range(len(labels))]
        values = [accumulator.result(reduction) for accumulator in accumulators]
        widths = [_finite(value, 0.0) for value in values]
        for place, value in zip(places, values, strict=True):
            if not math.isfinite(value):  # has no bar
                axes.text(0, place, f" {value}", va="center", fontsize=8, color=GREY)
        colour = COLOURS[i % len(COLOURS)]
        axes.barh(places, widths, 0.92 * height, color=colour, alpha=0.85, label=name)
        if results.first.stderr:
            errors = [_finite(accumulator.standard_error(reduction)) for accumulator in accumulators]
            axes.errorbar(
                widths, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=1.2, capsize=min(3.0, 14 * height)
            )
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(labels)), [f"{count:,}" for count in counts], color=GREY, fontsize=8)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    subtitle = f"{reduction}{' with its standard error' if results.first.stderr else ''}; elements on the right"
    if isinstance(results.first, GroupedAccumulator):
        if len(results.first) > len(labels):
            subtitle += f"; the {len(labels)} largest of {len(results.first):,} groups"
        if len(bars) == 1:
            overall = total(results.first).result(reduction)
            axes.axvline(_finite(overall), color=GREY, linewidth=1, linestyle=(0, (4, 3)))
            subtitle += f"; dashed: all, {overall:.6g}"
        axes.set_ylabel(", ".join(key_names(results)))
    if len(bars) > 1:
        axes.legend(frameon=False, loc="best")
    _title(axes, repr(results.first.loss), subtitle)


def _rows(results: Results) -> tuple[list[str], dict[str, list[Accumulator]], list[int]]:
    """Return the names of the rows, the accumulators of each for every bar in it, and how many elements they have."""
    first = results.first
    if not isinstance(first, GroupedAccumulator):
        accumulators = cast(list[Accumulator], list(results.accumulators.values()))
        return list(results.accumulators), {"": accumulators}, [accumulator.count for accumulator in accumulators]
    keys = largest(first, MOST_DRAWN)
    if any(isinstance(part, str) for key in keys for part in parts(key)):  # names have no order of their own
        keys.sort(key=lambda key: _sortable(first[key].result()), reverse=True)
    grouped = cast(dict[str, GroupedAccumulator], results.accumulators)
    bars = {name: [each[key] for key in keys] for name, each in grouped.items()}
    return [_label(key) for key in keys], bars, [first[key].count for key in keys]


def _finite(value: float, otherwise: float = math.nan) -> float:
    return value if math.isfinite(value) else otherwise


def _in_legend(name: str, history: History, i: int) -> str:
    last = history.points[-1]
    error = f" ± {last.errors[i]:.2g}" if math.isfinite(last.errors[i]) else ""
    return f"{_label(name)}  {last.losses[i]:.6g}{error}"


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _label(key: Any) -> str:
    text = ", ".join("(null)" if part is None else str(part) for part in parts(key))
    return (text if len(text) <= 32 else text[:31] + "…").replace("$", r"\$")
