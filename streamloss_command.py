"""Starts the command `streamloss`: from here on Ctrl-C ends it quietly, while Python still loads the rest.

SIGTERM, by which the system asks a program to end, has the effect of Ctrl-C once all is loaded: a checkpoint is kept.
"""

import os
import signal
import sys
from threading import Timer

INTERRUPTED = 130
TERMINATED = 143
LATER = 0.01  # seconds

before = signal.getsignal(signal.SIGINT)
if before is signal.default_int_handler:  # not where the shell has it ignored
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def _open_standard_streams() -> None:
    """Open those that are closed, on nothing: the files that are opened next would get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115  # open until Python ends


def _interrupt_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Repeat an interrupt that came while an object was finalized, where Python reports exceptions and goes on."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        Timer(LATER, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Load the command and run it."""
    _open_standard_streams()
    sys.unraisablehook = _interrupt_again
    from streamloss.cli import main as run

    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGTERM, terminate)
    try:
        run()
    except SystemExit as end:
        if terminated and end.code == INTERRUPTED:
            sys.exit(TERMINATED)
        raise
    finally:  # all is written; Python, as it ends, would give the signals back to the system, which kills
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
