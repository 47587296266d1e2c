"""Exact, streaming, weighted losses: the same bits for any chunking, order, thread count or merge."""

import typing as _typing
from importlib import import_module as _import_module

from ._threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "Accumulator",
    "GroupedAccumulator",
    "Loss",
    "Reduction",
    "compute_weighted_loss",
    "get_num_threads",
    "gradient",
    "losses",
    "mean_squared_error",
    "score",
    "set_num_threads",
    "warmup",
]

# All that is more than Numba is loaded when it is first used.
_LATER = {
    "Accumulator": "accumulator",
    "GroupedAccumulator": "grouped",
    "Loss": "losses",
    "Reduction": "reduction",
    "compute_weighted_loss": "one_shot",
    "gradient": "gradients",
    "mean_squared_error": "one_shot",
    "score": "files",
    "warmup": "warm",
}

if _typing.TYPE_CHECKING:
    from . import losses
    from .accumulator import Accumulator
    from .files import score
    from .gradients import gradient
    from .grouped import GroupedAccumulator
    from .losses import Loss
    from .one_shot import compute_weighted_loss, mean_squared_error
    from .reduction import Reduction
    from .warm import warmup
else:  # hidden from type checkers, which would otherwise accept any name

    def __getattr__(name: str) -> object:
        """Load a public name, or the module that one comes from, when it is first used."""
        if name in _LATER:
            value = globals()[name] = getattr(_import_module(f".{_LATER[name]}", __name__), name)
            return value
        if name in _LATER.values():
            return _import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List every name, loaded or not."""
        return sorted({*globals(), *_LATER, *_LATER.values()})
