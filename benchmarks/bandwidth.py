"""How fast large chunks are added, as a fraction of how fast they can be read at all."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import streamloss

from .machine import read_all, time_in_turns

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Workload:
    """Labels, predictions and perhaps weights of a dtype, and the exact answer by integer arithmetic."""

    name: str
    dtype: type
    weighted: bool

    def arrays(self, megabytes: float) -> Arrays:
        """Seeded arrays of about that many megabytes in all.

        All numbers are small multiples of 2**-8, so that an exact answer can be had by integers alone.
        """
        rng = np.random.default_rng(20)
        columns = 3 if self.weighted else 2
        size = int(megabytes * 1e6 / columns / np.dtype(self.dtype).itemsize) // 1024 * 1024
        made = {
            "labels": rng.integers(-(2**12), 2**12, size, dtype=np.int16),
            "predictions": rng.integers(-(2**12), 2**12, size, dtype=np.int16),
        }
        if self.weighted:
            made["weights"] = rng.integers(0, 2**8, size, dtype=np.int16)
        return {name: values.astype(self.dtype) / self.dtype(256) for name, values in made.items()}

    def answer(self, arrays: Arrays) -> float:
        """sum(w * (p - y)**2) / sum(w), by exact integers."""
        top = bottom = 0
        size = arrays["labels"].size
        for start in range(0, size, 1 << 20):
            y, p, w = (
                (arrays[name][start : start + (1 << 20)].astype(np.float64) * 256).astype(np.int64)
                if name in arrays
                else np.int64(256)
                for name in ("labels", "predictions", "weights")
            )
            top += int((w * (p - y) ** 2).sum())
            bottom += int(w.sum()) if "weights" in arrays else 256 * y.size
        return top / (bottom << 16)


WORKLOADS = [
    Workload("float32", np.float32, False),
    Workload("float32, weights", np.float32, True),
    Workload("float64", np.float64, False),
    Workload("float64, weights", np.float64, True),
]


def streamloss_update(a: Arrays) -> float:
    """An accumulator, as users call it."""
    return streamloss.Accumulator().update(a["labels"], a["predictions"], a.get("weights")).result("mean")


def numpy_average(a: Arrays) -> float:
    """The expression most people write."""
    losses = (a["labels"] - a["predictions"]) ** 2
    return float(np.average(losses, weights=a["weights"]) if "weights" in a else losses.mean())


def torch_mse(a: Arrays) -> float:
    """Torch's own loss, on all its threads."""
    import torch

    y, p = torch.from_numpy(a["labels"]), torch.from_numpy(a["predictions"])
    if "weights" not in a:
        return float(torch.nn.functional.mse_loss(p, y))
    w = torch.from_numpy(a["weights"])
    return float((w * (p - y) ** 2).sum() / w.sum())


def sklearn_mse(a: Arrays) -> float:
    """scikit-learn's metric."""
    from sklearn.metrics import mean_squared_error

    return float(mean_squared_error(a["labels"], a["predictions"], sample_weight=a.get("weights")))


RIVALS: dict[str, tuple[str, Callable[[Arrays], float]]] = {
    "streamloss": ("streamloss", streamloss_update),
    "NumPy": ("numpy", numpy_average),
    "torch": ("torch", torch_mse),
    "scikit-learn": ("sklearn", sklearn_mse),
}


def run(megabytes: float, repeats: int) -> list[dict[str, Any]]:
    """One row for each workload and library: seconds, bytes per second, fraction of the roof, error in ulp."""
    rows = []
    for workload in WORKLOADS:
        arrays = workload.arrays(megabytes)
        expected = workload.answer(arrays)
        total = sum(array.nbytes for array in arrays.values())
        calls: dict[str, Callable[[], Any]] = {"read": partial(read_all, list(arrays.values()))}
        for name, (module, function) in RIVALS.items():
            if importlib.util.find_spec(module):
                calls[name] = partial(function, arrays)
        timed = time_in_turns(calls, repeats)
        assert timed["streamloss"].result == expected, f"{workload.name}: {timed['streamloss']} is not {expected}"
        for name, (seconds, result) in timed.items():
            error = 0.0 if name == "read" else abs(result - expected)
            assert error < 1e-4 * expected, f"{name} answers {result}, not {expected}"
            rows.append(
                {
                    "workload": f"{workload.name}, {total / 1e6:.0f} MB",
                    "what": name,
                    "milliseconds": seconds * 1e3,
                    "GB/s": total / seconds / 1e9,
                    "of the roof": timed["read"].seconds / seconds,
                    "error, ulp of float64": "" if name == "read" else error / float(np.spacing(expected)),
                }
            )
    return rows
