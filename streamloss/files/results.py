"""The results of a run, one accumulator for each of its predictions: how they are stored and merged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from .. import stored
from ..accumulator import Accumulator
from ..grouped import GroupedAccumulator
from ..losses import Formula, Loss

AnyAccumulator: TypeAlias = Accumulator | GroupedAccumulator
T = TypeVar("T")
CLASSES: dict[str, type[Accumulator] | type[GroupedAccumulator]] = {
    stored.ACCUMULATOR: Accumulator,
    stored.GROUPED: GroupedAccumulator,
}
SEVERAL = "predictions"  # the kind of a file with an accumulator for each of several


class Results(NamedTuple):
    """The results of a run, so far or in the end."""

    accumulators: dict[str, AnyAccumulator]  # by the names of the predictions
    by: tuple[str, ...] = ()  # the columns of the keys, where there are groups

    @property
    def first(self) -> AnyAccumulator:
        """The accumulator of the first prediction: all have the same loss and options."""
        return next(iter(self.accumulators.values()))

    def to_bytes(self) -> bytes:
        """Return all of it as bytes. For one prediction, `load` of the accumulator's class reads them, too."""
        names = {"predictions": list(self.accumulators), "by": list(self.by)}
        if len(self.accumulators) == 1:
            kind, header, words = stored.unpack(self.first.to_bytes())
            return stored.pack(kind, header | names, words)
        parts = [part.to_bytes() for part in self.accumulators.values()]
        return stored.pack(SEVERAL, names | {"sizes": [len(part) for part in parts]}, as_words(b"".join(parts)))

    @classmethod
    def from_bytes(cls, data: bytes, *, loss: Loss | Formula | None = None) -> Results:
        """Read what `to_bytes` wrote, here or of an accumulator; ValueError for anything else."""
        kind, header, words = stored.unpack(data)
        if kind in CLASSES:
            return cls(_named(header, [CLASSES[kind].from_bytes(data, loss=loss)]), _texts(header.get("by", [])))
        if kind != SEVERAL:
            raise ValueError(f"it is of kind {kind!r}, expected the state of an accumulator")
        whole, parts, start = words.astype("<i8").tobytes(), [], 0
        for size in header["sizes"]:
            part = whole[start : start + size]
            parts.append(CLASSES[stored.unpack(part)[0]].from_bytes(part, loss=loss))
            start += size
        return cls(_named(header, parts), _texts(header["by"]))

    def merge(self, other: Results) -> None:
        """Add what another run has found; ValueError where it is of another kind, before anything is added."""
        if list(self.accumulators) != list(other.accumulators):
            raise ValueError(
                f"the predictions differ: {', '.join(self.accumulators)} here, {', '.join(other.accumulators)} there"
            )
        if self.by != other.by or type(self.first) is not type(other.first):
            raise ValueError(f"the groups differ: {self.groups} here, {other.groups} there")
        if self.first.nan != other.first.nan:  # of one, NaN was left out, and of the other it was added
            raise ValueError(f"nan differs: {self.first.nan} here, {other.first.nan} there")
        for name, accumulator in self.accumulators.items():
            accumulator.merge(other.accumulators[name])  # type: ignore[arg-type]  # of the same type, as was checked

    @property
    def groups(self) -> str:
        """The columns of the groups' keys, in words."""
        return f"by {', '.join(self.by) or 'keys'}" if isinstance(self.first, GroupedAccumulator) else "none"


def read(path: Path, decode: Callable[[bytes], T]) -> T:
    """Read and decode a file; a ValueError names it."""
    try:
        return decode(stored.read(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None


def as_words(data: bytes) -> Any:
    """Return bytes as int64 words, filled up with zeros."""
    return np.frombuffer(data + bytes(-len(data) % 8), "<i8").astype(np.int64)


def _named(header: dict[str, Any], parts: list[AnyAccumulator]) -> dict[str, AnyAccumulator]:
    return dict(zip(_texts(header.get("predictions", ["predictions"])), parts, strict=True))


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(str, values))
