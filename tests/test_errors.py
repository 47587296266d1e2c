"""Wrong calls: each is refused by name, and none changes what an accumulator has seen."""

import contextlib
import datetime
import decimal
import hashlib
import itertools
import json
import math
import random
import re
import signal
import struct
import sys
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
import torch

import streamloss
from streamloss import Accumulator, Loss, losses

X = np.arange(6.0).reshape(3, 2)
V = np.arange(3.0)


def filled(loss="squared_error", **options):
    return Accumulator(loss, **options).update(V, V + 1, [1, 0, 2.5])


class OnDevice:
    __cuda_array_interface__ = {"shape": (3,), "typestr": "<f4", "data": (0, False), "version": 3}  # noqa: RUF012


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("the dog ate it")


def update(*args, **options):
    return lambda acc: acc.update(*args, **options)


def read_only(array):
    array.flags.writeable = False
    return array


SHAPE, VALUE, NUMBERS = "must have the same shape", "must be a scalar, or have the leading", "must be real numbers"
SHAPES = [
    ("(n,) against (n, 1)", update(V, V[:, None]), ValueError, r"labels and predictions .* \(3,\) and \(3, 1\)"),
    ("(n, 1) against (n,)", update(V[:, None], V), ValueError, SHAPE),
    ("(1,) against (n,)", update(V[:1], V), ValueError, SHAPE),
    ("0-d against (n,)", update(1.0, V), ValueError, r"\(\) and \(3,\)"),
    ("0-d against (1,)", update(1.0, [1.0]), ValueError, SHAPE),
    ("empty against (n,)", update([], V), ValueError, SHAPE),
    ("(0, 2) against (0,)", update(np.zeros((0, 2)), []), ValueError, SHAPE),
    ("transposed", update(X, X.T), ValueError, SHAPE),
    (
        "a list of masked arrays",
        update([np.ma.array(V)], [V]),
        TypeError,
        "labels must be one masked array, got a list",
    ),
    ("lists of them", update([V], [[list(np.ma.array(V, mask=V > 1))]]), TypeError, "predictions must be one masked"),
    ("a tuple with masked", update(V, V, (1.0, 2.0, np.ma.masked)), TypeError, "weights must be one .* got a tuple"),
    ("a mask of masked arrays", update([V], [V], mask=[np.ma.array(V > 1)]), TypeError, "mask must be one masked"),
    ("masked array, other shape", update(np.ma.array(V, mask=V > 1), V[:2]), ValueError, SHAPE),
    ("weights too long", update(V, V, [1, 2, 3, 4]), ValueError, rf"weights {VALUE}.* got shape \(4,\) .* \(3,\)"),
    ("weights too short", update(V, V, [1, 2]), ValueError, f"weights {VALUE}"),
    ("weights empty", update(V, V, []), ValueError, f"weights {VALUE}"),
    ("weights (d,) for (n, d)", update(X, X, [1, 2]), ValueError, rf"weights {VALUE}.* got shape \(2,\) .* \(3, 2\)"),
    ("weights (1,) for (n, d)", update(X, X, [1.0]), ValueError, f"weights {VALUE}"),
    ("weights (d, n) for (n, d)", update(X, X, X.T), ValueError, f"weights {VALUE}"),
    ("weights (n, 1) for (n,)", update(V, V, V[:, None]), ValueError, f"weights {VALUE}"),
    ("weights (1, n) for (n,)", update(V, V, V[None]), ValueError, f"weights {VALUE}"),
    ("weights (1,) for 0-d", update(1, 2, [1]), ValueError, f"weights {VALUE}"),
    ("weights of a masked array", update(X, X, np.ma.array([1, 2], mask=[0, 1])), ValueError, f"weights {VALUE}"),
    ("weights (n,) for no rows", update(np.zeros((0, 2)), np.zeros((0, 2)), V), ValueError, f"weights {VALUE}"),
    ("mask (d,) for (n, d)", update(X, X, mask=[True, False]), ValueError, f"mask {VALUE}"),
    ("mask too long", update(V, V, mask=np.ones(4, bool)), ValueError, f"mask {VALUE}"),
    ("mask of higher rank", update(V, V, mask=np.ones((3, 1), bool)), ValueError, f"mask {VALUE}"),
    ("losses and weights", lambda acc: acc.update_losses(V, [1, 2]), ValueError, f"weights {VALUE}"),
    ("losses and mask", lambda acc: acc.update_losses(V, mask=[True] * 2), ValueError, f"mask {VALUE}"),
]

