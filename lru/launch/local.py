"""Commands run here, a few at a time, in processes of their own."""

import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lru.training.interrupts import REQUEUE, noted_signals

MOST_STARTS = 3
"""Of one command, which is started again if it asks for it, or a signal has ended it."""

POLL_SECONDS = 0.1


class Command(NamedTuple):
    """A command to run.

    Attributes:
        words: of the command line.
        log: file to which its output is appended.
    """

    words: Sequence[str]
    log: Path

    def start(self) -> subprocess.Popen:
        """Start it, in a process group of its own: whoever signals this program means it alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )


def run_commands(
    commands: Sequence[Command],
    at_once: int,
    ended: Callable[[int, int], None],
    stop_signals: Sequence[str],
) -> signal.Signals | None:
    """Run commands to their ends; one that fails stops no other.

    A signal that asks this process to stop is passed on: no further command starts, and those that
    run save and stop. A second Ctrl-C stops them at once.

    Args:
        commands: to run.
        at_once: most of them at a time.
        ended: is told of each command that has ended, by its number, and its exit status.
        stop_signals: names of the signals that ask to stop, besides that of Ctrl-C.

    Returns:
        The signal that asked to stop; None if there was none.

    Raises:
        KeyboardInterrupt: after a second Ctrl-C.
    """
    waiting = deque(range(len(commands)))
    running: dict[int, subprocess.Popen] = {}
    starts: Counter[int] = Counter()
    with noted_signals(stop_signals) as noted:
        passed_on = False
        try:
            while running or (waiting and not noted()):
                while waiting and len(running) < at_once and not noted():
                    number = waiting.popleft()
                    running[number] = commands[number].start()
                    starts[number] += 1
                stop = noted()
                if stop and not passed_on:
                    _send(running.values(), stop)
                    passed_on = True
                for number, process in list(running.items()):
                    status = process.poll()
                    if status is None:
                        continue
                    del running[number]
                    again = (status == REQUEUE or status < 0) and starts[number] < MOST_STARTS
                    if again and not noted():
                        waiting.appendleft(number)
                    else:
                        ended(number, status)
                time.sleep(POLL_SECONDS)
        except BaseException:
            _send(running.values(), signal.SIGINT)
            for process in running.values():
                process.wait()
            raise
        return noted()


def _send(processes: Iterable[subprocess.Popen], number: signal.Signals) -> None:
    for process in processes:
        process.send_signal(number)
