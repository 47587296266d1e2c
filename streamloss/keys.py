"""The keys by which rows are grouped: columns of them, read into codes that count from 0.

A key is an int, a str, a bool, a float or None (null, NaN, NaT), or a tuple of these where there are several columns.
Whole floats are ints, so a column of integers is the same whether or not nulls made floats of it. Other kinds do not
mix in one column: "1" and 1 are never taken for one key, nor silently for two.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from . import _threads
from .arrays import as_array

Codes: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.uint8]
Scalar: TypeAlias = "int | str | bool | float | None"
Key: TypeAlias = "Scalar | tuple[Scalar, ...]"

FEW = 1 << 10  # integers in a range this narrow are coded by their distance from the lowest
BYTE = 1 << 8  # and by one byte in this one: a quarter of what is written, and read again
SLICE = 1 << 17  # integers that a thread takes at once, if there are more: they stay in the second-level cache
TABLE = 1 << 16  # integers in a range this narrow are numbered by a table, however few they are
KINDS = {bool: "bools", int: "numbers", float: "numbers", str: "strings"}
TYPES = frozenset({*KINDS, type(None)})
SCALARS = (np.str_, np.number, np.bool_, np.datetime64)  # NumPy's, which stand for Python's own, or for text
NULL = -1
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
SHORTEST_TIME = len("2026-01-31 23:59:59")


class Coded(NamedTuple):
    """A dictionary-encoded column of keys: row i has the key values[codes[i]], or none if the code is -1."""

    codes: npt.NDArray[Any]  # of an integer dtype
    values: Sequence[Any]
    complete: bool = False  # whether the codes are known to be `Codes`, each that of a value


class Keys(NamedTuple):
    """The keys of the rows of a chunk: row i has the key keys[codes[i]]; no key twice, but some may have no row."""

    codes: Codes
    keys: list[Key]
    kinds: tuple[str | None, ...]  # of each column; None where all of its keys are null


def read(by: Any, rows: int) -> Keys:
    """Return the keys of a chunk of that many rows, from one column of them, or from a tuple of columns."""
    several = columns_of(by)
    if several is None:
        codes, values, kind = read_column(by, rows)
        return Keys(codes, values, (kind,))
    columns = [read_column(column, rows) for column in several]
    codes, values, _ = columns[0]
    combined: list[Any] = [(value,) for value in values]
    for more, values, _ in columns[1:]:
        pairs, codes = number(codes.astype(np.int64) * len(values) + more)
        combined = [(*combined[pair // len(values)], values[pair % len(values)]) for pair in pairs]
    return Keys(codes, combined, tuple(kind for _, _, kind in columns))


def columns_of(by: Any) -> list[Any] | None:
    """Return the columns if `by` has several (a tuple, a list of columns, or a frame), otherwise None."""
    if isinstance(by, Coded):
        return None
    if isinstance(by, tuple) or (isinstance(by, list) and holds_columns(by)):
        if not by:
            raise ValueError("by must have at least one column of keys, got an empty tuple")
        return list(by)
    if len(getattr(by, "shape", ())) == 2 and hasattr(by, "columns"):  # of pandas, Polars or Arrow
        return list(by.columns) if hasattr(by, "column_names") else [by[name] for name in by.columns]
    return None


def holds_columns(parts: list[Any]) -> bool:
    """Whether an entry of a list is not a key but a column of keys."""
    if TYPES.issuperset(map(type, parts)):
        return False
    return any(hasattr(part, "__len__") and not isinstance(part, (str, bytes)) for part in parts)


def read_column(column: Any, rows: int) -> tuple[Codes, list[Any], str | None]:
    """Return the codes of a column's keys, the keys, and their kind; one key alone counts for every row."""
    if isinstance(column, Coded):
        codes, values = read_coded(column)
    elif isinstance(column, (list, tuple, deque)):
        codes, values = read_list(list(column))
    else:
        masks: list[Any] = []
        array = as_array("by", plain_keys(column), masks)
        if array.ndim == 0:
            array, masks = np.full(min(rows, 1), array), [(np.full(min(rows, 1), mask), keep) for mask, keep in masks]
            codes, values = read_array(array, masks)
            codes = np.repeat(codes.astype(np.int32, copy=False), rows)
        else:
            codes, values = read_array(array, masks)
    if codes.shape != (rows,):
        raise ValueError(f"by must have one key for each of {rows} rows, got shape {codes.shape}")
    return codes, values, kind_of(values)


