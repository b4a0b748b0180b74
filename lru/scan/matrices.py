"""Recurrences whose state is a matrix for each head: their steps, many at once.

Time is cut into chunks of L steps. Within a chunk all is products of real matrices, and the state
goes from chunk to chunk: Yang et al. 2024 (arXiv 2406.06484), section 3. For the gradient only the
state before each chunk is kept, and each chunk runs once more.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

from lru.scan.methods import marked_steps, masked, step_counts, traced_once, valid_steps
from lru.scan.portability import is_portable

Tree = Any


class Steps(NamedTuple):
    """Steps of a chunk, in the order of the run.

    Attributes:
        arrays: inputs, each [B, H, L, ...], zero at padding.
        valid: False at padding [B, 1, L]; None where there is none.
        same: True where step s is not after step t and nothing was reset in between, [t, s] behind
            [B, 1] or alone.
        first: True before the first reset [B, 1, L]; None where nothing is reset.
    """

    arrays: tuple[Array, ...]
    valid: Bool[Array, "B 1 L"] | None
    same: Bool[Array, "... L L"]
    first: Bool[Array, "B 1 L"] | None

    def summed(self, x: Float[Array, "B H L"]) -> Float[Array, "B H L"]:
        """Sums over the steps since the last reset, or since the chunk began."""
        return jnp.squeeze(self.same.astype(x.dtype) @ x[..., None], -1)

    def begun(
        self, given: Float[Array, "B H ..."], fresh: Float[Array, "B H ..."] | None
    ) -> Float[Array, "B H ..."]:
        """The state that the last step's document began with."""
        if self.first is None:
            return given
        last = self.first[:, :, -1].reshape(len(given), *[1] * (given.ndim - 1))
        return jnp.where(last, given, 0 if fresh is None else fresh)

    def read(
        self,
        q: Float[Array, "B H L P"],
        given: Float[Array, "B H P Q"],
        fresh: Float[Array, "B H P Q"] | None,
    ) -> Float[Array, "B H L Q"]:
        """The products of q with the state that each step's document began with."""
        if self.first is None:
            return q @ given
        first = self.first[..., None]
        if fresh is None:
            return jnp.where(first, q, 0) @ given
        # Side by side: one product for both.
        both = jnp.concatenate([jnp.where(first, q, 0), jnp.where(first, 0, q)], axis=-1)
        return both @ jnp.concatenate([given, fresh], axis=-2)


# (state, fresh state, steps) -> (state, outputs [B, H, L, Q])
Advance = Callable[[Tree, Tree, Steps], tuple[Tree, Array]]


def over_chunks(
    advance: Advance,
    arrays: tuple[Float[Array, "B T _ ..."], ...],
    state: Tree,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Tree = None,
    chunk_length: int,
) -> tuple[Float[Array, "B T H ..."], Tree]:
    """Run a recurrence over time, chunk after chunk.

    Args:
        advance: from the state before a chunk, the one of marked steps, and the steps, to the state
            after them and their outputs. At padding it must hand the state on.
        arrays: inputs of each step and head; at padding they may hold anything, NaN included.
        state: before the first step, with rows along the first axis of leaves.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step starts from `reset_to`.
        lengths: [B] number of valid steps of right-padded rows.
        reset_to: a tree like the state; None is zeros.
        chunk_length: number L of steps of a chunk; 0 for one chunk, however long.

    Returns:
        Outputs, zero at padding, and the state after the last valid step of each row.

    Raises:
        ValueError: if the number of steps of a chunk is negative, or resets have another shape.
    """
    if chunk_length < 0:
        raise ValueError(f"chunk_length must be at least 0, got {chunk_length}")
    steps = arrays[0].shape[1]
    # A portable program may have no number for T.
    length = 1 if is_portable() else min(chunk_length or steps, steps)
    lengths = step_counts(lengths, steps)
    return _over_chunks(advance, length, reverse, arrays, state, reset_to, resets, lengths)


class StatesOf(NamedTuple):
    """A recurrence that gives the first leaf of its state for the output of each chunk."""

    advance: Advance

    def __call__(self, state: Tree, fresh: Tree, steps: Steps) -> tuple[Tree, Array]:
        """See `Advance`; for chunks of one step."""
        state = self.advance(state, fresh, steps)[0]
        return state, jax.tree.leaves(state)[0][:, :, None]


