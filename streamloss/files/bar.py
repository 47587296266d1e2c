"""The progress bar, on a terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from .report import total
from .scoring import Progress

PAUSE = 20  # between two running losses, at least so many times as long as computing the last one took
SECONDS = 0.25  # from one running loss to the next, at least


class Bar:
    """Rows, bytes, rate, remaining time and the running loss; call it with each `Progress`."""

    def __init__(self) -> None:
        # On a narrow terminal, the bar gets shorter first, and then the text.
        percent = TaskProgressColumn(table_column=Column(no_wrap=True, min_width=len("100%")))
        remaining = TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=len("0:00:00")))
        text = TextColumn("{task.description}", markup=False)
        columns = [BarColumn(bar_width=20), percent, remaining, text]
        self._bars = Bars(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bars.add_task("", total=None)
        self._loss, self._next = "", 0.0
        self._begin: float | None = None
        self._first = 0

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Show how far the run has come; rows that an earlier run has read do not count for the rate."""
        now = time.monotonic()
        if self._begin is None:
            self._begin, self._first = now, progress.rows
        if now >= self._next:
            totals = [total(each) for each in progress.results.accumulators.values()]
            self._loss = "loss " + " ".join(f"{each.result():.6g}" for each in totals) if totals[0].count else ""
            self._next = now + max(SECONDS, PAUSE * (time.monotonic() - now))
        rate = (progress.rows - self._first) / max(now - self._begin, 1e-3)
        parts = [self._loss, f"{progress.rows:,} rows", f"{rate:,.0f}/s"]
        if progress.all_bytes is not None:
            parts.append(f"{filesize.decimal(progress.bytes)} of {filesize.decimal(progress.all_bytes)}")
        done, all_of_it = progress.rows, progress.all_rows
        if all_of_it is None and progress.all_bytes is not None:
            done, all_of_it = progress.bytes, progress.all_bytes
        self._bars.update(self._task, completed=done, total=all_of_it, description=", ".join(filter(None, parts)))
