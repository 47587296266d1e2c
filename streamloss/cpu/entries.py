"""The machine code of a kernel for a loss and the types of its operands, compiled when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba.core import types

from .. import _jit
from ..chunks import Operands
from ..formulas import form_of
from ..losses import Loss

Entry: TypeAlias = Callable[..., None]

WORDS = types.Array(types.int64, 1, "C")
SCALARS = {np.dtype(each.name).char: each for each in (types.float32, types.float64, types.int32, types.uint8)}
SCALARS["?"] = types.boolean


def entries(
    function: Callable[..., None], *further: Any, allocates: bool = False
) -> Callable[[Loss, Operands, bool], Entry]:
    """Return a function that finds a kernel's machine code for a loss, operands, and whether to omit NaN.

    The kernel's arguments are `loss` (the formula, its parameters, and True or None: whether to omit), the operands
    and arguments of the `further` types. `allocates` says whether it makes arrays.
    """
    kernel = _jit.Kernel(function, allocates)
    compiled: dict[tuple[Any, ...], Entry] = {}

    def find(loss: Loss, operands: Operands, omit: bool) -> Entry:
        labels, predictions, weights, mask, out, _, _ = operands
        key = (
            loss.fingerprint,
            labels.dtype,
            predictions.dtype,
            None if weights is None else _kind(weights),
            None if mask is None else _kind(mask),
            out is None,
            omit,
        )
        entry = compiled.get(key)
        if entry is None:
            signature = (recipe_of(loss, omit), *map(type_of, operands[:5]), types.int64, types.int64, *further)
            entry = compiled[key] = kernel.compile(signature, keep=loss.is_ours)
        return entry

    return find


def scalar_entries(function: Callable[..., None], *further: Any) -> Callable[[Loss, bool], Entry]:
    """Return a function that finds the code of a kernel for one element: label, prediction and weight are floats."""
    kernel = _jit.Kernel(function)
    compiled: dict[tuple[str, bool], Entry] = {}

    def find(loss: Loss, omit: bool) -> Entry:
        entry = compiled.get((loss.fingerprint, omit))
        if entry is None:
            signature = (recipe_of(loss, omit), types.float64, types.float64, types.float64, *further)
            entry = compiled[loss.fingerprint, omit] = kernel.compile(signature, keep=loss.is_ours)
        return entry

    return find


def recipe_of(loss: Loss, omit: bool) -> Any:
    """Return the Numba type of the argument `loss` of kernels: formula, parameters, and whether to omit."""
    formula = _jit.Formula.of(form_of(loss), loss.fingerprint)
    parameters = types.UniTuple(types.float64, len(loss.values))
    return types.Tuple((formula, parameters, types.boolean if omit else types.none))


def _kind(operand: Any) -> Any:
    if type(operand) is tuple:
        return len(operand), _kind(operand[0])
    return float if type(operand) is float else operand.dtype


def type_of(operand: Any) -> Any:
    """Return the Numba type of an operand."""
    if isinstance(operand, np.ndarray):
        return types.Array(SCALARS[operand.dtype.char], 1, "C")
    if isinstance(operand, tuple):
        return types.Tuple([types.int64 if isinstance(part, int) else type_of(part) for part in operand])
    return types.none if operand is None else types.float64
