"""The contract of a task and the registry of tasks.

A task joins a data set with a network: which batches are read, what the network is, what it loses
and how it is scored. The trainer knows no task by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from lru.batches import Batches, DataConfig, Feed, Source, on_device_by_default
from lru.dataloaders import Card, Prepared
from lru.models import MODELS, ModelConfig
from lru.registry import Registry
from lru.tasks.findings import Findings
from lru.tasks.metrics import Mean, Metric, Metrics


class Outcome(NamedTuple):
    """Sums over a batch.

    Attributes:
        loss: sum and weight of the losses; training lowers their mean.
        metrics: those that the task declares, by name.
        carry: what the next batch starts from.
        counts: in evaluation, those that the task declares, or some of them, by name.
    """

    loss: Mean
    metrics: Metrics
    carry: Any = ()
    counts: dict[str, Array] = {}  # noqa: RUF012

    @property
    def sums(self) -> Metrics:
        """The loss and the metrics by name."""
        return {"loss": self.loss, **self.metrics}


@dataclass(frozen=True)
class NoOptions:
    """Of a task without options."""


class Task(ABC):
    """Contract of what a run learns.

    A new one is a file with a subclass under `TASKS.register`. It states `metrics`, `objective`,
    `build_model` and `loss`; what else it states has a default.

    Attributes:
        Options: a frozen dataclass of the task's own options, which become flags.
        defaults: what the task takes for options of others unless they are given, by flag.
        metrics: kinds of the metrics beside the loss, by name.
        counts: shapes of arrays of whole numbers that add up over an evaluation, by name; not
            logged, but there for `findings`.
        objective: what selects the best epoch: a metric of `report`.
        higher_is_better: whether more of it is better.
        selects_on: the evaluation split on which it does.
        preferred_body: body of networks that `auto` means where the layer has it.
        card: of the data.
        model: the network's configuration.
        options: of the task.
    """

    Options: ClassVar[type] = NoOptions
    defaults: ClassVar[Mapping[str, Any]] = {}
    metrics: ClassVar[Mapping[str, type[Metric]]] = {}
    counts: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    objective: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    selects_on: ClassVar[str] = "val"
    preferred_body: ClassVar[str] = "blocks"

    def __init_subclass__(cls, **arguments: Any):
        """Check that the options are those of the bases, and more.

        Raises:
            TypeError: if they are not.
        """
        super().__init_subclass__(**arguments)
        for base in cls.__bases__:
            needed = getattr(base, "Options", NoOptions)
            if needed is not NoOptions and not issubclass(cls.Options, needed):
                raise TypeError(
                    f"{cls.__name__}.Options must extend the options of {base.__name__}, as in "
                    f"class {cls.Options.__name__}({base.__name__}.Options)"
                )

    def __init__(self, card: Card, model: ModelConfig, options: Any = None):
        """Join a data set and a network.

        Args:
            card: of the data set.
            model: of the network.
            options: of the task; None for the defaults.

        Raises:
            ValueError: if they do not fit.
        """
        self.card, self.model = card, model
        self.options = self.Options() if options is None else options

    def sources(
        self, data: Prepared, config: DataConfig, *, seed: int, on_device: bool | None
    ) -> Mapping[str, Source]:
        """The batches of "train", and of each evaluation split by its name.

        Args:
            data: what to learn from.
            config: batch size and bucketing.
            seed: of the order of the examples in training.
            on_device: keep the data on the device; None if it takes little memory there.

        Raises:
            ValueError: if something does not fit the data.
        """
        splits = data.splits
        if on_device is None:
            on_device = on_device_by_default(splits)
        train = Batches(splits["train"], config, seed=seed, groups=data.card.groups)
        # Evaluation compiles no other lengths than training does.
        batches = {
            name: train if name == "train" else Batches(split, config, bounds=train.bounds)
            for name, split in splits.items()
        }
        return {name: Feed(batch, on_device=on_device) for name, batch in batches.items()}

    @classmethod
    def suits(cls, card: Card) -> bool:
        """True if this is the task of such data where none is named."""
        del card
        return False

    @classmethod
    def steps_to_learn_from(cls, card: Card, options: Any) -> int:
        """Steps that a gradient of the task goes through: those of a row to train on, the mean."""
        del options
        return round(card.splits["train"]["mean_length"])

    @property
    def of_draw(self) -> tuple[str, ...]:
        """Options of the network that change nothing but its initial draw."""
        return MODELS[self.model.model].of_draw

    def of_lane(self, values: Mapping[str, float], lane: int = 0) -> "Task":
        """The task of a lane, by its values and its number, for its initial draw."""
        del lane
        own = {name: value for name, value in values.items() if name in self.of_draw}
        if not own:
            return self
        model = replace(self.model, options={**self.model.options, **own})
        return type(self)(self.card, model, self.options)

    @abstractmethod
    def build_model(self, rngs: nnx.Rngs) -> nnx.Module:
        """A freshly initialised model."""

    def initial_carry(self, model: nnx.Module, batch_size: int) -> Any:
        """Start of the first batch, rows along the first axis; empty if nothing goes on."""
        del model, batch_size
        return ()

    @abstractmethod
    def loss(
        self, model: nnx.Module, batch: Any, carry: Any, key: Key[Array, ""] | None, *, train: bool
    ) -> Outcome:
        """Sums over a batch, so that batches of any size weigh right.

        Args:
            model: as built by `build_model`; its running statistics are updated in training.
            batch: from one of `sources`.
            carry: what the batch before left, or `initial_carry`.
            key: source of all that is random: dropout, noise, sampling. None for nothing random.
            train: whether this is training: dropout and statistics of the batch.
        """

    def rate(self, batch: Any) -> jax.Array | float:
        """Factor on the learning rate of an update with this batch."""
        del batch
        return 1.0

    def report(self, metrics: Mapping[str, Metric]) -> dict[str, float]:
        """Values to log, from the loss and the metrics by name."""
        return {name: metric.result() for name, metric in metrics.items()}

    def findings(
        self, model: nnx.Module, sources: Mapping[str, Source], counts: Mapping[str, np.ndarray]
    ) -> Findings:
        """Tables, pictures and plots for the trackers after an evaluation; none by default.

        Args:
            model: with the weights that were evaluated; to be used in evaluation mode.
            sources: those of `sources`.
            counts: of the evaluation of the split that selects, by name.
        """
        del model, sources, counts
        return {}

    def context(self) -> Mapping[str, str]:
        """Facts to read the results against, by name, for the last table of a run."""
        return {}

    def words(self, inputs: np.ndarray) -> list[str] | None:
        """Names of the steps at which a model is observed that reads one example.

        Args:
            inputs: stored ones of the example [T, ...].

        Returns:
            Its tokens; None for values.
        """
        if inputs.ndim != 1:
            return None
        known = self.card.vocabulary
        return [known[token] if known else str(token) for token in inputs.tolist()]

    def prepare(self, inputs: jax.Array) -> jax.Array:
        """Inputs as the network reads them, from stored ones: [B, T, ...] or one step."""
        return inputs


def no_counts(task: Task) -> dict[str, Array]:
    """The counts of a task before any batch."""
    return {name: jnp.zeros(shape, jnp.int32) for name, shape in task.counts.items()}


def no_metrics(task: Task) -> Metrics:
    """The loss and the metrics of a task before any batch."""
    return {"loss": Mean.empty()} | {name: kind.empty() for name, kind in task.metrics.items()}


TASKS: Registry[type[Task]] = Registry("task")
