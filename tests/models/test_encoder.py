"""The block against its equation, and the encoder's norms, dropout and states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.analysis import recurrent_layers
from lru.layers import LRU, Convolved
from lru.models import Block, Encoder, ModelConfig
from lru.models.encoder import BATCH_NORM_MOMENTUM, BlockOptions, step_mask

B, T, D, N = 3, 7, 4, 3
TINY = ModelConfig(model="lru", n_layers=2, d_model=D, d_hidden=N, p_dropout=0.0)
LENGTHS = np.array([T, 4, 1], np.int32)


def block(own=None, **changes) -> Block:
    return Block(dataclasses.replace(TINY, **changes), own, rngs=nnx.Rngs(0))


def encoder(own=None, **changes) -> Encoder:
    return Encoder(dataclasses.replace(TINY, **changes), own, rngs=nnx.Rngs(0))


def features(rows=B, steps=T, seed=0):
    return np.array(3 + 2 * jax.random.normal(jax.random.key(seed), (rows, steps, D)))


def valid(lengths=LENGTHS, steps=T):
    return np.arange(steps) < lengths[:, None]


@nnx.jit
def run(module, x, state=None, lengths=None, resets=None):
    return module(x, state, lengths=lengths, resets=resets)


@nnx.jit
def advance(module, x_t, state):
    return module.step(x_t, state)


@nnx.jit
def train(module, x, lengths=None, key=None):
    return module(x, lengths=lengths, train=True, key=key)[0]


def as_numpy(module):
    """Parameters and running statistics in double precision, by path."""
    return {
        ".".join(map(str, path)): np.asarray(leaf[...], np.float64)
        for path, leaf in nnx.to_flat_state(nnx.state(module))
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    """The tanh form, which is the default of `nnx.gelu`."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def normalise(p, x, norm):
    if norm == "layer":
        mean, var, eps = x.mean(-1, keepdims=True), x.var(-1, keepdims=True), 1e-6
    else:
        mean, var, eps = p["norm.mean"], p["norm.var"], 1e-5
    return (x - mean) / np.sqrt(var + eps) * p["norm.scale"] + p["norm.bias"]


def recurrence(p, x):
    """The LRU of arXiv 2303.06349, equations 1, 2, 6 and 7, one step after another."""
    r = {name.removeprefix("recurrence."): value for name, value in p.items()}
    eigenvalues = np.exp(-np.exp(r["nu_log"]) + 1j * np.exp(r["theta_log"]))
    B_complex = (r["B"][:, :N] + 1j * r["B"][:, N:]) * np.exp(r["gamma_log"])
    C_complex = r["C"][:N] - 1j * r["C"][N:]
    h, y = np.zeros((len(x), N), complex), []
    for t in range(x.shape[1]):
        h = eigenvalues * h + x[:, t] @ B_complex
        y.append((h @ C_complex).real + r["D"] * x[:, t])
    return np.stack(y, axis=1)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("prenorm", [True, False])
