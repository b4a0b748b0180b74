"""The schedule at every update, and the two groups of parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lru.config import Config, OptimizerConfig
from lru.layers import LAYERS, RecurrentParam
from lru.models import Classifier, ModelConfig
from lru.training.config import TrainConfig
from lru.training.optimizer import (
    SGD,
    Adagrad,
    AdamW,
    Lion,
    Muon,
    RMSProp,
    make_optimizer,
    make_schedule,
)

STEPS_PER_EPOCH = 10
CONFIG = TrainConfig(lr_base=1e-3, lr_min=1e-6, warmup_end=2)
ADAMW = AdamW(lr_factor=0.25, weight_decay=0.05)


def rates(total, **changes):
    schedule = make_schedule(dataclasses.replace(CONFIG, **changes), STEPS_PER_EPOCH, total)
    return np.array(jax.vmap(schedule)(jnp.arange(total)), np.float64)


def test_warm_up_is_linear_and_the_cosine_starts_where_it_ends():
    lr = rates(100)
    np.testing.assert_allclose(lr[:21], np.linspace(1e-6, 1e-3, 21), rtol=1e-5)
    assert lr.argmax() == 20
    # The first step of a half cosine of 79 steps takes 4e-4 of the height.
    assert 0 < lr[20] - lr[21] < 1e-6


def test_the_cosine_ends_at_lr_min_at_the_last_update():
    lr = rates(100)
    np.testing.assert_allclose(lr[-1], 1e-6, rtol=1e-5)
    assert (np.diff(lr[20:]) < 0).all()
    share = np.arange(80) / 79
    expected = 1e-6 + (1e-3 - 1e-6) * (1 + np.cos(np.pi * share)) / 2
    np.testing.assert_allclose(lr[20:], expected, rtol=1e-4)


@pytest.mark.parametrize("total", [22, 23, 57, 1000])
def test_the_last_update_is_at_lr_min_whatever_the_length(total):
    np.testing.assert_allclose(rates(total)[-1], 1e-6, rtol=1e-5)


@pytest.mark.parametrize("total", [2, 40])
def test_without_warm_up_the_first_update_is_at_lr_base(total):
    lr = rates(total, warmup_end=0)
    np.testing.assert_allclose(lr[[0, -1]], [1e-3, 1e-6], rtol=1e-5)


@pytest.mark.parametrize("total", [1, 12, 20])
def test_a_run_shorter_than_its_warm_up_stays_on_the_ramp(total):
    np.testing.assert_allclose(rates(total), rates(100)[:total], rtol=1e-6)


def test_without_the_cosine_the_rate_stays_at_lr_base():
    lr = rates(60, cosine_anneal=False)
    np.testing.assert_allclose(lr[:20], rates(100)[:20], rtol=1e-6)
    np.testing.assert_allclose(lr[20:], 1e-3, rtol=1e-6)


@pytest.mark.parametrize("changes", [{"lr_min": 0.0}, {"lr_min": 0.0, "lr_base": 0.0}])
def test_rates_of_zero_are_allowed(changes):
    lr = rates(100, **changes)
    assert np.isfinite(lr).all()
    assert lr[-1] == pytest.approx(0, abs=1e-10)


# Groups.


def parameters(model, bidirectional) -> nnx.State:
    config = ModelConfig(
        model=model,
        n_layers=1,
        d_model=3,
        d_hidden=4,
        body_options={"bidirectional": bidirectional},
    )
    params = nnx.state(Classifier(config, 2, vocab_size=5, rngs=nnx.Rngs(0)), nnx.Param)
    # Ones, so that decay and rate show in every leaf alike.
    return jax.tree.map(jnp.ones_like, params)


def update(params, gradient, schedule=lambda _: jnp.float32(1e-2), n_updates=1, **changes):
    """Change of each parameter, by path, and whether it belongs to the recurrence."""
    optimizer = make_optimizer(dataclasses.replace(ADAMW, **changes), CONFIG, schedule)
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)

    @jax.jit
    def run(params):
        state = optimizer.init(params)
        updates = grads
        for _ in range(n_updates):
            updates, state = optimizer.update(grads, state, params)
        return updates

    return {
        path: (np.asarray(leaf[...]), isinstance(leaf, RecurrentParam))
        for path, leaf in nnx.to_flat_state(run(params))
    }


# All that happens in their recurrences comes from gates, which the inputs make alone.
BY_INPUTS_ALONE = {"deltanet", "hgrn", "mingru", "minlstm", "mlstm", "qrnn"}
each_model = pytest.mark.parametrize("model", list(LAYERS))
both_directions = pytest.mark.parametrize("bidirectional", [False, True])


@each_model
@both_directions
def test_only_regular_parameters_decay(model, bidirectional):
    updates = update(parameters(model, bidirectional), 0.0)
    assert {recurrent for _, recurrent in updates.values()} == {model not in BY_INPUTS_ALONE, False}
    for path, (change, recurrent) in updates.items():
        expected = 0 if recurrent else -1e-2 * 0.05
        np.testing.assert_allclose(change, expected, rtol=1e-5, err_msg=str(path))


@each_model
@both_directions
def test_recurrent_parameters_take_smaller_steps(model, bidirectional):
    updates = update(parameters(model, bidirectional), 3.0, weight_decay=0.0)
    for path, (change, recurrent) in updates.items():
        # The first update of Adam is the rate, whatever the gradient.
        np.testing.assert_allclose(
            change, -1e-2 * (0.25 if recurrent else 1), rtol=1e-4, err_msg=str(path)
        )


@pytest.mark.parametrize("model", list(LAYERS))
def test_the_recurrence_is_the_group_and_nothing_else_is(model):
    params = parameters(model, True)
    owners = {
        path[-3:-1] for path, leaf in nnx.to_flat_state(params) if isinstance(leaf, RecurrentParam)
    }
    both = {("recurrence", "forward"), ("recurrence", "backward")}
    assert owners == (set() if model in BY_INPUTS_ALONE else both)


def test_both_groups_follow_the_schedule():
    params = parameters("lru", False)
    first, third = (
        update(params, 1.0, lambda count: 1e-2 / (1 + count), n, weight_decay=0.0) for n in (1, 3)
    )
    for path, (change, _) in first.items():
        np.testing.assert_allclose(third[path][0], change / 3, rtol=1e-4, err_msg=str(path))


def test_a_factor_of_zero_freezes_the_recurrence_alone():
    for change, recurrent in update(parameters("lru", False), 1.0, lr_factor=0.0).values():
        assert bool(change.any()) != recurrent


def test_clipping_is_by_the_norm_of_all_gradients():
    params = parameters("lru", False)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    # Adam's epsilon of 1e-8 shows once the gradients are as small: clipped to a norm of
    # 1e-8 sqrt(size), each is 1e-8 and the update is half a rate.
    updates = update(params, 5.0, clip_norm=1e-8 * size**0.5, weight_decay=0.0)
    for path, (change, recurrent) in updates.items():
        np.testing.assert_allclose(
            change, -0.5e-2 * (0.25 if recurrent else 1), rtol=1e-3, err_msg=str(path)
        )


def test_the_rate_decays_after_each_epoch_from_one_on():
    lr = rates(50, warmup_end=0, cosine_anneal=False, lr_decay=0.5, lr_decay_from=2)
    expected = 1e-3 * np.repeat([1, 1, 0.5, 0.25, 0.125], STEPS_PER_EPOCH)
    np.testing.assert_allclose(lr, expected, rtol=1e-6)


def test_the_rate_drops_at_epochs_counted_after_warm_up():
    lr = rates(50, warmup_end=1, cosine_anneal=False, lr_drops="1, 3")
    expected = 1e-3 * np.repeat([1, 0.1, 0.1, 0.01], STEPS_PER_EPOCH)
    np.testing.assert_allclose(lr[STEPS_PER_EPOCH:], expected, rtol=1e-6)


def test_noam_falls_with_the_root_of_the_update_after_warm_up():
    lr = rates(100, warmup_end=0, warmup_steps=16, cosine_anneal=False, noam=True, lr_min=0.0)
    step = np.arange(100)
    published = np.minimum(step / 16**1.5, 1 / np.sqrt(np.maximum(step, 1)))
    np.testing.assert_allclose(lr, 1e-3 * 4 * published, rtol=1e-6)


def test_sgd_decays_all_parameters_after_clipping_and_slows_recurrent_ones():
    optimizer = SGD(lr_factor=0.5, weight_decay=0.1, clip_norm=1.0).build(lambda count: 2.0)
    params = nnx.State({"a": nnx.Param(jnp.array([3.0])), "b": RecurrentParam(jnp.array([4.0]))})
    gradients = jax.tree.map(lambda leaf: 10 * leaf, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # The gradient has norm 50; clipped it is 3 / 5 and 4 / 5.
    np.testing.assert_allclose(updates["a"][...], [-2.0 * (0.6 + 0.3)], rtol=1e-6)
    np.testing.assert_allclose(updates["b"][...], [-1.0 * (0.8 + 0.4)], rtol=1e-6)


def test_rmsprop_divides_by_the_root_of_the_mean_square_and_decays_all_parameters():
    optimizer = RMSProp(lr_factor=0.5, weight_decay=0.1).build(lambda count: 2.0)
    params = nnx.State({"a": nnx.Param(jnp.array([3e-7])), "b": RecurrentParam(jnp.array([4.0]))})
    state = optimizer.init(params)
    mean = np.zeros(2)
    for scale in (1.0, -3.0):
        gradients = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
        updates, state = optimizer.update(gradients, state, params)
        decayed = scale * np.array([3e-7, 4.0]) + 0.1 * np.array([3e-7, 4.0])
        mean = 0.9 * mean + 0.1 * decayed**2
        expected = -np.array([2.0, 1.0]) * decayed / (np.sqrt(mean) + 1e-8)
        found = [updates["a"][0], updates["b"][0]]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "peer", "options"),
    [
        (RMSProp(decay=0.99, weight_decay=0.0), "RMSprop", {"alpha": 0.99, "eps": 1e-8}),
        (AdamW(weight_decay=0.1), "AdamW", {"weight_decay": 0.1}),
        (
            SGD(weight_decay=0.1, momentum=0.9, nesterov=True),
            "SGD",
            {"weight_decay": 0.1, "momentum": 0.9, "nesterov": True},
        ),
        (Adagrad(weight_decay=0.1), "Adagrad", {"weight_decay": 0.1, "eps": 0.0}),
    ],
    ids=["rmsprop", "adamw", "sgd", "adagrad"],
)
def test_equals_that_of_torch(optimizer, peer, options):
    """Updates of regular parameters, from gradients that are clipped at first and then are not."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    start = [np.array([3.0, -1.0]), np.array([[0.5]])]
    tensors = [torch.tensor(values, requires_grad=True) for values in start]
    theirs = getattr(torch.optim, peer)(tensors, lr=0.01, **options)
    with jax.enable_x64(True):
        mine = dataclasses.replace(optimizer, lr_factor=1.0, clip_norm=2.0)
        mine = mine.build(optax.constant_schedule(0.01))
        params = nnx.State({i: nnx.Param(jnp.asarray(values)) for i, values in enumerate(start)})
        state = mine.init(params)
        for scale in (2.0, -1.0, 0.3, 0.1):
            for tensor in tensors:
                tensor.grad = scale * tensor.detach()
            torch.nn.utils.clip_grad_norm_(tensors, 2.0)
            theirs.step()
            gradients = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
            updates, state = mine.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
            for i, tensor in enumerate(tensors):
                expected = tensor.detach().numpy()
                np.testing.assert_allclose(params[i][...], expected, rtol=1e-13)


