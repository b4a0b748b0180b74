import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers.dropout import drop_features, embed
from lru.models import LanguageModel, LanguageModelOptions, ModelConfig
from lru.models.encoder import Encoder

V, B, T = 11, 3, 9
SMALL = ModelConfig("qrnn", n_layers=2, d_model=6, d_hidden=8, p_dropout=0.0)
TOKENS = jnp.array(np.random.default_rng(0).integers(V, size=(B, T)))


def model(**changes) -> LanguageModel:
    own = {f.name for f in dataclasses.fields(LanguageModelOptions)} & changes.keys()
    options = LanguageModelOptions(**{name: changes.pop(name) for name in own})
    of_network = {f.name for f in dataclasses.fields(ModelConfig)} & changes.keys()
    config = dataclasses.replace(SMALL, **{name: changes.pop(name) for name in of_network})
    config = dataclasses.replace(config, body_options=changes)
    return LanguageModel(config, V, options, rngs=nnx.Rngs(0))


run = jax.jit(lambda built, tokens, state=None, lengths=None: built(tokens, state, lengths=lengths))
advance = jax.jit(lambda built, tokens_t, state: built.step(tokens_t, state))


@jax.jit
def nll_of(built):
    """Negative log-likelihood of the tokens, by the head alone."""
    return built.head.nll(built.features(TOKENS)[0].dropped, TOKENS)


@pytest.mark.parametrize("name", ["qrnn", "lstm", "gru", "lru", "diag-rnn", "rnn"])
def test_chunks_and_single_steps_give_what_the_whole_gives(name):
    built = model(model=name)
    whole, after = run(built, TOKENS)
    np.testing.assert_allclose(np.exp(whole).sum(axis=-1), 1, rtol=1e-5)
    first, state = run(built, TOKENS[:, :4])
    rest, last = run(built, TOKENS[:, 4:], state)
    np.testing.assert_allclose(jnp.concatenate([first, rest], 1), whole, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), last, after)
    state = built.initial_state(B)
    for t in range(3):
        step, state = advance(built, TOKENS[:, t], state)
        np.testing.assert_allclose(step, whole[:, t], rtol=1e-4, atol=1e-5)


def test_padding_changes_neither_other_steps_nor_the_state():
    built = model()
    alone, state = run(built, TOKENS[:, :5])
    padded, after = run(built, TOKENS, lengths=jnp.full(B, 5))
    np.testing.assert_allclose(padded[:, :5], alone, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, state)


def test_the_head_reads_out_by_the_embedding_or_by_a_matrix_of_its_own():
    sizes = {}
    for tied in (True, False):
        built = model(tied=tied)
        sizes[tied] = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(built, nnx.Param)))
        of_all = jnp.take_along_axis(run(built, TOKENS)[0], TOKENS[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(nll_of(built), -of_all, rtol=1e-5)
    assert sizes[False] - sizes[True] == V * SMALL.d_model


def test_the_body_fits_the_layer_and_can_be_chosen():
    assert not isinstance(model().body, Encoder)
    assert isinstance(model(body="blocks").body, Encoder)
    assert isinstance(model(model="lru").body, Encoder)
    widths = [cell.d_hidden for cell in model(n_layers=3).body.cells]
    assert widths == [8, 8, 6]
    windows = [cell.window for cell in model(first_window=4, options={"window": 1}).body.cells]
    assert windows == [4, 1]


def test_densely_connected_cells_give_by_steps_what_the_whole_gives_and_show_their_states():
    built = model(dense=True, n_layers=3)
    assert [cell.d_model for cell in built.body.cells] == [6, 6 + 8, 6 + 8 + 8]
    x = built.embedding[...][TOKENS]
    whole, after = run(built.body, x)
    state = built.body.initial_state(B)
    for t in range(3):
        step, state = advance(built.body, x[:, t], state)
        np.testing.assert_allclose(step, whole[:, t], rtol=1e-4, atol=1e-5)
    last = [found["state"][:, -1] for found in jax.jit(type(built.body).observe)(built.body, x)]
    for seen, state in zip(last, after, strict=True):
        np.testing.assert_allclose(seen, state.c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_an_adaptive_head_has_probabilities_of_all_words(tied):
    built = model(cutoffs="3, 7", tied=tied)
    table, _ = run(built, TOKENS)
    np.testing.assert_allclose(np.exp(table).sum(axis=-1), 1, rtol=1e-5)
    of_all = jnp.take_along_axis(table, TOKENS[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(nll_of(built), -of_all, rtol=1e-5, atol=1e-6)
    step, _ = advance(built, TOKENS[:, 0], built.initial_state(B))
    np.testing.assert_allclose(step, table[:, 0], rtol=1e-4, atol=1e-5)
    # Where they are tied the embedding is one parameter, with gradients from both of its uses.
    gradients = nnx.jit(nnx.grad(lambda built: nll_of(built).sum()))(built)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(gradients.embedding))
    words = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(built, nnx.Param)))
    plain = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model(tied=True), nnx.Param)))
    # Of the two clusters in the head; untied also 3 words, and one feature for each cluster.
    clusters = 2 * SMALL.d_model + 2
    assert words - plain == clusters + (0 if tied else 3 * SMALL.d_model + 2 * 6 + (4 + 4))


