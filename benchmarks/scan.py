"""Time of the scans, forward and with gradients, beside plain copies and autodiff of the peers.

python -m benchmarks.scan [--problems linear dense] [--steps 256 1024 4096] [--repetitions 15]
    [--keep_memory]

Entrants take turns, and medians are shown. Real pairs are donated, as they are inside a model,
where b and the gradient of h come fresh from matrix products; complex arrays live on, and go
through `linear_scan` as anybody calls it. "copies" moves what a scan must: forward reads b and
writes h; with gradients it also reads g and h and writes the gradient of b, in place where inputs
are donated and to other memory ("copies, apart") where they live on. "products"
multiplies what a dense scan must, over all of time at once: A with every h, and with gradients also
A^T with every gradient of b, and these with every h. Compile time and temporary memory are those of
the program with gradients. With --keep_memory the C library keeps what is freed, as in a run;
otherwise it returns large buffers to the system, and programs with many pay for fresh pages.
Results go to benchmarks/results/scan-PROBLEM.json (-kept where memory is kept) and, over the
steps, to docs/images/scan-PROBLEM.png.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

from benchmarks.plain import associative_scan
from benchmarks.provenance import provenance, save
from lru.scan import (
    DENSE_METHODS,
    LINEAR_METHODS,
    dense_scan,
    linear_scan,
    paired_scan,
    reference,
)
from lru.training.memory import keep_freed_memory

Scan = Callable[[jax.Array, jax.Array], jax.Array]

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
# One device has nothing to share, and kernels of other processors are interpreted on a CPU.
NOT_TIMED = ("mosaic", "pallas", "sharded")


def row_peer(A: jax.Array, b: jax.Array) -> jax.Array:
    """The usual form: a loop over one sequence, mapped over the batch."""

    def solve(b: jax.Array) -> jax.Array:
        def step(h: jax.Array, b_t: jax.Array) -> tuple[jax.Array, jax.Array]:
            h = A @ h + b_t
            return h, h

        return jax.lax.scan(step, jnp.zeros_like(b[0]), b)[1]

    return jax.vmap(solve)(b)


def programs(scan: Scan, *, donate: bool = True) -> tuple[Callable, Callable]:
    """The scan alone, and the scan with its gradients for a given gradient g of h."""

    def both(a: jax.Array, b: jax.Array, g: jax.Array) -> tuple:
        h, pull = jax.vjp(scan, a, b)
        return h, pull(g)

    forward = jax.jit(lambda a, b, g: scan(a, b), donate_argnums=(1,) if donate else ())
    return forward, jax.jit(both, donate_argnums=(1, 2) if donate else ())


def copies(*, donate: bool = True) -> tuple[Callable, Callable]:
    """The compulsory traffic and nothing else."""
    donated = (1,) if donate else ()
    forward = jax.jit(lambda a, b, g: b * 1.5, donate_argnums=donated)
    backward = jax.jit(lambda h, g: g + h, donate_argnums=donated)

    def both(a: jax.Array, b: jax.Array, g: jax.Array) -> tuple:
        h = forward(a, b, g)
        return h, backward(h, g)

    return forward, both


def products() -> tuple[Callable, Callable]:
    """The compulsory arithmetic of a dense scan and nothing else."""

    def both(A: jax.Array, b: jax.Array, g: jax.Array) -> tuple:
        return b @ A, g @ A, jnp.einsum("btn,btm->nm", g, b)

    return jax.jit(lambda A, b, g: b @ A), jax.jit(both)


def measure(entrants: dict[str, tuple[tuple, tuple]], repetitions: int) -> list[dict]:
    """Time every entrant's two programs by turns; a row for each entrant."""
    times = {(name, i): [] for name in entrants for i in range(2)}
    rows = []
    for name, (both, arrays) in entrants.items():
        start = time.perf_counter()
        memory = None
        if hasattr(both[1], "lower"):
            memory = both[1].lower(*arrays).compile().memory_analysis().temp_size_in_bytes
        seconds = time.perf_counter() - start
        rows.append({"name": name, "compile_s": round(seconds, 2), "temporary_bytes": memory})
    for repetition in range(repetitions + 1):
        for name, (both, (a, b, g)) in entrants.items():
            for i, program in enumerate(both):
                fresh = jax.block_until_ready((b + 0, g + 0))
                start = time.perf_counter()
                jax.block_until_ready(program(a, *fresh))
                if repetition > 0:
                    times[name, i].append(1e3 * (time.perf_counter() - start))
    for row in rows:
        for i, which in enumerate(("forward", "both")):
            values = times[row["name"], i]
            row[f"{which}_ms"] = round(statistics.median(values), 3)
            row[f"{which}_fastest_ms"] = round(min(values), 3)
            apart = "copies, apart" in entrants and "complex" in row["name"]
            copied = statistics.median(times["copies, apart" if apart else "copies", i])
            row[f"{which}_over_copies"] = round(statistics.median(values) / copied, 2)
    return rows


