"""Matrix products, in the type of the arrays or in bfloat16 with sums in float32."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

COMPUTE_DTYPES = ("float32", "bfloat16")


def product(x: Array, weight: Array, compute_dtype: str = "float32") -> Array:
    """The product x W, of the type of its arguments.

    Args:
        x: rows [..., D].
        weight: W [D, N].
        compute_dtype: bfloat16 rounds both arguments, and in the gradients that of the result; the
            products are summed up unrounded. float32 multiplies the arrays as they are.
    """
    return x @ weight if compute_dtype == "float32" else _narrow(x, weight)


def matrix(x: Inexact[Array, "*rows N"]) -> Inexact[Array, "M N"]:
    """All rows of an array as those of one matrix, as a product gives or takes it.

    Of an array with more axes the compiler may make a copy.
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@jax.custom_vjp
def _narrow(x: Array, weight: Array) -> Array:
    dtype = jnp.result_type(x, weight)
    rounded = (x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16))
    return jnp.matmul(*rounded, preferred_element_type=jnp.float32).astype(dtype)


def _narrow_forward(x: Array, weight: Array) -> tuple[Array, tuple]:
    # What the gradients read is rounded as well, so half of the memory keeps it.
    like = (jnp.zeros(0, x.dtype), jnp.zeros(0, weight.dtype))
    return _narrow(x, weight), (x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16), like)


def _narrow_backward(saved: tuple, gradient: Array) -> tuple[Array, Array]:
    x, weight, like = saved
    dx = _narrow(gradient, weight.T)
    dweight = _narrow(matrix(x).T, matrix(gradient))
    return dx.astype(like[0].dtype), dweight.astype(like[1].dtype)


_narrow.defvjp(_narrow_forward, _narrow_backward)
