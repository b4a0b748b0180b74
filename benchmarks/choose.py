"""Measure every scan method and write the table that `auto` reads, lru/scan/choice.json.

python -m benchmarks.choose [--repetitions 7] [--methods native sequential ...]

For each problem and number of steps, all methods take turns at the scan with its gradients; complex
numbers come and go as pairs, as between matrix products. Rows of the table order the methods by
median; a number of steps has a row only if another method than before is clearly the fastest.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.provenance import provenance, save
from lru.scan import (
    DENSE_METHODS,
    LINEAR_METHODS,
    choice,
    dense_scan,
    join,
    linear_scan,
    split,
)

STEPS = (1, 16, 256, 1024, 4096, 16384)
# Problems of about so many states, so that short ones are no mere calls.
STATES = 8 * 1024 * 128
# A lead smaller than this is noise.
CLEARLY = 0.9
NOT_MEASURED = {
    "gpu": ["associative"],
    "tpu": ["associative"],
    "other": ["associative"],
}


def inputs(problem: str, varying: bool, dtype: str, steps: int) -> tuple[jax.Array, ...]:
    """Factors, inputs and the gradient of the states, the latter two as parts [B, T, P, N]."""
    width = 128
    rows = max(1, min(8, STATES // (steps * width)))
    keys = jax.random.split(jax.random.key(0), 3)
    b, g = (jax.random.normal(key, (rows, steps, width), dtype) for key in keys[:2])
    shape = (width, width) if problem == "dense" else b.shape if varying else (width,)
    a = jax.random.normal(keys[2], shape, dtype)
    a = a * 0.9 / width**0.5 if problem == "dense" else 0.99 * a / jnp.abs(a)
    return a, split(b), split(g)


def medians(problem: str, methods: list[str], arrays: tuple, repetitions: int) -> dict[str, float]:
    """Median seconds of the scan with its gradients, by method."""
    scan = dense_scan if problem == "dense" else linear_scan

    def run(method: str, a: jax.Array, b: jax.Array, g: jax.Array) -> tuple:
        h, pull = jax.vjp(lambda a, b: split(scan(a, join(b), method=method)[0]), a, b)
        return h, pull(g)

    programs = {name: jax.jit(run, static_argnums=0, donate_argnums=(2, 3)) for name in methods}
    a, b, g = arrays
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for repetition in range(repetitions + 1):
        for name, program in programs.items():
            fresh = jax.block_until_ready((b + 0, g + 0))
            start = time.perf_counter()
            jax.block_until_ready(program(name, a, *fresh))
            if repetition:  # The first one compiles.
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--methods", nargs="+", default=["native", "sequential", "associative"])
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    kinds = [("linear", varying) for varying in (False, True)] + [("dense", False)]
    for problem, varying in kinds:
        known = DENSE_METHODS if problem == "dense" else LINEAR_METHODS
        methods = [name for name in options.methods if name in known]
        for dtype in ("float32", "complex64"):
            before: str | None = None
            for steps in STEPS:
                arrays = inputs(problem, varying, dtype, steps)
                times = medians(problem, methods, arrays, options.repetitions)
                order = sorted(times, key=times.__getitem__)
                shown = {name: round(1e3 * times[name], 3) for name in order}
                print(problem, "varying" if varying else "constant", dtype, steps, shown)
                if before is not None and times[order[0]] > CLEARLY * times[before]:
                    continue
                before = order[0]
                rows.append(
                    {
                        "platform": jax.default_backend(),
                        "problem": problem,
                        "factor": "varying" if varying else "constant",
                        "number": "real" if dtype == "float32" else "complex",
                        "least_steps": steps,
                        "methods": order,
                        "median_ms": shown,
                    }
                )
    table = {"provenance": provenance(), "measured": rows, "not_measured": NOT_MEASURED}
    save(choice.TABLE, table)


if __name__ == "__main__":
    main()
