"""Numbers recorded from the public code of other libraries; see `tests/fixtures/README.md`."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FIXTURE = Path(__file__).parents[1] / "fixtures" / "recurrences_reference.npz"


@cache
def _recorded() -> dict[str, np.ndarray]:
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


@cache
def _cases() -> dict[str, dict[str, Any]]:
    return json.loads(str(_recorded()["meta_json"]))["cases"]


def names(group: str) -> list[str]:
    """The recorded cases of a recurrence."""
    return [name for name, case in _cases().items() if case["group"] == group]


def options(case: str) -> dict[str, Any]:
    """Sizes and switches of a case."""
    return _cases()[case]


def arrays(case: str) -> dict[str, np.ndarray]:
    """All arrays of a case, by name."""
    start = f"{case}/"
    return {k.removeprefix(start): v for k, v in _recorded().items() if k.startswith(start)}


def check(
    case: str,
    run: Callable[[dict[str, jax.Array]], tuple[jax.Array, jax.Array | None]],
    *,
    y: str = "y",
    h_last: str = "h_last",
    gradients: str = "g_",
    tolerance: tuple[float, float] = (1e-10, 1e-9),
) -> None:
    """Assert that values and gradients of a function are those of a case.

    Args:
        case: its name.
        run: from what has a recorded gradient (parameters without "p_", and inputs) to outputs,
            laid out as recorded, and the last state, or None where none is recorded; what has no
            gradient it takes from `arrays`.
        y: name of the recorded outputs.
        h_last: name of the recorded last state.
        gradients: start of the names of the recorded gradients.
        tolerance: largest relative and absolute error of values, and of gradients.
    """
    found = arrays(case)
    with jax.enable_x64(found["y"].dtype == np.float64):
        expected = {
            name.removeprefix(gradients): value
            for name, value in found.items()
            if name.startswith(gradients)
        }
        assert expected, f"{case} has no gradients"
        leaves = {n: jnp.asarray(found.get(f"p_{n}", found.get(n))) for n in expected}

        @jax.jit
        def evaluated(leaves: dict[str, jax.Array]) -> tuple:
            def loss(leaves: dict[str, jax.Array]) -> tuple[jax.Array, tuple]:
                out, last = run(leaves)
                total = jnp.sum(out * found["cot_y"])
                if "cot_h" in found:
                    total += jnp.sum(last * found["cot_h"])
                return total, (out, last)

            return jax.grad(loss, has_aux=True)(leaves)

        computed, (out, last) = evaluated(leaves)
        _close(out, found[y], tolerance[0])
        if h_last in found:
            assert last is not None, f"{case} has a last state"
            _close(last, found[h_last], tolerance[0])
        for name, value in expected.items():
            _close(computed[name], value, tolerance[1], name)


def _close(actual: Any, expected: np.ndarray, tolerance: float, name: str = "") -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=name)
