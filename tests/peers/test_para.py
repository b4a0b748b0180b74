"""ParaGRU and ParaLSTM beside the recorded ones, by every way over time."""

import pytest
from flax import nnx

from lru.layers import ParaGRU, ParaLSTM
from tests.peers import cases

LAYERS = {"paragru": ParaGRU, "paralstm": ParaLSTM}


def run(case, time_method, leaves):
    about = cases.options(case)

    # Without a read-out, as recorded.
    class Cell(LAYERS[about["group"]]):
        reads_out = False

    layer = Cell(
        about["D"],
        about["N"],
        n_heads=about["num_heads"],
        time_method=time_method,
        rngs=nnx.Rngs(0),
    )
    for name in leaves.keys() - {"x"}:
        assert getattr(layer, name).shape == leaves[name].shape
        setattr(layer, name, nnx.Param(leaves[name]))
    return layer(leaves["x"])[0], None


@pytest.mark.parametrize("time_method", ["sequential", "newton"])
@pytest.mark.parametrize("case", [name for group in LAYERS for name in cases.names(group)])
def test_equals_the_recorded(case, time_method):
    cases.check(case, lambda leaves: run(case, time_method, leaves))


def test_heads_divide_both_widths():
    with pytest.raises(ValueError, match=r"^n_heads must divide d_hidden = 6, got 4"):
        ParaGRU(4, 6, n_heads=4, rngs=nnx.Rngs(0))
