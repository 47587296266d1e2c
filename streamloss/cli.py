"""The command `streamloss`: options, then a call of the library, then a report."""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

try:
    import click

    from .files import bar, printed, report
except ImportError as error:
    sys.exit(f"the command needs more packages: pip install 'streamloss[cli]' ({error})")

from . import __version__, stored
from ._threads import set_num_threads
from .files import History, Progress, checkpoint, outputs, results, scoring
from .files.results import Results
from .losses import LOSSES
from .reduction import Reduction
from .warm import warmup as compile_ahead

NAMES = ", ".join(map(repr, LOSSES.values()))
USER_ERROR = 2
INTERRUPTED = 130
PIPE_CLOSED = 1  # as click has it


class Shown(NamedTuple):
    """How the results are to be printed."""

    as_json: bool
    as_csv: bool
    reduction: str | None

    @property
    def reductions(self) -> Sequence[Reduction]:
        """The reduction that was asked for, or all of them."""
        return report.REDUCTIONS if self.reduction is None else (Reduction(self.reduction),)


def _shown(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command that prints results."""
    names = [str(reduction) for reduction in report.REDUCTIONS]
    for option in (
        click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a row for each prediction and group."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object; NaN is null, infinity 1e999."),
        click.option(
            "--reduction",
            type=click.Choice(names),
            help="Print this result only; default: all, in a table of groups one.",
        ),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="streamloss")
def command() -> None:
    """Exact, streaming, weighted losses over data that does not fit in memory."""


@command.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--labels", required=True, metavar="COLUMN", help="Column of SOURCE; without SOURCE, an array file.")
@click.option("--predictions", required=True, multiple=True, metavar="COLUMN", help="Likewise; may be repeated.")
@click.option("--weights", metavar="COLUMN", help="Likewise; default: every weight is 1.")
@click.option("--by", multiple=True, metavar="COLUMN", help="Score the groups of this column; may be repeated.")
@click.option("--loss", default="squared_error", metavar="NAME", help=f"One of {NAMES}.")
@click.option("--nan", type=click.Choice(["omit", "propagate", "raise"]), default="omit", help="Default: omit.")
@click.option("--stderr", is_flag=True, help="Standard errors, too.")
@click.option("--checkpoint", metavar="FILE", help="Keep state and position here, and go on from them.")
@click.option(
    "--checkpoint-every",
    "every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Least number of seconds between two checkpoints; default: 5.",
)
@click.option("--save-state", metavar="FILE", help="Write the state, for `streamloss merge` and Python.")
@click.option("--losses-out", metavar="FILE", help="Write every single loss to this .parquet or .npy file.")
@click.option("--plot", metavar="FILE", help="Draw the running loss, or a bar for each group, e.g. to a .png file.")
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Default: all cores.")
@_shown
def score(
    sources: tuple[str, ...],
    by: tuple[str, ...],
    stderr: bool,
    save_state: str | None,
    plot: str | None,
    threads: int | None,
    every: float | None,
    as_json: bool,
    as_csv: bool,
    reduction: str | None,
    **options: Any,
) -> None:
    """Score columns of tables (files, folders, globs or URLs), or array files.

    A COLUMN is a name or an expression of SQL over columns. Tables are Parquet, CSV, TSV, NDJSON (plain, .gz, .zst) and
    Arrow; arrays are .npy files, or those in .npz, HDF5 and Zarr: FILE.h5:/NAME.

    \b
    streamloss score flights.parquet --labels arr_delay --predictions dep_delay
    streamloss score 'part-*.csv.gz' --labels y --predictions a --predictions b --by country
    streamloss score --labels y.npy --predictions p.npy --weights w.npy
    """  # noqa: D301, click looks for the character itself
    shown = _checked(as_json, as_csv, reduction)
    if every is not None and options["checkpoint"] is None:
        raise click.UsageError("--checkpoint-every needs --checkpoint FILE: without it nothing is kept")
    state_path, plot_path = _checked_state(save_state), _checked_plot(plot)
    written = [path for path in (save_state, plot, options["losses_out"], options["checkpoint"]) if path is not None]
    arrays = [options["labels"], *options["predictions"], options["weights"]]
    outputs.check_apart(written, sources or arrays)
    if threads is not None:
        os.environ["POLARS_MAX_THREADS"] = str(threads)  # Polars reads it when it is loaded, which is later
        set_num_threads(threads)
    if reduction is not None:
        options["reduction"] = reduction
    if every is not None:
        options["every"] = every
    options["history"] = history = History() if plot_path is not None and not by else None
    clock = _Clock()
    with bar.Bar() if sys.stderr.isatty() else nullcontext() as progress_bar:
        options["progress"] = clock.wrap(progress_bar, options["checkpoint"])
        source = None if not sources else sources[0] if len(sources) == 1 else list(sources)
        try:
            scored: Any = scoring.score(source, by=by or None, stderr=stderr or plot_path is not None, **options)
        except KeyboardInterrupt:
            kept = options["checkpoint"]
            if kept is not None and os.path.exists(kept):
                click.echo(f"streamloss: {kept}: the same command goes on from there", err=True)
            raise
    _deliver(Results(scored, by), shown, state_path, plot_path, history, clock.rate)


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--out", "out", metavar="FILE", help="Write the merged state.")
@click.option("--plot", metavar="FILE", help="Draw a bar for each group or prediction.")
@_shown
def merge(
    files: tuple[str, ...], out: str | None, plot: str | None, as_json: bool, as_csv: bool, reduction: str | None
) -> None:
    """Add up states that `score --save-state` or `Accumulator.save` has written, exactly."""
    shown = _checked(as_json, as_csv, reduction)
    out_path, plot_path = _checked_state(out), _checked_plot(plot)
    written: list[str] = []
    for option, path in (("--out", out), ("--plot", plot)):
        if path is not None:
            written.append(path)
            try:
                outputs.check_apart(written, files)
            except ValueError as error:
                raise click.BadParameter(str(error), param_hint=option) from None
    for i, file in enumerate(files):
        twice = [other for other in files[:i] if Path(file).exists() and Path(other).samefile(file)]
        if twice:
            raise ValueError(f"{file} is given twice, and would be counted twice")
    first, *others = [results.read(Path(file), Results.from_bytes) for file in files]
    for file, other in zip(files[1:], others, strict=True):
        try:
            first.merge(other)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} cannot be merged with {files[0]}: {error}") from None
    _deliver(first, shown, out_path, plot_path)


@command.command()
@click.argument("file")
@_shown
def show(file: str, as_json: bool, as_csv: bool, reduction: str | None) -> None:
    """Show what FILE, a state or a checkpoint, holds."""
    shown = _checked(as_json, as_csv, reduction)
    kind, _, _ = results.read(Path(file), stored.unpack)
    if kind == checkpoint.KIND:
        kept = results.read(Path(file), checkpoint.Kept.from_bytes)
        content, pairs = kept.results, kept.described()
    else:
        content = results.read(Path(file), Results.from_bytes)
        pairs = [("predictions", ", ".join(content.accumulators)), ("nan", content.first.nan)]
    if not (as_json or as_csv):
        for name, value in (("file", file), ("kind", kind), *pairs):
            click.echo(f"{name:<12} {value}")
        click.echo()
    _deliver(content, shown)


@command.command()
@click.option("--loss", "losses", multiple=True, metavar="NAME", help="May be repeated; default: squared_error.")
@click.option("--by", is_flag=True, help="Those for groups, too.")
@click.option("--stderr", is_flag=True, help="Those for standard errors, too.")
def warmup(losses: tuple[str, ...], by: bool, stderr: bool) -> None:
    """Compile the usual kernels into the cache folder (NUMBA_CACHE_DIR), for the image of a container."""
    begin = time.perf_counter()
    compile_ahead(losses or ("squared_error",), groups=by, stderr=stderr)
    click.echo(f"ready after {time.perf_counter() - begin:.1f} s: {', '.join(losses) or 'squared_error'}")


class _Clock:
    """Measures how fast rows are read."""

    def __init__(self) -> None:
        self._begin, self._first, self._rows = time.perf_counter(), -1, 0

    def wrap(self, callback: Callable[[Progress], None] | None, checkpoint: str | None) -> Callable[[Progress], None]:
        """Return a callback that notes the progress and passes it on; it says where a checkpoint goes on."""

        def note(progress: Progress) -> None:
            if self._first < 0:
                self._first = progress.rows
                if progress.rows:
                    of = "" if progress.all_rows is None else f" of {progress.all_rows:,}"
                    click.echo(f"streamloss: {checkpoint}: goes on after row {progress.rows:,}{of}", err=True)
            self._rows = progress.rows
            if callback is not None:
                callback(progress)

        return note

    @property
    def rate(self) -> float | None:
        """Rows per second; None where none were read."""
        read = self._rows - self._first
        return read / (time.perf_counter() - self._begin) if read else None


def _checked(as_json: bool, as_csv: bool, reduction: str | None) -> Shown:
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    return Shown(as_json, as_csv, reduction)


def _checked_state(path: str | None) -> Path | None:
    if path is None:
        return None
    checked = outputs.check(path)
    if checked.exists() and not stored.read(checked).startswith(stored.MAGIC):
        raise ValueError(f"cannot write {path}: it exists and holds no state of streamloss")
    return checked


def _checked_plot(path: str | None) -> Path | None:
    if path is None:
        return None
    try:
        from .files import plot
    except ImportError as error:
        raise ImportError(f"--plot draws with matplotlib: pip install 'streamloss[plot]' ({error})") from error
    checked = outputs.check(path)
    plot.check(checked)
    return checked


def _deliver(
    outcome: Results,
    shown: Shown,
    state_path: Path | None = None,
    plot_path: Path | None = None,
    history: History | None = None,
    rate: float | None = None,
) -> None:
    """Write the files, then print: what is printed has been written."""
    if state_path is not None:
        outputs.write(state_path, outcome.to_bytes())
    if plot_path is not None:
        from .files import plot

        reduction = outcome.first.reduction if shown.reduction is None else Reduction(shown.reduction)
        outputs.write(plot_path, plot.draw(outcome, history, reduction, plot_path.suffix.lower().lstrip(".")))
    if shown.as_json:
        click.echo(report.as_json(outcome, shown.reductions))
    elif shown.as_csv:
        for line in report.as_csv(outcome, shown.reductions):
            sys.stdout.write(line)
    else:
        printed.show(outcome, shown.reductions, rate)


def main() -> None:
    """Run the command; a user's error becomes one line on standard error and exit code 2."""
    warnings.filterwarnings("ignore", r"'\(default_\)region' not set")  # Polars finds it itself, or its error says so
    try:
        command(prog_name="streamloss", standalone_mode=False)
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USER_ERROR)
    except click.ClickException as error:
        _fail(error.format_message())
    except BrokenPipeError:
        _forget_output()
        sys.exit(PIPE_CLOSED)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _forget_output()
        where = error.filename or ("standard output" if error.errno == errno.ENOSPC else "")
        _fail(f"{where}: {error.strerror}" if where else error.strerror or str(error))
    except (ValueError, TypeError, ImportError) as error:
        _fail(str(error))


def _forget_output() -> None:
    """Redirect standard output to nowhere: Python would write the rest again when it exits, and report the error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> None:
    print("streamloss: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(USER_ERROR)