def test_the_block_equals_its_equation(norm, prenorm):
    module = block(BlockOptions(norm=norm, prenorm=prenorm))
    if norm == "batch":
        # Anything but the initial statistics, which would hide a norm that does nothing.
        module.norm.mean[...] = jnp.linspace(-1, 1, D)
        module.norm.var[...] = jnp.linspace(0.5, 2, D)
    module.norm.scale[...] = jnp.linspace(0.5, 1.5, D)
    module.norm.bias[...] = jnp.linspace(0.2, -0.2, D)
    module.value.bias[...] = jnp.linspace(-1, 1, D)
    module.gate.bias[...] = jnp.linspace(1, -2, D)
    p, x = as_numpy(module), features()
    wide = x.astype(np.float64)
    y = gelu(recurrence(p, normalise(p, wide, norm) if prenorm else wide))
    value, gate = (y @ p[f"{name}.kernel"] + p[f"{name}.bias"] for name in ("value", "gate"))
    expected = wide + value * sigmoid(gate)
    if not prenorm:
        expected = normalise(p, expected, norm)
    np.testing.assert_allclose(run(module, x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
def test_batch_statistics_are_those_of_the_valid_steps(lengths):
    module, x = block(), features()
    if lengths is not None:
        x[~valid()] = 1e3
    steps = x.reshape(-1, D) if lengths is None else x[valid()]
    train(module, x, lengths)
    kept = BATCH_NORM_MOMENTUM
    np.testing.assert_allclose(module.norm.mean[...], (1 - kept) * steps.mean(0), rtol=1e-4)
    np.testing.assert_allclose(module.norm.var[...], kept + (1 - kept) * steps.var(0), rtol=1e-4)


@pytest.mark.parametrize("prenorm", [True, False])
def test_training_normalises_by_the_valid_steps_of_the_batch(prenorm):
    padded, x = block(BlockOptions(prenorm=prenorm)), features()
    apart = nnx.clone(padded)
    # The recurrence leaves the rest alone, so the statistics alone join the rows.
    y = train(padded, x, LENGTHS)
    x[~valid()] = 1e3
    np.testing.assert_allclose(train(apart, x, LENGTHS)[valid()], y[valid()], rtol=1e-4, atol=1e-4)
    if not prenorm:
        np.testing.assert_allclose(y[valid()].mean(0), np.zeros(D), atol=1e-4)
        np.testing.assert_allclose(y[valid()].var(0), np.ones(D), atol=1e-3)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_filler_rows_change_neither_values_statistics_nor_gradients(bidirectional):
    module = encoder(BlockOptions(bidirectional=bidirectional), n_layers=1)
    x, lengths = features(), LENGTHS
    graphdef, params, stats = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def outcome(params, x, lengths, counted):
        def loss(params):
            model = nnx.merge(graphdef, params, stats, copy=True)
            y = model(x, lengths=lengths, train=True)[0]
            return jnp.sum(jnp.where(counted, y, 0) ** 2), nnx.state(model, nnx.BatchStat)

        return jax.value_and_grad(loss, has_aux=True)(params)

    def counted(lengths):
        return valid(lengths)[..., None]

    expected = outcome(params, x, lengths, counted(lengths))
    more = np.concatenate([lengths, np.zeros(2, np.int32)])
    filled = np.concatenate([x, np.zeros((2, T, D), np.float32)])
    found = outcome(params, filled, more, counted(more))
    jax.tree.map(
        lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-3, atol=1e-3), found, expected
    )


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    module, x = block(), features()
    train(module, x)
    before = as_numpy(module)
    alone = run(module, x[:1])[0]
    np.testing.assert_allclose(run(module, x)[0][:1], alone, rtol=1e-5, atol=1e-5)
    after = as_numpy(module)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_dropout_is_tied_over_time_and_differs_between_rows_and_blocks():
    module = block(p_dropout=0.5, d_model=32)
    x = np.array(jax.random.normal(jax.random.key(0), (2, T, 32)))
    added = []
    for key in jax.random.split(jax.random.key(1)):
        y = np.asarray(train(module, x, key=key)) - x
        dropped = y == 0
        assert (dropped == dropped[:, :1]).all()
        assert 0.2 < dropped.mean() < 0.8
        assert (dropped[0] != dropped[1]).any()
        added.append(dropped)
    assert (added[0] != added[1]).any()
    assert (np.asarray(train(module, x)) != x).all()


def test_dropout_may_differ_from_step_to_step():
    x = jnp.ones((2, T, 32))
    kept = block(p_dropout=0.5, locked_dropout=False)._drop(x, jax.random.key(1))
    assert (np.asarray(kept) != np.asarray(kept)[:, :1]).any()


def test_dropout_keeps_the_mean():
    kept = block(p_dropout=0.25)._drop(jnp.ones((8000, 1, D)), jax.random.key(0))
    assert set(np.unique(kept)) == {0, np.float32(1 / 0.75)}
    np.testing.assert_allclose(np.mean(kept), 1, atol=0.02)


def test_every_block_draws_its_own_dropout():
    module = encoder(p_dropout=0.5, d_model=32)
    masks = []
    for one in module.blocks:
        one.dropout = Recorder(one.dropout, masks)
    module(jnp.ones((4, 1, 32)), key=jax.random.key(0))
    assert len(masks) == 4
    assert all((a != b).any() for i, a in enumerate(masks) for b in masks[:i])


class Recorder:
    """A dropout that records which of its inputs it keeps."""

    def __init__(self, dropout, masks):
        self.dropout, self.masks = dropout, masks

    def __call__(self, x, **arguments):
        self.masks.append(np.asarray(self.dropout(jnp.ones_like(x), **arguments)) != 0)
        return self.dropout(x, **arguments)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_and_other_rows_change_nothing_in_evaluation(bidirectional):
    module, x = encoder(BlockOptions(bidirectional=bidirectional)), features()
    x[~valid()] = 50
    together, _ = run(module, x, lengths=LENGTHS)
    alone, _ = run(module, x[1:2, : LENGTHS[1]])
    np.testing.assert_allclose(together[1, : LENGTHS[1]], alone[0], rtol=2e-4, atol=2e-4)


def test_chunks_equal_the_whole_and_states_go_through():
    module, x = encoder(), features()
    whole, last = run(module, x, module.initial_state(B))
    first, state = run(module, x[:, :3])
    second, state = run(module, x[:, 3:], state)
    close = dict(rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, **close)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), state, last)


