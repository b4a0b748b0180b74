"""Weights of a model as a safetensors file, with the configuration that they belong to.

Arrays, which are parameters and running statistics of norms, go by the names of their attributes,
such as `encoder/blocks/0/recurrence/nu_log`. The metadata are texts: `config`, every value by flag
as JSON, `update`, and `vocabulary`, the checksum by which data with the same tokens is known.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lru.files import write_atomically

SUFFIX = ".safetensors"


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by paths such as `params/head/kernel/value`, in its order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def named_arrays(state: Any) -> dict[str, Any]:
    """The arrays of the parameters and of the statistics of a model, a state each, by name."""
    # The first part of a path tells the two states apart.
    by_path = leaves_by_path(state).items()
    return {path.partition("/")[2].removesuffix("/value"): leaf for path, leaf in by_path}


def write_weights(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    update: int,
    vocabulary: str,
) -> None:
    """Write a file.

    Args:
        path: where to.
        arrays: by name.
        config: every value by flag.
        update: after which the weights were taken.
        vocabulary: checksum of the vocabulary of the data.
    """
    about = {"config": json.dumps(config), "update": str(update), "vocabulary": vocabulary}
    content = save({name: np.asarray(array) for name, array in arrays.items()}, about)
    write_atomically(Path(path), content)


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays by name, and the metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file.
    """
    try:
        with safe_open(path, "numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def with_arrays(state: Any, arrays: Mapping[str, np.ndarray], lanes: int, path: Any) -> Any:
    """A state with these arrays in place of its own, in every lane.

    Args:
        state: of a model, with an axis of lanes if there are several.
        arrays: by name.
        lanes: their number.
        path: of the file, for messages.

    Raises:
        ValueError: if a name or a shape differs.
    """
    own = named_arrays(state)
    if missing := sorted(own.keys() ^ arrays.keys()):
        where = "the file" if missing[0] in own else "the model"
        raise ValueError(f"{path} is of another model: {missing[0]} is not in {where}")
    leading = () if lanes == 1 else (lanes,)
    for name, leaf in own.items():
        if (*leading, *arrays[name].shape) != leaf.shape:
            raise ValueError(
                f"{path} is of another model: {name} has shape {arrays[name].shape} there, but "
                f"{leaf.shape[len(leading) :]} in the model"
            )
    leaves = [
        jnp.broadcast_to(jnp.asarray(arrays[name], leaf.dtype), leaf.shape)
        for name, leaf in own.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)
