"""NDJSON, also called JSON lines: an object a line, whose names are columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from .columns import Selection
from .inference import record_of, widened
from .origins import Local, Origin
from .text import BYTE_ORDER_MARK, SAMPLE, Text

BLANK = BYTE_ORDER_MARK + b" \t\r\n"  # bytes of which an empty file may consist
ESCAPED_NAME = re.compile(rb'\\.(?:[^"\\]|\\.)*"\s*:')
# Python writes NaN, which JSON does not know.
NAN_VALUE = re.compile(rb'([{,]\s*"(?:[^"\\]|\\.)*"\s*:\s*)NaN(?=\s*[,}])')
# UTF-16 has two escapes for a character beyond 65535; one without the other, where no backslash is escaped.
ANY_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
HIGH, LOW = r"\\u[dD][89abAB]", r"\\u[dD][c-fC-F]"
HALF = re.compile(rf"{HIGH}(?!..{LOW})|{LOW}(?<!{HIGH}..{LOW})".encode())


class NDJSON(Text):
    """Objects, without a header; a name that an object lacks is null."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        sample = next(self._blocks(0, SAMPLE), None)
        if sample is None or not any(block.data.strip(BLANK) for block in self._blocks(0, SAMPLE)):
            self.rows, self.schema = 0, pl.Schema()
            return
        try:
            self.schema = self._checked(sample, lambda data: self._scan(data, None).collect_schema())
        except ValueError:
            self.schema = self._checked(sample, widened)

    def _parser(self, columns: Selection, schema: pl.Schema) -> Callable[[bytes], pl.DataFrame]:
        types = {name: schema[name] for name in columns.roots}
        keys = dict.fromkeys(root for column in columns.columns if column.role == "by" for root in column.roots)
        texts = [name for name in keys if types.get(name) == pl.String]

        def parse(data: bytes) -> pl.DataFrame:
            _check_escapes(data)
            frame = columns.of(self._scan(data, types)).collect(engine="streaming")
            for name in texts:
                _check_text(data, name, frame.height)
            return frame

        return parse

    def _scan(self, data: bytes, schema: Any) -> pl.LazyFrame:
        data = data.removeprefix(BYTE_ORDER_MARK)
        if b"NaN" in data:
            data = NAN_VALUE.sub(rb"\1null", data)
        return pl.scan_ndjson(data, schema=schema, infer_schema_length=None)

    def _reason(self, record: bytes, error: BaseException) -> BaseException:
        return ValueError("JSON has no Infinity") if b"Infinity" in record else error


def _check_escapes(data: bytes) -> None:
    """Refuse halves of characters: Polars makes NUL of every one, and different keys would become one."""
    if ANY_HALF.search(data) and HALF.search(data.replace(rb"\\", b"  ")):
        raise pl.exceptions.ComputeError(
            r"it has half a character: one of two escapes \ud800 to \udfff without the other"
        )


def _check_text(data: bytes, name: str, rows: int) -> None:
    """Refuse what is no text in a column of text: Polars makes text of it, and the keys 1 and "1" would become one."""
    token = json.dumps(name, ensure_ascii=False).encode()
    if data.count(token + b':"') + data.count(token + b': "') == data.count(token) == rows:
        return
    for found in re.finditer(re.escape(token) + rb'\s*:\s*(?!"|null|\s)', data):
        start, end = data.rfind(b"\n", 0, found.start()) + 1, data.find(b"\n", found.end())
        _check_line(data[start : end if end >= 0 else None], name)
    if ESCAPED_NAME.search(data):
        for line in filter(bytes.strip, data.splitlines()):
            _check_line(line, name)


def _check_line(line: bytes, name: str) -> None:
    value = record_of(line).get(name)
    if not isinstance(value, (str, type(None))):  # and it is not in an object within the object
        raise pl.exceptions.ComputeError(f"the key {name!r} is {json.dumps(value)} there and text in other lines")


def open_part(path: Path) -> NDJSON:
    """Open a file."""
    return NDJSON(Local(path))
