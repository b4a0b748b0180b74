"""Gates that are switched off, and gates that are given other values than their own."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.interop.torch import load_state_dict, state_dict
from lru.layers import GRU, LSTM, Elman, ElmanCell, GRUCell, GRUStack, GRUState, make_layer

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "repeat_reference.npz")
B, T, D, N = 3, 6, 5, 4
LENGTHS = jnp.array([T, 4, 0])
SWITCHES = [(False, True), (True, False), (False, False)]


def doubled(layer):
    nnx.update(layer, jax.tree.map(lambda leaf: leaf.astype("float64"), nnx.state(layer)))
    return layer


def drawn(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("use_reset", "use_update"), SWITCHES)
def test_without_a_gate_it_is_one_or_zero_in_value_and_gradient(
    use_reset, use_update, dtype, monkeypatch
):
    """On the loop in C++ and on that of JAX."""
    left = 1 + use_reset + use_update

    def plain(params, x, h):
        weights = {name: jnp.split(value[...], left, axis=-1) for name, value in params.items()}
        reads = [x @ W + b for W, b in zip(weights["weight_ih"], weights["bias_ih"], strict=True)]
        outputs = []
        for t in range(T):
            recurrent = [h @ W for W in weights["weight_hh"]]
            recurrent = [m + b for m, b in zip(recurrent, weights["bias_hh"], strict=True)]
            read = [a[:, t] for a in reads]
            r = jax.nn.sigmoid(read[0] + recurrent[0]) if use_reset else 1
            z = jax.nn.sigmoid(read[-2] + recurrent[-2]) if use_update else 0
            new = (1 - z) * jnp.tanh(read[-1] + r * recurrent[-1]) + z * h
            h = jnp.where((t < LENGTHS)[:, None], new, h)
            outputs.append(h)
        return jnp.stack(outputs, axis=1), h

    def evaluated(run, arguments):
        def loss(*arguments):
            y, last = run(*arguments)
            valid = (jnp.arange(T) < LENGTHS[:, None])[..., None]
            return jnp.sum(jnp.where(valid, jnp.sin(y), 0)) + jnp.sum(last**2), last

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*arguments)

    with jax.enable_x64(dtype == "float64"):
        cell = GRUCell(D, N, use_reset=use_reset, use_update=use_update, rngs=nnx.Rngs(0))
        graphdef, params = nnx.split(cell)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        assert {leaf.shape[-1] for leaf in jax.tree.leaves(params)} == {left * N}
        arguments = params, drawn(0, B, T, D, dtype=dtype), drawn(1, B, N, dtype=dtype)

        def of_cell(params, x, h):
            y, last = nnx.merge(graphdef, params)(x, GRUState(h), lengths=LENGTHS)
            return y, last.h

        assert "lru_gated_forward" in jax.jit(of_cell).lower(*arguments).as_text()
        found = nnx.merge(graphdef, params).observe(arguments[1])
        results = [evaluated(of_cell, arguments)]
        monkeypatch.setattr(GRUCell, "cell", GRUCell.cell._replace(native=""))
        results.append(evaluated(of_cell, arguments))
        expected = evaluated(plain, arguments)
        assert use_reset or np.all(found["reset_gate"] == 1)
        assert use_update or np.all(found["update_gate"] == 0)
    bound = 20 * float(jnp.finfo(dtype).eps)
    for result in results:
        for got, wanted in zip(*map(jax.tree.leaves, (result, expected)), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=bound, atol=bound)


def test_a_gru_without_gates_is_an_elman_network():
    gru = GRUCell(D, N, use_reset=False, use_update=False, rngs=nnx.Rngs(0))
    elman = ElmanCell(D, N, rngs=nnx.Rngs(1))
    load_state_dict(elman, state_dict(gru))
    x = drawn(0, B, T, D)
    np.testing.assert_allclose(gru(x)[0], elman(x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("use_reset", "use_update"), SWITCHES[:2])
def test_a_gru_that_torch_has_not_is_refused(use_reset, use_update):
    stack = GRUStack(D, [N], use_reset=use_reset, use_update=use_update, rngs=nnx.Rngs(0))
    message = rf"GRUStack has use_reset={use_reset} and use_update={use_update}, but PyTorch has"
    with pytest.raises(ValueError, match=message):
        state_dict(stack)
    with pytest.raises(ValueError, match=message):
        load_state_dict(stack, {})


@pytest.mark.parametrize(
    ("case", "phases"),
    [("free", ""), ("force_z", "enc dec"), ("force_r1", "enc dec"), ("force_n_enc", "enc")],
)
def test_forced_gates_are_the_recorded_ones(case, phases):
    """An encoder, and a decoder that reads the right symbols, of whose padding z is 1."""
    arrays = {k.rpartition("/")[2]: RECORDED[k] for k in RECORDED if f"gates/{case}/" in k}
    embedding = arrays["p_embedding.weight"]
    symbols, start = arrays["in"].T, np.full((3, 1), len(arrays["p_fc.bias"]))
    gates = {"r": "reset_gate", "z": "update_gate", "n": "candidate"}
    with jax.enable_x64(True):
        cell = doubled(GRUCell(8, 8, rngs=nnx.Rngs(0)))
        names = [name for name in arrays if name.startswith("p_rnn.")]
        load_state_dict(cell, {name.removeprefix("p_rnn."): arrays[name] for name in names})
        lengths, state = jnp.asarray(arrays["in_len"]), None
        valid = np.arange(4) < arrays["in_len"][:, None]
        for phase, tokens in (("enc", symbols), ("dec", np.hstack([start, symbols[:, :-1]]))):
            x, force = jnp.asarray(embedding[tokens]), {}
            if phase in phases:
                force = {gates[case[6]]: arrays["forced"].swapaxes(0, 1)}
            found = cell.observe(x, state, lengths=lengths, force=force)
            state = GRUState(found["state"][:, -1])
            h = arrays[f"{phase}_h"].swapaxes(0, 1)
            # Beyond its end the state of a row stays.
            np.testing.assert_allclose(found["state"], h, rtol=0, atol=1e-12)
            for letter, name in gates.items():
                recorded = arrays[f"{phase}_{letter}"].swapaxes(0, 1)[valid]
                np.testing.assert_allclose(found[name][valid], recorded, rtol=0, atol=1e-12)
        logits = found["state"] @ arrays["p_fc.weight"].T + arrays["p_fc.bias"]
        recorded = arrays["logits"].swapaxes(0, 1)[valid]
        np.testing.assert_allclose(logits[valid], recorded, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("name", "options"), [("gru", {}), ("gru", {"use_reset": False}), ("lstm", {})], ids=str
)
def test_gates_forced_to_their_own_values_change_nothing(name, options, reverse):
    layer = make_layer(name, D, N, options, rngs=nnx.Rngs(0))
    x, start = drawn(0, B, T, D), jax.tree.map(lambda leaf: leaf + 0.5, layer.initial_state(B))
    resets = jnp.zeros((B, T), bool).at[0, 2].set(True)
    observe = jax.jit(partial(layer.observe, reverse=reverse, lengths=LENGTHS, resets=resets))
    found = observe(x, start)
    # Every second value; and what padding holds has no meaning.
    valid = np.arange(T) < np.asarray(LENGTHS)[:, None]
    given = valid[..., None] & (np.arange(N) % 2 == 0)
    force = {gate: jnp.where(given, found[gate], jnp.nan) for gate in layer.gate_names}
    forced = observe(x, start, force=force)
    assert forced.keys() == found.keys()
    for key, values in found.items():
        np.testing.assert_allclose(forced[key][valid], values[valid], rtol=0, atol=1e-6)
    np.testing.assert_allclose(forced["state"], found["state"], rtol=0, atol=1e-6)


def test_what_follows_a_forced_gate_follows_from_it():
    layer, x = LSTM(D, N, rngs=nnx.Rngs(0)), drawn(0, B, T, D)
    zeros = jnp.zeros((B, T, N))
    kept = layer.initial_state(B)._replace(c=drawn(1, B, N))
    force = {"input_gate": zeros, "forget_gate": zeros + 1, "output_gate": zeros + 0.5}
    found = layer.observe(x, kept, force=force)
    np.testing.assert_array_equal(found["state"], np.repeat(kept.c[:, None], T, axis=1))
    np.testing.assert_allclose(found["output"], 0.5 * np.tanh(found["state"]), rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "force", "message"),
    [
        (
            GRU,
            {"update": (B, T, N)},
            "no gate 'update' in GRU; known: reset_gate, update_gate, can",
        ),
        (Elman, {"candidate": (B, T, N)}, "no gate 'candidate' in Elman; known: none"),
        (LSTM, {"candidate": (T, B, N)}, r"candidate of shape \(6, 3, 4\), but.* = \(3, 6, 4\) is"),
    ],
)
def test_what_cannot_be_forced_is_refused(layer, force, message):
    with pytest.raises(ValueError, match=message):
        layer(D, N, rngs=nnx.Rngs(0)).observe(
            jnp.zeros((B, T, D)), force={name: jnp.zeros(shape) for name, shape in force.items()}
        )
