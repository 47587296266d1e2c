"""Ctrl-C at a chosen moment."""

import sys
from contextlib import contextmanager


@contextmanager
def interrupting(code, step):
    """Raise KeyboardInterrupt in this thread before an instruction of this code, the one with that number."""
    left = step

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def at_every_step(code, call):
    """Make a call again and again, interrupted one instruction of this code later each time, until it is not.

    Yields the number of the instruction after each call that was interrupted.
    """
    step = 0
    while True:
        step += 1
        try:
            with interrupting(code, step):
                call()
            return
        except KeyboardInterrupt:
            yield step
