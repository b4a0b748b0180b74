"""Matrix products, in the type of the arrays or in bfloat16 with sums in float32."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from lru.scan.methods import time_is_split
from lru.scan.native import on_cpu

COMPUTE_DTYPES = ("float32", "bfloat16")

# A CPU multiplies bfloat16 by way of float32 copies. Of so many rows at least they stay in a cache.
_ROWS = 1024


def product(x: Array, weight: Array, compute_dtype: str = "float32") -> Array:
    """The product x W, of the type of its arguments.

    Args:
        x: rows [..., D].
        weight: W [D, N].
        compute_dtype: bfloat16 rounds both arguments, and in the gradients that of the result; the
            products are summed up unrounded. float32 multiplies the arrays as they are.
    """
    return _product(x, weight, compute_dtype)


def dot_general(x: Array, weight: Array, *same: Any, **unset: Any) -> Array:
    """`product`, as `nnx.Linear` takes it in place of `lax.dot_general`."""
    del same, unset
    return product(x, weight)


def multiply(x: Array, weight: Array, compute_dtype: str) -> Array:
    """`product` for rules of gradients, which JAX differentiates as they stand."""
    return _sums(jnp.matmul, x, weight, compute_dtype)


def weight_gradient(
    x: Inexact[Array, "*rows D"], g: Inexact[Array, "*rows N"], compute_dtype: str
) -> Inexact[Array, "D N"]:
    """The gradient of W, from x and the gradient of x W.

    Autodiff transposes its products; a CPU copies both arguments for that, and takes 1.4 to 4 times
    as long.
    """
    # The partitioner would gather time to make rows of a matrix of it.
    if not time_is_split():
        # Without the barrier XLA computes either once more, by columns, for a transposed copy.
        x, g = lax.optimization_barrier((matrix(x), matrix(g)))
    rows = tuple(range(x.ndim - 1))
    contract = partial(lax.dot_general, dimension_numbers=((rows, rows), ((), ())))
    return _sums(contract, x, g, compute_dtype)


def matrix(x: Inexact[Array, "*rows N"]) -> Inexact[Array, "M N"]:
    """All rows of an array as those of one matrix, as a product gives or takes it.

    Of an array with more axes the compiler may make a copy.
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x: Array, weight: Array, compute_dtype: str) -> Array:
    return multiply(x, weight, compute_dtype)


def _rounded(x: Array, compute_dtype: str) -> Array:
    return x if compute_dtype == "float32" else x.astype(compute_dtype)


def _sums(multiply: Any, x: Array, y: Array, compute_dtype: str) -> Array:
    dtype = jnp.result_type(x, y)
    x, y = (_rounded(z, compute_dtype) for z in (x, y))
    kept = None if compute_dtype == "float32" else jnp.float32
    return multiply(x, y, preferred_element_type=kept).astype(dtype)


def _forward(x: Array, weight: Array, compute_dtype: str) -> tuple[Array, tuple]:
    # What the gradients read is rounded as well, so half of the memory keeps it.
    saved = (_rounded(x, compute_dtype), _rounded(weight, compute_dtype))
    like = (jnp.zeros(0, x.dtype), jnp.zeros(0, weight.dtype))
    return multiply(x, weight, compute_dtype), (*saved, *like)


def _backward(compute_dtype: str, saved: tuple, gradient: Array) -> tuple[Array, Array]:
    x, weight, *like = saved

    def gradients(x: Array, weight: Array, gradient: Array) -> tuple[Array, Array]:
        dx = multiply(gradient, weight.T, compute_dtype).astype(like[0].dtype)
        return dx, weight_gradient(x, gradient, compute_dtype).astype(like[1].dtype)

    if x.dtype.itemsize > 2 or not x.size or time_is_split():
        return gradients(x, weight, gradient)

    def by_parts(x: Array, weight: Array, gradient: Array) -> tuple[Array, Array]:
        rows, from_rows = _as_bits(matrix(x)), matrix(gradient)
        size = _part(len(rows))

        def part(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
            dx, dW = found
            some = partial(lax.dynamic_slice_in_dim, start_index=i * size, slice_size=size)
            x_i, g_i = lax.bitcast_convert_type(some(rows), x.dtype), some(from_rows)
            dx_i = multiply(g_i, weight.T, compute_dtype).astype(like[0].dtype)
            dx = lax.dynamic_update_slice_in_dim(dx, _as_bits(dx_i), i * size, 0)
            return dx, dW + contract(x_i, g_i.astype(x.dtype))

        contract = partial(
            lax.dot_general,
            dimension_numbers=(((0,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        # Filled by a number that is not known before: equal arrays would be one, which all loops
        # would copy.
        room = jnp.full((len(rows), len(weight)), from_rows[0, 0], like[0].dtype)
        start = (_as_bits(room), jnp.zeros(weight.shape, jnp.float32))
        dx, dW = lax.fori_loop(0, len(rows) // size, part, start)
        dx = lax.bitcast_convert_type(dx, like[0].dtype).reshape(x.shape)
        return dx, dW.astype(like[1].dtype)

    return on_cpu(by_parts, gradients, x, weight, gradient)


def _as_bits(x: Array) -> Array:
    """Numbers of 16 bits as whole ones: a compiler converts an array to read a part of it."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype.itemsize == 2 else x


def _part(rows: int) -> int:
    """Rows of a part: a divisor of their number, as small as leaves the product its speed."""
    count = max(n for n in range(1, max(rows // _ROWS, 1) + 1) if rows % n == 0)
    return rows // count


_product.defvjp(_forward, _backward)
