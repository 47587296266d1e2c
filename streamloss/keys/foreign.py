"""Columns of pandas, Polars and Arrow as arrays that keep their keys, where NumPy is given others.

It is given floats for integers beside nulls, and times without their zones.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def plain_keys(column: Any) -> Any:
    """Return an array in which all keys are what they were in the column, or the column if NumPy makes that of it."""
    read = READERS.get(type(column).__module__.partition(".")[0])
    return column if read is None else read(column)


def _of_pandas(column: Any) -> Any:
    dtype: Any = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype):
        return column
    if getattr(dtype, "kind", None) in ("i", "u"):
        return np.ma.array(column.to_numpy(f"{dtype.kind}8", na_value=0), mask=column.isna())
    kind = getattr(getattr(getattr(dtype, "categories", None), "dtype", None), "kind", None)
    if kind not in ("i", "u"):
        return column
    codes = np.asarray(getattr(column, "cat", column).codes)
    values = np.zeros(len(dtype.categories) + 1, f"{kind}8")  # the last one for code -1
    values[:-1] = dtype.categories.to_numpy(values.dtype)
    return np.ma.array(values[codes], mask=codes < 0)


def _of_polars(column: Any) -> Any:
    dtype = getattr(column, "dtype", None)
    if dtype is None:
        return column
    if getattr(dtype, "time_zone", None) is not None:
        return column.dt.to_string("iso:strict").to_numpy()
    if str(dtype) in ("Int128", "UInt128"):
        return np.array(column.to_list(), object)
    if not dtype.is_integer() or not column.null_count():
        return column
    return np.ma.array(column.fill_null(0).to_numpy(), mask=column.is_null().to_numpy())


def _of_arrow(column: Any) -> Any:
    if not hasattr(column, "null_count"):
        return column
    if str(column.type).startswith("run_end_encoded"):
        column = _decoded(column)
    if str(column.type).startswith("dictionary"):
        column = column.cast(column.type.value_type)
    if getattr(column.type, "tz", None) is not None:
        try:
            return np.array(column.to_pylist(), object)
        except (OverflowError, ValueError) as error:
            raise ValueError(f"by has times that Python cannot hold: {error}") from error
    if not column.null_count or not str(column.type).startswith(("int", "uint")):
        return column
    return np.ma.array(np.asarray(column.fill_null(0)), mask=np.asarray(column.is_null()))


def _decoded(column: Any) -> Any:
    from pyarrow.compute import run_end_decode

    return run_end_decode(column)


READERS = {"pandas": _of_pandas, "polars": _of_polars, "pyarrow": _of_arrow}