@pytest.mark.parametrize("changes", [{}, {"cutoffs": "3,7"}], ids=["plain", "adaptive"])
def test_weights_of_half_precision_have_single_log_probabilities(changes):
    head = model(init_range=2.0, **changes).head
    graphdef, weights = nnx.split(head)
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights)
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded)
    h = jax.random.normal(jax.random.key(0), (B, T, 6), jnp.bfloat16)
    half, single = (nnx.merge(graphdef, values) for values in (rounded, exact))
    expected = single.nll(h.astype(jnp.float32), TOKENS)
    np.testing.assert_allclose(half.nll(h, TOKENS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lru", "bidirectional": True}, "bidirectional must be False in a language"),
        (
            {"model": "lru", "body": "cells"},
            "body cells is for model elman, gru, indrnn, lstm, mingru, minlstm, qrnn, rg-lru, sru, "
            "got model",
        ),
        ({"body": "cell"}, "unknown body 'cell'; known: blocks, cells"),
        ({"model": "lru", "p_weight": 0.1}, "p_weight is not an option of body 'blocks'"),
        ({"norm": "layer"}, "norm is not an option of body 'cells', which has: dtype, dense"),
        ({"p_hidden": 1.0}, r"p_hidden must be in \[0, 1\), got 1.0"),
        ({"model": "lstm", "first_window": 2}, "first_window must be None for model 'lstm'"),
        ({"p_input": 1.0}, r"p_input must be in \[0, 1\), got 1.0"),
        ({"init_range": -1.0}, "init_range must not be negative, got -1.0"),
        ({"cutoffs": "3,b"}, "cutoffs must be ids separated by commas, got '3,b'"),
        ({"cutoffs": "3,11"}, "less than vocab_size = 11, got .3, 11."),
    ],
)
def test_what_is_no_language_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        model(**changes)


@pytest.mark.parametrize("rate", ["p_embedding", "p_input", "p_hidden", "p_weight", "p_dropout"])
@pytest.mark.parametrize("name", ["qrnn", "lstm", "gru"])
def test_each_dropout_acts_in_training_alone(rate, name):
    built, plain = model(model=name, **{rate: 0.5}), model(model=name)
    expected, _ = plain(TOKENS)
    np.testing.assert_array_equal(built(TOKENS)[0], expected)
    one, two = (built(TOKENS, train=True, key=jax.random.key(seed))[0] for seed in (1, 2))
    assert not np.allclose(one, expected, atol=1e-4)
    assert not np.allclose(one, two, atol=1e-4)


def test_locked_masks_are_the_same_at_all_steps_and_keep_the_mean():
    x, key = jnp.ones((200, 3, 50)), jax.random.key(0)
    locked = np.asarray(drop_features(x, 0.3, key, locked=True))
    assert (locked == locked[:, :1]).all()
    assert set(np.unique(locked)) == {0.0, np.float32(1 / 0.7)}
    np.testing.assert_allclose(locked.mean(), 1, atol=0.02)
    free = np.asarray(drop_features(x, 0.3, key, locked=False))
    assert not (free == free[:, :1]).all()


def test_a_dropped_word_is_dropped_wherever_it_occurs():
    tokens = jnp.array([[1, 2, 3, 1], [3, 2, 1, 0]])
    x = np.asarray(embed(jnp.ones((4, 2)), tokens, 0.5, jax.random.key(3)))
    for word in range(4):
        assert len(np.unique(x[tokens == word])) == 1
    assert set(np.unique(x)) == {0.0, 2.0}


@pytest.mark.parametrize("name", ["qrnn", "lstm"])
def test_gradients_reach_the_weights_that_are_dropped_and_the_weights_stay(name):
    built = model(model=name, p_weight=0.5)
    graphdef, params, rest = nnx.split(built, nnx.Param, ...)

    @jax.jit
    def loss(params):
        scores, _ = nnx.merge(graphdef, params, rest)(TOKENS, train=True, key=jax.random.key(0))
        return scores[..., 0].sum()

    gradient = jax.grad(loss)(params)
    weights = {
        "/".join(map(str, path)): leaf
        for path, leaf in nnx.to_flat_state(gradient)
        if "weight" in path or "weight_hh" in path
    }
    assert len(weights) == 2
    for leaf in weights.values():
        share = float((leaf[...] == 0).mean())
        assert 0.3 < share < 0.7
    jax.tree.map(np.testing.assert_array_equal, nnx.state(built, nnx.Param), params)
