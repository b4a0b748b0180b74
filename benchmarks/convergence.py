"""Updates until networks have learned the tasks of memory of Bausch 2020 (arXiv 2006.14619).

python -m benchmarks.convergence [--only xor|dna] [--only_draw]

Every network is trained with several seeds, as lanes of one program, until its loss on 256 fresh
rows, measured every 10 updates, is below 0.001; a seed that has not come there after the last
update is counted apart. The quantum network has the published loss, of the last word of dna; the
others have the cross-entropy of all words, each at its own input, as published. Results go to
benchmarks/results/convergence.json, and docs/images/convergence.png shows those on dna.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter, ScalarFormatter

import lru
from benchmarks.provenance import provenance, save
from lru.dataloaders import dataset_from_options
from lru.training.trackers import read_jsonl

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "convergence.json"
PLOT = HERE.parent / "docs" / "images" / "convergence.png"

THRESHOLD = 1e-3
EVAL_EVERY = 10
LENGTHS = (10, 50, 200)

QUANTUM = {"model": "quantum-rnn", "order": 2, "degree": 3, "stages": 1}
XOR = {**QUANTUM, "workspace": 4, "lr_base": 0.005, "batch_size": 16, "max_steps": 1000}
ONE_LAYER = {
    **{"task": "classification", "one_hot": True, "body": "cells", "n_layers": 1},
    **{"p_dropout": 0.0, "cosine_anneal": False, "weight_decay": 0.0, "lr_factor": 1.0},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "quantum-rnn": {**QUANTUM, "workspace": 5, "lr_base": 0.01, "max_steps": 1000},
    "lstm": {**ONE_LAYER, "model": "lstm", "d_model": 10, "lr_base": 0.1, "max_steps": 2000},
    "elman": {**ONE_LAYER, "model": "elman", "d_model": 22, "lr_base": 0.01, "max_steps": 2000},
}
DNA = {"batch_size": 128, "clip_norm": 0.5}


def converged(name: str, options: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Updates of every seed until its validation loss is below the threshold; None if it is not."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = dataset_from_options(name, options).load("raw_datasets", f"{folder}/cache")
        common = {"eval_every": EVAL_EVERY, "stop_at_loss": THRESHOLD, "plots": False}
        lru.fit(data, **flags, **common, runs_dir=folder, name="run")
        lines = read_jsonl(Path(folder) / "run" / "metrics.jsonl")
    updates: list[int | None] = []
    for lane in range(flags["n_seeds"]):
        loss = f"lane{lane}/val/loss"
        reached = [x["step"] for x in lines if x.get(loss, THRESHOLD) < THRESHOLD]
        updates.append(reached[0] if reached else None)
    done = [count for count in updates if count is not None]
    # Of those that did not come there it is known that they take longer than the last update.
    longer = [flags["max_steps"] + EVAL_EVERY if x is None else x for x in updates]
    median = statistics.median(longer)
    return {
        "flags": flags,
        "data_options": options,
        "updates": updates,
        "converged": len(done),
        "seeds": len(updates),
        "median": median if median <= flags["max_steps"] else None,
        "mean_of_converged": round(statistics.mean(done)) if done else None,
        "seconds": round(time.perf_counter() - start),
    }


def measure_xor() -> dict[str, Any]:
    """Elman's XOR at the bias of the paper, at half and at twice of it."""
    return {
        f"bias {bias:.4f}": converged(
            "elman-xor", {"sentence_length": 36}, {**XOR, "n_seeds": 20, "initial_bias": bias}
        )
        for bias in (1.570796, 0.785398, 3.141593)
    }


def measure_dna() -> dict[str, Any]:
    """The base that follows a marker, at several lengths."""
    found: dict[str, Any] = {}
    for network, flags in NETWORKS.items():
        scored = "last" if network == "quantum-rnn" else "all"
        for length in LENGTHS:
            options = {"sentence_length": length, "scored": scored}
            result = converged("dna", options, {**flags, **DNA, "n_seeds": 10})
            found.setdefault(network, {})[str(length)] = result
            print(network, length, result["updates"], result["seconds"], flush=True)
    return found


def draw(results: dict[str, Any]) -> None:
    """Median updates by length; seeds that did not learn stand at the last update, hollow."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for place, (network, by_length) in enumerate(results["dna"].items()):
        colour = f"C{place}"
        medians = {int(n): r["median"] for n, r in by_length.items() if r["median"] is not None}
        axis.plot(list(medians), list(medians.values()), "-", color=colour, label=network)
        for length, result in by_length.items():
            x = int(length) * 1.06 ** (place - 1)
            last = result["flags"]["max_steps"]
            done = [count for count in result["updates"] if count is not None]
            axis.plot([x] * len(done), done, ".", color=colour, alpha=0.6)
            left = result["seeds"] - len(done)
            if left:
                axis.plot([x], [last], "o", color=colour, fillstyle="none")
                axis.annotate(f"{left}", (x, last), (0, 6), textcoords="offset points", ha="center")
    axis.set(xscale="log", yscale="log", xlabel="length of a sequence", ylabel="updates")
    axis.set_xticks(LENGTHS)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title("dna: updates to a loss of 0.001 (○: seeds that took longer)", fontsize=10)
    axis.legend(fontsize=8)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=["xor", "dna"])
    parser.add_argument("--only_draw", action="store_true", help="the results that are there")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for task, measure in (("xor", measure_xor), ("dna", measure_dna)):
        if not given.only_draw and given.only in (None, task):
            results["provenance"] = provenance()
            results[task] = measure()
            save(RESULTS, results)
    if "dna" in results:
        draw(results)


if __name__ == "__main__":
    main()
