"""The structure of the package: who may import whom, and what importing it costs."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import streamloss

ROOT = Path(streamloss.__file__).parent
LAYERS = [
    {"_cached", "_parts", "_threads", "cpu", "cuda", "durable", "fingerprints", "html", "intrinsics"},
    {"keys.foreign", "keys.forms"},
    {"_jit", "keys.numbering"},
    {"chunks", "elementary", "exact", "losses", "cpu.operands"},
    {"arrays", "error_free", "formulas", "reduction"},
    {"keys.columns", "stored", "cpu.blocks", "cpu.entries", "cuda.numerics"},
    {"cpu.squares", "cpu.weights", "keys"},
    {"cpu.updates"},
    {"cuda.elements", "cpu.groups", "mergeable"},
    {"accumulator", "cuda.shares", "cuda.slots"},
    {"cuda.kernels"},
    {"cuda.compiling", "grouped"},
    {"cuda.driver", "cuda.simulator", "warm"},
    {"cuda.devices"},
    {"cuda.views"},
    {"cuda.updates"},
    {"cuda.groups"},
    {"cuda.staged"},
    {"cuda.interface"},
    {
        "one_shot",
        "gradients",
        "files.source",
        "files.ahead",
        "files.names",
        "files.formats",
        "files.outputs",
        "compat._streams",
    },
    {"compat._rows"},
    {
        "files.coding",
        "files.columns",
        "files.dictionaries",
        "files.fields",
        "files.inference",
        "files.members",
        "files.paths",
    },
    {"files.arrays", "files.part"},
    {"files.origins"},
    {"files.frames", "files.hdf5", "files.ipc", "files.iterables", "files.npy", "files.parquet", "files.text"},
    {"files.web"},
    {"files.delimited", "files.ndjson", "files.npz", "files.zarr"},
    {"files.remote"},
    {"files.tables"},
    {"compat.keras", "compat.tensorflow_v1", "compat.torch"},
    {"files.opening", "files.history", "files.losses_out", "files.results", "compat"},
    {"files.checkpoint"},
    {"files.run"},
    {"files.scoring"},
    {"files.report"},
    {"files.bar", "files.printed"},
    {"files.plot"},
    {"files"},
    {"integrations", "integrations._boosting", "integrations._names", "integrations._tensors"},
    {"integrations._torch", "integrations.jax", "integrations.river", "integrations.sklearn"},
    {"integrations.keras", "integrations.torch", "integrations.torchmetrics"},
    {"integrations.transformers"},
    {"integrations.lightgbm", "integrations.xgboost"},
    {"cli"},
    {"", "__main__"},
]
LAYER = {module: number for number, layer in enumerate(LAYERS) for module in layer}
READ_VERSION = {"cli"}
LATE = {  # what loads optional packages
    ("files.scoring", "files.opening"),
    ("files.opening", "files.tables"),
    ("files.arrays", "files.coding"),
    ("cli", "files.plot"),
    ("warm", "files.coding"),
    ("warm", "files.dictionaries"),
    ("warm", "files.fields"),
}
LATE |= {("formulas", "elementary")}  # logarithms and exponentials, for losses that have them
# The CUDA backend, with the first device array, and in it the driver, when there is one.
LATE |= {("cuda", "cuda.driver"), ("cuda", "cuda.devices"), ("cuda", "cuda.interface")}
OPTIONAL = [
    "polars",
    "click",
    "rich",
    "torch",
    "torchmetrics",
    "lightning",
    "transformers",
    "xgboost",
    "lightgbm",
    "river",
    "sklearn",
    "pandas",
    "pyarrow",
    "h5py",
    "matplotlib",
    "zarr",
    "tensorflow",
    "keras",
    "jax",
    "dask",
    "ml_dtypes",
    "numba.cuda",
    "numba_cuda",
    "cupy",
]


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def internal_imports(module):
    """The modules of the package, or names of the package itself, that a module imports: (target, name, late)."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "streamloss":
                    yield alias.name.removeprefix("streamloss").removeprefix("."), None, id(node) in late
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parts = package.split(".") if package else []
                base = ".".join(parts[: len(parts) - node.level + 1])
                source = ".".join(filter(None, (base, node.module)))
            elif node.module and node.module.split(".")[0] == "streamloss":
                source = node.module.removeprefix("streamloss").removeprefix(".")
            else:
                continue
            for alias in node.names:
                below = ".".join(filter(None, (source, alias.name)))
                yield (below, None, id(node) in late) if below in MODULES else (source, alias.name, id(node) in late)