NOT_NUMBERS = {
    "complex": np.zeros(3, complex),
    "complex64": np.zeros(3, np.complex64),
    "str": np.array(["1", "2", "3"]),
    "bytes": np.array([b"1", b"2", b"3"]),
    "object": np.array([1.0, 2.0, 3.0], object),
    "datetime": np.array(["2020-01-01"] * 3, "M8[D]"),
    "timedelta": np.zeros(3, "m8[s]"),
    "longdouble": np.zeros(3, np.longdouble),
    "structured": np.zeros(3, [("a", "f8")]),
    "void": np.zeros(3, "V8"),
    "list of str": ["1", "2", "3"],
    "list with str": [1, "2", 3],
    "list with None": [1, None, 3],
    "list of decimals": [decimal.Decimal(1)] * 3,
    "list of dates": [datetime.date(2020, 1, 1)] * 3,
    "list of big integers": [10**30, 1, 2],
    "set": {1, 2, 3},
    "dict": {"a": 1},
    "generator": (i for i in range(3)),
    "masked complex": np.ma.zeros(3, complex),
    "torch complex": torch.zeros(3, dtype=torch.complex64),
}
DTYPES = [
    *(
        (f"labels {name}", update(value, V), TypeError, f"labels {NUMBERS}.*dtype")
        for name, value in NOT_NUMBERS.items()
    ),
    *((f"predictions {name}", update(V, value), TypeError, "predictions must") for name, value in NOT_NUMBERS.items()),
    *((f"weights {name}", update(V, V, value), TypeError, "weights must") for name, value in NOT_NUMBERS.items()),
    *((f"losses {n}", lambda a, v=v: a.update_losses(v), TypeError, "losses must") for n, v in NOT_NUMBERS.items()),
    ("labels None", update(None, V), TypeError, "labels"),
    ("predictions None", update(V, None), TypeError, "predictions"),
    ("labels and predictions None", update(None, None), TypeError, "labels"),
    ("losses None", lambda acc: acc.update_losses(None), TypeError, "losses"),
    ("labels a str", update("123", V), TypeError, "labels must be real numbers"),
    ("weights a str", update(V, V, "1"), TypeError, "weights must be real numbers"),
    ("labels ragged", update([[1, 2], [3]], X), ValueError, "labels cannot be read as an array .* list"),
    ("predictions ragged", update(X, [[1, 2], [3], [4]]), ValueError, "predictions cannot be read"),
    ("weights ragged", update(X, X, [[1, 2], [3], [4]]), ValueError, "weights cannot be read"),
    ("mask ragged", update(X, X, mask=[[True, False], [True], []]), ValueError, "mask cannot be read"),
    (
        "labels with a failing __array__",
        update(Unreadable(), V),
        TypeError,
        "labels cannot .* Unreadable: the dog ate it",
    ),
    ("mask with a failing __array__", update(V, V, mask=Unreadable()), TypeError, "mask cannot .* the dog ate it"),
    ("labels sparse", update(torch.eye(3).to_sparse(), X), TypeError, "labels cannot be read .* Tensor"),
    ("labels without data", update(torch.zeros(3, device="meta"), V), TypeError, "labels cannot be read .* Tensor"),
    ("mask of int", update(V, V, mask=[1, 0, 1]), TypeError, r"mask must be bool .* int64; write mask != 0"),
    ("mask a number", update(V, V, mask=1), TypeError, "mask must be bool"),
    ("mask of float", update(V, V, mask=V), TypeError, "mask must be bool"),
    ("mask of str", update(V, V, mask=["True"] * 3), TypeError, "mask must be bool"),
    ("mask with nulls", update(V, V, mask=np.array([True, False, None])), TypeError, "bool .* object; has it nulls"),
    ("mask empty", update(V, V, mask=[]), TypeError, "mask must be bool"),
    (
        "labels on a device",
        update(OnDevice(), V),
        TypeError,
        "labels lies on a CUDA device, predictions in host memory",
    ),
    ("predictions on a device", update(V, OnDevice()), TypeError, "predictions lies on a CUDA device"),
    ("weights on a device", update(V, V, OnDevice()), TypeError, "weights lies on a CUDA device"),
    ("mask on a device", update(V, V, mask=OnDevice()), TypeError, "mask lies on a CUDA device"),
    ("losses on a device", lambda acc: acc.update_losses(OnDevice()), RuntimeError, "CUDA"),
    ("out on a device", update(V, V, out=OnDevice()), TypeError, "out must be a NumPy array, got OnDevice"),
]

OUT = [
    ("out of int", update(V, V, out=np.zeros(3, int)), TypeError, "out must be float32 or float64, got dtype int64"),
    ("out of float16", update(V, V, out=np.zeros(3, np.float16)), TypeError, "out must be float32 or float64"),
    (
        "out big-endian",
        update(V, V, out=np.zeros(3, ">f8")),
        TypeError,
        "out must be float32 or float64, got dtype >f8",
    ),
    ("out of object", update(V, V, out=np.zeros(3, object)), TypeError, "out must be float32 or float64"),
    ("out of complex", update(V, V, out=np.zeros(3, complex)), TypeError, "out must be float32 or float64"),
    ("out too long", update(V, V, out=np.zeros(4)), ValueError, r"out must have the shape .* \(3,\), got \(4,\)"),
    ("out (n, 1) for (n,)", update(V, V, out=np.zeros((3, 1))), ValueError, "out must have the shape"),
    ("out transposed", update(X, X, out=np.zeros((2, 3))), ValueError, "out must have the shape"),
    ("out read-only", update(V, V, out=read_only(np.zeros(3))), ValueError, "out must be writable"),
    ("out a broadcast", update(V, V, out=np.broadcast_to(np.zeros(1), 3)), ValueError, "out must be writable"),
    ("out a list", update(V, V, out=[0.0] * 3), TypeError, "out must be a NumPy array, got list"),
    ("out a torch tensor", update(V, V, out=torch.zeros(3)), TypeError, "out must be a NumPy array, got Tensor"),
    (
        "out overlaps itself",
        update(X, X, out=np.lib.stride_tricks.sliding_window_view(np.zeros(4), 2, writeable=True)),
        ValueError,
        r"out must have memory for every element, got strides \(8, 8\) for shape \(3, 2\)",
    ),
    ("out is labels", lambda acc: acc.update(w := V.copy(), V, out=w), ValueError, "out must not share memory"),
    ("out is predictions", lambda acc: acc.update(V, w := V.copy(), out=w), ValueError, "out must not share memory"),
    ("out is weights", lambda acc: acc.update(V, V, w := V.copy(), out=w), ValueError, "out must not share memory"),
    ("out overlaps labels", lambda a: a.update((w := np.zeros(4))[1:], V, out=w[:3]), ValueError, "out must not share"),
    ("out is losses", lambda acc: acc.update_losses(w := V.copy(), out=w), ValueError, "out must not share memory"),
    (
        "out holds the mask",
        lambda acc: acc.update(V, V, mask=(w := np.zeros(3)).view(bool)[:3], out=w),
        ValueError,
        "out must not share memory",
    ),
    (
        "out is masked labels",
        lambda acc: acc.update(np.ma.array(w := V.copy(), mask=V > 1), V, out=w),
        ValueError,
        "out must not share memory",
    ),
    (
        "out holds the mask of labels",
        lambda acc: acc.update(np.ma.MaskedArray(V, (w := np.zeros(3)).view(bool)[:3], copy=False), V, out=w),
        ValueError,
        "out must not share memory",
    ),
]

