"""The keys by which rows are grouped: columns of them, read into codes that count from 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt


class Coded(NamedTuple):
    """A column of keys as a dictionary encodes it: row i has the key values[codes[i]], or none if the code is -1."""

    codes: npt.NDArray[Any]  # of an integer dtype
    values: Sequence[Any]
