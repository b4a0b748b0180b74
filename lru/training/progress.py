"""The console's view of a run: a bar with loss, speed, waiting and time left."""

import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager

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


class Progress:
    """A bar over the updates of a run.

    The time left counts updates at their mean speed in this process, without compilation and
    evaluation, which are not updates.

    Attributes:
        waiting: time spent waiting for data.
        paused: time spent on anything but updates: compiling, evaluating, writing checkpoints.
    """

    def __init__(self, total: int, done: int):
        self.waiting = Stopwatch()
        self.paused = Stopwatch()
        self._start = time.perf_counter()
        self._first = done
        self._examples = 0
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

    def step(self, examples: int, updates: int = 1) -> None:
        """Count updates, and all their examples."""
        self._examples += examples
        self._bar.update(updates)
        self._refresh_if_due()

    def timing(self) -> dict[str, float]:
        """Examples a second and the share of the time spent waiting for data."""
        seconds = max(self.training_seconds(), 1e-9)
        return {
            "examples_per_second": self._examples / seconds,
            "data_wait_share": self.waiting.seconds / seconds,
        }

    def show(self, metrics: Mapping[str, float]) -> None:
        """Put the latest metrics behind the bar, beside speed, waiting and time left."""
        self._metrics = {
            name.removeprefix("train/"): f"{value:.3g}" for name, value in metrics.items()
        }
        self._refresh_if_due()

    def seconds_left(self) -> float:
        """Time that the updates still to do will take."""
        done = max(self._bar.n - self._first, 1)
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
