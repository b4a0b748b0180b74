"""The scans of selective state spaces equal the oracle at odd sizes, and at bad padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lru.scan import reference, selective_scan, ssd_scan

ROWS, STEPS, GROUPS, HEADS, STATES = 3, 11, 2, 4, 3


def selective_problem(normal):
    u, dt = normal(ROWS, STEPS, HEADS), jax.nn.softplus(normal(ROWS, STEPS, HEADS))
    A = -jnp.exp(normal(STATES, HEADS))
    B, C = normal(2, ROWS, STEPS, GROUPS, STATES)
    h0, fresh = normal(2, ROWS, STATES, HEADS)
    return {"u": u, "dt": dt, "A": A, "B": B, "C": C, "h0": h0, "reset_to": fresh}


def ssd_problem(normal):
    x, log_decay = normal(ROWS, STEPS, HEADS, 5), -jax.nn.softplus(normal(ROWS, STEPS, HEADS))
    B, C = normal(2, ROWS, STEPS, GROUPS, STATES)
    S0, fresh = normal(2, ROWS, HEADS, STATES, 5)
    return {"x": x, "log_decay": log_decay, "B": B, "C": C, "S0": S0, "reset_to": fresh}


PROBLEMS = {
    "sequential": (selective_problem, reference.selective_scan, selective_scan),
    "associative": (
        *(selective_problem, reference.selective_scan),
        partial(selective_scan, method="associative"),
    ),
    "ssd": (ssd_problem, reference.ssd_scan, ssd_scan),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_equals_the_oracle(name, packed, reverse):
    problem, oracle, scan = PROBLEMS[name]
    keys = iter(jax.random.split(jax.random.key(0), 9))
    with jax.enable_x64(True):
        arrays = problem(lambda *shape: jax.random.normal(next(keys), shape, "float64"))
        weights = jax.random.normal(next(keys), (ROWS, STEPS, 1), "float64")
        options: dict = {"reverse": reverse}
        bad = arrays
        if packed:
            lengths = jnp.array([STEPS, 5, 0])
            resets = jnp.zeros((ROWS, STEPS), bool).at[0, 3:5].set(True).at[1, 0].set(True)
            options |= {"lengths": lengths, "resets": resets.at[:, 8].set(True)}
            padding = jnp.arange(STEPS) >= lengths[:, None]
            bad = {
                name: jnp.where(padding.reshape(*padding.shape, *[1] * (x.ndim - 2)), jnp.nan, x)
                if x.shape[:2] == (ROWS, STEPS)
                else x
                for name, x in arrays.items()
            }

        @partial(jax.jit, static_argnums=0)
        @partial(jax.value_and_grad, argnums=1, has_aux=True)
        def run(scan, arrays):
            y, last = scan(**arrays, **options)
            y_weights = weights.reshape(ROWS, STEPS, *[1] * (y.ndim - 2))
            return jnp.sum(jnp.sin(y) * y_weights) + jnp.sum(last**2), (y, last)

        expected = run(oracle, arrays)
        for length in (4, 0):
            actual = run(partial(scan, chunk_length=length), bad)
            for got, wanted in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
                np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-12)
