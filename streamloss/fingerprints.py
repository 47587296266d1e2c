"""Digests of Python functions: of their code, and of the values that it takes from closures and modules."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

TAKEN = (bool, int, float, complex, str, tuple, np.generic, np.ndarray, types.ModuleType)
_kept: list[Any] = []  # objects known by their identity


def fingerprint(function: Callable[..., Any]) -> str:
    """Return a digest of what a function computes, the same in all processes; TypeError if that is not settled yet.

    Values that no compiled code could use count by their identity.
    """
    digest = hashlib.sha256()
    _feed(digest, function, {})
    return digest.hexdigest()


def _feed(digest: Any, value: Any, seen: dict[Any, int], names: Sequence[str] = ()) -> None:
    """Feed a digest with what a function computes: its code, and the values it takes from closures and modules.

    `names` are those that the code which uses the value mentions: of a module, no other values matter. `seen` numbers
    the functions and modules that have been fed already.
    """
    value = getattr(value, "py_func", value)  # of a function compiled with Numba
    if id(value) in seen:
        digest.update(b"@%d" % seen[id(value)])
        return
    if isinstance(value, types.FunctionType):
        seen[id(value)] = len(seen)
        names = names_in(value.__code__)
        for part in (value.__code__, value.__defaults__, *_enclosed(value)):
            _feed(digest, part, seen, names)
        for name in names:
            if name in value.__globals__:
                _feed(digest, name, seen)
                _feed(digest, value.__globals__[name], seen, names)
    elif isinstance(value, types.CodeType):
        digest.update(value.co_code + repr(value.co_names).encode())
        for constant in value.co_consts:
            _feed(digest, constant, seen)
    elif isinstance(value, np.ndarray):
        digest.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
    elif isinstance(value, frozenset):
        digest.update(repr(sorted(map(repr, value))).encode())  # Python orders text anew in each process
    elif isinstance(value, tuple):
        digest.update(b"(%d" % len(value))
        for part in value:
            _feed(digest, part, seen)
    elif isinstance(value, types.ModuleType):
        digest.update(value.__name__.encode())
        if (id(value), *names) not in seen:
            seen[(id(value), *names)] = len(seen)
            for name, member in taken(value, names).items():
                _feed(digest, name, seen)
                _feed(digest, member, seen, names)
    elif isinstance(value, (types.BuiltinFunctionType, np.ufunc, type)):
        accepts = value.types if isinstance(value, np.ufunc) else None  # libraries have ufuncs of the same names
        module = getattr(value, "__module__", None)
        digest.update(repr((type(value).__name__, module, value.__name__, accepts)).encode())
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        digest.update(repr((type(value).__name__, value)).encode())
    else:  # known by its identity only; it is kept, so that no other object gets the same id
        _kept.append(value)
        digest.update(repr((type(value).__qualname__, id(value))).encode())


def _enclosed(function: types.FunctionType) -> list[Any]:
    """Return the values that a function takes from its closure."""
    values = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values.append(cell.cell_contents)
        except ValueError:
            raise TypeError(f"loss {function.__name__} uses the variable {name!r}, which has no value yet") from None
    return values


def taken(module: types.ModuleType, names: Iterable[str]) -> dict[str, Any]:
    """Return the members of a module that compiled code takes as they are: constants, compiled functions, modules."""
    members = {name: vars(module)[name] for name in names if name in vars(module)}
    return {name: member for name, member in members.items() if isinstance(member, TAKEN) or hasattr(member, "py_func")}


def names_in(code: types.CodeType) -> list[str]:
    """Return the names that code, and the functions written inside it, may look up in its module."""
    inner = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in names_in(constant)]
    return [*code.co_names, *inner]
