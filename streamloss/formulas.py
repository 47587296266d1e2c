"""Formulas as they are compiled: where they call log or exp of math or NumPy, they call those of `elementary` instead.

So a formula of log, exp and arithmetic becomes vector code with the same bits on every machine, a user's as well as
ours. In Python the formula stays as it was written.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from functools import cache, partial
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np
from numba import float32, float64
from numba.core import types
from numba.core.dispatcher import Dispatcher

from . import _jit
from .fingerprints import names_in, taken
from .losses import Loss

NAMES = ("log", "log1p", "exp", "expm1")
OURS = {getattr(library, name): name for library in (math, np) for name in NAMES}  # what elementary.py has, too
Copies: TypeAlias = dict[Any, Any]  # of helpers and modules, each made once
_forms: dict[str, Callable[..., Any]] = {}  # by the fingerprints of losses


@cache
def _instead(function: Any) -> Any:
    """Return what compiled code calls in place of a library's function: ours for numbers, else the library's."""
    from . import elementary  # most losses need none of it, and importing it takes as long as all the rest

    own = getattr(elementary, OURS[function])

    def instead(x: Any) -> Any:
        raise TypeError("it exists in compiled code only")

    @_jit.by_type(instead)
    def choose(x: Any) -> Any:
        if x == types.float32:  # for which Numba's own return a float32
            return lambda x: float32(own(float64(x)))
        if isinstance(x, (types.Float, types.Integer, types.Boolean)):
            return lambda x: own(float64(x))
        return lambda x: function(x)

    return instead


def form_of(loss: Loss) -> Callable[..., Any]:
    """Return the function to compile for a loss; it is made once for each fingerprint."""
    form = _forms.get(loss.fingerprint)
    return _forms.setdefault(loss.fingerprint, compiled_form(loss.formula)) if form is None else form


def compiled_form(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function to compile for a formula: a copy, with the values that its variables have now."""
    copy = _empty_copy(formula)
    _fill(copy, formula, {})
    return copy


def _empty_copy(function: Any) -> FunctionType:
    """Copy a function without the values of its variables, of module and closure."""
    variables = {"__builtins__": builtins, "__name__": function.__module__}
    cells = tuple(CellType() for _ in function.__closure__ or ())
    copy = FunctionType(function.__code__, variables, function.__name__, function.__defaults__, cells)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _fill(copy: FunctionType, function: Any, copies: Copies) -> None:
    """Give a copy the values that the function's variables have now."""
    names = frozenset(names_in(function.__code__))
    for name in names & function.__globals__.keys():
        copy.__globals__[name] = _instead_of(function.__globals__[name], names, copies)
    for cell, original in zip(copy.__closure__ or (), function.__closure__ or (), strict=True):
        cell.cell_contents = _instead_of(original.cell_contents, names, copies)


def _instead_of(value: Any, names: frozenset[str], copies: Copies) -> Any:
    """Return the value of a variable in the copy of a function that uses these names."""
    if _is_ours(value):
        return _instead(value)
    if isinstance(value, ModuleType):
        return _instead_of_module(value, names, copies)
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    if isinstance(value, tuple):
        members = [_instead_of(member, names, copies) for member in value]
        return value._make(members) if hasattr(value, "_make") else tuple(members)
    if isinstance(value, Dispatcher) and value._can_compile and not value.locals:
        if id(value) not in copies:
            copy = _empty_copy(value.py_func)
            # Compiled with our flags, not its own: it is rounded as the formula is.
            copies[id(value)] = _jit.inlined(copy)
            _fill(copy, value.py_func, copies)
        return copies[id(value)]
    return value


def _instead_of_module(module: ModuleType, names: frozenset[str], copies: Copies) -> Any:
    """Copy a module: members of these names stay as they are now, others are looked up in the module."""
    libraries = {name: vars(module).get(name) for name in names & set(NAMES)}
    members = taken(module, names) | {name: value for name, value in libraries.items() if _is_ours(value)}
    if not members:
        return module
    key = id(module), names
    if key not in copies:
        copy = copies[key] = ModuleType(module.__name__)
        vars(copy).update({name: _instead_of(member, names, copies) for name, member in members.items()})
        vars(copy)["__getattr__"] = partial(getattr, module)
    return copies[key]


def _is_ours(value: Any) -> bool:
    return isinstance(value, (BuiltinFunctionType, np.ufunc)) and value in OURS
