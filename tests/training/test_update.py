"""The compiled functions: sums, microbatches, non-finite updates, donation, stacked states."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lru.batches import Batch, Streams
from lru.dataloaders import Card, Ragged
from lru.layers import LAYERS
from lru.models import ModelConfig
from lru.tasks import TASKS, Mean
from lru.training.config import TrainConfig
from lru.training.optimizer import SGD, AdamW, make_optimizer
from lru.training.progress import Stopwatch
from lru.training.update import (
    NEVER,
    CompiledByShape,
    Evaluation,
    Weights,
    init_state,
    make_functions,
)

B, T = 4, 5
CARD = Card(
    name="toy",
    version=1,
    kind="values",
    n_classes=3,
    n_features=1,
    targets="class",
    max_length=T,
)
MODEL = ModelConfig(model="lru", n_layers=1, d_model=4, d_hidden=3, p_dropout=0.3)


def building(rule, rate):
    """Builds a rule of the updates with a constant rate."""

    def build(values):
        schedule = optax.constant_schedule(rate)
        return make_optimizer(rule, TrainConfig(), schedule), schedule

    return build


ADAMW = building(AdamW(), 1e-2)


@pytest.fixture(scope="module")
def parts():
    """The functions, and two of them compiled: once for the module."""
    task = TASKS["classification"](CARD, MODEL)
    functions = make_functions(task, init_state(task, ADAMW, 0)[0], ADAMW)
    return functions, jax.jit(functions.train), jax.jit(functions.evaluate)


def start(seed=0):
    return init_state(TASKS["classification"](CARD, MODEL), ADAMW, seed)[1]


def batch(seed=0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        inputs=jnp.asarray(rng.normal(size=(B, T, 1)), jnp.float32),
        labels=jnp.asarray(rng.integers(3, size=B), jnp.int32),
        weights=jnp.ones(B, jnp.float32),
        lengths=jnp.asarray([T, 3, 2, 1], jnp.int32),
    )


# Before the first batch.
NOTHING = Evaluation(
    {"loss": Mean.empty(), "accuracy": Mean.empty()},
    carry=(),
    batch=jnp.int32(0),
    counts={"confusion": jnp.zeros((3, 3), jnp.int32)},
)


def weights_of(state):
    return Weights(state.params, state.stats, state.seed)


def assert_close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_fresh_state():
    state = start(7)
    assert int(state.step) == 0
    assert int(state.seed) == 7
    assert float(state.lr_scale) == 1
    assert int(state.first_bad_step) == NEVER
    assert state.sums == {"loss": Mean(0, 0), "accuracy": Mean(0, 0)}
    assert state.carry == ()
    assert state.lane == {}
    assert_same(state.params, start(7).params)
    different = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, start(8).params)
    assert any(jax.tree.leaves(different))


def test_the_largest_seed_is_kept():
    assert int(start(2**32 - 1).seed) == 2**32 - 1


def test_an_update_counts_moves_and_adds_up(parts):
    _, train, _ = parts
    before = start()
    once = train(before, batch())
    twice = train(once, batch(1))
    assert int(twice.step) == 2
    assert [metric.weight for metric in twice.sums.values()] == [2 * B, 2 * B]
    assert 0 < once.sums["loss"].total < twice.sums["loss"].total
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, once.params)
    assert all(jax.tree.leaves(moved))
    updated = jax.tree.map(lambda a, b: bool((a != b).all()), before.stats, once.stats)
    assert all(jax.tree.leaves(updated))
    assert int(twice.first_bad_step) == NEVER


def test_updates_repeat_and_dropout_differs_between_updates_and_seeds(parts):
    _, train, _ = parts
    assert_same(train(start(), batch()), train(start(), batch()))
    losses = {
        float(train(state, batch()).sums["loss"].total)
        for state in (
            start(),
            start()._replace(step=jnp.int32(1)),
            start()._replace(seed=jnp.uint32(1)),
        )
    }
    assert len(losses) == 3


def test_training_lowers_the_loss(parts):
    _, train, evaluate = parts
    state = start()
    before = evaluate(NOTHING, weights_of(state), batch()).sums["loss"]
    for _ in range(30):
        state = train(state, batch())
    after = evaluate(NOTHING, weights_of(state), batch()).sums["loss"]
    assert after.total < 0.7 * before.total


def test_the_scale_multiplies_the_update(parts):
    _, train, _ = parts
    state = start()
    whole = train(state, batch())
    half = train(state._replace(lr_scale=jnp.float32(0.5)), batch())
    assert_close(
        jax.tree.map(lambda a, b: 2 * (a - b), half.params, state.params),
        jax.tree.map(lambda a, b: a - b, whole.params, state.params),
        rtol=1e-3,
        atol=1e-6,
    )
    none = train(state._replace(lr_scale=jnp.float32(0)), batch())
    assert_same(none.params, state.params)


def test_evaluation_adds_sums_without_dropout_and_changes_nothing(parts):
    *_, evaluate = parts
    once = evaluate(NOTHING, weights_of(start()), batch())
    twice = evaluate(once, weights_of(start()), batch())
    assert [int(done.batch) for done in (once, twice)] == [1, 2]
    assert_close(twice.sums, jax.tree.map(lambda total: 2 * total, once.sums), rtol=1e-6)


def test_taking_sums_leaves_zeros_and_the_rest(parts):
    functions, train, _ = parts
    state = train(start(), batch())
    emptied, sums = jax.jit(functions.take_sums)(state)
    assert_same(sums, state.sums)
    assert not any(jax.tree.leaves(emptied.sums))
    assert_same(emptied._replace(sums=state.sums), state)


# Microbatches.

PLAIN = dict(n_layers=1, d_model=4, d_hidden=3, body_options={"norm": "layer"}, p_dropout=0.0)
ROWS = 7


def ragged():
    """A classifier, and rows of uneven lengths of which the last is a filler."""
    rng = np.random.default_rng(0)
    rows = Batch(
        inputs=rng.normal(size=(ROWS, T, 1)),
        labels=rng.integers(3, size=ROWS).astype(np.int32),
        # Their sum is less than 1.
        weights=np.float32([0.125] * (ROWS - 1) + [0]),
        lengths=np.int32([T, 3, 1, T, 2, 4, 0]),
    )
    return TASKS["classification"](CARD, ModelConfig("lru", **PLAIN)), rows


def text():
    """A language model, and the second chunk of uneven streams: it has a carry to start from."""
    tokens = np.random.default_rng(0).integers(5, size=ROWS * 8 - 5).astype(np.uint8)
    lines = Ragged(tokens, np.array([0, len(tokens)]), np.array([-1], np.int32))
    _, chunk = Streams(lines, ROWS, 5, boundary=0).epoch()
    card = Card(name="text", version=1, kind="text", n_classes=5, targets="tokens", max_length=8)
    return TASKS["language_modelling"](card, ModelConfig("lru", **PLAIN)), chunk


@pytest.mark.parametrize("make", [ragged, text])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_microbatches_give_the_gradient_of_the_whole(make, dtype, tolerance):
    def in_type(leaf):
        inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jnp.asarray(leaf, jnp.result_type(dtype, leaf) if inexact else leaf.dtype)

    def loss(params):
        model = nnx.merge(graphdef, params, state.stats)
        found = task.loss(model, rows, state.carry, None, train=True)
        return found.loss.total / found.loss.weight, found

    def assert_near(found, expected):
        difference = optax.tree.norm(jax.tree.map(jnp.subtract, found, expected))
        assert difference <= tolerance * optax.tree.norm(expected)

    with jax.enable_x64(dtype == "float64"):
        task, rows = make()
        rows = jax.tree.map(in_type, rows)
        build = building(SGD(lr_factor=1.0, weight_decay=0.0), 1.0)
        graphdef, state = init_state(task, build, 0, ROWS)
        carry = jax.tree.map(lambda leaf: leaf + 0.5, state.carry)
        state = state._replace(params=jax.tree.map(in_type, state.params), carry=carry)
        state = state._replace(carry=jax.tree.map(in_type, state.carry))
        gradient, expected = jax.jit(jax.grad(loss, has_aux=True))(state.params)
        for parts in (1, 2, 3, 7):
            functions = make_functions(task, graphdef, build, -(-ROWS // parts))
            after = jax.jit(functions.train)(state, rows)
            assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(dtype)}
            assert_near(jax.tree.map(jnp.subtract, state.params, after.params), gradient)
            assert_near(after.carry, expected.carry)
            sums = {"loss": expected.loss, **expected.metrics}
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.sums, sums)


# Updates that are not finite.


def poisoned(value=np.nan):
    good = batch()
    return good._replace(inputs=good.inputs.at[0, 0, 0].set(value))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_update_that_is_not_finite_is_remembered(parts, value):
    _, train, _ = parts
    state = train(start(), batch())
    state = train(state, poisoned(value))
    assert int(state.first_bad_step) == 1
    state = train(state, batch())
    state = train(state, poisoned(value))
    assert int(state.first_bad_step) == 1


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is():
    class Kinked(TASKS["classification"]):
        """Adds sqrt(0) of a parameter: zero, with an infinite slope."""

        def loss(self, model, batch, carry, key, *, train):
            found = super().loss(model, batch, carry, key, train=train)
            root = jnp.sqrt(jnp.abs(model.head.bias[...])).sum()
            return found._replace(loss=found.loss.merge(Mean(root, 0.0)))

    kinked, build = Kinked(CARD, MODEL), building(SGD(), 0.0)
    graphdef, state = init_state(kinked, build, 0)
    state = jax.jit(make_functions(kinked, graphdef, build).train)(state, batch())
    assert np.isfinite(float(state.sums["loss"].total))
    assert int(state.first_bad_step) == 0


def test_padding_changes_no_update(parts):
    _, train, _ = parts
    good = batch()
    other = good._replace(inputs=good.inputs.at[3, 1:].set(50.0))
    assert_close(train(start(), other), train(start(), good), rtol=1e-4, atol=1e-6)


# Donation and stacked states.


def test_states_may_be_donated(parts):
    functions, train, _ = parts
    donating = jax.jit(functions.train, donate_argnums=0)
    taking = jax.jit(functions.take_sums, donate_argnums=0)
    plain = state = start()
    state = jax.tree.map(jnp.copy, state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(3):
            state, plain = donating(state, batch(i)), train(plain, batch(i))
        state, sums = taking(state)
        state = donating(state, batch(3))
    assert_close(sums, plain.sums, rtol=1e-5)
    assert_close(state.params, train(plain, batch(3)).params, rtol=1e-5, atol=1e-7)


def test_a_fresh_state_shares_no_buffers():
    leaves = jax.tree.leaves(start())
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves]
    assert len(set(pointers)) == len(pointers)


def test_stacked_states_train_as_they_do_apart(parts):
    functions, train, _ = parts
    apart = [start(seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart)
    together = jax.jit(jax.vmap(functions.train, in_axes=(0, None)))
    for i in range(2):
        stacked = together(stacked, batch(i))
        apart = [train(state, batch(i)) for state in apart]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart)
    assert_close(stacked, expected, rtol=1e-3, atol=1e-5)
    one, other = stacked.sums["loss"].total
    assert not np.allclose(one, other)


@pytest.mark.parametrize("model", LAYERS)
def test_a_step_multiplies_no_complex_matrices(model):
    config = ModelConfig(model=model, n_layers=1, d_model=4, d_hidden=4)
    task = TASKS["classification"](CARD, config)
    graphdef, state = init_state(task, ADAMW, 0)
    text = jax.jit(make_functions(task, graphdef, ADAMW).train).lower(state, batch()).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert not [line for line in products if "complex" in line]


def test_reports_of_newtons_method_are_logged_with_the_metrics():
    options = {"time_method": "newton"}
    model = ModelConfig(model="gru", n_layers=2, d_model=4, d_hidden=3, options=options)
    task = TASKS["classification"](CARD, model)
    graphdef, before = init_state(task, ADAMW, 0)
    functions = make_functions(task, graphdef, ADAMW, microbatch=2)
    state = jax.jit(functions.train)(before, batch())
    fresh, sums = jax.jit(functions.take_sums)(state)
    assert fresh.sums.keys() == before.sums.keys()
    report = task.report(sums)
    assert 1 <= report["newton_iterations"] <= 10
    assert report["newton_residual"] <= 1e-5
    assert report["newton_failures"] == 0


@pytest.mark.parametrize("model", ["lru", "mingru"])
def test_an_update_in_bfloat16_takes_three_quarters_of_the_memory_or_less(model):
    card = dataclasses.replace(CARD, kind="tokens", n_features=None, vocab_size=9)
    tokens = jnp.ones((8, 256), jnp.uint8)
    rows = Batch(tokens, jnp.zeros(8, jnp.int32), jnp.ones(8), lengths=jnp.full(8, 99))

    def memory(dtype):
        sizes = {"n_layers": 4, "d_model": 32, "d_hidden": 16, "body_options": {"dtype": dtype}}
        task = TASKS["classification"](card, ModelConfig(model=model, **sizes))
        graphdef, state = init_state(task, ADAMW, 0)
        update = CompiledByShape(make_functions(task, graphdef, ADAMW).train, Stopwatch())
        return update.program(state, rows).memory_analysis().temp_size_in_bytes

    assert memory("bfloat16") < 0.75 * memory("float32")
