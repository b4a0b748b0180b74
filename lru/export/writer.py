"""Writes models as StableHLO, by `jax.export`: one program for every platform, batch and length.

Parameters are constants of the programs. Scans are portable ones (`lru.scan.portable`).
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from lru.export.artifact import CARD, FORMAT, STATE, STEP, WHOLE
from lru.files import make_folder, write_atomically
from lru.layers import NoStepError
from lru.scan import portable
from lru.version import __version__

PLATFORMS = ("cpu", "cuda", "tpu")

Prepare = Callable[[jax.Array], jax.Array]
# Files by name, and what the card says of them.
Part = tuple[dict[str, bytes], dict[str, Any]]


@runtime_checkable
class Streaming(Protocol):
    """A model that gives the same outputs whole and step by step, as `lru.models.Classifier`."""

    def __call__(self, inputs: Any, *, lengths: Any) -> tuple[jax.Array, Any]:
        """Outputs of whole sequences, and the state after them."""
        ...

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first step; rows of every leaf are alike, along its first axis."""
        ...

    def step(self, inputs_t: Any, state: Any) -> tuple[jax.Array, Any]:
        """Outputs after one more step, and the state; or raises `NoStepError`."""
        ...


def write_model(
    folder: str | os.PathLike[str],
    model: Streaming,
    inputs_t: jax.ShapeDtypeStruct,
    *,
    prepare: Prepare = lambda inputs: inputs,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Export a model's whole-sequence function and its step into a folder; the card.

    The card is written last and has the sha256 of the other files.

    Args:
        folder: where to; made if it is not there.
        model: with its parameters, as they are now.
        inputs_t: shape and type of one step of one row.
        prepare: makes what the model reads from such inputs; becomes part of the programs.
        facts: more to say on the card.

    Raises:
        OSError: if the folder cannot be made or written to.
        ValueError: if outputs of the model are no array, as those of a quantum network.
    """
    _check_outputs(model, inputs_t, prepare)
    folder = Path(folder)
    make_folder(folder, "out")
    whole_files, whole = _whole(model, inputs_t, prepare)
    step_files, step = _step(model, inputs_t, prepare)
    files = whole_files | step_files
    card = {
        "format": FORMAT,
        **(facts or {}),
        "platforms": PLATFORMS,
        "versions": {"lru": __version__, "jax": version("jax")},
        **whole,
        **step,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    for name, content in files.items():
        write_atomically(folder / name, content)
    write_atomically(folder / CARD, (json.dumps(card, indent=1) + "\n").encode())
    return card


def _check_outputs(model: Streaming, inputs_t: jax.ShapeDtypeStruct, prepare: Prepare) -> None:
    one = jax.ShapeDtypeStruct((1, 1, *inputs_t.shape), inputs_t.dtype)
    lengths = jax.ShapeDtypeStruct((1,), jnp.int32)
    outputs, _ = jax.eval_shape(lambda x, lengths: model(prepare(x), lengths=lengths), one, lengths)
    if not isinstance(outputs, jax.ShapeDtypeStruct):
        raise ValueError(
            f"model must give an array to be exported, but {type(model).__name__} gives "
            f"{type(outputs).__name__}"
        )


def _whole(model: Streaming, inputs_t: jax.ShapeDtypeStruct, prepare: Prepare) -> Part:
    batch, time = jax.export.symbolic_shape("batch, time")
    program = _export(
        lambda inputs, lengths: model(prepare(inputs), lengths=lengths)[0],
        jax.ShapeDtypeStruct((batch, time, *inputs_t.shape), inputs_t.dtype),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    inputs, lengths = map(_described, program.in_avals)
    outputs = _described(program.out_avals[0])
    described = {"inputs": inputs, "lengths": lengths, "outputs": outputs}
    return {WHOLE: bytes(program.serialize())}, {"whole": described}


def _step(model: Streaming, inputs_t: jax.ShapeDtypeStruct, prepare: Prepare) -> Part:
    """The step, whose state is the list of the leaves of the model's own; or why there is none."""
    paths, structure = jax.tree_util.tree_flatten_with_path(model.initial_state(1))
    rows = [row for _, row in paths]

    def step(inputs_t: jax.Array, state: list[jax.Array]) -> tuple[jax.Array, list[jax.Array]]:
        outputs, after = model.step(prepare(inputs_t), jax.tree.unflatten(structure, state))
        return outputs, jax.tree.leaves(after)

    (batch,) = jax.export.symbolic_shape("batch")
    try:
        program = _export(
            step,
            jax.ShapeDtypeStruct((batch, *inputs_t.shape), inputs_t.dtype),
            [jax.ShapeDtypeStruct((batch, *row.shape[1:]), row.dtype) for row in rows],
        )
    except NoStepError as error:
        return {}, {"no_step": str(error)}
    inputs, *state = map(_described, program.in_avals)
    for (path, _), leaf in zip(paths, state, strict=True):
        leaf["name"] = jax.tree_util.keystr(path, simple=True, separator="/")
    outputs = _described(program.out_avals[0])
    described = {"inputs_t": inputs, "state": state, "outputs": outputs}
    return {STEP: bytes(program.serialize()), STATE: _archive(rows)}, {"step": described}


def _export(function: Callable, *arguments: Any) -> jax.export.Exported:
    with portable(), _without_paths():
        return jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)


@contextmanager
def _without_paths() -> Iterator[None]:
    """Programs do not say from which lines of which files of this machine they come."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def _described(value: Any) -> dict[str, Any]:
    """Shape, in which sizes that are free have names, and type."""
    sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
    return {"shape": sizes, "dtype": value.dtype.name}


def _archive(arrays: Iterable[jax.Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, *map(np.asarray, arrays))
    return file.getvalue()
