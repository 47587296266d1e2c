"""Keys of text by the dictionaries of Parquet: what is read here is what Arrow reads, or nothing."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamloss
from streamloss.files import dictionaries
from streamloss.files.dictionaries import NONE, PADDING, compiled, read


def written(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file


def column(file, place=0):
    """The arguments of `read` for a column of a whole file."""
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(place) for group in groups]
    return file, chunks, metadata.num_rows, metadata.schema.column(place).max_definition_level > 0


def texts_of(coded):
    return [coded.values[code] for code in coded.codes.tolist()]


runs = st.lists(st.tuples(st.sampled_from(["AA", "", "ä€😀", "UA " * 99, None, "B6"]), st.integers(1, 90)), max_size=30)


@given(
    runs=runs,
    compression=st.sampled_from(["none", "snappy", "zstd"]),
    page=st.sampled_from([1, 64, 1 << 20]),
    group=st.sampled_from([7, 100, 1 << 20]),
    statistics=st.booleans(),
)
def test_what_arrow_writes_is_read(runs, compression, page, group, statistics):
    texts = [text for text, count in runs for _ in range(count)]
    table = pa.table({"key": pa.array(texts, pa.string())})
    options = {"compression": compression, "data_page_size": page, "write_batch_size": 16, "row_group_size": group}
    coded = read(*column(written(table, **options, write_statistics=statistics)))
    assert texts_of(coded) == texts
    assert coded.codes.dtype == np.uint8
    assert len(set(coded.values)) == len(coded.values)


@pytest.mark.parametrize("different", [1, 2, 3, 17, 250, NONE])
@pytest.mark.parametrize("nulls", [False, True])
def test_columns_that_polars_and_arrow_write(tmp_path, different, nulls):
    rng = np.random.default_rng(different)
    different = min(different, NONE - nulls)
    texts = [f"key {i}" for i in [*range(different), *rng.integers(different, size=10_000).tolist()]]
    if nulls:
        texts = [None if hidden else text for text, hidden in zip(texts, rng.random(len(texts)) < 0.3, strict=True)]
        texts += [f"key {i}" for i in range(different)]
    frame = pl.DataFrame({"key": texts})
    frame.write_parquet(tmp_path / "polars.parquet", row_group_size=3_000)
    required = pa.schema([pa.field("key", pa.string(), nullable=nulls)])
    pq.write_table(pa.table({"key": texts}, schema=required), tmp_path / "arrow.parquet", row_group_size=3_000)
    for name in ("polars", "arrow"):
        with (tmp_path / f"{name}.parquet").open("rb") as file:
            assert texts_of(read(*column(file))) == texts


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ([f"key {i}" for i in range(NONE + 1)], {}),
        (["a", "b"], {"use_dictionary": False}),
        (["a", "b"], {"compression": "gzip"}),
        (["a", "b"], {"data_page_version": "2.0"}),
        ([f"{i:09}" for i in range(200)], {"dictionary_pagesize_limit": 100, "write_batch_size": 10}),
    ],
    ids=["many texts", "no dictionary", "gzip", "second version", "a dictionary that was given up"],
)
def test_the_rest_is_left_to_arrow(tmp_path, monkeypatch, texts, options):
    answers = []
    monkeypatch.setattr(dictionaries, "read", lambda *args: answers.append(read(*args)) or answers[-1])
    numbers = np.arange(len(texts), dtype=float)
    table = pa.table({"y": numbers, "p": numbers + 2, "key": texts})
    pq.write_table(table, tmp_path / "a.parquet", **options)
    scored = streamloss.score(tmp_path / "a.parquet", labels="y", predictions="p", by="key")
    assert scored.result() == dict.fromkeys(texts, 4.0)
    assert answers == [None]


def test_scores_by_what_is_read_here(tmp_path, monkeypatch):
    answers = []
    monkeypatch.setattr(dictionaries, "read", lambda *args: answers.append(read(*args)) or answers[-1])
    numbers = np.arange(6.0)
    times = ["2013-01-01 00:00:00", "2013-01-01T00:00:00.0"]  # the same key
    keys = {"key": ["a", None, "b", "a", "c", "c"], "other": ["x", "x", "y", "y", *times]}
    pq.write_table(pa.table({"y": numbers, "p": numbers * 2, **keys}), tmp_path / "a.parquet", row_group_size=4)
    scored = streamloss.score(tmp_path / "a.parquet", labels="y", predictions="p", by=["key", "other"])
    by_hand = streamloss.GroupedAccumulator()
    by_hand.update(numbers, numbers * 2, by=(keys["key"], keys["other"]))
    assert scored.result() == by_hand.result()
    assert scored[("c", "2013-01-01T00:00:00")].count == 2
    assert len(answers) == 2
    assert None not in answers


def test_codes_beyond_one_of_several_dictionaries_are_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(dictionaries, "read", lambda *args: None)  # as if Arrow had to read them
    numbers, texts = np.arange(200.0), [f"k{i % 5}" for i in range(100)] + [f"k{4 - i % 5}" for i in range(100)]
    path = tmp_path / "a.parquet"
    table = pa.table({"key": texts, "y": numbers, "p": numbers})
    pq.write_table(table, path, row_group_size=100, compression="none", use_dictionary=["key"])
    whole, place = path.read_bytes(), pq.read_metadata(path).row_group(0).column(0)
    refused = 0
    for at in range(place.data_page_offset, place.dictionary_page_offset + place.total_compressed_size):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 2]) + whole[at + 1 :])
        try:
            pq.read_table(path)
        except (pa.ArrowException, OSError):
            refused += 1
            with pytest.raises(ValueError, match=r"a\.parquet"):
                streamloss.score(path, labels="y", predictions="p", by="key")
    assert refused > 20


@pytest.mark.parametrize("nullable", [False, True])
def test_a_name_with_dots_is_not_a_path(tmp_path, nullable):
    """The parts of columns a and b have the same paths as columns a.b and b.list.element."""
    numbers = np.arange(4.0)
    inner = pa.array([{"b": "x"}] * 4, pa.struct([pa.field("b", pa.string(), nullable=nullable)]))
    parts = {"a": inner, "b": pa.array([["y"]] * 4)}
    keys = {"a.b": ["k", "k", "l", "l"], "b.list.element": ["m", "n", "n", "n"]}
    pq.write_table(pa.table({**parts, "y": numbers, "p": numbers * 2, **keys}), tmp_path / "a.parquet")
    for name, texts in keys.items():
        scored = streamloss.score(tmp_path / "a.parquet", labels="y", predictions="p", by=name)
        assert scored.result() == streamloss.GroupedAccumulator().update(numbers, numbers * 2, by=texts).result()


@pytest.mark.parametrize(
    "page",
    ["02000000 2800 c8 2800", "03010000 2800 01 2800", "02000000 2802 01 2800"],
    ids=["numbers of 200 bits", "levels beyond the page", "a level beyond 1"],
)
def test_damage_where_no_row_has_a_value(page):
    whole = written(pa.table({"key": ["a"] * 20}), compression="none")
    undamaged = bytes.fromhex("02000000 2801 01 2800")  # 20 rows have a value, which is number 0
    _, *rest = column(whole)
    assert read(whole, *rest) is not None
    assert whole.getvalue().count(undamaged) == 1
    assert read(io.BytesIO(whole.getvalue().replace(undamaged, bytes.fromhex(page))), *rest) is None


def test_metadata_that_is_wrong_about_the_rows_is_refused():
    file, chunks, rows, nullable = column(written(pa.table({"key": ["a", "b"]})))
    assert read(file, chunks, rows + 1, nullable) is None
    assert read(file, chunks, rows, nullable) is not None


@pytest.mark.parametrize("rows", [-1, 1 << 62])
def test_metadata_with_rows_that_cannot_be_is_left_to_arrow(rows):
    file = written(pa.table({"key": ["a", "b"]}))
    assert read(file, [SimpleNamespace(num_values=rows)], rows, True) is None


def test_damage_is_never_read_as_something_else_than_a_column():
    """Whatever a byte becomes: no exception, no code without a text, and all rows."""
    texts = ["a", None, "bc", "a", "", "bc", "bc", "bc"] * 40 + [str(i) for i in range(30)]
    for compression in ("none", "snappy", "zstd"):
        whole = written(pa.table({"key": texts}), compression=compression, data_page_size=100, write_batch_size=50)
        _, chunks, rows, nullable = column(whole)
        data = whole.getvalue()
        start = chunks[0].dictionary_page_offset
        for at in range(start, start + chunks[0].total_compressed_size):
            for value in {0, 1, 28, 127, 128, 255, data[at] ^ 1, data[at] ^ 16} - {data[at]}:
                damaged = io.BytesIO(data[:at] + bytes([value]) + data[at + 1 :])
                coded = read(damaged, chunks, rows, nullable)
                if coded is not None:
                    assert len(coded.codes) == rows
                    assert coded.codes.max() < len(coded.values)
            assert read(io.BytesIO(data[:at]), chunks, rows, nullable) is None


def test_structures_within_structures_without_end():
    _, chunks, rows, nullable = column(written(pa.table({"key": ["a"] * 99})))
    endless = io.BytesIO(b"\x1c" * 100_000)
    assert read(endless, chunks, rows, nullable) is None


def packed(pieces, width):
    """Encode pieces as the format does: (True, numbers) in groups of eight, (False, numbers) as runs of one number."""
    data = b""
    for in_groups, numbers in pieces:
        groups = -(-len(numbers) // 8) if in_groups else 0
        head = groups << 1 | 1 if in_groups else len(numbers) << 1
        while head > 127:
            data, head = data + bytes([head & 127 | 128]), head >> 7
        data += bytes([head])
        if in_groups:
            bits = sum(number << i * width for i, number in enumerate(numbers))
            data += bits.to_bytes(groups * width, "little")
        else:
            data += bytes([numbers[0]]) if width else b""
    return np.frombuffer(data, np.uint8)


def unpack(data, width, rows, table):
    codes = np.full(rows, NONE, np.uint8)
    return compiled()(np.concatenate((data, PADDING)), width, table, codes), codes.tolist()


@st.composite
def pieces(draw, width):
    number = st.integers(0, 2**width - 1)
    made = []
    for in_groups in draw(st.lists(st.booleans(), min_size=1, max_size=6)):
        if in_groups:
            made.append((True, draw(st.lists(number, min_size=8, max_size=8)) * draw(st.integers(1, 40))))
        else:
            made.append((False, [draw(number)] * draw(st.integers(1, 400))))
    if draw(st.booleans()):  # the last group may be longer than what is left
        made.append((True, draw(st.lists(number, min_size=1, max_size=7))))
    return made


@pytest.mark.parametrize("width", range(9))
def test_many_groups_of_every_width(width):
    rng = np.random.default_rng(width)
    numbers = rng.integers(1 << width, size=8 * 2_500).tolist()
    table = rng.permutation(256).astype(np.uint8)
    made = [(True, numbers[:8_000]), (False, [numbers[0]] * 3), (True, numbers[8_000:])]
    wanted = table[[*numbers[:8_000], *[numbers[0]] * 3, *numbers[8_000:]]].tolist()
    assert unpack(packed(made, width), width, len(wanted) - 5, table) == (True, wanted[:-5])


@given(data=st.data(), width=st.integers(0, 8))
def test_runs_and_groups_of_every_width(data, width):
    made = data.draw(pieces(width))
    numbers = [number for _, several in made for number in several]
    table = np.random.default_rng(width).permutation(256).astype(np.uint8)
    encoded = packed(made, width)
    assert unpack(encoded, width, len(numbers), table) == (True, table[numbers].tolist())
    missing, _ = unpack(encoded, width, len(numbers) + 8, table)
    assert not missing
    if made[-1][0] and width:
        cut, _ = unpack(encoded[:-1], width, len(numbers), table)
        assert not cut
