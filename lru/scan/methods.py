"""The registries of scan methods and the gradient rules that methods share.

A method solves one plain problem; `lru.scan.linear` reduces every call to it. Its arguments:
    a: [Q, N] constant or [B, T, Q, N] varying in `LINEAR_METHODS` (parts as in `lru.scan.parts`,
        Q <= P, or Q = 4 beside P = 2); A [N, N] in `DENSE_METHODS`, always real.
    b: [B, T, P, N] in `LINEAR_METHODS`, [B, T, N] in `DENSE_METHODS`.
    h0: the state before the first step, shaped like b without T.
    keep: [B, T] bool, or None for all True. Where it is False the previous state is dropped, by
        selection, so that a value that is not finite is dropped too.
    reverse: whether time runs from T - 1 to 0.
It returns h, shaped like b, and is differentiable in a, b and h0. All arrays are float32 or
float64 alike, but for methods in `BFLOAT16_METHODS`: beside h0 and h in float32, a and b may be
bfloat16; and for those in `COMPLEX_METHODS`: b, h0 and h, and a with them or not, may be complex
with P = Q = 1.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.sharding import AxisType

from lru.devices import SEQ
from lru.registry import Registry
from lru.scan import parts

Method = Callable[[Array, Array, Array, Array | None, bool], Array]
Product = Callable[[Array, Array], Array]

LINEAR_METHODS: Registry[Method] = Registry("scan method")
DENSE_METHODS: Registry[Method] = Registry("scan method")
BFLOAT16_METHODS: set[Method] = set()
COMPLEX_METHODS: set[Method] = set()
# The form of a linear method that may write over b and over the gradient of h.
DONATED: dict[Method, Method] = {}
# The form of a method that keeps h in bfloat16 for its gradients; the states of a scan, and sums of
# gradients, are no narrower for it.
NARROW: dict[Method, Method] = {}
# Linear methods that split time over devices, so that a chunk of steps lies on one device.
TIME_SPLITTING_METHODS: set[Method] = set()


def takes_bfloat16(method: Method) -> Method:
    """Declare that a linear method reads bfloat16 itself: to convert it costs a pass of its own."""
    BFLOAT16_METHODS.add(method)
    return method


def time_is_split() -> bool:
    """True in a context (`jax.set_mesh`) whose mesh leaves an axis `seq` to the compiler."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return kinds.get(SEQ) == AxisType.Auto and mesh.shape[SEQ] > 1


def step_counts(lengths: Array | None, steps: Any) -> Array | None:
    """Numbers of valid steps as int32 from 0 to T, whatever integers they came as.

    Every public function begins with it: T would wrap in a narrow type, and differences below zero
    in an unsigned one. T may be a symbol.

    Args:
        lengths: as they were given, [B]. Inside of `jax.jit`, where their values are not known,
            they are clipped.
        steps: number T.

    Raises:
        TypeError: if they are no array.
        ValueError: if they are no integers, or known not to be from 0 to T.
    """
    if lengths is None:
        return None
    if not hasattr(lengths, "dtype"):
        kind = type(lengths).__name__
        raise TypeError(f"lengths must be an array of integers [B], got a {kind}")
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"lengths has dtype {lengths.dtype}, but only integers are allowed")
    if isinstance(steps, int) and lengths.size and not isinstance(lengths, Tracer):
        # By NumPy: inside of `jax.jit` JAX would trace even what is known.
        known = np.asarray(lengths)
        least, most = known.min(), known.max()
        if least < 0 or most > steps:
            raise ValueError(
                f"lengths must be from 0 to T = {steps}, got {least if least < 0 else most}"
            )
    wide = lengths if lengths.dtype.itemsize >= 4 else lengths.astype(jnp.int32)
    return jnp.clip(wide, 0, steps).astype(jnp.int32)


def valid_steps(x: Array, lengths: Array | None) -> Array | None:
    """True at the steps [B, T] of x that are no padding; None where there is none.

    Raises:
        ValueError: if there is not one length for each row of x.
    """
    if lengths is None:
        return None
    if lengths.shape != x.shape[:1]:
        raise ValueError(f"lengths has shape {lengths.shape}, but x {x.shape} allows {x.shape[:1]}")
    return jnp.arange(x.shape[1]) < lengths[:, None]


def marked_steps(x: Array, resets: Array | None, valid: Array | None) -> Array | None:
    """True at the steps [B, T] of x that start afresh and are no padding; None where none does.

    Raises:
        ValueError: if the resets are no booleans [B, T].
    """
    if resets is None:
        return None
    if resets.shape != x.shape[:2] or resets.dtype != bool:
        raise ValueError(
            f"resets is {resets.dtype} {resets.shape}, but x {x.shape} allows bool {x.shape[:2]}"
        )
    return resets if valid is None else resets & valid


def masked(keep: Array | None, x: Array, other: Array | int = 0) -> Array:
    """X where keep, else the other; the axes of keep are the first ones of x."""
    if keep is None:
        return x
    return jnp.where(keep.reshape(keep.shape + (1,) * (x.ndim - keep.ndim)), x, other)


def at_step(x: Any, t: Array | int) -> Any:
    """The values [B, ...] of an array [B, T, ...] at a step; None of None."""
    if x is None:
        return None
    return lax.dynamic_index_in_dim(x, t, 1, keepdims=False, allow_negative_indices=False)


