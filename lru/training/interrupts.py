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


class PreemptedError(BaseException):
    """A signal other than Ctrl-C asked the process to stop.

    As `KeyboardInterrupt` it is no `Exception`, which libraries catch where it may be raised.
    """


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


class _Preempt:
    """Handler that raises `PreemptedError`, and notes the first signal: a finaliser loses errors.

    Attributes:
        came: the first signal; None if there was none.
    """

    came: signal.Signals | None = None

    def __call__(self, number: int, frame: Any) -> None:
        self.came = self.came or signal.Signals(number)
        raise PreemptedError(signal.Signals(number).name)


_Handler = Callable[[int, Any], None]


@contextmanager
def _handled(numbers: Sequence[int], handler: _Handler) -> Iterator[Sequence[_Preempt]]:
    """In the block, handle signals that have their default effect, or that of `preemptible`.

    Nothing changes outside the main thread, which alone can handle signals, nor for signals that a
    program handles or ignores by itself.

    Yields:
        Handlers of `preemptible` that are replaced.
    """
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {n: signal.getsignal(n) for n in numbers if current_thread() is main_thread()}
    taken = {n: each for n, each in before.items() if each in usual or isinstance(each, _Preempt)}
    for number in taken:
        signal.signal(number, handler)
    try:
        yield [each for each in taken.values() if isinstance(each, _Preempt)]
    finally:
        for number, each in taken.items():
            signal.signal(number, each)


@contextmanager
def preemptible(names: Sequence[str]) -> Iterator[None]:
    """In the block, these signals raise `PreemptedError`, unless they are noted further inside."""
    with _handled([signal.Signals[name] for name in names], _Preempt()):
        yield


@contextmanager
def noted_signals(names: Sequence[str]) -> Iterator[StopNoted]:
    """In the block, note the first Ctrl-C and the other signals; a second Ctrl-C raises as usual.

    Yields:
        A function that gives the first that has come, in the block or in that of `preemptible`.
    """
    noted: signal.Signals | None = None

    def note(number: int, frame: Any) -> None:
        nonlocal noted
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        noted = noted or signal.Signals(number)

    with _handled([signal.SIGINT, *(signal.Signals[name] for name in names)], note) as outer:
        noted = noted or next((each.came for each in outer if each.came), None)
        yield lambda: noted
