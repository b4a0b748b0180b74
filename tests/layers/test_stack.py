"""Stacks against recorded ones, in both directions, and how layers are joined."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.interop.torch import load_state_dict
from lru.layers import ElmanStack, GRUStack, LSTMStack, QRNNCell, QRNNStack, stack

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "qrnn_reference.npz")
B, T, D = 3, 6, 4
LENGTHS = jnp.array([T, 4, 1])

run = jax.jit(lambda stack, *arguments, **options: stack(*arguments, **options))


def arrays_of(case):
    """Recorded arrays by name, batch first."""
    arrays = {k.removeprefix(f"{case}/"): RECORDED[k] for k in RECORDED if k.startswith(f"{case}/")}
    over_time = ("x", "y", "gx", "cot_y", "dropmask_scaled")
    return {k: v.swapaxes(0, 1) if k in over_time else v for k, v in arrays.items()}


def named(arrays, prefix=""):
    """The recorded weights, or gradients of weights, under names like those of torch.nn."""
    names = {}
    for name, array in arrays.items():
        place, _, kind = name.partition("/")
        if kind in (f"{prefix}weight", f"{prefix}bias"):
            direction, _, layer = place.rpartition("layer")
            suffix = "_reverse" if direction == "bw_" else ""
            names[f"layers.{layer}.linear.{kind.removeprefix(prefix)}{suffix}"] = array
    return names


def x_of(seed=0):
    return jax.random.normal(jax.random.key(seed), (B, T, D))


def close(actual, expected, tolerance=1e-6):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=0, atol=tolerance), tuple(actual), tuple(expected)
    )


@pytest.mark.parametrize(
    ("case", "directions"),
    [("varlen_uni", "forward"), ("bidir_concat", "layers")],
)
def test_equals_the_recorded_stacks(case, directions):
    arrays = arrays_of(f"derived/{case}")
    width = arrays["h0"].shape[-1]
    recorded = QRNNStack(5, [width] * 2, directions=directions, rngs=nnx.Rngs(0))
    load_state_dict(recorded, named(arrays))
    graphdef, params = nnx.split(recorded)
    start = recorded.initial_state(4)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def evaluate(params, x, c0):
        model = nnx.merge(graphdef, params)
        y, state = model(x, start._replace(c=c0), lengths=jnp.asarray(arrays["lengths"]))
        return jnp.sum(y * arrays["cot_y"]) + jnp.sum(state.c * arrays["cot_hn"]), (y, state.c)

    (_, outputs), gradients = evaluate(params, arrays["x"], arrays["h0"])
    close(outputs, (arrays["y"], arrays["hn"]), 2e-6)
    load_state_dict(recorded, named(arrays, "g"))
    close(jax.tree.leaves(gradients[0]), jax.tree.leaves(nnx.state(recorded)), 2e-5)
    close(gradients[1:], (arrays["gx"], arrays["gh0"]), 2e-5)


def test_dropout_between_layers_equals_the_recorded_one(monkeypatch):
    arrays = arrays_of("qrnn/l2_dropout_train")
    model = QRNNStack(5, [6, 6], window=1, rngs=nnx.Rngs(0))
    load_state_dict(model, named(arrays))
    mask = arrays["dropmask_scaled"]
    monkeypatch.setattr(stack, "drop_features", lambda h, *_, **__: h * mask)
    y, state = model(jnp.asarray(arrays["x"]))
    close((y, state.c), (arrays["y"], arrays["hn"]), 2e-6)


@pytest.mark.parametrize("locked", [False, True])
def test_dropout_spares_the_last_layer_and_may_be_locked_over_time(locked, monkeypatch):
    inputs = []
    monkeypatch.setattr(
        QRNNCell,
        "__call__",
        lambda cell, x, *_, **__: (inputs.append(x) or jnp.ones((B, T, 50)), (0,)),
    )
    monkeypatch.setattr(stack, "_joined", lambda states: states)
    model = QRNNStack(D, [50, 50], dropout=0.3, locked_dropout=locked, rngs=nnx.Rngs(0))
    y, _ = model(x_of(), key=jax.random.key(0))
    np.testing.assert_array_equal(inputs[0], x_of())
    assert np.all(y == 1)
    dropped = inputs[1] == 0
    assert dropped.mean() == pytest.approx(0.3, abs=0.1 if locked else 0.05)
    np.testing.assert_allclose(inputs[1], np.where(dropped, 0, 1 / 0.7), rtol=1e-6)
    assert np.all(dropped == dropped[:, :1]) == locked
    model(x_of())
    assert np.all(inputs[3] == 1)


def test_two_stacks_meet_at_the_end():
    model = QRNNStack(D, [5, 3], directions="stacks", rngs=nnx.Rngs(0))
    y, state = run(model, x_of(), lengths=LENGTHS)
    ways = []
    for side, backward in enumerate((False, True)):
        h = x_of()
        for cell in model.cells[side::2]:
            h, last = cell(h, lengths=LENGTHS, reverse=backward)
        ways.append(h)
        close([state.c[2 + side]], [last.c])
    close([y], [jnp.concatenate(ways, axis=-1)])


def test_a_dense_stack_reads_all_that_came_before():
    model = QRNNStack(D, [5, 3, 2], dense=True, window=1, rngs=nnx.Rngs(0))
    assert [cell.d_model for cell in model.cells] == [D, D + 5, D + 5 + 3]
    first, second, third = model.cells
    x = x_of()
    h = first(x)[0]
    read = jnp.concatenate([x, h], axis=-1)
    read = jnp.concatenate([read, second(read)[0]], axis=-1)
    close([run(model, x)[0]], [third(read)[0]])


@pytest.mark.parametrize("directions", ["layers", "stacks"])
def test_a_document_alone_equals_the_document_in_a_pack(directions):
    model = QRNNStack(D, [5, 5], directions=directions, rngs=nnx.Rngs(0))
    resets = jnp.zeros((B, T), bool).at[:, 2].set(True)
    packed, _ = run(model, x_of(), resets=resets)
    alone = [run(model, x_of()[:, :2])[0], run(model, x_of()[:, 2:])[0]]
    close([packed], [jnp.concatenate(alone, axis=1)])


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (QRNNStack(D, [5, 5], rngs=nnx.Rngs(0)), [(2, B, 5), (B, 1, D), (B, 1, 5)]),
        (QRNNStack(D, [5, 3], window=[2, 1], rngs=nnx.Rngs(0)), [(B, 5), (B, 3), (B, 1, D)]),
        (LSTMStack(D, [5, 5], directions="layers", rngs=nnx.Rngs(0)), [(4, B, 5)] * 2),
        (GRUStack(D, [5, 5, 5], rngs=nnx.Rngs(0)), [(3, B, 5)]),
    ],
    ids=["qrnn", "widths", "lstm", "gru"],
)
def test_states_have_a_place_for_every_layer_and_carry_over(model, shapes):
    assert [leaf.shape for leaf in jax.tree.leaves(model.initial_state(B))] == shapes
    y, state = run(model, x_of())
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == shapes
    assert y.shape == (B, T, model.d_output)
    if model.n_directions == 1:
        _, middle = run(model, x_of()[:, :-1])
        last, after = jax.jit(lambda model, x, state: model.step(x, state))(
            model, x_of()[:, -1], middle
        )
        close([last, *jax.tree.leaves(after)], [y[:, -1], *jax.tree.leaves(state)])
    else:
        with pytest.raises(ValueError, match="no step mode"):
            model.step(x_of()[:, 0], state)


@pytest.mark.parametrize("kind", [LSTMStack, GRUStack, ElmanStack])
def test_a_plain_tuple_is_a_state_as_in_torch(kind):
    model = kind(D, [5], rngs=nnx.Rngs(0))
    _, state = run(model, x_of())
    close(run(model, x_of(), tuple(state))[0], run(model, x_of(), state)[0], 0)


def test_noise_of_the_cells_is_drawn_apart():
    model = QRNNStack(D, [5, 5], zoneout=[0.5, 0.0], rngs=nnx.Rngs(0))
    seeds = [run(model, x_of(), key=jax.random.key(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert not np.allclose(seeds[0], seeds[2])
    assert isinstance(model.cells[0], QRNNCell)
    assert [cell.noisy for cell in model.cells] == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, "widths must have at least one layer, got none"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"directions": "both"}, "directions must be one of forward, layers, stacks, got both"),
        ({"window": [2, 1, 1]}, "window has 3 values, but there are 2 layers"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        QRNNStack(D, **{"widths": [5, 5]} | options, rngs=nnx.Rngs(0))


def test_a_state_of_another_batch_size_is_refused():
    model = QRNNStack(D, [5, 5], rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"state has shape .*\(2, 2, 5\).* allows .*\(2, 3, 5\)"):
        model(x_of(), model.initial_state(2))
