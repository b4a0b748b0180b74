"""y_t = C h_t with h_t = a h_{t-1} + B x_t: a scan between two products, as in diagonal layers.

On a CPU both products and the recurrence run over a block of steps while it is in a cache, forwards
and backwards (`lru.scan.cpu`); elsewhere they follow each other.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Inexact, Integer

from lru.scan import cpu, parts, sequential
from lru.scan.linear import block_scan, check_common, mask_lengths, paired_scan, state_after
from lru.scan.methods import masked, step_counts, traced_once, valid_steps
from lru.scan.native import on_cpu
from lru.scan.products import product
from lru.scan.select import FUSED, select


def projected_scan(
    a: Inexact[Array, " N"] | Float[Array, "2 2 N"],
    x: Float[Array, "B T D"],
    B: Float[Array, "D M"],
    C: Float[Array, "M E"],
    h0: Inexact[Array, "B N"] | Float[Array, "B 2 N"] | None = None,
    *,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Inexact[Array, "B N"] | Float[Array, "B 2 N"] | None = None,
    method: str = "auto",
    compute_dtype: str = "float32",
) -> tuple[Float[Array, "B T E"], Complex[Array, "B N"] | Float[Array, "B 2 N"]]:
    """Solve h_t = a * h_{t-1} + B x_t over time and read out y_t = C h_t.

    Complex numbers are pairs of real ones, side by side: M = 2 N. Differentiable in a, x, B, C and
    h0, through y and h_last.

    Args:
        a: factors, constant over time; real ones are complex ones without imaginary parts. Or
            matrices of pairs, as in `block_scan`: then states are pairs too.
        x: inputs.
        B: input weights, those of the real parts left and of the imaginary parts right.
        C: output weights, those of the real parts above and of the imaginary parts below.
        h0: state before the first step; None is zero.
        reverse: as in `linear_scan`.
        resets: as in `linear_scan`.
        lengths: as in `linear_scan`; at padding y is zero.
        reset_to: as in `linear_scan`.
        method: a name in `LINEAR_METHODS`, or "auto".
        compute_dtype: of both products, as in `lru.scan.products`, and of h, as in `linear_scan`.

    Returns:
        y, and h_last: the state after the last valid step (h0 where there is none). They are
        float32 and complex64, or float64 and complex128 if an argument is either; pairs are real.

    Raises:
        ValueError: if an argument has the wrong shape or type.
        UnknownNameError: if there is no such method.
    """
    blocks = a.ndim == 3
    if a.ndim != 1 and not (blocks and a.shape[:2] == (2, 2) and not jnp.iscomplexobj(a)):
        raise ValueError(f"a has shape {a.shape}, but [N], or real [2, 2, N], is allowed")
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x has shape {x.shape}, but [B, T, D] with T of at least 1 is allowed")
    for name, z in (("x", x), ("B", B), ("C", C)):
        if not jnp.issubdtype(z.dtype, jnp.floating):
            raise ValueError(f"{name} has dtype {z.dtype}, but only real floats are allowed")
    width = a.shape[-1]
    given = [z for z in (a, x, B, C, h0, reset_to) if z is not None]
    Bx = jax.ShapeDtypeStruct((*x.shape[:-1], width), jnp.result_type(jnp.complex64, *given))
    check_common(Bx, None if blocks else h0, resets, lengths)
    if blocks and h0 is not None and h0.shape != (x.shape[0], 2, width):
        raise ValueError(f"h0 has shape {h0.shape}, but x and a allow {(x.shape[0], 2, width)}")
    lengths = step_counts(lengths, x.shape[1])
    valid = valid_steps(x, lengths)
    if B.shape != (x.shape[-1], 2 * width):
        raise ValueError(f"B has shape {B.shape}, but x and a allow {(x.shape[-1], 2 * width)}")
    if C.shape[:-1] != (2 * width,):
        raise ValueError(f"C has shape {C.shape}, but a allows ({2 * width}, E)")
    # One type for all: the loops in C++ read every array as they read x.
    real = jnp.finfo(Bx.dtype).dtype
    kind = real if blocks else Bx.dtype
    a, x, B, C = a.astype(kind), *(z.astype(real) for z in (x, B, C))
    # The loops in C++ multiply in one type and reset to zero, and backwards no state passes through
    # their padding.
    unknown = (
        compute_dtype != "float32"
        or reset_to is not None
        or (reverse and h0 is not None and lengths is not None)
    )
    chosen = select("linear" if unknown else "projected", Bx.shape, method)
    if chosen != FUSED:
        h, h_last = (block_scan if blocks else paired_scan)(
            *(a, product(x, B, compute_dtype).reshape(*x.shape[:-1], 2, width), h0),
            reverse=reverse,
            resets=resets,
            lengths=lengths,
            reset_to=reset_to,
            method=chosen,
            donate=True,
            compute_dtype=compute_dtype,
        )
        y = product(h.reshape(*x.shape[:-1], 2 * width), C, compute_dtype)
        return masked(valid, y), h_last
    cpu.require("projected")
    enter, leave = (parts.blocks, lambda h: h) if blocks else (parts.split, parts.join)
    if h0 is None:
        first = jnp.zeros((len(x), 2, width), real)
    else:
        first = h0.astype(kind) if blocks else parts.split(h0.astype(kind))
    x, keep = mask_lengths(x, resets, valid)
    last = jnp.full(len(x), x.shape[1], jnp.int32) if lengths is None else lengths
    last = jnp.zeros_like(last) if reverse else jnp.maximum(last - 1, 0)
    y, h_last = _fused_once(reverse, enter(a), x, B, C, first, keep, last)
    return masked(valid, y), leave(state_after(h_last, first, lengths))


# Under `jax.vmap` over parameters, say, x is not repeated.
_call = partial(cpu.call, vmap_method="expand_dims")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(
    reverse: bool,
    a: Array,
    x: Array,
    B: Array,
    C: Array,
    h0: Array,
    keep: Array | None,
    last: Array,
) -> tuple[Array, Array]:
    """Y, and the states [B, 2, N] after the steps `last` [B]; arrays as in `cpu/projected.cc`."""
    return _forward(reverse, a, x, B, C, h0, keep, last)[0]


def _forward(
    reverse: bool,
    a: Array,
    x: Array,
    B: Array,
    C: Array,
    h0: Array,
    keep: Array | None,
    last: Array,
) -> tuple[tuple[Array, Array], tuple]:
    shape_of_h = (*x.shape[:2], *h0.shape[1:])

    def here(a: Array, x: Array, B: Array, C: Array, h0: Array, keep: Array | None) -> tuple:
        shapes = ((*x.shape[:2], C.shape[1]), shape_of_h)
        results = tuple(jax.ShapeDtypeStruct(shape, x.dtype) for shape in shapes)
        arguments = (a, x, B, C, h0, cpu.mask(keep))
        return _call("lru_projected_forward", results, *arguments, reverse=reverse)

    def elsewhere(a: Array, x: Array, B: Array, C: Array, h0: Array, keep: Array | None) -> tuple:
        h = sequential.solve(a, (x @ B).reshape(shape_of_h), h0, keep, reverse)
        return h.reshape(*x.shape[:2], -1) @ C, h

    arguments = (a, x, B, C, h0, keep)
    y, h = on_cpu(here, elsewhere, *arguments)
    h_last = jnp.take_along_axis(h, last[:, None, None, None], axis=1)[:, 0]
    return (y, h_last), (*arguments, last, h)


def _backward(reverse: bool, saved: tuple, gradients: tuple[Array, Array]) -> tuple:
    def here(
        a: Array,
        x: Array,
        B: Array,
        C: Array,
        h0: Array,
        keep: Array | None,
        *others: Array,
    ) -> tuple:
        results = tuple(jax.ShapeDtypeStruct(z.shape, z.dtype) for z in (a, x, B, C, h0))
        arguments = (a, x, B, C, h0, cpu.mask(keep), *others)
        return tuple(_call("lru_projected_backward", results, *arguments, reverse=reverse))

    def elsewhere(
        a: Array,
        x: Array,
        B: Array,
        C: Array,
        h0: Array,
        keep: Array | None,
        last: Array,
        h: Array,
        dy: Array,
        dlast: Array,
    ) -> tuple:
        dh = (dy @ C.T).reshape(h.shape).at[jnp.arange(len(h)), last].add(dlast)
        da, db, dh0, _ = sequential.gradients(reverse, (a, h, h0, keep), dh)
        db, h = (z.reshape(*z.shape[:2], -1) for z in (db, h))
        dB, dC = (jnp.einsum("bti,btj->ij", *pair) for pair in ((x, db), (h, dy)))
        return da, db @ B.T, dB, dC, dh0

    return *on_cpu(here, elsewhere, *saved, *gradients), None, None


_fused.defvjp(_forward, traced_once(_backward, static_argnums=0))
_fused_once = traced_once(_fused, static_argnums=0)
