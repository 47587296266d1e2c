"""The real data: documented numbers, and the same bits along every path."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

import streamloss
from streamloss import Accumulator

SUM, MEAN = 117060680.0, 357.6053472472552
WEIGHTED = {
    "sum": 148421019070.0,
    "mean": 432.48718340812223,
    "sum_over_batch_size": 453407.15655605996,
    "sum_by_nonzero_weights": 453407.15655605996,
}


@pytest.fixture(scope="module")
def whole(flights):
    return Accumulator(nan="omit").update(*flights)


def test_documented_numbers(flights):
    accumulator = Accumulator(nan="omit").update(*flights[:2])
    assert (accumulator.count, accumulator.skipped_count) == (327346, 9430)
    assert (accumulator.result("sum"), accumulator.result("mean")) == (SUM, MEAN)
    assert repr(accumulator) == f"Accumulator(squared_error, n=327_346, skipped=9_430, sum_by_nonzero_weights={MEAN})"


def test_documented_numbers_with_weights(whole):
    assert {reduction: whole.result(reduction) for reduction in WEIGHTED} == WEIGHTED
    assert whole.weight_sum == 343180156.0


@pytest.mark.parametrize("rows", [7, 1000, 1023, 1024, 1025, 65537])
def test_chunks(flights, whole, rows):
    accumulator = Accumulator(nan="omit")
    for start in range(0, len(flights[0]), rows):
        accumulator.update(*(column[start : start + rows] for column in flights))
    assert accumulator == whole


def test_single_rows(flights, whole):
    accumulator = Accumulator(nan="omit")
    for row in zip(*flights, strict=True):
        accumulator.update(*row)
    assert accumulator == whole


def test_shuffled_rows(flights, whole):
    order = np.random.default_rng(0).permutation(len(flights[0]))
    assert Accumulator(nan="omit").update(*(column[order] for column in flights)) == whole


@pytest.mark.parametrize("threads", [1, 2, 4, 7])
def test_threads(flights, whole, threads):
    streamloss.set_num_threads(threads)
    try:
        assert Accumulator(nan="omit").update(*flights) == whole
    finally:
        streamloss.set_num_threads(None)


def test_threads_updating_one_accumulator(flights, whole):
    accumulator = Accumulator(nan="omit")
    edges = np.linspace(0, len(flights[0]), 101).astype(int)
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(accumulator.update, *(column[start:stop] for column in flights))
            for start, stop in pairwise(edges)
        ]
    assert all(job.result() is accumulator for job in jobs)
    assert accumulator == whole


def test_halves_merged_in_either_order_with_a_pickle_in_between(flights, whole):
    half = len(flights[0]) // 2
    first = Accumulator(nan="omit").update(*(column[:half] for column in flights))
    second = Accumulator(nan="omit").update(*(column[half:] for column in flights))
    second = pickle.loads(pickle.dumps(second))
    assert first + second == second + first == whole


def test_files(flights, flights_path, whole, tmp_path):
    columns = {"labels": "arr_delay", "predictions": "dep_delay", "weights": "distance"}
    assert streamloss.score(flights_path, **columns) == whole
    pl.read_parquet(flights_path).write_csv(tmp_path / "flights.csv")
    assert streamloss.score(tmp_path / "flights.csv", **columns) == whole
    paths = {name: tmp_path / f"{name}.npy" for name in columns}
    for path, column in zip(paths.values(), flights, strict=True):
        np.save(path, column)
    assert streamloss.score(**paths) == whole