def test_every_module_has_its_layer():
    assert set(MODULES) == set(LAYER)


def test_every_package_is_installed():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent.relative_to(ROOT.parent) for path in MODULES.values()}
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(".".join(folder.parts) for folder in folders)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module):
    for target, name, late in internal_imports(module):
        if (target, name) == ("", "__version__"):
            assert module in READ_VERSION
        elif late:
            assert (module, target) in LATE
        elif module == "files" and target.startswith("files."):
            assert target in {"files.scoring", "files.history"}
        else:
            assert LAYER[target] < LAYER[module], f"{module} imports {target}"


def test_the_walk_over_imports_sees_them_all():
    found = {(module, target) for module in MODULES for target, _, _ in internal_imports(module)}
    assert {
        ("cpu.updates", "_jit"),
        ("cpu.updates", "cpu.blocks"),
        ("accumulator", "exact"),
        ("files", "files.scoring"),
    } <= found
    assert {("files.opening", "files.source"), ("files.scoring", "accumulator"), ("cli", "files.report")} <= found
    assert {("", "losses"), ("", "files"), ("cli", "")} | LATE <= found


def test_the_public_names_are_listed():
    public = {name: getattr(streamloss, name) for name in dir(streamloss) if name[0] != "_"}
    names = {name for name, value in public.items() if not isinstance(value, ModuleType)}
    assert sorted(names | {"losses"}) == streamloss.__all__


def test_what_is_loaded_late_is_there_like_the_rest():
    script = """
import sys, streamloss
before = dir(streamloss)
assert {name for name in sys.modules if name.startswith("streamloss.")} == {"streamloss._threads"}
for name in streamloss.__all__:
    assert name in before
    exec(f"from streamloss import {name}")
    assert getattr(streamloss, name) is locals()[name] is vars(streamloss)[name]
assert streamloss.files.score is streamloss.score
try:
    streamloss.scores
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "module 'streamloss' has no attribute 'scores'\n", done.stderr


def test_the_losses_are_named_where_users_look():
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    for name in streamloss.losses.LOSSES:
        assert name in streamloss.losses.__all__
        assert re.search(rf"`{name}\b", readme)


def documented():
    for name in streamloss.__all__:
        value = getattr(streamloss, name)
        yield name, value
        if inspect.isclass(value):
            yield from ((f"{name}.{member}", part) for member, part in vars(value).items() if member[0] != "_")
    yield from ((f"losses.{name}", loss) for name, loss in streamloss.losses.LOSSES.items())


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, value in documented() if name.split(".")[-1].islower()]
)
def test_what_is_public_is_documented(name, value):
    described = value.__class__.__doc__ if isinstance(value, (bool, str, int, float)) else inspect.getdoc(value)
    assert (described or "").strip()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_do_and_no_machine_is_named(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"TODO|FIXME|XXX", text)
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|opt|mnt|Users|usr|var)/|[A-Z]:\\\\", text)


def test_importing_loads_no_optional_package_compiles_nothing_and_starts_no_thread():
    script = f"""
from numba.core import event
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
import sys, threading
import streamloss
assert streamloss.get_num_threads() > 0
streamloss.Accumulator(streamloss.losses.huber(delta=2))
print(sorted(set({OPTIONAL}) & set(sys.modules)), recorder.buffer, threading.active_count())
import numba
numba.njit(lambda x: x)(1)
print(len(recorder.buffer) > 0)
"""
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[] [] 1", "True"]
