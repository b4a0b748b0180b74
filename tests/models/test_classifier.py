"""Pooling over valid steps, and the classifier's inputs, heads and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from lru.models import Classifier, ModelConfig
from lru.models.classifier import pool

B, T, D, C, V = 3, 6, 4, 5, 7
LENGTHS = np.array([T, 2, 0], np.int32)
TINY = ModelConfig(n_layers=1, d_model=D, d_hidden=3, pooling="mean", p_dropout=0.0)


def features(seed=0):
    return np.array(jax.random.normal(jax.random.key(seed), (B, T, D)))


def tokens():
    return jax.random.randint(jax.random.key(0), (B, T), 0, V)


@nnx.jit
def run(model, inputs, state=None, lengths=None):
    return model(inputs, state, lengths=lengths)


def classifier(vocab_size: int | None = V, n_features: int | None = None, **changes) -> Classifier:
    config = dataclasses.replace(TINY, **changes)
    return Classifier(config, C, vocab_size=vocab_size, n_features=n_features, rngs=nnx.Rngs(0))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, T), min_size=B, max_size=B))
def test_mean_pooling_is_the_mean_of_the_valid_steps(lengths):
    x = features()
    expected = [row[:n].mean(0) if n else np.zeros(D) for row, n in zip(x, lengths, strict=True)]
    for row, n in zip(x, lengths, strict=True):
        row[n:] = np.nan
    pooled = pool(jnp.asarray(x), jnp.array(lengths), "mean")
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, T), min_size=B, max_size=B))
def test_last_pooling_is_the_last_valid_step(lengths):
    x = features()
    expected = [row[n - 1] if n else np.zeros(D) for row, n in zip(x, lengths, strict=True)]
    np.testing.assert_array_equal(pool(jnp.asarray(x), jnp.array(lengths), "last"), expected)


def test_without_lengths_all_steps_are_valid():
    x = jnp.asarray(features())
    np.testing.assert_allclose(pool(x, None, "mean"), x.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(pool(x, None, "last"), x[:, -1])
    assert pool(x, jnp.asarray(LENGTHS), "none") is x


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling must be mean, last or none, got 'max'"):
        pool(jnp.asarray(features()), None, "max")


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_gets_no_gradient_and_valid_steps_do(pooling):
    grad = jax.grad(lambda x: pool(x, jnp.asarray(LENGTHS), pooling).sum())(jnp.asarray(features()))
    assert not grad[1, 2:].any()
    assert not grad[2].any()
    assert grad[1, 1].all()


@pytest.mark.parametrize(
    ("pooling", "shape"), [("mean", (B, C)), ("last", (B, C)), ("none", (B, T, C))]
)
def test_scores_have_one_row_a_sequence_or_a_step(pooling, shape):
    scores, state = run(classifier(pooling=pooling), tokens())
    assert scores.shape == shape
    assert len(state) == 1


def test_real_inputs_go_through_a_linear_map():
    model = classifier(None, 2)
    x = jax.random.normal(jax.random.key(0), (B, T, 2))
    kernel, bias = model.encode.kernel[...], model.encode.bias[...]
    encoded = model.encoder(x @ kernel + bias)[0]
    np.testing.assert_allclose(run(model, x)[0], model.head(encoded.mean(1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_changes_no_score(pooling):
    model, ids = classifier(pooling=pooling), tokens()
    lengths = jnp.array([T, 2, 1])
    other = jnp.where(jnp.arange(T) < lengths[:, None], ids, V - 1 - ids)
    scores = run(model, ids, lengths=lengths)[0]
    np.testing.assert_allclose(scores, run(model, other, lengths=lengths)[0], rtol=1e-5, atol=1e-6)
    alone = run(model, ids[1:2, :2])[0]
    np.testing.assert_allclose(scores[1], alone[0], rtol=1e-4, atol=1e-5)


def test_a_stream_of_chunks_gives_the_scores_of_the_whole():
    model, ids = classifier(pooling="none"), tokens()
    whole, _ = run(model, ids)
    first, state = run(model, ids[:, :2])
    second, _ = run(model, ids[:, 2:], state)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", [{}, {"vocab_size": V, "n_features": 1}])
def test_exactly_one_kind_of_input_is_wanted(inputs):
    with pytest.raises(ValueError, match=r"either vocab_size .* or n_features"):
        Classifier(TINY, C, **inputs, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 0}, "n_layers must be at least 1, got 0"),
        ({"d_model": 0}, "d_model must be at least 1, got 0"),
        ({"d_hidden": -1}, "d_hidden must be at least 1, got -1"),
        ({"p_dropout": 1.0}, r"p_dropout must be in \[0, 1\), got 1.0"),
        ({"p_dropout": float("nan")}, "p_dropout must be in"),
        ({"norm": "group"}, "norm must be batch or layer, got 'group'"),
        ({"pooling": "max"}, "pooling must be auto, mean, last or none, got 'max'"),
    ],
)
def test_the_configuration_refuses_what_no_network_has(changes, message, monkeypatch):
    # The runtime types of the tests would refuse unknown names first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)
