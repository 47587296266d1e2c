"""The results for programs: JSON and CSV. For people there is `table`.

To add a form, write its function here and give it an option in `cli`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..accumulator import Accumulator
from ..exact import NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY, TERMS
from ..grouped import GroupedAccumulator
from ..reduction import Reduction
from .results import AnyAccumulator, Results

TEXT_OR_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*"|Infinity')  # in JSON as Python writes it
REDUCTIONS = tuple(reduction for reduction in Reduction if reduction is not Reduction.NONE)


def total(accumulator: AnyAccumulator) -> Accumulator:
    """Return the accumulator of all groups together."""
    return accumulator.total() if isinstance(accumulator, GroupedAccumulator) else accumulator


def nonfinite_count(accumulator: Accumulator) -> int:
    """Return how many terms are NaN or infinite: why a result is, where no element has been skipped."""
    return sum(int(accumulator.state[TERMS + word]) for word in (NAN, POSITIVE_INFINITY, NEGATIVE_INFINITY))


def key_names(results: Results) -> tuple[str, ...]:
    """Return the names of the columns of keys; files that Python has saved do not know them."""
    if results.by or not isinstance(results.first, GroupedAccumulator):
        return results.by
    width = max((len(parts(key)) for key in results.first), default=1)
    return ("key",) if width == 1 else tuple(f"key {number}" for number in range(1, width + 1))


def parts(key: Any) -> tuple[Any, ...]:
    """Return the entries of a key, one for each column."""
    return key if isinstance(key, tuple) else (key,)


def as_json(results: Results, reductions: Sequence[Reduction] = REDUCTIONS) -> str:
    """Return one object whose numbers read back as the same floats: NaN is null, and an infinity is written 1e999."""
    content: dict[str, Any] = {"loss": repr(results.first.loss)}
    names = key_names(results)
    bodies = {name: _body(each, names, reductions) for name, each in results.accumulators.items()}
    content |= {"predictions": bodies} if len(bodies) > 1 else next(iter(bodies.values()))
    text = json.dumps(content, default=str)
    return TEXT_OR_INFINITY.sub(lambda found: "1e999" if found[0] == "Infinity" else found[0], text)


def _body(accumulator: AnyAccumulator, names: Sequence[str], reductions: Sequence[Reduction]) -> dict[str, Any]:
    body = _numbers(total(accumulator), reductions)
    if isinstance(accumulator, GroupedAccumulator):
        body["groups"] = [
            {"key": {name: _json_key(part) for name, part in zip(names, key, strict=True)}}
            | _numbers(group, reductions)
            for key, group in _groups(accumulator)
        ]
    return body


def _numbers(accumulator: Accumulator, reductions: Sequence[Reduction]) -> dict[str, Any]:
    numbers = {
        "count": accumulator.count,
        "nonzero_count": accumulator.nonzero_count,
        "skipped_count": accumulator.skipped_count,
        "loss_sum": _number(accumulator.loss_sum),
        "weight_sum": _number(accumulator.weight_sum),
        "results": {str(reduction): _number(accumulator.result(reduction)) for reduction in reductions},
    }
    if lost := nonfinite_count(accumulator):
        numbers["nonfinite_count"] = lost
    if accumulator.stderr:
        errors = {str(reduction): _number(accumulator.standard_error(reduction)) for reduction in reductions}
        numbers["standard_errors"] = errors
    return numbers


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _json_key(part: Any) -> Any:
    return repr(part) if isinstance(part, float) and not math.isfinite(part) else part


def as_csv(results: Results, reductions: Sequence[Reduction] = REDUCTIONS) -> Iterator[str]:
    """Yield lines of RFC 4180: a header, and a row for each prediction and group; floats read back as the same floats.

    A missing key is an empty field, and an empty string is "".
    """
    several = len(results.accumulators) > 1
    header = [*(["prediction"] if several else []), *key_names(results)]
    header += ["count", "nonzero_count", "skipped_count", "weight_sum", *map(str, reductions)]
    if results.first.stderr:
        header += [f"{reduction}_standard_error" for reduction in reductions]
    yield _line(header)
    for name, each in results.accumulators.items():
        for key, accumulator in _groups(each):
            yield _line([*([name] if several else []), *key, *_columns(accumulator, reductions)])


def _groups(accumulator: AnyAccumulator) -> Iterator[tuple[tuple[Any, ...], Accumulator]]:
    if isinstance(accumulator, Accumulator):
        yield (), accumulator
    else:
        yield from ((parts(key), group) for key, group in accumulator.items())


def _columns(accumulator: Accumulator, reductions: Sequence[Reduction]) -> list[Any]:
    columns: list[Any] = [accumulator.count, accumulator.nonzero_count, accumulator.skipped_count]
    columns += [accumulator.weight_sum, *(accumulator.result(reduction) for reduction in reductions)]
    if accumulator.stderr:
        columns += [accumulator.standard_error(reduction) for reduction in reductions]
    return columns


def _line(fields: Sequence[Any]) -> str:
    return ",".join(map(_field, fields)) + "\r\n"


def _field(value: Any) -> str:
    if value is None:
        return ""
    text = repr(value) if isinstance(value, float) else str(value)
    quoted = not text or any(mark in text for mark in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if quoted else text
