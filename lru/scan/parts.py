"""Complex arrays as real ones with an axis for their parts: x [..., N] <-> [..., P, N].

P is 1 for real numbers and 2 for (real, imaginary). One real buffer is what the matrix products
around a scan read and write, so XLA removes the conversion between them and a scan.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact


def split(x: Inexact[Array, "*rest N"]) -> Float[Array, "*rest P N"]:
    """The parts of x."""
    if not jnp.iscomplexobj(x):
        return x[..., None, :]
    flat = jnp.concatenate([lax.real(x), lax.imag(x)], axis=-1)
    return flat.reshape(*x.shape[:-1], 2, x.shape[-1])


def join(x: Float[Array, "*rest P N"]) -> Inexact[Array, "*rest N"]:
    """The array that has the parts x."""
    return x[..., 0, :] if x.shape[-2] == 1 else lax.complex(x[..., 0, :], x[..., 1, :])


def conjugate(a: Float[Array, "*rest P N"]) -> Float[Array, "*rest P N"]:
    """The complex conjugate."""
    return a if a.shape[-2] == 1 else a * jnp.array([[1], [-1]], a.dtype)


def multiply(
    a: Float[Array, "*any Q N"], h: Float[Array, "*rest P N"]
) -> Float[Array, "*rest P N"]:
    """The product a h, where a may be real (Q = 1) beside a complex h (P = 2).

    Written with whole rows of h so that it stays one elementwise pass: (re, im) of the product is
    re(a) (re h, im h) + im(a) (-im h, re h).
    """
    if a.shape[-2] == 1:
        return a * h
    across = a[..., 1:, :] * jnp.array([[-1], [1]], a.dtype)
    return a[..., :1, :] * h + across * h[..., ::-1, :]


def multiply_conjugate(
    g: Float[Array, "*rest P N"], h: Float[Array, "*rest P N"], parts: int
) -> Float[Array, "*rest Q N"]:
    """The product g conj(h), of which only the real part is kept when parts (Q) is 1."""
    real = jnp.sum(g * h, axis=-2, keepdims=True)
    if parts == 1:
        return real
    signs = jnp.array([[-1], [1]], g.dtype)
    imag = jnp.sum(signs * g * h[..., ::-1, :], axis=-2, keepdims=True)
    return jnp.concatenate([real, imag], axis=-2)
