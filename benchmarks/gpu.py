"""What an update of device arrays costs on a GPU, beside a copy and what else adds up there.

Every answer is compared, bit for bit, with that of the CPU. Run with `python -m benchmarks gpu`; the figures go to
benchmarks/results/gpu-<card>-<date>.json and .md.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import streamloss

from .report import table

RESULTS = Path(__file__).parent / "results"
LARGE = [10**6, 10**7, 10**8, 10**9]
COMPILED = 10**8  # elements, from which torch.compile takes part: each size is compiled anew, for seconds
SMALL = [32, 256, 2048, 16_384, 65_536]


def timed(torch: Any, call: Callable[[], object], repeats: int) -> float:
    """Seconds for one call on the device, by its own clock, the best of several runs of several calls."""
    call()
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    calls, best = 1, float("inf")
    for _ in range(repeats):
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        seconds = begin.elapsed_time(end) / 1e3 / calls
        best = min(best, seconds)
        calls = max(1, min(200, int(5e-3 / seconds)))
    return best


def host_time(torch: Any, call: Callable[[], object]) -> float:
    """Microseconds until a call returns, while the device has work queued."""
    for _ in range(20):
        call()
    torch.cuda.synchronize()
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        for _ in range(100):
            call()
        best = min(best, (time.perf_counter() - begin) / 100)
        torch.cuda.synchronize()
    return best * 1e6


def rivals(torch: Any, y: Any, p: Any, w: Any) -> dict[str, Callable[[], object]]:
    """What else computes a weighted squared error on the device."""
    functional = torch.nn.functional

    def eager() -> object:
        return functional.mse_loss(p, y) if w is None else (w * (p - y) ** 2).sum() / w.sum()

    calls: dict[str, Callable[[], object]] = {"torch eager": eager}
    if y.numel() >= COMPILED:
        torch._dynamo.reset()  # what it made for the size before, of which it keeps a few only
        calls["torch.compile"] = torch.compile(eager, dynamic=False)
    if importlib.util.find_spec("cupy"):
        import cupy

        cy, cp = cupy.asarray(y), cupy.asarray(p)
        if w is None:
            fused = cupy.ReductionKernel(
                "T y, T p", "float64 s", "((double)p - y) * ((double)p - y)", "a + b", "s = a", "0"
            )
            calls["CuPy, fused"] = lambda: fused(cy, cp)
        else:
            cw = cupy.asarray(w)
            weighted = cupy.ReductionKernel(
                "T y, T p, T w", "float64 s", "(double)w * ((double)p - y) * ((double)p - y)", "a + b", "s = a", "0"
            )
            calls["CuPy, fused"] = lambda: weighted(cy, cp, cw)
    if w is None and importlib.util.find_spec("cuda.compute"):
        deterministic = _cub(y)
        if deterministic is not None:
            calls["CUB, deterministic sum of one array"] = deterministic
    return calls


def _cub(values: Any) -> Callable[[], object] | None:
    """CUB's device-wide reduction, as cuda.cccl offers it; None where this version does not."""
    try:
        import torch
        from cuda.compute import OpKind, reduce_into

        out = torch.zeros(1, dtype=values.dtype, device=values.device)
        initial = np.zeros(1, str(values.dtype).removeprefix("torch."))

        def call() -> object:
            return reduce_into(values, out, OpKind.PLUS, values.numel(), initial)

        call()
    except Exception as error:
        print(f"CUB is left out: {error}")
        return None
    return call


def bandwidth(torch: Any, largest: int, repeats: int) -> list[dict[str, Any]]:
    """Bytes read per second, as a fraction of what a copy on the device reads and writes."""
    rows = []
    for dtype in (torch.float32, torch.float64):
        for weighted in (False, True):
            for size in (n for n in LARGE if n <= largest):
                memory = torch.cuda.get_device_properties(0).total_memory
                if size * (2 + weighted) * dtype.itemsize <= 0.3 * memory:  # the rivals need as much again
                    rows.append(one_size(torch, dtype, weighted, size, repeats))
                    print(rows[-1], flush=True)
                    torch.cuda.empty_cache()
    return rows


def one_size(torch: Any, dtype: Any, weighted: bool, size: int, repeats: int) -> dict[str, Any]:
    """A row of the table of bandwidths."""
    torch.manual_seed(size)
    y, p = torch.randn(size, dtype=dtype, device="cuda"), torch.randn(size, dtype=dtype, device="cuda")
    w = torch.rand(size, dtype=dtype, device="cuda") if weighted else None
    check(y, p, w)
    read = (2 + weighted) * y.numel() * y.element_size()
    target = torch.empty_like(y)
    copied = 2 * y.numel() * y.element_size() / timed(torch, lambda: target.copy_(y), repeats)
    accumulator = streamloss.Accumulator()
    seconds = timed(torch, lambda: accumulator.update(y, p, w), repeats)
    row = {
        "dtype": str(dtype).removeprefix("torch."),
        "weights": weighted,
        "elements": size,
        "GB/s": read / seconds / 1e9,
        "device copy GB/s": copied / 1e9,
        "of the copy": read / seconds / copied,
    }
    for name, call in rivals(torch, y, p, w).items():
        try:
            row[f"times {name}"] = timed(torch, call, repeats) / seconds
        except Exception as error:  # a compiler that this machine lacks, say
            print(f"{name} is left out: {str(error).splitlines()[:1]}")
    return row


