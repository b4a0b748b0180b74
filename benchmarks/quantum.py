"""Updates of the quantum recurrent network beside the forward pass of its circuit, gate by gate.

python -m benchmarks.quantum [--repetitions 15] [--only SETTING]

An update is what `lru train` compiles: post-selected forward and backward pass, clipping, AdamW.
The circuit has the same weights, rows and type; as its steps are alike, one is timed and counted
as often as the rows are long, and its backward pass is left out. Every setting runs in a process of
its own, which reports its memory. The seconds until the first update is done include compiling.
Both methods of the recurrence are timed as well, forwards and backwards, with the one that is
chosen. Results go to benchmarks/results/quantum.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.provenance import provenance, save
from lru.batches import Batch
from lru.dataloaders import Card, given
from lru.models import ModelConfig, QuantumRNN
from lru.scan.quantum import Weights, quantum_scan, reference
from lru.scan.quantum.recurrence import Method, faster_method
from lru.tasks.measurement import Measurement
from lru.training.config import TrainConfig
from lru.training.memory import keep_freed_memory
from lru.training.optimizer import AdamW, make_optimizer, make_schedule
from lru.training.update import init_state, make_functions

RESULTS = Path(__file__).parent / "results" / "quantum.json"


class Setting(NamedTuple):
    """A network and its batch: the original's length is one more than that of our rows."""

    rows: int
    steps: int
    n_words: int
    scored: int
    options: dict[str, int]
    circuit: bool = True


SETTINGS = {
    "mnist-tsne-d2-r4": Setting(160, 4, 4, 2, {"workspace": 6, "stages": 2, "degree": 3}),
    "dna": Setting(16, 79, 8, 1, {"workspace": 5, "stages": 1, "degree": 3}),
    "mnist01": Setting(100, 99, 4, 1, {"workspace": 8, "stages": 2, "degree": 2}),
    "dna, long": Setting(128, 499, 8, 1, {"workspace": 5, "stages": 1, "degree": 3}, False),
    "mnist-tsne-d3-r5": Setting(160, 5, 8, 2, {"workspace": 8, "stages": 3, "degree": 3}, False),
}


def measure(name: str, repetitions: int) -> dict[str, Any]:
    """Times of a setting, in this process."""
    keep_freed_memory()  # As in a run.
    setting = SETTINGS[name]
    rng = np.random.default_rng(0)
    shape = (setting.rows, setting.steps)
    words, targets = rng.integers(setting.n_words, size=(2, *shape))
    labels = np.where(
        np.arange(setting.steps) < setting.steps - setting.scored, given(targets), targets
    )
    batch = Batch(
        (words + 1).astype(np.uint8), labels.astype(np.int32), np.ones(shape[0], np.float32), None
    )
    card = Card(
        name=name,
        version=0,
        kind="tokens",
        n_classes=setting.n_words,
        vocab_size=setting.n_words + 1,
        targets="class_per_step",
        max_length=setting.steps,
    )
    task = Measurement(card, ModelConfig("quantum-rnn", options=setting.options))
    train = TrainConfig(lr_base=0.005, cosine_anneal=False)

    def build(_: Any) -> Any:
        schedule = make_schedule(train, 1, 100)
        rule = AdamW(weight_decay=0.0, clip_norm=0.5)
        return make_optimizer(rule, train, schedule), schedule

    graphdef, state = init_state(task, build, 0)
    update = jax.jit(make_functions(task, graphdef, build).train, donate_argnums=0)
    start = time.perf_counter()
    state = jax.block_until_ready(update(state, batch))
    first = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    model = task.build_model(nnx.Rngs(0))
    assert isinstance(model, QuantumRNN)
    weights, begin = model.weights, model.initial_state(setting.rows)

    def circuit() -> None:
        one = slice(0, 1)
        jax.block_until_ready(
            reference.quantum_scan(
                weights,
                model.activation,
                jnp.asarray(words[:, one]),
                jnp.asarray(targets[:, one]),
                begin,
            )
        )

    ours, theirs = [], []
    if setting.circuit:
        circuit()
    for repetition in range(repetitions):
        start = time.perf_counter()
        state = jax.block_until_ready(update(state, batch))
        ours.append(time.perf_counter() - start)
        # It takes long, and varies little.
        if setting.circuit and repetition % 8 == 0:
            start = time.perf_counter()
            circuit()
            theirs.append(setting.steps * (time.perf_counter() - start))
    update_s = statistics.median(ours)
    found = {
        "rows": setting.rows,
        "steps": setting.steps,
        **setting.options,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "update_ms": round(1e3 * update_s, 2),
        "update_ms_range": [round(1e3 * min(ours), 2), round(1e3 * max(ours), 2)],
        "first_update_s": round(first, 1),
        "peak_mb": round(peak),
    }
    if theirs:
        circuit_s = statistics.median(theirs)
        found |= {
            "circuit_s": round(circuit_s, 1),
            "circuit_over_update": round(circuit_s / update_s),
        }
    return found


