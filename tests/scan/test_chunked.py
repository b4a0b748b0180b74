"""Linear scans in chunks of time: chunks of chunks, factors whose products overflow, memory."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import linear_scan, paired_scan, reference

B, N = 2, 3
# Most of the time of these tests is compiling.
chunked = partial(linear_scan, method="chunked")


def random(seed: int, *shape: int) -> jax.Array:
    real, imaginary = jax.random.normal(jax.random.key(seed), (2, *shape))
    return real + 1j * imaginary


def pull(scan: Callable, arrays: tuple, weights: tuple, **options) -> tuple:
    """The outputs of a scan, and the gradients of arrays for weights on h and h_last."""

    def run(arrays: tuple) -> tuple:
        values, gradients = jax.vjp(lambda *x: scan(*x, **options), *arrays)
        return values, gradients(weights)

    return jax.jit(run)(arrays)


def check_equal(arrays: tuple, weights: tuple, **options) -> None:
    expected = pull(reference.linear_scan, arrays, weights, **options)
    result = pull(chunked, arrays, weights, **options)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        assert jnp.all(jnp.isfinite(y))
        allowed = 50 * np.finfo(np.float32).eps
        np.testing.assert_allclose(x, y, rtol=allowed, atol=allowed * float(abs(y).max()))


@pytest.mark.parametrize(
    ("steps", "varying", "reverse"), [(272, False, False), (277, False, True), (277, True, False)]
)
def test_blocks_of_blocks_equal_the_oracle(steps: int, varying: bool, reverse: bool) -> None:
    """With whole chunks and with one to fill up."""
    a = random(1, *((B, steps, N) if varying else (N,)))
    arrays = (0.95 * a / abs(a), random(2, B, steps, N), random(3, B, N))
    weights = (random(4, B, steps, N), random(5, B, N))
    resets = jax.random.bernoulli(jax.random.key(6), 0.01, (B, steps))
    lengths = jnp.array([steps, steps - 50])
    check_equal(arrays, weights, reverse=reverse, resets=resets, lengths=lengths)


@pytest.mark.parametrize(("varying", "reverse"), [(False, False), (True, True)])
def test_products_that_overflow_leave_finite_states_and_gradients(
    varying: bool, reverse: bool
) -> None:
    """Where nothing has come yet, or all was dropped, there is nothing to grow."""
    steps = 256
    a = 1000 * random(1, *((B, steps, N) if varying else (N,)))
    time = jnp.arange(steps)[:, None]
    late, early = jnp.where(time >= steps - 3, 1, 0), jnp.where(time < 3, 1, 0)
    if reverse:
        late, early = early, late
    arrays = (a, late * random(2, B, steps, N), jnp.zeros((B, N), "complex64"))
    weights = (early * random(3, B, steps, N), jnp.zeros((B, N), "complex64"))
    check_equal(arrays, weights, reverse=reverse)

    every_other = jnp.broadcast_to(jnp.arange(steps) % 2 == 0, (B, steps))
    arrays = (a, random(4, B, steps, N), random(5, B, N))
    weights = (random(6, B, steps, N), random(7, B, N))
    check_equal(arrays, weights, reverse=reverse, resets=every_other)


def test_a_gradient_needs_less_memory_than_one_array_of_states() -> None:
    """So a constant a is not repeated over time, and chunks are cut without a copy."""
    shape = (2, 1024, 2, 64)

    def run(a: jax.Array, x: jax.Array, g: jax.Array) -> tuple:
        h, gradients = jax.vjp(lambda a, x: paired_scan(a, x, method="chunked")[0], a, x)
        return h, gradients(g)

    a, x = (jax.ShapeDtypeStruct((64,), "complex64"), jax.ShapeDtypeStruct(shape, "float32"))
    memory = jax.jit(run).lower(a, x, x).compile().memory_analysis()
    # Beside arguments and results: whether buffers that are given are reused is XLA's choice.
    assert memory.temp_size_in_bytes < 0.5 * 4 * np.prod(shape)
