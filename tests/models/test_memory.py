"""What a body keeps for its gradients, in bfloat16 and with blocks that are computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.models import ModelConfig
from lru.models.body import make_body

X = jax.random.normal(jax.random.key(1), (2, 33, 16))


def losses(model, body="blocks", dtype="float32", **options):
    """Loss of parameters, the parameters, and the bytes that its gradient keeps."""
    sizes = {"n_layers": 2, "d_model": 16, "d_hidden": 16, "p_dropout": 0.1}
    options = {"dtype": dtype, **options}
    config = ModelConfig(model=model, body=body, body_options=options, **sizes)
    graph, params, stats = nnx.split(make_body(config, rngs=nnx.Rngs(0)), nnx.Param, ...)

    def loss(params):
        module = nnx.merge(graph, params, stats, copy=True)
        y, state = module(X, lengths=jnp.array([33, 20]), train=True, key=jax.random.key(2))
        assert y.dtype == X.dtype
        assert {leaf.dtype.itemsize for leaf in jax.tree.leaves(state)} <= {4, 8}
        return (y**2).mean(), nnx.state(module, nnx.Param, ...)[1]

    pull = jax.eval_shape(lambda params: jax.vjp(loss, params, has_aux=True)[1], params)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull))
    (value, stats), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return value, jax.tree.leaves(gradients), jax.tree.leaves(stats), kept


@pytest.mark.parametrize(
    ("model", "body", "share"),
    # Cells keep little beside their states, which stay float32.
    [
        ("lru", "blocks", 0.75),
        ("rnn", "blocks", 0.75),
        ("qrnn", "blocks", 0.75),
        ("gru", "cells", 1),
    ],
)
def test_bfloat16_takes_less_memory_and_gives_nearly_the_same(model, body, share):
    value, gradients, _, kept = losses(model, body)
    narrow_value, narrow_gradients, _, narrow_kept = losses(model, body, "bfloat16")
    assert narrow_kept < share * kept
    np.testing.assert_allclose(narrow_value, value, rtol=0.05)
    assert {leaf.dtype for leaf in narrow_gradients} == {jnp.dtype("float32")}
    whole = np.concatenate([leaf.ravel() for leaf in gradients])
    difference = np.concatenate([leaf.ravel() for leaf in narrow_gradients]) - whole
    assert 0 < np.linalg.norm(difference) < 0.1 * np.linalg.norm(whole)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_blocks_computed_again_keep_their_inputs_alone(norm):
    value, gradients, stats, kept = losses("lru", norm=norm)
    again = losses("lru", norm=norm, remat=True)
    assert again[3] < 0.2 * kept
    np.testing.assert_allclose(again[0], value, rtol=1e-6)
    for mine, theirs in zip(again[1], gradients, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    for mine, theirs in zip(again[2], stats, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
