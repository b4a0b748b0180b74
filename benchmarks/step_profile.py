"""Time of a training step by kind of operation, from XLA's own trace.

python -m benchmarks.step_profile [--model lru] [--repetitions 5]

The step is that of benchmarks/train_step.py. Operations that XLA hands to its pool of threads run
beside others, and only what it takes to hand them over counts for them; so the kinds do not add up
to the step, but on one core (`taskset -c 0`). Results go to benchmarks/results, a file a model.
"""

import argparse
import collections
import gzip
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.provenance import provenance, save
from benchmarks.train_step import add_sizes, make_batch, make_step

# Names of operations in compiled programs, by what they do.
KINDS = {
    "ffi_call": "recurrences with their products",
    "ynn_fusion": "other products, and sums",
    "dot": "other products, and sums",
}


def kind(operation: str) -> str:
    """Kind of an operation, by its name."""
    return KINDS.get(operation.partition(".")[0], "elementwise, copies")


def main() -> None:
    """Print and write the milliseconds of each kind, and of the largest operations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="lru")
    add_sizes(parser)
    parser.add_argument("--repetitions", type=int, default=5)
    sizes = parser.parse_args()
    batch = make_batch(sizes)
    step, state = make_step(sizes.model, sizes)
    seconds = []
    for _ in range(sizes.repetitions + 1):
        start = time.perf_counter()
        state = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(sizes.repetitions):
                state = jax.block_until_ready(step(state, batch))
        (path,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    operations: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    for event in events:
        name = event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and name:
            milliseconds = event["dur"] / 1e3 / sizes.repetitions
            operations[name] += milliseconds
            kinds[kind(name)] += milliseconds
    results: dict[str, Any] = {
        "provenance": provenance(),
        "sizes": vars(sizes),
        "step_ms": round(1e3 * statistics.median(seconds[1:]), 3),
        "kinds_ms": {name: round(ms, 3) for name, ms in kinds.most_common()},
        "largest_ms": {name: round(ms, 3) for name, ms in operations.most_common(12)},
    }
    print(json.dumps(results, indent=1))
    save(Path(__file__).parent / "results" / f"step_profile-{sizes.model}.json", results)


if __name__ == "__main__":
    main()
