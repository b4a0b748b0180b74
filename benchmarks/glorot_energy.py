"""Energy that Gaussian matrices keep over k steps, measured beside its formula.

python -m benchmarks.glorot_energy [--draws 10000]

Complex draws are the case of `lru.layers.glorot.log_glorot_energy`; real ones are those of
the package's `glorot`. Of each matrix A the energy |A^k x|^2 is the mean over VECTORS random unit
vectors. Results go to benchmarks/results/glorot_energy.json and docs/images/glorot_energy.png.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.provenance import provenance, save
from lru.layers.glorot import log_glorot_energy
from lru.layers.initializers import MATRIX_INITIALIZERS

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "glorot_energy.json"
PLOT = HERE.parent / "docs" / "images" / "glorot_energy.png"

WIDTHS = (64, 192, 384)
VECTORS = 8
SEED = 0
AT_ONCE = 50


def complex_draws(key: jax.Array, n: int) -> jax.Array:
    """Matrices [AT_ONCE, n, n] of complex N(0, 1/n)."""
    return jax.random.normal(key, (AT_ONCE, n, n), np.complex64) / math.sqrt(n)


def real_draws(key: jax.Array, n: int) -> jax.Array:
    """Matrices [AT_ONCE, n, n] of the package's glorot."""
    return jax.vmap(lambda key: MATRIX_INITIALIZERS["glorot"](key, n))(
        jax.random.split(key, AT_ONCE)
    )


KINDS = {"complex": complex_draws, "real": real_draws}


def energies(kind: str, n: int, draws: int) -> np.ndarray:
    """Energies [draws, steps] after 1 to 2 sqrt n steps."""
    most = int(2 * math.sqrt(n))

    @jax.jit
    def measured(key: jax.Array) -> jax.Array:
        of_matrix, of_vectors = jax.random.split(key)
        A = KINDS[kind](of_matrix, n)
        x = jax.random.normal(of_vectors, (AT_ONCE, n, VECTORS), A.dtype)
        x = x / jax.numpy.linalg.norm(x, axis=1, keepdims=True)

        def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            x = A @ x
            return x, (abs(x) ** 2).sum(1).mean(1)

        return jax.lax.scan(step, x, length=most)[1]

    keys = jax.random.split(jax.random.key(SEED + n), -(-draws // AT_ONCE))
    return np.concatenate([np.asarray(measured(key), np.float64).T for key in keys])


def summary(kind: str, n: int, draws: int) -> dict[str, Any]:
    """Mean energies by step, their standard errors, and the formula."""
    found = energies(kind, n, draws)
    mean, error = found.mean(0), found.std(0, ddof=1) / math.sqrt(len(found))
    theory = np.exp([log_glorot_energy(n, k) for k in range(1, len(mean) + 1)])
    return {
        "kind": kind,
        "n": n,
        "draws": len(found),
        "mean": mean.round(5).tolist(),
        "standard_error": error.round(5).tolist(),
        "theory": theory.round(5).tolist(),
        "largest_relative_error": round(float((error / mean).max()), 4),
        "largest_deviation_in_errors": round(float((abs(mean - theory) / error).max()), 2),
    }


def draw_figure(found: list[dict[str, Any]]) -> None:
    """The formula as lines, complex draws as dots and real draws as crosses, against k / sqrt n."""
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    for n, colour in zip(WIDTHS, ("#c44e52", "#4c72b0", "#2a9d6f"), strict=True):
        steps = np.arange(int(2 * math.sqrt(n)) + 1)
        line = np.exp([log_glorot_energy(n, int(k)) for k in steps])
        axes.plot(steps / math.sqrt(n), line, color=colour, label=f"formula, n = {n}")
        for each in found:
            if each["n"] == n:
                marker = {"complex": "o", "real": "x"}[each["kind"]]
                axes.errorbar(
                    steps[1:] / math.sqrt(n),
                    each["mean"],
                    each["standard_error"],
                    fmt=marker,
                    color=colour,
                    markersize=4,
                    linewidth=0.8,
                )
    axes.plot([], [], "o", color="black", markersize=4, label="complex draws")
    axes.plot([], [], "x", color="black", markersize=4, label="real draws: glorot")
    axes.set(xlabel="steps over the root of the width, k / √n", ylabel="energy", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(PLOT, dpi=150)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--draws",
        type=int,
        default=10_000,
        help="complex ones of each width, and five times as many as real ones",
    )
    draws = parser.parse_args().draws
    found = [
        summary(kind, n, count)
        for n in WIDTHS
        for kind, count in (("complex", draws), ("real", draws // 5))
    ]
    save(RESULTS, {**provenance(), "vectors": VECTORS, "seed": SEED, "energies": found})
    draw_figure(found)


if __name__ == "__main__":
    main()
