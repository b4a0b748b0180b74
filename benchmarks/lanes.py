"""Seeds trained side by side, beside one after the other: examples a second, as a user trains them.

python -m benchmarks.lanes [--updates 400] [--repetitions 5] [--only lstm]

Every entrant is a call of `lru.fit` on data in memory; compilation, evaluation and checkpoints are
not counted; freed memory is kept, as in a run by the command. Entrants take turns; ratios are of
medians. Drift is the relative difference, in single precision, of the training loss of the first
lane and of the run of its seed alone.
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import lru
from benchmarks.provenance import provenance, save
from lru.dataloaders import Prepared, from_arrays
from lru.training import lanes
from lru.training.memory import keep_freed_memory
from lru.training.trackers import read_jsonl

RESULTS = Path(__file__).parent / "results" / "lanes.json"
SEEDS = 8
# Model, width, rows of a batch and steps, by name.
SIZES = {
    "lstm": ("lstm", 32, 32, 40),
    "gru": ("gru", 32, 32, 40),
    "lru": ("lru", 64, 32, 256),
    "qrnn": ("qrnn", 64, 32, 256),
    "small lstm": ("lstm", 16, 8, 20),
    "small lru": ("lru", 16, 8, 40),
    "tiny lstm": ("lstm", 8, 4, 10),
}
# Greatest work of a lane that is joined, which decides between the two ways.
METHODS = {"vmap": math.inf, "map": 0.0}


UPDATES_OF_DRIFT = (1, 10, 100, 200)


UPDATES_AN_EPOCH = 200
"""With few, a single run spends most of its time between epochs, which lanes share."""


def data_of(rows: int, steps: int) -> Prepared:
    """Random tokens with random classes."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 20, (UPDATES_AN_EPOCH * rows, steps))
    held_out = (tokens[:rows], rng.integers(2, size=rows))
    train = (tokens, rng.integers(2, size=len(tokens)))
    return from_arrays("random", train, held_out, held_out, vocabulary=list(map(str, range(20))))


def trained(name: str, seeds: int, method: str, updates: int, **more: Any) -> tuple[float, list]:
    """Speed of a training in examples a second over all seeds, and its log."""
    model, width, rows, steps = SIZES[name]
    lanes.LARGEST_JOINED = METHODS[method]
    with tempfile.TemporaryDirectory() as runs:
        _, summary = lru.fit(
            data_of(rows, steps),
            model=model,
            n_layers=1,
            d_model=width,
            d_hidden=width,
            norm="layer",
            batch_size=rows,
            epochs=math.ceil(updates / UPDATES_AN_EPOCH),
            n_seeds=seeds,
            runs_dir=runs,
            **more,
        )
        (log,) = Path(runs).glob("*/metrics.jsonl")
        return summary.timing["examples_per_second"], read_jsonl(log)


def drift_of(name: str, method: str) -> dict[int, float]:
    """Relative differences of losses by number of updates."""
    _, alone = trained(name, 1, method, max(UPDATES_OF_DRIFT), log_every=1)
    _, joined = trained(name, 2, method, max(UPDATES_OF_DRIFT), log_every=1)
    wanted = {line["step"]: line["train/loss"] for line in alone if "train/loss" in line}
    found = {line["step"]: line["lane0/train/loss"] for line in joined if "train/loss" in line}
    return {step: abs(found[step] / wanted[step] - 1) for step in UPDATES_OF_DRIFT}


def main() -> None:
    """Measure, and write the results beside those that are there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    keep_freed_memory()
    for name in options.only:
        entrants = {"single": (1, "vmap"), "vmap": (SEEDS, "vmap"), "map": (SEEDS, "map")}
        speeds: dict[str, list[float]] = {entrant: [] for entrant in entrants}
        for _ in range(options.repetitions):
            for entrant, (seeds, method) in entrants.items():
                speeds[entrant].append(trained(name, seeds, method, options.updates)[0])
        medians = {entrant: statistics.median(values) for entrant, values in speeds.items()}
        ratios = {method: medians[method] / medians["single"] for method in METHODS}
        drifts = {method: drift_of(name, method) for method in METHODS}
        model, width, batch_size, steps = SIZES[name]
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[name] = {
            "provenance": provenance(),
            "model": model,
            "d_model": width,
            "d_hidden": width,
            "batch_size": batch_size,
            "steps": steps,
            "seeds": SEEDS,
            "examples_per_second": speeds,
            "times_one_after_the_other": ratios,
            "drift_by_updates": drifts,
        }
        save(RESULTS, results)
        print(name, {method: f"{ratio:.2f}x" for method, ratio in ratios.items()}, flush=True)
        print("  drift", drifts, flush=True)


if __name__ == "__main__":
    main()
