"""Where a text lies, and reading its bytes: of a file, which may be compressed; those behind URLs: `web`, `remote`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from .part import local_identity

AT_ONCE = 1 << 22  # bytes that are read to be passed over
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


class Stream(Protocol):
    """The bytes of a text, decompressed; files are streams."""

    def readinto(self, room: memoryview, /) -> int | None:
        """Fill the room, or a part of it; return how many bytes came, none at the end."""
        ...

    def seek(self, offset: int, /) -> object:
        """Go from the beginning to an offset in the decompressed text; EOFError where there is none."""
        ...

    def tell(self) -> int:
        """Return how many bytes of the file, compressed or not, have been read."""
        ...


class Origin(Protocol):
    """A file or a URL."""

    name: str
    size: int | None  # bytes, compressed or not; None where unknown
    suffixes: list[str]

    @property
    def identity(self) -> Mapping[str, Any]:
        """The properties, for JSON, by which a later run recognises the text."""
        ...

    def open(self) -> AbstractContextManager[Stream]:
        """Open it at its beginning."""
        ...


class Local:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.name, self.suffixes, self._path = str(path), path.suffixes, path
        self.identity = local_identity(path)
        self.size: int | None = self.identity["size"]

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """Open it, decompressed."""
        compression = COMPRESSION.get(self._path.suffix.lower())
        with self._path.open("rb", buffering=0) as file:
            yield file if compression is None else Compressed(file, compression)


class Readable(ABC):
    """A stream that gives its bytes as new objects."""

    @abstractmethod
    def read(self, size: int, /) -> bytes:
        """Return at most that many bytes, none at the end."""

    def readinto(self, room: memoryview, /) -> int:
        """Fill the room, or a part of it; return how many bytes came, none at the end."""
        data = self.read(len(room))
        room[: len(data)] = data
        return len(data)


class Forward(Readable):
    """A stream that can only be read on."""

    def seek(self, offset: int, /) -> None:
        """Read on to an offset."""
        while offset:
            passed = len(self.read(min(offset, AT_ONCE)))
            if passed == 0:
                raise EOFError("it ends before the position from which it should be read on")
            offset -= passed


class Compressed(Forward):
    """A file, decompressed."""

    def __init__(self, file: Stream, compression: str) -> None:
        self._file, self._stream = file, pa.CompressedInputStream(file, compression)

    def read(self, size: int, /) -> bytes:
        """Return at most that many bytes, none at the end."""
        data: bytes = self._stream.read(size)
        return data

    def tell(self) -> int:
        """Return how many bytes of the file have been read."""
        return self._file.tell()
