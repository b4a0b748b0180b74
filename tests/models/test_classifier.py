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

from lru.layers import NoStepError
from lru.models import Classifier, ModelConfig
from lru.models.classifier import Pooled, pool

B, T, D, C, V = 3, 6, 4, 5, 7
LENGTHS = np.array([T, 2, 0], np.int32)
TINY = ModelConfig(n_layers=1, d_model=D, d_hidden=3, p_dropout=0.0)


def features(seed=0):
    return np.array(jax.random.normal(jax.random.key(seed), (B, T, D)))


def tokens():
    return jax.random.randint(jax.random.key(0), (B, T), 0, V)


@nnx.jit
def run(model, inputs, state=None, lengths=None):
    return model(inputs, state, lengths=lengths)


@nnx.jit
def advance(model, inputs_t, state):
    return model.step(inputs_t, state)


def assert_close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4), actual, expected
    )


def classifier(
    vocab_size: int | None = V,
    n_features: int | None = None,
    pooling: str = "mean",
    one_hot: bool = False,
    **changes,
) -> Classifier:
    return Classifier(
        dataclasses.replace(TINY, **changes),
        C,
        vocab_size=vocab_size,
        n_features=n_features,
        pooling=pooling,
        one_hot=one_hot,
        rngs=nnx.Rngs(0),
    )


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, T), min_size=B, max_size=B))
def test_mean_pooling_is_the_mean_of_the_valid_steps(lengths):
    x = features()
    expected = [row[:n].mean(0) if n else np.zeros(D) for row, n in zip(x, lengths, strict=True)]
    for row, n in zip(x, lengths, strict=True):
        row[n:] = np.nan
    pooled, _ = pool(jnp.asarray(x), jnp.array(lengths), "mean")
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, T), min_size=B, max_size=B))
def test_last_pooling_is_the_last_valid_step(lengths):
    x = features()
    expected = [row[n - 1] if n else np.zeros(D) for row, n in zip(x, lengths, strict=True)]
    np.testing.assert_array_equal(pool(jnp.asarray(x), jnp.array(lengths), "last")[0], expected)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_lengths_are_clipped_to_the_row_whatever_integers_they_are(pooling):
    x = jnp.asarray(features())
    before = Pooled(x[:, 0], jnp.full(B, 2))
    run = jax.jit(lambda lengths: pool(x, lengths, pooling, before))
    given = run(jnp.array([T + 100, -3, 1], "int8"))
    expected = run(jnp.array([T, 0, 1]))
    jax.tree.map(np.testing.assert_array_equal, given, expected)
    assert given[1].steps.dtype == before.steps.dtype


def test_without_lengths_all_steps_are_valid():
    x = jnp.asarray(features())
    np.testing.assert_allclose(pool(x, None, "mean")[0], x.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(pool(x, None, "last")[0], x[:, -1])
    assert pool(x, jnp.asarray(LENGTHS), "none")[0] is x


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling must be mean, last or none, got 'max'"):
        pool(jnp.asarray(features()), None, "max")


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_gets_no_gradient_and_valid_steps_do(pooling):
    lengths = jnp.asarray(LENGTHS)
    grad = jax.grad(lambda x: pool(x, lengths, pooling)[0].sum())(jnp.asarray(features()))
    assert not grad[1, 2:].any()
    assert not grad[2].any()
    assert grad[1, 1].all()


@pytest.mark.parametrize(
    ("pooling", "shape"), [("mean", (B, C)), ("last", (B, C)), ("none", (B, T, C))]
)
def test_scores_have_one_row_a_sequence_or_a_step(pooling, shape):
    scores, state = run(classifier(pooling=pooling), tokens())
    assert scores.shape == shape
    assert len(state.blocks) == 1


def test_real_inputs_go_through_a_linear_map():
    model = classifier(None, 2)
    x = jax.random.normal(jax.random.key(0), (B, T, 2))
    kernel, bias = model.encode.kernel[...], model.encode.bias[...]
    encoded = model.encoder(x @ kernel + bias)[0]
    np.testing.assert_allclose(run(model, x)[0], model.head(encoded.mean(1)), rtol=1e-4, atol=1e-5)


def test_tokens_may_be_read_as_one_hot_vectors():
    model = classifier(one_hot=True, d_model=V)
    # Of padding zeros, and beyond the last token too.
    np.testing.assert_array_equal(model.encode(jnp.arange(V, dtype="uint8")), np.eye(V, k=-1))
    assert not jax.tree.leaves(nnx.state(model.encode))
    ids, state = tokens(), model.initial_state(B)
    for t in range(T):
        scores, state = advance(model, ids[:, t], state)
    np.testing.assert_allclose(scores, run(model, ids)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": V - 2}, "d_model must be at least 6 to read 7 tokens as .* vectors.*, got 5$"),
        ({"vocab_size": None, "n_features": 2}, "one_hot must be False for real inputs, got True"),
    ],
)
def test_one_hot_vectors_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        classifier(one_hot=True, **changes)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_changes_no_score(pooling):
    model, ids = classifier(pooling=pooling), tokens()
    lengths = jnp.array([T, 2, 1])
    other = jnp.where(jnp.arange(T) < lengths[:, None], ids, V - 1 - ids)
    scores = run(model, ids, lengths=lengths)[0]
    np.testing.assert_allclose(scores, run(model, other, lengths=lengths)[0], rtol=1e-5, atol=1e-6)
    alone = run(model, ids[1:2, :2])[0]
    np.testing.assert_allclose(scores[1], alone[0], rtol=1e-4, atol=1e-5)


