"""Two documents through one encoder, and what is compared of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.models import ModelConfig, TwoTower
from lru.models.classifier import pool

B, T, D, C, V = 3, 6, 4, 2, 7
LENGTHS = jnp.array([[T, 2], [1, T], [3, 0]])
TINY = ModelConfig(n_layers=1, d_model=D, d_hidden=3, p_dropout=0.0)


def pairs():
    return jax.random.randint(jax.random.key(0), (B, 2, T), 0, V)


def two_tower(pooling: str = "mean") -> TwoTower:
    return TwoTower(TINY, C, vocab_size=V, pooling=pooling, rngs=nnx.Rngs(0))


@nnx.jit
def run(model, inputs, lengths=None):
    return model(inputs, lengths=lengths)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_one_encoder_reads_both_documents_and_their_features_are_compared(pooling):
    model, inputs = two_tower(pooling), pairs()
    features = []
    for document in (0, 1):
        x, _ = model.encoder(model.encode(inputs[:, document]), lengths=LENGTHS[:, document])
        features.append(pool(x, LENGTHS[:, document], pooling)[0])
    u, v = features
    hidden = jax.nn.gelu(model.hidden(jnp.concatenate([u, v, u * v, u - v], axis=1)))
    np.testing.assert_allclose(
        run(model, inputs, LENGTHS), model.head(hidden), rtol=1e-4, atol=1e-5
    )


def test_padding_changes_no_score():
    model, inputs = two_tower(), pairs()
    other = jnp.where(jnp.arange(T) < LENGTHS[..., None], inputs, V - 1 - inputs)
    scores = run(model, inputs, LENGTHS)
    np.testing.assert_allclose(scores, run(model, other, LENGTHS), rtol=1e-5, atol=1e-6)
    assert np.abs(scores - run(model, inputs)).max() > 1e-3


def test_the_order_of_the_documents_counts():
    model, inputs = two_tower(), pairs()
    assert np.abs(run(model, inputs) - run(model, inputs[:, ::-1])).max() > 1e-3
