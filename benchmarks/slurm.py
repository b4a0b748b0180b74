"""A run under SLURM that is requeued three times, beside one that nothing disturbs.

python -m benchmarks.slurm [--folder DIR]

The cluster is that of bin/slurm/local_cluster.sh, started in DIR and stopped at the end; it needs
root and the packages slurm-wlm and munge. The job is bin/slurm/train.sbatch. It is requeued by hand
(`scontrol requeue`), gives way to a job of higher priority, and gets the signal that comes before
the end of its time. Its log has to be that of the undisturbed run, byte for byte, and its runs of
W&B, offline, have to be one. Results go to benchmarks/results/slurm.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.provenance import provenance, save
from lru.training.runs import Run

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "slurm.json"
CLUSTER = ROOT / "bin" / "slurm" / "local_cluster.sh"

FLAGS = [
    *("--dataset", "copy-classification", "--model", "gru", "--n_layers", "1", "--d_model", "32"),
    *("--data_options", "n_train=2000", "n_val=200", "n_test=200", "delay=20"),
    *("--batch_size", "50", "--max_steps", "4000", "--eval_every", "1000", "--log_every", "50"),
    *("--checkpoint_every", "100", "--plots", "False", "--use_wandb"),
]

PATIENCE = 300.0
"""Seconds in which what is waited for has to happen."""


def command(*words: str | Path) -> str:
    """What a command prints; none takes longer than a minute."""
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something.

    Raises:
        TimeoutError: if it does not happen.
    """
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what} did not happen within {PATIENCE:.0f} s")
        time.sleep(0.2)


class Job:
    """A job that trains.

    Attributes:
        number: of SLURM.
        run: its folder.
    """

    def __init__(self, run: Run):
        script = ROOT / "bin" / "slurm" / "train.sbatch"
        words = ["--partition=low", "--cpus-per-task=1", f"--output={run.path.parent}/job.out"]
        where = [f"--runs_dir={run.path.parent}", f"--name={run.path.name}"]
        self.run = run
        self.number = command("sbatch", "--parsable", *words, script, *FLAGS, *where)

    def fact(self, name: str) -> str:
        """A field of the job, such as JobState."""
        shown = command("scontrol", "show", "job", self.number)
        return next(word.partition("=")[2] for word in shown.split() if word.startswith(f"{name}="))

    def ids(self) -> set[str]:
        """The runs of W&B that it has logged to."""
        folders = (self.run.path / "wandb").glob("offline-run-*")
        return {folder.name.rpartition("-")[2] for folder in folders}

    def interrupt(self, way: str) -> dict[str, Any]:
        """Interrupt it once it has gone on from its last checkpoint, and let it start again."""
        before = self.run.saved_update or 0
        until(lambda: (self.run.saved_update or 0) >= before + 200, "a later checkpoint")
        restarts = int(self.fact("Restarts"))
        if way == "requeued by hand":
            command("scontrol", "requeue", self.number)
        elif way == "preempted by a job of higher priority":
            wrap = f"--cpus-per-task={len(os.sched_getaffinity(0))}", "--wrap=sleep 3"
            command("sbatch", "--partition=high", "--output=/dev/null", *wrap)
        else:
            command("scancel", "--batch", "--signal=USR1", self.number)
        until(lambda: int(self.fact("Restarts")) > restarts, f"being {way}")
        until(lambda: self.fact("JobState") == "PENDING", "the end of the job")
        saved = self.run.saved_update
        until(lambda: self.fact("JobState") == "RUNNING", "the next start")
        return {"way": way, "saved_update": saved, "wandb_ids": sorted(self.ids())}


WAYS = (
    "requeued by hand",
    "preempted by a job of higher priority",
    "asked to stop before the end of its time",
)


def same(one: Path, other: Path) -> bool:
    """True if two files have the same content."""
    return one.read_bytes() == other.read_bytes()


def measure(folder: Path) -> dict[str, Any]:
    """Train twice, and compare."""
    os.environ["WANDB_MODE"] = "offline"
    undisturbed, disturbed = Run(folder / "undisturbed"), Run(folder / "requeued")
    where = [f"--runs_dir={folder}", f"--name={undisturbed.path.name}"]
    subprocess.run([sys.executable, "-m", "lru", "train", *FLAGS, *where], check=True)
    job = Job(disturbed)
    until(lambda: job.fact("JobState") == "RUNNING", "the first start")
    interruptions = [job.interrupt(way) for way in WAYS]
    print(*interruptions, sep="\n", flush=True)
    until(lambda: job.fact("JobState") in ("COMPLETED", "FAILED"), "the end of the training")
    return {
        "interruptions": interruptions,
        "state": job.fact("JobState"),
        "restarts": int(job.fact("Restarts")),
        "wandb_ids": sorted(job.ids()),
        "same_metrics": same(*(run.metrics_file for run in (undisturbed, disturbed))),
        "same_summary": same(*(run.summary_file for run in (undisturbed, disturbed))),
    }


def main() -> None:
    """Measure, and fail if the runs differ."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="of cluster and runs; default: a new one")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="slurm-"))).resolve()
    # All may reach the socket of munge, or it does not start.
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    state = folder / "slurm"
    command(CLUSTER, "start", state)
    os.environ["SLURM_CONF"] = str(state / "slurm.conf")
    try:
        found = {"slurm": command("sinfo", "--version"), **measure(folder)}
    finally:
        command(CLUSTER, "stop", state)
    print(found)
    save(RESULTS, {**provenance(), **found})
    right = found["same_metrics"] and found["same_summary"] and len(found["wandb_ids"]) == 1
    sys.exit(0 if right and found["restarts"] == len(WAYS) else 1)


if __name__ == "__main__":
    main()
