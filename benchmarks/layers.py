"""Time and memory of whole layers, forward and backward, and of one long sequence in chunks.

python -m benchmarks.layers [--steps 256 1024 4096] [--repetitions 9] [--only_long | --only_draw]

All recurrent layers take turns with the LRU in plain form (`benchmarks/plain.py`) and the LSTM and
the GRU of PyTorch, where that is installed, at D = N and B 8, less from T 8,192 on. "memory" is
what the compiled program needs beside its arguments and results. The long sequence is one LRU at
B 1, T 65,536, D 64, N 64: in chunks whose states the gradient runs again, with all states kept, and
with products and scan apart and all states kept; each in a process of its own, which also reports
how far its resident memory rose above that with the arguments at hand (Linux), results included.
In chunks it also takes turns on one core and on all, in new processes, with freed memory kept as in
a run by the command and without.
Results go to benchmarks/results/layers.json and, over the steps, to docs/images/layers.png.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from flax import nnx

from benchmarks.plain import PlainLRU
from benchmarks.provenance import provenance, save
from benchmarks.turns import by_turns
from lru.layers import LAYERS, LRU, layer_options, make_layer
from lru.layers.base import RecurrentLayer
from lru.scan import paired_scan
from lru.training.memory import keep_freed_memory

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "layers.json"
PLOT = HERE.parent / "docs" / "images" / "layers.png"
LONG, LONG_WIDTH = 65536, 64
ROUNDS = 5


class ApartLRU(LRU):
    """The LRU with its products before and after the scan, over all of time."""

    def whole(
        self, x: Any, state: Any, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[Any, Any]:
        """See `ChunkedLayer.whole`."""
        gamma_log: Any = self.gamma_log
        B = self.B[...] * jnp.tile(jnp.exp(gamma_log[...]), 2)
        Bx = (x @ B).reshape(*x.shape[:-1], 2, self.d_hidden)
        h, state = paired_scan(self.eigenvalues()[""], Bx, state, reverse=reverse, donate=True)
        return h.reshape(*x.shape[:-1], -1) @ self.C[...] + self.D[...] * x, state


LONG_VARIANTS: dict[str, Callable[[], RecurrentLayer]] = {
    "in chunks": lambda: LRU(LONG_WIDTH, LONG_WIDTH, rngs=nnx.Rngs(0)),
    "states kept": lambda: LRU(LONG_WIDTH, LONG_WIDTH, chunk_length=0, rngs=nnx.Rngs(0)),
    "apart, states kept": lambda: ApartLRU(
        LONG_WIDTH, LONG_WIDTH, chunk_length=0, rngs=nnx.Rngs(0)
    ),
}


def inputs(rows: int, steps: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Inputs, and the gradient of the outputs."""
    keys = jax.random.split(jax.random.key(0))
    x, g = (jax.random.normal(key, (rows, steps, width)) for key in keys)
    return jax.block_until_ready((x, g))


def compiled(layer: nnx.Module, x: jax.Array, g: jax.Array) -> tuple[Callable, int]:
    """Outputs and all gradients as one program without arguments, and its memory."""
    graphdef, params = nnx.split(layer)

    def run(params: Any, x: jax.Array, g: jax.Array) -> tuple:
        y, pull = jax.vjp(lambda params, x: nnx.merge(graphdef, params)(x)[0], params, x)
        return y, *pull(g)

    program = jax.jit(run).lower(params, x, g).compile()
    analysis: Any = program.memory_analysis()
    return lambda: jax.block_until_ready(program(params, x, g)), analysis.temp_size_in_bytes


def torch_layers(x: jax.Array, g: jax.Array) -> dict[str, Callable]:
    """The LSTM and the GRU of PyTorch, forward and backward, where it is installed."""
    if find_spec("torch") is None:
        return {}
    import numpy as np
    import torch

    torch.manual_seed(0)
    width = x.shape[-1]
    inputs, gradient = (torch.tensor(np.asarray(z)) for z in (x, g))
    inputs.requires_grad_()

    def run(layer: Any) -> None:
        layer.zero_grad()
        inputs.grad = None
        layer(inputs)[0].backward(gradient)

    return {
        f"torch.nn.{name}": partial(run, getattr(torch.nn, name)(width, width, batch_first=True))
        for name in ("LSTM", "GRU")
    }


