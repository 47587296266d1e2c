"""Threads, forks, pools and cache folders: the same bits, and never a crash or a hang.

What could end or block the process runs in a process of its own.
"""

import importlib
import itertools
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

import numba
import numpy as np
import pytest
from numba.core import types
from numba.core.codegen import JitEngine

import streamloss
from streamloss import Accumulator, _jit, _threads
from streamloss.cpu import updates
from streamloss.cpu.operands import BLOCK, PORTION, portion, read_ahead
from streamloss.formulas import compiled_form
from streamloss.intrinsics import not_inlined
from streamloss.losses import LOSSES
from tests.interrupts import at_every_step

# Rows that single-threaded and shared updates of the parent process and of all others add up.
ROWS = """
import hashlib, os, sys, threading
import numpy as np
import streamloss
from streamloss import Accumulator
from streamloss.cpu import updates

updates.ALONE = 0.0
rng = np.random.default_rng(5)
y, p = rng.normal(size=(2, 600_000)) * 2.0 ** rng.integers(-40, 40, 600_000)
SMALL = [slice(k, k + 1000) for k in range(0, 200_000, 1000)]

def bits(acc):
    return hashlib.sha256(acc.state.tobytes()).hexdigest()

def whole():
    return bits(Accumulator().update(y, p))
"""


