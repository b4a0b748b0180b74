"""Layers that are elementwise in their states beside the recorded ones, by every method."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import HGRN, SRU, IndRNN, IndRNNCell, MinGRU, MinLSTM, SRUCell
from lru.layers.convolution import causal_convolution
from lru.layers.rg_lru import RGLRU, RGLRUCell, RGLRUState
from lru.scan import LINEAR_METHODS, linear_scan
from tests.peers import cases


def named(*groups):
    return pytest.mark.parametrize(
        "case", [name for group in groups for name in cases.names(group)]
    )


each_method = pytest.mark.parametrize("method", LINEAR_METHODS)


def load(layer, **values):
    """The layer with other values, of the shapes that it has."""
    for name, value in values.items():
        owner, _, leaf = name.rpartition("__")
        owner = getattr(layer, owner) if owner else layer
        assert getattr(owner, leaf).shape == value.shape, name
        setattr(owner, leaf, nnx.Param(value))
    return layer


@each_method
@named("mingru", "minlstm")
def test_minimal(case, method):
    about = cases.options(case)
    kind, gates = (MinGRU, "gate") if about["group"] == "mingru" else (MinLSTM, "f_i_gate")

    def run(leaves):
        layer = kind(about["D"], about["E"], scan_method=method, rngs=nnx.Rngs(0))
        load(layer, weight=leaves[f"to_hidden_and_{gates}.weight"].T)
        if "to_out.weight" in leaves:
            load(layer, readout__kernel=leaves["to_out.weight"].T)
        start = leaves["h0"][:, 0] if "h0" in leaves else None
        y, last = layer(leaves["x"], start)
        return y, last[:, None]

    if case == "minlstm/h0":
        # Its other form starts from another function of the state.
        cases.check(case, run, y="aux_y_seq", h_last="aux_h_last_seq", gradients="aux_gseq_")
    else:
        cases.check(case, run)


def test_the_gates_of_a_minlstm_are_exact_where_both_are_too_small_for_floats():
    layer = MinLSTM(1, 1, rngs=nnx.Rngs(0))

    def share(f, i):
        return layer.shares(f, i)[0].sum()

    f, i = jnp.full((1, 1, 1), -200.0), jnp.full((1, 1, 1), -205.0)
    value, slopes = jax.value_and_grad(share, (0, 1))(f, i)
    np.testing.assert_allclose(value, jax.nn.sigmoid(5.0), rtol=1e-6)
    np.testing.assert_allclose(slopes[0], value * (1 - value), rtol=1e-4)
    np.testing.assert_allclose(slopes[1], -slopes[0])


@each_method
@named("hgrn_layer")
def test_hgrn(case, method):
    about = cases.options(case)

    def run(leaves):
        bounded = "lower_bound" in leaves
        layer = HGRN(
            about["D"],
            about["E"],
            lower_bound=0.5 if bounded else 0.0,
            scan_method=method,
            rngs=nnx.Rngs(0),
        )
        weights = [leaves[f"{part}_proj.weight"].T for part in "ifg"]
        load(
            layer,
            weight=jnp.concatenate(weights, axis=1),
            scale=leaves["g_norm.weight"],
            readout__kernel=leaves["o_proj.weight"].T,
        )
        if bounded:
            load(layer, bound=jnp.log(leaves["lower_bound"] / (1 - leaves["lower_bound"])))
        return layer(leaves["x"])

    cases.check(case, run)


@each_method
def test_the_scan_of_hgrn(method):
    def run(leaves):
        return linear_scan(jnp.exp(leaves["g"]), leaves["x"], leaves["h0"], method=method)

    cases.check("hgrn/naive", run)


def gates_of(leaves, start=""):
    """Weight and bias of both gates as an `RGLRU` has them."""
    pairs = [
        [leaves[f"{start}{gate}_gate.{leaf}"] for gate in ("input", "a")] for leaf in ("w", "b")
    ]
    weight, bias = (jnp.stack(pair, axis=-2) for pair in pairs)
    heads = bias.shape[0]
    return weight, jnp.moveaxis(bias, 1, 0).reshape(2, -1), heads


@each_method
@pytest.mark.parametrize("case", ["rglru/real", "rglru/sqrtclip", "rglru/f32", "rglru/complex"])
def test_rg_lru(case, method):
    about, found = cases.options(case), cases.arrays(case)

    def run(leaves):
        weight, bias, heads = gates_of(leaves)
        complex_units = not about["only_real"]
        layer = RGLRU(
            about["W"],
            about["W"],
            n_heads=heads,
            complex_units=complex_units,
            scan_method=method,
            rngs=nnx.Rngs(0),
        )
        load(layer, weight=weight, bias=bias, decay=leaves["a_param"])
        if complex_units:
            load(layer, phase=leaves["a_imag_param"])
        # A row whose first position is not 0 goes on, and here from zeros if not from a state.
        h = leaves.get("h0", jnp.zeros(layer.initial_state(about["B"]).h.shape, leaves["x"].dtype))
        start = RGLRUState(h, jnp.ones(about["B"], leaves["x"].dtype))
        y, last = layer(leaves["x"], start, resets=jnp.asarray(found["segment_pos"] == 0))
        parts = [last.h.real, last.h.imag] if complex_units else [last.h]
        return y, jnp.concatenate(parts, axis=1)

    single = found["y"].dtype == "float32"
    cases.check(case, run, tolerance=(1e-5, 1e-4) if single else (1e-10, 1e-9))


def test_the_block_around_an_rg_lru():
    about, found = cases.options("griffin_block/a"), cases.arrays("griffin_block/a")
    resets = jnp.asarray(found["segment_pos"] == 0)

    def run(leaves):
        def mapped(x, name):
            return x @ leaves[f"{name}.kernel"] + leaves[f"{name}.bias"]

        weight, bias, heads = gates_of(leaves, "rg_lru.")
        layer = RGLRUCell(about["W"], about["W"], n_heads=heads, rngs=nnx.Rngs(0))
        load(layer, weight=weight, bias=bias, decay=leaves["rg_lru.a_param"])
        kernel = jax.vmap(jnp.diag)(leaves["conv_1d.w"][::-1])
        padded = jnp.pad(mapped(leaves["x"], "linear_x"), ((0, 0), (len(kernel) - 1, 0), (0, 0)))
        convolved = causal_convolution(padded, kernel, resets) + leaves["conv_1d.b"]
        begun = RGLRUState(*jax.tree.map(jnp.zeros_like, layer.initial_state(about["B"])))
        h, last = layer(convolved, begun._replace(started=begun.started + 1), resets=resets)
        y = h * jax.nn.gelu(mapped(leaves["x"], "linear_y"))
        return mapped(y, "linear_out"), last.h

    cases.check("griffin_block/a", run)


def sru_weights(leaves, about, directions=1):
    """Weights, biases and vectors of each direction as an `SRU` has them."""
    parts, width = about["num_matrices"], about["N"]
    weights = leaves["weight"].reshape(-1, directions, width, parts)
    weights = jnp.moveaxis(weights, 3, 2).reshape(-1, directions, parts * width)
    biases = leaves["bias"].reshape(2, directions, width)
    vectors = leaves["weight_c"].reshape(2, directions, width) if "weight_c" in leaves else None
    return [
        (weights[:, d], biases[:, d].reshape(-1), None if vectors is None else vectors[:, d])
        for d in range(directions)
    ]


@named("sru")
def test_sru(case):
    about, found = cases.options(case), cases.arrays(case)
    directions = 1 + about.get("bidirectional", False)
    lengths = None
    if "mask_pad" in found:
        lengths = jnp.asarray((found["mask_pad"] == 0).sum(0).astype("int32"))

    def run(leaves, method="auto"):
        outputs, states = [], []
        starts = jnp.split(leaves["c0"], directions, axis=1)
        for d, values in enumerate(sru_weights(leaves, about, directions)):
            layer = SRUCell(
                about["D"],
                about["N"],
                version=1 if about.get("v1") else 2,
                activation="tanh" if about.get("use_tanh") else "identity",
                skip=about.get("has_skip_term", True),
                highway_bias=about.get("highway_bias", 0.0),
                scan_method=method,
                rngs=nnx.Rngs(0),
            )
            load(layer, weight=values[0], bias=values[1])
            # Recorded with the factor in single precision.
            layer.skip_scale = float(found["scale_x"][0])
            if values[2] is not None:
                load(layer, v=values[2])
            x = jnp.swapaxes(leaves["x"], 0, 1)
            y, last = layer(x, starts[d], lengths=lengths, reverse=d == 1)
            outputs.append(jnp.swapaxes(y, 0, 1))
            states.append(last)
        return jnp.concatenate(outputs, axis=-1), jnp.concatenate(states, axis=-1)

    for method in LINEAR_METHODS if about.get("v1") else ("auto",):
        cases.check(case, lambda leaves, method=method: run(leaves, method))


@pytest.mark.parametrize("case", ["indrnn/relu", "indrnn/relu_clamped", "indrnn/tanh_2layers"])
def test_indrnn(case):
    about = cases.options(case)

    def run(leaves):
        y, states = leaves["x"], []
        for k in range(about["num_layers"]):
            layer = IndRNNCell(
                y.shape[-1],
                about["N"],
                activation=about["nonlinearity"],
                u_max=about["hidden_max_abs"],
                rngs=nnx.Rngs(0),
            )
            values = {"weight": "weight_ih", "u": "weight_hh", "bias": "bias_ih"}
            values = {ours: leaves[f"cells.{k}.{name}"] for ours, name in values.items()}
            load(layer, **(values | {"weight": values["weight"].T}))
            y, last = layer(y)
            states.append(last)
        return y, jnp.concatenate(states, axis=-1)

    cases.check(case, run)


def test_the_recurrence_of_indrnn_alone():
    def run(leaves):
        width = leaves["h0"].shape[1]
        layer = IndRNNCell(width, width, biases=0, rngs=nnx.Rngs(0))
        load(layer, weight=jnp.eye(width), u=leaves["indrnn_cell.weight_hh"])
        y, _ = layer(jnp.swapaxes(leaves["x"], 0, 1), leaves["h0"])
        return jnp.swapaxes(y, 0, 1), None

    cases.check("indrnn/recurrent_relu", run)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MinGRU, {"biases": 2}, "biases must be 0 or 1, got 2"),
        (HGRN, {"lower_bound": 1.0}, "lower_bound must be in [0, 1), got 1.0"),
        (HGRN, {"weight_std": 0.0}, "weight_std must be above 0, got 0.0"),
        (RGLRU, {"n_heads": 4}, "n_heads must divide units = 6, got 4"),
        (RGLRU, {"r_max": 2.0}, "r_min and r_max must satisfy"),
        (SRU, {"version": 3}, "version must be 1 or 2, got 3"),
        (SRU, {"activation": "relu"}, "activation must be identity or tanh, got 'relu'"),
        (IndRNN, {"activation": "x"}, "activation must be relu or tanh, got 'x'"),
        (IndRNN, {"u_max": 0.0}, "u_max must be above 0, or None, got 0.0"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_value_out_of_range_is_refused_in_a_sentence(kind, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        kind(4, 6, **options, rngs=nnx.Rngs(0))
