"""Exports the best checkpoint of a run."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lru.dataloaders import Dense
from lru.export.writer import Streaming, write_model
from lru.tasks import Predicts
from lru.training.runs import Run
from lru.training.trained import load_trained


def export_run(run: Run, folder: Path, plugins: str | None = None) -> dict[str, Any]:
    """Write a run's model; the card.

    Programs take inputs as the data set stores them, tokens as int32: scaling and normalisation
    are inside.

    Args:
        run: its folder.
        folder: to write to.
        plugins: see `load_trained`.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the data is not what the run was trained on, or its task cannot be exported.
    """
    trained = load_trained(run, plugins)
    card, task = trained.data.card, trained.task
    if not isinstance(task, Predicts) or not isinstance(trained.model, Streaming):
        raise ValueError(
            f"the model of {run.path} cannot be exported: {type(task).__name__} does not answer to "
            "inputs alone, whole and step by step"
        )
    stored = trained.data.train
    inputs_t = (
        jax.ShapeDtypeStruct(stored.inputs.shape[2:], stored.inputs.dtype)
        if isinstance(stored, Dense)
        else jax.ShapeDtypeStruct((), jnp.int32)
    )
    facts = {
        "run": run.path.resolve().name,
        "update": trained.update,
        "model": trained.config.model.model,
        "dataset": card.name,
        "n_classes": card.n_classes,
        "vocabulary": card.vocabulary,
        "mean": card.mean,
        "std": card.std,
    }
    return write_model(folder, trained.model, inputs_t, prepare=task.prepare, facts=facts)
