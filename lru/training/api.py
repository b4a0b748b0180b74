"""Training as one call from Python: a prepared data set in, a model and how it went out."""

import dataclasses
from contextlib import closing

from flax import nnx

from lru.dataloaders import Prepared
from lru.layers import resolve_options
from lru.tasks import TASKS
from lru.training.config import Config
from lru.training.loop import Summary, Trainer
from lru.training.runs import open_run, open_trackers


def fit(data: Prepared, config: Config, task: str = "classification") -> tuple[nnx.Module, Summary]:
    """Train a model; as from the command line, the run has a folder and goes on if it is there.

    Args:
        data: what to learn from; in the run's folder it goes by the name on its card.
        config: everything else.
        task: what to learn, by its registered name.

    Returns:
        The model after the last update, and how the run went.

    Raises:
        ValueError: if the task, the model or the configuration does not fit the data.
    """
    options = resolve_options(config.model.model, config.model.options)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, options=options),
        data=dataclasses.replace(config.data, dataset=data.card.name, data_options={}),
    )
    learned = TASKS[task](data.card, config.model)
    with closing(open_run(config)) as run, closing(Trainer(config, learned, data, run)) as trainer:
        with open_trackers(config, run, trainer.step) as trackers:
            summary = trainer.fit(trackers)
        return trainer.model(), summary
