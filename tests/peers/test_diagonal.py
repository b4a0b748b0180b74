"""Constant diagonal state spaces are those that were recorded from their authors' code."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.layers import S4D, S5, DLinOSS, LinOSS
from lru.layers.state_spaces import hippo_legs
from lru.scan import LINEAR_METHODS
from tests.peers import cases


def inputs(pairs):
    """[N, D, 2] as B [D, 2N]."""
    return jnp.concatenate([pairs[..., 0], pairs[..., 1]]).T


def outputs(pairs):
    """[D, N, 2] as C [2N, D]."""
    return jnp.concatenate([pairs[..., 0], -pairs[..., 1]], axis=1).T


def loaded(layer: Any, **values):
    """The layer with these parameters, by name."""
    for name, value in values.items():
        setattr(layer, name, type(getattr(layer, name))(value))
    return layer


def all_methods(group):
    """The first case by every scan method, the others by one."""
    first, *others = cases.names(group)
    return [*((first, method) for method in LINEAR_METHODS), *((case, "auto") for case in others)]


def with_both(groups):
    found = [pair for group in groups for pair in all_methods(group)]
    return pytest.mark.parametrize(("case", "method"), found, ids=str)


@with_both(["s5"])
def test_s5(case, method):
    given = cases.options(case)

    def layer(p, C, D):
        return loaded(
            S5(
                given["H"],
                given["P"],
                discretization=given["discretization"],
                conj_sym=given["conj_sym"],
                clip_eigs=given["clip_eigs"],
                scan_method=method,
                rngs=nnx.Rngs(0),
            ),
            lambda_re=p["Lambda_re"],
            lambda_im=p["Lambda_im"],
            # What the steps are multiplied by is a part of them here.
            log_step=p["log_step"][:, 0] + np.log(given["step_rescale"]),
            B=inputs(p["B"]),
            C=outputs(C),
            D=D,
        )

    def run(p):
        if not given["bidirectional"]:
            return layer(p, p["C"], p["D"])(p["x"])[0], None
        forward, backward = layer(p, p["C1"], p["D"]), layer(p, p["C2"], 0 * p["D"])
        return forward(p["x"])[0] + backward(p["x"], reverse=True)[0], None

    cases.check(case, run)


@with_both(["linoss", "dlinoss"])
def test_oscillators(case, method):
    given = cases.options(case)
    options = {"scan_method": method}
    if given["group"] == "linoss":
        options["discretization"] = given["discretization"].lower()
    kind: Any = LinOSS if given["group"] == "linoss" else DLinOSS

    def run(p):
        layer = loaded(
            kind(given["H"], given["P"], **options, rngs=nnx.Rngs(0)),
            A=p["A_diag"],
            steps=p["steps"],
            B=inputs(p["B"]),
            C=outputs(p["C"]),
            D=p["D"],
            **({"G": p["G_diag"]} if "G_diag" in p else {}),
        )
        return layer(p["x"])[0], None

    cases.check(case, run)


@with_both(["s4d"])
def test_s4d(case, method):
    given = cases.options(case)

    def run(p):
        layer = loaded(
            S4D(given["H"], given["d_state"], scan_method=method, rngs=nnx.Rngs(0)),
            log_step=p["kernel.log_dt"],
            log_A_real=p["kernel.log_A_real"].T,
            A_imag=p["kernel.A_imag"].T,
            C_re=p["kernel.C"][..., 0].T,
            C_im=p["kernel.C"][..., 1].T,
            D=p["D"],
        )
        # The rest of the published layer.
        W, b = p["output_linear.0.weight"][..., 0], p["output_linear.0.bias"]
        y = layer(p["x"])[0]
        return jax.nn.glu(jax.nn.gelu(y, approximate=False) @ W.T + b), None

    cases.check(case, run)


@pytest.mark.parametrize("case", cases.names("s5_init"))
def test_hippo(case):
    found, close = cases.arrays(case), partial(np.testing.assert_allclose, rtol=0, atol=1e-12)
    eigenvalues, V = hippo_legs(len(found["A"]))
    close(eigenvalues, found["Lambda"])
    p = np.sqrt(np.arange(len(V)) + 0.5)
    close((V * eigenvalues) @ V.conj().T, found["A"] + np.outer(p, p))
    if "block_Lambda" in found:
        layer = S5(3, found["block_Lambda"].size, blocks=2, rngs=nnx.Rngs(0))
        found_here = layer.lambda_re[...] + 1j * layer.lambda_im[...]
        np.testing.assert_allclose(found_here, found["block_Lambda"], rtol=1e-6)
