"""What a key is: its one form, its kind, and its place in the order of keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Scalar: TypeAlias = "int | str | bool | float | None"
Key: TypeAlias = "Scalar | tuple[Scalar, ...]"

KINDS = {bool: "bools", int: "numbers", float: "numbers", str: "strings"}
CLOCK, ZONE = r"(\d\d:\d\d:\d\d)(\.\d+)?", r"(?:(Z)|([+-]\d\d)(?::?(\d\d))?)?"
TIME = re.compile(rf"(?:(\d{{4}}-\d\d-\d\d)[T ]{CLOCK}{ZONE}|{CLOCK})", re.ASCII)
SHORTEST_TIME = len("23:59:59")


def form_of(key: Any) -> Any:
    """Return the one form of a key, of one column or of several."""
    return tuple(map(form, key)) if isinstance(key, tuple) else form(key)


def form(value: Any) -> Any:
    """Return the one form of a key in its column: text that is a time is written as all times are."""
    if isinstance(value, np.generic):
        value = plain(value)
    if value is None or type(value) in (bool, int):
        return value
    if type(value) is str:
        return timestamp(value)
    if type(value) is float:
        if value != value:
            return None
        return int(value) if value.is_integer() else value
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas
        return None
    if isinstance(value, str):
        return timestamp(str.__str__(value))  # str() of a member of an enumeration is its name
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "isoformat"):
        return timestamp(value.isoformat())
    return value


def plain(value: np.generic) -> Any:
    """Return Python's own scalar for one of NumPy's, and text for a time; a duration is no key, and stays."""
    if isinstance(value, str):
        return value[:]  # item() and str() would cut off zeros at the end
    if isinstance(value, np.datetime64):
        return texts_of(np.array(value)).item()
    return value if isinstance(value, np.timedelta64) else value.item()


def timestamp(text: str) -> str:
    """Return a time as ISO 8601 with a T, no trailing zeros and a zone as +00:00; other text as it is."""
    match = TIME.fullmatch(text) if len(text) >= SHORTEST_TIME else None
    if match is None:
        return text
    day, clock, fraction, utc, hours, minutes, clock_alone, fraction_alone = match.groups(default="")
    if not day:
        return clock_alone + _plain_fraction(fraction_alone)
    zone = "+00:00" if utc else f"{hours}:{minutes or '00'}" if hours else ""
    return f"{day}T{clock}{_plain_fraction(fraction)}{zone}"


def _plain_fraction(fraction: str) -> str:
    return fraction.rstrip("0").rstrip(".")


def texts_of(times: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return NumPy's times as text, NaT as None."""
    times = times.astype("M8[s]") if np.datetime_data(times.dtype)[0] in ("h", "m") else times
    texts = np.array(np.datetime_as_string(times), object)
    texts[np.isnat(times)] = None
    return texts


def kinds_of(found: list[Key]) -> tuple[str | None, ...]:
    """Return the kinds of each column of keys."""
    columns = zip(*(key if isinstance(key, tuple) else (key,) for key in found), strict=True)
    return tuple(kind_of(column) for column in columns)


def kind_of(values: Iterable[Scalar]) -> str | None:
    """Return the kind of a column's keys; TypeError if there are several."""
    found = set(map(type, values)) - {type(None)}
    kinds = set(map(KINDS.get, found))
    if len(kinds) > 1 or None in kinds:
        names = ", ".join(sorted(kind.__name__ for kind in found))
        raise TypeError(f"by must hold integers, strings, bools or floats, one kind in a column, got {names}")
    return kinds.pop() if kinds else None


def order(key: Key) -> tuple[Any, ...]:
    """Return what keys are sorted by, null first."""
    parts = key if isinstance(key, tuple) else (key,)
    return tuple((part is not None, part) for part in parts)
