"""The benchmarks: that their exact answers are exact, that rivals answer the same question, that a failure is told."""

import importlib.util
import json
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamloss
from benchmarks import __main__ as command
from benchmarks import drift, exactly, hard, large, machine, middle, plots, report, small
from benchmarks.plan import Plan
from benchmarks.rivals import RIVALS, Rival, Unsupported
from benchmarks.streams import STREAMS
from benchmarks.workloads import WORKLOADS
from streamloss import _threads
from streamloss.cpu import updates

from .oracle import evaluate

# What other libraries do when they are imported is theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")

PRESENT = [name for name in command.SECTIONS if importlib.util.find_spec(f"benchmarks.{name}")]
AT_ONCE = [rival for rival in RIVALS if not rival.starts_slowly]
WITHOUT_WEIGHTS = {"xsum superaccumulator", "math.fsum"}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_the_exact_sum_is_that_of_fractions(terms):
    assert Fraction(exactly.total(np.array(terms, np.float64)), 1 << 1074) == sum(map(Fraction, terms))


@pytest.mark.parametrize("term", [np.nan, np.inf, -np.inf])
def test_an_exact_sum_refuses_what_is_not_finite(term):
    with pytest.raises(ValueError, match="finite"):
        exactly.total(np.array([1.0, term]))


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_the_exact_answer_is_that_of_the_oracle(workload, monkeypatch):
    monkeypatch.setattr(exactly, "STEP", 100)  # several pieces, the last one shorter
    arrays = workload.arrays(0.0)
    shape = arrays["labels"].shape
    weights = arrays.get("weights")
    if weights is not None:
        weights = np.broadcast_to(weights.reshape(-1, *[1] * (len(shape) - 1)), shape)
    oracle = evaluate(
        arrays["labels"],
        arrays["predictions"],
        weights,
        lambda label, prediction: (prediction - label) * (prediction - label),
        mask=arrays.get("mask"),
    )
    assert workload.answer(arrays) == oracle.result("mean")


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_arrays_take_the_room_they_are_asked_for(workload):
    size = sum(array.nbytes for array in workload.arrays(3.0).values())
    assert abs(size - 3e6) < 50_000
    assert all(array.nbytes % 8 == 0 for array in workload.arrays(0.0).values())  # read in words of 8 bytes


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
@pytest.mark.parametrize("rival", AT_ONCE, ids=lambda rival: rival.name)
def test_every_rival_answers_the_same_question(rival, workload):
    arrays = workload.arrays(0.1)
    before = {name: array.copy() for name, array in arrays.items()}
    call, failure = large.ready(rival, arrays, workload.answer(arrays))
    if rival.name in WITHOUT_WEIGHTS and len(arrays) > 2:
        assert call is None
        assert failure.startswith("adds ")
    else:
        assert failure == ""
        assert call() == pytest.approx(workload.answer(arrays), rel=1e-4)
    assert all(np.array_equal(array, before[name]) for name, array in arrays.items())


@pytest.mark.parametrize("kind", STREAMS, ids=lambda kind: kind.name)
def test_every_stream_answers_the_same_question(kind):
    calls = small._calls(kind, 1 if kind.takes == "floats" else 32)
    assert set(calls) == {"update", "result"} | ({"update, weights"} if kind.weights else set())


@pytest.mark.parametrize("name", small.KEYS)
def test_groups_are_timed_by_calls_that_answer(name):
    calls = small._calls_of_groups(name)
    assert set(calls) == set(small.WHAT)
    assert calls["update"]().count == 2 * small.BATCH
    assert len(calls["result"]()) == small.GROUPS


