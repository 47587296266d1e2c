"""The sample data, the losses that every law is tested with, and the backend that adds up."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from streamloss.cpu import updates
from streamloss.losses import LOSSES
from tests.backend import SIMULATED, adding_on

settings.register_profile("no clock", deadline=None)  # a busy machine is no fault
settings.load_profile("no clock")

DATA = Path(__file__).parent / "data"


def zero_one(label, prediction):
    """A loss as a user writes it."""
    return 1.0 if abs(label - prediction) > 0.5 else 0.0


ALL_LOSSES = [*LOSSES.values(), LOSSES["huber"](delta=2.5), LOSSES["quantile"](q=0.9), zero_one]


def pytest_addoption(parser):
    parser.addoption(
        "--backend",
        choices=["cpu", "cuda"],
        default="cuda" if SIMULATED else "cpu",
        help="where accumulators add by default; cuda in the simulator, which NUMBA_ENABLE_CUDASIM=1 chooses",
    )


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        name = metafunc.config.getoption("--backend")
        metafunc.parametrize(
            "backend", [name], ids=[f"{name} simulator" if SIMULATED else name], scope="session", indirect=True
        )


def pytest_collection_modifyitems(config, items):
    """Leave out, and count as deselected, what needs the other backend, or more time than the simulator has."""
    unwanted = {"large", "ptx"} if SIMULATED else {"cuda"} if config.getoption("--backend") == "cpu" else set()
    left_out = [item for item in items if unwanted & {mark.name for mark in item.iter_markers()}]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def backend(request):
    """Every test runs on it: accumulators are made for this device unless told otherwise."""
    with adding_on("auto" if request.param == "cpu" else request.param):
        yield request.param


@pytest.fixture(scope="session", autouse=True)
def always_shared():
    """Threads share every update of several pieces, also one that takes a single thread less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates, "ALONE", 0.0)
        yield


@pytest.fixture(scope="session", params=ALL_LOSSES, ids=lambda loss: getattr(loss, "__name__", repr(loss)))
def loss(request):
    return request.param


@pytest.fixture(scope="session")
def flights_path():
    return DATA / "flights.parquet"


@pytest.fixture(scope="session")
def flights(flights_path):
    """Labels, predictions and weights of the flights, null as NaN."""
    import polars as pl

    frame = pl.read_parquet(flights_path)
    columns = (frame[name].cast(pl.Float32).fill_null(float("nan")) for name in ("arr_delay", "dep_delay", "distance"))
    return tuple(np.ascontiguousarray(column.to_numpy()) for column in columns)
