"""Parquet files: through Polars, and through Arrow where a row group is too large to hold.

100 M rows, two float32 columns, 800 MB, two cores:

=====================  =======================  ========================
reader                 row groups of 1 M rows   one row group
=====================  =======================  ========================
Polars                 0.40 s, 166 MB           0.57 s, 1,109 MB
Arrow, not buffering   0.40 s, 119 MB           0.54 s, 141 MB
=====================  =======================  ========================

Polars decodes row groups side by side, Arrow only columns: with more cores Polars is faster. But Arrow hands on the
dictionary that a column of text is stored with, where Polars writes out every string.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from .columns import Selection
from .part import ERRORS, ROWS, Piece, local_identity, readable

LARGE = 1 << 25  # bytes of the columns of a row group: Polars holds several groups at once


class Parquet:
    """A local Parquet file."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self.identity = local_identity(path)
        self.size: int = self.identity["size"]
        if self.size == 0:
            raise ValueError(f"{path} is empty")
        try:
            metadata = pq.read_metadata(path)
            self.schema = pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema()
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error
        self.rows: int | None = metadata.num_rows
        self._groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        self._starts = [0, *itertools.accumulate(group.num_rows for group in self._groups)]
        self._names = [metadata.schema.column(i).name for i in range(metadata.num_columns)]

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """The rows from a row on."""
        arrow = bool(columns.text_keys) or self._is_large(columns.roots)
        frames = self._through_arrow(columns, row) if arrow else self._through_polars(columns, row)
        try:
            for frame in frames:
                row += frame.height
                yield Piece(frame, self.size * row // max(1, self.rows or 0))
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error

    def _is_large(self, columns: list[str]) -> bool:
        """Whether some row group is: by what its encodings say, or 8 bytes a number, for they may repeat numbers."""
        places = [i for i, name in enumerate(self._names) if name in columns]
        return any(
            max(8 * len(places) * group.num_rows, sum(group.column(i).total_uncompressed_size for i in places)) > LARGE
            for group in self._groups
        )

    def _through_polars(self, columns: Selection, row: int) -> Iterator[pl.DataFrame]:
        frame = pl.scan_parquet(self._path, glob=False, hive_partitioning=False).slice(row)
        yield from columns.of(frame).collect_batches(chunk_size=ROWS, engine="streaming")

    def _through_arrow(self, columns: Selection, row: int) -> Iterator[pl.DataFrame]:
        group = max(i for i, start in enumerate(self._starts) if start <= row) if row else 0
        skip = row - self._starts[group]
        keys = columns.text_keys
        with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20, read_dictionary=keys) as file:
            groups = list(range(group, len(self._starts) - 1))
            for batch in file.iter_batches(ROWS, row_groups=groups, columns=columns.roots):
                if skip < batch.num_rows:
                    yield columns.of(pl.DataFrame(batch.slice(skip)))
                skip = max(0, skip - batch.num_rows)


open_part = Parquet
