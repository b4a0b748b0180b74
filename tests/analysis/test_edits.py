"""Patched, silenced and edited states against calls in which they are what they should be."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.analysis import ablate, patch, run_edited
from lru.analysis.edits import without_modes
from lru.layers import LAYERS, S4D, GRUStack, LSTMCell, make_layer
from lru.layers.base import NoStepError
from lru.layers.heads import MatrixLayer
from lru.layers.selective import SelectiveLayer
from lru.layers.stack import CellStack
from lru.models import Classifier, Encoder, LanguageModel, ModelConfig, TwoTower
from lru.models.encoder import BlockOptions

B, T, D, N = 3, 7, 5, 4
TINY = ModelConfig(n_layers=2, d_model=D, d_hidden=N, p_dropout=0.0, options={})
LENGTHS = jnp.array([T, 5, 2])
VALID = np.arange(T) < np.asarray(LENGTHS)[:, None]


def layer(name="gru", **options):
    return make_layer(name, D, N, options, rngs=nnx.Rngs(0))


def encoder(**changes):
    return Encoder(dataclasses.replace(TINY, **changes), rngs=nnx.Rngs(0))


def classifier(pooling="mean", **changes):
    config = dataclasses.replace(TINY, **changes)
    return Classifier(config, 2, vocab_size=9, pooling=pooling, rngs=nnx.Rngs(0))


def language_model():
    config = dataclasses.replace(TINY, model="qrnn", options={"window": 2})
    return LanguageModel(config, 9, rngs=nnx.Rngs(0))


def values(seed=0):
    return jax.random.normal(jax.random.key(seed), (B, T, D))


def tokens(seed=0):
    return jax.random.randint(jax.random.key(seed), (B, T), 1, 9)


def close(actual, expected, **options):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5, **options),
        actual,
        expected,
    )


@nnx.jit
def run(model, x, state=None, lengths=None, resets=None):
    return model(x, state, lengths=lengths, resets=resets)


@nnx.jit(static_argnames=("at", "layers", "pooled"))
def patched(model, x, at, other, layers=None, pooled=False, lengths=None, resets=None):
    return patch(model, x, at, other, layers, pooled=pooled, lengths=lengths, resets=resets)


MODELS = {
    "layer": (layer, values),
    "encoder": (encoder, values),
    "cells": (lambda: CellStack(LSTMCell, D, [N, D], rngs=nnx.Rngs(0)), values),
    "mean": (classifier, tokens),
    "last": (lambda: classifier("last"), tokens),
    "steps": (lambda: classifier("none", model="lstm"), tokens),
    "language model": (language_model, tokens),
}
each_model = pytest.mark.parametrize("name", MODELS)


@each_model
def test_a_patch_of_all_layers_lets_the_first_part_be_another(name):
    make, inputs = MODELS[name]
    model, mine, theirs = make(), inputs(0), inputs(1)
    other = run(model, theirs[:, :3])[1]
    pooled = name in ("mean", "last")
    outputs, state = patched(model, mine, 3, other, pooled=pooled)
    joined = jnp.concatenate([theirs[:, :3], mine[:, 3:]], axis=1)
    expected, last = run(model, joined)
    if outputs.ndim > 2:
        expected = jnp.concatenate([run(model, mine)[0][:, :3], expected[:, 3:]], axis=1)
    close(outputs, expected)
    close(state, last)


def test_a_patch_of_one_layer_leaves_the_others():
    model, x = encoder(), values(0)
    other, own = (run(model, values(seed)[:, :3])[1] for seed in (1, 0))
    outputs, state = patched(model, x, 3, other, (1,))
    expected, last = run(model, x[:, 3:], [own[0], other[1]])
    close(outputs[:, 3:], expected)
    close(state, last)
    close(patched(model, x, 3, other, ())[0], run(model, x)[0])


def test_a_mean_goes_on_unless_it_is_patched_too():
    model, mine, theirs = classifier(), tokens(0), tokens(1)
    other, own = run(model, theirs[:, :3])[1], run(model, mine[:, :3])[1]
    outputs = patched(model, mine, 3, other)[0]
    close(outputs, run(model, mine[:, 3:], other._replace(pooled=own.pooled))[0])


def test_a_row_that_has_ended_is_not_patched_and_resets_are_where_they_were():
    model, x = encoder(), values(0)
    other = run(model, values(1)[:, :2])[1]
    resets = jnp.zeros((B, T), bool).at[:, 3].set(True)
    outputs, state = patched(model, x, 2, other, lengths=LENGTHS, resets=resets)
    expected, last = run(model, x, lengths=LENGTHS, resets=resets)
    # After the reset nothing is left of the patch.
    close(outputs[:, 3:][VALID[:, 3:]], expected[:, 3:][VALID[:, 3:]])
    close(state, last)
    assert np.abs(outputs[0, 2] - expected[0, 2]).max() > 0.01


@each_model
@pytest.mark.parametrize("padded", [False, True])
def test_steps_without_an_edit_are_a_call(name, padded):
    make, inputs = MODELS[name]
    model, x = make(), inputs()
    resets = jnp.zeros((B, T), bool).at[0, 2].set(True)
    options = {"lengths": jnp.array([T, 5, 0]), "resets": resets} if padded else {}
    outputs, state = jax.jit(lambda x: run_edited(model, x, lambda states: states, **options))(x)
    expected, last = run(model, x, **options)
    if padded and outputs.ndim > 2:
        valid = np.arange(T) < np.array([T, 5, 0])[:, None]
        outputs, expected = outputs[valid], expected[valid]
    close(outputs, expected)
    close(state, last)


# A state of matrices has no units.
WITH_UNITS = [n for n in LAYERS if not issubclass(LAYERS[n], (MatrixLayer, S4D, SelectiveLayer))]


@pytest.mark.parametrize("name", WITH_UNITS)
def test_a_unit_that_is_silenced_remembers_nothing_and_the_others_all(name):
    model, x = layer(name), values()
    start = jax.tree.map(lambda leaf: leaf + 0.5, model.initial_state(B))
    outputs, state = ablate(model, x, {0: [1]}, state=start)

    def silenced(state):
        return jax.tree.map(
            lambda leaf: leaf.at[:, 1].set(0) if leaf.shape == (B, N) else leaf, state
        )

    expected = []
    for t in range(T):
        y, start = model.step(x[:, t], silenced(start))
        expected.append(y)
    close(outputs, jnp.stack(expected, axis=1))
    close(state, silenced(start))
    assert np.all(jax.tree.leaves(state)[0][:, 1] == 0)


def test_a_diagonal_mode_that_is_silenced_forgets_and_leaves_the_other_modes_alone():
    model, x = layer("lru"), values()
    silent = np.array([False, True, False, False])
    _, state = ablate(model, x, {0: silent}, lengths=LENGTHS)
    _, last = run(model, x, lengths=LENGTHS)
    close(state, jnp.where(silent, 0, last))


def test_all_units_of_a_layer_of_a_network_silenced_is_that_layer_afresh_at_every_step():
    model, x = encoder(), values()
    outputs, _ = ablate(model, x, {0: range(N)})
    one, rest = model.blocks
    expected, _ = rest(one(x, resets=jnp.ones((B, T), bool))[0])
    close(outputs, expected)


def test_eigenmodes_are_taken_out_in_pairs_and_the_others_go_their_way():
    model, x = layer("rnn"), values()
    A = np.asarray(model.A[...], np.float64)
    spectrum = model.eigenvalues()[""]
    complex_one = int(np.argmax(np.abs(spectrum.imag)))
    _, state = ablate(model, x, modes={0: [complex_one]})
    _, last = run(model, x)
    left = np.linalg.eig(A.T)
    # Coordinates along the modes are what left eigenvectors read.
    reads = [np.asarray(h) @ left.eigenvectors for h in (state, last)]
    gone = np.isclose(left.eigenvalues, spectrum[complex_one], atol=1e-5)
    gone |= np.isclose(left.eigenvalues, np.conj(spectrum[complex_one]), atol=1e-5)
    assert gone.sum() == 2
    np.testing.assert_allclose(reads[0][:, gone], 0, atol=1e-5)
    np.testing.assert_allclose(reads[0][:, ~gone], reads[1][:, ~gone], atol=1e-4)


def test_a_projection_is_one_and_commutes_with_the_matrix():
    A = np.random.default_rng(0).standard_normal((N, N))
    P = without_modes(A, np.array([True, False, False, False]))
    np.testing.assert_allclose(P @ P, P, atol=1e-10)
    np.testing.assert_allclose(A @ P, P @ A, atol=1e-10)
    np.testing.assert_allclose(without_modes(A, np.zeros(N, bool)), np.eye(N), atol=1e-10)
    with pytest.raises(ValueError, match="can be diagonalised, got one that cannot"):
        without_modes(np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([True, False]))


def both_ways():
    return Encoder(TINY, BlockOptions(bidirectional=True), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda: ablate(both_ways(), values(), {0: [0]}), NoStepError, "this one is bidirectional"),
        (
            lambda: patch(
                CellStack(LSTMCell, D, [N], directions="stacks", rngs=nnx.Rngs(0)), values(), 2, []
            ),
            NoStepError,
            "this one is bidirectional",
        ),
        (
            lambda: patch(GRUStack(D, [N], rngs=nnx.Rngs(0)), values(), 2, None),
            ValueError,
            "with one state a layer, got a GRUStack",
        ),
        (
            lambda: ablate(TwoTower(TINY, 2, vocab_size=3, rngs=nnx.Rngs(0)), values()),
            ValueError,
            "got a TwoTower",
        ),
        (
            lambda: patch(layer(), values(), T, layer().initial_state(B)),
            ValueError,
            "at must be from 1 to T - 1 = 6, got 7",
        ),
        (
            lambda: patch(encoder(), values(), 2, encoder().initial_state(B), [2]),
            ValueError,
            "layers must be of layers from 0 to 1, got 2",
        ),
        (
            lambda: patch(layer("rnn"), values(), 2, jnp.zeros((B, 9))),
            ValueError,
            r"other has shape \(3, 9\), but the model allows \(3, 4\)",
        ),
        (
            lambda: patch(layer(), values(), 2, layer().initial_state(B), pooled=True),
            ValueError,
            "pooled must be False for a model that pools nothing",
        ),
        (lambda: ablate(layer(), values(), {1: [0]}), ValueError, "units must be of layers from 0"),
        (
            lambda: ablate(layer(), values(), {0: [N]}),
            ValueError,
            r"units must be numbers from 0 to N - 1 = 3 or booleans \[N\], got \[4\]",
        ),
        (
            lambda: ablate(layer(), values(), modes={0: [0]}),
            ValueError,
            "modes must be of dense linear RNNs .* got layer 0, a GRU",
        ),
    ],
)
def test_what_does_not_fit_is_refused(run, error, message):
    with pytest.raises(error, match=message):
        run()
