"""The two pictures of the README: the fraction of the roof against size, and the error against the number of elements.

Lines are named where they end, in their colours. Libraries whose lines coincide share one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from .plan import Row

INK, FAINT, GRID = "#24292f", "#6a737d", "#eceff2"
COLOURS = {
    "streamloss": "#0b3d91",
    "streamloss, update": "#0b3d91",
    "streamloss, one shot": "#5b86d0",
    "NumPy": "#c2571a",
    "NumPy, in blocks": "#c2571a",
    "NumPy, as most write it": "#8c6d5a",
    "torch": "#2a8c6e",
    "Polars": "#8e5ba6",
    "DuckDB": "#b08a00",
    "scikit-learn": "#c23b6a",
    "torchmetrics": "#5f6b77",
    "keras": "#2b8cbe",
}
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 28,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "grid.color": GRID,
    "xtick.color": INK,
    "xtick.minor.size": 0,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
GAP = 0.048  # of the height, from one name to the next


class Line(NamedTuple):
    """A name and its points."""

    name: str
    points: list[tuple[float, float]]

    @property
    def colour(self) -> str:
        """That of the library that it is named after first."""
        return COLOURS.get(self.name.partition("\n")[0], FAINT)


def roof(rows: list[Row], path: Path) -> None:
    """The fraction of the read bandwidth against the number of pairs in an update."""
    lines = _lines(rows, "of the roof")
    axes = _axes("Fraction of the read bandwidth", "mean squared error of two float32 arrays in memory")
    axes.set_ylim(0, max(1.1, 1.05 * max(y for line in lines for _, y in line.points)))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("pairs of label and prediction")
    _draw(axes, lines)
    _mark(axes, 1.0, "as fast as this machine reads memory")
    _save(axes, path)


def drift(rows: list[Row], path: Path) -> None:
    """The relative error of streamed metrics against the number of elements."""
    lines = _lines(rows, "relative error")
    axes = _axes("Relative error of a mean squared error", "float32 pairs, fed in batches of 256")
    axes.set_yscale("log")
    axes.set_ylim(1e-18, 1e-3)
    axes.set_yticks([1e-18, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3])
    axes.set_xlabel("pairs so far")
    _draw(axes, lines)
    _mark(axes, 2.0**-53, "half a unit in the last place of a float64")
    _save(axes, path)


def _lines(rows: list[Row], value: str) -> list[Line]:
    """The lines; one that is the beginning of another is merged with it."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if value in row:
            points.setdefault(row["library"], []).append((row["elements"], row[value]))
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name in sorted(points, key=lambda name: -len(points[name])):
        mine = tuple(points[name])
        same = next((other for other in names if other[: len(mine)] == mine), mine)
        names.setdefault(same, []).append(name)
    return [Line("\n".join(together), list(shared)) for shared, together in names.items()]


def _axes(title: str, subtitle: str) -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    with mpl.rc_context(STYLE):
        axes = pyplot.figure(figsize=(9.5, 5)).add_axes((0.075, 0.12, 0.68, 0.72))
        axes.set_title(title)
        axes.text(0, 1.035, subtitle, transform=axes.transAxes, color=FAINT, fontsize=11)
        axes.set_xscale("log", base=10)
        axes.minorticks_off()
    return axes


def _draw(axes: Any, lines: list[Line]) -> None:
    for line in lines:
        ours = line.name.startswith("streamloss")
        axes.plot(
            *zip(*line.points, strict=True),
            color=line.colour,
            linewidth=3 if ours else 1.7,
            zorder=3 if ours else 2,
            solid_capstyle="round",
        )
    _name(axes, lines)


def _name(axes: Any, lines: list[Line]) -> None:
    """Write the names to the right of the axes, as high as the lines end, or above the name below."""
    to_axes = axes.transData + axes.transAxes.inverted()
    top = 0.0  # of the name below
    for height, line in sorted((to_axes.transform(line.points[-1])[1], line) for line in lines):
        half = GAP / 2 * (1 + line.name.count("\n"))
        height = max(height, top + half)
        top = height + half
        axes.text(
            1.02,
            height,
            line.name,
            color=line.colour,
            weight="bold" if line.name.startswith("streamloss") else "normal",
            size=11,
            va="center",
            transform=axes.transAxes,
        )


def _mark(axes: Any, height: float, text: str) -> None:
    """A dashed line across, with its meaning on it."""
    axes.axhline(height, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    place = axes.get_yaxis_transform()
    axes.annotate(
        text, (0.005, height), xycoords=place, xytext=(0, 5), textcoords="offset points", color=INK, fontsize=9.5
    )


def _save(axes: Any, path: Path) -> None:
    from matplotlib import pyplot

    axes.figure.savefig(path, dpi=160)
    pyplot.close(axes.figure)
