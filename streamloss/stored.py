r"""States as bytes: a small format that is checked to the last bit when it is read.

| bytes | what |
|---|---|
| 8 | magic, b"slstate\n" |
| 4 | format version, uint32 |
| 4 | length of the header, uint32 |
| 4 | number of words, uint32 |
| ... | header: JSON with the loss, the reduction and the NaN policy, UTF-8 |
| 8 each | the words of the state, int64 |
| 32 | SHA-256 of all before |

All numbers are little-endian. A later version may append, never reinterpret; files of earlier ones stay readable.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from pathlib import Path

import numpy as np

from .exact import Words

MAGIC = b"slstate\n"
VERSION = 1
PREFIX = struct.Struct("<8sIII")
DIGEST_BYTES = 32


def encode(loss: str, reduction: str, nan: str, state: Words) -> bytes:
    """The bytes of a state."""
    header = json.dumps({"loss": loss, "reduction": reduction, "nan": nan}).encode()
    body = PREFIX.pack(MAGIC, VERSION, len(header), state.size) + header + state.astype("<i8").tobytes()
    return body + hashlib.sha256(body).digest()


def decode(data: bytes) -> tuple[str, str, str, Words]:
    """The loss, reduction, NaN policy and state in these bytes; ValueError for anything but what `encode` wrote."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, got {type(data).__name__}")
    data = bytes(data)
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError("not a streamloss state: it does not begin with the mark of one")
    if len(data) < PREFIX.size + DIGEST_BYTES:
        raise ValueError(f"the state is cut short: {len(data)} bytes")
    _, version, header_length, words = PREFIX.unpack_from(data)
    if version != VERSION:
        raise ValueError(
            f"the state has format version {version}, expected {VERSION}: damaged, or of a later streamloss"
        )
    expected = PREFIX.size + header_length + 8 * words + DIGEST_BYTES
    if len(data) != expected:
        raise ValueError(f"the state has {len(data)} bytes, expected {expected}: it is cut short or damaged")
    if hashlib.sha256(data[:-DIGEST_BYTES]).digest() != data[-DIGEST_BYTES:]:
        raise ValueError("the state is damaged: its checksum does not match")
    try:
        header = json.loads(data[PREFIX.size : PREFIX.size + header_length])
        loss, reduction, nan = (str(header[key]) for key in ("loss", "reduction", "nan"))
    except (ValueError, KeyError, TypeError):
        raise ValueError("the state has no valid header") from None
    state = np.frombuffer(data, "<i8", words, PREFIX.size + header_length).astype(np.int64)
    return loss, reduction, nan, state


def write(path: Path, data: bytes) -> None:
    """Put a file in place in one step: a reader sees the old one or the new one, even after a power loss."""
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
