"""Cost of feeding: share of a training step spent waiting, throughput alone, and padding.

python -m benchmarks.feeding [DATASET ...] [--seconds 12] [--table_only]

Each data set is batched as published (`BATCH_SIZES`) for a network of 2 blocks of width 64. Waiting
is the time in which the loop has no batch, out of all time. Feeding alone is the same iterator
without a network; the time of a batch over that of a step is the share that feeding would have if
nothing of it ran beside the step. Results go to benchmarks/results/feeding.json, data set by data
set, and into the table of docs/data.md.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.provenance import provenance
from benchmarks.train_step import build_optimizer
from lru.batches import Batches, DataConfig, Feed
from lru.dataloaders import DATASETS, Prepared, dataset_from_options
from lru.files import write_atomically
from lru.models import ModelConfig
from lru.tasks import TASKS
from lru.training.memory import keep_freed_memory
from lru.training.progress import Stopwatch
from lru.training.update import TrainState, init_state, make_functions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "feeding.json"
PAGE = ROOT / "docs" / "data.md"
MARKS = ("<!-- table: made by benchmarks/feeding.py -->\n", "<!-- end of table -->\n")

# Of the LRU (arXiv 2303.06349, table 9), which the commands for arXiv 2505.19827 share; the images
# that they leave out are read in batches of the size of theirs.
BATCH_SIZES = {
    "listops-classification": 32,
    "imdb-classification": 32,
    "imdb-word-classification": 32,
    "aan-classification": 64,
    "pathfinder-classification": 64,
    "pathfinder64-classification": 64,
    "pathfinder128-classification": 32,
    "pathfinder256-classification": 32,
}
OTHER_BATCH_SIZE = 50
# Drawn, and fewer than published: enough for epochs of many batches.
OPTIONS = {
    f"pathfinder{side}-classification": {
        "source": "generated",
        "n_train": 2_000,
        "n_val": 100,
        "n_test": 100,
    }
    for side in ("", 64, 128, 256)
}
MODEL = ModelConfig("lru", n_layers=2, d_model=64, d_hidden=64)


def batches_of(name: str, data: Prepared, *, bucketing: bool = True) -> Batches:
    """The training batches of a data set at its published size."""
    size = BATCH_SIZES.get(name, OTHER_BATCH_SIZE)
    return Batches(data.train, DataConfig(batch_size=size, bucketing=bucketing), seed=0)


def training_step(task_name: str, data: Prepared) -> tuple[Callable, TrainState]:
    """A training step, compiled at its first call for each shape, and the state before it."""
    task = TASKS[task_name](data.card, MODEL)
    graphdef, state = init_state(task, build_optimizer, 0)
    return jax.jit(make_functions(task, graphdef, build_optimizer).train, donate_argnums=0), state


def time_steps(feed: Feed, step: Callable, state: TrainState, seconds: float) -> dict[str, float]:
    """Updates on the batches as they come, epoch after epoch.

    Every update is waited for, so that waiting for a batch is time in which nothing is computed.
    """
    selections = feed.batches.selections()
    shapes = {}
    for k, selection in enumerate(selections):
        shapes.setdefault((selection.length, selection.full), k)
    for k in shapes.values():
        state = jax.block_until_ready(step(state, next(feed.epoch(start=k)).batch))
    waiting, count = Stopwatch(), 0
    batches = itertools.chain.from_iterable(map(feed.epoch, itertools.count()))
    state = jax.block_until_ready(step(state, next(batches).batch))
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        with waiting.running():
            batch = next(batches).batch
        state = jax.block_until_ready(step(state, batch))
        count += 1
    elapsed = time.perf_counter() - start
    return {
        "steps": count,
        "ms_per_step": 1e3 * elapsed / count,
        "waiting_share": waiting.seconds / elapsed,
    }


def time_alone(feed: Feed, seconds: float) -> dict[str, float]:
    """The batches as they come, and nothing else."""
    batches = itertools.chain.from_iterable(map(feed.epoch, itertools.count()))
    next(batches)
    count = examples = size = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        fed = next(batches)
        jax.block_until_ready(fed.batch)
        count += 1
        examples += fed.examples
        size += sum(leaf.nbytes for leaf in jax.tree.leaves(fed.batch))
    elapsed = time.perf_counter() - start
    return {
        "ms_per_batch": 1e3 * elapsed / count,
        "examples_per_second": examples / elapsed,
        "megabytes_per_second": size / elapsed / 1e6,
    }


def measure(name: str, folders: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """All figures of one data set."""
    dataset = dataset_from_options(name, OPTIONS.get(name))
    data = dataset.load(folders.raw_dir, folders.cache_dir)
    batches = batches_of(name, data)
    feed = Feed(batches, on_device=False)
    step, state = training_step(dataset.task, data)
    figures = time_steps(feed, step, state, seconds)
    alone = time_alone(feed, min(2.0, seconds))
    share, plain = (
        loader.padding_share() for loader in (batches, batches_of(name, data, bucketing=False))
    )
    return {
        "batch_size": BATCH_SIZES.get(name, OTHER_BATCH_SIZE),
        "training_examples": len(data.train),
        "padded_lengths": batches.bounds.tolist(),
        "padding_share": share,
        "padding_share_without_buckets": plain,
        "steps_fewer_by": (1 - share) / (1 - plain),
        **figures,
        **alone,
        "share_if_nothing_overlapped": alone["ms_per_batch"] / figures["ms_per_step"],
        "provenance": provenance() | {"data": data.card.provenance},
    }


def table(results: dict[str, Any]) -> str:
    """The figures for the page, in the order of the registry."""
    lines = [
        "| data set | batch | padded to | padding, without buckets | ms a step | waiting "
        "| feeding alone, of a step | examples/s | MB/s |",
        "| --- |" + " --- |" * 8,
    ]
    for name in DATASETS:
        if name in results:
            r = results[name]
            lines.append(
                f"| `{name}` | {r['batch_size']} | {', '.join(map(str, r['padded_lengths']))} "
                f"| {r['padding_share']:.1%}, {r['padding_share_without_buckets']:.1%} "
                f"| {r['ms_per_step']:.0f} | {r['waiting_share']:.2%} "
                f"| {r['share_if_nothing_overlapped']:.2%} | {r['examples_per_second']:,.0f} "
                f"| {r['megabytes_per_second']:,.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the named data sets, or all; keep the figures of the others."""
    parser = argparse.ArgumentParser(description="What feeding costs.")
    parser.add_argument("names", nargs="*", metavar="DATASET", help="default: all")
    parser.add_argument("--seconds", type=float, default=12.0, help="of updates a data set")
    parser.add_argument("--raw_dir", default="raw_datasets")
    parser.add_argument("--cache_dir", default="cache_dir")
    parser.add_argument(
        "--table_only", action="store_true", help="write the table, measure nothing"
    )
    arguments = parser.parse_args()
    keep_freed_memory()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [] if arguments.table_only else arguments.names or list(DATASETS):
        name = DATASETS.resolve(name)
        try:
            results[name] = measure(name, arguments, arguments.seconds)
        except (RuntimeError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        print(table({name: results[name]}).splitlines()[-1], flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        write_atomically(RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    before, rest = PAGE.read_text().split(MARKS[0])
    page = before + MARKS[0] + table(results) + MARKS[1] + rest.split(MARKS[1])[1]
    write_atomically(PAGE, page.encode())


if __name__ == "__main__":
    main()
