"""Compile kernels ahead, so that the first update of a process need not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from .accumulator import Accumulator
from .grouped import GroupedAccumulator
from .losses import Formula, Loss
from .mergeable import NanPolicy


def warmup(
    losses: str | Loss | Formula | Iterable[str | Loss | Formula] = "squared_error",
    *,
    dtypes: npt.DTypeLike | Iterable[npt.DTypeLike] = (np.float32, np.float64),
    nan: NanPolicy | Iterable[NanPolicy] = ("propagate", "omit"),
    groups: bool = False,
    stderr: bool = False,
) -> None:
    """Compile the usual kernels into Numba's cache folder: for the image of a container, or before time counts.

    For each loss, dtype and policy: updates of arrays of that dtype, without weights and with an array of them, and of
    single floats; and merging. A kernel takes a few seconds, once; what is in the cache already takes milliseconds.
    `NUMBA_CACHE_DIR` says where the folder is. Functions of your own are compiled, but not kept in it.

    Parameters
    ----------
    losses : str, Loss or callable, or iterable of them, default "squared_error"
        As for `Accumulator`.
    dtypes : dtype, or iterable of them, default (float32, float64)
        Of labels, predictions and weights.
    nan : {"omit", "propagate", "raise"} or iterable of them, default ("propagate", "omit")
        `score` and the command use "omit", `Accumulator` "propagate".
    groups : bool, default False
        Whether to compile updates by keys, of text and of whole numbers, too.
    stderr : bool, default False
        Whether to compile what `standard_error()` needs, too.

    Examples
    --------
    >>> import streamloss
    >>> streamloss.warmup("absolute_error", dtypes=["float32"], nan="propagate")

    """
    several = [losses] if isinstance(losses, (str, Loss)) or callable(losses) else list(losses)
    policies = [nan] if isinstance(nan, str) else list(nan)
    kinds = list(dtypes) if isinstance(dtypes, Iterable) and not isinstance(dtypes, str) else [dtypes]
    _read_text(groups)
    for loss, dtype, policy in itertools.product(several, kinds, policies):
        one, two = np.ones(1, dtype), np.ones(2, dtype)
        for errors in (False, True) if stderr else (False,):
            accumulator = Accumulator(loss, nan=policy, stderr=errors)
            accumulator.update(one, one).update(one, one, one).update(1.0, 1.0)
            _ = accumulator + accumulator
            for by in (["", "a"], [0, 1]) if groups else ():  # two keys: rows of one need no kernel for groups
                grouped = GroupedAccumulator(loss, nan=policy, stderr=errors)
                grouped.update(two, two, by=by).update(two, two, two, by=by)


def _read_text(keys: bool) -> None:
    """Compile what looks at the fields of CSV, and what reads and codes keys of text, where Polars reads them."""
    try:
        import polars as pl

        from .files import dictionaries
        from .files.coding import Coder
        from .files.fields import are_regular, quotes_are_clear
    except ImportError:
        return
    are_regular(b"", ",", 0)
    quotes_are_clear(b' ""', ",")
    if keys:
        Coder().encode(pl.Series([""]))
        dictionaries.compiled()