class Shape(NamedTuple):
    """Sizes on which the methods are compared."""

    w: int
    i: int
    stages: int
    degree: int
    rows: int
    steps: int


SHAPES = [
    Shape(4, 2, 2, 2, 16, 20),
    Shape(6, 2, 2, 3, 160, 4),
    Shape(6, 2, 2, 3, 16, 4),
    Shape(6, 3, 2, 3, 160, 4),
    Shape(6, 5, 3, 3, 6, 69),
    Shape(8, 2, 2, 2, 100, 4),
    Shape(8, 2, 2, 2, 100, 20),
    Shape(8, 2, 2, 2, 100, 99),
    Shape(9, 2, 2, 2, 100, 10),
    Shape(10, 2, 1, 2, 100, 10),
]


def methods(shape: Shape, repetitions: int) -> dict[str, Any]:
    """Milliseconds of both methods, in turns."""
    model = QuantumRNN(
        2**shape.i,
        workspace=shape.w,
        stages=shape.stages,
        degree=shape.degree,
        rngs=nnx.Rngs(0),
    )
    rng = np.random.default_rng(0)
    words, targets = jnp.asarray(rng.integers(2**shape.i, size=(2, shape.rows, shape.steps)))
    begin = model.initial_state(shape.rows)

    def make(method: Method) -> Any:
        def loss(weights: Weights) -> jax.Array:
            outcome, _ = quantum_scan(
                weights, model.activation, words, targets, begin, method=method
            )
            return jnp.mean(outcome.probabilities**2)

        return jax.jit(jax.grad(loss))

    runs = {method: make(method) for method in ("operators", "neurons")}
    seconds: dict[str, list[float]] = {method: [] for method in runs}
    for repetition in range(repetitions + 1):
        for method, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(model.weights))
            if repetition:  # The first one compiles.
                seconds[method].append(time.perf_counter() - start)
    neurons = (1 + shape.stages) * shape.w
    columns = shape.rows * shape.steps
    return {
        **shape._asdict(),
        **{f"{m}_ms": round(1e3 * statistics.median(s), 2) for m, s in seconds.items()},
        "chosen": faster_method(shape.w, shape.i, columns, neurons, 2, "float32"),
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--only", choices=list(SETTINGS))
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.repetitions)))
        return
    results: dict[str, Any] = {"provenance": provenance()}
    for name in SETTINGS:
        command = [sys.executable, "-m", "benchmarks.quantum", "--only", name]
        command += ["--repetitions", str(options.repetitions)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        results[name] = json.loads(run.stdout)
        print(name, results[name], flush=True)
    results["methods"] = [methods(shape, 5) for shape in SHAPES]
    print(*results["methods"], sep="\n")
    save(RESULTS, results)


if __name__ == "__main__":
    main()