@pytest.mark.parametrize("kind", [AdamW, Lion, Muon, SGD])
def test_vectors_are_spared_the_decay_on_request(kind):
    params = nnx.State({"bias": nnx.Param(jnp.ones(3)), "kernel": nnx.Param(jnp.eye(3))})
    gradients = jax.tree.map(lambda leaf: 0.1 * leaf, params)

    def updates(**options):
        optimizer = kind(**options).build(lambda count: 0.1)
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    plain, all_decay = updates(weight_decay=0.0), updates(weight_decay=0.5)
    spared = updates(weight_decay=0.5, decay_vectors=False)
    np.testing.assert_array_equal(spared["bias"][...], plain["bias"][...])
    np.testing.assert_array_equal(spared["kernel"][...], all_decay["kernel"][...])
    for name in ("bias", "kernel"):
        difference = all_decay[name][...] - plain[name][...]
        np.testing.assert_allclose(difference, -0.05 * params[name][...], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("averages", [False, True])
def test_the_factor_multiplies_updates_alone(averages):
    config = TrainConfig(average_from=0 if averages else None)
    optimizer = make_optimizer(ADAMW, config, lambda _: jnp.float32(1e-2))
    params = parameters("lru", False)
    grads, state = jax.tree.map(lambda leaf: 3 * leaf, params), optimizer.init(params)
    whole, after = optimizer.update(grads, state, params)
    half, same = optimizer.update(grads, state, params, factor=0.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b, rtol=1e-6), whole, half)
    jax.tree.map(np.testing.assert_array_equal, after, same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_factor": -1.0}, "lr_factor must not be negative, got -1.0"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative, got -0.1"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
        ({"decay": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RMSProp(**options)


def test_an_unknown_optimizer_lists_the_known_ones():
    known = "known: adagrad, adam, adamw, lbfgs, lion, muon, rmsprop, sgd"
    with pytest.raises(ValueError, match=f"unknown optimizer 'newton'.*{known}"):
        Config(optimizer=OptimizerConfig("newton")).make_optimizer()
