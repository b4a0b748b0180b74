"""Chunks of time at once, and chunks of chunks in the same way: few large steps for many small.

Steps h -> a_t h + b_t that follow each other are one step of that form. Time is cut into chunks of
L steps; with each chunk as one step there are T / L, solved in the same way; their states are
those that the chunks begin with, and from them all chunks run together, as further rows of the
batch. Blelloch 1990, "Prefix sums and their applications".

The first pass over memory reads b, the second reads b and writes h; chunks that run from zero and
are corrected afterwards need four. The gradient is cut alike: it reads g, then g and h, writes that
of b, and adds up that of a constant a on the way, from which nothing of size [T, N] is ever made.
"""

import functools
import operator

import jax.numpy as jnp
from jax import Array

from lru.scan import parts, sequential
from lru.scan.methods import LINEAR_METHODS, Product, differentiable, masked, previous

# A chunk is composed in one kernel, which grows with L; the passes over memory do not shrink much
# more, as the scan over chunks moves 1 / L of what they do.
LONGEST_CHUNK = 16
# Fewer steps are not worth a cut.
SHORTEST_SCAN = 5


def solve(
    a: Array,
    b: Array,
    h0: Array,
    keep: Array | None,
    reverse: bool,
    product: Product = parts.multiply,
) -> Array:
    """Solve the linear problem of `lru.scan.methods`; `product` makes a h of a and h."""
    rows, steps = b.shape[:2]
    if steps < SHORTEST_SCAN:
        return sequential.loop(product, a, b, h0, keep, reverse)
    a, b, keep = cut(a, b, keep, _block_length(steps), at_start=reverse)
    factor, ends, through = compose(a, b, keep, rows, reverse)
    states = solve(factor, ends, h0, through, reverse, multiply)
    starts = previous(states, h0, reverse).reshape(-1, *h0.shape[1:])
    h = sequential.loop(product, a, b, starts, keep, reverse)
    return _join(h, rows, steps, at_start=reverse)


