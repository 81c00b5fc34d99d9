"""How much work a call is, counted in steps of the interpreter: the same on any machine, however loaded."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interpreted_lines(call: Callable[[], object]) -> int:
    """Lines of Python that a call runs, those of loops as often as they run; what runs in C counts nothing."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