@pytest.mark.parametrize("prenorm", [True, False])
def test_steps_equal_the_whole_in_evaluation(prenorm):
    module, x = encoder(BlockOptions(prenorm=prenorm)), features()
    train(module, x)
    whole, last = run(module, x)
    state, steps = module.initial_state(B), []
    for t in range(T):
        y, state = advance(module, x[:, t], state)
        steps.append(y)
    close = dict(rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(np.stack(steps, axis=1), whole, **close)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), state, last)


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_what_is_observed_ends_in_the_states_of_a_call(bidirectional, prenorm):
    model, x = encoder(BlockOptions(bidirectional=bidirectional, prenorm=prenorm)), features()
    start = jax.tree.map(lambda leaf: leaf + 0.5, model.initial_state(B))
    resets = jnp.zeros((B, T), bool).at[0, 2].set(True)
    observe = nnx.jit(lambda model, x, n: model.observe(x, start, lengths=n, resets=resets))
    observed = observe(model, x, LENGTHS)
    _, states = run(model, x, start, LENGTHS, resets)
    assert len(observed) == len(states)
    for found, state in zip(observed, states, strict=True):
        forwards = found["forward state" if bidirectional else "state"]
        last = state[0] if bidirectional else state
        assert found.keys() == ({"forward state", "backward state"} if bidirectional else {"state"})
        np.testing.assert_allclose(forwards[np.arange(B), LENGTHS - 1], last, rtol=2e-5, atol=2e-5)


def test_a_reset_is_a_fresh_start_in_every_block():
    module, x = encoder(), features()
    resets = np.zeros((B, T), bool)
    resets[:, 4] = True
    packed = run(module, x, resets=resets)[0]
    np.testing.assert_allclose(packed[:, 4:], run(module, x[:, 4:])[0], rtol=2e-4, atol=2e-4)


def test_blocks_start_from_different_parameters():
    first, second = encoder().blocks
    assert (first.gate.kernel[...] != second.gate.kernel[...]).all()


def test_step_mask():
    x = jnp.zeros((3, 3, 1))
    assert step_mask(x, None) is None
    mask = step_mask(x, jnp.array([0, 2, 3]))
    assert mask is not None
    np.testing.assert_array_equal(
        mask[..., 0], [[False] * 3, [True, True, False], [True, True, True]]
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_noise_of_the_recurrence_is_drawn_from_the_key(bidirectional):
    module = encoder(
        BlockOptions(bidirectional=bidirectional), model="qrnn", options={"zoneout": 0.5}
    )
    drawn = [train(module, features(), key=jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    directions = module.blocks[0].recurrence
    if bidirectional:
        # The two directions zone out other units.
        nnx.update(directions.backward, nnx.state(directions.forward))
        x = jnp.ones((1, 1, D))
        key = jax.random.key(0)
        _, (forward, backward) = directions(x, key=key)
        assert np.any((forward.c == 0) != (backward.c == 0))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_convolution_goes_before_each_layer(bidirectional):
    module = encoder(BlockOptions(conv_width=3, bidirectional=bidirectional))
    assert recurrent_layers(module) == [block.recurrence for block in module.blocks]
    for block in module.blocks:
        inside = block.recurrence
        for each in (inside.forward, inside.backward) if bidirectional else (inside,):
            assert isinstance(each, Convolved)
            assert isinstance(each.layer, LRU)
            assert each.convolution.kernel.shape == (3, D)
    with pytest.raises(ValueError, match="conv_width must be at least 1, got 0"):
        BlockOptions(conv_width=0)
    with pytest.raises(ValueError, match="window must be at least 2, got 1"):
        Convolved(LRU(D, N, rngs=nnx.Rngs(0)), 1, rngs=nnx.Rngs(0))
