"""Files behind a URL, as far as Polars reads them. Texts are read as those in files are, wherever their bytes lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from . import web
from .columns import Selection
from .delimited import Delimited
from .formats import TABLES, ending
from .ndjson import NDJSON
from .origins import Forward, Origin, Stream
from .part import ERRORS, ROWS, Part, Piece, readable

LINES = 1 << 16  # of a text that are held at once, besides those that Polars has read ahead
TEXTS: Mapping[str, Callable[[Origin], Part]] = {"delimited": Delimited, "ndjson": NDJSON}
SCANS: Mapping[str, Callable[..., pl.LazyFrame]] = {"parquet": pl.scan_parquet, "ipc": pl.scan_ipc}


def open_remote(url: str) -> Part:
    """Open a file of an object store or a web server."""
    kind = TABLES[ending(urlsplit(url).path) or ""]
    if kind in TEXTS:
        return TEXTS[kind](web.Served(url) if web.has(url) else StoreText(url))
    if kind in SCANS:
        return Remote(url, kind)
    raise ValueError(f"{url}: files of this kind are read from disk only")


class Remote:
    """A file of Parquet or Arrow."""

    def __init__(self, url: str, kind: str) -> None:
        self.name, self._kind = url, kind
        self._head = web.head(url) if web.has(url) else {}  # of an object store Polars tells nothing
        self.size = web.size(self._head)
        try:
            self.schema = self._scan().collect_schema()
            self.rows: int | None = int(self._scan().select(pl.len()).collect(engine="streaming").item())
        except (*ERRORS, OSError) as error:
            raise readable(url, error) from error

    @property
    def identity(self) -> Mapping[str, Any]:
        """The URL, the number of rows, and what the server says of the file's version."""
        return {"path": self.name, "rows": self.rows, **self._head}

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the rows from a row on."""
        try:
            lazy = columns.of(self._scan().slice(row))
            for frame in lazy.collect_batches(chunk_size=ROWS, engine="streaming"):
                row += frame.height
                yield Piece(frame, (self.size or 0) * row // self.rows if self.rows else 0)
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error

    def _scan(self) -> pl.LazyFrame:
        return SCANS[self._kind](self.name, hive_partitioning=False)


class StoreText:
    """A file of lines in an object store, whose lines Polars brings; they end in LF, whatever they end in there."""

    size: int | None = None
    identity: Mapping[str, Any]

    def __init__(self, url: str) -> None:
        self.name, self.suffixes, self.identity = url, web.suffixes(url), {"path": url}
        self._scan = pl.scan_lines(url, glob=False)
        try:
            self._first = self._scan.head(LINES).collect(engine="streaming")
        except (*ERRORS, OSError) as error:
            raise readable(url, error) from error

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """Open it, decompressed."""
        yield Lines(self._frames())

    def _frames(self) -> Iterator[pl.DataFrame]:
        yield self._first  # what types are inferred from; Polars would read far ahead of it
        if self._first.height == LINES:
            rest = self._scan.slice(LINES)
            yield from rest.collect_batches(chunk_size=LINES, maintain_order=True, engine="streaming")


class Lines(Forward):
    """Frames of lines, as bytes."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames, self._rest, self._read = frames, memoryview(b""), 0

    def read(self, size: int, /) -> bytes:
        """Return at most that many bytes, none at the end."""
        if not self._rest and (frame := next(self._frames, None)) is not None and frame.height:
            self._rest = memoryview((frame.to_series().str.join("\n").item() + "\n").encode())
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        self._read += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._read
