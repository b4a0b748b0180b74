"""The encoder and decoder: padding, one token at a time, and no look ahead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.models import Translator

B, S, T, V = 3, 7, 5, 9
rng = np.random.default_rng(0)
SOURCE, TARGET = (jnp.asarray(rng.integers(1, V, (B, n))) for n in (S, T))
LENGTHS = jnp.array([S, 4, 1])

run = nnx.jit(lambda model, *arguments, **options: model(*arguments, **options))


@pytest.fixture(scope="module")
def model():
    return Translator(V, V, 4, 2, dropout=0.3, zoneout=0.2, rngs=nnx.Rngs(0))


def test_padding_of_the_source_changes_nothing(model):
    scores = run(model, SOURCE, TARGET, source_lengths=LENGTHS)
    alone = run(model, SOURCE[1:2, :4], TARGET[1:2])
    np.testing.assert_allclose(scores[1], alone[0], rtol=0, atol=1e-6)


def test_one_token_at_a_time_equals_all_at_once(model):
    whole = run(model, SOURCE, TARGET, source_lengths=LENGTHS)
    encoded = model.encode(SOURCE, LENGTHS)
    step = nnx.jit(lambda model, *arguments: model.decode(*arguments))
    state = [layer.initial_state(B) for layer in model.decoder]
    for t in range(T):
        scores, state = step(model, TARGET[:, t : t + 1], encoded, state)
        np.testing.assert_allclose(scores[:, 0], whole[:, t], rtol=0, atol=1e-6)


def test_scores_depend_on_the_source_and_on_earlier_targets_alone(model):
    scores = run(model, SOURCE, TARGET)
    other = run(model, SOURCE, TARGET.at[:, 3].set(0))
    np.testing.assert_allclose(other[:, :3], scores[:, :3], rtol=0, atol=1e-6)
    assert not np.allclose(other[:, 3:], scores[:, 3:], atol=1e-4)
    assert not np.allclose(run(model, SOURCE.at[:, 0].set(0), TARGET), scores, atol=1e-5)


def test_noise_is_drawn_from_the_key_and_all_parameters_get_a_gradient(model):
    graphdef, params = nnx.split(model)

    @jax.jit
    @jax.value_and_grad
    def loss(params, key):
        scores = nnx.merge(graphdef, params)(SOURCE, TARGET, source_lengths=LENGTHS, key=key)
        return -jnp.mean(jax.nn.log_softmax(scores)[..., 1])

    values = [loss(params, jax.random.key(seed)) for seed in (0, 0, 1)]
    assert values[0][0] == values[1][0] != values[2][0]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(values[0][1]))


def test_no_layer_is_one_clear_sentence():
    with pytest.raises(ValueError, match="n_layers must be at least 1, got 0"):
        Translator(V, V, 4, 0, rngs=nnx.Rngs(0))
