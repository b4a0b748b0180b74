"""Averaging of iterates, beside plain means and recorded iterates of torch.optim.ASGD."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lru.training.averaging import (
    average_iterates,
    averaged_params,
    begin_averaging,
    end_averaging,
    stopped_improving,
)
from lru.training.config import TrainConfig
from lru.training.optimizer import AdamW, make_optimizer

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "qrnn_reference.npz")


def run(optimizer, params, grads, trigger=None, scale=1.0, least_weight=0.0):
    """Parameters and what would be evaluated after 0, 1, ... updates; triggered before one."""
    state = optimizer.init(params)
    iterates, means = [params], [averaged_params(state, params, least_weight)]
    update = jax.jit(optimizer.update)
    for k, grad in enumerate(grads):
        if k == trigger:
            state = begin_averaging(state)
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u: scale * u, updates))
        iterates.append(params)
        means.append(averaged_params(state, params, least_weight))
    return np.array(iterates), np.array(means), state


def random_grads(n):
    return list(jax.random.normal(jax.random.key(0), (n, 3)))


def sgd(**options):
    return optax.chain(average_iterates(**options), optax.sgd(0.1))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_mean_is_that_of_the_iterates_since_the_trigger(scale):
    iterates, means, _ = run(sgd(), jnp.ones(3), random_grads(9), trigger=4, scale=scale)
    np.testing.assert_array_equal(means[:5], iterates[:5])
    for k in range(5, 10):
        np.testing.assert_allclose(means[k], iterates[4 : k + 1].mean(axis=0), rtol=1e-6)


def test_training_goes_on_from_the_iterates_themselves():
    plain = run(sgd(), jnp.ones(3), random_grads(9))
    averaging = run(sgd(), jnp.ones(3), random_grads(9), trigger=2)
    np.testing.assert_array_equal(plain[0], averaging[0])
    np.testing.assert_array_equal(plain[1], plain[0])


def test_from_the_start_all_iterates_count():
    iterates, means, _ = run(sgd(from_start=True), jnp.ones(3), random_grads(5))
    for k in range(6):
        np.testing.assert_allclose(means[k], iterates[: k + 1].mean(axis=0), rtol=1e-6)


def test_an_exponential_mean_begins_as_a_plain_one():
    options = {"from_start": True, "least_weight": 0.4}
    iterates, means, _ = run(sgd(**options), jnp.ones(3), random_grads(5), least_weight=0.4)
    expected = iterates[0]
    for k, weight in enumerate([1, 1 / 2, 0.4, 0.4, 0.4, 0.4]):
        expected = expected + weight * (iterates[k] - expected)
        np.testing.assert_allclose(means[k], expected, rtol=1e-6)


def test_recorded_iterates_of_asgd():
    # There each update has the rate given to the one before, and the mean starts at the second.
    rates = jnp.asarray([1.0, *RECORDED["asgd/lrs"][:-1]])
    optimizer = optax.chain(
        average_iterates(),
        optax.add_decayed_weights(0.01),
        optax.sgd(lambda count: rates[count]),
    )
    start, grads = jnp.asarray(RECORDED["asgd/p0"]), jnp.asarray(RECORDED["asgd/grads"])
    iterates, means, _ = run(optimizer, start, grads, trigger=2)
    np.testing.assert_allclose(iterates[1:], RECORDED["asgd/p"], atol=1e-6)
    np.testing.assert_allclose(means[1:], RECORDED["asgd/ax"], atol=1e-6)


def test_the_mean_is_found_in_the_state_of_the_whole_optimiser():
    params = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
    config = TrainConfig(average_from=1)
    optimizer = make_optimizer(AdamW(), config, optax.constant_schedule(0.1))
    state = begin_averaging(optimizer.init(params))
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = optimizer.update(grads, state, params)
    moved = optax.apply_updates(params, updates)
    mean = averaged_params(state, moved)
    for halfway, first, last in zip(*map(jax.tree.leaves, (mean, params, moved)), strict=True):
        np.testing.assert_allclose(halfway, (first + last) / 2, rtol=1e-6)
        assert not np.array_equal(first, last)


def test_ended_averaging_leaves_the_mean_as_plain_parameters():
    optimizer = sgd(from_start=True)
    iterates, means, state = run(optimizer, jnp.ones(3), random_grads(5))
    ended, params = end_averaging(state, iterates[-1])
    np.testing.assert_array_equal(params, means[-1])
    np.testing.assert_array_equal(averaged_params(ended, params), means[-1])
    _, after = optimizer.update(jnp.ones(3), ended, params)
    np.testing.assert_array_equal(averaged_params(after, 2 * params), 2 * params)


def test_a_chain_without_a_mean_never_averages():
    state, params = optax.sgd(0.1).init(jnp.ones(3)), jnp.ones(3)
    assert averaged_params(state, params) is params
    assert end_averaging(state, params) == (state, params)
    with pytest.raises(ValueError, match="opt_state must be that of a chain with average_iterates"):
        begin_averaging(state)


def test_params_are_needed():
    optimizer = average_iterates()
    with pytest.raises(ValueError, match="params must be given"):
        optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)))


@pytest.mark.parametrize(
    ("losses", "window", "stopped"),
    [
        ([], 1, False),
        ([3.0], 1, False),
        ([1.0, 2.0], 1, False),
        ([3.0, 2.0, 4.0], 1, True),
        ([3.0, 2.0, 3.0], 1, False),
        ([3.0, 2.0, 2.5, 2.5], 1, True),
        ([3.0, 2.0, 2.5, 2.5], 2, False),
        ([2.0, 3.0, 3.0, 3.0], 3, False),
        ([2.0, 3.0, 3.0, 3.0, 2.1], 3, True),
        ([5.0, 4.0, 3.0, 2.0, 1.0, 0.5], 1, False),
    ],
)
def test_the_trigger(losses, window, stopped):
    assert stopped_improving(losses, window) is stopped


def test_a_window_below_one_is_refused():
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        stopped_improving([1.0], 0)
