"""Files behind a URL, as far as Polars reads them; of texts it brings the lines."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from .columns import Selection
from .delimited import Delimited
from .formats import TABLES, ending
from .ndjson import NDJSON
from .origins import COMPRESSION, Forward, Stream
from .part import ERRORS, ROWS, Part, Piece, readable

WAIT = 30  # seconds for the answer to a HEAD request
LINES = 1 << 14  # of a text that are held at once, besides those that Polars has read ahead
TEXTS: Mapping[str, Callable[[RemoteText], Part]] = {"delimited": Delimited, "ndjson": NDJSON}


def open_remote(url: str) -> Part:
    """Open a file of an object store or a web server."""
    kind = TABLES[ending(urlsplit(url).path) or ""]
    if kind in TEXTS:
        return TEXTS[kind](RemoteText(url))
    return Remote(url, kind)


class Remote:
    """A file of Parquet or Arrow."""

    repeated = ()

    def __init__(self, url: str, kind: str) -> None:
        self.name, self._kind = url, kind
        self._head = _head(url)
        self.size = _size(self._head)
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
        scan = pl.scan_parquet if self._kind == "parquet" else pl.scan_ipc
        return scan(self.name, hive_partitioning=False)


class RemoteText:
    """A file of lines; the ends of lines are LF, whatever they are in the file."""

    def __init__(self, url: str) -> None:
        self.name, self.suffixes = url, PurePosixPath(urlsplit(url).path).suffixes
        head = _head(url)
        self._empty = _size(head) == 0  # nothing, of which there are no ranges to be asked for
        self.size = None if self.suffixes[-1].lower() in COMPRESSION else _size(head)
        self.identity = {"path": url, **head}

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """Open it, decompressed."""
        lines = pl.LazyFrame() if self._empty else pl.scan_lines(self.name, glob=False)
        yield Lines(lines.collect_batches(chunk_size=LINES, maintain_order=True, engine="streaming"))


class Lines(Forward):
    """Frames of lines, as bytes."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames, self._rest, self._read = frames, b"", 0

    def read(self, size: int, /) -> bytes:
        """Return at most that many bytes, none at the end."""
        parts, held = [self._rest], len(self._rest)
        while held < size and (frame := next(self._frames, None)) is not None:
            parts.append((frame.to_series().str.join("\n").item() + "\n").encode() if frame.height else b"")
            held += len(parts[-1])
        data = b"".join(parts)
        data, self._rest = data[:size], data[size:]
        self._read += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._read


def _size(head: Mapping[str, str]) -> int | None:
    return int(head["content-length"]) if "content-length" in head else None


def _head(url: str) -> dict[str, str]:
    """Return a web server's headers about the file's version; none for an object store, which only Polars reads."""
    if not url.lower().startswith(("http://", "https://")):
        return {}
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            kept = ("content-length", "etag", "last-modified")
            found = {name: answer.headers[name] for name in kept if answer.headers[name]}
        probe = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        if int(found.get("content-length") or 0) > 1:
            with urllib.request.urlopen(probe, timeout=WAIT) as answer:
                if answer.status != 206:
                    raise ValueError(f"the server of {url} does not support range requests, by which files are read")
        return found
    except OSError as error:
        raise OSError(f"{url} cannot be reached: {error}") from error