@partial(traced_once, static_argnums=(0, 1, 2))
def _over_chunks(
    advance: Advance,
    length: int,
    reverse: bool,
    arrays: tuple[Array, ...],
    state: Tree,
    fresh: Tree,
    resets: Array | None,
    lengths: Array | None,
) -> tuple[Array, Tree]:
    valid = valid_steps(arrays[0], lengths)
    arrays = tuple(masked(valid, x) for x in arrays)
    marked = marked_steps(arrays[0], resets, valid)
    rows, steps = arrays[0].shape[:2]
    rest = 0 if length == 1 else -steps % length
    if rest and valid is None:
        valid = jnp.ones((rows, steps), bool)

    def cut(x: Array) -> Array:
        """[B, T, H, ...] as chunks [T / L, B, H, L, ...]."""
        x = jnp.pad(x, ((0, 0), (0, rest), *[(0, 0)] * (x.ndim - 2)))
        count = x.shape[1] if length == 1 else x.shape[1] // length
        x = x.reshape(x.shape[0], count, length, *x.shape[2:])
        return jnp.moveaxis(x, (1, 3), (0, 2))

    masks = tuple(None if x is None else cut(x[..., None]) for x in (marked, valid))
    y, state = _run_once(advance, reverse, tuple(map(cut, arrays)), state, fresh, masks)
    y = jnp.moveaxis(y, (0, 2), (1, 3))
    y = y.reshape(rows, y.shape[1] * length, *y.shape[3:])
    return (y[:, :steps] if rest else y), state


def _one(
    advance: Advance,
    reverse: bool,
    masks: tuple[Array | None, ...],
    arrays: tuple[Array, ...],
    state: Tree,
    fresh: Tree,
) -> tuple[Array, Tree]:
    """A chunk, whose arrays are in the order of time."""
    marked, valid = masks
    if reverse:
        arrays = tuple(jnp.flip(x, 2) for x in arrays)
        marked, valid = (None if x is None else jnp.flip(x, 2) for x in masks)
    state, y = advance(state, fresh, _steps(arrays, marked, valid))
    return jnp.flip(y, 2) if reverse else y, state


def _forward(
    advance: Advance,
    reverse: bool,
    chunks: tuple[Array, ...],
    state: Tree,
    fresh: Tree,
    masks: tuple[Array | None, ...],
) -> tuple[tuple[Array, Tree], tuple]:
    def step(state: Tree, chunk: tuple) -> tuple[Tree, tuple[Array, Tree]]:
        y, after = _one(advance, reverse, chunk[1], chunk[0], state, fresh)
        return after, (y, state)

    last, (y, starts) = lax.scan(step, state, (chunks, masks), reverse=reverse)
    return (y, last), (chunks, starts, fresh, masks)


def _backward(advance: Advance, reverse: bool, saved: tuple, gradients: tuple) -> tuple:
    chunks, starts, fresh, masks = saved
    dy, dlast = gradients

    def step(carry: tuple[Tree, Tree], chunk: tuple) -> tuple[tuple[Tree, Tree], Tree]:
        dstate, dfresh = carry
        arrays, masks, start, dy = chunk
        _, pull = jax.vjp(partial(_one, advance, reverse, masks), arrays, start, fresh)
        darrays, dstate, more = pull((dy, dstate))
        return (dstate, jax.tree.map(jnp.add, dfresh, more)), darrays

    carry = (dlast, jax.tree.map(jnp.zeros_like, fresh))
    over_time = (chunks, masks, starts, dy)
    (dstate, dfresh), darrays = lax.scan(step, carry, over_time, reverse=not reverse)
    return darrays, dstate, dfresh, None


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(
    advance: Advance,
    reverse: bool,
    chunks: tuple[Array, ...],
    state: Tree,
    fresh: Tree,
    masks: tuple[Array | None, ...],
) -> tuple[Array, Tree]:
    return _forward(advance, reverse, chunks, state, fresh, masks)[0]


_run.defvjp(_forward, traced_once(_backward, static_argnums=(0, 1)))
_run_once = traced_once(_run, static_argnums=(0, 1))


def _steps(arrays: tuple[Array, ...], marked: Array | None, valid: Array | None) -> Steps:
    same = jnp.tri(arrays[0].shape[2], dtype=bool)
    if marked is None:
        return Steps(arrays, valid, same, None)
    document = jnp.cumsum(marked, axis=-1)
    same = same & (document[..., None] == document[..., None, :])
    return Steps(arrays, valid, same, document == 0)
