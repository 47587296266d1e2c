"""The machine code of a kernel for a loss and the types of its operands, compiled when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba.core import types

from . import _jit
from .chunks import Operands
from .losses import Loss

Entry: TypeAlias = Callable[..., None]

WORDS = types.Array(types.int64, 1, "C")
FLOATS = types.Array(types.float64, 1, "C")
SCALARS = {"f": types.float32, "d": types.float64, "?": types.boolean, "i": types.int32}


def entries(function: Callable[..., None], *further: Any) -> Callable[[Loss, Operands, bool], Entry]:
    """Return what finds the machine code of a kernel: for a loss, operands, and whether to omit elements with NaN.

    The kernel's arguments are `loss` (the formula, its parameters, and True or None: whether to omit), the operands
    and arguments of the `further` types.
    """
    kernel = _jit.Kernel(function)
    compiled: dict[tuple[Any, ...], Entry] = {}

    def find(loss: Loss, operands: Operands, omit: bool) -> Entry:
        labels, predictions, weights, mask, out, _, _ = operands
        key = (
            loss.fingerprint,
            labels.dtype.char,
            predictions.dtype.char,
            _kind(weights),
            _kind(mask),
            out is None,
            omit,
        )
        entry = compiled.get(key)
        if entry is None:
            recipe = types.Tuple(
                (
                    _jit.Formula.of(loss.formula, loss.fingerprint),
                    types.UniTuple(types.float64, len(loss.values)),
                    types.boolean if omit else types.none,
                )
            )
            signature = (recipe, *map(type_of, operands[:5]), types.int64, types.int64, *further)
            entry = compiled[key] = kernel.compile(signature, keep=loss.is_builtin)
        return entry

    return find


def _kind(operand: Any) -> str:
    if operand is None:
        return ""
    if type(operand) is float:
        return "1"
    return "run of " + operand[0].dtype.char if type(operand) is tuple else operand.dtype.char


def type_of(operand: Any) -> Any:
    """The Numba type of an operand."""
    if isinstance(operand, np.ndarray):
        return types.Array(SCALARS[operand.dtype.char], 1, "C")
    if isinstance(operand, tuple):
        return types.Tuple((type_of(operand[0]), types.int64, types.int64))
    return types.none if operand is None else types.float64
