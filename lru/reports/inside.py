"""Pictures of what happens inside the model of a training while it reads one example."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lru.analysis.plots import plot_observed
from lru.dataloaders import DATASETS, dataset_from_options
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
    lengths = getattr(batch, "lengths", None)
    stored = batch.inputs[:1, : None if lengths is None else int(lengths[0])]
    try:
        layers = model.observe(task.prepare(stored))
    except NotImplementedError:
        raise NotObservedError(f"the body of its {type(model).__name__} has no observe") from None
    words = task.words(np.asarray(stored[0]))
    pictures = []
    for number, layer in enumerate(layers, 1):
        pictures.append(folder / f"{name}-{number}.png")
        shown = {n: v[0, :MOST_STEPS, :MOST_UNITS] for n, v in layer.items()}
        plot_observed(shown, words and words[:MOST_STEPS], pictures[-1])
    shapes = [next(iter(layer.values())).shape for layer in layers]
    return Inside(pictures, step, shapes[0][1], [shape[-1] for shape in shapes])
