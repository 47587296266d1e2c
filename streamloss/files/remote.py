"""Files behind a URL, as far as Polars reads them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from .columns import Selection
from .delimited import INFERRED, MISSING, SEPARATORS
from .formats import TABLES, ending
from .part import ERRORS, ROWS, Piece, readable

WAIT = 30  # seconds for the answer to a HEAD request


class Remote:
    """A file of an object store or a web server."""

    def __init__(self, url: str) -> None:
        self.name, self._url = url, url
        which = ending(urlsplit(url).path) or ""
        self._kind, self._ending = TABLES[which], which
        self.rows: int | None = None
        self._head = _head(url)
        self.size = int(self._head.get("content-length") or 0)
        try:
            self.schema = self._scan({}).collect_schema()
            if self._kind in ("parquet", "ipc"):
                self.rows = int(self._scan({}).select(pl.len()).collect(engine="streaming").item())
        except (*ERRORS, OSError) as error:
            raise readable(url, error) from error

    @property
    def identity(self) -> Mapping[str, Any]:
        """The URL, the number of rows, and what the server says of the file's version."""
        return {"path": self._url, "rows": self.rows, **self._head}

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the rows from a row on."""
        numbers = {name: pl.Float64 for name in columns.numbers if self.schema[name] != pl.Boolean}
        try:
            lazy = columns.of(self._scan(numbers).slice(row))
            for frame in lazy.collect_batches(chunk_size=ROWS, engine="streaming"):
                row += frame.height
                yield Piece(frame, self.size * row // self.rows if self.rows else 0)
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error

    def _scan(self, numbers: Mapping[str, Any]) -> pl.LazyFrame:
        if self._kind == "parquet":
            return pl.scan_parquet(self._url, hive_partitioning=False)
        if self._kind == "ipc":
            return pl.scan_ipc(self._url, hive_partitioning=False)
        if self._kind == "ndjson":
            return pl.scan_ndjson(self._url, infer_schema_length=INFERRED, schema_overrides=numbers)
        return pl.scan_csv(
            self._url,
            separator=SEPARATORS["." + self._ending.split(".")[1]],
            null_values=MISSING,
            infer_schema_length=INFERRED,
            schema_overrides=numbers,
        )


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
