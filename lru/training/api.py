"""Training as one call from Python: a prepared data set in, a model and how it went out."""

import dataclasses

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
    learned, run = TASKS[task](data.card, config.model), open_run(config)
    trainer = Trainer(config, learned, data, run)
    try:
        with open_trackers(config, run, trainer.step) as trackers:
            summary = trainer.fit(trackers)
        return trainer.model(), summary
    finally:
        trainer.close()
