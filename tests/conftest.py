"""The sample data, and the losses that every law is tested with."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from streamloss.losses import LOSSES

DATA = Path(__file__).parent / "data"


def zero_one(label, prediction):
    """A loss as a user writes it."""
    return 1.0 if abs(label - prediction) > 0.5 else 0.0


ALL_LOSSES = [*LOSSES.values(), LOSSES["huber"](delta=2.5), LOSSES["quantile"](q=0.9), zero_one]


@pytest.fixture(scope="session", params=ALL_LOSSES, ids=lambda loss: getattr(loss, "__name__", repr(loss)))
def loss(request):
    return request.param


@pytest.fixture(scope="session")
def flights_path():
    return DATA / "flights.parquet"


@pytest.fixture(scope="session")
def flights(flights_path):
    """Labels, predictions and weights of the flights, null as NaN."""
    frame = pl.read_parquet(flights_path)
    columns = (frame[name].cast(pl.Float32).fill_null(float("nan")) for name in ("arr_delay", "dep_delay", "distance"))
    return tuple(np.ascontiguousarray(column.to_numpy()) for column in columns)
