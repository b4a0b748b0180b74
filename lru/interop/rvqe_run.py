"""Runs that begin with a checkpoint of RVQE: its network, data, optimiser and their states."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lru.config import Config
from lru.dataloaders import dataset_from_options
from lru.defaults import resolved
from lru.experiment import load_data, make_task, make_trainer
from lru.interop.rvqe import Checkpoint, read_checkpoint, stacked, stacked_state
from lru.run_folders import open_run, run_path
from lru.training.config import RunConfig
from lru.training.runs import Run

OPTIMIZERS = {"adam": "adamw", "rmsprop": "rmsprop", "sgd": "sgd"}
"""Rules of the updates by their names there, whose states can be taken over."""

SLOTS = {"exp_avg": "mu", "exp_avg_sq": "nu", "square_avg": "nu"}
"""Fields of optax's states by what PyTorch calls them."""

ALIKE = (
    *("workspace", "stages", "order", "degree", "dataset", "weight_decay", "stop_at_loss"),
    *("initial_bias", "initial_bias_spread", "initial_weights_spread", "initial_unitaries_spread"),
)

OPTIONS = dict(zip(ALIKE, ALIKE, strict=True)) | {
    "learning_rate": "lr_base",
    "epochs": "max_steps",
    "seed": "jax_seed",
}
"""Options by their names there."""


def import_checkpoint(path: str | os.PathLike[str], run: RunConfig) -> Run:
    """Make a run that goes on where a checkpoint of RVQE was taken; its folder.

    A batch counts the rows of all groups and shards there. The order of rows and what is drawn in
    evaluations are other ones.

    Args:
        path: of the checkpoint.
        run: name and folders of the run.

    Raises:
        ValueError: if the checkpoint cannot be read, does not match its own arguments, or the run
            exists.
        OSError: if a file cannot be read or written.
    """
    checkpoint = read_checkpoint(path)
    config = _config(checkpoint, run)
    if Run(run_path(config)).has_checkpoint:
        raise ValueError(f"name: there is a run in {run_path(config)}; choose another")
    data = load_data(config)
    rows = config.data.batch_size * len(data.card.groups or [1])
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=rows))
    folder = Run(run_path(config))
    trainer = make_trainer(config, data, make_task(config, data), folder)
    cell = (
        checkpoint.arguments["workspace"],
        checkpoint.arguments["stages"],
        data.card.n_classes.bit_length() - 1,
    )
    try:
        params = _placed(trainer.state.params, stacked(checkpoint.parameters, *cell))
        opt_state, step = trainer.state.opt_state, checkpoint.epoch + 1
        if checkpoint.arguments["optimizer"] != "sgd":
            step, slots = stacked_state(checkpoint, *cell)
            for slot, arrays in slots.items():
                opt_state = _placed(opt_state, arrays, within=SLOTS[slot])
        folder = open_run(config)
        trainer.begin_with(params, _counted(opt_state, step), step)
    finally:
        trainer.close()
        folder.close()
    return folder


def _config(checkpoint: Checkpoint, run: RunConfig) -> Config:
    """The configuration of a checkpoint; its batch is that of a group of rows."""
    given = checkpoint.arguments
    needed = {*OPTIONS, "optimizer", "batch_size", "num_shards", "sentence_length"}
    if lacking := needed - given.keys():
        raise ValueError(f"the arguments of the checkpoint lack {', '.join(sorted(lacking))}")
    if given["optimizer"] not in OPTIMIZERS:
        raise ValueError(
            f"the optimiser of the checkpoint must be {', '.join(OPTIMIZERS)}, whose states can be "
            f"taken over, but is {given['optimizer']}"
        )
    values = {ours: given[theirs] for theirs, ours in OPTIONS.items()}
    values |= vars(run) | {
        "model": "quantum-rnn",
        "optimizer": OPTIMIZERS[given["optimizer"]],
        "batch_size": given["batch_size"] * given["num_shards"],
    }
    dataset = dataset_from_options(given["dataset"])
    options = {"sentence_length": given["sentence_length"]}
    values["data_options"] = {n: v for n, v in options.items() if hasattr(dataset, n)}
    return resolved(Config.from_flat(values))


def _names(path: tuple) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")


def _placed(tree: Any, arrays: Mapping[str, np.ndarray], within: str | None = None) -> Any:
    """A tree with arrays in the place of its leaves of the same names, of those under a field."""

    def place(path: tuple, leaf: jax.Array) -> jax.Array:
        names = _names(path)
        found = [name for name in arrays if name in names]
        if not found or (within is not None and within not in names):
            return leaf
        array = arrays[found[0]]
        if array.shape != leaf.shape:
            raise ValueError(
                f"{found[0]} has shape {array.shape} in the checkpoint, but its arguments make it "
                f"{leaf.shape}"
            )
        return jax.numpy.asarray(array, leaf.dtype)

    return jax.tree_util.tree_map_with_path(place, tree)


def _counted(opt_state: Any, step: int) -> Any:
    """The state of an optimiser that has made so many updates."""

    def count(path: tuple, leaf: jax.Array) -> jax.Array:
        return jax.numpy.full_like(leaf, step) if _names(path)[-1] == "count" else leaf

    return jax.tree_util.tree_map_with_path(count, opt_state)
