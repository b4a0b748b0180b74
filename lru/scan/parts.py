"""Complex arrays as real ones with an axis for their parts: x [..., N] <-> [..., P, N].

P is 1 for real numbers and 2 for (real, imaginary). One real buffer is what the matrix products
around a scan write and read. Methods that take complex arrays as they are get them with P = 1.

A factor of pairs may be any real 2 x 2 matrix in place of the one that a complex number stands for:
then it has Q = 4 parts, column after column, and so has a product of several.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact


def _split(x: Array) -> Array:
    if not jnp.iscomplexobj(x):
        return x[..., None, :]
    return jnp.stack([lax.real(x), lax.imag(x)], axis=-2)


def _join(x: Array) -> Array:
    return x[..., 0, :] if x.shape[-2] == 1 else lax.complex(x[..., 0, :], x[..., 1, :])


@jax.custom_vjp
def split(x: Inexact[Array, "*rest N"]) -> Float[Array, "*rest P N"]:
    """The parts of x."""
    return _split(x)


@jax.custom_vjp
def join(x: Float[Array, "*rest P N"]) -> Inexact[Array, "*rest N"]:
    """The array that has the parts x."""
    return _join(x)


def alone(x: Inexact[Array, "*rest N"]) -> Inexact[Array, "*rest 1 N"]:
    """An array as its own only part."""
    return x[..., None, :]


def only(x: Inexact[Array, "*rest 1 N"]) -> Inexact[Array, "*rest N"]:
    """The array that is its own only part."""
    return x[..., 0, :]


# JAX's gradient of a complex array is the conjugate of the pair of real gradients. Autodiff finds
# these rules too, but as sums of padded halves, which the compiler does not see through. Inside of
# rules it has to do: forwards, as for second derivatives, JAX follows no rule for gradients.
def _conjugate_join(g: Array) -> Array:
    return _join(g) if g.shape[-2] == 1 else lax.complex(g[..., 0, :], -g[..., 1, :])


def _conjugate_split(g: Array) -> Array:
    if not jnp.iscomplexobj(g):
        return _split(g)
    return jnp.stack([lax.real(g), -lax.imag(g)], axis=-2)


split.defvjp(lambda x: (_split(x), None), lambda _, g: (_conjugate_join(g),))
join.defvjp(lambda x: (_join(x), None), lambda _, g: (_conjugate_split(g),))


def blocks(a: Float[Array, "*rest 2 2 N"]) -> Float[Array, "*rest 4 N"]:
    """The parts of matrices, rows in front of columns."""
    return jnp.concatenate([a[..., 0, :], a[..., 1, :]], axis=-2)


def conjugate(a: Inexact[Array, "*rest P N"]) -> Inexact[Array, "*rest P N"]:
    """The factor of gradients: conjugate pairs, transposed matrices, and an array alone as it is.

    JAX's gradients of complex arrays are the conjugates of those of the pairs.
    """
    if a.shape[-2] == 4:
        return jnp.concatenate([a[..., ::2, :], a[..., 1::2, :]], axis=-2)
    return a if a.shape[-2] == 1 else a * jnp.array([[1], [-1]], a.dtype)


def multiply(
    a: Inexact[Array, "*any Q N"], h: Inexact[Array, "*rest P N"]
) -> Inexact[Array, "*both P N"]:
    """The product a h, broadcast: a may be real (Q = 1) or a matrix (Q = 4) beside pairs (P = 2).

    Written with whole rows of h so that it stays one elementwise pass: (re, im) of the product is
    re(a) (re h, im h) + im(a) (-im h, re h).
    """
    if a.shape[-2] == 1:
        return a * h
    if h.shape[-2] == 4:
        return by_column(multiply, a, h)
    if a.shape[-2] == 4:
        return a[..., :2, :] * h[..., :1, :] + a[..., 2:, :] * h[..., 1:, :]
    across = a[..., 1:, :] * jnp.array([[-1], [1]], a.dtype)
    return a[..., :1, :] * h + across * h[..., ::-1, :]


def by_column(multiply: Callable[[Array, Array], Array], a: Array, h: Array) -> Array:
    """The product of two matrices by one of a matrix and a pair."""
    return jnp.concatenate([multiply(a, h[..., :2, :]), multiply(a, h[..., 2:, :])], axis=-2)


def correlate(
    g: Inexact[Array, "*rest P N"], h: Inexact[Array, "*rest P N"], parts: int
) -> list[Inexact[Array, "*rest P N"]]:
    """Elementwise terms of g conj(h), of its real part alone if parts is 1; of g h if P is 1.

    If parts is 4, of g h^T. `collect` adds them up. Being whole rows, they are cheap to accumulate
    over time before that.
    """
    if parts == 4:
        return [g * h[..., :1, :], g * h[..., 1:, :]]
    return [g * h] if parts == 1 else [g * h, g * h[..., ::-1, :]]


def collect(
    terms: list[Inexact[Array, "*rest P N"]], parts: int, dtype: jnp.dtype
) -> Inexact[Array, "*rest Q N"]:
    """The gradient of a factor of so many parts of a type, from its terms or from their sums."""
    if parts == 4:
        return jnp.concatenate(terms, axis=-2)
    real = jnp.sum(terms[0], axis=-2)
    if jnp.iscomplexobj(real) and not jnp.issubdtype(dtype, jnp.complexfloating):
        real = real.real
    imag = [crossed[..., 1, :] - crossed[..., 0, :] for crossed in terms[1:]]
    return jnp.stack([real, *imag], axis=-2)
