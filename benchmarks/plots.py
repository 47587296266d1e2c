"""The two pictures of the README: the fraction of the roof against size, and the error against the number of elements.

Lines are labelled where they end, in their colours; streamloss is the dark one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .plan import Row

OURS = "#0b3d91"
OTHERS = ("#c2571a", "#2a8c6e", "#8e5ba6", "#b08a00", "#c23b6a", "#5f6b77", "#2b8cbe", "#7a5230")  # on white
GREY, INK = "#d9dde2", "#30363d"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 11,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlepad": 30,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.bottom": False,
    "ytick.minor.left": False,
    "ytick.major.size": 0,
    "grid.color": "#eceff2",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
}

Lines = dict[str, list[tuple[float, float]]]


def roof(rows: list[Row], path: Path) -> None:
    """The fraction of the read bandwidth against the number of pairs in an update."""
    lines = _lines(rows, "of the roof")
    axes = _axes("Fraction of the machine's read bandwidth", "mean squared error of float32 arrays in memory")
    axes.axhline(1.0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    start = min(x for points in lines.values() for x, _ in points)
    axes.annotate("as fast as memory can be read", (start, 1.0), xytext=(0, 4), textcoords="offset points", color=INK)
    _draw(axes, lines, lowest_gap=0.045)
    axes.set_ylim(0, max(1.1, 1.05 * max(y for points in lines.values() for _, y in points)))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("pairs of label and prediction in one call")
    _save(axes, path)


def drift(rows: list[Row], path: Path) -> None:
    """The relative error of streamed metrics against the number of elements; streamloss as its bound, 2**-53."""
    lines = _lines(rows, "relative error")
    axes = _axes("Relative error of a streamed mean squared error", "float32 data in batches of 256")
    axes.set_yscale("log")
    lines = {name: [(x, max(y, 1e-18)) for x, y in points] for name, points in lines.items()}
    _draw(axes, lines, lowest_gap=0.045)
    axes.axhline(2.0**-53, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    start = min(x for points in lines.values() for x, _ in points)
    axes.annotate(
        "half a unit in the last place of a float64",
        (start, 2.0**-53),
        xytext=(0, 4),
        textcoords="offset points",
        color=INK,
    )
    axes.set_ylim(1e-18, 1e-3)
    axes.set_yticks([1e-18, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3])
    axes.set_xlabel("elements so far")
    _save(axes, path)


def _lines(rows: list[Row], value: str) -> Lines:
    lines: Lines = {}
    for row in rows:
        if value in row:
            lines.setdefault(row["library"], []).append((row["elements"], row[value]))
    return lines


def _axes(title: str, subtitle: str) -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update(STYLE)
    from matplotlib import pyplot

    axes = pyplot.figure(figsize=(9, 5), layout="constrained").add_subplot()
    axes.set_title(title)
    axes.text(0, 1.03, subtitle, transform=axes.transAxes, color="#6a737d")
    axes.set_xscale("log", base=10)
    return axes


def _draw(axes: Any, lines: Lines, lowest_gap: float) -> None:
    """Draw lines and write their names behind their ends, moved apart by a part of the height where they would meet."""
    ends = []
    others = iter(OTHERS * len(lines))
    for name, points in lines.items():
        ours = name == "streamloss"
        colour = OURS if ours else next(others)
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=3 if ours else 1.6, zorder=3 if ours else 2)
        axes.plot(*points[-1], "o", color=colour, markersize=6 if ours else 4, zorder=3)
        ends.append((points[-1], name, colour, "bold" if ours else "normal"))
    axes.figure.canvas.draw()
    axes.figure.draw_without_rendering()
    _label(axes, ends, lowest_gap)


def _label(axes: Any, ends: list[tuple[tuple[float, float], str, str, str]], gap: float) -> None:
    to_axes = axes.transAxes.inverted()
    placed = [(to_axes.transform(axes.transData.transform(end))[1], *rest) for end, *rest in ends]
    heights: list[float] = []
    for height, *_ in sorted(placed):
        heights.append(max(height, heights[-1] + gap) if heights else height)
    for height, (_, name, colour, weight) in zip(heights, sorted(placed), strict=True):
        axes.text(1.02, height, name, color=colour, weight=weight, va="center", transform=axes.transAxes)


def _save(axes: Any, path: Path) -> None:
    from matplotlib import pyplot

    axes.figure.savefig(path, dpi=160)
    pyplot.close(axes.figure)
