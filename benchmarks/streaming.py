"""A stream of a million steps through a stack of LRU layers: memory, and outputs at the start.

python -m benchmarks.streaming [--steps 1000000] [--chunk 1]

With --chunk 1 every step is a call of `Encoder.step`, compiled once; with a larger one every chunk
of that many steps is a call of the encoder, compiled once too. States are donated. Shown are the
resident memory of the process, from /proc (Linux), and the bytes of all arrays of JAX. At the end
the first outputs are compared with those of the whole sequence, by all --methods. Results go to
benchmarks/results/streaming-CHUNK.json. Fails if the largest resident memory of the second half of
the reports is above that of the first half, or if outputs differ.
"""

import argparse
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from benchmarks.provenance import provenance, save
from lru.models import Encoder, ModelConfig
from lru.scan import LINEAR_METHODS

RESULTS = Path(__file__).parent / "results"
STATM = Path("/proc/self/statm")
MOST_GROWTH = 2**20
"""Bytes by which memory may grow from the first half of the reports to the second: 1 MiB."""
TOLERANCE = 1e-5
"""Largest difference allowed between the stream and whole sequences, over the largest output."""


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live_bytes() -> int:
    """Size of all arrays that JAX holds."""
    return sum(array.nbytes for array in jax.live_arrays())


def make_encoder(sizes: argparse.Namespace, scan_method: str = "auto") -> Encoder:
    """The same parameters for every scan method."""
    options = {"r_min": 0.9, "r_max": 0.999, "scan_method": scan_method}
    config = ModelConfig(
        n_layers=sizes.n_layers,
        d_model=sizes.d_model,
        d_hidden=sizes.d_hidden,
        options=options,
    )
    return Encoder(config, rngs=nnx.Rngs(0))


def inputs(sizes: argparse.Namespace) -> Iterator[np.ndarray]:
    """Chunks of the stream [B, K, D], drawn as they are needed."""
    random = np.random.default_rng(0)
    for _ in range(sizes.steps // sizes.chunk):
        shape = (sizes.batch, sizes.chunk, sizes.d_model)
        yield random.standard_normal(shape, np.float32)


def stream(sizes: argparse.Namespace) -> tuple[np.ndarray, list[dict[str, int]]]:
    """The first outputs, and the memory at every report."""
    encoder = make_encoder(sizes)
    state = encoder.initial_state(sizes.batch)
    traced = []

    def advance(x: jax.Array, state: list) -> tuple[jax.Array, list]:
        traced.append(x.shape)
        return encoder.step(x[:, 0], state) if sizes.chunk == 1 else encoder(x, state)

    call = jax.jit(advance, donate_argnums=1)
    # Written to, so that all its pages are resident from the start.
    kept = np.full((sizes.batch, sizes.compared, sizes.d_model), np.nan, np.float32)
    reports = []
    for i, x in enumerate(inputs(sizes)):
        y, state = call(x, state)
        done = (i + 1) * sizes.chunk
        if done <= sizes.compared:
            kept[:, done - sizes.chunk : done] = np.asarray(y).reshape(x.shape)
        if done % sizes.report == 0:
            jax.block_until_ready(state)
            gc.collect()
            resident, live = resident_bytes(), live_bytes()
            reports.append({"steps": done, "resident_bytes": resident, "array_bytes": live})
            memory = f"{resident / 2**20:.2f} MiB resident, {live:,} bytes of arrays"
            print(f"{done:>10,} steps: {memory}", flush=True)
    print(f"traced {len(traced)} time(s)")
    return kept, reports


def growth(reports: list[dict[str, int]]) -> int:
    """Bytes by which the largest resident memory rose from the first half to the second."""
    resident = [report["resident_bytes"] for report in reports]
    half = len(resident) // 2
    return max(resident[half:]) - max(resident[:half])


def differences(sizes: argparse.Namespace, streamed: np.ndarray) -> dict[str, float]:
    """By scan method: the largest difference to whole sequences, over the largest output."""
    chunks = inputs(sizes)
    x = np.concatenate([next(chunks) for _ in range(sizes.compared // sizes.chunk)], axis=1)
    found = {}
    for method in sizes.methods:
        encoder = make_encoder(sizes, method)
        whole = np.asarray(jax.jit(lambda x, encoder=encoder: encoder(x)[0])(x))
        found[method] = float(np.abs(whole - streamed).max() / np.abs(whole).max())
    return found


def main() -> int:
    """Stream and compare; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in [
        ("steps", 1_000_000),
        ("chunk", 1),
        ("report", 100_000),
        ("compared", 10_000),
        ("batch", 1),
        ("n_layers", 4),
        ("d_model", 64),
        ("d_hidden", 64),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    methods = ("auto", *LINEAR_METHODS)
    parser.add_argument("--methods", nargs="+", choices=methods, default=["auto", "associative"])
    sizes = parser.parse_args()
    if not STATM.exists():
        parser.error(f"resident memory is read from {STATM}, which only Linux has")
    for name in ("steps", "report", "compared"):
        if getattr(sizes, name) % sizes.chunk:
            parser.error(f"--{name} {getattr(sizes, name)} must be a multiple of --chunk")
    if sizes.steps < 2 * sizes.report:
        parser.error(f"--steps {sizes.steps} must be at least twice --report {sizes.report}")
    streamed, reports = stream(sizes)
    grown = growth(reports)
    print(f"resident memory grew by {grown:,} bytes from the first half to the second")
    found = differences(sizes, streamed)
    for method, difference in found.items():
        print(f"first {sizes.compared:,} outputs, whole by {method}: {difference:.1e} apart")
    results = {
        "provenance": provenance(),
        "sizes": vars(sizes),
        "reports": reports,
        "growth_bytes": grown,
        "differences": found,
    }
    save(RESULTS / f"streaming-{sizes.chunk}.json", results)
    failed = grown > MOST_GROWTH or max(found.values()) > TOLERANCE
    print("FAILED" if failed else "constant memory, equal outputs")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
