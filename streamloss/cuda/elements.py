"""One element in the CUDA kernels: how it is read from arrays of any form, and which numbers it adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import cuda, float64, uint64
from numba.core import config

from .._jit import FLAGS
from ..exact import STATE_WORDS, SUM_WORDS, TERM_SQUARES, TERMS
from ..formulas import form_of
from ..losses import Loss
from .numerics import from_bfloat16, from_float16, place, product

SIMULATED = bool(config.ENABLE_CUDASIM)
THREADS = 4 if SIMULATED else 256  # of a block; where all is simulated, so few that small data spans several blocks
# A row of numbers, one from each thread of a block, is reduced to so many, and these to one: with 256 threads by steps
# of 16 numbers each, with the 128 of the kernel for squares by steps of 8 and of 16.
LANES = 2 if SIMULATED else 16
SLOTS = 2 if SIMULATED else 64  # copies of the state, so that not all blocks add to the same words


def _plain(value: Any) -> Any:
    return value


# In the simulator a kernel is Python; there, functions that use `cuda` are plain, and numbers are Python's own.
device: Callable[[Any], Any] = _plain if SIMULATED else cuda.jit(device=True, forceinline=True)
number: Any = float if SIMULATED else float64
unsigned: Any = int if SIMULATED else uint64


def compiled(loss: Loss) -> Any:
    """Return the formula of a loss for kernels to call; its logarithms and exponentials are the package's own."""
    formula = form_of(loss)
    return numba.njit(**FLAGS)(formula) if SIMULATED else cuda.jit(device=True, forceinline=True)(formula)


CONVERT = {**dict.fromkeys("fd?bBhHiIlLqQ", number), "e": from_float16, "E": from_bfloat16}
SMALL = frozenset("fEe?bBhHiI")


class Form(NamedTuple):
    """What a kernel is compiled for, beside its loss: the kinds of its operands, and what it does with them."""

    labels: str  # the character of a dtype; "E" for bfloat16
    predictions: str
    weights: str = ""  # "" for none, "1" for one number
    mask: str = ""  # "" for none
    out: str = ""  # "" for none
    axes: int = 0  # of the operands' common shape, where they have strides; 0 where all are contiguous
    omit: bool = False
    words: int = STATE_WORDS  # of a state
    squares: bool = False  # whether this is the kernel for the sums that come after STATE_WORDS
    grouped: bool = False  # whether every element goes to the state of its own group

    @property
    def threads(self) -> int:
        """The threads of a block: the numbers that they share at the end must fit 48 KiB."""
        return THREADS // 2 if self.squares else THREADS

    @property
    def share(self) -> int:
        """The elements of a tile that a thread takes: as many as keep the memory busy and fit the registers."""
        return 8 if set(self.labels + self.predictions) <= SMALL and not self.squares else 4

    @property
    def tile(self) -> int:
        """The elements of a tile."""
        return self.share * self.threads

    @property
    def sums(self) -> int:
        """How many numbers an element adds: two for a product; none for a weight that all share, which is counted."""
        if self.squares:
            return 3 if self.weights == "" and not self.grouped else 6
        return 1 if self.weights in ("", "1") and not self.grouped else 2


def locator(form: Form) -> Any:
    """Return a function that finds the index of an element in the memory of an operand."""
    if form.axes:

        @device
        def at(position: int, shape: Any, strides: Any) -> Any:
            return unsigned(place(position, shape, strides))
    else:

        @device
        def at(position: int, shape: Any, strides: Any) -> Any:
            return unsigned(position)

    return at


def reader(form: Form, formula: Any) -> Any:
    """Return a function that reads an element: (term, weight, whether the mask keeps it, whether it is added).

    Term and weight are 0 if it is not added, since the mask or a NaN excludes it.
    """
    at, to_label, to_prediction = locator(form), CONVERT[form.labels], CONVERT[form.predictions]

    if form.weights == "":

        @device
        def weight_of(weights: Any, position: int, shape: Any, strides: Any) -> float:
            return 1.0
    elif form.weights == "1":

        @device
        def weight_of(weights: Any, position: int, shape: Any, strides: Any) -> float:
            return weights
    else:
        to_weight = CONVERT[form.weights]

        @device
        def weight_of(weights: Any, position: int, shape: Any, strides: Any) -> float:
            return to_weight(weights[at(position, shape, strides)])

    if form.mask == "":

        @device
        def here_in(mask: Any, position: int, shape: Any, strides: Any) -> bool:
            return True
    else:

        @device
        def here_in(mask: Any, position: int, shape: Any, strides: Any) -> bool:
            return mask[at(position, shape, strides)] != 0

    if form.omit:

        @device
        def is_kept(label: float, prediction: float, weight: float) -> bool:
            return (label == label) & (prediction == prediction) & (weight == weight)
    else:

        @device
        def is_kept(label: float, prediction: float, weight: float) -> bool:
            return True

    if form.out == "":

        @device
        def write(out: Any, position: int, shape: Any, strides: Any, term: float) -> None:
            pass
    else:

        @device
        def write(out: Any, position: int, shape: Any, strides: Any, term: float) -> None:
            out[at(position, shape, strides)] = term

    @device
    def read(chunk: Any, position: int) -> Any:
        operands, geometry, parameters = chunk
        labels, predictions, weights, mask, out = operands
        shape, label_strides, prediction_strides, weight_strides, mask_strides, out_strides = geometry
        label = to_label(labels[at(position, shape, label_strides)])
        prediction = to_prediction(predictions[at(position, shape, prediction_strides)])
        weight = weight_of(weights, position, shape, weight_strides)
        here = here_in(mask, position, shape, mask_strides)
        keep = here & is_kept(label, prediction, weight)
        term = weight * number(formula(label, prediction, *parameters))
        write(out, position, shape, out_strides, term if keep else np.nan)
        return (term if keep else 0.0), (weight if keep else 0.0), here, keep

    return read


def summands(form: Form) -> Any:
    """Return a function that makes the numbers that an element adds of its term and its weight."""
    if not form.squares:
        return device(lambda term, weight: (term,)) if form.sums == 1 else device(lambda term, weight: (term, weight))
    if form.sums == 3:
        return device(lambda term, weight: (*product(term, term), term))
    return device(lambda term, weight: product(term, term) + product(term, weight) + product(weight, weight))


def sum_locator(form: Form) -> Any:
    """Return a function that finds where the sum for one of the `summands` begins in the state at `state`."""
    first = TERM_SQUARES if form.squares else TERMS
    per_sum = 2 if form.squares else 1

    @device
    def place_of(state: int, number: int) -> int:
        return state + first + number // per_sum * SUM_WORDS

    return place_of
