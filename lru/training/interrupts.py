"""Signals as requests to stop where it does no harm: Ctrl-C, and those of a cluster."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

REQUEUE = 75
"""Exit status of a run that was asked to stop and is to be started again: EX_TEMPFAIL of Unix."""

STOP_SIGNALS = tuple(n for n in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP") if hasattr(signal, n))
"""Signals that ask a run to stop unless others are chosen."""

StopNoted = Callable[[], signal.Signals | None]
"""The first signal that asked to stop; None if there was none."""


class PreemptedError(Exception):
    """A signal other than Ctrl-C asked the process to stop."""


def check_signals(names: Sequence[str]) -> None:
    """Refuse names that are no signals, or none that a process may handle.

    Raises:
        ValueError: if one is unknown.
    """
    known = {s.name for s in signal.valid_signals() if isinstance(s, signal.Signals)}
    known -= {"SIGKILL", "SIGSTOP", "SIGINT"}
    for name in names:
        if name not in known:
            raise ValueError(
                f"stop_signals must be of {', '.join(sorted(known))}, got {name!r}; "
                "SIGINT (Ctrl-C) always stops a run, and SIGKILL and SIGSTOP cannot be handled"
            )


def _preempt(number: int, frame: Any) -> None:
    raise PreemptedError(signal.Signals(number).name)


@contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """In the block, handle signals that have their default effect, or that of `preemptible`.

    Nothing changes outside the main thread, which alone can handle signals, nor for signals that a
    program handles or ignores by itself.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler, _preempt)
    before = {n: signal.getsignal(n) for n in numbers}
    taken = [n for n in numbers if current_thread() is main_thread() and before[n] in usual]
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextmanager
def preemptible(names: Sequence[str]) -> Iterator[None]:
    """In the block, these signals raise `PreemptedError`, unless they are noted further inside."""
    with _handled([signal.Signals[name] for name in names], _preempt):
        yield


@contextmanager
def noted_signals(names: Sequence[str]) -> Iterator[StopNoted]:
    """In the block, note the first Ctrl-C and the other signals; a second Ctrl-C raises as usual.

    Yields:
        A function that gives the first that has come.
    """
    noted: signal.Signals | None = None

    def note(number: int, frame: Any) -> None:
        nonlocal noted
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        noted = noted or signal.Signals(number)

    with _handled([signal.SIGINT, *(signal.Signals[name] for name in names)], note):
        yield lambda: noted
