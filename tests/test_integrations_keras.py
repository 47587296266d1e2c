"""Keras 3 on each of its backends, in a process of its own: a backend is chosen when Keras is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("framework", ["tensorflow", "jax", "torch"])
def test_keras_on(framework):
    pytest.importorskip(framework)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "tests/keras_cases.py"]
    environment = {**os.environ, "KERAS_BACKEND": framework, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
