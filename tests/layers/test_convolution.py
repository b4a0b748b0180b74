"""The causal convolution against its definition, by pairs of inputs and not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.layers import convolution
from lru.layers.convolution import causal_convolution

B, D, N = 2, 3, 4


def direct(x, kernel, resets):
    """y_t = sum_j x_{t-j} W_j, over the steps of the same document."""
    taps = kernel.shape[0]
    steps = x.shape[1] - taps + 1
    y = np.zeros((B, steps, N))
    for b in range(B):
        for t in range(steps):
            for j in range(taps):
                if not resets[b, max(t - j + 1, 0) : t + 1].any():
                    y[b, t] += x[b, taps - 1 + t - j] @ kernel[j]
    return y


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("taps", "steps"), [(1, 3), (2, 6), (2, 5), (3, 4), (4, 7), (6, 2)])
def test_equals_the_definition(taps, steps, packed):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, steps + taps - 1, D))
    kernel = rng.standard_normal((taps, D, N))
    resets = np.zeros((B, steps), bool)
    if packed:
        resets[0, steps // 2] = resets[1, 0] = True
    with jax.enable_x64(True):
        actual = causal_convolution(
            jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(resets) if packed else None
        )
    np.testing.assert_allclose(actual, direct(x, kernel, resets), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 6])
def test_pairs_are_for_an_even_number_of_taps_and_more_than_one_step(steps, monkeypatch):
    """By pairs the multiplications are three quarters of the others."""
    x = jnp.ones((B, steps + 1, D))

    def multiplications():
        jaxpr = jax.make_jaxpr(partial(causal_convolution, resets=None))(x, jnp.ones((2, D, N)))
        return str(jaxpr).count("dot_general[")

    assert multiplications() == (3 if steps > 1 else 1)
    monkeypatch.setattr(convolution.jax, "default_backend", lambda: "gpu")
    assert multiplications() == 1