def check(y: Any, p: Any, w: Any) -> None:
    """Assert that the device gives the bits of the CPU."""
    on_device = streamloss.Accumulator().update(y, p, w)
    host: Any = [None if a is None else a.cpu().numpy() for a in (y, p, w)]
    on_host = streamloss.Accumulator().update(*host)
    assert on_device.state.tobytes() == on_host.state.tobytes()


def launches(torch: Any, size: int) -> dict[str, Any]:
    """Microseconds of host work for an update of few elements."""
    y, p = torch.randn(size, device="cuda"), torch.randn(size, device="cuda")
    accumulator = streamloss.Accumulator()
    check(y, p, None)
    row: dict[str, Any] = {
        "elements": size,
        "update, torch tensors": host_time(torch, lambda: accumulator.update(y, p)),
        "torch, p - y": host_time(torch, lambda: p - y),
        "torch, mse_loss": host_time(torch, lambda: torch.nn.functional.mse_loss(p, y)),
    }
    if importlib.util.find_spec("cupy"):
        import cupy

        cy, cp = cupy.asarray(y), cupy.asarray(p)
        row["update, CuPy arrays"] = host_time(torch, lambda: accumulator.update(cy, cp))
    return row


def unsynchronised(torch: Any) -> dict[str, Any]:
    """A thousand updates behind a kernel that keeps the device busy: does the host come back before it is done?"""
    y, p = torch.randn(65_536, device="cuda"), torch.randn(65_536, device="cuda")
    accumulator = streamloss.Accumulator().update(y, p)
    accumulator.result()
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)
    begin = time.perf_counter()
    for _ in range(1000):
        accumulator.update(y, p)
    queued = time.perf_counter() - begin
    done.record()
    busy = not done.query()
    torch.cuda.synchronize()
    return {"1,000 updates queued in s": queued, "device done in s": time.perf_counter() - begin, "still busy": busy}


def from_the_host(torch: Any, repeats: int) -> list[dict[str, Any]]:
    """Host arrays for the device, against a copy of as many bytes."""
    size = 20_000_000
    rng = np.random.default_rng(0)
    y, p = rng.random(size, dtype=np.float32), rng.random(size, dtype=np.float32)
    accumulator = streamloss.Accumulator(device="cuda")
    assert accumulator.update(y, p) == streamloss.Accumulator().update(y, p)
    room = torch.empty(size, device="cuda")
    source = torch.from_numpy(y).pin_memory()
    best = {"update": float("inf"), "copy of pinned memory": float("inf")}
    for _ in range(repeats):
        begin = time.perf_counter()
        accumulator.update(y, p)
        torch.cuda.synchronize()
        best["update"] = min(best["update"], time.perf_counter() - begin)
        begin = time.perf_counter()
        room.copy_(source, non_blocking=True)
        room.copy_(source, non_blocking=True)
        torch.cuda.synchronize()
        best["copy of pinned memory"] = min(best["copy of pinned memory"], time.perf_counter() - begin)
    return [{"what": name, "GB/s": 2 * y.nbytes / seconds / 1e9} for name, seconds in best.items()]


def run(quick: bool) -> None:
    """Measure everything, print it and keep it."""
    if not importlib.util.find_spec("torch"):
        raise SystemExit("the GPU benchmark needs torch, built for CUDA")
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device that torch can use: nothing was measured")
    card = torch.cuda.get_device_name(0)
    begin = time.perf_counter()
    streamloss.Accumulator().update(torch.zeros(9, device="cuda"), torch.ones(9, device="cuda")).result()
    first = time.perf_counter() - begin

    sections: dict[str, list[dict[str, Any]]] = {
        "Large updates": bandwidth(torch, 10**7 if quick else 10**9, 3 if quick else 9),
        "Host work of an update, microseconds": [launches(torch, size) for size in SMALL],
        "Updates without synchronisation": [unsynchronised(torch)],
        "Arrays from the host": from_the_host(torch, 3 if quick else 9),
        "Cold start": [{"first result, s": first}],
    }
    header = f"{datetime.date.today()}: {card}, torch {torch.__version__}, streamloss {streamloss.__version__}"
    tables = (f"## {title}\n\n{_tables(rows)}\n" for title, rows in sections.items())
    text = "\n".join([f"# {header}\n", *tables])
    print(text)
    RESULTS.mkdir(exist_ok=True)
    name = f"gpu-{re.sub(r'[^A-Za-z0-9]+', '-', card).strip('-').lower()}-{datetime.date.today()}"
    (RESULTS / f"{name}.json").write_text(json.dumps({"header": header, **sections}, indent=1))
    (RESULTS / f"{name}.md").write_text(text)


def _tables(rows: list[dict[str, Any]]) -> str:
    """Rows as tables, one for each set of columns."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    return "\n\n".join(table(kind) for kind in kinds.values())
