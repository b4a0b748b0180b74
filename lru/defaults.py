"""Open ends of a configuration: its task, the options of owners, values for a memory."""

import dataclasses
from collections.abc import Collection

from lru.config import Config
from lru.dataloaders import DATASETS, Card, dataset_from_options
from lru.dataloaders.store.card import read_card
from lru.layers import LAYERS
from lru.models import NETWORKS
from lru.tasks import TASKS

FEWEST_STEPS = 2
"""The shortest memory that rules are for."""


def resolved(config: Config) -> Config:
    """The configuration with the value of every option, those left to their owners included.

    Raises:
        ValueError: if a name is unknown, an option is of nobody, or a value is out of range.
    """
    dataset = dataset_from_options(config.data.dataset, config.data.data_options)
    data = dataclasses.replace(config.data, data_options=dataclasses.asdict(dataset))
    return dataclasses.replace(Config.from_flat(config.flat()), data=data)


def with_memory(
    config: Config, memory: str, given: Collection[str] = (), card: Card | None = None
) -> Config:
    """The configuration with options of the layer by which its draw remembers so many steps.

    Args:
        config: of a stack of recurrent layers.
        memory: number of steps, or auto: that of a row to train on, the mean if they differ; of a
            text, that of a gradient (`bptt`).
        given: options that keep their values.
        card: of the data, for auto; None for that of the data set that is named.

    Raises:
        ValueError: if that is no number of steps, or the layer has no rule for them.
    """
    model = config.model.model
    known = [name for name, layer in LAYERS.items() if layer.remembering(FEWEST_STEPS)]
    if model not in known:
        raise ValueError(f"memory is for model {', '.join(known)}, got model {model!r}")
    if memory == "auto":
        steps = max(FEWEST_STEPS, _steps_of(config, card))
    elif not memory.isdecimal() or (steps := int(memory)) < FEWEST_STEPS:
        raise ValueError(
            f"memory must be auto or a number of steps, at least {FEWEST_STEPS}, got {memory!r}"
        )
    rule = LAYERS[model].remembering(steps)
    values = {name: value for name, value in rule.items() if name not in given}
    return Config.from_flat({**config.flat(), **values})


def _steps_of(config: Config, card: Card | None) -> int:
    """Steps that a gradient goes through."""
    if card is None:
        dataset = dataset_from_options(config.data.dataset, config.data.data_options)
        card = read_card(dataset.prepare(config.run.raw_dir, config.run.dir_name))
    name = config.task.task or task_of(card, config.model.model)
    return TASKS[name].steps_to_learn_from(card, config.task_options(name))


def task_of(card: Card, model: str) -> str:
    """The task of data and a model where none is named.

    That of a network of its own, else that of the data set, else the first that suits the data.

    Raises:
        ValueError: if there is none.
    """
    if model in NETWORKS:
        return NETWORKS[model].task
    if card.name in DATASETS:
        return DATASETS[card.name].task
    for name, task in TASKS.items():
        if task.suits(card):
            return name
    raise ValueError(
        f"task must be named for {card.name}, data of kind {card.kind} with targets {card.targets}"
    )
