"""State of a run: those of its lanes, its log and checkpoints, and its start.

It is what hooks find; `lru.training.loop` moves it on.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lru.batches import Source
from lru.tasks import Findings, Task
from lru.training.averaging import averaged_params, end_averaging
from lru.training.checkpoints import Checkpoints, Kind
from lru.training.config import TrainConfig
from lru.training.first_form import FORMAT
from lru.training.hooks import (
    Average,
    EarlyStop,
    Hook,
    Interrupt,
    Log,
    NonFiniteError,
    Plateau,
    Report,
    Save,
    Select,
    Show,
    summarised,
)
from lru.training.lanes import Method, lane_of, lanes_of, method_for, over_lanes, stacked
from lru.training.optimizer import (
    Optimizer,
    Transformation,
    make_optimizer,
    make_schedule,
    with_values,
)
from lru.training.progress import Progress, Stopwatch
from lru.training.trackers import Trackers
from lru.training.update import (
    NEVER,
    CompiledByShape,
    TrainState,
    init_state,
    make_functions,
)

logger = logging.getLogger(__name__)

PHRASES = {
    "vmap": "are joined in every operation (vmap)",
    "map": "take turns in every update (map)",
}


class RunState:
    """One run, of one lane or several.

    Attributes:
        task: what is learned.
        sources: batches of each split.
        lanes: the runs side by side.
        state: of all lanes; with an axis of them if there are several.
        step: updates made so far.
        total_steps: updates of the whole run.
        active: which lanes go on.
        rate_scales: factor on the learning rate of each lane.
        hooks: in the order in which they are asked.
    """

    def __init__(
        self,
        task: Task,
        sources: Mapping[str, Source],
        train: TrainConfig,
        optimizer: Optimizer,
        checkpoints: Checkpoints,
        *,
        data: Mapping[str, str] | None = None,
        save_every: int = 1000,
    ):
        """Build the state before the first update.

        Args:
            task: what is learned.
            sources: batches of "train" and of each evaluation split.
            train: the training.
            optimizer: the rule of the updates.
            checkpoints: of the run.
            data: checksums of the "data" and of its "vocabulary", known again when a run goes on.
            save_every: updates between two checkpoints.

        Raises:
            ValueError: if the lanes cannot be read.
        """
        self.lanes = lanes_of(train, optimizer)
        if len(self.lanes) == 1:
            train, optimizer = self.lanes[0].train(train), self.lanes[0].optimizer(optimizer)
        self.task, self.sources = task, sources
        self._train, self._optimizer = train, optimizer
        self._checkpoints = checkpoints
        self._data = {"data": "", "vocabulary": ""} if data is None else dict(data)
        self._per_epoch = sources["train"].steps_per_epoch
        self.total_steps = train.max_steps or train.epochs * self._per_epoch
        self.step, self._evaluated = 0, 0
        self.active = [True] * len(self.lanes)
        self.rate_scales = [1.0] * len(self.lanes)
        several, rows = len(self.lanes) > 1, sources["train"].rows
        parts = train.n_microbatch
        states = []
        for lane in self.lanes:
            own = lane.values if several else None
            self._graphdef, state = init_state(task, self._build, lane.seed, rows, own)
            states.append(state)
        self.state: TrainState = stacked(states)
        microbatch = -(-rows // parts) if parts > 1 else train.per_device_batch_size
        if microbatch is not None and microbatch < rows and _has_batch_norm(self.state):
            logger.info("batch norm takes its statistics from each %d rows", microbatch)
        self._functions = make_functions(task, self._graphdef, self._build, microbatch)
        self._best: TrainState | None = None
        self._method: Method | None = None
        self._trackers = Trackers()
        self._progress: Progress | None = None
        self.hooks = self._make_hooks(save_every)

    def _build(self, values: Mapping[str, Any]) -> tuple[Transformation, optax.Schedule]:
        """The optimiser and the schedule of a lane with these values of its own."""

        def with_own(settings: Any) -> Any:
            return with_values(settings, {k: v for k, v in values.items() if hasattr(settings, k)})

        schedule = make_schedule(with_own(self._train), self._per_epoch, self.total_steps)
        return make_optimizer(with_own(self._optimizer), self._train, schedule), schedule

    def _make_hooks(self, save_every: int) -> list[Hook]:
        task, train, count = self.task, self._train, len(self.lanes)
        objective = f"{task.selects_on}/{task.objective}"
        self._select = Select(objective, higher_is_better=task.higher_is_better, lanes=count)
        self._early_stop = EarlyStop(train.early_stop_patience, self._select)
        self._log = Log(train.log_every, [self._build(lane.values)[1] for lane in self.lanes])
        plateau = Plateau([lane.train(train) for lane in self.lanes], self._select)
        average, save = Average(train, self._select, count), Save(save_every)
        self._interrupt = Interrupt()
        # Making models for nothing would cost time.
        show = [Show()] if type(task).findings is not Task.findings else []
        hooks = [self._log, self._select, plateau, self._early_stop, average, *show, save]
        return [*hooks, self._interrupt]

    @cached_property
    def n_parameters(self) -> int:
        """Number of real parameters of a lane."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params)) // len(self.lanes)

    @property
    def epoch(self) -> float:
        """Passes over the training examples so far."""
        return self.epoch_of(self.step)

    def epoch_of(self, step: int) -> float:
        """Passes over the training examples after so many updates."""
        return round(step / self._per_epoch, 6)

    @property
    def at_epoch_end(self) -> bool:
        """True if an evaluation follows the last update."""
        return self.step == self.total_steps or self.step % self._per_epoch == 0

    @property
    def finished(self) -> bool:
        """True if there is nothing left to do."""
        at_end = self.step >= self.total_steps or not any(self.active)
        return at_end and not self._evaluation_due

    @property
    def stopping(self) -> bool:
        """True if a hook wants the run to be saved and stopped."""
        return any(hook.stops(self) for hook in self.hooks)

    @property
    def evaluated(self) -> bool:
        """True if the state has been evaluated as far as the run does it."""
        return not self._evaluation_due

    @property
    def _evaluation_due(self) -> bool:
        return self.at_epoch_end and self._evaluated < self.step

    def _compiled(self, function: Callable, n_own: int, stopwatch: Stopwatch) -> Callable:
        """A function of one lane, for all, compiled for each shape of batch; takes its state over.

        Args:
            function: of (state, ..., batch).
            n_own: number of its first arguments that differ between lanes.
            stopwatch: runs while it is compiled.
        """

        def of_all(*args: Any) -> Any:
            if self._method is None:
                platform = jax.default_backend()
                self._method = method_for(self.n, self.n_parameters, args[-1], platform)
                if self.n > 1:
                    logger.info("%d lanes %s", self.n, PHRASES[self._method])
            return over_lanes(function, self._method, n_own)(*args)

        return CompiledByShape(of_all, stopwatch)

    def _each_lane(self, function: Callable) -> Callable:
        """A small function of the state of one lane, for all."""
        return function if self.n == 1 else jax.vmap(function)

    # What hooks find.

    @property
    def n(self) -> int:
        """Number of lanes."""
        return len(self.lanes)

    def lane_phrase(self, lane: int) -> str:
        """Phrase that names a lane in a message; empty if there is one."""
        return "" if self.n == 1 else f" (lane {lane}, {self.lanes[lane]})"

    def by_lane(self, values: Sequence[Any]) -> jax.Array:
        """Values of all lanes as an array, or as that of the one lane."""
        return jnp.asarray(values[0] if self.n == 1 else list(values))

    def take_sums(self) -> Any:
        """The sums since they were last taken, still on the device."""
        self.state, sums = self._take_sums(self.state)
        return sums

    @cached_property
    def _take_sums(self) -> Callable:
        return jax.jit(self._each_lane(self._functions.take_sums), donate_argnums=0)

    def reports(self, sums: Any, split: str) -> list[Report]:
        """Reports of the task on fetched sums, by `split/metric`, one a lane."""
        return [
            {f"{split}/{k}": v for k, v in self.task.report(lane_of(sums, lane, self.n)).items()}
            for lane in range(self.n)
        ]

    def log(self, step: int, reports: Sequence[Report]) -> None:
        """Log a line: of several lanes, mean and sample standard deviation, and each by itself.

        Lanes that have ended are left out.
        """
        going = [k for k in range(self.n) if self.active[k]]
        shown = line = summarised([reports[k] for k in going])
        if self.n > 1:
            line = shown | {f"lane{k}/{name}": v for k in going for name, v in reports[k].items()}
        self._trackers.log(step, {"epoch": self.epoch_of(step), **line})
        if self._progress is not None:
            self._progress.show(shown)

    def show(self) -> None:
        """Hand the task's tables and pictures of every lane that goes on to the trackers."""
        for lane in [k for k in range(self.n) if self.active[k]]:
            tables, pictures = self.task.findings(self.model(lane), self.sources)
            place = "" if self.n == 1 else f"lane{lane}/"
            named = Findings(
                {place + name: table for name, table in tables.items()},
                {place + name: picture for name, picture in pictures.items()},
            )
            self._trackers.show(self.step, named)

    def set_rate_scales(self, scales: Sequence[float]) -> None:
        """Set the factors on the rates of all lanes."""
        self.rate_scales = list(scales)
        scale = self.by_lane([jnp.float32(value) for value in scales])
        self.state = self.state._replace(lr_scale=scale)

    def end_lanes(self, due: Sequence[bool]) -> None:
        """Leave the states of these lanes as they are from now on."""
        self.active = [going and not end for going, end in zip(self.active, due, strict=True)]
        if self.n > 1:
            active = self.by_lane(self.active)
            self.state = self.state._replace(lane={**self.state.lane, "active": active})

    def check_finite(self, bad_steps: Any) -> None:
        """End the lanes whose loss or gradient was not finite.

        Args:
            bad_steps: first such update of each lane, `NEVER` if there is none.

        Raises:
            NonFiniteError: if no lane is left.
        """
        bad = np.atleast_1d(bad_steps).tolist()
        new = [going and step != NEVER for going, step in zip(self.active, bad, strict=True)]
        if not any(new):
            return
        if self.n == 1 or sum(new) == sum(self.active):
            raise NonFiniteError(self._advice(max(bad)))
        for k in [k for k in range(self.n) if new[k]]:
            logger.warning(
                "the loss or the gradient of update %d is not finite%s: the lane ends there",
                *(bad[k] + 1, self.lane_phrase(k)),
            )
        self.end_lanes(new)

    def _advice(self, bad_step: int) -> str:
        saved = self._checkpoints.latest_step("last")
        message = f"the loss or the gradient of update {bad_step + 1} is not finite; "
        if saved is None:
            message += "no checkpoint had been written; try a lower --lr_base or --lr_factor, or"
            return f"{message} --clip_norm 1"
        message += f"the last good checkpoint is of update {saved}; to go on from there more "
        message += f"carefully: --restore {self._checkpoints.folder.parent} --name NEW "
        return f"{message}--clip_norm 1, or with a lower --lr_base"

    def save_last(self) -> None:
        """Save the state to resume from; what it builds on is on disk before it."""
        assert self._progress is not None
        with self._progress.paused.running():
            self._log.flush(self)
            self.check_finite(jax.device_get(self.state.first_bad_step))
            self._trackers.flush()
            self._checkpoints.wait()
            self._save("last", self.state)

    def save_best(self, better: Sequence[bool]) -> None:
        """Save the weights of the lanes that have become better, with the best of the others."""
        # The average is kept as plain parameters: whoever reads them need not know of it.
        opt_state, params = self._each_lane(end_averaging)(self.state.opt_state, self.state.params)
        state = self.state._replace(opt_state=opt_state, params=params)
        if self.n > 1:
            saved = self._checkpoints.latest_step("best") is not None
            if self._best is None and saved and not all(better):
                self._best, _ = self._checkpoints.restore("best", state)
            if self._best is not None:
                mask = np.asarray(better)
                state = jax.tree.map(
                    lambda new, old: np.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old),
                    *jax.device_get((state, self._best)),
                )
            self._best = jax.device_get(state)
        self._save("best", state)

    def _save(self, kind: Kind, state: TrainState) -> None:
        progress = {
            "format": FORMAT,
            **self._data,
            "evaluated": self._evaluated,
            "lane_method": self._method,
            "rate_scales": self.rate_scales,
            "hooks": {hook.name: hook.state() for hook in self.hooks},
        }
        self._checkpoints.save(kind, self.step, state, progress)

    # Where a run starts from.

    def load(self, kind: Kind) -> None:
        """Take over a checkpoint of this run.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it does not fit the model, or the data is not what it was.
        """
        self.state, saved = self._checkpoints.restore(kind, self.state)
        if saved["data"] != self._data["data"]:
            raise ValueError(
                f"the data is not what the run in {self._checkpoints.folder.parent} was trained "
                "on: other files in raw_dir, or another version of their preparation; choose "
                "another --name"
            )
        self.step = saved["step"]
        self._evaluated = saved["evaluated"]
        self._method = saved["lane_method"]
        self.rate_scales = saved["rate_scales"]
        for hook in self.hooks:
            hook.load(saved["hooks"].get(hook.name, {}))
        bad = np.atleast_1d(jax.device_get(self.state.first_bad_step))
        self.end_lanes((bad != NEVER).tolist())
        self._early_stop.after_evaluation(self, [])

    def resume(self) -> bool:
        """Take over the last checkpoint of this run, if there is one."""
        if self._checkpoints.latest_step("last") is None:
            # Of a process that ended before there was anything to resume, maybe on other data.
            self._checkpoints.clear("best")
            return False
        self.load("last")
        return True

    def start_from(self, other: Checkpoints) -> None:
        """Take over the best weights of another run, and the statistics that go with them.

        Raises:
            ValueError: if they are of another vocabulary.
        """
        self.state, saved = other.restore("best", self.state, only=("params", "stats"))
        where, vocabulary = other.folder.parent, self._data["vocabulary"]
        if "vocabulary" not in saved and saved["data"] != self._data["data"]:
            message = "the run in %s has not noted its vocabulary: make sure that ids mean the same"
            logger.warning(message, where)
        elif saved.get("vocabulary", vocabulary) != vocabulary:
            raise ValueError(
                f"finetune: the vocabulary is not that of the run in {where}, so its weights would "
                "be taken for other tokens; choose data with the same vocabulary"
            )

    def continue_from(self, other: Checkpoints) -> None:
        """Take over the last state of another run, but for its seed; the best is sought anew.

        Raises:
            ValueError: if the data is not what that run was trained on, or nothing is left to do.
        """
        fields = [name for name in TrainState._fields if name not in ("seed", "lane")]
        self.state, saved = other.restore(
            "last", self.state, only=fields, optional=("opt_state/average",)
        )
        where = other.folder.parent
        if saved["data"] != self._data["data"]:
            raise ValueError(
                f"restore: the data is not what the run in {where} was trained on; to take over "
                "nothing but its weights, add --finetune"
            )
        self.step = self._evaluated = saved["step"]
        if self.step >= self.total_steps:
            raise ValueError(
                f"restore: the run in {where} has made {self.step} updates, and "
                f"this one would end after {self.total_steps}; give more --epochs or --max_steps"
            )
        self.rate_scales = saved["rate_scales"]

    def model(self, lane: int = 0) -> nnx.Module:
        """The model of a lane with its present parameters, or their average."""
        params = self._each_lane(averaged_params)(self.state.opt_state, self.state.params)
        parts = lane_of((params, self.state.stats), lane, self.n)
        return nnx.merge(self._graphdef, *parts)

    def wait(self) -> None:
        """Return once all checkpoints are on disk."""
        self._checkpoints.wait()

    def close(self) -> None:
        """Finish writing checkpoints."""
        self._checkpoints.close()


def _has_batch_norm(state: TrainState) -> bool:
    variables = jax.tree.leaves(state.stats, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return any(isinstance(variable, nnx.BatchStat) for variable in variables)
