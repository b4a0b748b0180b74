"""The compiled steps: sums, non-finite updates, donation, stacked states."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lru.dataloaders import Card
from lru.dataloading import Batch
from lru.layers import LAYERS
from lru.models import ModelConfig
from lru.tasks import TASKS
from lru.training.config import TrainConfig
from lru.training.optimizer import make_optimizer
from lru.training.state import NEVER, Evaluation, add_sums, init_state, make_steps, zero_sums

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


def rate(_):
    return jnp.float32(1e-2)


@pytest.fixture(scope="module")
def parts():
    """Task, optimiser, and the steps: one compilation for the module."""
    task = TASKS["classification"](CARD, MODEL)
    optimizer = make_optimizer(TrainConfig(), rate)
    graphdef, _ = init_state(task, optimizer, 0)
    steps = make_steps(task, graphdef, optimizer)
    return task, optimizer, steps, jax.jit(steps.train), jax.jit(steps.evaluate)


@pytest.fixture
def start(parts):
    task, optimizer, *_ = parts

    def state(seed=0):
        return init_state(task, optimizer, seed)[1]

    return state


def batch(seed=0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(
        inputs=jnp.asarray(rng.normal(size=(B, T, 1)), jnp.float32),
        labels=jnp.asarray(rng.integers(3, size=B), jnp.int32),
        weights=jnp.ones(B, jnp.float32),
        lengths=jnp.asarray([T, 3, 2, 1], jnp.int32),
    )


def assert_close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_a_fresh_state(parts, start):
    state = start(7)
    assert int(state.step) == 0
    assert int(state.seed) == 7
    assert float(state.lr_scale) == 1
    assert int(state.first_bad_step) == NEVER
    assert state.sums == {"loss": 0, "weight": 0, "accuracy": 0}
    assert_same(state.params, start(7).params)
    different = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, start(8).params)
    assert any(jax.tree.leaves(different))


def test_the_largest_seed_is_kept(start):
    assert int(start(2**32 - 1).seed) == 2**32 - 1


def test_an_update_counts_moves_and_adds_up(parts, start):
    *_, train, _ = parts
    before = start()
    once = train(before, batch())
    twice = train(once, batch(1))
    assert int(twice.step) == 2
    assert float(twice.sums["weight"]) == 2 * B
    assert float(once.sums["loss"]) > 0
    assert float(twice.sums["loss"]) > float(once.sums["loss"])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, once.params)
    assert all(jax.tree.leaves(moved))
    updated = jax.tree.map(lambda a, b: bool((a != b).all()), before.stats, once.stats)
    assert all(jax.tree.leaves(updated))
    assert int(twice.first_bad_step) == NEVER


def test_updates_repeat_and_dropout_differs_between_updates_and_seeds(parts, start):
    *_, train, _ = parts
    assert_same(train(start(), batch()), train(start(), batch()))
    losses = {
        float(train(state, batch()).sums["loss"])
        for state in (
            start(),
            start()._replace(step=jnp.int32(1)),
            start()._replace(seed=jnp.uint32(1)),
        )
    }
    assert len(losses) == 3


def test_training_lowers_the_loss(parts, start):
    *_, train, evaluate = parts
    state = start()
    zero = Evaluation(state.sums, state.carry)
    before = evaluate(state.params, state.stats, zero, batch()).sums
    for _ in range(30):
        state = train(state, batch())
    after = evaluate(state.params, state.stats, zero, batch()).sums
    assert float(after["loss"]) < 0.7 * float(before["loss"])


def test_the_scale_multiplies_the_update(parts, start):
    *_, train, _ = parts
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


def test_evaluation_adds_sums_without_dropout_and_changes_nothing(parts, start):
    *_, evaluate = parts
    state = start()
    zero = Evaluation(state.sums, state.carry)
    once = evaluate(state.params, state.stats, zero, batch())
    twice = evaluate(state.params, state.stats, once, batch())
    expected = {name: 2 * total for name, total in once.sums.items()}
    assert_close(twice.sums, expected, rtol=1e-6)


def test_taking_sums_leaves_zeros_and_the_rest(parts, start):
    _, _, steps, train, _ = parts
    state = train(start(), batch())
    emptied, sums = jax.jit(steps.take_sums)(state)
    assert_same(sums, state.sums)
    assert not any(emptied.sums.values())
    assert_same(emptied._replace(sums=state.sums), state)


def test_zero_sums_name_what_the_task_sums(parts):
    task, *_ = parts
    sums = add_sums(zero_sums(task), jnp.float32(2), jnp.float32(3), {"accuracy": jnp.float32(1)})
    assert sums == {"loss": 2, "weight": 3, "accuracy": 1}


# Updates that are not finite.


def poisoned(value=np.nan):
    good = batch()
    return good._replace(inputs=good.inputs.at[0, 0, 0].set(value))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_update_that_is_not_finite_is_remembered(parts, start, value):
    *_, train, _ = parts
    state = train(start(), batch())
    state = train(state, poisoned(value))
    assert int(state.first_bad_step) == 1
    state = train(state, batch())
    state = train(state, poisoned(value))
    assert int(state.first_bad_step) == 1


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is(parts):
    task, *_ = parts

    class Kinked(type(task)):
        """Adds sqrt(0) of a parameter: zero, with an infinite slope."""

        def loss_and_metrics(self, model, batch, rng):
            loss, weight, metrics = super().loss_and_metrics(model, batch, rng)
            bias = model.head.bias[...]
            return loss + jnp.sqrt(jnp.abs(bias)).sum(), weight, metrics

    kinked = Kinked(CARD, MODEL)
    optimizer = optax.sgd(0.0)
    graphdef, state = init_state(kinked, optimizer, 0)
    state = jax.jit(make_steps(kinked, graphdef, optimizer).train)(state, batch())
    assert np.isfinite(float(state.sums["loss"]))
    assert int(state.first_bad_step) == 0


def test_padding_changes_no_update(parts, start):
    *_, train, _ = parts
    good = batch()
    other = good._replace(inputs=good.inputs.at[3, 1:].set(50.0))
    assert_close(train(start(), other), train(start(), good), rtol=1e-4, atol=1e-6)


# Donation and stacked states.


def test_states_may_be_donated(parts, start):
    _, _, steps, train, _ = parts
    donating = jax.jit(steps.train, donate_argnums=0)
    taking = jax.jit(steps.take_sums, donate_argnums=0)
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


def test_a_fresh_state_shares_no_buffers(parts, start):
    leaves = jax.tree.leaves(start())
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves]
    assert len(set(pointers)) == len(pointers)


def test_stacked_states_train_as_they_do_apart(parts, start):
    _, _, steps, train, _ = parts
    apart = [start(seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart)
    together = jax.jit(jax.vmap(steps.train, in_axes=(0, None)))
    for i in range(2):
        stacked = together(stacked, batch(i))
        apart = [train(state, batch(i)) for state in apart]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart)
    assert_close(stacked, expected, rtol=1e-3, atol=1e-5)
    assert not np.allclose(stacked.sums["loss"][0], stacked.sums["loss"][1])


@pytest.mark.parametrize("model", LAYERS)
def test_a_step_multiplies_no_complex_matrices(model):
    config = ModelConfig(model=model, n_layers=1, d_model=4, d_hidden=3)
    task = TASKS["classification"](CARD, config)
    optimizer = make_optimizer(TrainConfig(), rate)
    graphdef, state = init_state(task, optimizer, 0)
    text = jax.jit(make_steps(task, graphdef, optimizer).train).lower(state, batch()).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert not [line for line in products if "complex" in line]
