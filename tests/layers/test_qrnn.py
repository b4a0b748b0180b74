"""The QRNN against recorded layers, its zoneout, its window and what it refuses."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.interop.torch import load_state_dict
from lru.layers import QRNN, QRNNCell, QRNNStack, QRNNState
from lru.registry import UnknownNameError
from lru.scan import LINEAR_METHODS
from lru.scan.pooling import GATES

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "qrnn_reference.npz")
STACKS = (
    "l1_w1_no",
    "l1_w1_o",
    "l1_w2_no_h",
    "l1_w2_o",
    "l2_w2_o_h",
    "l2_w2_o_h_b1_t1",
    "l3_w1_o_h",
)

# The layer as a jitted function of its arguments.
run = jax.jit(lambda layer, *arguments, **options: layer(*arguments, **options))


def arrays_of(case):
    """Recorded arrays by name, batch first."""
    arrays = {k.removeprefix(f"{case}/"): RECORDED[k] for k in RECORDED if k.startswith(f"{case}/")}
    over_time = ("x", "y", "gx", "cot_y", "mask")
    return {k: v.swapaxes(0, 1) if k in over_time else v for k, v in arrays.items()}


def stack_of(arrays, **options):
    """The recorded layers as a stack."""
    layers = sum(name.endswith("/weight") for name in arrays)
    d_model, width = arrays["x"].shape[-1], arrays["y"].shape[-1]
    rows, columns = arrays["layer0/weight"].shape
    options |= {"window": columns // d_model, "gates": {2: "f", 3: "fo"}[rows // width]}
    stack = QRNNStack(d_model, [width] * layers, rngs=nnx.Rngs(0), **options)
    load_state_dict(stack, named(arrays, ""))
    return stack


def named(arrays, prefix):
    """The recorded weights, or gradients of weights, under the names of torchqrnn."""
    return {
        f"layers.{name.split('/')[0].removeprefix('layer')}.linear.{kind}": arrays[name]
        for kind in ("weight", "bias")
        for name in arrays
        if name.endswith(f"/{prefix}{kind}")
    }


def gradients_of(stack, arrays):
    """Outputs, last states, and gradients for the recorded cotangents."""
    graphdef, params = nnx.split(stack)
    zeros = stack.initial_state(len(arrays["x"]))
    c0 = jnp.asarray(arrays["h0"]).reshape(zeros.c.shape) if "h0" in arrays else zeros.c

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def evaluate(params, x, c0):
        y, state = nnx.merge(graphdef, params)(x, zeros._replace(c=c0), key=jax.random.key(0))
        total = jnp.sum(y * arrays["cot_y"])
        if "cot_hn" in arrays:
            total += jnp.sum(state.c * arrays["cot_hn"])
        return total, (y, state.c)

    (_, outputs), gradients = evaluate(params, arrays["x"], c0)
    return outputs, gradients


def assert_gradients_are_those_recorded(stack, arrays, gradients):
    params, x, c0 = gradients
    expected = nnx.clone(stack)
    load_state_dict(expected, named(arrays, "g"))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=0, atol=2e-5), params, nnx.state(expected)
    )
    np.testing.assert_allclose(x, arrays["gx"], rtol=0, atol=2e-5)
    if "gh0" in arrays:
        np.testing.assert_allclose(c0, arrays["gh0"].reshape(c0.shape), rtol=0, atol=2e-5)


# All methods in one case, as scans keep their own law.
@pytest.mark.parametrize(
    ("case", "method"),
    [*((case, "auto") for case in STACKS), *(("l2_w2_o_h", method) for method in LINEAR_METHODS)],
)
def test_equals_the_recorded_layers(case, method):
    arrays = arrays_of(f"qrnn/{case}")
    stack = stack_of(arrays, scan_method=method)
    (y, c), gradients = gradients_of(stack, arrays)
    np.testing.assert_allclose(y, arrays["y"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(c, arrays["hn"], rtol=0, atol=2e-6)
    assert_gradients_are_those_recorded(stack, arrays, gradients)


@pytest.mark.parametrize("gates", ["f", "fo", "ifo"])
def test_equals_the_equations_of_the_paper(gates):
    case = f"derived/paper_{gates}_k2"
    arrays = {k.removeprefix(f"{case}/"): RECORDED[k] for k in RECORDED if k.startswith(f"{case}/")}
    taps, d_model, width = arrays["Wz"].shape
    cell = QRNNCell(d_model, width, gates=gates, window=taps, rngs=nnx.Rngs(0))
    # There row j belongs to the input K - 1 - j steps back.
    cell.weight[...] = jnp.concatenate([arrays[f"W{gate}"][::-1] for gate in GATES[gates]], axis=-1)
    cell.bias[...] = jnp.concatenate([arrays[f"b{gate}"] for gate in GATES[gates]])
    start = cell.initial_state(len(arrays["x"]))
    if "c0" in arrays:
        start = start._replace(c=jnp.asarray(arrays["c0"]))
    h, state = run(cell, arrays["x"], start)
    np.testing.assert_allclose(h, arrays["h"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(state.c, arrays["c"][:, -1], rtol=0, atol=2e-6)


def test_zoneout_of_training_equals_the_recorded_one(monkeypatch):
    arrays = arrays_of("layer/zoneout_train")
    monkeypatch.setattr(jax.random, "bernoulli", lambda *_: jnp.asarray(arrays["mask"] == 0))
    stack = stack_of(arrays, zoneout=0.3)
    (y, c), gradients = gradients_of(stack, arrays)
    np.testing.assert_allclose(y, arrays["y"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(c, arrays["hn"], rtol=0, atol=2e-6)
    assert_gradients_are_those_recorded(stack, arrays, gradients)


def test_zoneout_of_evaluation_equals_the_recorded_one():
    arrays = arrays_of("qrnn/l2_w1_o_zoneout_eval")
    stack = stack_of(arrays, zoneout=0.3)
    y, state = run(stack, arrays["x"], stack.initial_state(3)._replace(c=arrays["h0"]))
    np.testing.assert_allclose(y, arrays["y"], rtol=0, atol=2e-6)
    np.testing.assert_allclose(state.c, arrays["hn"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("gates", ["f", "ifo"])
def test_zoneout_keeps_so_many_states_as_they_were(gates):
    cell = QRNNCell(3, 40, gates=gates, zoneout=0.3, rngs=nnx.Rngs(0))
    c = jax.random.normal(jax.random.key(1), (50, 40))
    state = QRNNState(c, jnp.ones((50, 1, 3)))
    x = jnp.ones((50, 1, 3))
    kept = [run(cell, x, state, key=jax.random.key(seed))[1].c == c for seed in (0, 0, 1)]
    assert kept[0].mean() == pytest.approx(0.3, abs=0.04)
    assert np.all(kept[0] == kept[1])
    assert not np.all(kept[0] == kept[2])
    assert not np.any(run(cell, x, state)[1].c == c)


def test_evaluation_by_identity_knows_no_zoneout():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    plain, zoned = (
        QRNN(3, 4, zoneout=zoneout, zoneout_eval="identity", rngs=nnx.Rngs(0))
        for zoneout in (0.0, 0.3)
    )
    jax.tree.map(np.testing.assert_array_equal, run(zoned, x), run(plain, x))
    assert zoned.noisy
    assert not plain.noisy


@pytest.mark.parametrize("cuts", [(1, 2, 3, 5), (6,)])
def test_chunks_with_padding_and_resets_equal_the_whole(cuts):
    """Resets and ends of rows fall inside the window of later chunks and on their borders."""
    cell = QRNNCell(3, 4, window=4, rngs=nnx.Rngs(0))
    steps = 9
    x = jax.random.normal(jax.random.key(0), (5, steps, 3))
    lengths = jnp.array([steps, 7, 5, 2, 0])
    resets = jnp.zeros((5, steps), bool).at[0, 5].set(True).at[1, 2].set(True).at[2, 4].set(True)
    resets = resets.at[3, 6].set(True)
    whole, last = run(cell, x, lengths=lengths, resets=resets)
    state, parts = cell.initial_state(5), []
    for start, stop in zip((0, *cuts), (*cuts, steps), strict=True):
        inside = jnp.clip(lengths - start, 0, stop - start)
        part = (x[:, start:stop], state)
        y, state = run(cell, *part, lengths=inside, resets=resets[:, start:stop])
        parts.append(y)
    close = partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(close, (jnp.concatenate(parts, axis=1), state), (whole, last))
    for row, n in enumerate(lengths):
        assert not np.any(whole[row, n:])


def test_padding_may_hold_anything():
    cell = QRNNCell(3, 4, window=3, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(cell)
    lengths = jnp.array([4, 2, 0])
    mask = jnp.arange(4) < lengths[:, None]
    x = jax.random.normal(jax.random.key(0), (3, 4, 3))

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradients(params, x):
        y, state = nnx.merge(graphdef, params)(x, lengths=lengths)
        return jnp.sum(y**2) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(state))

    spoilt = gradients(params, jnp.where(mask[..., None], x, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, spoilt, gradients(params, x))


@pytest.mark.parametrize("detached", [False, True])
def test_gradients_reach_the_chunk_before_through_the_window_unless_it_is_detached(detached):
    cell = QRNNCell(3, 4, window=2, detach_window=detached, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(cell)

    @jax.grad
    def gradient(window):
        state = QRNNState(jnp.zeros((1, 4)), window)
        return jnp.sum(nnx.merge(graphdef, params)(jnp.ones((1, 2, 3)), state)[0])

    assert np.any(gradient(jnp.ones((1, 1, 3)))) != detached


def test_widths_that_differ_are_read_out_by_a_matrix_and_equal_ones_are_not():
    assert QRNN(3, 4, rngs=nnx.Rngs(0)).readout.kernel.shape == (4, 3)
    assert QRNN(4, 4, rngs=nnx.Rngs(0)).readout is None
    assert QRNNCell(3, 4, rngs=nnx.Rngs(0)).readout is None


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"zoneout": 1.0}, r"zoneout must be in \[0, 1\), got 1.0"),
        ({"zoneout": -0.1}, r"zoneout must be in \[0, 1\), got -0.1"),
        ({"gates": "fi"}, "gates must be f, fo or ifo, got 'fi'"),
        ({"biases": 2}, "biases must be 0 or 1 in a qrnn, got 2"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        QRNN(3, 4, **option, rngs=nnx.Rngs(0))


def test_an_unknown_evaluation_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="'mean'; known: expectation, identity"):
        QRNN(3, 4, zoneout_eval="mean", rngs=nnx.Rngs(0))


def test_a_state_of_another_batch_size_is_refused():
    layer = QRNN(3, 4, rngs=nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"state has shape .*\(2, 4\).* but x \(3, 5, 3\).*\(3, 4\)"
    ):
        layer(jnp.zeros((3, 5, 3)), layer.initial_state(2))
