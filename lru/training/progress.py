"""The console's view of a run: a bar with loss, speed, waiting and time left."""

import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from lru.devices import is_first

REFRESH_SECONDS = 2.0
FILE_SECONDS = 60.0
"""In a file each state of the bar stays, beside all others."""


class Stopwatch:
    """Adds up the time spent in its `with` blocks, once where one is inside another."""

    def __init__(self):
        self.seconds = 0.0
        self._depth = 0

    @contextmanager
    def running(self):
        """Count the time of the block."""
        start = time.perf_counter()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - start


class Counted(NamedTuple):
    """Work of a process on a run.

    Attributes:
        updates: made.
        examples: of them.
        tokens: time steps of these examples, without padding; 0 if nobody counts them.
    """

    updates: int = 0
    examples: int = 0
    tokens: int = 0


class Compilations:
    """Programs compiled in this process since it began to listen, small ones too.

    Attributes:
        count: of them.
        seconds: that XLA took.
    """

    _EVENT = "/jax/core/compile/backend_compile_duration"

    def __init__(self):
        self.count, self.seconds = 0, 0.0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == self._EVENT:
            self.count += 1
            self.seconds += duration_secs

    def close(self) -> None:
        """Listen no more."""
        jax.monitoring.unregister_event_duration_listener(self._note)


class Progress:
    """A bar over the updates of a run.

    The time left counts updates at their mean speed in this process, without compilation and
    evaluation, which are not updates.

    Attributes:
        waiting: time spent waiting for data.
        paused: time spent on anything but updates: compiling, evaluating, writing checkpoints.
        counted: what this process has done.
    """

    def __init__(self, total: int, done: int):
        self.waiting = Stopwatch()
        self.paused = Stopwatch()
        self._compilations = Compilations()
        self._start = time.perf_counter()
        self.counted = Counted()
        self._last = Counted(), 0.0, 0.0
        self._metrics: dict[str, str] = {}
        self._shown_at = self._start
        self._interval = REFRESH_SECONDS if sys.stderr.isatty() else FILE_SECONDS
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            mininterval=float("inf"),
            disable=not is_first(),
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        )

    def training_seconds(self) -> float:
        """Time spent on updates so far, waiting for data included."""
        return time.perf_counter() - self._start - self.paused.seconds

    def step(self, examples: int, updates: int = 1, tokens: int = 0) -> None:
        """Count updates, and all their examples and tokens."""
        before = self.counted
        self.counted = Counted(
            before.updates + updates, before.examples + examples, before.tokens + tokens
        )
        self._bar.update(updates)
        self._refresh_if_due()

    def timing(self) -> dict[str, float]:
        """Examples a second and the share of the time spent waiting for data."""
        seconds = max(self.training_seconds(), 1e-9)
        return {
            "examples_per_second": self.counted.examples / seconds,
            "data_wait_share": self.waiting.seconds / seconds,
        }

    def speed(self, counted: Counted) -> dict[str, float]:
        """Speed since this was last asked; compilations and time since the process began.

        Compiling, evaluating and writing checkpoints are left out of the speed.

        Args:
            counted: what had been counted at the last update whose end is known of.
        """
        before, *since = self._last
        now = self.training_seconds(), self.waiting.seconds
        self._last = counted, *now
        seconds, waiting = (new - old for new, old in zip(now, since, strict=True))
        seconds = max(seconds, 1e-9)
        updates, examples, tokens = (n - o for n, o in zip(counted, before, strict=True))
        return {
            "steps_per_second": updates / seconds,
            "examples_per_second": examples / seconds,
            **({"tokens_per_second": tokens / seconds} if tokens else {}),
            "data_wait_share": waiting / seconds,
            "compilations": self._compilations.count,
            "compile_seconds": self._compilations.seconds,
            "elapsed_seconds": time.perf_counter() - self._start,
        }

    def show(self, metrics: Mapping[str, float]) -> None:
        """Put the latest metrics behind the bar, beside speed, waiting and time left."""
        self._metrics = {
            name.removeprefix("train/"): f"{value:.3g}" for name, value in metrics.items()
        }
        self._refresh_if_due()

    def seconds_left(self) -> float:
        """Time that the updates still to do will take."""
        done = max(self.counted.updates, 1)
        return self.training_seconds() / done * (self._bar.total - self._bar.n)

    def _refresh_if_due(self) -> None:
        if time.perf_counter() - self._shown_at > self._interval:
            self._refresh()

    def _refresh(self) -> None:
        self._shown_at = time.perf_counter()
        timing = self.timing()
        self._bar.set_postfix(
            self._metrics
            | {
                "examples/s": f"{timing['examples_per_second']:.0f}",
                "waiting": f"{timing['data_wait_share']:.0%}",
                "left": tqdm.format_interval(self.seconds_left()),
            }
        )

    def close(self) -> None:
        """Show the last state, and leave it."""
        self._refresh()
        self._bar.close()
        self._compilations.close()
