"""Arrays in .npz files, read from beginning to end as they are decompressed."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .arrays import Streamed
from .members import chosen
from .npy import header

DISCARD = 1 << 20  # bytes that are passed over at a time
# What zipfile raises for damaged members; NotImplementedError is for a method of compression that does not exist.
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


class Member(Streamed):
    """An array that is read forwards; for a step back, it is read from its beginning again."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._file: zipfile.ZipFile | None = None
        self._stream: IO[bytes] | None = None
        self._at = 0  # elements read of the stream
        try:
            self.shape, fortran, self.dtype = self._begin()
        finally:
            self.close()
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which are never unpickled")
        self.order: Any = "F" if fortran and len(self.shape) > 1 else "C"

    def again(self) -> Member:
        """Return the same array, to be read from its beginning."""
        return Member(self._path, self._name)

    def close(self) -> None:
        """Close the file; what is read next is read from its beginning."""
        for each in (self._stream, self._file):
            if each is not None:
                each.close()
        self._stream = self._file = None

    def __getitem__(self, box: tuple[Any, ...]) -> npt.NDArray[Any]:
        """Read a box that is contiguous in the file."""
        whole = (slice(None),) * (len(self.shape) - len(box))  # a box may have fewer slices than the array has axes
        cuts = [range(n)[cut] for n, cut in zip(self.shape, (*box, *whole), strict=True)]
        lengths = tuple(map(len, cuts))
        first, last = (self._place(cut[end] for cut in cuts) for end in (0, -1))
        if last - first + 1 != math.prod(lengths):
            raise ValueError("compressed arrays must all be in C order, or all in Fortran order")
        return self._elements(first, math.prod(lengths)).reshape(lengths, order=self.order)

    def _place(self, index: Iterable[int]) -> int:
        """Return how many elements come before the one of that index."""
        place = 0
        axes = list(zip(index, self.shape, strict=True))
        for i, length in axes if self.order == "C" else axes[::-1]:
            place = place * length + i
        return place

    def _begin(self) -> Any:
        self.close()
        self._file, self._at = zipfile.ZipFile(self._path), 0
        self._stream = self._file.open(self._name)
        return header(self._stream)

    def _elements(self, first: int, count: int) -> npt.NDArray[Any]:
        try:
            if self._stream is None or first < self._at:
                self._begin()
            assert self._stream is not None
            size = self.dtype.itemsize
            ahead = (first - self._at) * size
            while ahead:
                ahead -= len(_exactly(self._stream, min(ahead, DISCARD)))
            values = np.frombuffer(_exactly(self._stream, count * size), self.dtype)
            self._at = first + count
            if self._at == math.prod(self.shape) and self._stream.read(1):  # reading at the end compares the checksum
                raise ValueError("it goes on after its last element")
        except DAMAGED as error:
            raise ValueError(f"it is damaged: {error}") from error
        return values


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("it ends too early")
    return data


def open_array(path: Path, member: str | None) -> Member:
    """Open an array of the file."""
    try:
        with zipfile.ZipFile(path) as file:
            members = {name.removesuffix(".npy"): name for name in file.namelist()}
    except DAMAGED as error:
        raise ValueError(f"{path} is no readable .npz file: {error}") from error
    name = chosen(path, member, list(members))
    try:
        return Member(path, members[name])
    except Exception as error:  # a damaged header can raise anything
        raise ValueError(f"{path}:{name} is no readable array: {' '.join(str(error).split())}") from error