NAN = math.nan
POLICIES = [
    ("nan policy unknown", lambda _: Accumulator(nan="drop"), ValueError, "nan must be one of propagate, omit, raise"),
    ("nan policy None", lambda _: Accumulator(nan=None), ValueError, "nan must be one of .* got None"),
    ("nan policy a bool", lambda _: Accumulator(nan=True), ValueError, "nan must be one of"),
    ("nan policy a list", lambda _: Accumulator(nan=["omit"]), ValueError, "nan must be one of"),
    (
        "reduction unknown",
        lambda _: Accumulator(reduction="average"),
        ValueError,
        "reduction must be one of .* 'average'",
    ),
    ("reduction of another case", lambda _: Accumulator(reduction="SUM"), ValueError, "reduction must be one of"),
    ("reduction None", lambda _: Accumulator(reduction=None), ValueError, "reduction must be one of .* got None"),
    ("reduction a list", lambda _: Accumulator(reduction=["sum"]), ValueError, "reduction must be one of"),
    ("result of an unknown reduction", lambda acc: acc.result("max"), ValueError, "reduction must be one of .* 'max'"),
    ("result of a number", lambda acc: acc.result(1), ValueError, "reduction must be one of"),
    (
        "result none",
        lambda acc: acc.result("none"),
        ValueError,
        r"'none' keeps every loss.* pass out=array to update\(\)",
    ),
    (
        "result none by default",
        lambda acc: (acc + Accumulator(reduction="none")).copy() and Accumulator(reduction="none").result(),
        ValueError,
        "'none' keeps every loss",
    ),
    (
        "one shot, reduction unknown",
        lambda _: streamloss.mean_squared_error(V, V, reduction="average"),
        ValueError,
        "reduction must be one of",
    ),
    ("one shot, shapes", lambda _: streamloss.mean_squared_error(V, X), ValueError, SHAPE),
    ("one shot, shapes, none", lambda _: streamloss.mean_squared_error(V, X, reduction="none"), ValueError, SHAPE),
    ("one shot, predictions None", lambda _: streamloss.mean_squared_error(V, None), TypeError, "predictions"),
    ("one shot, str", lambda _: streamloss.mean_squared_error(["a"], [1]), TypeError, f"labels {NUMBERS}"),
    (
        "one shot, ragged, none",
        lambda _: streamloss.compute_weighted_loss([[1], [2, 3]], reduction="none"),
        ValueError,
        "losses cannot be read",
    ),
    ("one shot, losses None", lambda _: streamloss.compute_weighted_loss(None), TypeError, f"losses {NUMBERS}"),
]


def one_argument(label):
    return label


def three_arguments(label, prediction, scale):
    return scale * (label - prediction)


def keyword_only(label, prediction, *, scale):
    return scale * (label - prediction)


def unknown_name(label, prediction):
    return there_is_no_such_thing(label - prediction)  # noqa: F821


def opens_a_file(label, prediction):
    with open("file") as file:
        return label - len(file.read())


def adds_text(label, prediction):
    return label + "prediction"


def returns_text(label, prediction):
    return "loss"


def returns_complex(label, prediction):
    return complex(label, prediction)


def returns_pair(label, prediction):
    return label, prediction


def returns_nothing(label, prediction):
    pass


def yields(label, prediction):
    yield label


def always_raises(label, prediction):
    raise ValueError("always")


def absolute_error(label, prediction):  # the user's own, of a built-in's name
    return abs(prediction - label) ** 3


class CallableObject:
    def __call__(self, label, prediction):
        return label


