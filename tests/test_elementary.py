"""log, log1p, exp and expm1 of our own: their errors, special values and bits, and the formulas that get them."""

import hashlib
import math
import os
import re
import subprocess
import sys
from decimal import Decimal, localcontext
from math import log as imported_log

import numba
import numpy as np
import pytest
from llvmlite import binding

from streamloss import Accumulator, _jit, formulas
from streamloss.losses import LOSSES, as_loss

INF, NAN = math.inf, math.nan
FUNCTIONS = {
    "log": lambda label, prediction: math.log(prediction),
    "log1p": lambda label, prediction: math.log1p(prediction),
    "exp": lambda label, prediction: math.exp(prediction),
    "expm1": lambda label, prediction: math.expm1(prediction),
}
LARGEST_ERROR = {"log": 0.88, "log1p": 0.87, "exp": 0.68, "expm1": 0.98}  # units in the last place
WORST = {"log": [0.7067975342599605], "log1p": [-0.29397186846263257]}  # arguments found by searching
SUBNORMAL_ERROR = 0.79  # of exp's results below the normal numbers, which are rounded twice


def values(function, x):
    """The function of every element, as a loss computes it."""
    out = np.empty(x.size)
    Accumulator(FUNCTIONS.get(function, function)).update(np.zeros(x.size), x, out=out)
    return out


def scattered(n):
    """Float64 numbers of every size and kind, the same everywhere."""
    with np.errstate(over="ignore"):
        return (np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.float64)


def arguments(name, n):
    """Arguments of every size, and many where the function is hard."""
    rng = np.random.default_rng(7)
    small = rng.normal(size=n) * 10.0 ** rng.uniform(-322, 0, n)
    drawn = {
        "log": [rng.uniform(0.5, 2, n), 1 + small, rng.integers(0, 1 << 52, n).view(np.float64)],
        "log1p": [rng.uniform(-0.6, 1.5, n), small, 10.0 ** rng.uniform(-16, 0, n) - 1, 10.0 ** rng.uniform(0, 20, n)],
        "exp": [rng.uniform(-745.2, 709.8, n), rng.uniform(-1, 1, n), rng.uniform(-745.2, -708, n), small],
        "expm1": [rng.uniform(-60, 709.8, n), rng.uniform(-2, 2, n), rng.uniform(30, 45, n), rng.uniform(-40, -30, n)],
    }[name]
    return np.concatenate([scattered(n), WORST.get(name, []), small, *drawn])


def decimally(name, x):
    """The function of a finite number, within its domain, to 40 digits at the least."""
    with localcontext(prec=60, Emax=10**9, Emin=-(10**9)) as context:
        x = Decimal(x)
        if name in ("log", "exp"):
            return x.ln() if name == "log" else x.exp()
        if abs(x) < Decimal("1e-20"):
            return x * (1 - x / 2) if name == "log1p" else x * (1 + x / 2)
        context.prec = 90
        return (1 + x).ln() if name == "log1p" else x.exp() - 1


def errors(got, exactly):
    """Errors in units in the last place of the exact values, which are numbers of a wider type."""
    place = np.array([math.frexp(y)[1] for y in got.tolist()]) - 53
    unit = [Decimal(2) ** max(int(p), -1074) for p in place]
    return [float(abs(Decimal(a) - b) / u) for a, b, u in zip(got.tolist(), exactly, unit, strict=True)]


def inside(name, x):
    """Those arguments whose value is neither special nor too large."""
    low, high = {"log": (0, INF), "log1p": (-1, INF), "exp": (-745.1, 709.78), "expm1": (-INF, 709.78)}[name]
    return x[(x > low) & (x < high)]


@pytest.mark.parametrize("name", formulas.NAMES)
def test_errors_against_decimal_arithmetic(name):
    x = inside(name, arguments(name, 500))
    with localcontext(prec=60, Emax=10**9, Emin=-(10**9)):
        found = np.array(errors(values(name, x), [decimally(name, v) for v in x.tolist()]))
    normal = np.abs(values(name, x)) >= 2.0**-1022 if name == "exp" else np.full(x.shape, True)
    assert found[normal].max() <= LARGEST_ERROR[name]
    assert found.max() <= max(LARGEST_ERROR[name], SUBNORMAL_ERROR)
    assert found.max() > 0.4  # errors() sees roundings


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double has no more bits than float64 here")
@pytest.mark.parametrize("name", formulas.NAMES)
def test_errors_over_millions_of_arguments(name):
    x = inside(name, arguments(name, 400_000))
    got = values(name, x)
    exactly = getattr(np, name)(x.astype(np.longdouble))
    unit = np.ldexp(np.longdouble(1), np.maximum(np.frexp(exactly)[1] - 53, -1074))
    found = (np.abs(got - exactly) / unit).astype(np.float64)
    normal = np.abs(got) >= 2.0**-1022 if name == "exp" else np.full(x.shape, True)
    assert found[normal].max() <= LARGEST_ERROR[name]
    assert found.max() <= max(LARGEST_ERROR[name], SUBNORMAL_ERROR)


