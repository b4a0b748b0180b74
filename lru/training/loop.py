"""The training loop: updates, log lines, evaluations, checkpoints, stopping, resuming.

The device is never waited for in order to log: the sums of one interval are fetched when the next
one ends, and before anything is written that must not run ahead of them. What is logged is a
function of the configuration alone, so an interrupted run that is resumed logs the same lines.
"""

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lru.dataloaders import Prepared
from lru.dataloading import Batches
from lru.files import write_atomically
from lru.streams import Streams
from lru.tasks import Derives, Task
from lru.tasks.base import Sums
from lru.training.averaging import (
    AveragingState,
    averaged_params,
    begin_averaging,
    end_averaging,
    is_averaging,
    stopped_improving,
)
from lru.training.checkpoints import Checkpoints, Kind
from lru.training.config import Config
from lru.training.feeds import make_feeds
from lru.training.interrupts import noted_interrupts
from lru.training.optimizer import make_optimizer, make_schedule
from lru.training.progress import Progress, Stopwatch
from lru.training.runs import Run
from lru.training.state import NEVER, Evaluation, init_state, initial_carry, make_steps, zero_sums
from lru.training.trackers import Trackers, truncate

logger = logging.getLogger(__name__)

Metrics = dict[str, float]

# In a checkpoint's progress, beside the fields of `LoopState`: checksums of the data, and of what
# its ids mean.
DATA, VOCABULARY = "data", "vocabulary"


class NonFiniteError(FloatingPointError):
    """The loss or the gradient of an update was not finite."""


@dataclass
class LoopState:
    """What the loop itself remembers between epochs; part of every checkpoint.

    Attributes:
        best_step: update after which the validation metric was best.
        best: the metrics of that evaluation.
        epochs_since_best: evaluations since then.
        epochs_since_reduction: evaluations since then, or since the rate was last reduced.
        lr_scale: factor on the learning rate.
        losses: the objective of every validation, lower is better; kept while the trigger of
            averaging may need it.
    """

    best_step: int = 0
    best: Metrics = dataclasses.field(default_factory=dict)
    epochs_since_best: int = 0
    epochs_since_reduction: int = 0
    lr_scale: float = 1.0
    losses: list[float] = dataclasses.field(default_factory=list)


class Summary(NamedTuple):
    """How a run ended.

    Attributes:
        steps: updates made.
        best_step: update after which the validation metric was best.
        best: metrics of that evaluation.
        stopped_early: whether it ended before its last step.
        timing: speed and waiting of this process.
    """

    steps: int
    best_step: int
    best: Metrics
    stopped_early: bool
    timing: Metrics


class _Interval(NamedTuple):
    """A log line whose numbers are still on the device."""

    step: int
    sums: Sums
    bad_step: jax.Array
    rate: jax.typing.ArrayLike


def means(sums: Mapping[str, Any]) -> Metrics:
    """Divide sums by their weight."""
    weight = max(float(sums["weight"]), 1.0)
    return {name: float(total) / weight for name, total in sums.items() if name != "weight"}


class _CompiledByShape:
    """A function compiled ahead of time for every shape of batch, so that compiling is timed."""

    def __init__(self, function: Callable, donate: tuple[int, ...], stopwatch: Stopwatch):
        self._function = jax.jit(function, donate_argnums=donate)
        self._stopwatch = stopwatch
        self._compiled = {}

    def __call__(self, *args: Any) -> Any:
        shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), args[-1])
        if shapes not in self._compiled:
            with self._stopwatch.running():
                self._compiled[shapes] = self._function.lower(*args).compile()
        return self._compiled[shapes](*args)


