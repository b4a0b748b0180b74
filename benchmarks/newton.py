"""Iterations of Newton's method over time, by length, and its times beside single steps.

python -m benchmarks.newton [--show_only]

Writes benchmarks/results/newton.json and docs/images/newton.png, which docs/parallel_in_time.md
explains. Layers are as they are drawn, and with recurrent weights times a gain; inputs are normal.
An error is the largest difference of outputs from those of the same layer step by step.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from benchmarks.provenance import provenance, save
from benchmarks.turns import by_turns
from lru.layers import make_layer

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "newton.json"
PLOT = ROOT / "docs" / "images" / "newton.png"

LAYERS = ("gru", "lstm", "elman", "para-gru", "para-lstm")
METHODS = ("newton", "quasi_newton")
STEPS = (16, 64, 256, 1024, 4096)
GAINS = (1.0, 2.0, 4.0)
ROWS, WIDTH = 2, 32
LIMIT = 200
TIMED = 1024


def layer_of(name: str, method: str, gain: float) -> Any:
    """A layer with recurrent weights times a gain, alike for all methods."""
    options = {"time_method": method, "newton_iterations": LIMIT}
    layer: Any = make_layer(name, WIDTH, WIDTH, options, rngs=nnx.Rngs(0))
    for weight in ("weight_hh", "A", "C"):
        if getattr(layer, weight, None) is not None:
            getattr(layer, weight)[...] *= gain
    return layer


def methods_of(name: str) -> tuple[str, ...]:
    """Those that differ: both are one where no unit reads another."""
    return METHODS[:1] if name.startswith("para") else METHODS


def inputs(steps: int) -> jax.Array:
    """The same first steps whatever the length."""
    return jnp.asarray(
        np.random.default_rng(0).standard_normal((STEPS[-1], ROWS, WIDTH))[:steps].swapaxes(0, 1),
        jnp.float32,
    )


def reported(layer: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """Outputs, and the report of Newton's method."""
    y, _ = layer(x)
    return y, None if layer.solver is None else layer.solver[...]


def counts() -> Iterator[dict[str, Any]]:
    """Iterations by layer, method, gain and length."""
    run = jax.jit(reported)
    for name in LAYERS:
        for gain in GAINS:
            for steps in STEPS:
                x = inputs(steps)
                expected, _ = run(layer_of(name, "sequential", gain), x)
                for method in methods_of(name):
                    y, (iterations, residual, failures) = run(layer_of(name, method, gain), x)
                    yield {
                        "layer": name,
                        "method": method,
                        "gain": gain,
                        "steps": steps,
                        "iterations": int(iterations),
                        "residual": float(f"{residual:.3g}"),
                        "converged": not failures,
                        "error": float(f"{np.abs(y - expected).max():.3g}"),
                    }


def gradients(layer: Any) -> Callable:
    """A program of outputs and all gradients."""
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    @jax.jit
    def run(params: Any, x: jax.Array) -> Any:
        return jax.grad(lambda p: jnp.sum(nnx.merge(graphdef, p, rest)(x)[0] ** 2))(params)

    return lambda: jax.block_until_ready(run(params, inputs(TIMED)))


def times() -> Iterator[dict[str, Any]]:
    """Milliseconds with gradients of each method, at one length."""
    for name in LAYERS:
        programs = {m: gradients(layer_of(name, m, 1.0)) for m in ("sequential", *methods_of(name))}
        for method, measured in by_turns(programs, 5).items():
            yield {
                "layer": name,
                "method": method,
                "milliseconds": float(f"{np.median(measured):.3g}"),
            }


def draw(results: dict[str, Any]) -> None:
    """A panel a gain; what fell back to single steps is a cross."""
    figure, axes = plt.subplots(1, len(GAINS), figsize=(14, 4.5), sharex=True, sharey=True)
    for gain, panel in zip(GAINS, axes, strict=True):
        for color, name in enumerate(LAYERS):
            for method in methods_of(name):
                points = [
                    point
                    for point in results["counts"]
                    if (point["layer"], point["method"], point["gain"]) == (name, method, gain)
                ]
                line = {"color": f"C{color}", "linestyle": "-" if method == "newton" else "--"}
                found = [(point["steps"], point["iterations"]) for point in points]
                panel.loglog(*zip(*found, strict=True), label=f"{name}, {method}", **line)
                for point in points:
                    mark = "." if point["converged"] else "x"
                    panel.loglog(point["steps"], point["iterations"], mark, color=f"C{color}")
        panel.loglog(STEPS, np.minimum(STEPS, LIMIT), ":", color="gray", label="T, and the cap")
        panel.set_title("as drawn" if gain == 1 else f"recurrent weights times {gain:g}")
        panel.set_xlabel("T")
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("iterations")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.88))
    figure.savefig(PLOT, dpi=80)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--show_only", action="store_true", help="do not measure again")
    if not parser.parse_args().show_only:
        sizes = {"rows": ROWS, "width": WIDTH, "limit": LIMIT, "timed": TIMED}
        results = {"provenance": provenance(), "sizes": sizes, "counts": list(counts())}
        save(RESULTS, results | {"times": list(times())})
    draw(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
