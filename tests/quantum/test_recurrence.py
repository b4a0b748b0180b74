"""The quantum recurrence beside what was recorded, beside its oracle, and in pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan.quantum import Activation, Weights, n_subsets, quantum_scan, reference
from lru.scan.quantum.neurons import tables
from lru.scan.quantum.recurrence import faster_method

from .cases import as_type, case, names, recorded, start

METHODS = ("operators", "neurons")
each_method = pytest.mark.parametrize("method", METHODS)


def random_problem(w=3, i=2, stages=2, degree=2, rows=4, steps=7, spread=0.7, seed=0):
    rng = np.random.default_rng(seed)
    n_weights = n_subsets(w + i - 1, degree)
    shapes = ((1 + stages, w, n_weights), (1 + stages, w), (stages, w), (i, n_weights), (i,))
    weights = Weights(*(jnp.asarray(spread * rng.standard_normal(shape)) for shape in shapes))
    words, targets = jnp.asarray(rng.integers(2**i, size=(2, rows, steps)))
    return weights, words, targets, start(rows, w, weights.theta.dtype)


@each_method
@pytest.mark.parametrize("name", names())
def test_probabilities_and_gradients_are_the_recorded_ones(name, method):
    with jax.enable_x64(True):
        known = case(name)
        config, weights = known.setting["config"], as_type(known.weights, jnp.float64)
        first = start(len(known.words), config["w"], jnp.float64)

        def loss(weights):
            outcome, _ = quantum_scan(
                weights, known.activation, known.words, known.targets, first, method=method
            )
            p = outcome.probabilities
            at_target = jnp.take_along_axis(p, known.targets[..., None], axis=-1)
            return jnp.mean(jax.nn.logsumexp(p, axis=-1) - at_target[..., 0]), outcome

        (value, outcome), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights)
        found = known.setting["float64"]
        np.testing.assert_allclose(outcome.probabilities, known.probabilities, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(outcome.words, known.targets)
        np.testing.assert_allclose(value, found["cross_entropy_raw"], rtol=0, atol=1e-12)
        for ours, theirs in zip(gradients, known.gradients, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)
        single, _ = jax.jit(quantum_scan, static_argnames=("activation", "method"))(
            as_type(known.weights, jnp.float32),
            known.activation,
            known.words,
            known.targets,
            first.astype(jnp.float32),
            method=method,
        )
        assert single.probabilities.dtype == jnp.float32
        np.testing.assert_allclose(single.probabilities, known.probabilities, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", names()[:2])
def test_the_circuit_gate_by_gate_gives_the_recorded_probabilities(name):
    with jax.enable_x64(True):
        known = case(name)
        first = start(len(known.words), known.setting["config"]["w"], jnp.float64)
        arguments = as_type(known.weights, jnp.float64), known.activation
        words, targets = known.words[:, :1], known.targets[:, :1]
        p, last = reference.quantum_scan(*arguments, words, targets, first)
        np.testing.assert_allclose(p, known.probabilities[:, :1], rtol=0, atol=1e-12)
        _, ours = quantum_scan(*arguments, words, targets, first)
        np.testing.assert_allclose(ours, last, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("w", "stages", "order"), [(2, 1, 2), (1, 0, 3)])
def test_gradients_are_those_of_the_circuit(w, stages, order):
    with jax.enable_x64(True):
        weights, words, targets, first = random_problem(w=w, i=1, stages=stages, steps=1, rows=2)
        state = first + 0.3
        state /= jnp.linalg.norm(state, axis=1, keepdims=True)
        activation = Activation(order, 2, 0.8)

        def loss(scan):
            def value(weights, state):
                outcome, last = scan(weights, activation, words, targets, state)
                p = getattr(outcome, "probabilities", outcome)
                return jnp.sum(p**2) + jnp.sum(last**3), (p, last)

            return jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))(weights, state)

        for ours, theirs in zip(
            jax.tree.leaves(loss(quantum_scan)),
            jax.tree.leaves(loss(reference.quantum_scan)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


def test_activations_are_the_recorded_ones_up_to_a_factor():
    with jax.enable_x64(True):
        for entry in recorded()["activation_table"]:
            activation = Activation(entry["order"], 1, entry["alpha"])
            c, s = tables(jnp.zeros((1,)), jnp.zeros(()), 1, activation)
            scale = np.hypot(entry["c"], entry["s"])
            found = np.array([c[0], s[0]])
            np.testing.assert_allclose(
                found, np.array([entry["c"], entry["s"]]) / scale, atol=1e-12
            )


@each_method
def test_rows_chunks_steps_lengths_and_resets_are_one_recurrence(method):
    with jax.enable_x64(True):
        weights, words, targets, first = random_problem()
        activation = Activation(2, 2, 1.2)
        # Some steps are measured.
        targets = jnp.where(jnp.arange(7) % 3 == 1, -1, targets)

        def run(rows=slice(None), steps=slice(None), state=first, **options):
            return jax.jit(
                lambda state: quantum_scan(
                    weights,
                    activation,
                    words[rows, steps],
                    targets[rows, steps],
                    state,
                    method=method,
                    **options,
                )
            )(state)

        whole, last = run()
        measured = np.asarray(whole.probabilities.argmax(axis=-1))
        np.testing.assert_array_equal(whole.words, np.where(targets < 0, measured, targets))
        np.testing.assert_allclose(jnp.sum(last**2, axis=1), 1, atol=1e-12)

        def close(ours, theirs):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)

        alone, last_alone = run(rows=slice(1, 2), state=first[1:2])
        close(alone.probabilities, whole.probabilities[1:2])
        close(last_alone, last[1:2])

        head, middle = run(steps=slice(0, 3))
        tail, end = run(steps=slice(3, 7), state=middle)
        close(jnp.concatenate([head.probabilities, tail.probabilities], 1), whole.probabilities)
        close(end, last)

        lengths = jnp.array([7, 3, 0, 5])
        padded, kept = run(lengths=lengths, observe=True)
        close(padded.probabilities[1, :3], whole.probabilities[1, :3])
        close(kept[0], last[0])
        close(kept[1], middle[1])
        close(kept[2], first[2])
        close(padded.states[:, -1], kept)
        at_padding = jnp.arange(7) >= lengths[:, None]
        close(run(lengths=lengths, resets=at_padding)[1], kept)

        resets = jnp.zeros((4, 7), bool).at[:, 3].set(True)
        anew, _ = run(steps=slice(3, 7))
        close(run(resets=resets)[0].probabilities[:, 3:], anew.probabilities)


def test_measured_words_follow_their_probabilities():
    weights, words, _, _ = random_problem(steps=1)
    rows = 4000
    word = jnp.full((rows, 1), words[0, 0])
    measure = jnp.full((rows, 1), -1)
    first = start(rows, 3, weights.theta.dtype)
    outcome, last = quantum_scan(
        weights, Activation(1, 2, 1.2), word, measure, first, key=jax.random.key(3)
    )
    p = np.asarray(outcome.probabilities[0, 0])
    counts = np.bincount(outcome.words[:, 0], minlength=4)
    # Five standard deviations.
    assert (np.abs(counts - rows * p) <= 5 * np.sqrt(rows * p * (1 - p))).all()
    assert p.max() < 0.9
    for found in np.unique(outcome.words):
        rows_with = np.flatnonzero(outcome.words[:, 0] == found)[:1]
        wanted = jnp.full((1, 1), int(found))
        arguments = word[rows_with], wanted, first[rows_with]
        _, selected = quantum_scan(weights, Activation(1, 2, 1.2), *arguments)
        np.testing.assert_allclose(last[rows_with], selected, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "order", "stages"),
    [("operators", 2, 5), ("neurons", 2, 5), ("neurons", 3, 3), ("neurons", 6, 1)],
)
def test_amplitudes_do_not_vanish_in_single_precision(method, order, stages):
    w = 4
    with jax.enable_x64(True):
        problem = random_problem(w=w, i=1, stages=stages, spread=2.0, rows=3, steps=4)
        activation = Activation(order, 2, np.pi / 2)
        run = jax.jit(quantum_scan, static_argnames=("activation", "method"))
        weights, words, targets, first = problem
        double, _ = run(weights, activation, words, targets, first, method=method)
        single = as_type(weights, jnp.float32), activation, words, targets, first.astype("float32")
        found, _ = run(*single, method=method)
        np.testing.assert_allclose(found.probabilities, double.probabilities, atol=2e-4)


def test_methods_are_chosen_by_what_takes_less():
    # Few columns: neurons; many: operators; an order so high that operators would vanish: neurons.
    assert faster_method(8, 2, 40, 24, 2, "float32") == "neurons"
    assert faster_method(8, 2, 10_000, 24, 2, "float32") == "operators"
    assert faster_method(8, 2, 10_000, 24, 4, "float32") == "neurons"
    assert faster_method(8, 2, 10_000, 24, 4, "float64") == "operators"
