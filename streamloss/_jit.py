"""How kernels are compiled: every compiler setting stands here once, with its reason.

Nothing is compiled when the package is imported. A kernel is compiled when the first chunk needs it, for the
types of that chunk alone, and kept in Numba's cache folder where there is one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import numba
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba.core import types
from numba.core.caching import FunctionCache
from numba.core.cgutils import alloca_once
from numba.core.errors import NumbaError
from numba.core.runtime import rtsys
from numba.extending import NativeValue, intrinsic, models, overload, register_model, typeof_impl, unbox

from ._cached import cached_property
from ._parts import OptimisedParts, RawParts

F = TypeVar("F", bound=Callable[..., Any])

FLAGS = {
    "nogil": True,  # chunks are shared out to Python threads, see _threads.py
    "error_model": "numpy",  # x / 0 is inf or NaN, as IEEE 754 has it, and never an exception
    "fastmath": False,  # every operation is rounded once, in the order written
}

# Helpers that Python never calls need no wrappers for it: a third of their compile time.
INNER = {**FLAGS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": True}

# For code that makes no arrays: without reference counts it compiles in nine tenths of the time, and reads Python's
# arrays without making an owner for each, which takes 60 ns. A function that says nothing has what its caller has.
NO_COUNTS = {"_nrt": False}


VECTOR = 8  # elements: a 512-bit vector of float64
SEES_VECTORS = llvm_version_info >= (17,)  # whether LLVM finds that VECTOR elements read one entry, and reads it once


@cache
def _sources() -> str:
    """Identifies the sources compiled into every kernel: Numba's cache looks at the kernel's own file alone."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function, which may make arrays, into whatever calls it."""
    return numba.njit(forceinline=True, **INNER)(function)


class Helper:
    """A function that kernels call. Numba gets to know it when one is compiled, and not when it is imported."""

    def __init__(self, function: Callable[..., Any], inline: bool) -> None:
        self._function, self._inline = function, inline

    @cached_property
    def dispatcher(self) -> Any:
        """What Numba calls it by."""
        options = {**INNER, **NO_COUNTS, "forceinline": self._inline, "pipeline_class": RawParts}
        return numba.njit(**options)(self._function)


@typeof_impl.register(Helper)
def _type_of_helper(helper: Helper, context: Any) -> Any:
    return typeof_impl(helper.dispatcher, context)


def scalar(function: F) -> F:
    """Compile a helper into whatever calls it: loops vectorise only when nothing is left to call."""
    return cast(F, Helper(function, inline=True))


def routine(function: F) -> F:
    """Compile a helper that stays a call of its own."""
    return cast(F, Helper(function, inline=False))


def known_to_numba(function: F) -> F:
    """A helper for the CUDA backend, which has to see Numba's own object."""
    assert isinstance(function, Helper)
    return cast(F, function.dispatcher)


def arithmetic(function: F) -> F:
    """Compile a helper of formulas into them, optimised by itself first: logarithms then take a fifth less time."""
    return cast(F, numba.njit(**{**INNER, **NO_COUNTS}, forceinline=True, pipeline_class=OptimisedParts)(function))


class Cache(FunctionCache):
    """Numba's, which imports all that its compiler knows of before it loads machine code that needs none of it.

    Where SciPy is installed, that is 0.3 s. Machine code of ours calls Numba's runtime and the C library alone.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is kept for a signature, or None."""
        rtsys.initialize(target_context)
        try:
            return self._load_overload(sig, target_context)
        except Exception:  # damaged, or written by a version whose types are gone: to be written anew
            self.flush()
            return None


