"""Ctrl-C as a request to stop where it does no harm; a second one stops at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def noted_interrupts() -> Iterator[Callable[[], bool]]:
    """In the block, note the first Ctrl-C; a later one raises KeyboardInterrupt as usual.

    Nothing changes outside the main thread, which alone can handle signals, nor in a program that
    handles or ignores Ctrl-C by itself.

    Yields:
        A function that tells if one has come.
    """
    noted = False

    def note(number: int, frame: Any) -> None:
        nonlocal noted
        signal.signal(number, signal.default_int_handler)
        noted = True

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or current_thread() is not main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
