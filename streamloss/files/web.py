"""Texts on web servers: their bytes, by ranges."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from .origins import COMPRESSION, Compressed, Stream

WAIT = 30  # seconds for an answer
ATTEMPTS = 4  # to read the next bytes
PAUSE = 0.5  # seconds before another attempt, and twice and three times that
PARTIAL = 206  # the status of an answer to a request for a range
VERSION = ("etag", "last-modified")  # the headers that tell one version of a file from another


def has(url: str) -> bool:
    """Whether a web server has it, and not an object store."""
    return url.lower().startswith(("http://", "https://"))


class Text:
    """A file of lines on a web server."""

    def __init__(self, url: str) -> None:
        self.name, self.suffixes, self._head = url, suffixes(url), head(url)
        self.size = size(self._head)
        self.identity: Mapping[str, Any] = {"path": url, **self._head}

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """Open it, decompressed."""
        compression = COMPRESSION.get(self.suffixes[-1].lower())
        with closing(Body(self.name, self._head)) as body:
            yield body if compression is None else Compressed(body, compression)


class Body:
    """The bytes of a file on a web server; a connection that breaks is made anew, from the next byte on."""

    closed = False  # as pyarrow asks of files

    def __init__(self, url: str, head: Mapping[str, str]) -> None:
        self._url, self._head, self._size = url, head, size(head)
        self._at = 0
        self._answer: Any = None

    def read(self, size: int, /) -> bytes:
        """Return at most that many bytes, none at the end."""
        reason: object = "the connection ended"
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE * attempt)
            if self._at == self._size:
                return b""
            try:
                self._answer = self._answer or self._ask()
                data: bytes = self._answer.read(size)
            except (OSError, HTTPException) as error:
                reason = error
            else:
                self._at += len(data)
                if data or self._size is None:
                    return data
            self.close()
        raise OSError(f"{reason}, at byte {self._at} of {self._size}")

    def seek(self, offset: int, /) -> None:
        """Go to an offset."""
        if self._size is not None and offset > self._size:
            raise EOFError("it ends before the position from which it should be read on")
        self.close()
        self._at = offset

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._at

    def close(self) -> None:
        """Close the connection."""
        if self._answer is not None:
            self._answer.close()
        self._answer = None

    def _ask(self) -> Any:
        """Ask for all bytes from here on."""
        request = urllib.request.Request(self._url, headers={"Range": f"bytes={self._at}-"})
        answer = urllib.request.urlopen(request, timeout=WAIT)
        known = (name for name in VERSION if name in self._head and name in answer.headers)
        if answer.status != PARTIAL and self._at:
            error = no_ranges(self._url)
        elif any(answer.headers[name] != self._head[name] for name in known):
            error = ValueError(f"{self._url} was changed while it was read")
        else:
            return answer
        answer.close()
        raise error


def no_ranges(url: str) -> ValueError:
    """Return the error for a server that cannot send a part of a file."""
    return ValueError(f"the server of {url} does not support range requests, by which files are read")


def suffixes(url: str) -> list[str]:
    """Return the endings of the file's name."""
    return PurePosixPath(urlsplit(url).path).suffixes


def size(head: Mapping[str, str]) -> int | None:
    """Return the number of bytes, None where the server does not say it."""
    return int(head["content-length"]) if "content-length" in head else None


def head(url: str) -> dict[str, str]:
    """Return the headers about the file's version; ValueError if the server does not support ranges."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            found = {name: answer.headers[name] for name in ("content-length", *VERSION) if answer.headers[name]}
        probe = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        if int(found.get("content-length") or 0) > 1:
            with urllib.request.urlopen(probe, timeout=WAIT) as answer:
                if answer.status != PARTIAL:
                    raise no_ranges(url)
        return found
    except OSError as error:
        raise OSError(f"{url} cannot be reached: {error}") from error
