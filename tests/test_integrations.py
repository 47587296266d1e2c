"""The integrations as a whole: what each imports, what it says where its framework is missing, and the examples."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import streamloss

ROOT = Path(__file__).parent.parent
MODULES = sorted((Path(streamloss.__file__).parent / "integrations").glob("[a-z]*.py"))
FRAMEWORKS = [path.stem for path in MODULES]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ALSO = {"torchmetrics": {"torch"}}  # which torchmetrics' own classes are made of


def test_there_is_a_module_for_each_framework():
    expected = "jax keras lightgbm river sklearn torch torchmetrics transformers xgboost"
    assert expected.split() == FRAMEWORKS


@pytest.mark.parametrize("path", MODULES, ids=FRAMEWORKS)
def test_a_module_imports_the_framework_that_it_is_named_after(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module.split(".")[0])
    assert path.stem in imported
    assert imported - sys.stdlib_module_names <= {path.stem, "numpy"} | ALSO.get(path.stem, set())


def test_without_its_framework_a_module_names_the_extra():
    script = f"""
import importlib, sys
for name in {FRAMEWORKS}:
    sys.modules[name] = None
    try:
        importlib.import_module("streamloss.integrations." + name)
    except ImportError as error:
        print(name, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert len(done.stdout.splitlines()) == len(FRAMEWORKS)
    for name, line in zip(FRAMEWORKS, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{name} streamloss.integrations.{name} needs ")
        assert line.endswith(f"pip install 'streamloss[{name}]'")
        assert extras[name]


def test_the_documents_import_from_every_module():
    for document in ("README.md", "docs/integrations.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        assert all(f"integrations.{name} import " in text for name in FRAMEWORKS)


def test_the_code_of_the_guide_runs():
    """Every Python block of docs/integrations.md that says that it runs alone."""
    pytest.importorskip("jax")
    text = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(# runs alone\n.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/integrations.md", "exec"), {})


def test_every_example_runs():
    """In one process, because it is the imports that take time."""
    for framework in FRAMEWORKS:
        pytest.importorskip(framework)
        assert any(f"integrations.{framework} import" in path.read_text() for path in EXAMPLES)
    script = """
import runpy, sys
for path in sys.argv[1:]:
    print("example", path, flush=True)
    runpy.run_path(path, run_name="__main__")
"""
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, EXAMPLES)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
    values = re.findall(r"(?:batches|chunks|devices)[^:\n]*: ([\d.]+)$", done.stdout, re.MULTILINE)
    assert len(values) == 4 + 3 + 3 + 4 + 2
    assert len(set(values)) == 5  # one value per example, whatever the sizes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 30
