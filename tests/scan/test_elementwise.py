"""Nonlinear recurrences of units by themselves equal the plain loop, in C++ and in JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.layers.indrnn import STEPS
from lru.layers.sru import STEP
from lru.scan import nonlinear_scan, reference

B, T, N = 3, 300, 37
KINDS = {**STEPS, "sru": STEP}


@pytest.mark.parametrize("native", [True, False], ids=["native", "plain"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_oracle_for_each_lane(kind, reverse, native):
    with jax.enable_x64(True):
        step = KINDS[kind] if native else KINDS[kind]._replace(native="")
        parts = 2 if kind == "sru" else 1
        keys = jax.random.split(jax.random.key(0), 4)
        u = jax.random.uniform(keys[0], (2, N), jnp.float64, minval=-1)
        x = jax.random.normal(keys[1], (2, B, T, parts * N), jnp.float64)
        h0 = jax.random.normal(keys[2], (2, B, N), jnp.float64)
        weights = jax.random.normal(keys[3], (B, T, N), jnp.float64)
        options = {
            "lengths": jnp.array([T, 250, 0]),
            "resets": jnp.zeros((B, T), bool).at[:, 100].set(True).at[1, 251].set(True),
            "reverse": reverse,
        }

        def loss(scan, u, x, h0):
            h, last, *_ = scan(step, u, x, h0[:, None], **options)
            return jnp.sum(h[:, :, 0] * weights) + jnp.sum(last**2), (h, last)

        def evaluated(scan):
            return jax.jit(jax.vmap(jax.grad(partial(loss, scan), (0, 1, 2), has_aux=True)))

        found, expected = (
            evaluated(scan)(u, x, h0) for scan in (nonlinear_scan, reference.nonlinear_scan)
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), found, expected)