def linear_entrants(batch: int, steps: int, width: int) -> dict[str, tuple[tuple, tuple]]:
    """The complex problem with a constant a, and with a real varying one."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (batch, steps, 2, width)
    x, g = (jax.random.normal(key, shape) for key in keys[:2])
    a = 0.99 * jnp.exp(1j * jax.random.uniform(keys[2], (width,), maxval=3))
    varying = jax.random.uniform(keys[3], (batch, steps, width))
    pairs, plain, real = (a, x, g), *((y, to_complex(x), to_complex(g)) for y in (a, varying))

    def paired(method: str) -> Scan:
        return lambda a, x: paired_scan(a, x, method=method, donate=True)[0]

    def first(scan: Callable) -> Scan:
        return lambda a, b: scan(a, b)[0]

    apart = partial(programs, donate=False)
    entrants = {
        "copies": (copies(), pairs),
        "copies, apart": (copies(donate=False), pairs),
        **{
            name: (programs(paired(name)), pairs)
            for name in LINEAR_METHODS
            if name not in NOT_TIMED
        },
    }
    for kind, arrays in (("complex", plain), ("complex, real varying a", real)):
        entrants[f"auto, {kind}"] = (apart(first(linear_scan)), arrays)
        entrants[f"lax.associative_scan, autodiff, {kind}"] = (apart(associative_scan), arrays)
    entrants["lax.scan, autodiff, complex"] = (apart(first(reference.linear_scan)), plain)
    return entrants


def to_complex(x: jax.Array) -> jax.Array:
    """The complex array [B, T, N] of real pairs."""
    return jax.lax.complex(x[:, :, 0], x[:, :, 1])


def dense_entrants(batch: int, steps: int, width: int) -> dict[str, tuple[tuple, tuple]]:
    """The real problem."""
    keys = jax.random.split(jax.random.key(0), 3)
    b, g = (jax.random.normal(key, (batch, steps, width)) for key in keys[:2])
    A = jax.random.normal(keys[2], (width, width)) * 0.9 / width**0.5
    scans: dict[str, Callable] = {name: partial(dense_scan, method=name) for name in DENSE_METHODS}
    entrants = {
        name: (programs(lambda A, b, scan=scan: scan(A, b)[0]), (A, b, g))
        for name, scan in {**scans, "lax.scan, autodiff": reference.dense_scan}.items()
    }
    entrants["lax.scan under vmap, autodiff"] = (programs(row_peer), (A, b, g))
    return {"copies": (copies(), (A, b, g)), "products": (products(), (A, b, g)), **entrants}


def draw(results: dict, path: Path) -> None:
    """Time over that of the copies, against the number of steps."""
    sizes = sorted(results["steps"], key=int)
    names = [row["name"] for row in results["steps"][sizes[0]] if "copies" not in row["name"]]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
    for axis, which, title in zip(
        axes, ("forward", "both"), ("forward", "forward + backward"), strict=True
    ):
        for name in names:
            ratios = [
                next(r for r in results["steps"][size] if r["name"] == name)[f"{which}_over_copies"]
                for size in sizes
            ]
            axis.plot([int(size) for size in sizes], ratios, marker="o", label=name)
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="steps T", title=title)
    axes[0].set_ylabel("time / time of plain copies")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the problems that are asked for."""
    problems = {"linear": linear_entrants, "dense": dense_entrants}
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--problems", nargs="+", choices=problems, default=list(problems))
    parser.add_argument("--batch", type=int, default=8)
    steps = [256, 1024, 4096, 16384, 65536]
    parser.add_argument("--steps", nargs="+", type=int, default=steps)
    parser.add_argument("--width", type=int, default=384, help="of the linear scan; dense: half")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--only_draw", action="store_true", help="the results that are there")
    parser.add_argument("--keep_memory", action="store_true", help="keep what is freed, as runs do")
    options = parser.parse_args()
    if options.keep_memory:
        keep_freed_memory()
    kept = "-kept" if options.keep_memory else ""
    for name in options.problems:
        file = f"scan-{name}{kept}"
        written, picture = HERE / "results" / f"{file}.json", IMAGES / f"{file}.png"
        if options.only_draw:
            draw(json.loads(written.read_text()), picture)
            continue
        width = options.width // 2 if name == "dense" else options.width
        results = {"provenance": provenance(), "batch": options.batch, "width": width, "steps": {}}
        for steps in options.steps:
            # Batches of long sequences are cut, so that what the peers keep fits in memory.
            batch = max(1, min(options.batch, options.batch * 4096 // steps))
            rows = measure(problems[name](batch, steps, width), options.repetitions)
            results["steps"][str(steps)] = rows
            print(f"{name}: B {batch}, T {steps}, N {width}")
            for row in rows:
                print("  ", *(f"{key} {value}" for key, value in row.items()))
        save(written, results)
        draw(results, picture)


if __name__ == "__main__":
    main()
