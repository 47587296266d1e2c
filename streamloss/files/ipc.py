"""Arrow IPC and Feather files, record batch by record batch."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.ipc

from .columns import Selection
from .part import ERRORS, Piece, local_identity, readable, slices

MAGIC = b"ARROW1"  # of the file format; anything else should be the stream format


class Ipc:
    """A local Arrow file. A compressed record batch is held as a whole, an uncompressed one is not."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self.identity = local_identity(path)
        self.size: int = self.identity["size"]
        self.rows: int | None = None
        if self.size == 0:
            raise ValueError(f"{path} is empty")
        with path.open("rb") as file:
            self._is_file = file.read(len(MAGIC)) == MAGIC
            file.seek(0)
            try:
                if self._is_file:
                    self.rows = int(pl.scan_ipc(path, glob=False).select(pl.len()).collect().item())
                self.schema = pl.DataFrame(self._open(file).schema.empty_table()).schema
            except (*ERRORS, OSError) as error:
                raise readable(self.name, error) from error

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the rows from a row on."""
        try:
            with self._path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # unmapped when the last frame is gone
            reader = self._open(pa.BufferReader(pa.py_buffer(memory)), columns.roots)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if self._is_file else reader
            for frame in slices(batches, columns, row):
                row += frame.height
                yield Piece(frame, self.size * row // self.rows if self.rows else 0)
                if hasattr(memory, "madvise"):  # pages that have been read count as the process's memory
                    memory.madvise(mmap.MADV_DONTNEED)
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error

    def _open(self, file: Any, columns: list[str] | None = None) -> Any:
        reader = pa.ipc.open_file if self._is_file else pa.ipc.open_stream
        if columns is None:
            return reader(file)
        names = self.schema.names()
        return reader(file, options=pa.ipc.IpcReadOptions(included_fields=[names.index(name) for name in columns]))


open_part = Ipc
