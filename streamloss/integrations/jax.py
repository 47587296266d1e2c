"""JAX: exact sums inside `jit` and across devices, and a state for `jax.lax.psum`.

pip install 'streamloss[jax]'
"""

from __future__ import annotations

from typing import Any, NamedTuple

try:
    import jax
except ImportError as error:
    raise ImportError("streamloss.integrations.jax needs JAX: pip install 'streamloss[jax]'") from error

import jax.numpy as jnp
import numpy as np

from ..accumulator import Accumulator
from ..arrays import broadcastable, no_mask, no_number
from ..losses import Formula, Loss, as_loss
from ..mergeable import NanPolicy
from ..reduction import Reduction
from ._tensors import Operations, chunk_state, joined

LIMB_BITS = 16
LIMBS = 64 // LIMB_BITS

OPERATIONS = Operations(
    xp=jnp,
    float64=lambda array: jnp.asarray(array, jnp.float64),
    int64=lambda array: jnp.asarray(array, jnp.int64),
    bits=lambda array: jax.lax.bitcast_convert_type(array, jnp.int64),
    scatter=lambda amounts, indices, length: jnp.zeros(length, jnp.int64).at[indices].add(amounts),
    flat=lambda array: array.reshape(-1),
    constant=lambda values, array: jnp.array(values, jnp.float64),
)


class State(NamedTuple):
    """A pytree: the words of a state, in limbs of 16 bits in int32, which JAX has without being told to use 64 bits.

    States of up to 32,768 devices add up: `jax.lax.psum(state, axis)`, or `jax.tree.map(jnp.add, a, b)`.
    """

    limbs: jax.Array


def empty() -> State:
    """Return the state that has seen nothing."""
    return pack(Accumulator())


def pack(accumulator: Accumulator) -> State:
    """Return the state of an accumulator, for JAX to carry and add."""
    words = accumulator.state.astype("<i8")
    limbs = words.view("<u2").reshape(-1, LIMBS).astype(np.int32)
    limbs[:, -1] = limbs[:, -1].astype(np.int16)  # the highest bears the sign
    return State(jnp.asarray(limbs))


def unpack(
    state: State,
    loss: str | Loss | Formula = "squared_error",
    *,
    reduction: str | Reduction = Reduction.MEAN,
    nan: NanPolicy = "propagate",
) -> Accumulator:
    """Return the accumulator with that state, which may be a sum of states."""
    limbs = np.asarray(state.limbs).astype(np.int64)
    words = (limbs << (LIMB_BITS * np.arange(LIMBS))).sum(1)
    return Accumulator.from_state(words, loss, reduction=reduction, nan=nan)


def update(
    state: State,
    labels: Any,
    predictions: Any,
    weights: Any = None,
    *,
    mask: Any = None,
    loss: str | Loss | Formula = "squared_error",
    nan: NanPolicy = "propagate",
) -> State:
    """Return a state with a chunk added to it, exactly: a pure function, for `jit`, `scan`, `shard_map` and any device.

    Arrays stay where they are: the digits are cut there, and nothing is copied to the host. The loss must be made of
    + - * / sqrt abs and comparisons, so that its terms have the bits that the kernels give them.

    Parameters
    ----------
    state : State
        Of the chunks before, see `empty`.
    labels, predictions, weights, mask : array
        As for `streamloss.Accumulator.update`.
    loss : str, Loss or callable, default "squared_error"
        The same for all chunks; static under `jit`, as in the second example.
    nan : {"propagate", "omit"}, default "propagate"
        As for `streamloss.Accumulator`; static under `jit`.

    Raises
    ------
    ValueError
        For shapes that do not fit, and for nan="raise": compiled code cannot look at the data.
    TypeError
        For losses with log or exp, and for a loss or nan that `jit` has traced.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from streamloss.integrations.jax import empty, unpack, update
    >>> step = jax.jit(update)
    >>> state = empty()
    >>> for labels in (jnp.array([1.0, 2.0]), jnp.array([4.0])):
    ...     state = step(state, labels, jnp.zeros(len(labels)))
    >>> unpack(state).result()
    7.0

    Another loss and policy for NaN are static arguments of the compiled function:

    >>> step = jax.jit(update, static_argnames=("loss", "nan"))
    >>> state = step(empty(), jnp.array([1.0, jnp.nan]), jnp.zeros(2), loss="absolute_error", nan="omit")
    >>> unpack(state, "absolute_error", nan="omit")
    Accumulator(absolute_error, n=1, skipped=1, mean=1.0)

    """
    if isinstance(loss, jax.core.Tracer) or isinstance(nan, jax.core.Tracer):
        raise TypeError('loss and nan must be static: jax.jit(update, static_argnames=("loss", "nan"))')
    if nan not in ("propagate", "omit"):
        raise ValueError(f"nan must be 'propagate' or 'omit' here, got {nan!r}")
    with jax.enable_x64(True):
        labels, predictions = jnp.asarray(labels), jnp.asarray(predictions)
        if labels.shape != predictions.shape:
            raise ValueError(
                f"labels and predictions must have the same shape, got {labels.shape} and {predictions.shape}"
            )
        weight, kept = (
            None
            if value is None
            else jnp.broadcast_to(broadcastable(name, jnp.asarray(value), labels.shape), labels.shape)
            for name, value in (("weights", weights), ("mask", mask))
        )
        for name, value in (("labels", labels), ("predictions", predictions), ("weights", weight)):
            if value is not None and jnp.issubdtype(value.dtype, jnp.complexfloating):
                raise no_number(name, value.dtype)
        if kept is not None and kept.dtype != bool:
            raise no_mask(kept.dtype)
        added = chunk_state(OPERATIONS, as_loss(loss), labels, predictions, weight, kept, nan == "omit")
        shifts = LIMB_BITS * jnp.arange(LIMBS, dtype=jnp.int64)
        words = joined(OPERATIONS, added, (state.limbs.astype(jnp.int64) << shifts).sum(1))
        limbs = (words[:, None] >> shifts) & ((1 << LIMB_BITS) - 1)
        top = words[:, None] >> shifts[-1:]
        return State(jnp.concatenate((limbs[:, :-1], top), axis=1).astype(jnp.int32))
