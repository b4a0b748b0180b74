"""Concerns between updates and after evaluations: each a hook with a state of its own.

The loop (`lru.training.loop`) asks every hook, in order, after each update and each evaluation, and
between two updates and two batches of an evaluation if it is to stop there. Where a call of the
compiled program makes several updates, no hook is asked within it, and it ends wherever a hook has
to be asked (`Hook.every`). The states of all hooks are part of every checkpoint, so that a resumed
run goes on as if undisturbed.
Numbers of several lanes are lists, one entry a lane.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from lru.tasks import Metrics
from lru.training.averaging import begin_averaging, stopped_improving
from lru.training.config import TrainConfig
from lru.training.interrupts import StopNoted
from lru.training.progress import Counted

if TYPE_CHECKING:
    from lru.training.saved_run import SavedRun

logger = logging.getLogger(__name__)

Report = dict[str, float]


class NonFiniteError(FloatingPointError):
    """The loss or the gradient of an update was not finite."""


class Hook:
    """A concern of a run, asked between updates, during evaluations and after them.

    What it finds there are the attributes and methods of `lru.training.saved_run.SavedRun`.

    Attributes:
        name: of its state in a checkpoint.
        every: updates between two after which it has to be asked, counted from the first of the
            run; None if it does not matter after which.
    """

    name: str
    every: int | None = None

    def state(self) -> dict[str, Any]:
        """All that it must know after a restart, as JSON."""
        return {}

    def load(self, saved: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    def due(self, step: int) -> bool:
        """True if it has to be asked after this update."""
        return self.every is not None and step % self.every == 0

    def stops(self, run: "SavedRun") -> bool:
        """True, from then on, to save and stop the run where it is asked.

        That is between two updates and between two batches of an evaluation.
        """
        del run
        return False

    def after_update(self, run: "SavedRun") -> None:
        """Between an update, the last of a call, and the next one, or the evaluation."""

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """After an evaluation of all splits; a report a lane, by `split/metric`."""


class _Interval(NamedTuple):
    """A log line whose numbers are still on the device."""

    step: int
    counted: Counted
    sums: Metrics
    bad_step: jax.Array


class Log(Hook):
    """Logs training metrics and speed at every interval, and the metrics of every evaluation.

    The device is never waited for in order to log: the sums of an interval are fetched when the
    next one ends, and before anything is written that must not run ahead of them.
    """

    name = "log"

    def __init__(self, every: int, rates: Sequence[Callable[[int], Any]]):
        """Prepare to log.

        Args:
            every: updates between two lines.
            rates: learning rate of an update without factors, of each lane.
        """
        self.every, self._rates = every, rates
        self._pending: list[_Interval] = []

    def after_update(self, run: "SavedRun") -> None:
        """Take the sums of an interval that is over."""
        if self.due(run.step) or run.at_evaluation:
            self.flush(run)
            # A copy of the flag: the next update reuses the state's buffers.
            bad = run.state.first_bad_step + 0
            self._pending.append(_Interval(run.step, run.counted, run.take_sums(), bad))
        if run.at_evaluation:
            self.flush(run)

    def flush(self, run: "SavedRun") -> None:
        """Log the intervals whose numbers have not been fetched yet."""
        for interval in self._pending:
            sums, bad_steps = jax.device_get((interval.sums, interval.bad_step))
            run.check_finite(bad_steps)
            reports = run.reports(sums, "train")
            for report, rate, scale in zip(reports, self._rates, run.rate_scales, strict=True):
                report["lr"] = float(rate(interval.step - 1)) * scale
            run.log(interval.step, reports)
            run.log_speed(interval.step, interval.counted)
        self._pending.clear()

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """Log an evaluation."""
        run.log(run.step, reports)


class Interrupt(Hook):
    """Stops the run after Ctrl-C or another signal.

    Attributes:
        noted: gives the first that came; see `lru.training.interrupts`.
    """

    name = "interrupt"

    def __init__(self):
        self.noted: StopNoted = lambda: None

    def stops(self, run: "SavedRun") -> bool:
        """True once a signal has come."""
        return self.noted() is not None


class Select(Hook):
    """Remembers the evaluation that was best, of each lane, and keeps the weights of it.

    Attributes:
        best_step: update after which the objective was best.
        best: the report of that evaluation.
        since: evaluations since then.
    """

    name = "select"

    def __init__(self, objective: str, *, higher_is_better: bool, lanes: int):
        """Select by an objective.

        Args:
            objective: `split/metric`.
            higher_is_better: whether more of it is better.
            lanes: number of lanes.
        """
        self.objective, self._sign = objective, 1 if higher_is_better else -1
        self.best_step, self.best, self.since = [0] * lanes, [{}] * lanes, [0] * lanes

    def state(self) -> dict[str, Any]:
        """See `Hook.state`."""
        return {"best_step": self.best_step, "best": self.best, "since": self.since}

    def load(self, saved: dict[str, Any]) -> None:
        """See `Hook.load`."""
        self.best_step, self.best, self.since = saved["best_step"], saved["best"], saved["since"]

    def score(self, report: Report) -> float:
        """The objective, higher is better; what is not finite is worse than all that is."""
        value = self._sign * report[self.objective]
        return value if math.isfinite(value) else -math.inf

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """Compare with the best so far."""
        better = [False] * len(reports)
        for lane, report in enumerate(reports):
            if not run.active[lane]:
                continue
            if not math.isfinite(report[self.objective]):
                logger.warning(
                    "%s after update %d%s is %s, which is not finite: any finite value is better",
                    *(self.objective, run.step, run.lane_phrase(lane)),
                    report[self.objective],
                )
            best = self.best[lane]
            better[lane] = not best or self.score(report) > self.score(best)
            if better[lane]:
                self.best_step[lane], self.best[lane], self.since[lane] = run.step, report, 0
            else:
                self.since[lane] += 1
        if any(better):
            run.save_best(better)


class Plateau(Hook):
    """Lowers the rate of a lane that has not become better for `lr_patience` evaluations.

    Attributes:
        since: evaluations since the lane was better, or since its rate was last lowered.
    """

    name = "plateau"

    def __init__(self, config: Sequence[TrainConfig], select: Select):
        """Prepare to lower.

        Args:
            config: of each lane.
            select: knows which lanes became better.
        """
        self._config, self._select = config, select
        self.since = [0] * len(config)

    def state(self) -> dict[str, Any]:
        """See `Hook.state`."""
        return {"since": self.since}

    def load(self, saved: dict[str, Any]) -> None:
        """See `Hook.load`."""
        self.since = saved["since"]

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """Lower the rates that are due."""
        scales = list(run.rate_scales)
        for lane, config in enumerate(self._config):
            self.since[lane] = 0 if self._select.since[lane] == 0 else self.since[lane] + 1
            if not config.cosine_anneal and self.since[lane] >= config.lr_patience:
                self.since[lane] = 0
                floor = config.lr_min / config.lr_base if config.lr_base else 1.0
                scales[lane] = max(scales[lane] * config.reduce_factor, floor)
        if scales != run.rate_scales:
            run.set_rate_scales(scales)


class EarlyStop(Hook):
    """Ends a lane that has not become better for so many evaluations, or is good enough.

    A lane that has ended keeps its state, and its best weights, while others go on; the run ends
    with the last.

    Attributes:
        ended: which lanes have.
    """

    name = "early_stop"

    def __init__(self, patience: int, select: Select, limit: tuple[str, float] | None = None):
        """Prepare to end lanes.

        Args:
            patience: evaluations.
            select: knows when each lane was best.
            limit: name of a figure of a report, and the value below which a lane ends.
        """
        self._patience, self._select, self._limit = patience, select, limit
        self.ended = [False] * len(select.since)

    def state(self) -> dict[str, Any]:
        """See `Hook.state`."""
        return {"ended": self.ended}

    def load(self, saved: dict[str, Any]) -> None:
        """See `Hook.load`; runs of earlier versions end by patience alone."""
        self.ended = saved.get("ended", self._out_of_patience())

    def _out_of_patience(self) -> list[bool]:
        return [since >= self._patience for since in self._select.since]

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """End the lanes that are due."""
        due = self._out_of_patience()
        if self._limit is not None:
            name, value = self._limit
            due = [end or report[name] < value for end, report in zip(due, reports, strict=True)]
        self.ended = [before or end for before, end in zip(self.ended, due, strict=True)]
        if any(due):
            run.end_lanes(due)


class Average(Hook):
    """Begins to average the weights when validation stops improving, or at a set epoch.

    Attributes:
        losses: the objective of every validation, lower is better, of each lane; kept until the
            average has begun.
    """

    name = "average"

    def __init__(self, config: TrainConfig, select: Select, lanes: int):
        self._config, self._select = config, select
        self.losses: list[list[float]] = [[] for _ in range(lanes)]

    def state(self) -> dict[str, Any]:
        """See `Hook.state`."""
        return {"losses": self.losses}

    def load(self, saved: dict[str, Any]) -> None:
        """See `Hook.load`."""
        self.losses = saved["losses"]

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """Begin where it is due."""
        config = self._config
        if not config.averages:
            return
        averaging = np.atleast_1d(jax.device_get(run.state.opt_state.average.averaging))
        due = [False] * len(reports)
        for lane, report in enumerate(reports):
            if averaging[lane] or not run.active[lane]:
                continue
            losses = self.losses[lane]
            losses.append(-self._select.score(report))
            at_epoch = config.average_from is not None and run.epoch >= config.average_from
            stopped = config.nonmono is not None and stopped_improving(losses, config.nonmono)
            due[lane] = config.averages_from_start or at_epoch or stopped
            if due[lane]:
                logger.info(
                    "the weights are averaged from update %d on%s",
                    *(run.step, run.lane_phrase(lane)),
                )
        if any(due):
            state = run.state
            begun = begin_averaging(state.opt_state, run.by_lane(due))
            run.state = state._replace(opt_state=begun)


class Show(Hook):
    """Shows what the task finds after every evaluation."""

    name = "show"

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """Hand them to the trackers."""
        run.show()


class Save(Hook):
    """Saves the state to resume from: at intervals, after every evaluation, and when asked."""

    name = "save"

    def __init__(self, every: int):
        self.every = every

    def after_update(self, run: "SavedRun") -> None:
        """Save at an interval; before an evaluation the one after it is enough."""
        if self.due(run.step) and not run.at_evaluation:
            run.save_last()

    def after_evaluation(self, run: "SavedRun", reports: list[Report]) -> None:
        """Save."""
        run.save_last()


def summarised(reports: list[Report]) -> Report:
    """One report of all lanes: of several, means and sample standard deviations."""
    if len(reports) == 1:
        return reports[0]
    found: Report = {}
    for name in reports[0]:
        values = [report[name] for report in reports]
        found[name] = float(np.mean(values))
        found[f"{name}/sd"] = float(np.std(values, ddof=1))
    return found