KNOWN = "squared_error, absolute_error, huber"
LOSSES = [
    ("loss unknown", "mse", ValueError, f"loss 'mse' is unknown; there are: {KNOWN}"),
    ("loss of another case", "Huber", ValueError, "is unknown"),
    ("loss empty", "", ValueError, "loss '' is unknown"),
    ("loss with parameters, unknown", "mse(delta=1)", ValueError, "is unknown"),
    ("loss that is internal", "precomputed", ValueError, "is unknown"),
    ("unclosed", "huber(delta=1", ValueError, r"malformed; write it as huber\(delta=1.0\)"),
    ("only opened", "huber(", ValueError, "malformed"),
    ("positional", "huber(2)", ValueError, "malformed"),
    ("a comma for the sign of equality", "huber(delta,2)", ValueError, "malformed"),
    ("no value", "huber(delta)", ValueError, "malformed"),
    ("empty value", "huber(delta=)", ValueError, "malformed"),
    ("an expression", "huber(delta=1*2)", ValueError, "malformed"),
    ("a call", "huber(delta=float('2'))", ValueError, "malformed"),
    ("a star", "huber(*[2])", ValueError, "malformed"),
    ("called twice", "huber(delta=2)(delta=3)", ValueError, "malformed"),
    ("given twice", "huber(delta=2, delta=3)", ValueError, "malformed"),
    ("more text", "huber(delta=2).x", ValueError, "malformed"),
    ("two losses", "huber(delta=2), huber(delta=3)", ValueError, "malformed"),
    ("a line break", "huber(delta=2)\nhuber(delta=3)", ValueError, "malformed"),
    ("a null", "huber(\0)", ValueError, "malformed"),
    ("parameter unknown", "huber(q=2)", ValueError, "huber has no parameter 'q'; it has: delta"),
    ("parameter of a loss without", "squared_error(delta=2)", ValueError, "no parameter 'delta'; it has: none"),
    ("parameter zero", "huber(delta=0)", ValueError, "delta of huber must lie strictly between 0.0 and inf, got 0"),
    (
        "parameter negative",
        "huber(delta=-1.5)",
        ValueError,
        "delta of huber must lie strictly between 0.0 and inf, got -1.5",
    ),
    ("parameter too large", "quantile(q=1)", ValueError, "q of quantile must lie strictly between 0.0 and 1.0, got 1"),
    (
        "parameter half",
        "binary_cross_entropy(eps=0.5)",
        ValueError,
        "eps of binary_cross_entropy must lie strictly between 0.0 and 0.5",
    ),
    ("parameter text", "huber(delta='2')", ValueError, "is malformed; write it as huber"),
    ("parameter bool", "huber(delta=True)", ValueError, "is malformed"),
    ("parameter None", "huber(delta=None)", ValueError, "is malformed"),
    ("parameter complex", "huber(delta=1j)", ValueError, "is malformed"),
    ("parameter beyond float", f"huber(delta=1{'0' * 400})", ValueError, "delta"),
    ("loss None", None, TypeError, f"loss must be one of {KNOWN}.* got NoneType"),
    ("loss a number", 2, TypeError, "loss must be one of .* got int"),
    ("loss a built-in", max, TypeError, "loss must be one of"),
    ("loss a ufunc", np.subtract, TypeError, "loss must be one of .* got ufunc"),
    ("loss a class", float, TypeError, "loss must be one of .* got type"),
    ("loss a callable object", CallableObject(), TypeError, "loss must be one of .* got CallableObject"),
    ("loss a method", CallableObject().__call__, TypeError, "loss must be one of .* got method"),
    ("one argument", one_argument, TypeError, "loss one_argument must take two arguments, label and prediction"),
    ("three arguments", three_arguments, TypeError, "loss three_arguments must take two arguments.*scale"),
    ("no argument", lambda: 1.0, TypeError, "must take two arguments"),
    ("keyword-only argument", keyword_only, TypeError, "must take two arguments"),
    ("default", lambda y, p, q=2.0: q * (y - p), TypeError, "two arguments, .*: got 'q=2.0', too; let that be"),
    ("any number", lambda *both: both[0] - both[1], TypeError, r"two arguments, .*: got '\*both', too; let that be"),
    ("any more", lambda y, p, *more: y - p, TypeError, r"two arguments, .*: got '\*more', too; let that be"),
    ("any names", lambda y, p, **more: y - p, TypeError, r"two arguments, .*: got '\*\*more', too; let that be"),
    ("unknown name", unknown_name, TypeError, "unknown_name cannot be compiled by Numba.*there_is_no_such_thing"),
    ("not to compile", opens_a_file, TypeError, "opens_a_file cannot be compiled by Numba: .*with"),
    ("adds text", adds_text, TypeError, "cannot be compiled by Numba.*(No implementation|unicode_type)"),
    ("returns text", returns_text, TypeError, "cannot be compiled by Numba.*returns .*expected a real number"),
    ("returns complex", returns_complex, TypeError, "returns complex128, expected a real number"),
    ("returns a pair", returns_pair, TypeError, "returns .*expected a real number"),
    ("returns nothing", returns_nothing, TypeError, "returns none, expected a real number"),
    ("a generator", yields, TypeError, "loss yields must be a plain function"),
    ("always raises", always_raises, TypeError, "always_raises cannot be compiled by Numba"),
    ("compiled, wrong", torch.compile, TypeError, "must take two arguments|cannot be compiled"),
]
LOSS_CALLS = [
    *((name, lambda _, loss=loss: Accumulator(loss), error, text) for name, loss, error, text in LOSSES),
    ("Loss with an unknown parameter", lambda _: losses.huber(q=2), ValueError, "huber has no parameter 'q'"),
    (
        "Loss out of its domain",
        lambda _: losses.huber(delta=NAN),
        ValueError,
        "delta of huber must lie strictly between 0.0 and inf, got nan",
    ),
    ("Loss of 0 as a float", lambda _: losses.huber(delta=Fraction(1, 10**400)), ValueError, "delta .* strictly"),
    ("Loss of 1 as a float", lambda _: losses.quantile(q=1 - Fraction(1, 10**30)), ValueError, "q .* strictly"),
    ("Loss with text", lambda _: losses.quantile(q="0.5"), TypeError, "q of quantile must be a number, got str"),
    ("Loss beyond float", lambda _: losses.huber(delta=10**400), ValueError, "delta"),
    (
        "Loss with a positional parameter",
        lambda _: losses.huber(2.0),
        TypeError,
        "huber takes parameters, and those by name",
    ),
]