def raising(error):
    def prepare(arrays):
        raise error

    return prepare


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (raising(Unsupported("has no weights")), "has no weights"),
        (raising(RuntimeError("no\n  compiler")), "RuntimeError: no compiler"),
        (lambda arrays: lambda: 1.0, "relative error"),
        (lambda arrays: lambda: float("nan"), "relative error nan"),
    ],
)
def test_a_rival_that_fails_is_reported_and_the_others_are_measured(prepare, reason):
    failing = Rival("failing", prepare)
    rows = list(large.measure(WORKLOADS[0], 0.01, [failing, RIVALS[0]], Plan(quick=True)))
    assert [row["library"] for row in rows] == ["failing", "streamloss"]
    assert rows[0]["failure"].startswith(reason)
    assert rows[1]["error, ulp"] == 0.0
    assert reason in report.failures(rows)
    assert "failing" in large.show(rows)
    assert not command.has_failed({"failure": "", "rows": rows})


def test_a_wrong_bit_of_streamloss_ends_the_section():
    arrays = WORKLOADS[0].arrays(0.01)
    exact = WORKLOADS[0].answer(arrays)
    off = Rival("streamloss", lambda arrays: lambda: float(np.nextafter(exact, 2 * exact)))
    with pytest.raises(AssertionError, match="streamloss"):
        large.ready(off, arrays, exact)


def test_a_section_that_fails_is_told_and_is_the_exit_status(monkeypatch, capsys):
    found = command.run_section("nowhere", Plan(quick=True))
    assert found["failure"] == "ended with status 1"
    assert found["rows"] == []
    assert command.has_failed(found)
    assert command.body("memory", found) == ["**This section failed: it ended with status 1.**"]
    monkeypatch.setattr(command, "run_section", lambda name, plan: found)
    assert command.run(["memory"], Plan(quick=True), readme=False) == 1
    assert "ended with status 1" in capsys.readouterr().out


def test_a_failure_of_streamloss_fails_its_section():
    rows = [{"case": "CSV", "library": "streamloss", "failure": "TypeError"}]
    assert command.has_failed({"failure": "", "rows": rows})


def test_sections_measured_alone_replace_their_part_of_the_results(monkeypatch, tmp_path, capsys):
    def found(name, plan):
        row = {"pair of .npy files, MB": 1, "peak resident memory, MB": next(peaks)}
        return {"date": "2026-01-01", "machine": "a", "versions": "b", "seconds": 1.0, "failure": "", "rows": [row]}

    peaks = iter([111.0, 222.0, 333.0])
    monkeypatch.setattr(command, "run_section", found)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert command.run(["memory", "cold"], Plan(), readme=False) == 0
    assert command.run(["memory"], Plan(), readme=False) == 0
    (path,) = tmp_path.glob("*.json")
    kept = json.loads(path.read_text())
    assert [kept[name]["rows"][0]["peak resident memory, MB"] for name in ("cold", "memory")] == [222.0, 333.0]
    assert path.with_suffix(".md").read_text() in capsys.readouterr().out


def test_unknown_sections_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "larg", "--quick"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "no such section: larg" in capsys.readouterr().err


@pytest.mark.parametrize("name", PRESENT)
def test_a_section_has_what_the_table_needs(name):
    module = command.module(name)
    assert module.TITLE
    assert callable(module.run)
    assert callable(module.show)


def test_sections_are_there_and_those_of_the_readme_are_among_them():
    assert set(command.SECTIONS) == set(PRESENT)
    assert set(command.IN_README) | set(command.PICTURES) <= set(command.SECTIONS)


def test_the_readme_has_its_marks_and_keeps_all_else(tmp_path):
    before = report.README.read_text(encoding="utf-8")
    path = tmp_path / "README.md"
    path.write_text(before, encoding="utf-8")
    report.write_readme(r"a \1 table", path)
    once = path.read_text(encoding="utf-8")
    report.write_readme(r"a \1 table", path)
    assert path.read_text(encoding="utf-8") == once
    assert r"a \1 table" in once
    assert once.split("<!-- speed")[0] == before.split("<!-- speed")[0]
    assert once.split("<!-- end of speed")[1] == before.split("<!-- end of speed")[1]
    path.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="no marks"):
        report.write_readme("text", path)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.98765, "0.988"), (1234.5, "1,234"), (1e6, "1.0e+06"), (1e-9, "1.0e-09"), (1000, "1,000")],
)
def test_numbers_in_tables_have_three_digits(value, text):
    assert report.cell(value) == text


