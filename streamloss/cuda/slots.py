"""The CUDA kernels that know of no loss: they carry the sums of states, and move states to others."""

from __future__ import annotations

from typing import Any

from numba import cuda

from ..exact import COUNTS, DIGIT_BITS, FIRST_DIGIT, SUM_WORDS
from .elements import SLOTS


def carry_slots(words: Any, sums: int) -> None:
    """Carry the sums in all slots, each by one thread, by additions alone: others may add at the same time."""
    first, step = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.gridDim.x * cuda.blockDim.x
    for number in range(first, SLOTS * sums, step):
        start = number // sums * (COUNTS + sums * SUM_WORDS) + COUNTS + number % sums * SUM_WORDS
        for i in range(start + FIRST_DIGIT, start + SUM_WORDS - 1):
            over = words[i] >> DIGIT_BITS
            if over != 0:
                cuda.atomic.add(words, i, -(over << DIGIT_BITS))
                cuda.atomic.add(words, i + 1, over)


def move_words(source: Any, target: Any, size: int) -> None:
    """Add words to others, and leave zeros."""
    first, step = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, cuda.gridDim.x * cuda.blockDim.x
    for i in range(first, size, step):
        word = source[i]
        if word != 0:
            cuda.atomic.add(target, i, word)
            source[i] = 0
