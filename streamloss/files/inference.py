"""Types of columns in lines of text, where Polars' own inference finds none or too narrow ones."""

from __future__ import annotations

import json
from typing import Any

import polars as pl


def are_numbers(texts: pl.Series) -> bool:
    """Whether Polars parses them all as numbers; its inference of types refuses `+1`, ` 1`, `Infinity`, `NAN`."""
    return texts.str.strip_chars_start(" ").cast(pl.Float64, strict=False).null_count() == 0


def widened(data: bytes) -> pl.Schema:
    """Infer the types of columns in NDJSON; a column of mixed kinds spoils no other."""
    records = [record_of(line) for line in data.splitlines() if line.strip()]
    names = dict.fromkeys(name for record in records for name in record)
    return pl.Schema({name: _widest({type(record.get(name)) for record in records}) for name in names})


def record_of(line: bytes) -> dict[str, Any]:
    """Return the object in a line of NDJSON; ComputeError if there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise pl.exceptions.ComputeError(f"it is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise pl.exceptions.ComputeError(f"it is no JSON object, got {type(record).__name__}")
    return record


def _widest(kinds: set[type]) -> Any:
    """Return a type that holds values of these kinds."""
    kinds = kinds - {type(None)}
    if kinds & {dict, list}:
        return pl.Object()
    if str in kinds or (bool in kinds and len(kinds) > 1):
        return pl.String()
    known = {frozenset(): pl.Null(), frozenset({bool}): pl.Boolean(), frozenset({int}): pl.Int64()}
    return known.get(frozenset(kinds), pl.Float64())
