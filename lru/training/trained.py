"""Trained models: the best checkpoint of a run, with the task and the data that it belongs to."""

import dataclasses
from typing import NamedTuple

from flax import nnx

from lru.dataloaders import Prepared, dataset_from_options
from lru.plugins import load_plugins, load_saved_plugins
from lru.tasks import TASKS, Task
from lru.training.config import Config
from lru.training.loop import Trainer
from lru.training.runs import Run


class Trained(NamedTuple):
    """A model and where it comes from.

    Attributes:
        model: with the parameters of the best checkpoint.
        update: after which the checkpoint was taken.
        task: that it learned.
        data: that it learned from.
        config: of the run.
    """

    model: nnx.Module
    update: int
    task: Task
    data: Prepared
    config: Config


def load_trained(run: Run, plugins: str | None = None) -> Trained:
    """Read the best checkpoint of a run; its data is prepared if need be.

    Args:
        run: its folder.
        plugins: to load in place of those that the folder names, which are not run unasked.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the data is not what the run was trained on, or if the folder names plugins
            that have not been loaded.
    """
    config = Config.load(run.config_file)
    if plugins is None:
        load_saved_plugins(config.run.plugins, str(run.config_file))
    load_plugins(plugins)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, eval_only=True))
    dataset = dataset_from_options(config.data.dataset, config.data.data_options)
    data = dataset.load(config.run.raw_dir, config.run.dir_name)
    task = TASKS[dataset.task](data.card, config.model)
    trainer = Trainer(config, task, data, run)
    try:
        return Trained(trainer.model(), trainer.step, task, data, config)
    finally:
        trainer.close()
