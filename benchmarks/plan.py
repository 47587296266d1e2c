"""How much to measure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = Iterator[Row]


@dataclass(frozen=True)
class Plan:
    """Quick, for the assertions alone; as usual; or with the largest arrays and files as well."""

    quick: bool = False
    largest: bool = False

    def pick(self, quick: T, usual: T, largest: T | None = None) -> T:
        """The one of these that fits the plan."""
        if self.quick:
            return quick
        return largest if self.largest and largest is not None else usual


def progress(text: str) -> None:
    """Say on standard error what is being measured."""
    print(text, file=sys.stderr, flush=True)
