"""State of a run: that of its lanes, its hooks and its log.

With its checkpoints (`lru.training.saved_run`) it is what hooks find; `lru.training.loop` moves it
on.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lru.batches import Source
from lru.devices import Devices, is_first
from lru.tasks import Task
from lru.training.averaging import averaged_params
from lru.training.config import TrainConfig
from lru.training.hooks import (
    Average,
    EarlyStop,
    Hook,
    Interrupt,
    Log,
    Plateau,
    Report,
    Save,
    Select,
    Show,
    summarised,
)
from lru.training.lanes import Programs, Shares, lane_of, lanes_of, of_all, stacked
from lru.training.memory import check_fits, peak_memory
from lru.training.optimizer import (
    Optimizer,
    Transformation,
    make_optimizer,
    make_schedule,
    with_values,
)
from lru.training.progress import Counted, Progress
from lru.training.splits import check_split
from lru.training.trackers import Trackers
from lru.training.update import TrainState, init_state, make_functions, rows_of

logger = logging.getLogger(__name__)


class RunState:
    """One run, of one lane or several.

    Attributes:
        task: what is learned.
        sources: batches of each split, delivered to one device.
        devices: that it is trained on.
        lanes: the runs side by side.
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
        *,
        save_every: int = 1000,
        steps_per_call: int = 1,
        log_memory: bool = False,
        devices: Devices | None = None,
    ):
        """Build the state before the first update.

        Args:
            task: what is learned.
            sources: batches of "train" and of each evaluation split.
            train: the training.
            optimizer: the rule of the updates.
            save_every: updates between two checkpoints.
            steps_per_call: most updates in a call of the compiled program.
            log_memory: log the peak of memory beside the speed.
            devices: that it is trained on; None for one.

        Raises:
            ValueError: if the lanes cannot be read, the device has no room for the state, there
                are to be several updates in a call for data that is not on the device, or the
                devices cannot split what is to be trained.
        """
        if steps_per_call > 1 and not sources["train"].on_device:
            raise ValueError(
                f"steps_per_call must be 1 for {task.card.name}, whose batches are sent to the "
                f"device one by one; got {steps_per_call}"
            )
        self._steps_per_call, self._log_memory = steps_per_call, log_memory
        self.lanes = lanes_of(train, optimizer, task.of_draw)
        if len(self.lanes) == 1:
            train, optimizer = self.lanes[0].train(train), self.lanes[0].optimizer(optimizer)
        self.task, self.sources = task, sources
        self.devices = devices or Devices()
        check_split(self.devices, task, sources, len(self.lanes))
        self._feeds = {name: source.spread(self.devices) for name, source in sources.items()}
        self._train, self._optimizer = train, optimizer
        self._per_epoch = sources["train"].steps_per_epoch
        self._eval_every = train.eval_every or self._per_epoch
        self.total_steps = train.max_steps or train.epochs * self._per_epoch
        self.step, self._evaluated = 0, 0
        self.active = [True] * len(self.lanes)
        self.rate_scales = [1.0] * len(self.lanes)
        several, rows = len(self.lanes) > 1, sources["train"].rows
        parts = train.n_microbatch

        def initial(number: int) -> tuple[nnx.GraphDef, TrainState]:
            lane = self.lanes[number]
            own = lane.values if several else None
            return init_state(task.of_lane(lane.values, number), self._build, lane.seed, rows, own)

        check_fits(lambda: initial(0)[1], task.model, len(self.lanes))
        states = []
        for number in range(len(self.lanes)):
            self._graphdef, state = initial(number)
            states.append(state)
        self._state: TrainState | Shares
        self.state = stacked(states)
        rows //= self.devices.data
        microbatch = -(-rows // parts) if parts > 1 else train.per_device_batch_size
        if microbatch is not None and microbatch < rows and _has_batch_norm(self.state):
            at_once = microbatch * self.devices.data
            logger.info("batch norm takes its statistics from each %d rows", at_once)
        self._functions = make_functions(
            *(task, self._graphdef, self._build, microbatch), axis=self.devices.axis
        )
        if train.averages and _has_batch_norm(self.state):
            logger.info("the average is evaluated with batch norm's statistics of the iterates")
        self._averaged = partial(averaged_params, least_weight=train.least_weight)
        self._programs = Programs(len(self.lanes), self.n_parameters, self.devices)
        self._trackers = Trackers()
        self._progress: Progress | None = None
        self._counts: Any = {}
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
        limit = (
            None if train.stop_at_loss is None else (f"{task.selects_on}/loss", train.stop_at_loss)
        )
        self._early_stop = EarlyStop(train.early_stop_patience, self._select, limit)
        self._log = Log(train.log_every, [self._build(lane.values)[1] for lane in self.lanes])
        plateau = Plateau([lane.train(train) for lane in self.lanes], self._select)
        average, save = Average(train, self._select, count), Save(save_every)
        self._interrupt = Interrupt()
        # While lanes that end here still count as active; making models for nothing costs time.
        show = [Show()] if type(task).findings is not Task.findings else []
        hooks = [self._log, *show, self._select, plateau, self._early_stop, average, save]
        return [*hooks, self._interrupt]

    @cached_property
    def n_parameters(self) -> int:
        """Number of real parameters of a lane."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params)) // len(self.lanes)

    @property
    def state(self) -> TrainState:
        """The state of all lanes, with an axis of them if there are several."""
        state: TrainState = of_all(self._state)
        self._state = state
        return state

    @state.setter
    def state(self, state: TrainState) -> None:
        self._state = self.devices.put(state, rows_of)

    @property
    def epoch(self) -> float:
        """Passes over the training examples so far."""
        return self.epoch_of(self.step)

    def epoch_of(self, step: int) -> float:
        """Passes over the training examples after so many updates."""
        return round(step / self._per_epoch, 6)

    @property
    def at_evaluation(self) -> bool:
        """True if an evaluation follows the last update."""
        return self.step == self.total_steps or self.step % self._eval_every == 0

    @property
    def next_boundary(self) -> int:
        """The next update after which there is an evaluation, or a hook must be asked."""
        every = [self._eval_every, *(hook.every for hook in self.hooks if hook.every)]
        return min(self.total_steps, *(self.step - self.step % n + n for n in every))

    @property
    def finished(self) -> bool:
        """True if there is nothing left to do."""
        at_end = self.step >= self.total_steps or not any(self.active)
        return at_end and not self._evaluation_due

    @property
    def evaluated(self) -> bool:
        """True if the state has been evaluated as far as the run does it."""
        return not self._evaluation_due

    @property
    def _evaluation_due(self) -> bool:
        return self.at_evaluation and self._evaluated < self.step

    # What hooks find.

    @property
    def n(self) -> int:
        """Number of lanes."""
        return len(self.lanes)

    @property
    def counted(self) -> Counted:
        """Counts of this process."""
        assert self._progress is not None
        return self._progress.counted

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
        return jax.jit(self._programs.each(self._functions.take_sums), donate_argnums=0)

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
            # Beside training nothing but what selects: the test split is not to be looked at.
            splits = ("train", self.task.selects_on, "lr")
            self._progress.show({n: v for n, v in shown.items() if n.split("/")[0] in splits})

    def log_speed(self, step: int, counted: Counted) -> None:
        """Log how fast the updates up to one were, whose numbers have just come.

        Args:
            step: the last of them.
            counted: what had been counted then.
        """
        assert self._progress is not None
        speed = self._progress.speed(counted)
        if self._log_memory:
            speed["peak_memory_bytes"] = float(peak_memory())
        self._trackers.log_speed(step, speed)

    def show(self) -> None:
        """Hand what the task finds in every lane that goes on to the trackers."""
        if not is_first():
            return
        for lane in [k for k in range(self.n) if self.active[k]]:
            counts = lane_of(self._counts, lane, self.n)
            found = self.task.findings(self.model(lane), self.sources, counts)
            place = "" if self.n == 1 else f"lane{lane}/"
            self._trackers.show(self.step, {place + name: each for name, each in found.items()})

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

    def model(self, lane: int = 0) -> nnx.Module:
        """The model of a lane with its present parameters, or their average, on one device."""
        state = self.devices.local(self.state._replace(carry=()))
        params = self._programs.each(self._averaged)(state.opt_state, state.params)
        parts = lane_of((params, state.stats), lane, self.n)
        return nnx.merge(self._graphdef, *parts)


def _has_batch_norm(state: TrainState) -> bool:
    variables = jax.tree.leaves(state.stats, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return any(isinstance(variable, nnx.BatchStat) for variable in variables)
