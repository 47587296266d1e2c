"""Texts on web servers: their bytes, by ranges."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from .origins import COMPRESSION, Compressed, Readable, Stream

WAIT = 30  # seconds for an answer
ATTEMPTS = 4  # to read the next bytes
PAUSE = 0.5  # seconds before another attempt, and twice and three times that
PARTIAL = 206  # the status of an answer to a request for a range
VERSION = ("etag", "last-modified")  # the headers that tell one version of a file from another
ENCODING = "content-encoding"
ENCODINGS: Mapping[str, str | None] = {"identity": None, "gzip": "gzip", "zstd": "zstd"}
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def has(url: str) -> bool:
    """Whether a web server has it, and not an object store."""
    return url.lower().startswith(("http://", "https://"))


class Served:
    """A file of lines on a web server."""

    def __init__(self, url: str) -> None:
        self.name, self.suffixes, self._head = url, suffixes(url), head(url)
        self.size = size(self._head)
        self.identity: Mapping[str, Any] = {"path": url, **self._head}
        encoding = self._head.get(ENCODING, "identity")
        if encoding not in ENCODINGS:
            raise ValueError(f"{url} comes in the encoding {encoding!r}, expected one of {', '.join(ENCODINGS)}")
        self._compression = COMPRESSION.get(self.suffixes[-1].lower()) or ENCODINGS[encoding]

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """Open it, decompressed."""
        with closing(Body(self.name, self._head)) as body:
            yield body if self._compression is None else Compressed(body, self._compression)


class Body(Readable):
    """The bytes of a file on a web server; a connection that breaks is made anew, from the next byte on."""

    closed = False  # as pyarrow asks of files

    def __init__(self, url: str, head: Mapping[str, str]) -> None:
        self._url, self._head, self._size = url, head, size(head)
        self._at = 0
        self._answer: Any = None

    def read(self, size: int, /) -> bytes:
        """Return at most that many bytes, none at the end."""
        failures = 0
        while self._at != self._size:
            reason: object = "the connection ended"
            try:
                self._answer = self._answer or self._ask()
                data: bytes = self._answer.read(size)
            except (OSError, HTTPException) as error:
                data, reason = b"", _closed(error)
            else:
                if data or self._size is None:  # without a size, the end of the answer is that of the file
                    self._at += len(data)
                    return data
            self.close()
            failures += 1
            if failures == ATTEMPTS:
                raise OSError(f"{reason}, at byte {self._at} of {self._size}")
            time.sleep(PAUSE * (failures - 1))  # at first none: a server may send less than it was asked for
        return b""

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

    def _has_another_size(self, sent: re.Match[str] | None) -> bool:
        """Whether an answer's range is one of a file that is shorter or longer than it was."""
        return sent is not None and sent[2] != "*" and self._size is not None and int(sent[2]) != self._size

    def _ask(self) -> Any:
        """Ask for all bytes from here on, and learn how many there are."""
        answer = urllib.request.urlopen(_request(self._url, {"Range": f"bytes={self._at}-"}), timeout=WAIT)
        known = (name for name in (*VERSION, ENCODING) if name in self._head and name in answer.headers)
        sent = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if self._at and (sent is None or int(sent[1]) != self._at):
            error = no_ranges(self._url)
        elif any(answer.headers[name] != self._head[name] for name in known) or self._has_another_size(sent):
            error = ValueError(f"{self._url} was changed while it was read")
        else:
            if self._size is None and sent is not None and sent[2] != "*":
                self._size = int(sent[2])
            elif self._size is None and sent is None and "Content-Length" in answer.headers:
                self._size = int(answer.headers["Content-Length"])
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
    try:
        with urllib.request.urlopen(_request(url, {}, "HEAD"), timeout=WAIT) as answer:
            kept = ("content-length", ENCODING, *VERSION)
            found = {name: answer.headers[name] for name in kept if answer.headers[name]}
        if int(found.get("content-length") or 0) > 1:
            with urllib.request.urlopen(_request(url, {"Range": "bytes=0-0"}), timeout=WAIT) as answer:
                if answer.status != PARTIAL:
                    raise no_ranges(url)
        return found
    except (OSError, HTTPException) as error:
        raise OSError(f"{url} cannot be reached: {_closed(error)}") from error


def _request(url: str, headers: Mapping[str, str], method: str = "GET") -> urllib.request.Request:
    """Return a request; spaces and letters beyond ASCII are written as URLs have them."""
    return urllib.request.Request(quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers=dict(headers), method=method)


def _closed(error: Exception) -> Exception:
    """Close the answer that an error may be."""
    if isinstance(error, HTTPError):
        error.close()
    return error