def plain_keys(column: Any) -> Any:
    """Return a column of pandas, Polars or Arrow as an array in which all keys are what they were, if NumPy's has not.

    NumPy makes floats of integers beside nulls, and takes time zones away.
    """
    library, dtype = type(column).__module__.partition(".")[0], cast(Any, getattr(column, "dtype", None))
    if library == "pandas" and not isinstance(dtype, np.dtype):
        return _of_pandas(column, dtype)
    if library == "polars" and dtype is not None:
        if getattr(dtype, "time_zone", None) is not None:
            return column.dt.to_string("iso:strict").to_numpy()
        if dtype.is_integer() and column.null_count():
            if str(dtype) in ("Int128", "UInt128"):
                return np.array(column.to_list(), object)
            return np.ma.array(column.fill_null(0).to_numpy(), mask=column.is_null().to_numpy())
    if library == "pyarrow" and hasattr(column, "null_count"):
        if str(column.type).startswith("dictionary"):
            column = column.cast(column.type.value_type)
        if column.null_count and str(column.type).startswith(("int", "uint")):
            return np.ma.array(np.asarray(column.fill_null(0)), mask=np.asarray(column.is_null()))
    return column


def _of_pandas(column: Any, dtype: Any) -> Any:
    """Return a column of a type of pandas' own as an array, if it holds integers."""
    if getattr(dtype, "kind", None) in ("i", "u"):
        return np.ma.array(column.to_numpy(f"{dtype.kind}8", na_value=0), mask=column.isna())
    kind = getattr(getattr(getattr(dtype, "categories", None), "dtype", None), "kind", None)
    if kind not in ("i", "u"):
        return column
    codes = np.asarray(getattr(column, "cat", column).codes)
    values = np.zeros(len(dtype.categories) + 1, f"{kind}8")  # the last one for code -1
    values[:-1] = dtype.categories.to_numpy(values.dtype)
    return np.ma.array(values[codes], mask=codes < 0)


def read_list(column: list[Any]) -> tuple[Codes, list[Any]]:
    """Return the codes and keys of a list, which becomes an array only where different keys stay different by it.

    Beside text NumPy would turn 1 into "1", and beside floats 2**53 and 2**53 + 1 into one number.
    """
    column, kinds = _with_plain(column)
    if kinds == {int}:
        try:
            return read_array(np.array(column, np.int64), [])
        except OverflowError:
            pass
    elif kinds == {bool} or not any(issubclass(kind, (str, int)) for kind in kinds):
        return read_array(as_array("by", column, []), [])
    return read_objects(column)


def _with_plain(objects: list[Any]) -> tuple[list[Any], set[type]]:
    """Return objects with Python's own scalars in the place of NumPy's, and their types."""
    kinds = set(map(type, objects))
    if not any(issubclass(kind, SCALARS) for kind in kinds):
        return objects, kinds
    objects = [plain(value) if isinstance(value, SCALARS) else value for value in objects]
    return objects, set(map(type, objects))


def _are_complete(codes: Codes, count: int) -> bool:
    """Whether all codes, at least one, are in [0, count); one comparison does, as NULL is a large unsigned number."""
    return bool(codes.view(f"u{codes.itemsize}").max() < count)


def read_coded(column: Coded) -> tuple[Codes, list[Any]]:
    """Return the codes and keys of a column that a dictionary encodes."""
    codes = np.asarray(column.codes)
    if codes.dtype.kind not in "iu":
        raise TypeError(f"by must have codes of integers, got dtype {codes.dtype}")
    count = len(column.values)
    if (
        codes.dtype in (np.int32, np.uint8)
        and codes.size
        and count <= FEW
        and (column.complete or _are_complete(codes, count))
    ):
        return unite(codes, list(column.values))
    low, high = (int(codes.min()), int(codes.max())) if codes.size else (NULL, NULL)
    if low < NULL or high >= count:
        raise ValueError(f"by has codes beyond its {count} values")
    if low > NULL and count <= FEW:
        return unite(codes.astype(np.int32, copy=False), list(column.values))
    found, codes = number(codes)
    return unite(codes, [None if code == NULL else column.values[code] for code in found])


def read_array(array: npt.NDArray[Any], masks: list[tuple[npt.NDArray[Any], bool]]) -> tuple[Codes, list[Any]]:
    """Return the codes and keys of an array; those that a numpy.ma mask hides are null."""
    kind = array.dtype.kind
    for mask, hidden_by in masks if kind == "O" else ():  # what is hidden may be of any kind
        array = np.where(mask != hidden_by, np.array(None), array)
    if kind in "biu":
        values, codes = number(array)
    elif kind == "f" and array.dtype.itemsize <= 8:
        distinct, inverse = np.unique(array, return_inverse=True, equal_nan=True)
        codes, values = unite(inverse.astype(np.int32), distinct.tolist())
    elif kind in "UTO":
        codes, values = read_objects(array.reshape(-1).tolist())
    elif kind == "M":
        codes, values = read_times(array)
    else:
        raise TypeError(f"by must hold integers, strings, bools or floats, got dtype {array.dtype}")
    codes = codes.reshape(array.shape)
    if not masks:
        return codes, values
    codes = codes.astype(np.int32)
    for mask, hidden_by in masks:
        codes[mask != hidden_by] = NULL
    kept, codes = number(codes)
    return unite(codes, [None if code == NULL else values[code] for code in kept])


