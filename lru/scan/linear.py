"""h_t = a_t h_{t-1} + b_t over arrays: the public scans, which reduce every call to a method.

Complex numbers become parts where the method wants them, lengths become a mask, and a registered
method solves what is left.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Inexact, Integer

from lru.scan import parts
from lru.scan.methods import (
    BFLOAT16_METHODS,
    COMPLEX_METHODS,
    DENSE_METHODS,
    DONATED,
    LINEAR_METHODS,
    NARROW,
    Method,
    marked_steps,
    masked,
    step_counts,
    traced_once,
    valid_steps,
)
from lru.scan.select import select


def linear_scan(
    a: Inexact[Array, " N"] | Inexact[Array, "B T N"],
    b: Inexact[Array, "B T N"],
    h0: Inexact[Array, "B N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Inexact[Array, "B N"] | None = None,
    method: str = "auto",
    donate: bool = False,
    compute_dtype: str = "float32",
) -> tuple[Inexact[Array, "B T N"], Inexact[Array, "B N"]]:
    """Solve h_t = a_t * h_{t-1} + b_t elementwise over time.

    Differentiable in a, b and h0, through h and h_last. With reverse=True time runs backwards:
    "previous" is then t + 1, and h0 enters at the end.

    Args:
        a: factors, constant [N] (never repeated over time) or varying [B, T, N]; real or complex.
        b: inputs [B, T, N]; real or complex.
        h0: state before the first step [B, N]; None is zero.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step drops the previous state, h0 too: h_t = b_t.
        lengths: [B] number of valid steps of right-padded rows, from 0 to T; clipped to that where
            `jax.jit` does not know them. At padding h is zero and gradients are ignored; a and b
            there may hold anything, NaN included.
        reset_to: state [B, N] that a marked step finds in place of the previous one; None is zero.
        method: a name in `LINEAR_METHODS`, or "auto".
        donate: write over b, and over the gradient of h, where a method can: for arrays that were
            made for this call, or that `jax.jit` donates. Others would be copied first.
        compute_dtype: bfloat16 keeps a real h in it for the gradients, which read it rounded; no
            state is.

    Returns:
        h [B, T, N], and h_last [B, N]: the state after the last valid step in scan direction (h0
        where there is none). Both are float32 or complex64, or float64 or complex128 if an
        argument is.

    Raises:
        ValueError: if an argument has the wrong shape or type.
        UnknownNameError: if there is no such method.
    """
    check_common(b, h0, resets, lengths)
    lengths = step_counts(lengths, b.shape[1])
    dtype = _state_dtype(a, b, h0, reset_to)
    solve = _linear_method(method, a, b, donate)
    plain = not jnp.issubdtype(dtype, jnp.complexfloating) or solve in COMPLEX_METHODS
    enter, leave = (parts.alone, parts.only) if plain else (parts.split, parts.join)
    if not (plain and jnp.issubdtype(dtype, jnp.complexfloating)):
        solve = _narrow(solve, compute_dtype)
    return _in_form(solve, enter, leave, dtype, reverse, a, b, h0, reset_to, resets, lengths)


def paired_scan(
    a: Inexact[Array, " N"] | Inexact[Array, "B T N"],
    b: Float[Array, "B T 2 N"],
    h0: Inexact[Array, "B N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Inexact[Array, "B N"] | None = None,
    method: str = "auto",
    donate: bool = False,
    compute_dtype: str = "float32",
) -> tuple[Float[Array, "B T 2 N"], Complex[Array, "B N"]]:
    """Solve h_t = a_t * h_{t-1} + b_t as `linear_scan` does, with complex b and h as real pairs.

    Real matrix products around a scan write and read such pairs as they are: b is their
    [B, T, 2 N] reshaped, and h reshaped goes into the next one. Complex arrays would cost a pass
    over memory on each side.

    Args:
        a: as in `linear_scan`.
        b: inputs, the real parts above the imaginary parts.
        h0: as in `linear_scan`, as are the other arguments.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step drops the previous state.
        lengths: [B] number of valid steps.
        reset_to: state that a marked step finds in place of the previous one; None is zero.
        method: a name in `LINEAR_METHODS`, or "auto".
        donate: write over b, and over the gradient of h.
        compute_dtype: as in `linear_scan`.

    Returns:
        h [B, T, 2, N], and h_last [B, N]: they are float32 and complex64, or float64 and complex128
        if an argument is.

    Raises:
        ValueError: if an argument has the wrong shape or type.
        UnknownNameError: if there is no such method.
    """
    if b.ndim != 4 or b.shape[2] != 2:
        raise ValueError(f"b has shape {b.shape}, but pairs [B, T, 2, N] are allowed")
    if not jnp.issubdtype(b.dtype, jnp.floating):
        raise ValueError(f"b has dtype {b.dtype}, but only real floats are allowed")
    dtype = jnp.result_type(jnp.complex64, _state_dtype(a, b, h0, reset_to))
    complex_b = jax.ShapeDtypeStruct((*b.shape[:2], b.shape[3]), dtype)
    check_common(complex_b, h0, resets, lengths)
    lengths = step_counts(lengths, b.shape[1])
    solve = _narrow(_linear_method(method, a, complex_b, donate), compute_dtype)
    h, h_last = _in_form(
        *(solve, parts.split, None, dtype, reverse, a, b, h0, reset_to, resets, lengths)
    )
    return h, parts.join(h_last)


def block_scan(
    a: Float[Array, "2 2 N"] | Float[Array, "B T 2 2 N"],
    b: Float[Array, "B T 2 N"],
    h0: Float[Array, "B 2 N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B 2 N"] | None = None,
    method: str = "auto",
    donate: bool = False,
    compute_dtype: str = "float32",
) -> tuple[Float[Array, "B T 2 N"], Float[Array, "B 2 N"]]:
    """Solve h_t = a_t h_{t-1} + b_t for pairs of real numbers, of which a matrix makes the next.

    Nothing is diagonalised, so the eigenvalues of the matrices may be any, equal ones too.

    Args:
        a: matrices, rows in front of columns, constant over time or varying.
        b: inputs.
        h0: state before the first step; None is zero.
        reverse: as in `linear_scan`, as are the other arguments.
        resets: [B, T] bool; a marked step drops the previous state.
        lengths: [B] number of valid steps.
        reset_to: state that a marked step finds in place of the previous one; None is zero.
        method: a name in `LINEAR_METHODS`, or "auto".
        donate: write over b, and over the gradient of h.
        compute_dtype: as in `linear_scan`.

    Returns:
        h, and h_last: the state after the last valid step. They are float32, or float64 if an
        argument is.

    Raises:
        ValueError: if an argument has the wrong shape or type.
        UnknownNameError: if there is no such method.
    """
    if b.ndim != 4 or b.shape[2] != 2:
        raise ValueError(f"b has shape {b.shape}, but pairs [B, T, 2, N] are allowed")
    rows, steps, _, width = b.shape
    if a.shape not in ((2, 2, width), (rows, steps, 2, 2, width)):
        raise ValueError(f"a has shape {a.shape}, but b allows [2, 2, {width}] or [B, T, 2, 2, N]")
    for name, x, shape in (("h0", h0, (rows, 2, width)), ("reset_to", reset_to, (rows, 2, width))):
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} has shape {x.shape}, but b {b.shape} allows {shape}")
    dtype = _state_dtype(a, b, h0, reset_to)
    for name, x in (("a", a), ("b", b), ("h0", h0), ("reset_to", reset_to)):
        if x is not None and not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} has dtype {x.dtype}, but only real floats are allowed")
    alike = jax.ShapeDtypeStruct((rows, steps, width), dtype)
    check_common(alike, None, resets, lengths)
    lengths = step_counts(lengths, steps)
    solve = _narrow(_linear_method(method, alike, alike, donate), compute_dtype)
    a = parts.blocks(a)
    return _in_form(*(solve, _as_it_is, None, dtype, reverse, a, b, h0, reset_to, resets, lengths))


def _as_it_is(x: Array) -> Array:
    return x


def _linear_method(
    method: str,
    a: Array | jax.ShapeDtypeStruct,
    b: Array | jax.ShapeDtypeStruct,
    donate: bool,
) -> Method:
    """The method that solves for a beside b [B, T, N].

    Raises:
        ValueError: if a has the wrong shape or type.
        UnknownNameError: if there is no such method.
    """
    if a.shape not in (b.shape[-1:], b.shape):
        raise ValueError(
            f"a has shape {a.shape}, but b {b.shape} allows {b.shape[-1:]} or {b.shape}"
        )
    _check_inexact("a", a)
    solve = LINEAR_METHODS[select("linear", b.shape, method)]
    return DONATED.get(solve, solve) if donate else solve


def _narrow(solve: Method, compute_dtype: str) -> Method:
    return solve if compute_dtype == "float32" else NARROW.get(solve, solve)


# Traced as a whole: outside of `jax.jit`, too, arrays change their form without a copy.
@partial(traced_once, static_argnums=(0, 1, 2, 3, 4))
def _in_form(
    solve: Method,
    enter: Callable[[Array], Array],
    leave: Callable[[Array], Array] | None,
    dtype: jnp.dtype,
    reverse: bool,
    a: Array,
    b: Array,
    h0: Array | None,
    reset_to: Array | None,
    resets: Array | None,
    lengths: Array | None,
) -> tuple[Array, Array]:
    """Run a method on arrays that enter its form and leave it; without `leave` b and h keep it."""
    real = jnp.finfo(dtype).dtype
    as_given = [jnp.bfloat16] if dtype == jnp.float32 and solve in BFLOAT16_METHODS else []
    if a.dtype not in as_given:
        a = a.astype(dtype if jnp.iscomplexobj(a) else real)
    if b.dtype not in as_given:
        b = b.astype(dtype if leave else real)
    b = enter(b) if leave else b
    state = jnp.result_type(b, real)
    first = jnp.zeros((b.shape[0], *b.shape[2:]), state) if h0 is None else enter(h0.astype(dtype))
    fresh = None if reset_to is None else enter(reset_to.astype(dtype))
    h, h_last = _solve(solve, parts.multiply, enter(a), b, first, fresh, reverse, resets, lengths)
    return (leave(h), leave(h_last)) if leave else (h, h_last)


def dense_scan(
    A: Inexact[Array, "N N"],
    b: Inexact[Array, "B T N"],
    h0: Inexact[Array, "B N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Inexact[Array, "B N"] | None = None,
    method: str = "auto",
    compute_dtype: str = "float32",
) -> tuple[Inexact[Array, "B T N"], Inexact[Array, "B N"]]:
    """Solve h_t = A h_{t-1} + b_t over time.

    A complex problem is solved as a real one of twice the width, so all products are real.

    Args:
        A: transition matrix [N, N], constant over time; real or complex.
        b: inputs [B, T, N]; real or complex.
        h0: as in `linear_scan`.
        reverse: as in `linear_scan`.
        resets: as in `linear_scan`.
        lengths: as in `linear_scan`.
        reset_to: as in `linear_scan`.
        method: a name in `DENSE_METHODS`, or "auto".
        compute_dtype: as in `linear_scan`.

    Returns:
        h [B, T, N] and h_last [B, N], as in `linear_scan`.

    Raises:
        ValueError: if an argument has the wrong shape or type.
        UnknownNameError: if there is no such method.
    """
    check_common(b, h0, resets, lengths)
    lengths = step_counts(lengths, b.shape[1])
    if A.shape != (b.shape[-1],) * 2:
        raise ValueError(f"A has shape {A.shape}, but b {b.shape} allows {(b.shape[-1],) * 2}")
    _check_inexact("A", A)
    dtype = _state_dtype(A, b, h0, reset_to)
    solve = _narrow(DENSE_METHODS[select("dense", b.shape, method)], compute_dtype)
    A, b = A.astype(dtype), b.astype(dtype)
    first = jnp.zeros_like(b[:, 0]) if h0 is None else h0.astype(dtype)
    if jnp.iscomplexobj(b):
        A = jnp.block([[A.real, -A.imag], [A.imag, A.real]])
    wide_b, first = _side_by_side(b), _side_by_side(first)
    fresh = None
    if reset_to is not None:
        fresh = _side_by_side(reset_to.astype(dtype))
    options = (fresh, reverse, resets, lengths)
    h, h_last = _solve(solve, lambda A, h: h @ A.T, A, wide_b, first, *options)
    n_parts = 2 if jnp.iscomplexobj(b) else 1
    h, h_last = (parts.join(x.reshape(*x.shape[:-1], n_parts, b.shape[-1])) for x in (h, h_last))
    return h, h_last


def _side_by_side(x: Array) -> Array:
    """The parts of x in one row."""
    split = parts.split(x)
    return split.reshape(*x.shape[:-1], split.shape[-2] * split.shape[-1])


def _solve(
    solve: Callable[..., Array],
    multiply: Callable[[Array, Array], Array],
    a: Array,
    b: Array,
    h0: Array,
    fresh: Array | None,
    reverse: bool,
    resets: Array | None,
    lengths: Array | None,
) -> tuple[Array, Array]:
    """Reduce lengths to a mask and to zeros in b, which keep the state at zero in the padding.

    A fresh state of marked steps is put in with their b.
    """
    valid = valid_steps(b, lengths)
    if resets is not None and fresh is not None:
        marked = marked_steps(b, resets, valid)
        b = b + masked(marked, multiply(a if a.ndim == 2 else masked(marked, a), fresh[:, None]))
    b, keep = mask_lengths(b, resets, valid)
    if lengths is None or keep is None:
        h = solve(a, b, h0, keep, reverse)
        return h, h[:, 0 if reverse else -1]
    lengths = lengths[:, None]
    if reverse:
        # The scan passes through the padding first, so h0 is put in behind it.
        a_start = a if a.ndim == 2 else masked(lengths[:, 0] > 0, _take(a, lengths - 1))
        start = (jnp.arange(b.shape[1]) == lengths - 1) & keep
        b = b + masked(start, multiply(a_start, h0)[:, None])
        h = solve(a, b, jnp.zeros_like(h0), keep, reverse)
        h_last = h[:, 0]
    else:
        h = solve(a, b, h0, keep, reverse)
        h_last = _take(h, lengths - 1)
    return h, state_after(h_last, h0, lengths[:, 0])


def mask_lengths(b: Array, resets: Array | None, valid: Array | None) -> tuple[Array, Array | None]:
    """The inputs without what the padding holds, and where the previous state is kept."""
    keep = None if resets is None else ~resets
    if valid is None:
        return b, keep
    return masked(valid, b), valid if keep is None else valid & keep


def state_after(h_last: Array, h0: Array, lengths: Array | None) -> Array:
    """The last state of each row: that before the first step where no step is valid."""
    if lengths is None:
        return h_last
    return jnp.where((lengths > 0).reshape(-1, *[1] * (h0.ndim - 1)), h_last, h0)


def _take(x: Array, index: Array) -> Array:
    index = jnp.maximum(index, 0).reshape(-1, *[1] * (x.ndim - 1))
    return jnp.take_along_axis(x, index, axis=1)[:, 0]


def _state_dtype(*arguments: Array | None) -> jnp.dtype:
    return jnp.result_type(jnp.float32, *(x for x in arguments if x is not None))


def check_common(
    b: Array | jax.ShapeDtypeStruct,
    h0: Array | None,
    resets: Array | None,
    lengths: Array | None,
) -> None:
    """Refuse arguments that do not fit the inputs b; types of lengths are for `step_counts`.

    Raises:
        TypeError: if an argument is no array.
        ValueError: if an argument has the wrong shape or type.
    """
    if b.ndim != 3 or b.shape[1] == 0:
        raise ValueError(f"b has shape {b.shape}, but [B, T, N] with T of at least 1 is allowed")
    _check_inexact("b", b)
    rows, steps, width = b.shape
    if h0 is not None:
        _check_inexact("h0", h0)
    for name, x, shape in (
        ("h0", h0, (rows, width)),
        ("resets", resets, (rows, steps)),
        ("lengths", lengths, (rows,)),
    ):
        if x is not None and not hasattr(x, "shape"):
            raise TypeError(f"{name} must be an array, got a {type(x).__name__}")
        if x is not None and x.shape != shape:
            raise ValueError(f"{name} has shape {x.shape}, but b {b.shape} allows {shape}")
    if resets is not None and resets.dtype != bool:
        raise ValueError(f"resets has dtype {resets.dtype}, but only bool is allowed")


def _check_inexact(name: str, x: Array | jax.ShapeDtypeStruct) -> None:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise ValueError(f"{name} has dtype {x.dtype}, but only real or complex floats are allowed")
