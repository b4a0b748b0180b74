"""Pictures of what happens inside the model of a training while it reads one example."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lru.analysis.plots import plot_observed
from lru.dataloaders import DATASETS, Card, dataset_from_options
from lru.experiment import load_model
from lru.reports.results import Repetition

MOST_STEPS, MOST_UNITS = 60, 128
"""Steps and units of a layer that are drawn; of more, the first."""


class NotObservedError(ValueError):
    """A model cannot be observed."""


class Inside(NamedTuple):
    """Pictures of one model.

    Attributes:
        pictures: of its layers.
        update: after which the weights were taken.
        steps: of the example.
        widths: numbers of units of the layers.
    """

    pictures: list[Path]
    update: int
    steps: int
    widths: list[int]


def draw_inside(training: Repetition, name: str, folder: Path) -> Inside:
    """Draw states and gates of every layer on the first example of the split that selects.

    The data is read where it lies prepared, and never made.

    Args:
        training: its best model is drawn.
        name: of the pictures, to which the number of the layer is added.
        folder: of the pictures.

    Raises:
        NotObservedError: if the model cannot be observed, or its batches have no inputs.
        CacheError: if the data is not there.
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the data is not what the model was trained on.
    """
    config = training.config
    if config.data.dataset not in DATASETS:
        raise NotObservedError(f"its data, {config.data.dataset}, is none that is known by name")
    dataset = dataset_from_options(config.data.dataset, config.data.data_options)
    data = dataset.stored(config.run.dir_name, verify=False)
    _, step, task, _, _ = trained = load_model(training.run, training.lane, training.plugins, data)
    model: Any = trained.model
    if not hasattr(model, "observe"):
        raise NotObservedError(f"its {type(model).__name__} has no method observe")
    sources = task.sources(
        data, config.data, seed=config.train.order_seed, on_device=config.run.on_device
    )
    batch = next(iter(sources[task.selects_on].epoch())).batch
    if not hasattr(batch, "inputs"):
        raise NotObservedError(f"batches of its task {config.task.task} have no inputs")
    stored = batch.inputs[:1]
    lengths = getattr(batch, "lengths", None)
    lengths = None if lengths is None else lengths[:1]
    try:
        layers = model.observe(task.prepare(stored), lengths)
    except NotImplementedError:
        raise NotObservedError(f"the body of its {type(model).__name__} has no observe") from None
    steps = stored.shape[1] if lengths is None else int(lengths[0])
    words = _words(data.card, np.asarray(stored[0]), min(steps, MOST_STEPS))
    pictures = []
    for number, layer in enumerate(layers, 1):
        pictures.append(folder / f"{name}-{number}.png")
        shown = {n: v[0, : min(steps, MOST_STEPS), :MOST_UNITS] for n, v in layer.items()}
        plot_observed(shown, words, pictures[-1])
    widths = [next(iter(layer.values())).shape[-1] for layer in layers]
    return Inside(pictures, step, steps, widths)


def _words(card: Card, inputs: np.ndarray, steps: int) -> list[str] | None:
    """The tokens of an example; None for values."""
    if inputs.ndim != 1:
        return None
    ids = inputs[:steps].tolist()
    return [card.vocabulary[token] if card.vocabulary else str(token) for token in ids]
