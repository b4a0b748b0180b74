"""The scan of quasi-recurrent networks: from the products of the inputs to gated states.

c_t = f_t c_{t-1} + (1 - f_t) z_t with z = tanh and f = sigmoid of their inputs; h_t = o_t c_t with
o = sigmoid of its own, and i_t in place of 1 - f_t, where those gates are there. Bradbury et al.
2016 (arXiv 1611.01576), section 2. On a CPU the usual case, fo without zoneout, runs in one pass
over memory, activations included (`lru.scan.cpu`); elsewhere the parts follow each other.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Integer

from lru.scan import cpu
from lru.scan.linear import check_common, linear_scan
from lru.scan.methods import masked, step_counts, traced_once, valid_steps
from lru.scan.native import on_cpu
from lru.scan.products import matrix
from lru.scan.select import FUSED, select

# What lies side by side in the inputs of each pooling.
GATES = {"f": "zf", "fo": "zfo", "ifo": "zfoi"}


class Gates(NamedTuple):
    """Inputs that drive the state, in c_t = forget_t c_{t-1} + take_t candidate_t.

    Attributes:
        forget: share of the state that is kept, zoneout included [B, T, N].
        take: share of the candidate that is taken in [B, T, N].
        candidate: from -1 to 1 [B, T, N].
        output: share of the state that is given out [B, T, N]; None for all of it.
    """

    forget: Float[Array, "B T N"]
    take: Float[Array, "B T N"]
    candidate: Float[Array, "B T N"]
    output: Float[Array, "B T N"] | None


def pooled_scan(
    x: Float[Array, "B T M"],
    bias: Float[Array, " M"] | None,
    c0: Float[Array, "B N"],
    *,
    gates: str,
    zoneout: Float[Array, "B T N"] | float = 0.0,
    reverse: bool = False,
    resets: Bool[Array, "B T"] | None = None,
    lengths: Integer[Array, " B"] | None = None,
    reset_to: Float[Array, "B N"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "B T N"], Float[Array, "B N"]]:
    """Mix candidates into states by their gates.

    Differentiable in all arrays, through both results.

    Args:
        x: inputs of z, f, o and i, of those that there are, side by side: M = G N.
        bias: added to x; None for nothing.
        c0: state before the first step.
        gates: those beside the candidate, a name in `GATES`.
        zoneout: share of each state that is kept as it was, whatever its gates say.
        reverse: run from the last step to the first.
        resets: [B, T] bool; a marked step drops the previous state.
        lengths: [B] number of valid steps of right-padded rows. At padding h is zero, gradients
            are ignored and x may hold anything, NaN included.
        reset_to: state that a marked step finds in place of the previous one; None is zero.
        method: a name in `LINEAR_METHODS`, or "auto".

    Returns:
        h [B, T, N], and c after the last valid step of each row; both are float32, or float64 if
        an argument is.

    Raises:
        ValueError: if an argument has the wrong shape or type.
        UnknownNameError: if there is no such method.
    """
    _check(x, bias, c0, gates, resets, lengths)
    lengths = step_counts(lengths, x.shape[1])
    valid = valid_steps(x, lengths)
    dtype = jnp.result_type(jnp.float32, *(a for a in (x, bias, c0) if a is not None))
    bias = jnp.zeros(x.shape[-1], dtype) if bias is None else bias.astype(dtype)
    x, c0 = x.astype(dtype), c0.astype(dtype)
    usual = gates == "fo" and _nothing(zoneout) and reset_to is None
    shape = (*x.shape[:2], c0.shape[1])
    chosen = select("pooling" if usual else "linear", shape, method)
    if chosen != FUSED:
        options = (reverse, resets, lengths, reset_to, chosen)
        h, last = _in_parts(x, bias, c0, gates, zoneout, *options)
        return masked(valid, h), last
    cpu.require("pooling")
    keep = None if resets is None else ~resets
    h, last = _fused_once(reverse, x, bias, c0, keep, valid)
    return masked(valid, h), last


def _check(
    x: Array,
    bias: Array | None,
    c0: Array,
    gates: str,
    resets: Array | None,
    lengths: Array | None,
) -> None:
    if gates not in GATES:
        raise ValueError(f"gates must be one of {', '.join(GATES)}, got {gates!r}")
    rows, width = c0.shape
    columns = len(GATES[gates]) * width
    if x.ndim != 3 or x.shape[::2] != (rows, columns):
        raise ValueError(f"x has shape {x.shape}, but c0 {c0.shape} allows ({rows}, T, {columns})")
    if bias is not None and bias.shape != (columns,):
        raise ValueError(f"bias has shape {bias.shape}, but c0 {c0.shape} allows ({columns},)")
    check_common(x, None, resets, lengths)


def _nothing(zoneout: Array | float) -> bool:
    return not isinstance(zoneout, Array) and zoneout == 0


def _in_parts(
    x: Array,
    bias: Array,
    c0: Array,
    gates: str,
    zoneout: Array | float,
    reverse: bool,
    resets: Array | None,
    lengths: Array | None,
    reset_to: Array | None,
    method: str,
) -> tuple[Array, Array]:
    x = masked(valid_steps(x, lengths), x)
    values = gate_values(x + bias, gates, zoneout)
    b = values.take * values.candidate
    c, last = linear_scan(
        *(values.forget, b, c0),
        reverse=reverse,
        resets=resets,
        lengths=lengths,
        reset_to=reset_to,
        method=method,
        donate=True,
    )
    return (c if values.output is None else values.output * c), last


def gate_values(
    x: Float[Array, "B T M"], gates: str, zoneout: Float[Array, "B T N"] | float = 0.0
) -> Gates:
    """Values of the gates at every step.

    Args:
        x: their inputs, biases included, side by side as in `pooled_scan`.
        gates: those beside the candidate, a name in `GATES`.
        zoneout: share of each state that is kept as it was.
    """
    names = GATES[gates]
    parts = dict(zip(names, apart(x, len(names)), strict=True))
    f = jax.nn.sigmoid(parts["f"])
    take = jax.nn.sigmoid(parts["i"]) if "i" in parts else 1 - f
    if not _nothing(zoneout):
        f, take = zoneout + (1 - zoneout) * f, (1 - zoneout) * take
    output = jax.nn.sigmoid(parts["o"]) if "o" in parts else None
    return Gates(f, take, jnp.tanh(parts["z"]), output)


def apart(x: Float[Array, "B T M"], count: int) -> list[Float[Array, "B T N"]]:
    """The parts of x that lie side by side; their gradients are put together in one pass."""
    return _apart(x, count)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _apart(x: Array, count: int) -> list[Array]:
    return jnp.split(x, count, axis=-1)


# Autodiff finds this too, but as a sum of padded parts, which the compiler does not see through.
_apart.defvjp(
    lambda x, count: (_apart(x, count), None),
    lambda count, _, gradients: (jnp.concatenate(gradients, axis=-1),),
)


def _plain(
    reverse: bool, x: Array, bias: Array, c0: Array, keep: Array | None, valid: Array | None
) -> tuple[Array, Array]:
    """The fused problem in parts."""
    resets = None if keep is None else ~keep
    lengths = None if valid is None else valid.sum(1)
    options = (reverse, resets, lengths, None, "sequential")
    return _in_parts(x, bias, c0, "fo", 0.0, *options)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(
    reverse: bool, x: Array, bias: Array, c0: Array, keep: Array | None, valid: Array | None
) -> tuple[Array, Array]:
    """H and the last c; arrays as in `cpu/pooling.cc`."""
    return _forward(reverse, x, bias, c0, keep, valid)[0]


def _forward(
    reverse: bool, x: Array, bias: Array, c0: Array, keep: Array | None, valid: Array | None
) -> tuple[tuple[Array, Array], tuple]:
    like_h = jax.ShapeDtypeStruct((*x.shape[:2], c0.shape[-1]), x.dtype)

    def here(x: Array, bias: Array, c0: Array, keep: Array | None, valid: Array | None) -> tuple:
        flat = matrix(x)
        results = (jax.ShapeDtypeStruct(flat.shape, x.dtype), like_h, like_h)
        arguments = (flat, bias, c0, cpu.mask(keep), cpu.mask(valid))
        flat, c, h = cpu.call(
            "lru_pooling_forward", results, *arguments, in_place=0, reverse=reverse
        )
        return flat.reshape(x.shape), c, h, c[:, 0 if reverse else -1]

    def elsewhere(*arguments: Any) -> tuple:
        h, last = _plain(reverse, *arguments)
        return arguments[0], jnp.zeros(like_h.shape, like_h.dtype), h, last

    arguments = (bias, c0, keep, valid)
    x, c, h, last = on_cpu(here, elsewhere, x, *arguments)
    return (h, last), (x, *arguments, c)


def _backward(
    reverse: bool, saved: tuple, gradients: tuple[Array, Array]
) -> tuple[Array | None, ...]:
    def here(x: Array, bias: Array, c0: Array, keep: Any, valid: Any, *others: Array) -> tuple:
        flat = matrix(x)
        shapes = (flat.shape, (len(x), *bias.shape), c0.shape)
        results = tuple(jax.ShapeDtypeStruct(shape, x.dtype) for shape in shapes)
        arguments = (flat, bias, c0, cpu.mask(keep), cpu.mask(valid), *others)
        dx, dbias, dc0 = cpu.call(
            "lru_pooling_backward", results, *arguments, in_place=0, reverse=reverse
        )
        return dx.reshape(x.shape), dbias.sum(0), dc0

    def elsewhere(
        x: Array, bias: Array, c0: Array, keep: Any, valid: Any, _: Array, *gradients: Array
    ) -> tuple:
        def plain(x: Array, bias: Array, c0: Array) -> tuple[Array, Array]:
            return _plain(reverse, x, bias, c0, keep, valid)

        return jax.vjp(plain, x, bias, c0)[1](gradients)

    return *on_cpu(here, elsewhere, *saved, *gradients), None, None


_fused.defvjp(_forward, traced_once(_backward, static_argnums=0))
_fused_once = traced_once(_fused, static_argnums=0)
