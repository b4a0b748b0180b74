"""Options of selective state spaces."""

import pytest
from flax import nnx

from lru.layers import make_layer


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("mamba", "d_state", 0, "d_state must be at least 1, got 0"),
        ("mamba", "dt_rank", 0, "dt_rank must be at least 1, got 0"),
        ("mamba", "window", 0, "window must be at least 1, got 0"),
        ("mamba", "dt_min", 0.2, "must satisfy 0 < dt_min <= dt_max, got dt_min = 0.2"),
        ("mamba2", "n_heads", 4, "n_heads must divide d_hidden = 6, got 4"),
        ("mamba2", "n_groups", 2, "n_groups must divide n_heads = 1, got 2"),
    ],
)
def test_what_is_out_of_range_is_refused(name, option, value, message):
    with pytest.raises(ValueError, match=message):
        make_layer(name, 5, 6, {option: value}, rngs=nnx.Rngs(0))


def test_mamba2_can_learn_where_it_starts():
    layer = make_layer("mamba2", 5, 6, {"learned_start": True}, rngs=nnx.Rngs(0))
    layer.start.set_value(layer.start[...] + 0.5)
    assert (layer.initial_state(2).h == 0.5).all()
