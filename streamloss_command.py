"""Starts the command `streamloss`: from here on Ctrl-C ends it quietly, while Python still loads the rest."""

import os
import signal

INTERRUPTED = 130

before = signal.getsignal(signal.SIGINT)
if before is signal.default_int_handler:  # not where the shell has it ignored
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def main() -> None:
    """Load the command and run it."""
    from streamloss.cli import main as run

    signal.signal(signal.SIGINT, before)
    try:
        run()
    finally:  # all is written; Python, as it ends, would give the signal back to the system, which kills
        signal.signal(signal.SIGINT, signal.SIG_IGN)