LARGEST = sys.float_info.max
TINY = 5e-324
SPECIAL = [
    *[("log", x, y) for x, y in [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (NAN, NAN)]],
    *[("log", x, y) for x, y in [(-TINY, NAN), (-1.0, NAN), (TINY, -744.4400719213812), (LARGEST, 709.782712893384)]],
    *[("log1p", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (INF, INF), (-INF, NAN), (NAN, NAN)]],
    *[("log1p", x, y) for x, y in [(-1.0000000000000002, NAN), (TINY, TINY), (-TINY, -TINY), (-LARGEST, NAN)]],
    ("log1p", LARGEST, 709.782712893384),
    *[("exp", x, y) for x, y in [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (NAN, NAN), (TINY, 1.0)]],
    *[("exp", x, y) for x, y in [(709.7827128933841, INF), (LARGEST, INF), (-745.1332191019412, 0.0), (-LARGEST, 0.0)]],
    *[("exp", x, y) for x, y in [(709.782712893384, 1.7976931348622732e308), (-745.1332191019411, TINY)]],
    *[("expm1", x, y) for x, y in [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (NAN, NAN), (TINY, TINY)]],
    *[("expm1", x, y) for x, y in [(-TINY, -TINY), (709.7827128933841, INF), (LARGEST, INF), (-LARGEST, -1.0)]],
    ("expm1", 709.782712893384, 1.7976931348622732e308),
]


@pytest.mark.parametrize(("name", "x", "expected"), SPECIAL)
def test_special_values(name, x, expected):
    (got,) = values(name, np.array([x]))
    assert np.array_equal(got, expected, equal_nan=True)
    assert math.isnan(expected) or math.copysign(1.0, got) == math.copysign(1.0, expected)


def test_exact_powers_of_two():
    x = 2.0 ** np.arange(-1022, 1024)
    expected = [float(Decimal(v).ln()) for v in x.tolist()]
    assert values("log", x).tolist() == expected


# ------------------------------------------------------------------------------------------------- bits


def any_of_four(label, prediction):
    """One kernel for the four functions."""
    if label < 1.0:
        return math.log(prediction)
    if label < 2.0:
        return math.log1p(prediction)
    return math.exp(prediction) if label < 3.0 else math.expm1(prediction)


# SHA-256 of results, NaN as one NaN, which every processor and every setting of the compiler has to reproduce.
FROZEN = {
    "log": "342e573b9edd5061",
    "log1p": "0bebce588308f81b",
    "exp": "a949e9aa93e5f0cb",
    "expm1": "391a70b489ef5f43",
    "log_cosh": "e608d4a383f75a16",
    "squared_log_error": "6101a138d64da483",
    "binary_cross_entropy": "27c366828c461a2f",
}


def digests():
    """The digest of each function's and loss' results for the same hard and ordinary arguments."""
    n = 100_003
    steps = np.arange(-n, n) * 2.0**-15
    x = np.concatenate([scattered(n), steps, 256 * steps])
    four = {name: (any_of_four, np.full(x.size, float(k))) for k, name in enumerate(formulas.NAMES)}
    labels = np.concatenate([steps, x[: x.size - steps.size]])
    shares = np.arange(x.size) % 1024 / 1024
    losses = {"log_cosh": labels, "squared_log_error": labels, "binary_cross_entropy": shares}
    found = {}
    for name, (loss, labels) in (four | {name: (name, labels) for name, labels in losses.items()}).items():
        out = np.empty(x.size)
        Accumulator(loss).update(labels, x, out=out)
        out[np.isnan(out)] = np.nan
        found[name] = hashlib.sha256(out.astype("<f8").tobytes()).hexdigest()[:16]
    return found


def test_the_bits_are_those_that_were_frozen():
    assert digests() == FROZEN


