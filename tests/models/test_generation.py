"""Generated tokens: those of the model's own distribution, whatever is carried between steps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.models import Classifier, ModelConfig
from lru.models.generation import encode_prompt, generate
from lru.models.sampling import Sampler

V = 7
GREEDY = Sampler(temperature=0.0)


def counting(tokens, state):
    """A model that has the sum of the last three tokens come next, modulo V; greedy or nearly."""
    window = jnp.concatenate([state[:, 1:], tokens[:, None]], axis=1)
    return 9.0 * jax.nn.one_hot(window.sum(axis=1) % V, V), window


def take(n, *args):
    return np.stack(list(itertools.islice(generate(*args), n)), axis=1)


@pytest.mark.parametrize("prompt", [[[1], [3]], [[1, 2, 5, 6], [3, 0, 0, 4]]])
def test_the_state_is_carried_through_prompt_and_draws(prompt):
    prompt = np.array(prompt)
    drawn = take(12, counting, jnp.zeros((2, 3), jnp.int32), prompt, GREEDY, jax.random.key(0))
    for row, tokens in zip(prompt.tolist(), drawn.tolist(), strict=True):
        text = [0, 0, 0, *row]
        for token in tokens:
            text.append(sum(text[-3:]) % V)
            assert token == text[-1]


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(n_layers=1, d_model=8, d_hidden=8, body_options={"norm": "layer"})
    return Classifier(config, V, vocab_size=V, pooling="none", rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def step(model):
    return jax.jit(model.step)


def test_each_draw_follows_from_all_that_came_before(model, step):
    prompt = np.array([[3, 1], [0, 6]])
    sampler, key = Sampler(temperature=0.8, top_k=4), jax.random.key(5)
    drawn = take(6, step, model.initial_state(2), prompt, sampler, key)
    text = jnp.asarray(np.concatenate([prompt, drawn], axis=1), jnp.int32)
    scores, _ = model(text[:, :-1])
    for n in range(6):
        at = prompt.shape[1] + n
        expected = sampler(jax.random.fold_in(key, at), scores[:, at - 1])
        np.testing.assert_array_equal(drawn[:, n], expected)


def test_the_seed_decides(model, step):
    prompt = np.zeros((4, 1), int)
    texts = [
        take(8, step, model.initial_state(4), prompt, Sampler(), jax.random.key(seed))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(texts[0], texts[1])
    assert not np.array_equal(texts[0], texts[2])
    assert len({tuple(row) for row in texts[0].tolist()}) > 1


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match=r"at least one token a row, got shape \(2, 0\)"):
        generate(counting, None, np.zeros((2, 0), int), GREEDY, jax.random.key(0))


def test_prompts_become_ids():
    ids = {"the": 0, "cat": 4}
    np.testing.assert_array_equal(encode_prompt(["cat", "the", "cat"], ids), [4, 0, 4])
    assert encode_prompt([], ids).shape == (0,)
    with pytest.raises(ValueError, match=r"but the 2 tokens of the vocabulary, got 'dog', 'a'"):
        encode_prompt(["the", "dog", "a", "dog"], ids)
