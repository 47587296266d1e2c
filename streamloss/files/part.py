"""One file of a table: what every format offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import polars as pl

from .columns import Column

ROWS = 1 << 20  # of a batch: 8 MB a column at the most


class Piece(NamedTuple):
    """Some rows of a file."""

    frame: pl.DataFrame
    bytes: int  # of the file that have been read up to the end of this piece, an estimate
    offset: int = 0  # where reading can go on, for a format that needs more than the number of rows


class Part(Protocol):
    """A file that has been opened and checked as far as its beginning and its end tell."""

    name: str
    size: int  # bytes
    schema: pl.Schema  # a column of which nothing is known is Null
    rows: int | None  # None where counting them would mean reading the file

    def pieces(self, columns: list[Column], row: int, offset: int) -> Iterator[Piece]:
        """The `selection` of the columns from a row on, whose offset is known where the format has one."""
        ...


def readable(name: str, error: BaseException) -> ValueError:
    """The reason why a file cannot be read, in one line without the reader's advice."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return ValueError(f"{name} cannot be read: {reason}")
