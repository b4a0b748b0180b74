"""Products in bfloat16: the gradients of many rows, which a CPU makes part after part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan.products import product


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [(3, 5), (2, 2048), (4099, 1)])
def test_gradients_are_those_of_rounded_arrays(rows, kind):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((*rows, 8), (8, 4), (*rows, 4))
    x, W, g = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    x, W, g = (z.astype(jnp.bfloat16).astype(kind) for z in (x, W, g))

    @jax.jit
    def gradients(x, W, g):
        return jax.vjp(lambda x, W: product(x, W, "bfloat16"), x, W)[1](g)

    dx, dW = gradients(x, W, g)
    assert dx.dtype == dW.dtype == kind
    x, W, g = (np.asarray(z, np.float64) for z in (x, W, g))
    rtol = 1e-2 if kind == "bfloat16" else 1e-4
    np.testing.assert_allclose(dx.astype(jnp.float32), g @ W.T, rtol=rtol, atol=1e-3)
    whole = x.reshape(-1, 8).T @ g.reshape(-1, 4)
    np.testing.assert_allclose(dW.astype(jnp.float32), whole, rtol=rtol, atol=1e-3)