def test_reading_all_reads_every_byte():
    arrays = [np.zeros(1 << 20, np.float32), np.zeros((1000, 8), np.float64)]
    assert machine.read_all(arrays) == machine.read_alone(arrays) == 0
    for array in arrays:
        for place in (0, -1):
            array.reshape(-1).view(np.int64)[place] = 3
            assert machine.read_all(arrays) != 0
            assert machine.read_alone(arrays) == 3
            array.reshape(-1).view(np.int64)[place] = 0


@pytest.mark.parametrize("elements", [4096, 1 << 20])
def test_middle_sizes_are_compared_with_threads_and_without(elements, monkeypatch):
    share, shares = _threads.share, []
    monkeypatch.setattr(_threads, "share", lambda pieces, work: shares.append(len(pieces)) or share(pieces, work))
    streamloss.set_num_threads(2)
    try:
        update = partial(streamloss.Accumulator().update, np.zeros(elements), np.ones(elements))
        before = updates.TIMED, updates.ALONE, updates.DRAWN
        middle._parallel(update)
        assert len(shares) == 1
        assert shares[0] >= 2
        middle._serial(update)
        assert len(shares) == 1
        assert before == (updates.TIMED, updates.ALONE, updates.DRAWN)
    finally:
        streamloss.set_num_threads(None)


def test_calls_take_turns():
    turns = []
    timed = machine.time_in_turns({name: lambda name=name: turns.append(name) or name for name in "ab"}, 9)
    pairs = {tuple(turns[i : i + 2]) for i in range(0, 18, 2)}
    assert len(turns) == 18
    assert pairs == {("a", "b"), ("b", "a")}  # in changing order
    assert [timed[name].result for name in "ab"] == ["a", "b"]


@pytest.mark.parametrize("case", hard.CASES, ids=lambda case: f"{case.name}, {case.dtype.__name__}")
def test_hard_data_are_as_hard_as_they_say(case):
    errors = case.errors(np.random.default_rng(0), 10_000).astype(case.dtype)
    terms = case.terms(errors)
    subnormal = np.mean((terms > 0) & (terms < np.finfo(np.float64).smallest_normal))
    assert abs(subnormal - (0.3 if "subnormal" in case.name else 0.0)) < 0.02
    assert abs(np.isnan(errors).mean() - (0.01 if "NaN" in case.name else 0.0)) < 0.005
    if "600" in case.name:
        exponents = np.frexp(terms)[1]
        assert np.ptp(exponents) > 590


def test_python_does_the_same_work_for_one_element_and_for_a_thousand():
    assert small.calls_of_python(1) == small.calls_of_python(1000) > 0


def test_the_drift_of_streamloss_is_half_a_unit_at_most():
    rng = np.random.default_rng(0)
    labels, predictions = rng.standard_normal((2, 4096), dtype=np.float32)
    errors = drift._errors(STREAMS[0], labels, predictions, drift._prefixes(labels, predictions))
    assert [elements for elements, _ in errors] == [1024, 2048, 4096]
    assert all(error <= 2.0**-53 for _, error in errors)


ROWS = [
    {"elements": elements, "library": library, "of the roof": share, "relative error": share * 1e-6}
    for library, share in [("streamloss", 0.9), ("torch", 0.2), ("keras", 0.2)]
    for elements in (1000, 2000, 4000)[: 2 if library == "keras" else 3]
]


def test_lines_that_coincide_share_one():
    lines = plots._lines(ROWS, "of the roof")
    assert [line.name for line in lines] == ["streamloss", "torch\nkeras"]
    assert [len(line.points) for line in lines] == [3, 3]


if importlib.util.find_spec("matplotlib"):

    @pytest.mark.parametrize("picture", [plots.roof, plots.drift])
    def test_pictures_are_drawn(picture, tmp_path):
        picture(ROWS, tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