class Trainer:
    """One run of one configuration.

    Attributes:
        on_device: whether the splits live on the device.
    """

    def __init__(self, config: Config, task: Task, data: Prepared, run: Run):
        """Build the state of the run: fresh, resumed, or continued from another run.

        Args:
            config: of the run.
            task: what is learned.
            data: the three splits.
            run: its folder.

        Raises:
            FileNotFoundError: if the run to restore or to evaluate has no checkpoint.
            ValueError: if the checkpoint does not fit the model or the data, or leaves nothing to
                do.
        """
        self._config, self._task, self._run = config, task, run
        self.on_device, self._feeds = make_feeds(config, data)
        self._steps_per_epoch = self.train_batches.steps_per_epoch
        train = config.train
        self.total_steps = train.max_steps or train.epochs * self._steps_per_epoch
        self._schedule = make_schedule(train, self._steps_per_epoch, self.total_steps)
        optimizer = make_optimizer(train, self._schedule)
        self._graphdef, self.state = init_state(
            task, optimizer, train.jax_seed, config.data.batch_size
        )
        self._steps = make_steps(task, self._graphdef, optimizer)
        self._loop = LoopState()
        self._pending: list[_Interval] = []
        vocabulary = hashlib.sha256(json.dumps(data.card.vocabulary).encode()).hexdigest()
        self._data = {DATA: data.card.checksum, VOCABULARY: vocabulary}
        self._checkpoints = Checkpoints(run.checkpoints, read_only=config.run.eval_only)
        self._restore()

    @property
    def train_batches(self) -> Batches | Streams:
        """The batches of the training split."""
        return self._feeds["train"].batches

    @cached_property
    def n_parameters(self) -> int:
        """Number of real parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    @property
    def step(self) -> int:
        """Updates made so far."""
        return int(self.state.step)

    def _restore(self) -> None:
        run, restore = self._config.run, self._config.run.restore
        if run.eval_only:
            self._load("best")
            return
        if self._checkpoints.latest_step("last") is not None:
            self._load("last")
        else:
            # Of a process that ended before there was anything to resume, maybe on other data.
            self._checkpoints.clear("best")
            if restore is not None and self._config.train.finetune:
                self._start_from(Path(restore))
            elif restore is not None:
                self._continue_from(Path(restore))
        # Lines after the checkpoint will be written again.
        truncate(self._run.metrics_file, self.step)

    def _start_from(self, other: Path) -> None:
        """Take over the best weights of another run, and the statistics that go with them."""
        source = Checkpoints(Run(other).checkpoints, read_only=True)
        try:
            self.state, saved = source.restore("best", self.state, only=("params", "stats"))
        finally:
            source.close()
        if VOCABULARY not in saved and saved[DATA] != self._data[DATA]:
            message = "the run in %s has not noted its vocabulary: make sure that ids mean the same"
            logger.warning(message, other)
        elif saved.get(VOCABULARY, self._data[VOCABULARY]) != self._data[VOCABULARY]:
            raise ValueError(
                f"finetune: the vocabulary is not that of the run in {other}, so its weights would "
                "be taken for other tokens; choose data with the same vocabulary"
            )

    def _continue_from(self, other: Path) -> None:
        """Take over the state and the log of another run; the best epoch is sought anew."""
        source = Checkpoints(Run(other).checkpoints, read_only=True)
        try:
            state, saved = source.restore("last", self.state, optional=AveragingState._fields)
        finally:
            source.close()
        if saved[DATA] != self._data[DATA]:
            raise ValueError(
                f"restore: the data is not what the run in {other} was trained on; to take over "
                "nothing but its weights, add --finetune"
            )
        self.state = state._replace(seed=self.state.seed)
        if self.step >= self.total_steps:
            raise ValueError(
                f"restore: the run in {other} has made {self.step} updates, and this one would end "
                f"after {self.total_steps}; give more --epochs or --max_steps"
            )
        self._loop = LoopState(lr_scale=saved["lr_scale"])
        history = Run(other).metrics_file
        if history.exists():
            write_atomically(self._run.metrics_file, history.read_bytes())

    def _load(self, kind: Kind) -> None:
        self.state, saved = self._checkpoints.restore(kind, self.state)
        saved.pop(VOCABULARY, None)
        if saved.pop(DATA) != self._data[DATA]:
            raise ValueError(
                f"the data is not what the run in {self._run.path} was trained on: other files in "
                "raw_dir, or another version of their preparation; choose another --name"
            )
        self._loop = LoopState(**saved)

    def model(self) -> nnx.Module:
        """The model with its present parameters, or their average."""
        params = averaged_params(self.state.opt_state, self.state.params)
        return nnx.merge(self._graphdef, params, self.state.stats)

    def close(self) -> None:
        """Finish writing checkpoints."""
        self._checkpoints.close()

    def fit(self, trackers: Trackers) -> Summary:
        """Train until the last step or an early stop, from wherever the state is.

        Raises:
            KeyboardInterrupt: at the first Ctrl-C once the state is saved, at a second one at once.
            NonFiniteError: if the loss or the gradient of an update is not finite.
        """
        config, step, per_epoch = self._config, self.step, self._steps_per_epoch
        progress = Progress(self.total_steps, step)
        train = _CompiledByShape(self._steps.train, (0,), progress.paused)
        evaluate = _CompiledByShape(self._steps.evaluate, (2,), Stopwatch())
        take_sums = jax.jit(self._steps.take_sums, donate_argnums=0)
        with closing(progress), noted_interrupts() as interrupted:
            while step < self.total_steps and not self._exhausted:
                if interrupted():
                    raise KeyboardInterrupt
                feed = self._feeds["train"].epoch(step // per_epoch, step % per_epoch)
                epoch_end = min(self.total_steps, (step // per_epoch + 1) * per_epoch)
                while step < epoch_end:
                    with progress.waiting.running():
                        fed = next(feed)
                    self.state = train(self.state, fed.batch)
                    step += 1
                    progress.step(fed.examples)
                    if step % config.train.log_every == 0 or step == epoch_end:
                        self._emit(trackers, progress)
                        self.state, sums = take_sums(self.state)
                        # A copy of the flag: the next update reuses the state's buffers.
                        bad, rate = self.state.first_bad_step + 0, self._schedule(step - 1)
                        self._pending.append(_Interval(step, sums, bad, rate))
                    stop = interrupted()
                    due = stop or step % config.run.checkpoint_every == 0
                    if due and step < epoch_end:
                        with progress.paused.running():
                            self._emit(trackers, progress)
                            self._save_last(step, trackers)
                        if stop:
                            raise KeyboardInterrupt
                self._emit(trackers, progress)
                with progress.paused.running():
                    self._end_epoch(step, self._evaluate(evaluate), trackers)
        return Summary(
            steps=step,
            best_step=self._loop.best_step,
            best=self._loop.best,
            stopped_early=step < self.total_steps,
            timing=progress.timing(),
        )

    @property
    def _exhausted(self) -> bool:
        return self._loop.epochs_since_best >= self._config.train.early_stop_patience

    def _epoch(self, step: int) -> float:
        return round(step / self._steps_per_epoch, 6)

    def _emit(self, trackers: Trackers, progress: Progress) -> None:
        """Log the intervals whose numbers have not been fetched yet."""
        for interval in self._pending:
            sums, bad_step, rate = jax.device_get((interval.sums, interval.bad_step, interval.rate))
            self._check_finite(bad_step)
            metrics = self._means(sums, "train")
            metrics["lr"] = float(rate) * self._loop.lr_scale
            trackers.log(interval.step, {"epoch": self._epoch(interval.step), **metrics})
            progress.show(metrics)
        self._pending.clear()

    def _check_finite(self, bad_step: Any) -> None:
        if bad_step == NEVER:
            return
        saved = self._checkpoints.latest_step("last")
        message = f"the loss or the gradient of update {bad_step + 1} is not finite; "
        if saved is None:
            message += "no checkpoint had been written; try a lower --lr_base or --lr_factor, or"
            message += " --clip_norm 1"
        else:
            message += f"the last good checkpoint is of update {saved}; to go on from there more "
            message += f"carefully: --restore {self._run.path} --name NEW --clip_norm 1, or with a "
            message += "lower --lr_base"
        raise NonFiniteError(message)

    def _save_last(self, step: int, trackers: Trackers) -> None:
        """Save the state to resume from; what it builds on is on disk before it."""
        self._check_finite(jax.device_get(self.state.first_bad_step))
        trackers.flush()
        self._checkpoints.wait()
        self._save("last", step)

    def _save(self, kind: Kind, step: int) -> None:
        progress = dataclasses.asdict(self._loop) | self._data
        state = self.state
        if kind == "best":
            # The average is kept as plain parameters: whoever reads them need not know of it.
            opt_state, params = end_averaging(state.opt_state, state.params)
            state = state._replace(opt_state=opt_state, params=params)
        self._checkpoints.save(kind, step, state, progress)

    def _average_if_due(self, epoch: float, loss: float) -> None:
        """Begin to average the weights when validation stops improving, or as configured."""
        train, losses = self._config.train, self._loop.losses
        if not train.averages or is_averaging(self.state.opt_state):
            return
        losses.append(loss)
        due = train.average_from is not None and epoch >= train.average_from
        if due or (train.nonmono is not None and stopped_improving(losses, train.nonmono)):
            self.state = self.state._replace(opt_state=begin_averaging(self.state.opt_state))
            logger.info("the weights are averaged from update %d on", self.step)

    def _score(self, metrics: Metrics) -> float:
        """The objective on the validation split, higher is better; -inf if it is not finite."""
        value = metrics[f"val/{self._task.objective}"]
        score = value if self._task.higher_is_better else -value
        return score if math.isfinite(score) else -math.inf

    def _end_epoch(self, step: int, metrics: Metrics, trackers: Trackers) -> None:
        """Log an evaluation, remember the best, lower the rate on a plateau, save."""
        trackers.log(step, {"epoch": self._epoch(step), **metrics})
        loop, train = self._loop, self._config.train
        score = self._score(metrics)
        if not math.isfinite(score):
            name = f"val/{self._task.objective}"
            message = "%s after update %d is %s, which is not finite: any finite value is better"
            logger.warning(message, name, step, metrics[name])
        if not loop.best or score > self._score(loop.best):
            loop.best_step, loop.best = step, metrics
            loop.epochs_since_best = loop.epochs_since_reduction = 0
        else:
            loop.epochs_since_best += 1
            loop.epochs_since_reduction += 1
        if not train.cosine_anneal and loop.epochs_since_reduction >= train.lr_patience:
            loop.epochs_since_reduction = 0
            floor = train.lr_min / train.lr_base if train.lr_base else 1.0
            loop.lr_scale = max(loop.lr_scale * train.reduce_factor, floor)
            self.state = self.state._replace(lr_scale=jnp.float32(loop.lr_scale))
        if loop.best_step == step:
            self._save("best", step)
        self._average_if_due(self._epoch(step), -score)
        self._save_last(step, trackers)

    def evaluate(self) -> Metrics:
        """Metrics of the state on the validation and test splits."""
        return self._evaluate(_CompiledByShape(self._steps.evaluate, (2,), Stopwatch()))

    def _evaluate(self, evaluate: Callable) -> Metrics:
        metrics, model, rows = {}, self.model(), self._config.data.eval_batch_size
        params = nnx.state(model, nnx.Param)
        for name in ("val", "test"):
            done = Evaluation(zero_sums(self._task), initial_carry(self._task, model, rows))
            for fed in self._feeds[name].epoch():
                done = evaluate(params, self.state.stats, done, fed.batch)
            metrics |= self._means(jax.device_get(done.sums), name)
        return metrics

    def _means(self, sums: Mapping[str, Any], prefix: str) -> Metrics:
        """The means, and what the task derives from them, as `prefix/name`."""
        metrics = means(sums)
        if isinstance(self._task, Derives):
            metrics |= self._task.derived(metrics, float(sums["weight"]))
        return {f"{prefix}/{name}": value for name, value in metrics.items()}