def read_times(array: npt.NDArray[Any]) -> tuple[Codes, list[Any]]:
    """Return the codes and keys of an array of times, NaT being null."""
    return read_objects(_texts_of(array).reshape(-1).tolist())


def _texts_of(times: npt.NDArray[Any]) -> npt.NDArray[Any]:
    times = times.astype("M8[s]") if np.datetime_data(times.dtype)[0] in ("h", "m") else times
    texts = np.array(np.datetime_as_string(times), object)
    texts[np.isnat(times)] = None
    return texts


def read_objects(objects: list[Any]) -> tuple[Codes, list[Any]]:
    """Return the codes and keys of Python's objects."""
    objects, kinds = _with_plain(objects)
    if bool in kinds and kinds & {int, float}:  # True would be the same key as 1
        raise TypeError("by must hold integers, strings, bools or floats, one kind in a column, got bool and numbers")
    numbering = Numbering()
    codes = np.fromiter(map(numbering.__getitem__, objects), np.int32, len(objects))
    return unite(codes, list(numbering))


class Numbering(dict[Any, int]):
    """A dictionary that numbers values in the order in which they are first looked up."""

    def __missing__(self, value: Any) -> int:
        number = self[value] = len(self)
        return number


def number(values: npt.NDArray[Any]) -> tuple[list[Any], Codes]:
    """Return the distinct values of an array of integers or bools, ascending, and which of them each entry is.

    In a narrow range, all values are returned without a search for those that are there: no group comes of a value
    without elements.
    """
    if values.size == 0:
        return [], np.zeros(values.shape, np.int32)
    if values.dtype.kind == "b":
        found, codes = number(values.view(np.uint8))
        return list(map(bool, found)), codes
    low, high = _range(values)
    if high - low >= max(TABLE, 4 * values.size):
        distinct, inverse = np.unique(values, return_inverse=True)
        return distinct.tolist(), inverse.astype(np.int32)
    if high - low < FEW:
        return list(range(low, high + 1)), _above(low, values, np.uint8 if high - low < BYTE else np.int32)
    offsets = _above(low, values, np.int64)
    present = np.zeros(high - low + 1, np.bool_)
    present[offsets] = True
    numbers = np.cumsum(present, dtype=np.int32)
    numbers -= 1
    return [low + offset for offset in np.flatnonzero(present).tolist()], numbers[offsets]


def _range(values: npt.NDArray[Any]) -> tuple[int, int]:
    """Return the lowest and the highest of integers."""
    if values.size <= SLICE or values.ndim != 1:
        return int(values.min()), int(values.max())

    def work(drawn: Iterator[int]) -> list[tuple[int, int]]:
        return [_range(values[start : start + SLICE]) for start in drawn]

    slices = _threads.share(range(0, len(values), SLICE), work)
    lows, highs = zip(*chain.from_iterable(slices), strict=True)
    return min(lows), max(highs)


def _above(low: int, values: npt.NDArray[Any], dtype: type[np.integer[Any]]) -> npt.NDArray[Any]:
    """Return how far integers of any dtype are above the lowest: if both wrap around, the difference is still right."""
    if low == 0 and values.itemsize == np.dtype(dtype).itemsize and values.dtype.isnative:
        return values.view(dtype)
    if values.size <= SLICE or values.ndim != 1:
        narrow = values.astype(dtype)
        return narrow - values.dtype.type(low).astype(dtype) if low else narrow
    found = np.empty(values.shape, dtype)

    def work(drawn: Iterator[int]) -> None:
        for start in drawn:
            here = slice(start, start + SLICE)
            found[here] = _above(low, values[here], dtype)

    _threads.share(range(0, len(values), SLICE), work)
    return found


def unite(codes: Codes, values: list[Any]) -> tuple[Codes, list[Any]]:
    """Give keys their one form, and one code to keys that become equal by it."""
    forms = list(map(form, values))
    if len(set(forms)) == len(forms):
        return codes, forms
    numbering = Numbering()
    renamed = np.array([numbering[value] for value in forms], np.int32)
    return renamed[codes], list(numbering)


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
        return _texts_of(np.array(value)).item()
    return value if isinstance(value, np.timedelta64) else value.item()


def timestamp(text: str) -> str:
    """Return a time as ISO 8601 with a T and no trailing zeros, however it is written; other text as it is."""
    match = TIME.fullmatch(text) if len(text) >= SHORTEST_TIME else None
    if match is None:
        return text
    day, clock, fraction, zone = match.groups(default="")
    return f"{day}T{clock}{fraction.rstrip('0').rstrip('.')}{'+00:00' if zone == 'Z' else zone}"


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
