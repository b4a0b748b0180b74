"""A run on disk: its checkpoints, and the state that it starts from."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lru.batches import Source
from lru.devices import Agreement, Devices, greatest, is_first
from lru.tasks import Task
from lru.training.averaging import end_averaging
from lru.training.checkpoints import Checkpoints, Kind, UnreadableError
from lru.training.config import TrainConfig
from lru.training.first_form import FORMAT
from lru.training.hooks import NonFiniteError
from lru.training.optimizer import Optimizer
from lru.training.run_state import RunState
from lru.training.update import NEVER, TrainState
from lru.training.weights import read_weights, with_arrays

logger = logging.getLogger(__name__)


class SavedRun(RunState):
    """One run with its checkpoints."""

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
            checkpoints: of the run.
            data: checksums of the "data" and of its "vocabulary", known again when a run goes on.
            save_every: updates between two checkpoints.
            steps_per_call: most updates in a call of the compiled program.
            log_memory: log the peak of memory beside the speed.
            devices: that it is trained on; None for one.

        Raises:
            ValueError: see `RunState`.
        """
        super().__init__(
            *(task, sources, train, optimizer),
            save_every=save_every,
            steps_per_call=steps_per_call,
            log_memory=log_memory,
            devices=devices,
        )
        self._agreed = Agreement()
        self._checkpoints = checkpoints
        self._data = {"data": "", "vocabulary": ""} if data is None else dict(data)
        self._best: TrainState | None = None

    @property
    def stopping(self) -> bool:
        """True if a hook, in any process, wants the run to be saved and stopped."""
        return self._agreed(any(hook.stops(self) for hook in self.hooks))

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
        kind = self._checkpoints.to_resume()
        saved = None if kind is None else self._checkpoints.latest_step(kind)
        message = f"the loss or the gradient of update {bad_step + 1} is not finite; "
        if saved is None:
            message += "no checkpoint had been written; try a lower --lr_base or --lr_factor, or"
            return f"{message} --clip_norm 1"
        message += f"the last good checkpoint is of update {saved}; to go on from there more "
        message += f"carefully: --restore {self._checkpoints.folder.parent} --name NEW "
        return f"{message}--clip_norm 1, or with a lower --lr_base"

    def save_last(self) -> None:
        """Save the state to resume from; what it builds on is on disk before it.

        The disk is not waited for.
        """
        assert self._progress is not None
        # Waits for updates under way, which are part of training.
        self._log.flush(self)
        self.check_finite(jax.device_get(self.state.first_bad_step))
        with self._progress.paused.running():
            kind = "last" if self.evaluated else "unevaluated"
            # No checkpoint is ahead of the log.
            self._save(kind, self.state, before=self._trackers.flush)

    def save_best(self, better: Sequence[bool]) -> None:
        """Save the weights of the lanes that have become better, with the best of the others."""
        # The average is kept as plain parameters: whoever reads them need not know of it.
        end = self._programs.each(partial(end_averaging, least_weight=self._train.least_weight))
        opt_state, params = end(self.state.opt_state, self.state.params)
        state = self.state._replace(opt_state=opt_state, params=params)
        if self.n > 1:
            new = self._best is None and not all(better)
            if new and self._checkpoints.latest_step("best") is not None:
                self._best, _ = self._checkpoints.restore("best", state)
            if self._best is not None:
                mask = np.asarray(better)
                state = jax.tree.map(
                    lambda new, old: np.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old),
                    *jax.device_get((state, self._best)),
                )
            self._best = jax.device_get(state)
        self._save("best", state)

    def _save(
        self, kind: Kind, state: TrainState, before: Callable[[], None] = lambda: None
    ) -> None:
        progress = {
            "format": FORMAT,
            **self._data,
            "evaluated": self._evaluated,
            "total_steps": self.total_steps,
            "lane_method": self._programs.method,
            "rate_scales": self.rate_scales,
            "hooks": {hook.name: hook.state() for hook in self.hooks},
        }
        self._checkpoints.save(kind, self.step, self.devices.whole(state), progress, before)

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
        self._programs.method = saved["lane_method"]
        self.rate_scales = saved["rate_scales"]
        for hook in self.hooks:
            hook.load(saved["hooks"].get(hook.name, {}))
        bad = np.atleast_1d(jax.device_get(self.state.first_bad_step))
        self.end_lanes((bad != NEVER).tolist())
        self.end_lanes(self._early_stop.ended)

    def resume(self) -> bool:
        """Take over the last checkpoint of this run, if there is one.

        One that is damaged is set aside, and the one before is taken.

        Raises:
            UnreadableError: if there is none before it.
            ValueError: see `load`.
        """
        kind = self._checkpoints.to_resume()
        if kind is None:
            # Of a process that ended before there was anything to resume, maybe on other data.
            self._checkpoints.clear("best")
            return False
        try:
            self.load(kind)
        except UnreadableError as error:
            # The first process has set aside what is damaged, before the others read.
            if not is_first():
                raise
            if self._checkpoints.count() == 1:
                raise UnreadableError(
                    f"{error}, and there is none before it; --reset starts over"
                ) from error
            logger.warning(
                "%s; it is set aside as %s, and the run goes on from the one before",
                *(error, self._checkpoints.set_aside(kind)),
            )
            return self.resume()
        return True

    def start_from(self, other: Checkpoints) -> None:
        """Take over the best weights of another run, and the statistics that go with them.

        Raises:
            ValueError: if they are of another vocabulary.
        """
        self.state, saved = other.restore("best", self.state, only=("params", "stats"))
        where = f"the run in {other.folder.parent}"
        if "vocabulary" not in saved and saved["data"] != self._data["data"]:
            message = "%s has not noted its vocabulary: make sure that ids mean the same"
            logger.warning(message, where)
        self._check_vocabulary(saved, where)

    def start_from_file(self, path: str) -> None:
        """Take over the weights of a file, and the statistics that go with them, in every lane.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is of another model or vocabulary.
        """
        arrays, about = read_weights(path)
        self._check_vocabulary(about, path)
        state = self.state
        params, stats = with_arrays((state.params, state.stats), arrays, self.n, path)
        self.state = state._replace(params=params, stats=stats)

    def _check_vocabulary(self, saved: Mapping[str, Any], where: str) -> None:
        vocabulary = self._data["vocabulary"]
        if saved.get("vocabulary", vocabulary) != vocabulary:
            raise ValueError(
                f"the vocabulary is not that of {where}, so its weights would be taken for other "
                "tokens; choose data with the same vocabulary"
            )

    def continue_from(self, other: Checkpoints) -> None:
        """Take over the last state of another run, but for its seed; the best is sought anew.

        Raises:
            ValueError: if the data is not what that run was trained on, or nothing is left to do.
        """
        fields = [name for name in TrainState._fields if name not in ("seed", "lane")]
        self.state, saved = other.restore(
            other.to_resume() or "last", self.state, only=fields, optional=("opt_state/average",)
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
        # Checkpoints of earlier versions do not say.
        length = saved.get("total_steps", self.total_steps)
        if length != self.total_steps:
            logger.warning(
                "the schedule of the run in %s is of %d updates, this one of %d: from update %d on "
                "the rate is that of the new schedule",
                *(where, length, self.total_steps, self.step),
            )
        self.rate_scales = saved["rate_scales"]

    def begin_with(self, params: Any, opt_state: Any, step: int) -> None:
        """Begin with parameters and an optimiser's state from elsewhere, and save them.

        They are the best until an evaluation finds better ones.

        Args:
            params: parameters.
            opt_state: state of the optimiser.
            step: updates that were made.
        """
        counted = self.by_lane([jnp.int32(step)] * self.n)
        self.state = self.state._replace(params=params, opt_state=opt_state, step=counted)
        self.step = step
        for kind in ("best", "unevaluated"):
            self._save(kind, self.state)

    def wait(self) -> None:
        """Return once all checkpoints are on disk that can be written."""
        self._checkpoints.wait()

    def ensure_saved(self) -> None:
        """Return once the state is on disk.

        Raises:
            OSError: if it cannot be written.
        """
        if self._failed:
            # The disk may have been full for a while only.
            self.save_last()
        if self._failed:
            raise OSError(
                f"the state after update {self.step} could not be written to "
                f"{self._checkpoints.folder}: {self._checkpoints.failure or 'see process 0'}"
            )

    @property
    def _failed(self) -> bool:
        """True if a checkpoint could not be written; all processes must ask."""
        self.wait()
        return greatest(self._checkpoints.failure is not None) > 0

    def close(self) -> None:
        """Finish writing checkpoints."""
        self._checkpoints.close()