def measure_layers(steps: int, width: int, repetitions: int) -> list[dict[str, Any]]:
    """A row for each layer."""
    # Batches of long sequences are cut, so that what the peers keep fits in memory.
    rows = max(1, min(8, 8 * 4096 // steps))
    x, g = inputs(rows, steps, width)
    programs, memory = {}, {}
    for name in LAYERS:
        known = layer_options(LAYERS[name])
        options = {"chunk_length": 0} if "chunk_length" in known else {}
        layer = make_layer(name, width, width, options, rngs=nnx.Rngs(0))
        programs[name], memory[name] = compiled(layer, x, g)
    plain = "lru, lax.associative_scan"
    programs[plain], memory[plain] = compiled(PlainLRU(width, width, rngs=nnx.Rngs(0)), x, g)
    times = by_turns(programs | torch_layers(x, g), repetitions)
    medians = {name: round(statistics.median(t), 2) for name, t in times.items()}
    return [
        {"layer": name, "rows": rows, "median_ms": median, "memory": memory.get(name)}
        for name, median in medians.items()
    ]


def draw(results: dict[str, Any]) -> None:
    """Time of a step of one row, against the number of steps."""
    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    points: dict[str, list[tuple[int, float]]] = {}
    for steps, rows in results["steps"].items():
        for row in rows:
            microseconds = 1e3 * row["median_ms"] / (row["rows"] * int(steps))
            points.setdefault(row["layer"], []).append((int(steps), microseconds))
    for name, line in points.items():
        peer = name not in LAYERS
        axis.plot(*zip(*line, strict=True), "--o" if peer else "-o", markersize=4, label=name)
    axis.set(xscale="log", yscale="log", xlabel="steps T", ylabel="µs per step and row")
    axis.set_title(f"forward + backward, D = N = {results['width']}")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(PLOT, dpi=110)


def resident_bytes(which: str) -> int:
    """Resident memory of this process, now (VmRSS) or at its highest (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


def measure_peak(variant: str) -> None:
    """Print how far resident memory rises above that with program and arguments at hand."""
    program, _ = compiled(LONG_VARIANTS[variant](), *inputs(1, LONG, LONG_WIDTH))
    # Forgets the highest value so far, which compilation reached.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmRSS")
    program()
    print(resident_bytes("VmHWM") - before)


def measure_long(repetitions: int) -> list[dict[str, Any]]:
    """A row for each way to run the long sequence."""
    x, g = inputs(1, LONG, LONG_WIDTH)
    programs, memory = {}, {}
    for name, make in LONG_VARIANTS.items():
        programs[name], memory[name] = compiled(make(), x, g)
    times = by_turns(programs, repetitions)
    first = next(iter(LONG_VARIANTS))
    rows = []
    for name in LONG_VARIANTS:
        peak = None
        if Path("/proc/self/clear_refs").exists():
            command = [sys.executable, "-m", "benchmarks.layers", "--peak", name]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak = int(printed)
        ratios = [mine / theirs for mine, theirs in zip(times[first], times[name], strict=True)]
        rows.append(
            {
                "variant": name,
                "median_ms": round(statistics.median(times[name]), 1),
                "chunks_over_this": round(statistics.median(ratios), 2),
                "memory": memory[name],
                "resident_rise": peak,
            }
        )
    return rows


def print_times(n_cores: int, repetitions: int) -> None:
    """Print the times of the long sequence in chunks, on so many cores."""
    # Before JAX makes its threads, one for each core that it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_cores])
    program, _ = compiled(LONG_VARIANTS["in chunks"](), *inputs(1, LONG, LONG_WIDTH))
    print(json.dumps(by_turns({"long": program}, repetitions)["long"]))


def measure_cores(repetitions: int) -> dict[str, Any]:
    """Times of the long sequence in chunks on one core and on all, with memory kept and not."""
    every = len(os.sched_getaffinity(0))
    results = {}
    for kept in (True, False):
        times: dict[int, list[float]] = {1: [], every: []}
        for _ in range(ROUNDS):
            for n_cores, so_far in times.items():
                command = [sys.executable, "-m", "benchmarks.layers", "--cores", str(n_cores)]
                command += ["--repetitions", str(repetitions), *["--keep_memory"] * kept]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                so_far += json.loads(printed)
        medians = {n_cores: statistics.median(t) for n_cores, t in times.items()}
        results["kept" if kept else "not kept"] = {
            "median_ms": {n_cores: round(median, 1) for n_cores, median in medians.items()},
            "fastest_ms": {n_cores: round(min(t), 1) for n_cores, t in times.items()},
            "times_as_fast": round(medians[1] / medians[every], 2),
        }
    return results


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    steps = [256, 1024, 4096, 16384, 65536]
    parser.add_argument("--steps", nargs="+", type=int, default=steps)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--peak", choices=LONG_VARIANTS, help="only print the rise of memory")
    parser.add_argument("--cores", type=int, help="only print times of the long sequence on these")
    parser.add_argument("--keep_memory", action="store_true", help="with --cores")
    parser.add_argument("--only_long", action="store_true", help="anew, beside the others")
    parser.add_argument("--only_draw", action="store_true", help="the results that are there")
    options = parser.parse_args()
    if options.keep_memory:
        keep_freed_memory()
    if options.cores:
        print_times(options.cores, options.repetitions)
        return
    if options.peak:
        measure_peak(options.peak)
        return
    if options.only_draw:
        draw(json.loads(RESULTS.read_text()))
        return
    long: dict[str, Any] = {"cores": measure_cores(options.repetitions)}
    long |= {"provenance": provenance(), "ways": measure_long(options.repetitions)}
    if options.only_long:
        results: dict[str, Any] = json.loads(RESULTS.read_text()) | {"long": long}
    else:
        results = {"provenance": provenance(), "width": options.width, "long": long}
        results["steps"] = {
            str(steps): measure_layers(steps, options.width, options.repetitions)
            for steps in options.steps
        }
    print(json.dumps(long["cores"]))
    for row in (*long["ways"], *(row for rows in results["steps"].values() for row in rows)):
        print(*(f"{key} {value}" for key, value in row.items()))
    save(RESULTS, results)
    draw(results)


if __name__ == "__main__":
    main()
