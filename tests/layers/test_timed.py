"""Durations of steps: one law for every layer that takes them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import LAYERS, make_layer
from lru.layers.timed import TimedLayer

D, N, B, T, CUT = 5, 6, 3, 11, 4
TIMED = [name for name in LAYERS if issubclass(LAYERS[name], TimedLayer)]
each_layer = pytest.mark.parametrize("name", TIMED)


def problem(name, **options):
    layer: Any = make_layer(name, D, N, options, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (B, T, D))
    return layer, x, jax.random.uniform(jax.random.key(1), (B, T), minval=0.2, maxval=2.0)


def close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5), actual, expected
    )


@each_layer
def test_steps_and_chunks_of_unequal_length_are_the_whole(name):
    layer, x, dt = problem(name)
    lengths = jnp.array([T, T, CUT])
    dt = dt.at[2, CUT:].set(jnp.nan)
    run = jax.jit(lambda layer, *x, **others: layer(x[0], *x[2:], dt=x[1], **others))
    whole, last = run(layer, x, dt, lengths=lengths)
    by_unit, _ = run(layer, x, jnp.ones((B, T)))
    close(by_unit, layer(x)[0])
    assert not np.allclose(by_unit[:2], whole[:2], atol=1e-4)

    state, steps = layer.initial_state(B), []
    step = jax.jit(lambda layer, *x: layer.step(*x))
    for t in range(CUT):
        y, state = step(layer, x[:, t], state, dt[:, t])
        steps.append(y)
    rest, state = run(layer, x[:, CUT:], dt[:, CUT:], state, lengths=jnp.maximum(lengths - CUT, 0))
    found = jnp.concatenate([jnp.stack(steps, axis=1), rest], axis=1)
    close(found[:2], whole[:2])
    close(found[2, :CUT], whole[2, :CUT])
    close(state, last)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1, 2))
    def gradients(layer, x, dt):
        return jnp.sum(layer(x, dt=dt, lengths=lengths)[0] ** 2)

    layers = (problem(name, chunk_length=length)[0] for length in (0, 3))
    close(*(jax.tree.leaves(gradients(layer, x, dt)) for layer in layers))


@each_layer
def test_durations_that_do_not_fit_are_refused(name):
    layer, x, dt = problem(name)
    with pytest.raises(ValueError, match="dt must be above 0 and finite, got -1"):
        layer(x, dt=dt.at[0, 0].set(-1))