class Kernel:
    """A compiled function that Python calls, one specialisation per signature.

    The entry point of a specialisation is called directly: Numba's dispatcher would look at the type of every
    argument again, and the caller has just done so.
    """

    def __init__(self, function: Callable[..., Any], allocates: bool = False) -> None:
        self._function, self._allocates = function, allocates

    @cached_property
    def _plain(self) -> Any:
        return numba.njit(no_cfunc_wrapper=True, _nrt=self._allocates, **FLAGS)(self._function)

    @cached_property
    def _kept(self) -> Any:
        dispatcher = numba.njit(no_cfunc_wrapper=True, _nrt=self._allocates, **FLAGS)(self._function)
        try:
            dispatcher._cache = Cache(self._function)
        except RuntimeError:  # Numba found no folder that it could write to
            return self._plain
        return dispatcher

    def compile(self, signature: tuple[Any, ...], *, keep: bool = True) -> Callable[..., Any]:
        """Return the machine code for `signature`, from the cache folder if it is there and `keep` is true."""
        if keep:
            try:
                return cast(Callable[..., Any], self._kept.compile(signature))
            except NumbaError:
                raise
            except Exception:  # a cache folder that is full or gone costs time, never the answer
                pass
        return cast(Callable[..., Any], self._plain.compile(signature))


class Formula(types.Opaque):
    """The type of an argument that stands for one scalar function of a label and a prediction.

    Thus one kernel source serves every loss, and Numba's cache tells their machine code apart by the name of the
    type, which therefore changes whenever the function does.
    """

    functions: ClassVar[dict[str, Callable[..., Any]]] = {}

    def __init__(self, name: str) -> None:
        super().__init__(name=f"Formula({name})")

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Formula:
        """The type for `function`; `name` identifies what it computes, in other processes too."""
        formula = cls(f"{name} {_sources()}")
        cls.functions.setdefault(formula.name, function)
        return formula


def check(function: Callable[..., Any], parameters: int) -> None:
    """Compile a formula by itself; NumbaError with the reason if it cannot be compiled to return a real number."""
    dispatcher = numba.njit(**INNER)(function)
    dispatcher.compile((types.float64,) * (2 + parameters))
    (signature,) = dispatcher.nopython_signatures
    if not isinstance(signature.return_type, (types.Float, types.Integer, types.Boolean)):
        raise NumbaError(f"it returns {signature.return_type}, expected a real number")


register_model(Formula)(models.OpaqueModel)


