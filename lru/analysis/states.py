"""The recurrent layers of a model, and states of any recurrence as real vectors and back."""

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lru.layers import RecurrentLayer

Unflatten = Callable[[Array], Any]


def flatten_states(state: Any) -> tuple[Float[Array, "B M"], Unflatten]:
    """Lay the leaves of a state side by side, complex ones as their real, then imaginary parts.

    Differentiable, also under `jax.jit`.

    Args:
        state: a tree of arrays [B, ...], such as the state of a layer, a body or a network; None in
            it holds no numbers.

    Returns:
        Vectors [B, M] of the widest type among the leaves, float32 at least, and a function that
        makes vectors [..., M] a tree of that structure again, with leaves [..., *rest] of their own
        types; integers and booleans are rounded.

    Raises:
        ValueError: if there is no array, or if not all have the same number of rows.
    """
    leaves, structure = jax.tree.flatten(state)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    shapes = [leaf.shape for leaf in leaves]
    if not leaves or any(shape[:1] != (shapes[0] or (None,))[:1] for shape in shapes):
        raise ValueError(
            "state must hold arrays [B, ...] with the same number of rows B, got "
            f"{'shapes ' if shapes else 'none'}{', '.join(map(str, shapes))}"
        )
    rows = shapes[0][0]
    parts = [
        part.reshape(rows, math.prod(leaf.shape[1:]))
        for leaf in leaves
        for part in ((leaf.real, leaf.imag) if jnp.iscomplexobj(leaf) else (leaf,))
    ]
    dtype = jnp.result_type(jnp.float32, *(part.dtype for part in parts))
    vectors = jnp.concatenate([part.astype(dtype) for part in parts], axis=1)
    ends = list(accumulate(part.shape[1] for part in parts))
    types = [leaf.dtype for leaf in leaves]

    def unflatten(vectors: Array) -> Any:
        if vectors.shape[-1:] != (ends[-1],):
            raise ValueError(
                f"vectors have shape {vectors.shape}, but [..., M = {ends[-1]}] is allowed"
            )
        pieces = iter(jnp.split(vectors, ends[:-1], axis=-1))
        made = []
        for shape, dtype in zip(shapes, types, strict=True):
            values = next(pieces)
            if jnp.issubdtype(dtype, jnp.complexfloating):
                values = jax.lax.complex(values, next(pieces))
            elif not jnp.issubdtype(dtype, jnp.floating):
                values = jnp.round(values)
            made.append(values.reshape(*vectors.shape[:-1], *shape[1:]).astype(dtype))
        return jax.tree.unflatten(structure, made)

    return vectors, unflatten


def recurrent_layers(model: nnx.Module) -> list[RecurrentLayer]:
    """The recurrent layers of a model, in order; those inside of another one not apart."""
    found = {
        path: module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, RecurrentLayer)
    }
    return [
        module
        for path, module in found.items()
        if not any(path[:length] in found for length in range(len(path)))
    ]
