"""Exact, streaming, weighted losses: the same bits for any chunking, order, thread count or merge."""

from . import losses
from ._threads import get_num_threads, set_num_threads
from .accumulator import Accumulator
from .files import score
from .gradients import gradient
from .grouped import GroupedAccumulator
from .losses import Loss
from .one_shot import compute_weighted_loss, mean_squared_error
from .reduction import Reduction
from .warm import warmup

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