def chunk_length(steps: int, longest: int) -> int:
    """At most `longest`, and a divisor if there is one nearby: filling up chunks copies b."""
    nearby = range(longest, max(1, longest // 4), -1)
    return next((length for length in nearby if steps % length == 0), longest)


def cut(
    a: Array, b: Array, keep: Array | None, length: int, *, at_start: bool
) -> tuple[Array, Array, Array | None]:
    """Make chunks [B ceil(T / L), L, ...] of rows [B, T, ...]; a constant a has none.

    Args:
        a: as in `lru.scan.methods`.
        b: as in `lru.scan.methods`.
        keep: as in `lru.scan.methods`.
        length: L.
        at_start: what is missing to whole chunks is put before the first step in place of behind
            the last: steps that change no state, but for a constant a.
    """

    def chunks(x: Array, fill: Array) -> Array:
        missing = -x.shape[1] % length
        if missing:
            filling = jnp.broadcast_to(fill, (x.shape[0], missing, *x.shape[2:])).astype(x.dtype)
            x = jnp.concatenate([filling, x] if at_start else [x, filling], axis=1)
        return x.reshape(-1, length, *x.shape[2:])

    one = jnp.array([[1], [0], [0], [1]][: a.shape[-2]])
    return (
        a if a.ndim == 2 else chunks(a, one),
        chunks(b, jnp.zeros(())),
        None if keep is None else chunks(keep, jnp.ones(())),
    )


def compose(
    a: Array, b: Array, keep: Array | None, rows: int, reverse: bool, *, adjoint: bool = False
) -> tuple[Array, Array, Array | None]:
    """Make one step of each chunk, in a problem of as many steps as a row has chunks.

    Args:
        a: factors, as `cut` leaves them.
        b: chunks, as `cut` makes them.
        keep: chunks, as `cut` makes them.
        rows: number of rows that were cut.
        reverse: as in `lru.scan.methods`.
        adjoint: whether the steps are those of a gradient, h -> a_t (h + b_t).
    """
    time = range(b.shape[1])[:: -1 if reverse else 1]
    factor, state = None, [jnp.zeros_like(x) for x in _parts(b[:, 0])]
    for t in time:
        a_t, b_t = _parts(a if a.ndim == 2 else a[:, t]), _parts(b[:, t])
        if adjoint:
            state = [x + y for x, y in zip(state, b_t, strict=True)]
        state = [masked(None if keep is None else keep[:, t], x) for x in _product(a_t, state)]
        if not adjoint:
            state = [x + y for x, y in zip(state, b_t, strict=True)]
        factor = a_t if factor is None else _product(a_t, factor)

    def by_row(x: Array) -> Array:
        return x.reshape(rows, -1, *x.shape[1:])

    factor, state = jnp.stack(factor or [], axis=-2), jnp.stack(state, axis=-2)
    return (
        factor if a.ndim == 2 else by_row(factor),
        by_row(state),
        None if keep is None else by_row(keep.all(1)),
    )


def multiply(a: Array, h: Array) -> Array:
    """The product a h for an a that is a product of many: it may overflow where h is zero."""
    return jnp.stack(_product(_parts(a), _parts(h)), axis=-2)


# A chain of products in one kernel needs its parts apart: `parts.multiply` takes both parts of h
# for each part of the product, so the compiler would follow two paths from every step.
def _parts(x: Array) -> list[Array]:
    return [x[..., part, :] for part in range(x.shape[-2])]


def _product(a: list[Array], h: list[Array]) -> list[Array]:
    if len(h) == 4:
        return _product(a, h[:2]) + _product(a, h[2:])
    if len(a) == 1:
        product = [a[0] * x for x in h]
    elif len(a) == 4:
        product = [a[0] * h[0] + a[2] * h[1], a[1] * h[0] + a[3] * h[1]]
    else:
        product = [a[0] * h[0] - a[1] * h[1], a[0] * h[1] + a[1] * h[0]]
    nothing = functools.reduce(operator.and_, [x == 0 for x in h])
    return [jnp.where(nothing, 0, x) for x in product]


def _block_length(steps: int) -> int:
    """About sqrt(T) for short scans, so that these are cut too."""
    return chunk_length(steps, min(LONGEST_CHUNK, 1 << (steps.bit_length() - 1) // 2))


def _join(chunks: Array, rows: int, steps: int, *, at_start: bool) -> Array:
    x = chunks.reshape(rows, -1, *chunks.shape[2:])
    return x[:, -steps:] if at_start else x[:, :steps]


def _linear(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool) -> Array:
    return solve(a, b, h0, keep, reverse)


def _gradients(reverse: bool, saved: tuple, g: Array) -> tuple[Array, Array, Array, None]:
    """Find the gradients that reach the ends of the chunks, and run all chunks back from them."""
    a, h, h0, keep = saved
    rows, steps = h.shape[:2]
    if steps < SHORTEST_SCAN:
        return sequential.gradients(reverse, saved, g)
    length = _block_length(steps)
    _, h, _ = cut(a, h, keep, length, at_start=reverse)
    a, g, keep = cut(a, g, keep, length, at_start=reverse)
    start, end = (-1, 0) if reverse else (0, -1)

    conj, state = parts.conjugate(a), jnp.zeros_like(h0)
    factor, of_starts, through = compose(conj, g, keep, rows, not reverse, adjoint=True)
    of_starts = solve(factor, of_starts, state, through, not reverse, multiply)
    of_ends = previous(of_starts, state, not reverse).reshape(-1, *h0.shape[1:])
    ends = h[:, end].reshape(rows, -1, *h0.shape[1:])
    starts = previous(ends, h0, reverse).reshape(-1, *h0.shape[1:])
    saved = (a, h, starts, keep)
    da, db, dstarts, _ = sequential.gradients(reverse, saved, g.at[:, end].add(of_ends))
    if a.ndim > 2:
        da = _join(da, rows, steps, at_start=reverse)
    dh0 = dstarts.reshape(rows, -1, *h0.shape[1:])[:, start]
    return da, _join(db, rows, steps, at_start=reverse), dh0, None


LINEAR_METHODS.register("chunked")(differentiable(_linear, _gradients))
