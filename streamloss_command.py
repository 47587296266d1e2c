"""Starts the command `streamloss`: Ctrl-C ends it quietly while Python still loads the rest."""

import os
import signal

INTERRUPTED = 130


def main() -> None:
    """Load the command and run it."""
    begin = signal.getsignal(signal.SIGINT)
    if begin is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from streamloss.cli import main as run

    signal.signal(signal.SIGINT, begin)
    run()
