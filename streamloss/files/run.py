"""One pass over a source, whose results and position change together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import reduce
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..accumulator import Accumulator
from ..arrays import NanFoundError, as_array
from ..chunks import as_floats
from .checkpoint import Checkpoint, Kept
from .history import History
from .losses_out import Writer
from .results import Results
from .source import Array, Batch, Position, Source


class Run:
    """A pass, from wherever its checkpoint says, to the end.

    Attributes
    ----------
    results : Results
        What has been found so far.
    position : Position
        How far the source has been read.

    """

    def __init__(self, source: Source, results: Results, history: History | None = None) -> None:
        self.source, self.results, self.history = source, results, history
        self.checkpoint: Checkpoint | None = None
        self.losses: Writer | None = None
        self.position = Position()
        self._whole = True  # whether results and position fit each other, as they do between batches

    def go(self, tell: Callable[[], object], name: str) -> None:
        """Read all that is left; after each batch `tell` is called."""
        try:
            done = self._resume()
        except BaseException:
            self._discard()
            raise
        if done:
            tell()
            return
        batches = self.source.batches(self.position)
        try:
            tell()
            for batch in batches:
                self._whole = False
                self._add(batch)
                self.position, self._whole = batch.end, True
                if self.checkpoint is not None and self.checkpoint.is_due:
                    self._save()
                tell()
            self.source.check_unchanged()
            if self.position.rows == 0:
                raise ValueError(f"{name} has no rows")
            self._finish()
        except BaseException as error:
            self._stop(error)
            raise
        finally:
            if isinstance(batches, Generator):  # a reader may have a thread, and files open
                batches.close()

    def _resume(self) -> bool:
        """Take up what an earlier run has left; return whether nothing is left to do."""
        loss, with_history = self.results.first.loss, self.history is not None
        kept = None if self.checkpoint is None else self.checkpoint.load(loss, with_history=with_history)
        if kept is not None:
            self.results.merge(kept.results)
            self.position = kept.position
        if self.history is not None:
            self.history.begin(self.position.rows, self.source.rows, None if kept is None else kept.history)
        if kept is not None and kept.finished:
            if self.losses is not None:
                self.losses.discard()
                _check_written(self.losses.path)
            return True
        if self.losses is not None:
            self.losses.begin(None if kept is None else kept.losses)
        return False

    def _save(self, *, finished: bool = False) -> None:
        if self.checkpoint is not None:
            history = None if self.history is None else self.history.as_json()
            losses = None if self.losses is None or finished else self.losses.keep()
            self.checkpoint.save(Kept(self.checkpoint.run, self.position, finished, self.results, history, losses))

    def _finish(self) -> None:
        if self.history is not None:
            self.history.add(self.position.rows, self._accumulators)
        if self.losses is not None:
            self._save()
        self._whole = False  # from here on, an interrupt may not save an earlier state
        if self.losses is not None:
            self.losses.finish()
        self._save(finished=True)
        if self.losses is not None:
            self.losses.discard()

    def _stop(self, error: BaseException) -> None:
        """Keep what can be kept after KeyboardInterrupt; leave nothing half written where nothing will go on."""
        if isinstance(error, KeyboardInterrupt) and self._whole and self.position.rows:
            self._save()
        self._discard()

    def _discard(self) -> None:
        """Remove the losses written so far, unless a checkpoint counts on them."""
        if self.losses is not None and (self.checkpoint is None or not self.checkpoint.path.exists()):
            self.losses.discard()

    @property
    def _accumulators(self) -> list[Accumulator]:
        return cast(list[Accumulator], list(self.results.accumulators.values()))

    def _add(self, batch: Batch) -> None:
        shape = tuple(batch.labels.shape)
        if self.results.first.nan == "omit" and len(batch.predictions) > 1:
            batch = batch._replace(predictions=on_same_rows(batch.predictions))
        losses = None
        if self.losses is not None:
            if not self._has_whole_rows(batch):
                raise ValueError(
                    f"losses_out: {self.losses.path} needs whole rows, and this source is read in parts of rows"
                )
            losses = np.empty((len(batch.predictions), *shape))
        for start, stop in self._pieces(batch):
            piece = _cut(batch, start, stop)
            self._update(piece, start, None if losses is None else losses[:, start:stop])
            rows = self.position.rows + stop if self._has_whole_rows(batch) else batch.end.rows
            if self.history is not None and rows >= self.history.due:
                self.history.add(rows, self._accumulators)
        if self.losses is not None and losses is not None:
            self.losses.add(losses, batch.by)

    def _has_whole_rows(self, batch: Batch) -> bool:
        """Whether a batch has whole rows: those of large arrays may come in parts, in the order of the file."""
        return batch.labels.ndim > 0 and batch.end.rows - self.position.rows == len(batch.labels)

    def _pieces(self, batch: Batch) -> Iterator[tuple[int, int]]:
        """Yield where to cut a batch for the points of the running loss; exact sums do not depend on the cuts."""
        start, rows = 0, len(batch.labels) if batch.labels.ndim else 1
        while start < rows:
            stop = rows
            if self.history is not None and self._has_whole_rows(batch):
                stop = min(rows, self.history.due - self.position.rows)
            yield start, stop
            start = stop

    def _update(self, piece: Batch, start: int, losses: Array | None) -> None:
        keys = {"by": piece.by if len(piece.by) > 1 else piece.by[0]} if piece.by else {}
        for i, (name, accumulator) in enumerate(self.results.accumulators.items()):
            out = None if losses is None else losses[i]
            try:
                accumulator.update(piece.labels, piece.predictions[i], piece.weights, out=out, **keys)
            except NanFoundError as error:
                column = name if error.argument == "predictions" else getattr(self.source.columns, error.argument)
                index = (start + error.index[0], *error.index[1:]) if error.index else ()
                raise ValueError(f"nan='raise': {column} has NaN or null in {piece.place(index)}") from None


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    rows = len(batch.labels) if batch.labels.ndim else 1
    if (start, stop) == (0, rows):
        return batch
    weights = batch.weights
    if weights is not None and weights.ndim and len(weights) == rows:
        weights = weights[start:stop]
    predictions = tuple(prediction[start:stop] for prediction in batch.predictions)
    return batch._replace(labels=batch.labels[start:stop], predictions=predictions, weights=weights)


def on_same_rows(predictions: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the predictions, NaN wherever one of them is NaN, and masked wherever one of them is."""
    values = [as_floats(as_array("predictions", prediction, [])) for prediction in predictions]
    omitted = reduce(np.logical_or, map(np.isnan, values))
    masked = reduce(np.logical_or, map(np.ma.getmask, predictions))
    if omitted.any():
        predictions = tuple(np.where(omitted, np.nan, value) for value in values)
    return tuple(np.ma.array(p, mask=masked) for p in predictions) if masked.any() else predictions


def _check_written(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} is gone, and the checkpoint says that it was written; remove both to begin anew")
