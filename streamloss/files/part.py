"""One file of a table: what every format offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import polars as pl
import pyarrow as pa

from ..keys import Coded
from .columns import Selection, one_line
from .paths import state_of

ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException)
ROWS = 1 << 20  # of a batch: 8 MB a column at the most


class Piece(NamedTuple):
    """Some rows of a file."""

    frame: pl.DataFrame
    bytes: int  # of the file that have been read up to the end of this piece, an estimate
    offset: int = 0  # where reading can go on, for a format that needs more than the number of rows
    texts: Mapping[str, Coded] = MappingProxyType({})  # the keys that the frame lacks


class Part(Protocol):
    """A file that has been opened, and checked as far as its beginning and its end allow."""

    name: str
    schema: pl.Schema  # a column of which nothing is known is Null
    rows: int | None  # None where counting them would mean reading the file

    @property
    def size(self) -> int | None:
        """The number of bytes, None where it is unknown."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """The properties, for JSON, by which a later run recognises the file and its content."""
        ...

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the columns from a row on, whose offset is known where the format has one."""
        ...


def local_identity(path: Path) -> Mapping[str, Any]:
    """Return where a file lies, its size and when it was changed."""
    return {"path": str(path.resolve()), **state_of(str(path))}


def readable(name: str, error: BaseException) -> ValueError:
    """Return an error that says why a file cannot be read, in one line without the reader's advice."""
    return ValueError(f"{name} cannot be read: {one_line(error)}")


def slices(batches: Iterable[Any], columns: Selection, skip: int = 0) -> Iterator[pl.DataFrame]:
    """Yield the selected columns of record batches, at most ROWS rows at a time, without the first `skip` rows."""
    for batch in batches:
        for start in range(skip, batch.num_rows, ROWS):
            yield columns.of(pl.DataFrame(batch.select(columns.roots).slice(start, ROWS)))
        skip = max(0, skip - batch.num_rows)
