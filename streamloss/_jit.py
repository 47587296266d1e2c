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
from numba.core import types
from numba.core.caching import FunctionCache
from numba.core.errors import NumbaError
from numba.core.runtime import rtsys
from numba.extending import NativeValue, models, overload, register_model, typeof_impl, unbox

from ._cached import cached_property
from ._parts import OptimisedParts, RawParts
from .intrinsics import not_inlined

F = TypeVar("F", bound=Callable[..., Any])

FLAGS = {
    "nogil": True,  # chunks are shared out to Python threads, see _threads.py
    "error_model": "numpy",  # x / 0 is inf or NaN, as IEEE 754 has it, and never an exception
    "fastmath": False,  # every operation is rounded once, in the order written
}

# Helpers that Python never calls need no wrappers, which take a third of the compile time.
INNER = {**FLAGS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": True}

# For code that makes no arrays: without reference counts it compiles in nine tenths of the time, and needs no owner
# object, 60 ns, for each array that Python passes. Functions without this option inherit their caller's setting.
NO_COUNTS = {"_nrt": False}


@cache
def _sources() -> str:
    """Return a digest of the package's sources: Numba's cache looks for changes in the kernel's own file only."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a user's function, which may make arrays, into whatever calls it."""
    return numba.njit(forceinline=True, boundscheck=True, **INNER)(function)


class Helper:
    """A function that kernels call. Numba sees it when the first of them is compiled, not when it is imported."""

    def __init__(self, function: Callable[..., Any], inline: bool) -> None:
        self._function, self._inline = function, inline

    @cached_property
    def dispatcher(self) -> Any:
        """The function as a dispatcher of Numba's."""
        options = {**INNER, **NO_COUNTS, "forceinline": self._inline, "pipeline_class": RawParts}
        return numba.njit(**options)(self._function)


@typeof_impl.register(Helper)
def _type_of_helper(helper: Helper, context: Any) -> Any:
    return typeof_impl(helper.dispatcher, context)


def scalar(function: F) -> F:
    """Compile a helper into whatever calls it: loops vectorise only if they call nothing."""
    return cast(F, Helper(function, inline=True))


def routine(function: F) -> F:
    """Compile a helper that stays a call of its own."""
    return cast(F, Helper(function, inline=False))


def known_to_numba(function: F) -> F:
    """Return a helper as Numba's own object, which the CUDA backend needs."""
    assert isinstance(function, Helper)
    return cast(F, function.dispatcher)


def arithmetic(function: F) -> F:
    """Inline a helper into formulas after optimising it by itself: logarithms then take a fifth less time."""
    return cast(F, numba.njit(**{**INNER, **NO_COUNTS}, forceinline=True, pipeline_class=OptimisedParts)(function))


class Cache(FunctionCache):
    """Numba's cache, for code made of several files, and without the imports that it does before it loads any.

    Numba imports everything that compiled code might call, which takes 0.3 s where SciPy is installed. Our machine code
    calls Numba's runtime and the C library only.
    """

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        """Return what machine code is kept under: another package's is never loaded."""
        return (*super()._index_key(sig, codegen), _sources())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code that is kept for a signature, or None."""
        rtsys.initialize(target_context)
        try:
            return self._load_overload(sig, target_context)
        except Exception:  # damaged, or of a version whose types are gone: it is written anew
            self.flush()
            return None


class Kernel:
    """A compiled function that Python calls, one specialisation per signature.

    The entry point of a specialisation is called directly: Numba's dispatcher would look at the type of every
    argument again, and the caller has just done so.
    """

    def __init__(self, function: Callable[..., Any], allocates: bool = False) -> None:
        self._function, self._allocates = function, allocates

    def _dispatcher(self) -> Any:
        return numba.njit(no_cfunc_wrapper=True, _nrt=self._allocates, **FLAGS)(self._function)

    @cached_property
    def _plain(self) -> Any:
        return self._dispatcher()

    @cached_property
    def _kept(self) -> Any:
        dispatcher = self._dispatcher()
        try:
            dispatcher._cache = Cache(self._function)
        except RuntimeError:  # Numba found no folder that it could write to
            return self._plain
        return dispatcher

    def compile(self, signature: tuple[Any, ...], *, keep: bool = True) -> Callable[..., Any]:
        """Return the machine code for `signature`, from the cache folder if it is there and `keep` is true."""
        if numba.config.DISABLE_JIT:
            raise RuntimeError("NUMBA_DISABLE_JIT is set, but streamloss adds by compiled code alone; unset it")
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
        """Return the type for `function`; `name` identifies what it computes, in other processes too."""
        formula = cls(name)
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
    """Compile calls of `stub` as the function that the decorated one returns for the arguments' types."""
    options = {**INNER, "forceinline": True, "pipeline_class": RawParts, **options}
    return cast(Callable[[F], F], overload(stub, jit_options=options, strict=False))


def evaluate(formula: Any, label: float, prediction: float, parameters: tuple[float, ...]) -> float:
    """Evaluate the loss of one element, inside a kernel."""
    raise TypeError("evaluate exists in compiled code only")


# Calls that LLVM turns into instructions, with the same result in a vector as alone.
INSTRUCTIONS = r"llvm\.(fabs|sqrt|copysign|floor|ceil|trunc|rint|minnum|maxnum|minimum|maximum|s?u?min|s?u?max)\."


def _element_function(function: Callable[..., Any], parameters: int) -> Any:
    """Compile a formula: into the loop if it is arithmetic only, otherwise as a call of its own.

    Where Intel's SVML is installed, Numba computes sin, pow and their like by vectors in the body of a loop and one by
    one in its remainder, by another algorithm: the bits of a loss would depend on its place in the chunk. Through a
    call every element takes the same path. Logarithms and exponentials are arithmetic already, see formulas.py.
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
