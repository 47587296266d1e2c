"""The calls of CUDA's driver, by the real bindings and with real machine code, on a driver that only pretends.

It knows of contexts, streams and memory what NVIDIA's does, as pretended_driver.c says; kernels do nothing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cuda.bindings.driver", reason="needs numba-cuda", exc_type=ImportError)

pytestmark = [
    pytest.mark.ptx,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the pretended driver"),
]
BEFORE = """
import threading
import numpy as np
from cuda.bindings import driver as cu
from streamloss import Accumulator, GroupedAccumulator, mean_squared_error

class OnDevice:
    def __init__(self, array, device=0, stream=1):
        cu.cuInit(0)
        cu.cuCtxPushCurrent(cu.cuDevicePrimaryCtxRetain(device)[1])
        _, address = cu.cuMemAlloc(array.nbytes)
        cu.cuMemcpyHtoD(address, array.ctypes.data, array.nbytes)
        cu.cuCtxPopCurrent()
        described = dict(shape=array.shape, typestr=array.dtype.str, data=(int(address), False))
        self.__cuda_array_interface__ = dict(**described, stream=stream, version=3)

y = np.arange(10.0)
a, b = OnDevice(y), OnDevice(y)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder of the pretended driver."""
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("pretended_driver.c")
    flags = ["-shared", "-fPIC", "-O1", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, source, "-o", folder / "libcuda.so.1", "-ldl"], check=True)
    return folder


def said(driver, script, **environment):
    """What the driver says of a script, by the lines that the script prints between."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": "0,1", **environment}
    command = [sys.executable, "-u", "-c", BEFORE + script]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {}
    for line in done.stdout.splitlines():
        if line.startswith("= "):
            part = parts.setdefault(line[2:], [])
        elif parts:
            part.append(line)
    return parts


EVERYTHING = """
def everything():
    device = 1
    a, b, c, out = (OnDevice(y, device) for _ in range(4))
    total = Accumulator(stderr=True).update(a, b)
    total.update(a, b, 2.0, mask=False).update(a, b, c, mask=OnDevice(y > 3, device), out=out)
    total.result(), total.copy()
    Accumulator(nan="raise").update(a, b)
    Accumulator(nan="omit").update_losses(a)
    mean_squared_error(a, b, reduction="none")
    for by in (np.arange(10) % 3, OnDevice(np.arange(10) % 3, device)):
        GroupedAccumulator(stderr=True).update(a, b, by=by)
    long = np.ones(600_000)
    Accumulator(device=f"cuda:{device}").update(y, y, out=y.copy()).update(long, long).result()
    done.append(device)

done = []
thread = threading.Thread(target=everything)  # which uses no device so far
thread.start()
thread.join()
assert done
"""


def test_every_call_has_its_context_whatever_device_the_thread_uses(driver):
    said(driver, EVERYTHING)


UPDATES = """
print("= first")
total = Accumulator().update(a, b)
for _ in range(40):
    Accumulator().update(a, b)
print("= two streams")
total.update(OnDevice(y, stream=1), OnDevice(y, stream=2))
print("= result")
total.result()
print("= again")
for _ in range(40):
    Accumulator().update(a, OnDevice(y, stream=0))
"""


def test_updates_wait_for_nothing_and_streams_for_each_other(driver):
    parts = said(driver, UPDATES)
    assert parts["first"] == ["launch on 1"] * 41
    assert parts["two streams"] == ["record 2", "1 waits", "launch on 1", "record 1", "2 waits"]
    assert parts["result"] == ["wait for device 0", "copy to the host"]
    assert parts["again"] == ["launch on 1"] * 40


CAPTURED = """
try:
    Accumulator().update(a, b)
except RuntimeError as error:
    print("=", error)
"""


def test_an_update_is_not_captured_in_a_graph(driver):
    (error,) = said(driver, CAPTURED, PRETEND_CAPTURE="1")
    assert error.startswith("an update cannot be captured in a CUDA graph")


WITHOUT_NVVM = """
import streamloss.cuda.driver
def missing(name):
    raise RuntimeError(f"no lib{name}.so")
streamloss.cuda.driver.load_nvidia_dynamic_lib = missing
try:
    Accumulator().update(a, b)
except RuntimeError as error:
    print("=", error)
"""


def test_a_missing_compiler_is_named(driver):
    (error,) = said(driver, WITHOUT_NVVM)
    assert "nvvm" in error
    assert "pip install 'streamloss[cuda13]'" in error
