"""A task of your own, in a file of your own: say which way the last pulse went, for ever.

lru train --plugins examples/own_task.py --dataset flip-flop --model gru --epochs 20

The flip-flop of Sussillo and Barak 2013 (doi 10.1162/NECO_a_00409). Batches are drawn, not stored.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lru.batches import DataConfig, Fed, Source
from lru.dataloaders import Dataset, Description, Prepared, register, write_dense
from lru.models import ModelConfig
from lru.models.body import make_body
from lru.tasks import TASKS, Findings, Mean, Minimum, Outcome, Picture, Table, Task


@register
@dataclass(frozen=True)
class FlipFlops(Dataset):
    """Pulses up and down; drawn by the task, so that there is nothing to store."""

    name: ClassVar[str] = "flip-flop"
    task: ClassVar[str] = "flip_flop"
    split_names: ClassVar[tuple[str, ...]] = ("train",)

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """See `Dataset.build`."""
        write_dense(folder, "train", np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 1), "f4"))
        return Description("values", 0, "values_per_step", "Drawn as it is read.", "With itself.")


class Pulses(NamedTuple):
    """A batch: pulses [B, T, 1], 0 or ±1, and the last one's sign [B, T]."""

    inputs: Any
    signs: Any


@dataclass
class Drawn(Source):
    """Batches that are a pure function of seed, epoch and number, so that a run can be resumed."""

    rows: int
    steps: int
    rate: float
    steps_per_epoch: int
    seed: tuple[int, int]

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Fed]:
        """See `Source.epoch`."""
        for number in range(start, self.steps_per_epoch):
            rng = np.random.default_rng((*self.seed, epoch, number))
            yield Fed(jax.device_put(self.draw(rng)), self.rows)

    def draw(self, rng: np.random.Generator) -> Pulses:
        """A batch; each row begins with a pulse."""
        shape, time = (self.rows, self.steps), np.arange(self.steps)
        pulse = (rng.random(shape) < self.rate) | (time == 0)
        last = np.maximum.accumulate(np.where(pulse, time, 0), axis=1)
        signs = np.take_along_axis(rng.choice([-1.0, 1.0], shape), last, axis=1)
        return Pulses((signs * pulse)[..., None].astype("f4"), signs.astype("f4"))


class Network(nnx.Module):
    """A linear map in, the recurrent layers that `--model` names, and a linear map out."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.encode = nnx.Linear(1, config.d_model, rngs=rngs)
        self.body = make_body(config, rngs=rngs)
        self.head = nnx.Linear(config.d_model, 1, rngs=rngs)

    def __call__(self, inputs: jax.Array, *, train: bool, key: jax.Array | None) -> jax.Array:
        """Outputs [B, T] of pulses [B, T, 1]."""
        x, _ = self.body(self.encode(inputs), train=train, key=key)
        return self.head(x)[..., 0]


@dataclass(frozen=True)
class FlipFlopOptions:
    """Options of the task."""

    steps: int = 64
    """Steps T of a sequence."""
    pulse_rate: float = 0.1
    """Probability of a pulse at a step."""
    updates_per_epoch: int = 50
    """Batches of an epoch."""

    def __post_init__(self):
        if self.steps < 1 or self.updates_per_epoch < 1 or not 0 < self.pulse_rate < 1:
            raise ValueError(
                "steps and updates_per_epoch must be at least 1, and pulse_rate in (0, 1); got "
                f"{self.steps}, {self.updates_per_epoch} and {self.pulse_rate}"
            )


@TASKS.register("flip_flop")
class FlipFlop(Task):
    """The sign of the last pulse, at every step."""

    Options = FlipFlopOptions
    defaults: ClassVar[Mapping[str, Any]] = {"n_layers": 1, "d_model": 16, "norm": "layer"}
    metrics = {"at_pulses": Mean, "between": Mean, "margin": Minimum}  # noqa: RUF012
    objective = "margin"
    higher_is_better = True

    def sources(
        self, data: Prepared, config: DataConfig, *, seed: int, on_device: bool | None
    ) -> dict[str, Source]:
        """See `Task.sources`: also longer sequences, and rarer pulses, than those of training."""
        rows, steps, rate = config.batch_size, self.options.steps, self.options.pulse_rate
        return {
            "train": Drawn(rows, steps, rate, self.options.updates_per_epoch, (0, seed)),
            "val": Drawn(rows, steps, rate, 4, (1, 0)),
            "longer": Drawn(rows, 4 * steps, rate, 4, (2, 0)),
            "rarer": Drawn(rows, 4 * steps, rate / 4, 4, (3, 0)),
        }

    def build_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """See `Task.build_model`."""
        return Network(self.model, rngs=rngs)

    def loss(self, model: Any, batch: Pulses, carry: Any, key: Any, *, train: bool) -> Outcome:
        """See `Task.loss`: squared error; shares of right signs, and the smallest y * sign."""
        outputs = model(batch.inputs, train=train, key=key if train else None)
        margins, pulse = outputs * batch.signs, batch.inputs[..., 0] != 0

        def share(where: jax.Array) -> Mean:
            return Mean(jnp.sum((margins > 0) & where), jnp.sum(where))

        loss = Mean(jnp.sum((outputs - batch.signs) ** 2), outputs.size)
        metrics = {"at_pulses": share(pulse), "between": share(~pulse)}
        return Outcome(loss, {**metrics, "margin": Minimum(margins.min())}, carry)

    def findings(
        self, model: Any, sources: Mapping[str, Source], counts: Mapping[str, np.ndarray]
    ) -> Findings:
        """See `Task.findings`: outputs over time, white for up; the first row in numbers."""
        batch = next(iter(sources["val"].epoch())).batch
        outputs = np.asarray(model(batch.inputs, train=False, key=None))
        grey = (127.5 * (1 + np.clip(outputs, -1, 1))).astype(np.uint8)
        rows = [(float(sign), float(y)) for sign, y in zip(batch.signs[0], outputs[0], strict=True)]
        return {
            "first_row": Table(("sign", "output"), rows),
            "outputs": Picture(np.repeat(grey[..., None], 3, axis=-1)),
        }
