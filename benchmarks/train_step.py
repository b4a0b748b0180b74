"""Time of a whole training step beside the same model with plain complex arithmetic.

python -m benchmarks.train_step [--repetitions 15] [--keep_memory] [--only_draw]

The plain model has the same parameters and blocks, but its recurrence multiplies complex matrices,
repeats the eigenvalues over time and goes through `jax.lax.associative_scan` under autodiff, as
public LRU code does. The matrix products of the step alone, forwards and backwards, run in
the same turns. Medians and the ratio of each pair are shown, and go to
benchmarks/results/train_step.json (-kept where freed memory is kept, as in a run by the command)
and docs/images/train_step.png.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from benchmarks.plain import PlainDiagonalRNN, PlainLRU
from benchmarks.provenance import provenance, save
from lru.batches import Batch
from lru.dataloaders import Card
from lru.layers import LAYERS
from lru.models import ModelConfig
from lru.tasks.classification import Classification
from lru.training.config import TrainConfig
from lru.training.memory import keep_freed_memory
from lru.training.optimizer import AdamW, Transformation, make_optimizer, make_schedule
from lru.training.update import TrainState, init_state, make_functions

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PLOT = HERE.parent / "docs" / "images" / "train_step.png"
MODELS = ("lru", "diag-rnn")

# Tokens in, one of ten classes out, as in ListOps.
CARD = Card(
    name="benchmark",
    version=0,
    kind="tokens",
    n_classes=10,
    vocab_size=16,
    targets="class",
    max_length=0,
)


LAYERS.register("plain-lru")(PlainLRU)
LAYERS.register("plain-diag-rnn")(PlainDiagonalRNN)


def build_optimizer(_: Mapping[str, Any]) -> tuple[Transformation, optax.Schedule]:
    """The default rule of the updates, and its rates."""
    train = TrainConfig()
    schedule = make_schedule(train, 1, 100)
    return make_optimizer(AdamW(), train, schedule), schedule


def make_step(model: str, sizes: argparse.Namespace) -> tuple[Callable, TrainState]:
    """A compiled training step, and the state before it."""
    config = ModelConfig(
        model=model, n_layers=sizes.n_layers, d_model=sizes.d_model, d_hidden=sizes.d_hidden
    )
    task = Classification(CARD, config)
    graphdef, state = init_state(task, build_optimizer, 0)
    step = jax.jit(make_functions(task, graphdef, build_optimizer).train, donate_argnums=0)
    return step, state


def make_batch(sizes: argparse.Namespace) -> Batch:
    """Random tokens, all rows full."""
    rng = np.random.default_rng(0)
    return Batch(
        inputs=rng.integers(1, 16, (sizes.batch_size, sizes.steps), dtype=np.uint8),
        labels=rng.integers(10, size=sizes.batch_size).astype(np.int32),
        weights=np.ones(sizes.batch_size, np.float32),
        lengths=None,
    )


def make_products(sizes: argparse.Namespace) -> tuple[Callable, tuple]:
    """The products of all blocks and nothing else: x W, g W^T and x^T g for each weight W."""
    rows, d_model, wide = sizes.batch_size * sizes.steps, sizes.d_model, 2 * sizes.d_hidden
    shapes = [(d_model, wide), (wide, d_model), (d_model, d_model), (d_model, d_model)]
    keys = iter(jax.random.split(jax.random.key(0), 3 * len(shapes)))

    def draw(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape)

    weights = [(draw(rows, m), draw(m, n), draw(rows, n)) for m, n in shapes]

    def run(weights: list) -> list:
        return [(x @ w, g @ w.T, x.T @ g) for x, w, g in weights]

    return jax.jit(run), (weights,)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Flags for the sizes of batch and model."""
    for name, default in [
        ("batch_size", 8),
        ("steps", 1024),
        ("d_model", 256),
        ("d_hidden", 192),
        ("n_layers", 4),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)


def draw(results: dict[str, Any]) -> None:
    """Bars: the step, its products alone, and the plain model."""
    bars = {"products alone": "products_ms", "step": "{}_ms", "plain step": "plain-{}_ms"}
    figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
    for i, (label, key) in enumerate(bars.items()):
        times = [results[model][key.format(model)] for model in MODELS]
        at = [place + 0.27 * (i - 1) for place in range(len(MODELS))]
        axis.bar_label(axis.bar(at, times, 0.25, label=label), fmt="{:,.0f}", fontsize=8)
    axis.set_xticks(range(len(MODELS)), MODELS)
    axis.set_ylabel("ms a training step")
    figure.legend(loc="outside right center", fontsize=8)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_sizes(parser)
    parser.add_argument("--repetitions", type=int, default=11)
    parser.add_argument("--keep_memory", action="store_true", help="that is freed, for later")
    parser.add_argument("--only_draw", action="store_true", help="the results that are there")
    sizes = parser.parse_args()
    if sizes.keep_memory:
        keep_freed_memory()
    results = RESULTS / f"train_step{'-kept' * sizes.keep_memory}.json"
    if not sizes.only_draw:
        save(results, measure(sizes))
    draw(json.loads(results.read_text()))


def measure(sizes: argparse.Namespace) -> dict[str, Any]:
    """Times and ratios by model."""
    batch = make_batch(sizes)
    products, arrays = make_products(sizes)
    results: dict[str, Any] = {"provenance": provenance(), "sizes": vars(sizes)}
    for model in MODELS:
        entrants = {name: make_step(name, sizes) for name in (model, f"plain-{model}")}
        seconds: dict[str, list[float]] = {name: [] for name in (*entrants, "products")}
        for repetition in range(sizes.repetitions + 1):
            start = time.perf_counter()
            for _ in range(sizes.n_layers):
                jax.block_until_ready(products(*arrays))
            took = {"products": time.perf_counter() - start}
            for name, (step, state) in entrants.items():
                start = time.perf_counter()
                state = jax.block_until_ready(step(state, batch))
                took[name] = time.perf_counter() - start
                entrants[name] = (step, state)
            if repetition:  # The first one compiles.
                for name, value in took.items():
                    seconds[name].append(value)
        ours = seconds[model]
        plain, alone = (
            [theirs / mine for mine, theirs in zip(ours, seconds[name], strict=True)]
            for name in (f"plain-{model}", "products")
        )
        row: dict[str, Any] = {
            f"{name}_ms": round(1e3 * statistics.median(x), 1) for name, x in seconds.items()
        }
        row["plain_over_ours"] = round(statistics.median(plain), 2)
        row["plain_over_ours_range"] = [round(min(plain), 2), round(max(plain), 2)]
        row["ours_over_products"] = round(statistics.median(1 / x for x in alone), 2)
        results[model] = row
        print(model, *(f"{key} {value}" for key, value in row.items()))
    return results


if __name__ == "__main__":
    main()
