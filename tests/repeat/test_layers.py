"""Every recurrence repeats, and lets its states be edited; two layers of each."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.analysis.methods import Opened
from lru.analysis.methods.onion import OnionIntervention
from lru.layers import LAYERS
from tests.repeat.cases import batch, compiled, gradients_of, task

B, T, V, N = 3, 4, 5, 6
LENGTHS = np.array([T, 3, 1])
MODELS = [*LAYERS, "vector-sum"]
GIVEN = SimpleNamespace(V=V, N=N, L=T)


def repeating(model, n_layers=2):
    """The task of repeating with a model, and a network."""
    made = task(GIVEN, model=model, n_layers=n_layers)
    return made, made.build_model(nnx.Rngs(0))


@pytest.mark.parametrize("name", LAYERS)
def test_the_decoder_goes_on_from_the_encoder(name):
    _, model = repeating(name)
    symbols = jax.random.randint(jax.random.key(0), (B, T), 0, V)

    @compiled
    def both(symbols):
        state = model.encode(symbols)
        inputs = jnp.concatenate([symbols, model.decoder_inputs(symbols)], axis=1)
        whole = model.head(model.body(model.embedding[...][inputs])[0])[:, T:]
        padded = model.encode(symbols, lengths=jnp.asarray(LENGTHS))
        said = model.generate(padded, T)
        own = model.decode(padded, said).argmax(-1)
        return model.decode(state, symbols), whole, said, own

    scores, whole, said, own = both(symbols)
    np.testing.assert_allclose(scores, whole, rtol=0, atol=1e-5)
    # Where it is told what it said itself, it says the same.
    assert np.array_equal(said, own)


@pytest.mark.parametrize("name", MODELS)
def test_states_of_every_model_can_be_edited(name):
    made, subject = repeating(name)
    analysis = task(GIVEN, OnionIntervention, None, Opened(made, [subject]), model=name)
    edit = analysis.build_model(nnx.Rngs(0))
    rows = batch(np.arange(T * B).reshape(T, B) % V, LENGTHS)

    def loss(edit):
        found = analysis.loss(edit, rows, (), jax.random.key(0), train=True)
        return found.loss.total / found.loss.weight, None

    (value, _), found = gradients_of(loss, edit)
    assert np.isfinite(value)
    # What is trained is the edit alone.
    assert jax.tree.structure(found) == jax.tree.structure(nnx.state(edit, nnx.Param))
    assert len(jax.tree.leaves(found)) == 5
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(found))
