"""Errors of every scan method against float64, for long sequences and factors close to 1.

python -m benchmarks.numerics [--limit pallas=1024] [--show_only]

Writes benchmarks/results/numerics.json, docs/images/numerics.png and the table in docs/numerics.md,
which explains them. The oracle is `lru.scan.reference` in float64, given the same float32 numbers
as the methods. An error is the largest difference over the largest magnitude, of all states or of
the gradient of the factor. --limit NAME=T keeps a method from sequences longer than T: interpreted
ones are slow. "sharded" splits time over eight devices, which the processor stands in for.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

# Read when JAX is imported. Other values than 8 are the caller's choice.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.provenance import provenance
from lru.files import write_atomically
from lru.layers.diagonal import PARAMETRIZATIONS
from lru.scan import (
    DENSE_METHODS,
    LINEAR_METHODS,
    dense_scan,
    linear_scan,
    parts,
    reference,
)
from lru.scan.parts import join, split

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "numerics.json"
PLOT = ROOT / "docs" / "images" / "numerics.png"
PAGE = ROOT / "docs" / "numerics.md"
MARKS = ("<!-- table: made by benchmarks/numerics.py -->\n", "<!-- end of table -->\n")

STEPS = (256, 1024, 4096, 16384, 65536)
MODULI = (0.9, 0.99, 0.999, 0.9999, 1.0)
GAPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ROWS, WIDTH = 1, 16

# What scans and what their gradients are taken of is real: parts of complex numbers stand apart.
Scan = Callable[[jax.Array, jax.Array], jax.Array]


def on_parts(scan: Callable) -> Scan:
    """A linear scan of complex numbers, between parts."""
    return lambda a, b: split(scan(join(a), join(b))[0])


def on_reals(scan: Callable) -> Scan:
    """A scan of real numbers."""
    return lambda a, b: scan(a, b)[0]


def narrow(x: jax.Array) -> jax.Array:
    """Rounded to bfloat16; not a pair of casts, which compilers may leave out."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def narrow_inputs_and_outputs(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inputs and outputs in bfloat16, the state in float32."""
    return narrow(on_parts(linear_scan)(a, narrow(b)))


