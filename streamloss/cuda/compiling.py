"""From a kernel's source to machine code, by Numba and NVVM; no GPU is needed for that.

Numba's own decorator lets NVVM contract a multiplication and an addition to one operation, which rounds once instead of
twice: other bits than the CPU's, and cuts that lose what they cut off. NVVM is therefore called with options of our
own; it then marks every operation `.rn`, which no later stage fuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import types

from .elements import Form

NVVM_OPTIONS = {"opt": 3, "fma": 0, "ftz": 0, "prec_div": 1, "prec_sqrt": 1}

SCALARS = {
    "f": types.float32,
    "d": types.float64,
    "e": types.uint16,  # the bits of a float16,
    "E": types.uint16,  # and of a bfloat16
    "?": types.boolean,
    "b": types.int8,
    "h": types.int16,
    "i": types.int32,
    "l": types.int64,
    "B": types.uint8,
    "H": types.uint16,
    "I": types.uint32,
    "L": types.uint64,
}
WORDS = types.Array(types.int64, 1, "C")
ARRAY_WORDS, ARRAY_ADDRESS = 7, 4


def _operand(code: str) -> Any:
    if code == "":
        return types.int64  # nothing
    return types.float64 if code == "1" else types.Array(SCALARS[code], 1, "C")


def signature(form: Form, parameters: int) -> tuple[Any, ...]:
    """Return the types of a kernel's arguments: operands, geometry, parameters, first element, end, words.

    Where elements have groups their codes are one more operand, and the numbers of groups and of copies come last.
    """
    kinds = [_operand(code) for code in (*form[:5], *("i" if form.grouped else ()))]
    geometry: Any = types.UniTuple(types.int64, 1 + len(kinds))
    if form.axes:
        shape, strides = types.UniTuple(types.int64, form.axes), types.UniTuple(types.int64, form.axes + 1)
        geometry = types.Tuple((shape, *[strides] * len(kinds)))
    values, counts = types.UniTuple(types.float64, parameters), [types.int64] * (2 if form.grouped else 0)
    return types.Tuple(tuple(kinds)), geometry, values, types.int64, types.int64, WORDS, *counts


CARRY = (WORDS, types.int64)
MOVE = (WORDS, WORDS, types.int64)


def library(function: Callable[..., None], arguments: tuple[Any, ...], cc: tuple[int, int], threads: int) -> Any:
    """Compile a kernel; of the result, `get_asm_str` returns the PTX and `get_cubin` the machine code."""
    from numba.cuda.compiler import compile_cuda, kernel_fixup
    from numba.cuda.cudadrv.nvvm import set_launch_bounds

    compiled = compile_cuda(function, types.void, arguments, cc=cc, nvvm_options=dict(NVVM_OPTIONS))
    entry = compiled.library.get_function(compiled.fndesc.llvm_func_name)
    compiled.library._entry_name = compiled.fndesc.llvm_func_name
    kernel_fixup(entry, debug=False)
    set_launch_bounds(entry, threads)
    return compiled.library


def machine_code(library: Any, cc: tuple[int, int]) -> bytes:
    """Return the machine code for devices of a compute capability."""
    code = library.get_cubin(cc=cc)
    return bytes(getattr(code, "code", code))


def layout(signature: tuple[Any, ...]) -> str:
    """Return the format of a kernel's arguments, for `struct`: words of 8 bytes, seven for an array."""
    return "".join(
        layout(tuple(argument.types)) if isinstance(argument, types.BaseTuple) else _word(argument)
        for argument in signature
    )


def _word(argument: Any) -> str:
    if isinstance(argument, types.Array):
        return "q" * ARRAY_WORDS
    return "d" if argument is types.float64 else "q"


def array(address: int, itemsize: int, size: int) -> tuple[int, ...]:
    """Return the words of an array: no owner (two words), size, size of an item, address, shape, stride."""
    return 0, 0, size, itemsize, address, size, itemsize