@unbox(Formula)
def _unbox_formula(typ: Any, obj: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


def by_type(stub: Callable[..., Any], **options: Any) -> Callable[[F], F]:
    """Let compiled code that calls `stub` get what the decorated function returns for the arguments' types."""
    options = {**INNER, "forceinline": True, "pipeline_class": RawParts, **options}
    return cast(Callable[[F], F], overload(stub, jit_options=options, strict=False))


def evaluate(formula: Any, label: float, prediction: float, parameters: tuple[float, ...]) -> float:
    """Evaluate the loss of one element, inside a kernel."""
    raise TypeError("evaluate exists in compiled code only")


# Calls that LLVM turns into instructions, with the same result in a vector as alone.
INSTRUCTIONS = r"llvm\.(fabs|sqrt|copysign|floor|ceil|trunc|rint|minnum|maxnum|minimum|maximum|s?u?min|s?u?max)\."


def _element_function(function: Callable[..., Any], parameters: int) -> Any:
    """The compiled formula: part of the loop if it is arithmetic alone, else a call of its own.

    Where Intel's SVML is installed, Numba computes sin, pow and their like by vectors in the body of a loop and one by
    one in its remainder, by another algorithm: the bits of a loss would depend on its place in the chunk. Through a
    call every element takes the same path. Logarithms and exponentials are arithmetic by now, see formulas.py.
    """
    part = inlined(function)
    signature = (types.float64,) * (2 + parameters)
    part.compile(signature)
    called = re.findall(r"\bcall\b[^@\n]*@\"?([\w.$]+)", part.inspect_llvm(signature))
    if all(re.match(INSTRUCTIONS, name) for name in called):
        return part

    def apart(label: float, prediction: float, *values: float) -> Any:
        not_inlined()
        return part(label, prediction, *values)

    return numba.njit(forceinline=False, **INNER)(apart)


@by_type(evaluate)
def _evaluate(formula: Any, label: Any, prediction: Any, parameters: Any) -> Any:
    function = _element_function(Formula.functions[formula.name], len(parameters))

    def implementation(formula: Any, label: Any, prediction: Any, parameters: Any) -> Any:
        return types.float64(function(label, prediction, *parameters))

    return implementation


@intrinsic
def wide_vectors(typing: Any) -> Any:
    """Let the loops of the function that calls this use 512-bit vectors where the CPU has them.

    LLVM stops at 256 bits on many CPUs that do, which costs a third of the speed here.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # The set's own add() refuses attributes that it does not know.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def not_inlined(typing: Any) -> Any:
    """Keep the function that calls this out of its callers: LLVM would copy it to each and optimise it again there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def address(typing: Any, array: Any) -> Any:
    """Where the first element of an array lies."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(context.make_array(array)(context, builder, args[0]).data, ir.IntType(64))

    return types.int64(array), generate


def prefetch(builder: Any, pointer: Any) -> None:
    """Write code that asks for the cache line at an address; one that does not exist is no error."""
    number = ir.IntType(32)
    pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    kinds = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kinds)
    to_read, keep_close, data = 0, 3, 1
    builder.call(function, [pointer, number(to_read), number(keep_close), number(data)])


def on_stack(context: Any, builder: Any, array: Any, count: int) -> Any:
    """Write code that makes an array of the type `array` in the frame of the function that is being compiled."""
    pointer = alloca_once(builder, context.get_data_type(array.dtype), count)
    return _array(context, builder, array, pointer, context.get_constant(types.intp, count))


def view(context: Any, builder: Any, array: Any, whole: Any, start: Any, size: Any) -> Any:
    """Write code for the `size` entries from `start` on of a contiguous array of the type `array`."""
    pointer = builder.gep(context.make_array(array)(context, builder, whole).data, [start], inbounds=True)
    return _array(context, builder, array, pointer, size)


def _array(context: Any, builder: Any, array: Any, pointer: Any, size: Any) -> Any:
    from numba.np.arrayobj import populate_array  # loads much of Numba

    made = context.make_array(array)(context, builder)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array.dtype)))
    populate_array(made, data=pointer, shape=[size], strides=[itemsize], itemsize=itemsize, meminfo=None)
    return made._getvalue()


def known(question: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A function for compiled code, of one argument, whose answer its type gives."""

    @intrinsic
    def ask(typing: Any, operand: Any) -> Any:
        answer = question(operand)
        return types.boolean(operand), lambda context, *_: context.get_constant(types.boolean, answer)

    return cast(Callable[[Any], bool], ask)


@intrinsic
def store_vector(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Store a value in the VECTOR elements of an array from an index on, by one instruction."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, args[0]).data
        single = context.data_model_manager[kind.dtype].as_data(builder, args[2])
        vector = ir.VectorType(single.type, VECTOR)
        filled = ir.Constant(vector, ir.Undefined)
        for i in range(VECTOR):
            filled = builder.insert_element(filled, single, ir.Constant(ir.IntType(32), i))
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        builder.store(filled, place, align=context.get_abi_sizeof(single.type))
        return context.get_dummy_value()

    return types.void(array, types.uint64, array.dtype), generate


def _select(comparison: str) -> Any:
    """Write code for the one of two integers that compares so with the other."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(comparison, *args), *args)

    return generate


# Python's min and max, compiled, are three functions that are built for each kind of argument.
@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """The smaller of two int64."""
    return types.int64(types.int64, types.int64), _select("<")


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of two int64."""
    return types.int64(types.int64, types.int64), _select(">")


@intrinsic
def add_four(typing: Any, array: Any, index: Any, more: Any, place: Any) -> Any:
    """Add the four elements of an array from a place on to those of another from an index on, by one vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(context.get_data_type(array.dtype), 4)
        size = context.get_abi_sizeof(vector.element)
        pointers = []
        for values, first in (args[:2], args[2:]):
            data = context.make_array(array)(context, builder, values).data
            pointers.append(builder.bitcast(builder.gep(data, [first]), vector.as_pointer()))
        before, addend = (builder.load(pointer, align=size) for pointer in pointers)
        builder.store(builder.add(before, addend), pointers[0], align=size)
        return context.get_dummy_value()

    return types.void(array, types.uint64, array, types.uint64), generate


@intrinsic
def bits(typing: Any, value: Any) -> Any:
    """The 64 bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def from_bits(typing: Any, value: Any) -> Any:
    """The float64 that has these 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate
