"""Parquet files: through Polars, but keys of text by the dictionaries that they are stored with.

Polars would write out every string. Arrow hands on the dictionaries, too, but takes longer than `dictionaries`, which
leaves to it what it does not read, and reads large row groups alone. 100 M rows by 20 strings, squared error of two
float32 columns, two cores, seconds:

==========  ============  =============  ============
written by  Polars alone  keys by Arrow  dictionaries
==========  ============  =============  ============
pyarrow     0.79          0.65           0.41
Polars      0.99          0.79           0.68
DuckDB      0.77          0.42           0.36
==========  ============  =============  ============

The chunks of Polars' batches are handed on one by one: to join them for NumPy took up to a quarter of the whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from .._threads import get_num_threads
from ..keys import Coded, timestamp, unite
from . import dictionaries
from .ahead import side_by_side
from .columns import Selection
from .part import ERRORS, ROWS, Piece, local_identity, readable

LARGE = 1 << 25  # bytes of a row group's columns from which it is read bit by bit: several would be read at once
CHUNK = 1 << 16  # rows: chunks of at least so many, on average, are handed on by themselves
NO_DICTIONARY = {"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"}
BUFFER = 1 << 20  # bytes of a column of a large row group that are read from the file at once


Texts: TypeAlias = Mapping[str, Coded]


class Parquet:
    """A local Parquet file."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self.identity = local_identity(path)
        self.size: int = self.identity["size"]
        if self.size == 0:
            raise ValueError(f"{path} is empty")
        try:
            metadata = self._metadata = pq.read_metadata(path)
            self.schema = pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema()
        except (*ERRORS, OSError) as error:
            raise readable(self.name, error) from error
        self.rows: int | None = metadata.num_rows
        self._groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        self._starts = [0, *accumulate(group.num_rows for group in self._groups)]
        if self._starts[-1] != self.rows:
            raise ValueError(f"{path} cannot be read: its row groups have {self._starts[-1]} rows, not {self.rows}")
        leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
        self._paths = [leaf.path for leaf in leaves]
        # A column a.b is not the field b of a column a, though both have the same path.
        self._places = {leaf.path: place for place, leaf in enumerate(leaves) if leaf.name == leaf.path}

    def pieces(self, columns: Selection, row: int, offset: int) -> Iterator[Piece]:
        """Yield the rows from a row on."""
        sizes = self._sizes(columns.roots)
        if max(sizes, default=0) > LARGE:
            pieces = self._bit_by_bit(columns, row)
        elif columns.text_keys:
            pieces = self._beside_texts(columns, row, sizes)
        else:
            pieces = (Piece(frame, 0) for frame in self._through_polars(columns, row))
        try:
            for piece in pieces:
                row += piece.frame.height
                yield piece._replace(bytes=self.size * row // max(1, self.rows or 0))
        except (*ERRORS, OSError, UnicodeDecodeError) as error:
            raise readable(self.name, error) from error

    def _sizes(self, columns: list[str]) -> list[int]:
        """Return the bytes of each row group by its metadata, at least 8 a number, as repeats may be stored once."""
        roots = [path if path in self.schema else path.partition(".")[0] for path in self._paths]
        places = [i for i, root in enumerate(roots) if root in columns]
        sizes = []
        for group in self._groups:
            chunks = [group.column(place) for place in places]
            for chunk in chunks if group.num_rows else ():
                self._check_place(chunk)
            sizes.append(max(8 * len(places) * group.num_rows, sum(chunk.total_uncompressed_size for chunk in chunks)))
        return sizes

    def _check_place(self, chunk: Any) -> None:
        """Refuse a column chunk that does not lie in the file, of which Polars would say more than one line."""
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and chunk.dictionary_page_offset > 0:  # some write 0 where there is none
            start = min(start, chunk.dictionary_page_offset)
        if not 0 < start <= start + chunk.total_compressed_size <= self.size:
            raise ValueError(f"{self.name} cannot be read: its column {chunk.path_in_schema} lies beyond its end")

    def _through_polars(self, columns: Selection, row: int, without: Collection[str] = ()) -> Iterator[pl.DataFrame]:
        frame = pl.scan_parquet(self._path, glob=False, hive_partitioning=False).slice(row)
        for batch in columns.of(frame, without).collect_batches(chunk_size=ROWS, engine="streaming"):
            yield from _as_it_lies(batch)

    def _bit_by_bit(self, columns: Selection, row: int) -> Iterator[Piece]:
        """Yield row group after row group, of which Arrow decodes several columns at once."""
        first, skip = self._find(row)
        groups = list(range(first, len(self._groups)))
        with self._opener(columns)(buffer_size=BUFFER) as file:
            for batch in file.iter_batches(ROWS, row_groups=groups, columns=columns.roots):
                if skip < batch.num_rows:
                    yield _piece(pa.Table.from_batches([batch.slice(skip)]), columns)
                skip = max(0, skip - batch.num_rows)

    def _beside_texts(self, columns: Selection, row: int, sizes: list[int]) -> Iterator[Piece]:
        """Yield batches of Polars with keys of text, which are read from several runs of row groups at once."""
        first, skip = self._find(row)
        starts = [skip] + [0] * len(self._groups)
        unfit: set[str] = set()  # which of them Arrow reads
        texts_of = partial(self._texts, columns.text_keys, unfit, self._opener(columns))
        calls = [partial(texts_of, *each) for each in zip(self._runs(first, sizes), starts, strict=False)]
        # Polars' own threads decode meanwhile, and one adds: more readers than that only wait, and make others wait.
        with closing(side_by_side(calls, max(1, get_num_threads() // 2))) as texts:
            yield from _joined(self._through_polars(columns, row, without=columns.text_keys), texts)

    def _texts(
        self, keys: list[str], unfit: set[str], open_file: Callable[..., Any], groups: list[int], skip: int
    ) -> Texts:
        """Read keys of text from some row groups, without the first `skip` rows."""
        texts = {key: coded for key in keys if key not in unfit and (coded := self._by_dictionaries(key, groups))}
        texts = {key: coded._replace(codes=coded.codes[skip:]) for key, coded in texts.items()}
        if left := [key for key in keys if key not in texts]:
            unfit.update(left)
            with open_file() as file:
                table = file.read_row_groups(groups, left, use_threads=False)
            texts |= {key: _by_dictionary(table.column(key).slice(skip)) for key in left}
        return texts

    def _by_dictionaries(self, key: str, groups: list[int]) -> Coded | None:
        place = self._places[key]
        chunks = [self._groups[group].column(place) for group in groups]
        rows = sum(self._groups[group].num_rows for group in groups)
        nullable = self._metadata.schema.column(place).max_definition_level > 0
        with self._path.open("rb", buffering=0) as file:
            return dictionaries.read(file, chunks, rows, nullable)

    def _opener(self, columns: Selection) -> Callable[..., Any]:
        """Return what opens the file for Arrow, which will read keys of text as codes where it can."""
        keys = [key for key in columns.text_keys if self._has_dictionary(key)]
        return partial(pq.ParquetFile, self._path, metadata=self._metadata, read_dictionary=keys)

    def _has_dictionary(self, key: str) -> bool:
        """Whether Arrow can read a column of text as codes: in some encodings it cannot."""
        place = self._places[key]
        return not any(NO_DICTIONARY & set(group.column(place).encodings) for group in self._groups)

    def _find(self, row: int) -> tuple[int, int]:
        """Return the row group that a row lies in, and how many of its rows come before."""
        group = bisect_right(self._starts, row) - 1
        return group, row - self._starts[group]

    def _runs(self, first: int, sizes: list[int]) -> Iterator[list[int]]:
        """Yield runs of row groups, from one on: of as many rows as a batch should have, and not large together."""
        run: list[int] = []
        rows = size = 0
        for group in range(first, len(self._groups)):
            rows, size = rows + self._groups[group].num_rows, size + sizes[group]
            if run and (rows > ROWS or size > LARGE):
                yield run
                run, rows, size = [], self._groups[group].num_rows, sizes[group]
            run.append(group)
        if run:
            yield run


def _as_it_lies(batch: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the chunks of a batch one by one unless they are small: NumPy would need a copy that joins them."""
    lengths = {tuple(column.chunk_lengths()) for column in batch.iter_columns()}
    sizes = lengths.pop()
    if lengths or batch.height < CHUNK * len(sizes):
        yield batch
        return
    start = 0
    for size in sizes:
        yield batch.slice(start, size)
        start += size


def _joined(frames: Iterator[pl.DataFrame], texts: Iterator[Texts]) -> Iterator[Piece]:
    """Join frames with the keys of the same rows, which come in other portions: a piece ends where either does."""
    keys: Texts = {}
    first = rows = 0  # of the keys: the next one, and how many there are
    for frame in frames:
        done = 0
        while done < frame.height:
            while first == rows:
                keys, first = next(texts, {}), 0
                if not keys:
                    return  # the caller counts the rows, and will notice
                rows = min(len(column.codes) for column in keys.values())
            size = min(frame.height - done, rows - first)
            here = {name: key._replace(codes=key.codes[first : first + size]) for name, key in keys.items()}
            yield Piece(frame if size == frame.height else frame.slice(done, size), 0, texts=here)
            done, first = done + size, first + size


def _piece(table: pa.Table, columns: Selection) -> Piece:
    texts = {name: _by_dictionary(table.column(name)) for name in columns.text_keys}
    frame = columns.of(pl.DataFrame(table.drop_columns([*texts])), without=texts)
    return Piece(frame, 0, texts=texts)


def _by_dictionary(texts: pa.ChunkedArray) -> Coded:
    """Encode keys of text by the dictionaries that they are stored with, joined to one, or by one that is made."""
    if not pa.types.is_dictionary(texts.type):
        texts = texts.dictionary_encode()
    for chunk in texts.chunks:  # joining looks up codes of each in another dictionary, whatever they are
        _check_codes(chunk)
    keys = texts.combine_chunks()
    values = [timestamp(text) for text in _valid(keys.dictionary)]
    if keys.null_count:
        return Coded(keys.indices.fill_null(-1).to_numpy(), values)
    return Coded(*unite(keys.indices.to_numpy(), values), complete=True)


def _check_codes(keys: pa.DictionaryArray) -> None:
    """Raise ArrowInvalid for codes beyond the dictionary."""
    if keys.null_count:
        keys.validate(full=True)
        return
    codes = keys.indices.to_numpy()  # the same check in a fifth of the time
    if codes.size and codes.view(f"u{codes.itemsize}").max() >= len(keys.dictionary):
        raise pa.ArrowInvalid(f"it is damaged: a column of text has codes beyond its {len(keys.dictionary)} values")


def _valid(texts: pa.Array) -> list[str]:
    texts.validate(full=True)
    return texts.to_pylist()


open_part = Parquet
