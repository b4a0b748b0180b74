"""A sweep that is killed in the middle and goes on, beside one that nothing disturbs.

python -m benchmarks.sweeps [--folder DIR]

Twelve runs, two at a time (`lru sweep copy-recurrences --jobs 2`). In the second sweep the command
and the runs that it has started are killed (SIGKILL) once four runs are finished and a fifth has a
checkpoint; then the same command is given again. Every run has to have the log and the outcome that
it has in the first sweep, byte for byte. Results go to benchmarks/results/sweeps.json.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.provenance import provenance, save
from lru.training.runs import Run, find_runs

RESULTS = Path(__file__).parent / "results" / "sweeps.json"

SWEEP = "copy-recurrences"


def start(folder: Path) -> subprocess.Popen:
    """Start a sweep in a folder."""
    words = [sys.executable, "-m", "lru", "sweep", SWEEP, "--jobs", "2"]
    places = ["--runs_dir", str(folder), "--dir_name", str(folder.parent / "cache")]
    return subprocess.Popen([*words, *places, "--checkpoint_every", "20"])


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text()
    return list(map(int, listed.split()))


def runs_of(folder: Path) -> list[Run]:
    """The runs that there are, if any."""
    try:
        return find_runs(SWEEP, str(folder))
    except FileNotFoundError:
        return []


def killed(folder: Path) -> dict[str, int]:
    """A sweep that is killed: runs finished by then, and runs with a checkpoint that were not."""
    sweep = start(folder)
    while True:
        runs = runs_of(folder)
        finished = [run for run in runs if run.summary_file.exists()]
        begun = [run for run in runs if run not in finished and run.saved_update]
        if len(finished) >= 4 and begun:
            break
        if sweep.poll() is not None:
            raise RuntimeError("the sweep ended before it was killed")
        time.sleep(0.05)
    for process in [sweep.pid, *children(sweep.pid)]:
        os.kill(process, signal.SIGKILL)
    sweep.wait()
    return {"finished": len(finished), "with_a_checkpoint": len(begun)}


def main() -> None:
    """Measure, and fail if a run differs."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="of all runs; default: a new one")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="sweeps-"))).resolve()
    undisturbed, disturbed = folder / "undisturbed", folder / "killed"
    when_killed = killed(disturbed)
    print(when_killed, flush=True)
    statuses = [start(each).wait() for each in (disturbed, undisturbed)]
    ones, others = runs_of(undisturbed), runs_of(disturbed)
    same = sum(
        one.path.name == other.path.name
        and one.metrics_file.read_bytes() == other.metrics_file.read_bytes()
        and one.summary_file.read_bytes() == other.summary_file.read_bytes()
        for one, other in zip(ones, others, strict=True)
    )
    found = {"when_killed": when_killed, "exit_statuses": statuses, "runs": len(ones), "same": same}
    print(found)
    save(RESULTS, {**provenance(), **found})
    sys.exit(0 if same == len(ones) == 12 and statuses == [0, 0] else 1)


if __name__ == "__main__":
    main()
