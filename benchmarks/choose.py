"""Measure every scan method and write the table that `auto` reads, lru/scan/choice.json.

python -m benchmarks.choose [--kinds linear-varying ...] [--repetitions 7] [--methods native ...]

For each problem and number of steps, all methods take turns at the scan with its gradients, at B 8
and N 128; complex numbers come and go as pairs, as between matrix products. Rows of the table order
the methods by median, but begin with the first of --methods that is not clearly slower than the
fastest; a number of steps has a row only if another method than before is clearly the fastest.
Kinds of problems that are not asked for keep their rows. "pallas" and "sharded" take no part: one
device has nothing to share, and kernels of other processors are interpreted on a CPU.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.provenance import provenance, save
from lru.scan import (
    DENSE_METHODS,
    LINEAR_METHODS,
    choice,
    dense_scan,
    linear_scan,
    paired_scan,
)

STEPS = (1, 16, 256, 1024, 4096, 16384)
ROWS, WIDTH = 8, 128
KINDS = {
    "linear-constant": ("linear", False),
    "linear-varying": ("linear", True),
    "dense-constant": ("dense", False),
}
METHODS = {"linear": LINEAR_METHODS, "dense": DENSE_METHODS}
# A lead smaller than this is noise.
CLEARLY = 0.9
NOT_MEASURED = {
    "gpu": ["associative"],
    "tpu": ["associative"],
    "other": ["associative"],
}


def inputs(problem: str, varying: bool, dtype: str, steps: int) -> tuple[jax.Array, ...]:
    """Factors, inputs and the gradient of the states, the latter two as pairs if complex."""
    keys = jax.random.split(jax.random.key(0), 3)
    b, g = (jax.random.normal(key, (ROWS, steps, WIDTH), dtype) for key in keys[:2])
    shape = (WIDTH, WIDTH) if problem == "dense" else b.shape if varying else (WIDTH,)
    a = jax.random.normal(keys[2], shape, dtype)
    a = a * 0.9 / WIDTH**0.5 if problem == "dense" else 0.99 * a / jnp.abs(a)
    if jnp.iscomplexobj(b) and problem == "linear":
        b, g = (jnp.stack([x.real, x.imag], axis=2) for x in (b, g))
    return a, b, g


def medians(problem: str, methods: list[str], arrays: tuple, repetitions: int) -> dict[str, float]:
    """Median seconds of the scan with its gradients, by method."""
    scan: Callable = dense_scan
    if problem == "linear":
        scan = partial(paired_scan if arrays[1].ndim == 4 else linear_scan, donate=True)

    def run(method: str, a: jax.Array, b: jax.Array, g: jax.Array) -> tuple:
        h, pull = jax.vjp(lambda a, b: scan(a, b, method=method)[0], a, b)
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
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    timed = ["native", "sequential", "associative", "chunked"]
    parser.add_argument("--methods", nargs="+", choices=timed, default=timed)
    options = parser.parse_args()
    table: dict[str, Any] = json.loads(choice.TABLE.read_text())
    replaced = [f"{jax.default_backend()}-{kind}" for kind in options.kinds]
    kept = [row for row in table["measured"] if kind_of(row) not in replaced]
    measured = [row for kind in options.kinds for row in measure(kind, options)]
    table["provenance"] |= dict.fromkeys(replaced, provenance())
    table["measured"] = sorted(
        kept + measured, key=lambda row: (row["platform"], list(KINDS).index(problem_of(row)))
    )
    table["not_measured"] = NOT_MEASURED
    save(choice.TABLE, table)


def problem_of(row: dict[str, Any]) -> str:
    """The kind of problem that a row of the table is about."""
    return f"{row['problem']}-{row['factor']}"


def kind_of(row: dict[str, Any]) -> str:
    """The platform and kind of problem of a row: what has one provenance."""
    return f"{row['platform']}-{problem_of(row)}"


def measure(kind: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of the table."""
    problem, varying = KINDS[kind]
    methods = [name for name in options.methods if name in METHODS[problem]]
    for dtype in ("float32", "complex64"):
        before: str | None = None
        for steps in STEPS:
            arrays = inputs(problem, varying, dtype, steps)
            times = medians(problem, methods, arrays, options.repetitions)
            order = sorted(times, key=times.__getitem__)
            fastest = times[order[0]]
            shown = {name: round(1e3 * times[name], 3) for name in order}
            print(kind, dtype, steps, shown, flush=True)
            if before is not None and fastest > CLEARLY * times[before]:
                continue
            # The first one named that is not clearly slower: single steps are the same in all.
            before = next(name for name in methods if CLEARLY * times[name] <= fastest)
            order = [before, *(name for name in order if name != before)]
            yield {
                "platform": jax.default_backend(),
                "problem": problem,
                "factor": "varying" if varying else "constant",
                "number": "real" if dtype == "float32" else "complex",
                "least_steps": steps,
                "methods": order,
                "median_ms": shown,
            }


if __name__ == "__main__":
    main()
