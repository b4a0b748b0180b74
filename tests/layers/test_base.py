"""Building layers by name, and what every layer refuses."""

import re

import jax
import jax.numpy as jnp
import jaxtyping
import pytest
from flax import nnx

from lru.layers import LAYERS, layer_options, make_layer, resolve_options
from lru.registry import UnknownNameError


def test_an_unknown_layer_lists_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"unknown model 'gru4'; known: .*diag-rnn.*lru.*rnn"
    ):
        make_layer("gru4", 4, 4, {}, rngs=nnx.Rngs(0))


def test_an_option_of_another_layer_names_its_owners():
    with pytest.raises(ValueError, match=r"r_min is not an option of model 'qrnn'.*d-linoss, lru"):
        resolve_options("qrnn", {"r_min": 0.5})


def test_options_keep_the_defaults_of_the_rest():
    options = resolve_options("lru", {"r_min": 0.5})
    assert options["r_min"] == 0.5
    assert options["A_init"] == "ring"
    assert set(options) == set(layer_options(LAYERS["lru"]))


@pytest.mark.parametrize("widths", [(0, 4), (4, 0)])
def test_widths_must_be_positive(widths):
    with pytest.raises(ValueError, match=r"d_(model|hidden) must be at least 1, got 0"):
        make_layer("lru", *widths, {}, rngs=nnx.Rngs(0))


def test_an_unknown_initialiser_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown initialiser 'xavier'; known: .*glorot"):
        make_layer("rnn", 4, 4, {"A_init": "xavier"}, rngs=nnx.Rngs(0))


@pytest.fixture(params=LAYERS)
def layer(request):
    return make_layer(request.param, 5, 4, {}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 0, 5)])
def test_sequences_that_do_not_fit_are_refused(layer, shape):
    message = rf"x has shape {re.escape(str(shape))}, but .*D = d_model = 5 is allowed"
    with pytest.raises(ValueError, match=message):
        layer(jnp.zeros(shape))


def test_a_step_that_does_not_fit_is_refused(layer):
    with pytest.raises(ValueError, match=r"x has shape \(2, 1, 4\), but"):
        layer.step(jnp.zeros((2, 4)), layer.initial_state(2))


def test_tokens_that_were_not_embedded_are_refused(layer, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="x has dtype int32, but only real floats are allowed"):
        layer(jnp.zeros((2, 3, 5), jnp.int32))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lengths": [3, 6]}, TypeError, r"lengths must be an array of integers \[B\], got a list"),
        ({"lengths": jnp.array([3, 9])}, ValueError, "lengths must be from 0 to T = 6, got 9"),
        ({"lengths": jnp.array([-1, 6])}, ValueError, "lengths must be from 0 to T = 6, got -1"),
        ({"lengths": jnp.ones(2)}, ValueError, "lengths has dtype float32, but only integers"),
        (
            {"lengths": jnp.ones(3, int)},
            ValueError,
            r"lengths has shape \(3,\), but .*allows \(2,\)",
        ),
        ({"resets": [[False] * 6] * 2}, TypeError, r"resets must be an array of bool.*got a list"),
        ({"x": [[1.0]]}, TypeError, r"x must be an array \[B, T, D\], got a list"),
    ],
)
def test_arguments_of_another_kind_are_refused(layer, arguments, error, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(error, match=message):
        layer(**{"x": jnp.zeros((2, 6, 5)), **arguments})


def test_a_state_of_another_width_is_refused(layer):
    state = jax.tree.map(lambda leaf: leaf[..., :-1], layer.initial_state(2))
    given, allowed = (jax.tree.map(jnp.shape, s) for s in (state, layer.initial_state(2)))
    message = f"state has shape {given}, but x (2, 6, 5) and d_hidden = 4 allow {allowed}"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(jnp.zeros((2, 6, 5)), state)


@pytest.mark.parametrize(
    "name", [name for name in LAYERS if "scan_method" in layer_options(LAYERS[name])]
)
def test_an_unknown_scan_method_is_refused_before_the_first_step(name):
    with pytest.raises(UnknownNameError, match=r"unknown scan method 'magic'; known: .*sequential"):
        make_layer(name, 4, 4, {"scan_method": "magic"}, rngs=nnx.Rngs(0))