OTHER = Accumulator("absolute_error").update(V, V + 1)
LARGER = filled().update(V, V)
ALGEBRA = [
    (
        "merge another loss",
        lambda a: a.merge(OTHER),
        ValueError,
        "the losses differ: squared_error here, absolute_error",
    ),
    ("merge other parameters", lambda _: filled("huber").merge(filled("huber(delta=2)")), ValueError, "losses differ"),
    ("merge one of two", lambda acc: acc.merge(filled(), OTHER), ValueError, "the losses differ"),
    ("merge the user's of that name", lambda _: filled(absolute_error).merge(OTHER), ValueError, "the losses differ"),
    ("merge a number", lambda acc: acc.merge(0), TypeError, "others must be Accumulators, got int"),
    ("merge a state", lambda acc: acc.merge(acc.state), TypeError, "others must be Accumulators, got ndarray"),
    ("merge a list", lambda acc: acc.merge([filled()]), TypeError, "others must be Accumulators, got list"),
    (
        "merge one of two, text",
        lambda acc: acc.merge(filled(), "text"),
        TypeError,
        "others must be Accumulators, got str",
    ),
    ("add another loss", lambda acc: acc + OTHER, ValueError, "the losses differ"),
    ("add a number", lambda acc: acc + 1, TypeError, "unsupported operand"),
    ("add to a number", lambda acc: 1 + acc, TypeError, "unsupported operand"),
    ("add None", lambda acc: acc + None, TypeError, "unsupported operand"),
    ("sum of other losses", lambda acc: sum([acc, OTHER]), ValueError, "the losses differ"),
    ("subtract another loss", lambda acc: acc - OTHER, ValueError, "the losses differ"),
    ("subtract a number", lambda acc: acc - 1, TypeError, "unsupported operand"),
    ("subtract from a number", lambda acc: 0 - acc, TypeError, "unsupported operand"),
    ("subtract what was never in", lambda acc: acc - LARGER, ValueError, "what is taken out was never in"),
    ("subtract from nothing", lambda acc: Accumulator() - acc, ValueError, "what is taken out was never in"),
    ("subtract other values", lambda a: a - filled().reset().update(V, V + 9), ValueError, "was never in"),
    ("subtract NaN that was not in", lambda a: a - Accumulator().update(NAN, 1), ValueError, "never in"),
    ("subtract infinity that was not in", lambda a: a - Accumulator().update(math.inf, 1), ValueError, "never in"),
    ("subtract zero weights that were not in", lambda a: a - Accumulator().update(V, V, 0), ValueError, "never in"),
    (
        "subtract skipped that were not in",
        lambda acc: acc - Accumulator(nan="omit").update(NAN, 1),
        ValueError,
        "never in",
    ),
    ("hash", hash, TypeError, "unhashable"),
    ("set an attribute", lambda acc: setattr(acc, "extra", 1), AttributeError, "extra"),
    ("set the state", lambda acc: setattr(acc, "state", 1), AttributeError, "state"),
]

WORDS = filled().state.size


def negative(word):
    state = filled().state
    state[word] = -1
    return state


STATES = [
    (
        "state of float",
        lambda a: Accumulator.from_state(a.state * 1.0),
        TypeError,
        "state must be int64, got dtype float64",
    ),
    ("state of int32", lambda a: Accumulator.from_state(a.state.astype(np.int32)), TypeError, "state must be int64"),
    ("state of uint64", lambda a: Accumulator.from_state(a.state.astype(np.uint64)), TypeError, "state must be int64"),
    ("state None", lambda _: Accumulator.from_state(None), TypeError, "state must be int64"),
    ("state text", lambda _: Accumulator.from_state("state"), TypeError, "state must be int64"),
    (
        "state empty",
        lambda _: Accumulator.from_state(np.zeros(0, int)),
        ValueError,
        rf"shape \({WORDS},\), or .*, got \(0,\)",
    ),
    ("state too short", lambda acc: Accumulator.from_state(acc.state[:-1]), ValueError, "state must have shape"),
    ("state too long", lambda a: Accumulator.from_state(np.append(a.state, 0)), ValueError, "state must have shape"),
    ("state of states", lambda a: Accumulator.from_state(a.state[None]), ValueError, "state must have shape"),
    *(
        (f"state, word {i} negative", lambda _, i=i: Accumulator.from_state(negative(i)), ValueError, "count")
        for i in range(6)
    ),
    (
        "state of unknown loss",
        lambda acc: Accumulator.from_state(acc.state, "mse"),
        ValueError,
        "loss 'mse' is unknown",
    ),
    ("state, nan unknown", lambda acc: Accumulator.from_state(acc.state, nan="x"), ValueError, "nan must be one of"),
]


def mine(label, prediction):
    return (label - prediction) ** 4


def theirs(label, prediction):
    return (label - prediction) ** 4


