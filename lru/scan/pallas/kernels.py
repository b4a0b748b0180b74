"""The two kernels: one row of the batch and one block of lanes, step by step through time.

    h_t = a_t h_{t-1} + b_t                     forward
    l_t = g_t + conj(a_{t+1}) l_{t+1}           backward: the same, with time running the other way

where l is the gradient of b, and l_t conj(h_{t-1}) that of a_t. What a block of time leaves to the
next one stays in an output that does not move with time: the last state (forward), the gradients
of h0 and of a constant a (backward). Lanes never meet: NaN beyond the N lanes of a row stays there.
"""

import jax.numpy as jnp
from jax import Array, lax

from lru.scan.pallas.tiling import Index, Parts, Program, Ref


def forward(program: Program, a: Ref, b: Ref, h0: Ref, keep: Ref | None, h: Ref, last: Ref) -> None:
    """Write h [steps, P, lanes] and the last state [P, lanes]; keep is [1, steps]."""
    a_at = program.reader(a)

    def load(t: Index) -> tuple:
        return a_at(t), program.read(b, t), program.flag(keep, t)

    def step(t: Index, inputs: tuple, state: Parts) -> Parts:
        a_t, b_t, keep_t = inputs
        state = _add(_kept(keep_t, _multiply(a_t, state)), b_t)
        program.write(h, state, t)
        return state

    state = program.resume(program.read(h0), last)
    program.write(last, program.run(load, step, program.count, state))


def backward(
    program: Program,
    a: Ref,
    h: Ref,
    beyond: Ref | None,
    h0: Ref,
    keep: Ref | None,
    g: Ref,
    da: Ref,
    db: Ref,
    dh0: Ref,
) -> None:
    """Write the gradients of a (of this row alone if a is constant), b and h0.

    The tiling is that of the forward kernel turned round. The last step of a block needs the state
    of a step outside: `beyond` [P, lanes] or, in the last block, h0.
    """
    a_at = program.reader(a)
    constant = len(a.shape) == 2

    def load(t: Index, before: Parts | None = None) -> tuple:
        before = before or program.read(h, t - 1 if program.tiling.down else t + 1)
        return a_at(t), program.read(g, t), before, program.flag(keep, t)

    def step(t: Index, inputs: tuple, carry: tuple[Parts, Parts]) -> tuple[Parts, Parts]:
        (a_t, g_t, before, keep_t), (through, total) = inputs, carry
        db_t = _add(through, g_t)
        da_t = _kept(keep_t, _correlate(db_t, before, len(a_t)))
        program.write(db, db_t, t)
        if constant:
            total = _add(total, da_t)
        else:
            program.write(da, da_t, t)
        return _kept(keep_t, _multiply(_conjugate(a_t), db_t)), total

    carry = (
        program.resume(program.zeros(dh0), dh0),
        program.resume(program.zeros(da), da) if constant else [],
    )
    carry = program.run(load, step, program.count - 1, carry)
    before = program.read(h0)
    if beyond is not None:
        before = _select(program.k == program.tiling.blocks - 1, before, program.read(beyond))
    # An array, because the interpreter takes no int for this.
    end = jnp.int32(program.time(program.count - 1))
    through, total = step(end, load(end, before), carry)
    program.write(dh0, through)
    if constant:
        program.write(da, total)


def _select(condition: Array, x: Parts, y: Parts) -> Parts:
    return [lax.select(condition, p, q) for p, q in zip(x, y, strict=True)]


def _kept(keep: Array | None, x: Parts) -> Parts:
    return x if keep is None else _select(keep, x, [jnp.zeros_like(p) for p in x])


def _add(x: Parts, y: Parts) -> Parts:
    return [p + q for p, q in zip(x, y, strict=True)]


def _conjugate(a: Parts) -> Parts:
    if len(a) == 4:
        return [a[0], a[2], a[1], a[3]]
    return a if len(a) == 1 else [a[0], -a[1]]


def _multiply(a: Parts, h: Parts) -> Parts:
    if len(a) == 1:
        return [a[0] * p for p in h]
    if len(a) == 4:
        return [a[0] * h[0] + a[2] * h[1], a[1] * h[0] + a[3] * h[1]]
    return [a[0] * h[0] - a[1] * h[1], a[0] * h[1] + a[1] * h[0]]


def _correlate(g: Parts, h: Parts, parts: int) -> Parts:
    """G conj(h), or its real part alone if parts is 1, or g h^T if parts is 4."""
    if parts == 4:
        return [p * q for q in h for p in g]
    real = g[0] * h[0] if len(g) == 1 else g[0] * h[0] + g[1] * h[1]
    return [real] if parts == 1 else [real, g[1] * h[0] - g[0] * h[1]]
