"""Columns of keys, read into codes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ..arrays import as_array
from .foreign import plain_keys
from .forms import KINDS, Key, form, kind_of, plain, texts_of
from .numbering import FEW, Codes, Numbering, number, unite

TYPES = frozenset({*KINDS, type(None)})
SCALARS = (np.str_, np.number, np.bool_, np.datetime64)  # NumPy's, which stand for Python's own, or for text
NULL = -1


class Coded(NamedTuple):
    """A dictionary-encoded column of keys: row i has the key values[codes[i]], or none if the code is -1."""

    codes: npt.NDArray[Any]  # of an integer dtype
    values: Sequence[Any]
    complete: bool = False  # whether codes are known to be `Codes`, each that of a value, and values forms of own keys


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
        codes, pairs = paired(codes, len(combined), more, len(values))
        combined = [(*combined[pair // len(values)], values[pair % len(values)]) for pair in pairs]
    return Keys(codes, combined, tuple(kind for _, _, kind in columns))


def paired(left: Codes, left_count: int, right: Codes, right_count: int) -> tuple[Codes, Sequence[int]]:
    """Return codes for pairs of codes that are below those counts, and the pairs: (i, j) as i * right_count + j."""
    if left_count == 1:
        return right, range(right_count)
    if right_count == 1:
        return left, range(left_count)
    pairs, codes = number(left.astype(np.int64) * right_count + right)
    return codes, pairs


def columns_of(by: Any) -> list[Any] | None:
    """Return the columns if `by` has several (a tuple, a list of columns, or a frame), otherwise None."""
    if isinstance(by, Coded):
        return None
    if isinstance(by, tuple) or (isinstance(by, list) and holds_columns(by)):
        if not by:
            raise ValueError("by must have at least one column of keys, got an empty tuple")
        if isinstance(by, list) and all(isinstance(part, tuple) for part in by):
            raise TypeError("by must be one column, or a tuple of columns, got a list of tuples; write tuple(zip(*by))")
        return list(by)
    if len(getattr(by, "shape", ())) == 2 and hasattr(by, "columns"):  # of pandas, Polars or Arrow
        return list(by.columns) if hasattr(by, "column_names") else [by[name] for name in by.columns]
    return None


def holds_columns(parts: list[Any]) -> bool:
    """Whether an entry of a list is not a key but a column of keys."""
    if TYPES.issuperset(map(type, parts)):
        return False
    return any(map(_is_column, parts))


def _is_column(part: Any) -> bool:
    return hasattr(part, "__len__") and not isinstance(part, (str, bytes)) and getattr(part, "shape", None) != ()


def read_column(column: Any, rows: int) -> tuple[Codes, list[Any], str | None]:
    """Return the codes of a column's keys, the keys, and their kind; one key alone counts for every row."""
    if isinstance(column, Coded):
        codes, values = read_coded(column)
    elif isinstance(column, (list, tuple, deque)):
        codes, values = read_list(list(column))
    else:
        masks: list[Any] = []
        array = as_array("by", plain_keys(column), masks)
        if rows and array.shape == (rows,) and array.strides == (0,) and not masks:  # one key, broadcast
            array = array[:1].reshape(())
        if array.ndim == 0:
            array, masks = np.full(min(rows, 1), array), [(np.full(min(rows, 1), mask), keep) for mask, keep in masks]
            codes, values = read_array(array, masks)
            codes = cast(Codes, np.broadcast_to(codes, rows))
        else:
            codes, values = read_array(array, masks)
    if codes.shape != (rows,):
        raise ValueError(f"by must have one key for each of {rows} rows, got shape {codes.shape}")
    return codes, values, kind_of(values)


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
    if codes.dtype in (np.int32, np.uint8) and codes.size and count <= FEW:
        if column.complete:
            return codes, list(column.values)
        if _are_complete(codes, count):
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
    for mask, keep in masks if kind == "O" else ():  # what is hidden may be of any kind
        array = np.where(mask != keep, np.array(None), array)
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
    for mask, keep in masks:
        codes[mask != keep] = NULL
    kept, codes = number(codes)
    return unite(codes, [None if code == NULL else values[code] for code in kept])


def read_times(array: npt.NDArray[Any]) -> tuple[Codes, list[Any]]:
    """Return the codes and keys of an array of times, NaT being null."""
    return read_objects(texts_of(array).reshape(-1).tolist())


def read_objects(objects: list[Any]) -> tuple[Codes, list[Any]]:
    """Return the codes and keys of Python's objects."""
    objects, kinds = _with_plain(objects)
    if not kinds <= TYPES:  # times of different zones may be equal, and what is no key may equal one
        objects = list(map(form, objects))
        kinds = set(map(type, objects))
        if not kinds <= TYPES:
            names = ", ".join(sorted(kind.__name__ for kind in kinds - TYPES))
            raise TypeError(f"by must hold integers, strings, bools or floats, got {names}")
    if bool in kinds and kinds & {int, float}:  # True would be the same key as 1
        raise TypeError("by must hold integers, strings, bools or floats, one kind in a column, got bool and numbers")
    numbering = Numbering()
    codes = np.fromiter(map(numbering.__getitem__, objects), np.int32, len(objects))
    return unite(codes, list(numbering))