def run(script, *, timeout=100, cwd=None, **env):
    """Run a script with warnings as errors, and return what it printed; None in `env` unsets a variable."""
    changed = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
    # Python 3.12 and later warn of every fork of a process with threads, which is what is tested here.
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    command = [sys.executable, *warnings, "-c", ROWS + script]
    done = subprocess.run(command, env=changed, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.fixture(scope="module")
def rows():
    names = {}
    exec(ROWS, names)
    return names


@pytest.fixture(autouse=True)
def default_threads():
    yield
    streamloss.set_num_threads(None)


@pytest.fixture(scope="module")
def expected(rows):
    streamloss.set_num_threads(1)
    acc = Accumulator().update(rows["y"], rows["p"])
    error = rows["p"] - rows["y"]
    assert acc.loss_sum == math.fsum((error * error).tolist())
    return rows["bits"](acc)


# ------------------------------------------------------------------------------------------------- threads

TOGETHER = """
import numba

@numba.njit(parallel=True)
def numbas_own(values):
    total = 0.0
    for i in numba.prange(values.size):
        total += values[i]
    return total

numbas_own(np.ones(10))

def together(*works):
    errors = []
    begin = threading.Barrier(len(works))
    def guarded(work):
        begin.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert numbas_own(np.ones(10_000)) == 10_000
    for thread in threads:
        thread.join()
    assert not errors, errors

def small(acc, number):
    for s in SMALL[number::8]:
        acc.update(y[s], p[s])

def large(acc, number):
    acc.update(y[200_000:], p[200_000:])

for work in small, large:
    shared, own = Accumulator(), [Accumulator() for _ in range(8)]
    together(*(lambda k=k: work(shared, k) for k in range(8)))
    together(*(lambda k=k: work(own[k], k) for k in range(8)))
    assert shared == sum(own)
    print(bits(shared))
"""


def can_be_loaded(layer):
    pool = {"omp": "omppool", "workqueue": "workqueue", "tbb": "tbbpool"}[layer]
    try:
        importlib.import_module(f"numba.np.ufunc.{pool}")
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def expected_together(rows):
    y, p = rows["y"], rows["p"]
    streamloss.set_num_threads(1)
    small, large = Accumulator().update(y[:200_000], p[:200_000]), Accumulator().update(y[200_000:], p[200_000:])
    return [rows["bits"](small), rows["bits"](sum([large] * 8))]


LAYERS = [layer for layer in ("omp", "workqueue", "tbb") if can_be_loaded(layer)]


@pytest.mark.parametrize("layer", LAYERS)
def test_eight_threads_update_at_once_beside_any_threading_layer(layer, expected_together):
    assert run(TOGETHER, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="3") == expected_together


@pytest.mark.parametrize("threads", [1, 2, 4, 7, None])
def test_the_number_of_threads_changes_no_bit(threads, rows, expected):
    streamloss.set_num_threads(threads)
    assert rows["whole"]() == expected
    staged = Accumulator().update(rows["y"][::-1], rows["p"][::-1])
    assert rows["bits"](staged) == expected


@pytest.mark.parametrize("weights", [None, 2.0, np.repeat([1.0, 3.0], 100_000)], ids=["plain", "one for all", "full"])
def test_an_update_is_shared_if_by_those_before_it_takes_long(weights, monkeypatch):
    labels = np.random.default_rng(6).normal(size=200_000)
    share, shares = _threads.share, []
    monkeypatch.setattr(_threads, "share", lambda pieces, work: shares.append(len(pieces)) or share(pieces, work))
    accumulator, expected = Accumulator(), Accumulator().update(labels, 0 * labels, weights)
    monkeypatch.setattr(updates, "ALONE", 1e-4)
    for threads, pace, pieces in (2, 1e-9, [4]), (2, 1e-11, []), (16, 1e-9, [10]), (16, 1e-8, [16]):
        streamloss.set_num_threads(threads)
        accumulator._adder._pace = pace
        del shares[:]
        assert accumulator.reset().update(labels, 0 * labels, weights) == expected
        assert shares == pieces
        assert accumulator._adder._pace != pace


@pytest.mark.parametrize("elements", [5000, 40_000, 200_000])
@pytest.mark.parametrize("stderr", [False, True], ids=["", "stderr"])
def test_one_update_that_was_held_up_does_not_make_threads_share_all_others(elements, stderr, monkeypatch):
    monkeypatch.setattr(updates, "ALONE", 1e-2)
    streamloss.set_num_threads(16)
    labels, mask = np.ones(elements), np.ones(elements, bool)
    accumulator = Accumulator(stderr=stderr)
    accumulator._adder._pace = 1.0  # a second for each element
    for _ in range(3):
        accumulator.update(labels, labels, mask=mask)
    assert accumulator._adder._pace < 1e-4


@pytest.mark.parametrize("clock", [[0.0, 0.0], [5.0, 1.0], [0.0, math.nan], [0.0, math.inf]])
def test_a_clock_that_is_wrong_changes_no_result(clock, monkeypatch):
    monkeypatch.setattr(updates, "perf_counter", itertools.cycle(clock).__next__)
    labels = np.ones(100_000)
    accumulator = Accumulator()
    for _ in range(4):
        accumulator.update(labels, 3 * labels)
    assert accumulator.result() == 4.0


@pytest.mark.parametrize("threads", [1, 2, 4, 7])
def test_numbas_number_of_threads_is_heeded(threads, expected):
    printed = run("print(streamloss.get_num_threads(), whole())", NUMBA_NUM_THREADS=str(threads))
    assert printed == [str(threads), expected]


def test_the_number_of_threads_may_change_during_updates(rows, expected):
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for threads in (3, 1, 5, None):
                streamloss.set_num_threads(threads)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        assert {rows["whole"]() for _ in range(20)} == {expected}
    finally:
        stop.set()
        changer.join()


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_nothing_is_lost_where_the_system_grants_few_threads(granted, rows, expected, monkeypatch):
    streamloss.set_num_threads(4)
    started = []

    def start(function, arguments, real=_threads.start_new_thread):
        if len(started) >= granted:
            raise RuntimeError("can't start new thread")
        started.append(function)
        real(function, arguments)

    monkeypatch.setattr(_threads, "start_new_thread", start)
    for _ in range(5):
        monkeypatch.setattr(_threads, "_tasks", SimpleQueue())
        monkeypatch.setattr(_threads, "_workers", 0)
        started.clear()
        assert rows["whole"]() == expected


def test_every_piece_is_drawn_once():
    streamloss.set_num_threads(7)
    for size in (0, 1, 2, 1000):
        drawn = _threads.share(range(size), list)
        assert sorted(piece for part in drawn for piece in part) == list(range(size))


def test_an_error_in_one_thread_stops_all():
    count = []

    def work(drawn):
        for piece in drawn:
            count.append(piece)
            if piece == 10:
                raise OSError("piece 10")
            time.sleep(0.001)

    streamloss.set_num_threads(4)
    with pytest.raises(OSError, match="piece 10"):
        _threads.share(range(1000), work)
    assert len(count) < 500


@pytest.mark.parametrize("swallows", [False, True])
def test_an_interrupt_is_raised_when_no_thread_writes_any_more(monkeypatch, swallows):
    """Ctrl-C that comes while the calling thread waits for the others, or takes what woke it."""

    class Interrupted:
        def __init__(self):
            self.queue, self.calls = SimpleQueue(), 0
            self.put = self.queue.put

        def get(self):
            self.calls += 1
            if self.calls == 1:
                if swallows:
                    self.queue.get()
                raise KeyboardInterrupt
            return self.queue.get()

    begun, ended = [], []

    def work(drawn):
        for _ in drawn:
            begun.append(threading.get_ident())
            time.sleep(0.05 if begun[-1] == threading.main_thread().ident else 0.2)
            ended.append(None)

    streamloss.set_num_threads(2)
    _threads.share(range(2), work)  # the worker has started
    monkeypatch.setattr(_threads, "SimpleQueue", Interrupted)
    for _ in range(20):
        begun.clear(), ended.clear()
        try:
            _threads.share(range(2), work)
        except KeyboardInterrupt:
            break
    else:
        raise AssertionError("no helper was waited for")
    assert len(begun) == len(ended)


def test_an_interrupt_at_any_moment_is_raised_when_no_thread_writes_any_more():
    """Wherever `share` looks for signals, in turn."""
    busy = []

    def work(drawn):
        for _ in drawn:
            busy.append(None)
            try:
                time.sleep(0.003)
            finally:
                busy.pop()

    streamloss.set_num_threads(2)
    _threads.share(range(2), work)  # the worker has started
    left = [len(busy) for _ in at_every_step(_threads.share.__code__, lambda: _threads.share(range(2), work))]
    assert len(left) > 10
    assert not any(left)


def test_updates_go_on_while_another_thread_keeps_the_gil():
    script = """
stop = False
def busy():
    while not stop:
        sum(range(1000))
before = whole()
thread = threading.Thread(target=busy)
thread.start()
acc = Accumulator()
for s in SMALL[:20]:
    acc.update(y[s], p[s])
print(bits(acc.update(y[20_000:], p[20_000:])), bits(Accumulator().update(y[:20_000], p[:20_000])
    .update(y[20_000:], p[20_000:])), whole(), before)
stop = True
thread.join()
"""
    assert len(set(run(script, NUMBA_NUM_THREADS="4"))) == 1


def test_an_update_at_exit_is_whole(expected):
    script = """
import atexit
whole()
atexit.register(lambda: print(whole()))
"""
    assert run(script, NUMBA_NUM_THREADS="4") == [expected]


# --------------------------------------------------------------------------------------------------- processes

FORK = """
import pickle

def in_child(make):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(make(), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        received = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return pickle.loads(received)

def update():
    return Accumulator().update(y, p)

before = Accumulator().update(y[:300_000], p[:300_000])
"""
NUMBA_BEFORE_FORK = """
import numba

@numba.njit(parallel=True)
def numbas_own(values):
    total = 0.0
    for i in numba.prange(values.size):
        total += values[i]
    return total

assert numbas_own(np.ones(1000)) == 1000
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("layer", [None, "omp", "workqueue"])
def test_a_forked_child_updates_after_its_parent_has(layer, expected):
    script = FORK + (NUMBA_BEFORE_FORK if layer else "")
    script += """
assert in_child(update) == update()
print(bits(in_child(update)))
print(bits(in_child(lambda: before.update(y[300_000:], p[300_000:]))))
print(bits(in_child(lambda: in_child(update))))
print(whole())
"""
    assert run(script, NUMBA_THREADING_LAYER=layer or "default", NUMBA_NUM_THREADS="4") == [expected] * 4


FORK_WHILE_COMPILING = """
import time
from numba.core import event

class Began(event.Listener):
    def __init__(self):
        self.compiling = threading.Event()
    def on_start(self, happening):
        self.compiling.set()
    def on_end(self, happening):
        pass

began = Began()
event.register("numba:compile", began)
x = np.ones(10)
thread = threading.Thread(target=lambda: Accumulator("huber").update(x, x))
thread.start()
began.compiling.wait()
child = os.fork()
if child == 0:
    os._exit(Accumulator("quantile").update(x, x).count)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_while_another_thread_compiles_compiles_too(tmp_path):
    assert run(FORK_WHILE_COMPILING, NUMBA_CACHE_DIR=str(tmp_path)) == ["10"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_during_updates_updates(expected):
    script = (
        FORK
        + """
stop = False
def always():
    while not stop:
        update()
threads = [threading.Thread(target=always) for _ in range(3)]
for thread in threads:
    thread.start()
print(*{bits(in_child(update)) for _ in range(10)})
stop = True
for thread in threads:
    thread.join()
"""
    )
    assert run(script, NUMBA_NUM_THREADS="4") == [expected]


GROUPS = """
import faulthandler

from streamloss import GroupedAccumulator

rows = 30_000
keys = np.arange(rows) % 3_000
groups = GroupedAccumulator().update(np.zeros(rows), np.ones(rows), by=keys)
stop = False
def always():
    while not stop:
        groups.update(np.zeros(rows), np.ones(rows), by=keys)
thread = threading.Thread(target=always)
thread.start()
statuses = set()
for _ in range(50):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(30, exit=True)
        whole = groups.total().count % rows == 0 and len(groups.update([0.0], [1.0], by=[-1])) == 3_001
        os._exit(0 if whole else 2)
    statuses.add(os.waitpid(child, 0)[1])
stop = True
thread.join()
print(*statuses)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_while_groups_are_added_has_them_whole():
    assert run(GROUPS) == ["0"]


def test_an_interrupt_before_a_fork_leaves_no_lock_taken(monkeypatch):
    class Interrupted:
        def acquire(self):
            raise KeyboardInterrupt

    lock = _threads.lock()
    monkeypatch.setattr(_threads, "global_compiler_lock", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        _threads._before_fork()
    assert lock.locked()
    _threads._after_fork()
    assert not lock.locked()


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from operator import methodcaller

whole()
context = multiprocessing.get_context(os.environ["METHOD"])
parts = [methodcaller("update", y[k::3], p[k::3]) for k in range(3)]
with context.Pool(2) as pool:
    jobs = [pool.apply_async(part, (Accumulator(),)) for part in parts]
    print(bits(sum(job.get(60) for job in jobs)))
with ProcessPoolExecutor(2, mp_context=context) as pool:
    jobs = [pool.submit(part, Accumulator()) for part in parts]
    print(bits(Accumulator().merge(*(job.result(60) for job in jobs))))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes_give_the_same_bits(method, expected):
    assert run(POOLS, METHOD=method, NUMBA_NUM_THREADS="4") == [expected] * 2


def test_dask_threads_give_the_same_bits(expected):
    script = """
import operator
import dask, dask.bag

def part(k):
    return Accumulator().update(y[k::9], p[k::9])

merged = dask.delayed(sum)([dask.delayed(part)(k) for k in range(9)])
print(bits(merged.compute(scheduler="threads", num_workers=8)))
shared = Accumulator()
adds = [dask.delayed(shared.update)(y[k::9], p[k::9]) for k in range(9)]
dask.compute(*adds, scheduler="threads", num_workers=8)
print(bits(shared))
bag = dask.bag.from_sequence(range(9), npartitions=5).map(part).fold(operator.add)
print(bits(bag.compute(scheduler="threads", num_workers=8)))
"""
    assert run(script, NUMBA_NUM_THREADS="4") == [expected] * 3


# --------------------------------------------------------------------------------------------------- the cache


@pytest.fixture
def file(tmp_path):
    """A regular file: no folder can be made below it, not even by root."""
    path = tmp_path / "a file"
    path.write_text("")
    return path


@pytest.fixture
def package(tmp_path):
    """A folder with a copy of the package, without what Python or Numba keep beside it."""
    source = Path(streamloss.__file__).parent
    shutil.copytree(source, tmp_path / "copy" / "streamloss", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


COMPILED = """
from numba.core import event
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
print(whole(), sum(kind.is_start for _, kind in recorder.buffer))
"""


def test_a_second_process_compiles_nothing(tmp_path, expected):
    bits, compiled = run(COMPILED, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert (bits, compiled > "0") == (expected, True)
    assert run(COMPILED, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == [expected, "0"]


@pytest.mark.parametrize("folder", ["below a file", "/proc/no/such/folder"])
def test_a_cache_folder_that_cannot_be_is_done_without(folder, file, expected):
    cache = str(file / "cache") if folder == "below a file" else folder
    assert run("print(whole())", NUMBA_CACHE_DIR=cache) == [expected]


def test_a_cache_folder_that_is_a_file_is_done_without(file, expected):
    assert run("print(whole())", NUMBA_CACHE_DIR=str(file)) == [expected]


def test_a_package_without_any_folder_to_write_to_works(package, file, expected):
    for folder in {module.parent for module in package.rglob("*.py")}:
        (folder / "__pycache__").write_text("")
    elsewhere = {name: str(file / "home") for name in ("HOME", "XDG_CACHE_HOME", "IPYTHONDIR")}
    script = f"assert streamloss.__file__.startswith({str(package)!r})\nprint(whole())"
    assert run(script, cwd=package, PYTHONPATH=str(package), NUMBA_CACHE_DIR=None, **elsewhere) == [expected]
    assert not list(package.rglob("*.nbi"))


@pytest.mark.parametrize("module", ["exact.py", "cpu/blocks.py"])
def test_machine_code_of_other_sources_is_not_used(module, package, tmp_path, expected):
    here = {"cwd": package, "PYTHONPATH": str(package), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run("print(whole())", **here) == [expected]
    with (package / "streamloss" / module).open("a") as source:
        source.write("# changed\n")
    bits, compiled = run(COMPILED, **here)
    assert (bits, compiled > "0") == (expected, True)


@pytest.mark.parametrize(
    ("after", "instead"), [("import", "nothing"), ("import", "a file"), ("first update", "nothing")]
)
def test_a_cache_folder_may_disappear(after, instead, tmp_path, expected):
    (tmp_path / "cache").mkdir()
    script = f"""
import shutil
cache = os.environ["NUMBA_CACHE_DIR"]
if {after!r} == "first update":
    Accumulator().update(y.astype("f4")[:10], p[:10])
shutil.rmtree(cache)
if {instead!r} == "a file":
    open(cache, "w").close()
print(whole())
"""
    assert run(script, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == [expected]


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory, expected):
    cache = tmp_path_factory.mktemp("cache")
    assert run("print(whole())", NUMBA_CACHE_DIR=str(cache)) == [expected]
    return cache


DAMAGES = {
    "emptied": lambda content: b"",
    "cut by one byte": lambda content: content[:-1],
    "halved": lambda content: content[: len(content) // 2],
    "zeroed": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize(
    ("suffix", "damage"), [(".nbi", "emptied"), (".nbi", "halved"), *((".nbc", damage) for damage in DAMAGES)]
)
def test_a_damaged_cache_changes_nothing(suffix, damage, filled_cache, tmp_path, expected):
    shutil.copytree(filled_cache, tmp_path / "cache")
    files = list((tmp_path / "cache").rglob(f"*{suffix}"))
    assert files
    for path in files:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert run("print(whole())", NUMBA_CACHE_DIR=str(tmp_path / "cache")) == [expected]


# ----------------------------------------------------------------------------------------- an element's place


def sine(label, prediction):
    return math.sin(label) * math.exp(-abs(prediction - label))


def power(label, prediction):
    return abs(prediction - label) ** 1.5


def of_numpy(label, prediction):
    return np.arctan(prediction - label)


def logistic(label, prediction):
    return np.log1p(np.exp(-abs(prediction))) + max(prediction, 0.0) - label * prediction


def arithmetic(label, prediction):
    error = prediction - label
    return max(math.sqrt(error * error + 1.0) - 1.0, min(abs(error), 3.0)) / (1.0 + label * label)


@_jit.scalar
def inner(x):
    return x + 1.0


@_jit.routine
def outer(x):
    not_inlined()
    return inner(x) * 2.0


def whole(x):
    return outer(x) + inner(x)


def test_helpers_become_machine_code_in_kernels_alone(monkeypatch):
    finished = []
    add_module = JitEngine.add_module
    monkeypatch.setattr(JitEngine, "add_module", lambda *args: (finished.append(args[1].name), add_module(*args))[1])
    assert "dispatcher" not in vars(outer)
    assert _jit.Kernel(whole).compile((types.float64,), keep=False)(3.0) == 12.0
    assert "dispatcher" in vars(outer)
    assert [name for name in finished if name != "nrt"] == ["whole"]


@pytest.mark.parametrize(("processor", "asks"), [("znver4", False), ("sapphirerapids", True), ("generic", True)])
def test_memory_is_asked_for_unless_the_processor_does_so_well_enough(monkeypatch, processor, asks):
    monkeypatch.setattr(numba.config, "CPU_NAME", processor)
    function = numba.njit(lambda labels: read_ahead(labels, labels, 0))
    signature = (types.Array(types.float32, 1, "C"),)
    function.compile(signature)
    assert ("llvm.prefetch" in function.inspect_llvm(signature)) == asks
    size = numba.njit(lambda labels: portion(labels))(np.zeros(1, np.float32))
    assert size == (PORTION // 4 if asks else BLOCK)  # what has no reason to be cut is not


BY_LIBRARY = [sine, power, of_numpy]
BY_ARITHMETIC = [*LOSSES, logistic, arithmetic]


def element_function(loss):
    made = Accumulator(loss).loss
    formula = compiled_form(made.formula)
    return formula, _jit._element_function(formula, len(made.values)), len(made.values)


@pytest.mark.parametrize("loss", BY_LIBRARY)
def test_a_formula_that_calls_a_library_stays_a_call(loss):
    formula, function, parameters = element_function(loss)
    assert function.py_func is not formula
    signature = types.float64, types.float64, types.StarArgTuple((types.float64,) * parameters)
    function.compile(signature)
    assert "noinline" in function.inspect_llvm(signature)


@pytest.mark.parametrize("loss", BY_ARITHMETIC)
def test_a_formula_of_arithmetic_logarithms_and_exponentials_is_part_of_the_loop(loss):
    formula, function, _ = element_function(loss)
    assert function.py_func is formula


@pytest.mark.parametrize("loss", BY_LIBRARY + BY_ARITHMETIC)
def test_a_loss_does_not_depend_on_its_place_in_the_chunk(loss):
    rng = np.random.default_rng(11)
    y, p = rng.uniform(0.0, 1.0, (2, 2 * 2048 + 13))
    out = np.empty(y.size)
    whole, again = Accumulator(loss).update(y, p), Accumulator(loss).update(y, p, out=out)
    assert again == whole
    for step in (1, 7):
        parts, again, pieces = whole.copy().reset(), whole.copy().reset(), np.empty(y.size)
        for k in range(0, y.size, step):
            parts.update(y[k : k + step], p[k : k + step])
            again.update(y[k : k + step], p[k : k + step], out=pieces[k : k + step])
        assert parts == again == whole
        assert pieces.tobytes() == out.tobytes()
