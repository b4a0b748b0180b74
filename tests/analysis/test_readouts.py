"""Probes read what is there, by a map that is strong enough, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.analysis import probe
from lru.layers import make_layer

RNG = np.random.default_rng(0)
STATES = RNG.standard_normal((400, 6), np.float32) * 3 + 1
FAST = {"updates": 200, "batch_size": 64, "learning_rate": 2e-2}
XOR = (STATES[:, 0] > 1) ^ (STATES[:, 1] > 1)
"""What no linear map tells."""


def test_a_linear_read_out_reads_classes_and_what_it_returns_reads_them_too():
    targets = np.stack([STATES[:, :3].argmax(axis=1), STATES[:, 3] > 1], axis=1)
    found = probe(STATES, targets, **FAST)
    assert found.measure == "accuracy"
    assert 0.9 < found.score < 1
    assert found.train_score > 0.9
    logits = found.readout(jnp.asarray(STATES))
    assert logits.shape == (400, 2, 3)
    right = np.mean(logits.argmax(axis=-1) == targets)
    assert right == pytest.approx(0.2 * found.score + 0.8 * found.train_score, abs=1e-6)


def test_a_hidden_layer_reads_what_a_line_cannot():
    linear, mlp = (probe(STATES, XOR, kind=kind, width=16, **FAST) for kind in ("linear", "mlp"))
    assert linear.score < 0.7
    assert mlp.score > 0.9


def test_values_of_the_complex_states_of_a_layer_are_read_in_their_own_units():
    layer = make_layer("lru", 3, 4, {}, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (300, 5, 3))
    _, state = layer(x)
    targets = 1000 * (state.real[:, :2] + state.imag[:, 2:]) + 7
    found = probe(state, targets, **FAST)
    assert found.measure == "r2"
    assert found.score > 0.95
    np.testing.assert_allclose(found.readout(state), targets, atol=0.2 * targets.std())
    assert probe(state, RNG.standard_normal(300), **FAST).score < 0.2


def test_other_rows_can_be_held_out_and_a_seed_repeats_all():
    kept, out = (STATES[:300], XOR[:300]), (STATES[300:] + 100, XOR[300:])
    found = probe(*kept, kind="mlp", held_out=out, **FAST)
    assert found.score < 0.7 < found.train_score
    first, again = (probe(*kept, seed=seed, **FAST) for seed in (3, 3))
    assert (first.score, first.train_score) == (again.score, again.train_score)
    assert probe(*kept, seed=4, **FAST).train_score != first.train_score


@pytest.mark.parametrize(
    ("targets", "changes", "message"),
    [
        (XOR, {"kind": "deep"}, "kind must be linear or mlp, got 'deep'"),
        (XOR, {"updates": 0}, "updates must be at least 1, got 0"),
        (XOR, {"held_out": 1.0}, "held_out must leave at least one of the 400 rows .* got 1.0"),
        (XOR[:9], {}, r"targets have shape \(9,\), but .* n = 400"),
        (XOR.astype(int) - 1, {}, "targets must be classes from 0 on .* got int32 from -1 on"),
        (
            np.ones(400),
            {"updates": 1},
            "must differ from row to row for R², got the same in all 80",
        ),
    ],
)
def test_what_does_not_fit_is_refused(targets, changes, message):
    with pytest.raises(ValueError, match=message):
        probe(STATES, targets, **changes)
