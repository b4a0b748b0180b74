"""The training loop: updates and evaluations; everything else is a hook (`lru.training.hooks`).

What is logged is a function of the configuration alone, so an interrupted run that is resumed logs
the same lines.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from typing import NamedTuple

import jax
from flax import nnx

from lru.batches import Fed
from lru.devices import greatest
from lru.training.hooks import Report
from lru.training.interrupts import STOP_SIGNALS, PreemptedError, noted_signals
from lru.training.lanes import lane_of, of_all, stacked
from lru.training.progress import Progress, Stopwatch
from lru.training.saved_run import SavedRun
from lru.training.trackers import Trackers
from lru.training.update import Weights, over_series, rows_of, start_evaluation


class Summary(NamedTuple):
    """Outcome of a run.

    Attributes:
        steps: updates made.
        best_step: update after which the objective was best, of each lane.
        best: metrics of that evaluation, of each lane.
        stopped_early: whether it ended before its last step.
        timing: speed and waiting of this process.
    """

    steps: int
    best_step: list[int]
    best: list[Report]
    stopped_early: bool
    timing: dict[str, float]


class Trainer(SavedRun):
    """Trains one run, of one lane or several, from wherever it is."""

    def fit(self, trackers: Trackers, stop_signals: Sequence[str] = STOP_SIGNALS) -> Summary:
        """Train until the last step or an early stop, from wherever the state is.

        A first Ctrl-C, or another of the `stop_signals`, saves and stops between two calls of the
        program that makes updates or two batches of an evaluation; a second Ctrl-C stops at once.

        Args:
            trackers: what is told of every log line.
            stop_signals: names of the signals beside Ctrl-C that stop the run.

        Raises:
            KeyboardInterrupt: after a Ctrl-C.
            PreemptedError: after another of the signals that stop a run.
            OSError: if the last state cannot be written.
            NonFiniteError: if the loss or the gradient of an update is not finite.
        """
        self._trackers = trackers
        progress = self._progress = Progress(self.total_steps, self.step)
        train = self._programs.compiled(over_series(self._functions.train), 1, progress.paused)
        feed: Iterator[Fed] = iter(())
        with closing(progress), noted_signals(stop_signals) as self._interrupt.noted:
            while not (self.finished or self.stopping):
                if self._evaluation_due:
                    self._end_epoch()
                    continue
                with progress.waiting.running():
                    fed = next(feed, None)
                    if fed is None:
                        feed = self._feeds["train"].series(
                            *divmod(self.step, self._per_epoch),
                            most=self._steps_per_call,
                            wanted=lambda: self.next_boundary - self.step,
                        )
                        fed = next(feed)
                self._state = train(self._state, self.devices.put(fed.batch, rows_of))
                self.step += fed.count
                progress.step(fed.examples * self.n, fed.count, fed.tokens * self.n)
                for hook in self.hooks:
                    hook.after_update(self)
            if not self.finished:
                self.save_last()
                self.ensure_saved()
                # Any process may have been told; all say the same.
                stop = greatest(self._interrupt.noted() or 0)
                if stop in (0, signal.SIGINT):
                    raise KeyboardInterrupt
                raise PreemptedError(signal.Signals(stop).name)
            self.ensure_saved()
        return Summary(
            steps=self.step,
            best_step=self._select.best_step,
            best=self._select.best,
            stopped_early=self.step < self.total_steps and self.finished,
            timing=progress.timing(),
        )

    def _end_epoch(self) -> None:
        """Evaluate, and tell the hooks; nothing of it has happened if one stops the run."""
        assert self._progress is not None
        with self._progress.paused.running():
            reports = self.evaluate()
            if reports is None:
                return
            self._evaluated = self.step
            for hook in self.hooks:
                hook.after_evaluation(self, reports)

    def evaluate(self) -> list[Report] | None:
        """Metrics of every evaluation split, a report a lane; None if a hook stops."""
        evaluate = self._evaluate
        reports: list[Report] = [{} for _ in self.lanes]
        averages = self._programs.each(self._averaged)(self.state.opt_state, self.state.params)
        weights = Weights(averages, self.state.stats, self.state.seed)
        here, put = self.devices.local(weights), self.devices.put
        models = [nnx.merge(self._graphdef, *lane_of(here[:2], k, self.n)) for k in range(self.n)]
        for name, source in self._feeds.items():
            if name == "train":
                continue
            start = stacked([start_evaluation(self.task, model, source.rows) for model in models])
            done = put(start, rows_of)
            for fed in source.epoch():
                done = evaluate(done, weights, put(fed.batch, rows_of))
                if self.stopping:
                    return None
            done = of_all(done)
            for report, more in zip(
                reports, self.reports(jax.device_get(done.sums), name), strict=True
            ):
                report |= more
            if name == self.task.selects_on:
                self._counts = jax.device_get(done.counts)
        return reports

    @cached_property
    def _evaluate(self) -> Callable:
        return self._programs.compiled(self._functions.evaluate, 2, Stopwatch())
