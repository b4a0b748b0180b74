"""Chunks of time at once: about 3 sqrt(T) larger products of matrices in place of T small ones.

Time is cut into T / L chunks of L steps. All chunks run from a zero state together, as further
rows of the batch, and leave the states they end with; a scan over these with A^L gives the states
that the chunks begin with; from those all chunks run together once more. No other power of A acts
on a state. That is twice the arithmetic of the plain loop, for steps that are bound by latency. On
a CPU arithmetic is the bound, and the plain loop is at least as fast (`benchmarks/scan.py`).
Blelloch 1990, "Prefix sums and their applications".
"""

import jax.numpy as jnp
from jax import Array, lax

from lru.scan import sequential
from lru.scan.methods import DENSE_METHODS, differentiable_dense, masked, previous

# Squaring A^m adds an error of up to eps |A^m|^2, which has to stay small; and where A grows more
# than this within one chunk, states that it drives overflow within a few.
LARGEST_POWER = 100.0


@DENSE_METHODS.register("chunked")
@differentiable_dense
def dense(A: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    """Solve the dense problem of `lru.scan.methods`.

    Where one of A, A^2, A^4, ..., A^L has a Frobenius norm above `LARGEST_POWER`, or one that is
    not a number, the plain loop runs instead: no power overflows where the states do not. Under
    `vmap` over A both run, and one result is selected.

    The rounding of A^L is the same in every chunk: where states persist (|A^T| near 1) the error
    relative to the largest state may grow as T eps, in the plain loop rather as sqrt(T) eps.
    """
    steps = b.shape[1]
    length = 1 << (steps.bit_length() - 1) // 2
    power, largest = A, jnp.linalg.norm(A)
    for _ in range(length.bit_length() - 1):
        power = power @ power
        largest = jnp.maximum(largest, jnp.linalg.norm(power))

    def in_chunks() -> Array:
        missing = -steps % length
        padding = ((0, 0), (missing, 0) if reverse else (0, missing))
        padded = jnp.pad(b, (*padding, (0, 0)))
        padded_keep = None if keep is None else jnp.pad(keep, padding)
        h = _solve_chunks(A, power, padded, h0, padded_keep, reverse, length)
        return h[:, missing:] if reverse else h[:, :steps]

    def plainly() -> Array:
        return sequential.solve_dense(A, b, h0, keep, reverse)

    # A norm that is not a number fails the comparison.
    return lax.cond(largest <= LARGEST_POWER, in_chunks, plainly)


def _solve_chunks(
    A: Array, power: Array, b: Array, h0: Array, keep: Array | None, reverse: bool, length: int
) -> Array:
    """Solve for a T that is a multiple of the length of a chunk; power is A to that length."""
    rows, _, width = b.shape
    b_chunks = b.reshape(-1, length, width)
    keep_chunks = None if keep is None else keep.reshape(-1, length)
    ends = _end_states(A, b_chunks, keep_chunks, reverse).reshape(rows, -1, width)
    through = None if keep_chunks is None else keep_chunks.all(1).reshape(rows, -1)
    ends = sequential.solve_dense(power, ends, h0, through, reverse)
    starts = previous(ends, h0, reverse).reshape(-1, width)
    return sequential.solve_dense(A, b_chunks, starts, keep_chunks, reverse).reshape(b.shape)


def _end_states(A: Array, b: Array, keep: Array | None, reverse: bool) -> Array:
    """The state after the last step in scan direction, from zero before the first."""
    last = b.shape[1] - 1
    A_transposed = A.T

    def step(i: Array, h: Array) -> Array:
        t = last - i if reverse else i
        return masked(None if keep is None else keep[:, t], h @ A_transposed) + b[:, t]

    return lax.fori_loop(1, last + 1, step, b[:, last if reverse else 0])
