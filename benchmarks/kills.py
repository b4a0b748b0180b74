"""Runs that are killed a hundred times at random moments, against one that is left alone.

python -m benchmarks.kills [--kills 100] [--n_seeds 1] [--seed 0]

SIGKILL and SIGTERM take turns by chance, after a time that is drawn evenly up to one with which all
kills together leave about three tenths of the updates to the end. The run that was killed must end
with the log and the weights of the other one, byte for byte, else the status is 1. What it was
doing at each kill goes to benchmarks/results/kills-N.json, N lanes.
"""

import argparse
import collections
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, NoReturn

import jax
import numpy as np
from flax import nnx

from benchmarks.provenance import provenance, save
from lru.commands import run_process, run_train
from lru.experiment import load_model
from lru.training.checkpoints import Checkpoints
from lru.training.interrupts import REQUEUE
from lru.training.loop import Trainer
from lru.training.update import CompiledByShape

RESULTS = Path(__file__).parent / "results"

RUN = (
    *("--model", "lru", "--dataset", "copy-classification", "--n_layers", "2", "--d_model", "32"),
    *("--d_hidden", "32", "--batch_size", "50", "--log_every", "7", "--checkpoint_every", "20"),
    *("--eval_every", "30", "--p_dropout", "0.1", "--plots", "False"),
)

START, COMPILING, UPDATE, EVALUATION = range(4)
NAMES = ("starting", "compiling", "update", "evaluation")


def watch(arguments: list[str], file: Path) -> NoReturn:
    """Run a training that notes what it is doing, and end this process as `run_train.py` does.

    Args:
        arguments: of the command.
        file: has one byte of what the main thread does, and one of the thread that writes.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.pwrite(descriptor, bytes([START, 0]), 0)

    def noting(function: Callable, place: int, within: int, after: int) -> Callable:
        def call(*args: Any) -> Any:
            os.pwrite(descriptor, bytes([within]), place)
            try:
                return function(*args)
            finally:
                os.pwrite(descriptor, bytes([after]), place)

        return call

    CompiledByShape.program = noting(CompiledByShape.program, 0, COMPILING, UPDATE)
    Trainer._end_epoch = noting(Trainer._end_epoch, 0, EVALUATION, UPDATE)
    Checkpoints._write = noting(Checkpoints._write, 1, 1, 0)
    run_process(lambda: run_train(arguments))


def longest_wait(start: float, progress: float) -> float:
    """The end L of waits that are even from 0, of which the mean of max(wait - start, 0) is given.

    This mean is (L - start)^2 / (2 L).
    """
    return start + progress + math.sqrt(progress * (progress + 2 * start))


def killed(command: list[str], folder: Path, longest: float, kills: int, seed: int) -> list:
    """Kill a run so many times, and let it end; what it was doing at each kill, and the signal."""
    random, found = np.random.default_rng(seed), []
    doing = folder / "doing"
    while len(found) < kills:
        doing.write_bytes(bytes(2))
        with (folder / "messages").open("wb") as messages:
            process = subprocess.Popen(command, stderr=messages, stdout=subprocess.DEVNULL)
        time.sleep(random.uniform(0, longest))
        number = SIGKILL if random.random() < 0.5 else SIGTERM
        main, writer = doing.read_bytes()
        process.send_signal(number)
        status = process.wait()
        at = NAMES[main] + (" while writing a checkpoint" if writer else "")
        if status not in (-number, REQUEUE):
            said = (folder / "messages").read_text(errors="replace")
            raise RuntimeError(f"kill {len(found)}, {number.name} at {at}: status {status}\n{said}")
        found.append((at, number.name))
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return found


def main() -> int:
    """Kill, compare and write the results; the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--n_seeds", type=int, default=1)
    parser.add_argument("--max_steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--watch", nargs=argparse.REMAINDER, help="run this, as a part of it")
    given = parser.parse_args()
    if given.watch:
        watch(given.watch[1:], Path(given.watch[0]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def command(run: str) -> list[str]:
            flags = [*RUN, "--max_steps", str(given.max_steps), "--n_seeds", str(given.n_seeds)]
            flags += ["--runs_dir", name, "--dir_name", f"{name}/cache", "--name", run]
            start = [sys.executable, "-X", "faulthandler", "-m", "benchmarks.kills"]
            start += ["--watch", f"{name}/doing"]
            return [*start, *flags]

        began = time.perf_counter()
        process = subprocess.Popen(
            command("whole"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        while not (folder / "whole" / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        first = time.perf_counter() - began
        if process.wait():
            raise RuntimeError("the run that is left alone failed")
        updates = time.perf_counter() - began - first
        longest = longest_wait(first, 0.7 * updates / given.kills)
        moments = killed(command("killed"), folder, longest, given.kills, given.seed)
        logs = [(folder / run / "metrics.jsonl").read_bytes() for run in ("whole", "killed")]
        models = [
            [load_model(folder / run, lane) for lane in range(given.n_seeds)]
            for run in ("whole", "killed")
        ]
        same_log, same_weights = logs[0] == logs[1], _same(*models)
    counts = collections.Counter(moments)
    results = {
        **provenance(),
        "updates": given.max_steps,
        "lanes": given.n_seeds,
        "kills": {f"{what}, {number}": count for (what, number), count in sorted(counts.items())},
        "same log": same_log,
        "same weights": same_weights,
    }
    save(RESULTS / f"kills-{given.n_seeds}.json", results)
    print(results)
    return 0 if same_log and same_weights else 1


def _same(one: list, other: list) -> bool:
    def values(models: list) -> list:
        return [(each.update, *map(bytes, _leaves(each.model))) for each in models]

    return values(one) == values(other)


def _leaves(model: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]


if __name__ == "__main__":
    sys.exit(main())
