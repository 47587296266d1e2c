"""The arrays that large updates are measured on: rows of a table, seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from . import exactly
from .machine import Array

Arrays: TypeAlias = dict[str, Array]
DIMENSIONS = 8  # of labels whose weights are those of samples


@dataclass(frozen=True)
class Workload:
    """Labels and predictions of a dtype, perhaps with weights or a mask."""

    name: str
    dtype: type
    weights: Literal["", "element", "sample"] = ""
    masked: bool = False

    def arrays(self, megabytes: float) -> Arrays:
        """Normal labels, predictions with normal errors, uniform weights, a mask that keeps three in four.

        About that many megabytes in all, a multiple of 1024 elements.
        """
        rng = np.random.default_rng(20)
        dtype = np.dtype(self.dtype)
        per_element = dtype.itemsize * (2 + {"": 0, "element": 1, "sample": 1 / DIMENSIONS}[self.weights]) + self.masked
        size = max(1024, int(megabytes * 1e6 / per_element) // 1024 * 1024)
        shape = (size // DIMENSIONS, DIMENSIONS) if self.weights == "sample" else (size,)
        made: Arrays = {
            "labels": rng.standard_normal(shape, dtype=self.dtype),
            "predictions": rng.standard_normal(shape, dtype=self.dtype),
        }
        made["predictions"] += made["labels"]
        if self.weights:
            made["weights"] = rng.random(shape[0], dtype=self.dtype)
        if self.masked:
            made["mask"] = rng.random(size, dtype=np.float32) < 0.75
        return made

    def answer(self, arrays: Arrays) -> float:
        """The exact mean."""
        return exactly.squared_error(**arrays)


WORKLOADS = [
    Workload(f"{dtype.__name__}{name}", dtype, **options)  # type: ignore[arg-type]  # rows of a table, of mixed types
    for dtype in (np.float32, np.float64)
    for name, options in {
        "": {},
        ", weights": {"weights": "element"},
        ", weights of samples (n, 8)": {"weights": "sample"},
        ", mask": {"masked": True},
    }.items()
]
