"""Storage of sequences in the states of recurrences: training, interventions and probes.

python -m benchmarks.repeat [NAME ...] [--folder DIR] [--train N] [--analyse N] [--only_collect]

Every network is trained to repeat sequences of 2 to 9 of 30 symbols with several seeds, as lanes of
one program, and then looked at by all methods of `lru analyse`. The runs stay in the folder, so
that what was interrupted goes on; results go to benchmarks/results/repeat.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance, save
from lru.commands import call
from lru.reports.results import objective_of, repetitions_of
from lru.training.checkpoints import Checkpoints
from lru.training.runs import Run

RESULTS = Path(__file__).parent / "results" / "repeat.json"

STATE = "the same real state, 64 numbers"
PARAMETERS = "about the same parameters, 29,000"

GATED = {"decay_recurrent": True}
"""As published; matrices may be decayed, eigenvalues not."""

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "gru": ("both", {"model": "gru", "d_model": 64, **GATED}),
    "gru-no-reset": (STATE, {"model": "gru", "d_model": 64, "use_reset": False, **GATED}),
    "gru-no-update": (STATE, {"model": "gru", "d_model": 64, "use_update": False, **GATED}),
    "lstm": (STATE, {"model": "lstm", "d_model": 32, **GATED}),
    "qrnn": (STATE, {"model": "qrnn", "d_model": 32}),
    "lru": (STATE, {"model": "lru", "d_hidden": 32}),
    "diag-rnn": (STATE, {"model": "diag-rnn", "d_hidden": 32}),
    "rnn": (STATE, {"model": "rnn", "d_hidden": 64}),
    "lstm-wide": (PARAMETERS, {"model": "lstm", "d_model": 56, **GATED}),
    "qrnn-wide": (PARAMETERS, {"model": "qrnn", "d_model": 64}),
    "lru-wide": (PARAMETERS, {"model": "lru", "d_hidden": 64}),
    "diag-rnn-wide": (PARAMETERS, {"model": "diag-rnn", "d_hidden": 64}),
    "rnn-wide": (PARAMETERS, {"model": "rnn", "d_hidden": 80}),
}
"""What is alike beside the GRU, and flags, by name of the run."""

METHODS: dict[str, list[str]] = {
    "onion intervention": ["onion-intervention"],
    "without scale": ["onion-intervention", "--no_scale"],
    "linear unigram": ["linear-intervention"],
    "linear bigram": ["linear-intervention", "--ngram", "2"],
    "linear probe": ["linear-probe"],
    "MLP probe": ["mlp-probe"],
    "onion probe": ["onion-probe"],
    "GRU probe": ["gru-probe"],
    "GRU probe without inputs": ["gru-probe", "--no_input"],
}
"""Words of `lru analyse` by name in the table."""

COMMON = ["--plots", "False", "--steps_per_call", "100"]


def measured(run: Run) -> dict[str, Any]:
    """Best evaluations of all lanes of a run, and the course of the objective."""
    lanes = repetitions_of(run)
    objective = objective_of(lanes[0].task)
    checkpoints = Checkpoints(run.checkpoints, read_only=True)
    count = checkpoints.n_parameters("best") or 0
    checkpoints.close()
    found = [lane.evaluation() for lane in lanes]
    names = [n for n in found[0] if n.endswith(("/exact_match", "/token_accuracy"))]
    steps = [line["step"] for line in lanes[0].lines if objective in line]
    course = [[line[objective] for line in lane.lines if objective in line] for lane in lanes]
    return {
        "parameters": count // len(lanes),
        "updates": max(lane.updates for lane in lanes),
        "objective": objective,
        "best": {name: [line[name] for line in found] for name in names},
        "course": [
            [step, round(statistics.mean(values), 4)]
            for step, values in zip(steps, zip(*course, strict=True), strict=True)
        ],
    }


def call_timed(verb: str, words: list[str], stopwatch: Path) -> None:
    """Run a verb; the seconds that it takes are added to those in a file.

    Raises:
        RuntimeError: if it fails.
    """
    start = time.perf_counter()
    if call(verb, words, f"lru {verb}"):
        raise RuntimeError(f"lru {verb} {' '.join(words)} has failed")
    before = float(stopwatch.read_text()) if stopwatch.exists() else 0.0
    stopwatch.write_text(str(before + time.perf_counter() - start))


def _name(method: list[str]) -> str:
    """Name of the run of an analysis."""
    return "".join(method).replace("--", "-")


def run_network(name: str, folder: Path, train: int, analyse: int, seeds: int) -> None:
    """Train a network, and look at it by all methods."""
    flags = [word for k, v in NETWORKS[name][1].items() for word in (f"--{k}", str(v))]
    numbers = ["--n_seeds", str(seeds), "--max_steps", str(train)]
    where = ["--runs_dir", str(folder / "runs"), "--dir_name", str(folder / "cache_dir")]
    run = folder / "runs" / name
    if not (run / "done").exists():
        words = ["--dataset", "repeat", *flags, *numbers, *where, "--name", name, *COMMON]
        call_timed("train", words, run.with_suffix(".seconds"))
        (run / "done").touch()
    for method in METHODS.values():
        mark = run / "analyses" / _name(method)
        if not (mark / "done").exists():
            words = [str(run), "--method", *method, "--steps", str(analyse), "--name", mark.name]
            call_timed("analyse", [*words, *COMMON], mark.with_suffix(".seconds"))
            (mark / "done").touch()


def collect(folder: Path) -> dict[str, Any]:
    """Results of all networks that have been looked at."""
    found = json.loads(RESULTS.read_text())["networks"] if RESULTS.exists() else {}
    for name, (alike, flags) in NETWORKS.items():
        run = folder / "runs" / name
        if not (run / "done").exists():
            continue
        methods = {}
        for shown, method in METHODS.items():
            mark = run / "analyses" / _name(method)
            if (mark / "done").exists():
                seconds = round(float(mark.with_suffix(".seconds").read_text()))
                methods[shown] = {**measured(Run(mark)), "seconds": seconds}
        seconds = round(float(run.with_suffix(".seconds").read_text()))
        found[name] = {
            "alike": alike,
            "flags": flags,
            "training": {**measured(Run(run)), "seconds": seconds},
            "methods": methods,
        }
    return found


def table(networks: dict[str, Any]) -> str:
    """Exact match of all networks in per cent, mean and sample standard deviation, in Markdown."""
    header = ["", "IID", "length 10", "length 11", *METHODS]
    lines = [header, ["---"] * len(header)]
    for name, found in networks.items():
        best = found["training"]["best"]
        splits = ("val", "longer_1", "longer_2")
        cells = [_percent(best[f"{split}/exact_match"]) for split in splits]
        for method in METHODS:
            each = found["methods"].get(method)
            cells.append(_percent(each["best"]["fixed/exact_match"]) if each else "")
        lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * spread:.1f}"


def main() -> None:
    """Run the networks that are named, or all."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=[*NETWORKS])
    parser.add_argument("--folder", type=Path, default=Path("repeat"))
    parser.add_argument("--train", type=int, default=40_000)
    parser.add_argument("--analyse", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only_collect", action="store_true")
    given = parser.parse_args()
    for name in [] if given.only_collect else given.names:
        run_network(name, given.folder, given.train, given.analyse, given.seeds)
    networks = collect(given.folder)
    save(RESULTS, {**provenance(), "networks": networks})
    print(table(networks))


if __name__ == "__main__":
    main()
