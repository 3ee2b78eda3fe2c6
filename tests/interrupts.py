"""Raises what a signal handler would raise, at a place of one's choice within the pipeline."""

import contextlib
import gc
import inspect
import itertools
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import dis_logging.bell
import dis_logging.pipeline

_PIPELINE = (str(Path(dis_logging.pipeline.__file__).parent), dis_logging.bell.__file__)


def interrupt_after(
    steps: int,
    error: type[BaseException],
    action: Callable[[], object],
    *,
    handler: Callable[[], object] = lambda: None,
) -> bool:
    """
    Runs *action*, raising *error* after so many calls and returns within the pipeline; returns whether it got so far.

    Before it raises it calls *handler*, as a signal handler may do something first. Places are where the interpreter lets
    signal handlers run: as a function begins, and after a call of a built-in one.
    """
    remaining = itertools.count(steps, -1)

    def interrupt(frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and _is_place(frame) and next(remaining) == 0:
            handler()
            raise error

    gc.disable()  # what is raised in a callback of the garbage collector reaches nobody
    sys.setprofile(interrupt)
    try:
        with suppress(error):
            action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return next(remaining) < 0


def _is_place(frame: FrameType) -> bool:
    if frame.f_code.co_filename == contextlib.__file__:  # as a context begins and ends
        return frame.f_back is not None and _is_place(frame.f_back)
    # Not in a generator: what is raised as one is closed reaches nobody.
    return frame.f_code.co_filename.startswith(_PIPELINE) and not frame.f_code.co_flags & inspect.CO_GENERATOR