FEATURES = binding.get_host_cpu_features()
PROCESSORS = {"generic": None, "nehalem": "sse4.2", "haswell": "fma", "skylake-avx512": "avx512vl"}
SETTINGS = [
    {"NUMBA_OPT": "1"},
    {"NUMBA_LOOP_VECTORIZE": "0", "NUMBA_SLP_VECTORIZE": "0"},
    *[
        {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
        for processor, needed in PROCESSORS.items()
        if needed is None or FEATURES.get(needed, False)
    ],
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(setting.values()))
def test_the_bits_are_the_same_for_every_processor_and_setting(setting, tmp_path):
    script = "from tests.test_elementary import digests\nprint(digests())"
    env = os.environ | setting | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{FROZEN}\n"


@pytest.mark.parametrize("name", ["log_cosh", "squared_log_error", "binary_cross_entropy", any_of_four])
def test_the_loop_is_vector_code(name):
    loss = as_loss(name)
    function, parameters = _jit.scalar(formulas.compiled_form(loss.formula)), loss.values

    @numba.njit(error_model="numpy")
    def evaluate(labels, predictions, out):
        for i in range(out.size):
            out[i] = function(labels[i], predictions[i], *parameters)

    x, out = np.linspace(0.1, 0.9, 50), np.empty(50)
    evaluate(x, x, out)
    (code,) = evaluate.inspect_llvm().values()
    assert re.search(r"fdiv <\d+ x double>", code)
    assert not re.search(r"call .*@(log|log1p|exp|expm1)\b|llvm\.(log|exp)|fma", code)


# ------------------------------------------------------------------------------------------------- formulas


@numba.njit(fastmath=True)
def helper(x):
    return np.exp(x)


@numba.njit
def factorial(n):
    return 1.0 if n <= 1.0 else n * factorial(n - 1.0) * math.exp(0.0)


captured = math.exp
WAYS = {
    "of math": lambda label, prediction: math.exp(prediction),
    "of numpy": lambda label, prediction: np.exp(prediction),
    "by a name of its own": lambda label, prediction: captured(prediction),
    "from a closure": (lambda function: lambda label, prediction: function(prediction))(np.exp),
    "a module from a closure": (lambda module: lambda label, prediction: module.exp(prediction))(math),
    "in a helper": lambda label, prediction: helper(prediction),
    "in a function inside": lambda label, prediction: (lambda x: math.exp(x))(prediction),
}


@pytest.mark.parametrize("way", WAYS)
def test_formulas_get_our_functions_however_they_name_them(way):
    assert _jit._element_function(formulas.compiled_form(WAYS[way]), 0).py_func is not WAYS[way]
    x = np.linspace(-1.0, 1.0, 1001)
    assert values(WAYS[way], x).tobytes() == values("exp", x).tobytes()


def test_a_formula_runs_in_python_as_ever():
    formula = FUNCTIONS["log"]
    values(formula, np.ones(3))
    assert formula(0.0, 0.3) == math.log(0.3)
    with pytest.raises(ValueError):
        formula(0.0, -1.0)
    assert math.log is imported_log


def test_a_formula_without_such_functions_is_compiled_as_it_is():
    for formula in (LOSSES["huber"].formula, lambda label, prediction: math.sqrt(label) + np.sin(prediction)):
        form = formulas.compiled_form(formula)
        assert form.__code__ is formula.__code__
        assert all(
            form.__globals__[name] is formula.__globals__[name]
            for name in form.__code__.co_names
            if name in form.__globals__
        )


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda label, prediction: math.exp(math.pi) * 0 + np.float64(math.floor(prediction)), 2.0),
        (lambda label, prediction: np.log(4) / math.log(True + 1), 2.0),
        (lambda label, prediction: np.exp(np.zeros(3)).sum() - 1.0, 2.0),
        (lambda label, prediction: np.exp(np.float32(prediction)), float(np.float32(math.exp(2.5)))),
        (lambda label, prediction: math.exp(0.0) + abs(np.exp(1j * prediction)), 2.0),
        (lambda label, prediction: factorial(4.0) / 12.0, 2.0),
    ],
)
def test_all_else_in_a_formula_is_as_it_was(function, expected):
    assert values(function, np.array([2.5])).tolist() == [pytest.approx(expected, rel=1e-15)]


def test_helpers_with_signatures_of_their_own_are_left_alone():
    @numba.njit("float32(float32)")
    def narrow(x):
        return x * np.float32(0.1)

    assert values(lambda label, prediction: narrow(prediction), np.array([0.3])).tolist() == [
        float(np.float32(0.3) * np.float32(0.1))
    ]
