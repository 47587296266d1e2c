"""The command `streamloss`."""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    import click
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table
except ImportError as error:  # pragma: no cover
    sys.exit(f"the command needs more packages: pip install 'streamloss[cli]' ({error})")

from . import __version__
from .accumulator import Accumulator
from .files import score as score_files
from .reduction import Reduction

REDUCTIONS = [reduction for reduction in Reduction if reduction is not Reduction.NONE]
USER_ERROR = 2
NARROWEST = 80  # columns: a number is never cut short, whatever the terminal


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="streamloss")
def command() -> None:
    """Exact, streaming, weighted losses over data that does not fit in memory."""


@command.command()
@click.argument("file", required=False)
@click.option("--labels", required=True, metavar="COLUMN", help="Column of FILE; without FILE, a .npy file.")
@click.option("--predictions", required=True, metavar="COLUMN", help="Likewise.")
@click.option("--weights", metavar="COLUMN", help="Likewise; default: every weight is 1.")
@click.option("--loss", default="squared_error", metavar="NAME", help='E.g. absolute_error or "huber(delta=2)".')
@click.option("--nan", type=click.Choice(["omit", "propagate", "raise"]), default="omit", help="Default: omit.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; NaN is null.")
def score(
    file: str | None, labels: str, predictions: str, weights: str | None, loss: str, nan: Any, as_json: bool
) -> None:
    r"""Score two columns of FILE (.parquet or .csv), or two .npy files.

    \b
    streamloss score flights.parquet --labels arr_delay --predictions dep_delay
    streamloss score --labels y.npy --predictions p.npy --weights w.npy
    """
    begin = time.perf_counter()
    with _progress() as progress:
        accumulator = score_files(
            file, labels=labels, predictions=predictions, weights=weights, loss=loss, nan=nan, progress=progress
        )
    seconds = time.perf_counter() - begin
    if as_json:
        click.echo(_as_json(accumulator))
    else:
        _print_table(accumulator, seconds)


def _as_json(accumulator: Accumulator) -> str:
    """One object whose numbers read back as the same floats: NaN is null, and an infinity is written 1e999."""
    content = {
        "loss": repr(accumulator.loss),
        "count": accumulator.count,
        "nonzero_count": accumulator.nonzero_count,
        "skipped_count": accumulator.skipped_count,
        "loss_sum": _number(accumulator.loss_sum),
        "weight_sum": _number(accumulator.weight_sum),
        "results": {str(reduction): _number(accumulator.result(reduction)) for reduction in REDUCTIONS},
    }
    return json.dumps(content).replace("Infinity", "1e999")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _print_table(accumulator: Accumulator, seconds: float) -> None:
    rows = accumulator.count + accumulator.skipped_count
    table = Table("", repr(accumulator.loss), box=None, header_style="bold", pad_edge=False)
    table.columns[1].justify = "right"
    for reduction in REDUCTIONS:
        table.add_row(str(reduction), repr(accumulator.result(reduction)))
    table.add_section()
    table.add_row("weight sum", repr(accumulator.weight_sum))
    table.add_row("elements", f"{accumulator.count:,}")
    table.add_row("with nonzero weight", f"{accumulator.nonzero_count:,}")
    table.add_row("skipped (NaN or null)", f"{accumulator.skipped_count:,}")
    table.add_row("rows per second", f"{rows / seconds:,.0f}")
    console = Console()
    console.width = max(console.width, NARROWEST)
    console.print(table)


class _Bar:
    """A progress bar that appears on a terminal."""

    def __init__(self) -> None:
        columns = [BarColumn(), TextColumn("{task.fields[rows]} rows"), TimeRemainingColumn()]
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=None, rows="0")

    def __enter__(self) -> Any:
        self._bar.start()
        return lambda done, rows: self._bar.update(self._task, completed=done, total=rows, rows=f"{done:,}")

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def _progress() -> AbstractContextManager[Any]:
    return _Bar() if sys.stderr.isatty() else nullcontext()


def main() -> None:
    """Run the command: what the user got wrong is one line on standard error and exit code 2."""
    try:
        command(prog_name="streamloss", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USER_ERROR)
    except click.ClickException as error:
        _fail(error.format_message())
    except (OSError, ValueError, TypeError, ImportError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    print("streamloss: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(USER_ERROR)
