"""The contract of an analysis: a task that trains something small on a frozen model.

The model that is looked at belongs to a run of some task; its weights are `Frozen` variables of the
analysis's own model, which no gradient reaches.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from flax import nnx

from lru.dataloaders import Card
from lru.models import ModelConfig
from lru.tasks import Task


class Frozen(nnx.Variable):
    """A weight that is not trained."""


class Opened(NamedTuple):
    """A task that was learned, and its models, for an analysis to look at.

    Attributes:
        task: that was learned.
        models: with the weights of the best checkpoint, one a lane.
    """

    task: Task
    models: list[nnx.Module]


def frozen(model: nnx.Module) -> nnx.Module:
    """A copy of a model whose parameters are `Frozen`."""
    made = nnx.clone(model)
    for _, module in nnx.iter_modules(made):
        for name, value in list(vars(module).items()):
            if isinstance(value, nnx.Param):
                setattr(module, name, Frozen(value[...]))
    return made


class Analysis(Task):
    """Base of the analyses.

    Attributes:
        opened: what is looked at.
        lane: which of its models.
    """

    def __init__(self, card: Card, model: ModelConfig, options: Any, opened: Opened):
        """Join a data set, a configuration and what is looked at.

        Args:
            card: of the data set.
            model: of the model that is looked at.
            options: of the analysis; None for the defaults.
            opened: what is looked at.

        Raises:
            ValueError: if they do not fit.
        """
        super().__init__(card, model, options)
        self.opened, self.lane = opened, 0

    def of_lane(self, values: Mapping[str, float], lane: int = 0) -> Task:
        """See `Task.of_lane`: lane k looks at model k, from the first again after the last."""
        made = copy.copy(self)
        made.lane = lane % len(self.opened.models)
        return made

    @property
    def subject(self) -> Any:
        """A frozen copy of the model that is looked at."""
        return frozen(self.opened.models[self.lane])
