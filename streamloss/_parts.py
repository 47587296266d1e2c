"""Compilers for helpers that become machine code only as parts of the kernels that call them.

Numba optimises every function and makes machine code of it before another one may call it, and does both again in the
caller that it is linked into. For functions that Python never calls, once is enough: with an empty cache folder, the
first result then takes two thirds of the time.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

NO_MACHINE_CODE = SimpleNamespace(set_env=lambda name, env: None)


class Optimised(JITCodeLibrary):
    """A helper's code, optimised and ready to be linked, in LLVM's representation only."""

    def _finalize_final_module(self) -> None:
        for function in self.get_defined_functions():
            if function.linkage.name == "external":
                function.linkage = "linkonce_odr"  # as Numba does, since a function may be linked twice
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0: a helper has no address that Python could call."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """A stand-in for what registers the objects that code refers to: helpers refer to none."""
        return NO_MACHINE_CODE


class Raw(Optimised):
    """A helper's code as it was written: LLVM optimises it in the kernel only."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass


class RawParts(Compiler):
    """Compiles helpers into `Raw` code."""

    def __init__(self, typing: Any, target: Any, library: Any, *further: Any) -> None:
        super().__init__(typing, target, Raw(target.codegen(), "part"), *further)


class OptimisedParts(Compiler):
    """Compiles helpers into `Optimised` code."""

    def __init__(self, typing: Any, target: Any, library: Any, *further: Any) -> None:
        super().__init__(typing, target, Optimised(target.codegen(), "part"), *further)