def put_step(x: Array, value: Array, t: Array | int) -> Array:
    """The array [B, T, ...] with values [B, ...] at a step."""
    return lax.dynamic_update_index_in_dim(x, value, t, 1, allow_negative_indices=False)


def previous(h: Array, first: Array, reverse: bool) -> Array:
    """The array h one step earlier in scan direction, with `first` entering at the start."""
    first = first[:, None]
    return jnp.concatenate([h[:, 1:], first] if reverse else [first, h[:, :-1]], axis=1)


def states_before(
    h: Array, first: Array, reverse: bool, keep: Array | None, fresh: Array | None
) -> Array:
    """The states before all steps: fresh ones [B, ...], or zero if None, where keep is False."""
    return masked(keep, previous(h, first, reverse), 0 if fresh is None else fresh[:, None])


def differentiable(solve: Method, gradients: Callable) -> Method:
    """Give a solver its gradient rule.

    Args:
        solve: the method.
        gradients: from reverse, the saved (a, h, h0, keep) and the gradient of h to the gradients
            of a, b, h0 and None for keep.
    """

    def method(kept: jnp.dtype | None) -> Method:
        def forward(a: Array, b: Array, h0: Array, keep: Array | None, reverse: bool):
            h = solve(a, b, h0, keep, reverse)
            return h, (a, h if kept is None else h.astype(kept), h0, keep)

        def backward(reverse: bool, saved: tuple, g: Array) -> tuple:
            a, h, h0, keep = saved
            return gradients(reverse, (a, h.astype(g.dtype), h0, keep), g)

        rule = jax.custom_vjp(solve, nondiff_argnums=(4,))
        rule.defvjp(forward, traced_once(backward, static_argnums=0))
        return traced_once(rule, static_argnums=4)

    plain = method(None)
    NARROW[plain] = method(jnp.dtype(jnp.bfloat16))
    return plain


def traced_once(function: Callable, *, static_argnums: int | tuple[int, ...] = ()) -> Callable:
    """The function, traced and compiled once for all calls alike outside of `jax.jit`.

    A loop is a new program for each new function that is its body. Inside of `jax.jit` this leaves
    no trace.
    """
    return jax.jit(function, static_argnums=static_argnums, inline=True)


def with_derivatives_of(plain: Callable, fast: Callable) -> Callable:
    """Give a function that JAX cannot differentiate the derivatives of one that it can.

    A method states its gradients itself, so this serves derivatives of gradients alone.

    Args:
        plain: written in JAX.
        fast: gives the same; called unless there is something to differentiate.
    """
    function = jax.custom_jvp(lambda *arrays: fast(*arrays))

    @function.defjvp
    def _(arrays: tuple, directions: tuple) -> tuple:
        return function(*arrays), jax.jvp(plain, arrays, directions)[1]

    return function


def linear_gradients(solve: Method, reverse: bool, saved: tuple, g: Array) -> tuple:
    """The gradient rule of a linear solver: the same solver, run in the other direction.

    With g the gradient of h, and l_t = g_t + conj(a_{t+1}) l_{t+1}: the gradient of b is l, that
    of a_t is l_t conj(h_{t-1}), that of h0 is conj(a_0) l_0.
    """
    a, h, h0, keep = saved
    conj = parts.conjugate(a)
    conj_next = conj if a.ndim == 2 else previous(conj, jnp.zeros_like(a[:, 0]), not reverse)
    keep_next = None
    if keep is not None:
        keep_next = previous(keep, jnp.zeros_like(keep[:, 0]), not reverse)
    db = solve(conj_next, g, jnp.zeros_like(h0), keep_next, not reverse)
    parts_of_a = a.shape[-2]
    products = parts.correlate(db, previous(h, h0, reverse), parts_of_a)
    terms = [masked(keep, x) for x in products]
    terms = [x.sum((0, 1)) for x in terms] if a.ndim == 2 else terms
    da = parts.collect(terms, parts_of_a, a.dtype)
    start = -1 if reverse else 0
    dh0 = parts.multiply(conj if a.ndim == 2 else conj[:, start], db[:, start])
    dh0 = masked(None if keep is None else keep[:, start], dh0)
    return da, db, dh0, None


def dense_gradients(solve: Method, reverse: bool, saved: tuple, g: Array) -> tuple:
    """The gradient rule of a dense solver: the same solver, run the other way with A transposed.

    With l_t = g_t + A^T l_{t+1}: the gradient of b is l, that of A is sum_t l_t h_{t-1}^T (one
    matrix product over all of B and T), that of h0 is A^T l_0.
    """
    A, h, h0, keep = saved
    keep_next = None
    if keep is not None:
        keep_next = previous(keep, jnp.zeros_like(keep[:, 0]), not reverse)
    db = solve(A.T, g, jnp.zeros_like(h0), keep_next, not reverse)
    before = previous(h, h0, reverse)
    dA = jnp.einsum("btn,btm->nm", masked(keep, db), masked(keep, before))
    start = -1 if reverse else 0
    dh0 = masked(None if keep is None else keep[:, start], db[:, start] @ A)
    return dA, db, dh0, None


def differentiable_linear(solve: Method) -> Method:
    """Give a linear solver the gradient rule `linear_gradients`."""
    return differentiable(solve, partial(linear_gradients, solve))


def differentiable_dense(solve: Method) -> Method:
    """Give a dense solver the gradient rule `dense_gradients`."""
    return differentiable(solve, partial(dense_gradients, solve))