POOLINGS = ("mean", "last", "none")
by_pooling = pytest.mark.parametrize("pooling", POOLINGS)


@by_pooling
def test_a_stream_of_chunks_gives_the_scores_of_the_whole(pooling):
    model, ids = classifier(pooling=pooling), tokens()
    # Rows that end in the second chunk, with the first, and before anything came.
    whole, last = run(model, ids, lengths=jnp.array([5, 2, 0]))
    first, state = run(model, ids[:, :2], lengths=jnp.array([2, 2, 0]))
    second, state = run(model, ids[:, 2:], state, lengths=jnp.array([3, 0, 0]))
    if pooling == "none":
        first, second, whole = first[0], second[0, :3], whole[0, :5]
        second = jnp.concatenate([first, second])
    np.testing.assert_allclose(second, whole, rtol=1e-4, atol=1e-5)
    assert_close(state, last)


@by_pooling
def test_steps_give_the_scores_of_the_whole_at_every_length(pooling):
    network, ids = classifier(pooling=pooling), tokens()
    # Anything but the initial statistics, which would hide a norm that does nothing.
    norm = network.encoder.blocks[0].norm
    norm.mean[...], norm.var[...] = jnp.linspace(-1, 1, D), jnp.linspace(0.5, 2, D)
    state = network.initial_state(B)
    for t in range(T):
        scores, state = advance(network, ids[:, t], state)
        whole, last = run(network, ids, lengths=jnp.full(B, t + 1))
        whole = whole[:, t] if pooling == "none" else whole
        np.testing.assert_allclose(scores, whole, rtol=1e-4, atol=1e-5)
        assert_close(state, last)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_state_is_like_the_ones_that_follow(pooling):
    model = classifier(None, 2, pooling=pooling)
    start = model.initial_state(B)
    _, after = jax.eval_shape(advance, model, jnp.ones((B, 2), jnp.bfloat16), start)
    assert jax.eval_shape(lambda: start) == after
    assert after.pooled.features.dtype == jnp.float32


def test_a_bidirectional_classifier_has_no_step():
    model = classifier(body_options={"bidirectional": True})
    with pytest.raises(NoStepError, match="a bidirectional layer has no step mode"):
        model.step(tokens()[:, 0], model.initial_state(B))


@pytest.mark.parametrize("dense", [True, False])
def test_cells_can_be_the_body_with_dropout_between_and_after_them(dense):
    def scores(key=None, p_dropout=0.0, **options):
        config = ModelConfig(
            "qrnn",
            n_layers=2,
            d_model=6,
            d_hidden=8,
            p_dropout=p_dropout,
            body="cells",
            body_options={"dense": dense, **options},
        )
        model = Classifier(config, C, vocab_size=V, rngs=nnx.Rngs(0))
        return model(tokens, lengths=lengths, train=key is not None, key=key)[0]

    tokens, lengths = jnp.arange(14).reshape(2, 7) % V, jnp.array([7, 4])
    plain = scores()
    for rate in ("p_hidden", "p_dropout"):
        np.testing.assert_array_equal(scores(**{rate: 0.5}), plain)
        one, two = (scores(jax.random.key(seed), **{rate: 0.5}) for seed in (1, 2))
        assert not np.allclose(one, plain, atol=1e-4)
        assert not np.allclose(one, two, atol=1e-4)
    np.testing.assert_array_equal(scores(jax.random.key(1)), plain)
    with pytest.raises(ValueError, match="bidirectional is not an option of body 'cells'"):
        scores(bidirectional=True)


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
        ({"body_options": {"norm": "group"}}, "norm must be batch or layer, got 'group'"),
    ],
)
def test_the_configuration_refuses_what_no_network_has(changes, message, monkeypatch):
    # The runtime types of the tests would refuse unknown names first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        classifier(**changes)


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        ({}, (2, 6, 1), r"inputs have shape \(2, 6, 1\), but token ids \[B, T\] are allowed"),
        ({"vocab_size": None, "n_features": 2}, (2, 6), r"values \[B, T, F = 2\] are allowed"),
        ({"vocab_size": None, "n_features": 2}, (2, 6, 1), r"values \[B, T, F = 2\] are allowed"),
    ],
)
def test_inputs_of_another_shape_are_refused(kind, shape, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        classifier(**kind)(jnp.zeros(shape))
