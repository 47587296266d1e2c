r"""States as bytes: a small format that is checked to the last bit when it is read.

| bytes | what |
|---|---|
| 8 | magic, b"slstate\n" |
| 4 | format version, uint32 |
| 4 | length of the header, uint32 |
| 4 | number of words, uint32 |
| ... | header: a JSON object, UTF-8; its "kind" says what the words are, "accumulator" where it is missing |
| ... | the words, int64 each; compressed by zlib if the header says so, as "compressed": number of bytes |
| 32 | SHA-256 of all before |

All numbers are little-endian. A later version may append, never reinterpret; files of earlier ones stay readable.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import durable
from .exact import Words

MAGIC = b"slstate\n"
VERSION = 1
PREFIX = struct.Struct("<8sIII")
DIGEST_BYTES = 32


ACCUMULATOR = "accumulator"  # was the only kind once, so its files do not name it
GROUPED = "grouped accumulator"
COMPRESS_FROM = 1 << 14  # words: thousands of sums are mostly zeros


def pack(kind: str, header: Mapping[str, Any], words: Words) -> bytes:
    """Return the bytes of one or several states, with a header that says what has to be known of them."""
    payload = words.astype("<i8").tobytes()
    content = dict(header) if kind == ACCUMULATOR else {"kind": kind, **header}
    if words.size >= COMPRESS_FROM:
        payload = zlib.compress(payload, level=1)
        content["compressed"] = len(payload)
    text = json.dumps(content).encode()
    body = PREFIX.pack(MAGIC, VERSION, len(text), words.size) + text + payload
    return body + hashlib.sha256(body).digest()


def read(path: Path) -> bytes:
    """Return the bytes of a file, or the first few if it begins otherwise than a state; ValueError for pipes."""
    if path.is_fifo() or path.is_char_device():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        beginning = file.read(len(MAGIC))
        return beginning if beginning != MAGIC else beginning + file.read()


def unpack(data: bytes) -> tuple[str, dict[str, Any], Words]:
    """Return the kind, the header and the words in these bytes; ValueError for anything but what `pack` wrote."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, got {type(data).__name__}")
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("not a streamloss state: it does not begin with the mark of one")
    if len(data) < PREFIX.size + DIGEST_BYTES:
        raise ValueError(f"the state is cut short: {len(data)} bytes")
    _, version, header_length, count = PREFIX.unpack_from(data)
    if version != VERSION:
        raise ValueError(
            f"the state has format version {version}, expected {VERSION}: damaged, or of a later streamloss"
        )
    start, end = PREFIX.size + header_length, len(data) - DIGEST_BYTES
    try:
        header = json.loads(data[PREFIX.size : start]) if start <= end else {}
    except (ValueError, RecursionError):
        header = {}
    stated = header.get("compressed", 8 * count) if isinstance(header, dict) else 8 * count
    if not isinstance(stated, int):
        raise ValueError("the state has no valid header")
    if start + stated != end:
        expected = start + stated + DIGEST_BYTES
        raise ValueError(f"the state has {len(data)} bytes, expected {expected}: it is cut short or damaged")
    if hashlib.sha256(data[:end]).digest() != data[end:]:
        raise ValueError("the state is damaged: its checksum does not match")
    if not isinstance(header, dict) or not header:
        raise ValueError("the state has no valid header")
    try:
        payload = zlib.decompress(data[start:end]) if "compressed" in header else data[start:end]
    except zlib.error as error:
        raise ValueError(f"the state is damaged: {error}") from error
    kind = str(header.pop("kind", ACCUMULATOR))
    header.pop("compressed", None)
    return kind, header, np.frombuffer(payload, "<i8", count).astype(np.int64)


def unpack_as(kind: str, data: bytes) -> tuple[dict[str, Any], Words]:
    """Return the header and the words of a state of this kind; ValueError if it is of another."""
    found, header, words = unpack(data)
    if found != kind:
        raise ValueError(f"the data is of kind {found!r}, expected {kind!r}")
    if not all(isinstance(header.get(key), str) for key in ("loss", "reduction", "nan")):
        raise ValueError("the state has no valid header")
    return header, words


def write(path: Path, data: bytes) -> None:
    """Put a file in place in one step: a reader sees the old one or the new one, even after a power loss."""
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
        durable.place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
