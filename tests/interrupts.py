"""Ctrl-C at a chosen moment."""

import dis
import sys
from contextlib import contextmanager
from itertools import pairwise


def moments(code):
    """The instructions of this code before which Python looks for signals: after calls, and where loops go back."""
    instructions = list(dis.get_instructions(code))
    after = {second.offset for first, second in pairwise(instructions) if "CALL" in first.opname}
    return after | {each.offset for each in instructions if "JUMP_BACKWARD" in each.opname}


@contextmanager
def interrupting(code, step):
    """Raise KeyboardInterrupt in this thread at a moment of this code, the one with that number."""
    left, offsets = step, moments(code)

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in offsets:
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
    """Make a call again and again, interrupted one moment of this code later each time, until it is not.

    Yields the number of the moment after each call that was interrupted.
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
