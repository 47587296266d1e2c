"""What the property tests draw: arrays that are hard to add, and ways to cut them into chunks."""

import numpy as np
from hypothesis import strategies as st

from tests.backend import BLOCK

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    5e-324,
    -2.5e-310,
    2.2250738585072014e-308,
    1e-300,
    1e300,
    -1e300,
    1.7976931348623157e308,
]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
SIZES = [0, 1, 2, 7, 33, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3]


def _normal(rng, size):
    return rng.standard_normal(size)


def _spread(rng, size):
    return np.ldexp(rng.uniform(-1, 1, size), rng.integers(-1074, 1000, size))


def _subnormal(rng, size):
    return rng.integers(-(2**20), 2**20, size) * 5e-324


def _special(rng, size):
    return rng.choice(SPECIAL, size)


def _rare(rng, size):
    """Ordinary numbers with a few huge ones among them: blocks that take the quick path next to others."""
    return np.where(rng.random(size) < 2e-3, rng.choice([*SPECIAL, *NOT_FINITE], size), rng.standard_normal(size))


def _integers(rng, size):
    return rng.integers(-50, 50, size).astype(np.float64)


KINDS = {f.__name__.strip("_"): f for f in (_normal, _spread, _subnormal, _special, _rare, _integers)}


@st.composite
def floats(draw, size: int, dtype: type) -> np.ndarray:
    """An array of one kind."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = KINDS[draw(st.sampled_from(sorted(KINDS)))](rng, size)
    with np.errstate(over="ignore"):
        return values.astype(dtype)


@st.composite
def chunks(draw, sizes=tuple(SIZES), dtypes=(np.float64, np.float32)):
    """Labels, predictions and weights of one chunk, all of one dtype: every mixture is one more kernel to compile."""
    size, dtype = draw(st.sampled_from(sizes)), draw(st.sampled_from(dtypes))
    columns = floats(size, dtype)
    weights = draw(st.sampled_from(["none", "scalar", "array", "zeros", "negative"]))
    return (
        draw(columns),
        draw(columns),
        {
            "none": lambda: None,
            "scalar": lambda: draw(st.sampled_from([0.0, 2.0, -0.5, 1e-3])),
            "array": lambda: draw(columns),
            "zeros": lambda: np.random.default_rng(1).integers(0, 2, size).astype(dtype),
            "negative": lambda: -np.abs(draw(columns)),
        }[weights](),
    )


@st.composite
def cuts(draw, size: int) -> list[slice]:
    """Consecutive chunks of that many elements, empty ones too."""
    places = sorted(draw(st.lists(st.integers(0, size), max_size=6)))
    return [slice(a, b) for a, b in zip([0, *places], [*places, size], strict=True)]
