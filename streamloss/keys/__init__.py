"""The keys by which rows are grouped: columns of them, read into codes that count from 0.

A key is an int, a str, a bool, a float or None (null, NaN, NaT), or a tuple of these where there are several columns.
Whole floats are ints, so a column of integers is the same whether or not nulls made floats of it. Other kinds do not
mix in one column: "1" and 1 are never taken for one key, nor silently for two.
"""

from __future__ import annotations

from .columns import NULL, Coded, Keys, read
from .foreign import plain_keys
from .forms import Key, form, form_of, kind_of, kinds_of, order, timestamp
from .numbering import Codes, unite

__all__ = [
    "NULL",
    "Coded",
    "Codes",
    "Key",
    "Keys",
    "form",
    "form_of",
    "kind_of",
    "kinds_of",
    "order",
    "plain_keys",
    "read",
    "timestamp",
    "unite",
]
