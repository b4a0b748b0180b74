"""Building layers by name."""

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
    with pytest.raises(ValueError, match=r"r_min is not an option of model 'rnn'.*diag-rnn, lru"):
        resolve_options("rnn", {"r_min": 0.5})


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