def narrow_state(a: jax.Array, b: jax.Array) -> jax.Array:
    """The state rounded to bfloat16 after every step, computed in float32."""

    def step(h: jax.Array, b_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = narrow(parts.multiply(a, h) + b_t)
        return h, h

    h = jax.lax.scan(step, jnp.zeros_like(b[:, 0]), jnp.moveaxis(b, 1, 0))[1]
    return jnp.moveaxis(h, 0, 1)


# On a CPU `mosaic` is `pallas`.
ELEMENTWISE = {
    name: partial(linear_scan, method=name) for name in LINEAR_METHODS if name != "mosaic"
}
PROBLEMS: dict[str, tuple[Callable, dict[str, Callable]]] = {
    "linear, complex": (
        on_parts,
        {"reference": reference.linear_scan} | ELEMENTWISE,
    ),
    "linear, real": (
        on_reals,
        {"reference": reference.linear_scan} | ELEMENTWISE,
    ),
    "dense, real": (
        on_reals,
        {"reference": reference.dense_scan}
        | {name: partial(dense_scan, method=name) for name in DENSE_METHODS},
    ),
}
NARROW: dict[str, Scan] = {
    "bfloat16 inputs and outputs": narrow_inputs_and_outputs,
    "bfloat16 state": narrow_state,
}


def factor(problem: str, modulus: float, random: np.random.Generator) -> np.ndarray:
    """Numbers, or a matrix whose eigenvalues, of this modulus."""
    if problem == "dense, real":
        return modulus * np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
    if problem == "linear, real":
        return np.full(WIDTH, modulus)
    phase = random.uniform(0, np.pi, WIDTH)
    return modulus * np.stack([np.cos(phase), np.sin(phase)])


def arguments(problem: str, modulus: float, steps: int) -> tuple[np.ndarray, ...]:
    """Factor, inputs and the gradient of the states, in float32; inputs are normal."""
    random = np.random.default_rng(0)
    a = factor(problem, modulus, random)
    inside = (2, WIDTH) if problem == "linear, complex" else (WIDTH,)
    b, g = random.standard_normal((2, ROWS, steps, *inside))
    return tuple(x.astype(np.float32) for x in (a, b, g))


def pulled(scan: Scan) -> Callable:
    """States, and the gradient of the factor for a gradient of the states."""

    def both(a: jax.Array, b: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        h, pull = jax.vjp(lambda a: scan(a, b), a)
        return h, pull(g.astype(h.dtype))[0]

    return jax.jit(both)


def error(found: Any, right: np.ndarray) -> float:
    """The largest difference over the largest magnitude."""
    return short(np.abs(np.asarray(found, np.float64) - right).max() / np.abs(right).max())


def short(x: Any) -> float:
    """Three digits: errors are of interest by their size."""
    return float(f"{x:.3g}")


def measure(limits: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Errors by problem, method, length and modulus."""
    for problem, (wrap, scans) in PROBLEMS.items():
        programs = {name: pulled(wrap(scan)) for name, scan in scans.items()}
        rounded = {name: jax.jit(scan) for name, scan in NARROW.items()}
        for steps in STEPS:
            for modulus in MODULI:
                arrays = arguments(problem, modulus, steps)
                with jax.enable_x64(True):
                    right = programs["reference"](*(x.astype(np.float64) for x in arrays))
                h, da = map(np.asarray, right)
                shared = {"problem": problem, "steps": steps, "modulus": modulus}
                for method, program in programs.items():
                    if steps <= limits.get(method, steps):
                        states, gradient = program(*arrays)
                        errors = {"states": error(states, h), "gradient": error(gradient, da)}
                        yield {**shared, "method": method, **errors}
                if problem == "linear, complex":
                    for method, program in rounded.items():
                        states = program(*arrays[:2])
                        yield {**shared, "method": method, "states": error(states, h)}


def sums_over_time() -> Iterator[dict[str, Any]]:
    """Errors of the sum that is the gradient of a constant factor alone: its terms are right."""
    for steps in STEPS:
        terms = np.random.default_rng(0).standard_normal((steps, WIDTH)).astype(np.float32)
        right = terms.sum(0, dtype=np.float64)
        # The size of such a sum if its terms are independent: it may cancel to less.
        size = steps**0.5
        one_by_one = np.cumsum(terms, axis=0, dtype=np.float32)[-1]
        for name, total in (("one by one", one_by_one), ("jnp.sum", jnp.sum(terms, axis=0))):
            difference = np.abs(np.asarray(total, np.float64) - right)
            yield {"steps": steps, "order": name, "error": short(difference.max() / size)}


def resolution() -> Iterator[dict[str, Any]]:
    """By parametrisation: how far 1 - |λ| is from what was asked for, in float32."""
    phase = np.random.default_rng(0).uniform(0.01, np.pi, 4096)
    for gap in GAPS:
        for name, rule in PARAMETRIZATIONS.items():
            with jax.enable_x64(True):
                exact = rule.encode(jnp.asarray((1 - gap) * np.exp(1j * phase)))
            re, im = rule.decode(*(jnp.asarray(np.asarray(x), jnp.float32) for x in exact))
            off = np.abs((1 - np.hypot(np.float64(re), np.float64(im))) / gap - 1)
            yield {"gap": gap, "parametrization": name, "error": short(off.max())}


def style(method: str) -> dict[str, Any]:
    """The line of a method: the same in every panel."""
    names = list(dict.fromkeys(name for _, scans in PROBLEMS.values() for name in scans))
    if method in NARROW:
        return {"color": ("tab:gray", "black")[list(NARROW).index(method)], "linestyle": "--"}
    if method == "reference":
        return {"color": "silver", "linewidth": 4}
    return {"color": f"C{names.index(method) - 1}", "marker": ".", "alpha": 0.8}


def draw(results: dict[str, Any]) -> None:
    """Panels: problem and quantity down, modulus across."""
    rows = [(problem, of) for problem in PROBLEMS for of in ("states", "gradient")]
    figure, axes = plt.subplots(
        len(rows), len(MODULI), figsize=(14, 14), sharex=True, sharey="row", squeeze=False
    )
    for modulus, top, bottom in zip(MODULI, axes[0], axes[-1], strict=True):
        top.set_title(f"|a| = {modulus:g}")
        bottom.set_xlabel("T")
    for (problem, of), line in zip(rows, axes, strict=True):
        for modulus, panel in zip(MODULI, line, strict=True):
            found: dict[str, list[tuple[int, float]]] = {}
            for record in results["errors"]:
                if (record["problem"], record["modulus"]) == (problem, modulus) and of in record:
                    found.setdefault(record["method"], []).append((record["steps"], record[of]))
            for method, points in found.items():
                panel.loglog(*zip(*points, strict=True), label=method, **style(method))
            unit = np.finfo(np.float32).eps * np.sqrt(STEPS)
            panel.loglog(STEPS, unit, ":", color="gray", label="eps sqrt(T)")
            panel.grid(alpha=0.3)
        line[0].set_ylabel(f"{problem}\nerror of {'h' if of == 'states' else 'the gradient of a'}")
    handles: dict[str, Any] = {}
    for panel in axes[:, 0]:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=5, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(PLOT, dpi=80)


def table(results: dict[str, Any]) -> str:
    """Errors of the states and of the gradient at the longest T of each method, in Markdown."""
    lines = [
        "| problem | method | T | " + " | ".join(f"\\|a\\| = {m:g}" for m in MODULI) + " |",
        "|" + " --- |" * 3 + " ---: |" * len(MODULI),
    ]
    cells: dict[tuple[str, str], dict[int, list[str]]] = {}
    for record in results["errors"]:
        cell = " / ".join(f"{record[of]:.0e}" for of in ("states", "gradient") if of in record)
        by_steps = cells.setdefault((record["problem"], record["method"]), {})
        by_steps.setdefault(record["steps"], []).append(cell)
    for (problem, method), by_steps in cells.items():
        longest = max(by_steps)
        row = [problem, f"`{method}`" if method not in NARROW else method, f"{longest:,}"]
        lines.append(f"| {' | '.join([*row, *by_steps[longest]])} |")
    return "\n".join(lines) + "\n"


def write_table(results: dict[str, Any]) -> None:
    """Put the table between its marks."""
    before, rest = PAGE.read_text().split(MARKS[0])
    page = before + MARKS[0] + table(results) + MARKS[1] + rest.split(MARKS[1])[1]
    write_atomically(PAGE, page.encode())


def limit(text: str) -> tuple[str, int]:
    """The name of a method, and the longest T that it is measured at."""
    name, _, most = text.partition("=")
    return name, int(most)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--limit", nargs="*", type=limit, default=[("pallas", 1024)], metavar="METHOD=T"
    )
    parser.add_argument("--show_only", action="store_true", help="do not measure again")
    options = parser.parse_args()
    if not options.show_only:
        limits = dict(options.limit)
        results = {
            "provenance": provenance(),
            "sizes": {"rows": ROWS, "width": WIDTH, "devices": jax.device_count()},
            "longest": limits,
            "errors": list(measure(limits)),
            "sums": list(sums_over_time()),
            "resolution": list(resolution()),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    results = json.loads(RESULTS.read_text())
    draw(results)
    write_table(results)


if __name__ == "__main__":
    main()