def crafted(data, header=None, words=None, version=1):
    """What to_bytes() wrote, changed, with a checksum that matches."""
    length, _ = struct.unpack_from("<II", data, 12)
    old, state = json.loads(data[20 : 20 + length]), data[20 + length : -32]
    header = json.dumps(old if header is None else header(old)).encode()
    state = state if words is None else state[: 8 * words]
    body = data[:8] + struct.pack("<III", version, len(header), len(state) // 8) + header + state
    return body + hashlib.sha256(body).digest()


DATA = filled().to_bytes()
MINE = filled(mine).to_bytes()
BYTES = {
    "empty": (b"", "not a streamloss state"),
    "other magic": (b"PK\3\4" + DATA[4:], "not a streamloss state"),
    "half the magic": (DATA[:5], "not a streamloss state"),
    "magic alone": (DATA[:8], "cut short"),
    "prefix alone": (DATA[:20], "cut short"),
    "cut in half": (DATA[: len(DATA) // 2], "cut short or damaged"),
    "last byte missing": (DATA[:-1], "cut short or damaged"),
    "one byte more": (DATA + b"\0", "cut short or damaged"),
    "twice": (DATA * 2, "cut short or damaged"),
    "later version": (crafted(DATA, version=2), "format version 2, expected 1.* later streamloss"),
    "version 0": (crafted(DATA, version=0), "format version 0"),
    "crafted, too few words": (crafted(DATA, words=5), "state must have shape"),
    "crafted, nan unknown": (crafted(DATA, lambda h: h | {"nan": "x"}), "nan must be one of"),
    "crafted, reduction unknown": (crafted(DATA, lambda h: h | {"reduction": "x"}), "reduction must be one of"),
    "crafted, loss unknown": (
        crafted(DATA, lambda h: h | {"loss": "x"}),
        "loss 'x' is unknown",
    ),
    "crafted, no nan": (crafted(DATA, lambda h: {"loss": h["loss"], "reduction": "sum"}), "state|nan"),
    "crafted, header a list": (crafted(DATA, list), "state|header"),
    "user's loss": (MINE, "the data is of a user's function mine: pass that function as loss="),
    "user's loss of a built-in's name": (filled(absolute_error).to_bytes(), "user's function absolute_error: pass"),
}
LOADS = [
    *((f"bytes: {n}", lambda _, d=d: Accumulator.from_bytes(d), ValueError, text) for n, (d, text) in BYTES.items()),
    (
        "bytes, other function",
        lambda _: Accumulator.from_bytes(MINE, loss=theirs),
        ValueError,
        "user's function mine.*got loss=theirs",
    ),
    (
        "bytes, function for a name",
        lambda a: Accumulator.from_bytes(a.to_bytes(), loss=mine),
        ValueError,
        "squared_error",
    ),
    (
        "bytes of the user's, the built-in of that name",
        lambda _: Accumulator.from_bytes(filled(absolute_error).to_bytes(), loss="absolute_error"),
        ValueError,
        "is of the loss .user's function absolute_error., got loss=absolute_error",
    ),
    ("bytes, other loss", lambda _: Accumulator.from_bytes(DATA, loss=losses.huber), ValueError, "got loss=huber"),
    ("bytes text", lambda _: Accumulator.from_bytes("text"), TypeError, ""),
    ("bytes None", lambda _: Accumulator.from_bytes(None), TypeError, ""),
    ("load a missing file", lambda _: Accumulator.load("missing.state"), FileNotFoundError, "missing.state"),
    ("load a folder", lambda _: Accumulator.load("."), OSError, ""),
    ("load another file", lambda _: Accumulator.load("text.csv"), ValueError, "text.csv: not a streamloss state"),
    ("load a cut file", lambda _: Accumulator.load("cut.state"), ValueError, "cut.state: .*cut short"),
    ("save to a missing folder", lambda acc: acc.save("missing/a.state"), FileNotFoundError, "missing"),
    ("save to a folder", lambda acc: acc.save("."), OSError, ""),
]

THREADS = [
    ("threads 0", lambda _: streamloss.set_num_threads(0), ValueError, "threads must be at least 1, got 0"),
    ("threads negative", lambda _: streamloss.set_num_threads(-2), ValueError, "threads must be at least 1"),
    (
        "threads float",
        lambda _: streamloss.set_num_threads(2.0),
        TypeError,
        "threads must be an int or None, got float",
    ),
    ("threads bool", lambda _: streamloss.set_num_threads(True), TypeError, "threads must be an int or None, got bool"),
    ("threads text", lambda _: streamloss.set_num_threads("2"), TypeError, "threads must be an int or None, got str"),
]


def score(path=None, labels="y", predictions="p", weights=None, **options):
    return lambda _: streamloss.score(path, labels=labels, predictions=predictions, weights=weights, **options)


def files(labels, predictions="v.npy", weights=None, **options):
    return score(None, labels, predictions, weights, **options)


SCORES = [
    ("score: no such table", score("missing.parquet"), FileNotFoundError, "no such file: missing.parquet"),
    ("score: a folder", score("."), ValueError, "is a directory of several formats"),
    (
        "score: unknown kind",
        score("table.xlsx"),
        ValueError,
        r"unknown kind of file '.xlsx', expected one of .parquet, ",
    ),
    ("score: empty file", score("empty.csv"), ValueError, "empty.csv is empty"),
    ("score: no rows", score("header.csv"), (ValueError, TypeError), "header.csv"),
    ("score: not Parquet", score("text.parquet"), ValueError, "text.parquet cannot be read"),
    ("score: no such column", score("text.csv", "yy"), ValueError, r"no column 'yy' for labels \(did you mean 'y'\?\)"),
    ("score: no such weights", score("text.csv", weights="w"), ValueError, "no column 'w' for weights.* y, p, name"),
    (
        "score: column of text",
        score("text.csv", "name"),
        TypeError,
        "column 'name' of text.csv must hold numbers for labels",
    ),
    ("score: text after numbers", score("late.csv"), ValueError, "late.csv cannot be read"),
    ("score: NaN in a table", score("text.csv", nan="raise"), ValueError, "nan='raise': p has NaN or null in row 1"),
    ("score: unknown loss", score("text.csv", loss="mse"), ValueError, "loss 'mse' is unknown"),
    ("score: unknown reduction", score("text.csv", reduction="x"), ValueError, "reduction must be one of"),
    ("score: unknown policy", score("text.csv", nan="x"), ValueError, "nan must be one of"),
    ("score: no such array", files("missing.npy"), FileNotFoundError, "no such file: missing.npy"),
    ("score: no such weights file", files("v.npy", weights="w.npy"), FileNotFoundError, "no such file: w.npy"),
    (
        "score: not an array",
        files("text.csv"),
        ValueError,
        "text.csv: unknown kind of file '.csv', expected one of .npy",
    ),
    ("score: empty array file", files("empty.npy"), ValueError, "empty.npy is no readable .npy file"),
    ("score: cut array file", files("cut.npy"), ValueError, "cut.npy is no readable .npy file"),
    ("score: a folder for an array", files("."), OSError, ""),
    ("score: array of objects", files("objects.npy"), ValueError, "objects.npy"),
    ("score: array of no rows", files("none.npy", "none.npy"), ValueError, "none.npy has no rows"),
    ("score: array of text", files("names.npy"), TypeError, f"labels {NUMBERS}"),
    ("score: array of text, raise", files("names.npy", nan="raise"), TypeError, f"labels {NUMBERS}"),
    ("score: array of complex", files("complex.npy"), TypeError, f"labels {NUMBERS}"),
    ("score: shapes", files("x.npy"), ValueError, rf"{SHAPE}, got \(3, 2\) in x.npy and \(3,\) in v.npy"),
    (
        "score: weights shape",
        files("x.npy", "x.npy", "two.npy"),
        ValueError,
        r"weights must be .* got shape \(2,\) in two.npy for elements .*; .* write weights.reshape\(\(1, 2",
    ),
    ("score: weights rank", files("v.npy", "v.npy", "x.npy"), ValueError, f"weights {VALUE}"),
    (
        "score: NaN in an array",
        files("nan.npy", nan="raise"),
        ValueError,
        "nan='raise': nan.npy has NaN or null in row 2",
    ),
    ("score: one NaN", files("nan0.npy", "nan0.npy", nan="raise"), ValueError, "nan='raise': nan0.npy has NaN"),
    ("score: NaN weight", files("v.npy", weights="nan0.npy", nan="raise"), ValueError, "nan='raise': nan0.npy has NaN"),
]

WRONG = [*SHAPES, *DTYPES, *OUT, *POLICIES, *LOSS_CALLS, *ALGEBRA, *STATES, *LOADS, *THREADS, *SCORES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    arrays = {
        "v": V,
        "x": X,
        "two": V[:2],
        "none": np.zeros(0),
        "nan": np.array([1, 2, NAN]),
        "nan0": np.array(NAN),
        "names": np.array(["a", "b", "c"]),
        "complex": np.zeros(3, complex),
        "objects": np.array([1, None, "x"]),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "cut.npy").write_bytes((folder / "v.npy").read_bytes()[:-4])
    (folder / "cut.state").write_bytes(DATA[:-1])
    (folder / "text.csv").write_text("y,p,name\n1,2,a\n3,,b\n")
    (folder / "late.csv").write_text("y,p\n" + "1,2\n" * 20_000 + "one,two\n")
    (folder / "header.csv").write_text("y,p\n")
    for name in ("text.parquet", "table.xlsx"):
        (folder / name).write_text("no such thing")
    (folder / "empty.csv").touch()
    (folder / "empty.npy").touch()
    return folder


@pytest.mark.parametrize(("call", "error", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_call_is_refused_by_name_and_changes_nothing(call, error, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    accumulator = filled()
    before, threads = accumulator.state.tobytes(), streamloss.get_num_threads()
    with pytest.raises(error) as caught:
        call(accumulator)
    assert re.search(message, str(caught.value), re.DOTALL)
    assert accumulator.state.tobytes() == before
    assert streamloss.get_num_threads() == threads


def test_the_corpus_has_no_row_twice():
    assert len(WRONG) == len({row[0] for row in WRONG}) >= 70


@pytest.mark.parametrize("nan_at", [0, 1, 2], ids=["labels", "predictions", "weights"])
@pytest.mark.parametrize("n", [3, 300_000])
def test_an_update_with_nan_is_refused_as_a_whole(nan_at, n):
    arrays = [np.ones(n) for _ in range(3)]
    arrays[nan_at][-1] = NAN
    accumulator = filled(nan="raise")
    before = accumulator.state.tobytes()
    with pytest.raises(
        ValueError, match=rf"{('labels', 'predictions', 'weights')[nan_at]} has NaN at index \[{n - 1}\]"
    ):
        accumulator.update(*arrays)
    assert accumulator.state.tobytes() == before
    assert accumulator.update(V, V).count == 6


@pytest.mark.parametrize("at", range(0, len(DATA), 7))
def test_a_flipped_bit_is_detected(at):
    damaged = bytearray(DATA)
    damaged[at] ^= 1 << at % 8
    with pytest.raises(ValueError, match="state"):
        Accumulator.from_bytes(bytes(damaged))


@pytest.mark.parametrize("length", [*range(0, len(DATA), 97), len(DATA) - 1])
def test_a_cut_is_detected(length):
    with pytest.raises(ValueError, match="state"):
        Accumulator.from_bytes(DATA[:length])


PARAMETERS = [math.inf, sys.float_info.max, 5e-324, 1, 2**70, 0.1, np.float64(0.1)]


@pytest.mark.parametrize("delta", PARAMETERS, ids=repr)
def test_a_parameter_is_refused_or_survives_bytes(delta):
    try:
        accumulator = filled(losses.huber(delta=delta))
    except ValueError:
        return
    assert Accumulator.from_bytes(accumulator.to_bytes()) == accumulator


def test_parameters_of_a_users_own_loss_object():
    with pytest.raises(ValueError, match="scale"):
        Loss("mine", mine, {"delta": 1.0})(scale=2.0)
    assert Loss("mine", mine, {"delta": 1.0})(delta=2.0).parameters == {"delta": 2.0}


# ------------------------------------------------------------------------------------------------ interruptions

N = 20_000_000


@pytest.fixture(scope="module")
def large():
    return np.full(N, 0.5, np.float32), np.full(N, 1.75, np.float32)


@pytest.fixture
def interrupted():
    """Run a call while Ctrl-C comes after so many seconds; whether the call was over by then."""

    def interrupt(*_):
        raise KeyboardInterrupt

    def run(call, seconds):
        returned = False
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
            returned = True
            time.sleep(10)
        except KeyboardInterrupt:
            pass
        return returned

    before = signal.signal(signal.SIGALRM, interrupt)
    yield run
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def duration(call):
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def staged(array):
    return array.reshape(-1, 2)[:, 0]


LARGE_UPDATES = {
    "read in place": lambda acc, labels, predictions: acc.update(labels, predictions),
    "copied in pieces": lambda acc, labels, predictions: acc.update(staged(labels), staged(predictions)),
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("call", LARGE_UPDATES.values(), ids=LARGE_UPDATES)
def test_an_interrupted_large_update_lands_whole_or_not_at_all(call, large, interrupted):
    labels, predictions = large
    usual = duration(lambda: call(Accumulator(), labels, predictions))
    whole = call(Accumulator(), labels, predictions)
    accumulator, expected, moments = filled(), filled(), random.Random(7)
    outcomes = []
    for _ in range(60):
        outcomes.append(
            interrupted(lambda: call(accumulator, labels, predictions), 1e-6 + moments.random() * 1.5 * usual)
        )
        if outcomes[-1]:
            expected.merge(whole)
        assert accumulator.state.tobytes() == expected.state.tobytes()
    assert not all(outcomes)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_interrupted_small_updates_land_whole_or_not_at_all(interrupted):
    labels = np.arange(40.0)
    accumulator, moments, returns = Accumulator(), random.Random(8), 0
    one = Accumulator().update(labels, labels + 1)

    def many():
        nonlocal returns
        for _ in itertools.repeat(None):
            accumulator.update(labels, labels + 1)
            returns += 1

    for _ in range(300):
        before = returns
        assert not interrupted(many, 1e-5 + moments.random() * 3e-3)
        assert accumulator.count % 40 == 0
        assert accumulator.count // 40 == returns >= before
    assert accumulator.state[2:].tobytes() == Accumulator.from_state(one.state * returns).state[2:].tobytes()


def test_an_update_after_an_interrupted_one_is_right(large, interrupted):
    expected = Accumulator().update(*large)
    for moment in (1e-4, 1e-3, 3e-3):
        interrupted(lambda: Accumulator().update(*large), moment)
        assert Accumulator().update(*large) == expected


def refuses_large(label, prediction):
    if label > 2.0:
        raise ValueError("too large")
    return label - prediction


@pytest.mark.parametrize("n", [5, 3_000, 3_000_000])
def test_an_exception_from_the_formula_changes_nothing(n):
    labels = np.zeros(n)
    accumulator = Accumulator(refuses_large).update(labels, labels + 1)
    before = accumulator.state.tobytes()
    for at in (0, n // 2, n - 1):
        wrong = labels.copy()
        wrong[at] = 3.0
        with pytest.raises(ValueError, match="too large"):
            accumulator.update(wrong, labels)
        assert accumulator.state.tobytes() == before
    assert accumulator.update(labels, labels + 1) == Accumulator(refuses_large).update(np.zeros(2 * n), np.ones(2 * n))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("where", ["helper", "caller"])
def test_an_exception_in_any_thread_changes_nothing(where, error, large, monkeypatch):
    from streamloss.chunks import Staged

    operands, failed = Staged.operands, threading.Event()

    def failing(self, piece, pieces):
        if (threading.current_thread() is threading.main_thread()) == (where == "caller"):
            failed.set()
            raise error("in a thread")
        failed.wait(5)
        return operands(self, piece, pieces)

    streamloss.set_num_threads(3)
    labels, predictions = map(staged, large)
    accumulator = filled()
    before = accumulator.state.tobytes()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Staged, "operands", failing)
            with pytest.raises(error, match="in a thread"):
                accumulator.update(labels, predictions)
        assert accumulator.state.tobytes() == before
        assert accumulator.update(labels, predictions) == filled().merge(Accumulator().update(labels, predictions))
    finally:
        streamloss.set_num_threads(None)


def test_a_failing_progress_stops_score(tmp_path):
    np.save(tmp_path / "v.npy", V)

    def progress(done):
        raise InterruptedError(f"{done.rows} of {done.all_rows}")

    with pytest.raises(InterruptedError, match="0 of 3"), contextlib.chdir(tmp_path):
        streamloss.score(labels="v.npy", predictions="v.npy", progress=progress)
