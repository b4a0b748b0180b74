"""Exports the best checkpoint of a run."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lru.experiment import load_model
from lru.export.writer import Streaming, write_model
from lru.training.runs import Run, find_run


def export_run(
    run: str | os.PathLike[str] | Run,
    folder: str | os.PathLike[str],
    lane: int = 0,
    plugins: str | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Write the model of a lane of a run; the card.

    Programs take inputs as the data set stores them, tokens as int32: scaling and normalisation
    are inside.

    Args:
        run: its name, or its folder.
        folder: to write to.
        lane: see `load_model`.
        plugins: see `load_model`.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ValueError: if the data is not what the run was trained on, or its task cannot be exported.
    """
    run = run if isinstance(run, Run) else find_run(run)
    trained = load_model(run, lane, plugins)
    card, task = trained.data.card, trained.task
    if not isinstance(trained.model, Streaming):
        raise ValueError(
            f"the model of {run.path} cannot be exported: {type(task).__name__} does not answer to "
            "inputs alone, whole and step by step"
        )
    step = trained.data.train.blank
    inputs_t = jax.ShapeDtypeStruct(step.shape, step.dtype if step.ndim else jnp.int32)
    facts = {
        "run": run.path.resolve().name,
        "update": trained.update,
        "model": trained.config.model.model,
        "dataset": card.name,
        "n_classes": card.n_classes,
        "vocabulary": card.vocabulary,
        "mean": card.mean,
        "std": card.std,
        "target_mean": card.target_mean,
        "target_std": card.target_std,
    }
    return write_model(folder, trained.model, inputs_t, prepare=task.prepare, facts=facts)
