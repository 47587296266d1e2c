"""The running loss of a run: at most 1000 points, however long it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..accumulator import Accumulator

POINTS = 1000
FIRST_STEP = 128  # rows between the first points


class Point(NamedTuple):
    """The losses after so many rows."""

    rows: int
    losses: tuple[float, ...]  # for each of the predictions
    errors: tuple[float, ...]  # their standard errors; NaN where they were not asked for


class History:
    """The running loss, for `score(history=...)`: points at even distances, which double when points are many.

    Attributes
    ----------
    points : list of Point
        The rows read, and the loss and its standard error for each of the predictions, in their order.

    Examples
    --------
    >>> import streamloss
    >>> from streamloss.files import History
    >>> history = History()
    >>> _ = streamloss.score("tests/data/flights.parquet", labels="arr_delay", predictions="dep_delay", history=history)
    >>> history.points[-1].rows, history.points[-1].losses
    (336776, (357.6053472472552,))

    """

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.step = FIRST_STEP
        self._begin = 0

    def begin(self, rows: int, all_rows: int | None, kept: Any = None) -> None:
        """Begin after so many rows, or go on from what a checkpoint has kept."""
        if kept is not None:
            self.step, points = kept
            self.points = [Point(rows, tuple(losses), tuple(errors)) for rows, losses, errors in points]
        else:
            self.points = []
            self.step = FIRST_STEP if all_rows is None else max(FIRST_STEP, 2 * all_rows // POINTS)
        self._begin = rows

    @property
    def due(self) -> int:
        """The rows after which the next point is wanted: a multiple of the step, wherever batches and runs end."""
        last = self.points[-1].rows if self.points else self._begin
        return (last // self.step + 1) * self.step

    def add(self, rows: int, accumulators: Sequence[Accumulator]) -> None:
        """Add a point after so many rows, if there is none."""
        if self.points and self.points[-1].rows >= rows:
            return
        errors = (a.standard_error() if a.stderr else math.nan for a in accumulators)
        self.points.append(Point(rows, tuple(a.result() for a in accumulators), tuple(errors)))
        if len(self.points) >= POINTS:
            del self.points[::2]
            self.step *= 2

    def as_json(self) -> list[Any]:
        """Return the points as a checkpoint keeps them."""
        return [self.step, [list(point) for point in self.points]]
