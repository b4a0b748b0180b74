"""The scan of gated cells, which the law of layers proves equal to the oracle, at bad padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.layers import GRU, LSTM
from lru.scan import gated_scan

B, T, N = 3, 6, 4
LENGTHS = jnp.array([T, 3, 0])


@pytest.mark.parametrize("layer", [LSTM, GRU])
def test_padding_may_hold_anything(layer):
    rng = np.random.default_rng(0)
    columns = layer.blocks * N
    x = rng.standard_normal((B, T, columns + layer.apart * N), np.float32)
    W = rng.standard_normal((N, columns), np.float32)
    state = tuple(rng.standard_normal((B, N), np.float32) for _ in layer.state_type._fields)
    mask = np.arange(T) < np.asarray(LENGTHS)[:, None]

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def run(x, W, state):
        h, last = gated_scan(layer.cell, x, W, state, lengths=LENGTHS)
        return jnp.sum(h**2) + sum(jnp.sum(s**2) for s in last), h

    actual = run(np.where(mask[..., None], x, np.nan), W, state)
    jax.tree.map(np.testing.assert_array_equal, actual, run(x, W, state))
    (_, h), (dx, *_) = actual
    assert not np.any(h[~mask])
    assert not np.any(dx[~mask])
