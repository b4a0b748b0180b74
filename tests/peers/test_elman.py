"""Elman networks beside the recorded ones of PyTorch, by every way over time."""

import jax.numpy as jnp
import pytest
from flax import nnx

from lru.layers import ElmanStack, ElmanState
from tests.peers import cases


def run(case, time_method, leaves):
    about = cases.options(case)
    found = cases.arrays(case)
    widths = [about["N"]] * about["num_layers"]
    stack = ElmanStack(
        about["D"],
        widths,
        directions="layers" if about["bidirectional"] else "forward",
        activation=about["nonlinearity"],
        time_method=time_method,
        rngs=nnx.Rngs(0),
    )
    for i, cell in enumerate(stack.cells):
        layer, backward = divmod(i, stack.n_directions)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            leaf = leaves[f"{name}_l{layer}{'_reverse' * backward}"]
            setattr(cell, name, nnx.Param(leaf.T))
    x, h0 = (leaves.get(name, found[name]) for name in ("x", "h0"))
    y, state = stack(jnp.asarray(x), ElmanState(jnp.asarray(h0)))
    return y, state.h


@pytest.mark.parametrize("time_method", ["sequential", "newton", "quasi_newton"])
@pytest.mark.parametrize("case", cases.names("elman"))
def test_equals_the_recorded(case, time_method):
    cases.check(case, lambda leaves: run(case, time_method, leaves))
