"""Train all runs of a sweep, a file in the format of W&B, here or on a cluster."""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lru.commands.train import JOBS, TRAIN
from lru.launch.local import Command, run_commands
from lru.launch.planning import PlannedRun, plan
from lru.launch.slurm import check_saves, submit
from lru.launch.sweep_files import Sweep, load_sweep, sweep_names
from lru.reports.results import objective_of, task_of
from lru.training.interrupts import PreemptedError
from lru.training.report import with_deviation
from lru.words import UsageError

LOGS = "logs"
"""Folder beside the runs of a sweep, with what each has printed."""


def parser() -> argparse.ArgumentParser:
    """Command line of the verb, without the flags of `lru train`."""
    parser = argparse.ArgumentParser(
        prog="lru sweep",
        usage="lru sweep FILE [options] [flags of lru train, for all runs]",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help=f"a .yaml file, or one of the package: {', '.join(sweep_names())}",
    )
    parser.add_argument(
        "--name", help="of the folder of the runs, in runs_dir; default: that of the sweep"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="most runs at a time")
    parser.add_argument(
        "--n_runs", type=int, metavar="K", help="most points; default: run_cap of the file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the points of method random")
    parser.add_argument(
        "--join_lanes",
        action="store_true",
        help="train points that differ only in what lanes may differ in as one run",
    )
    parser.add_argument(
        "--launcher",
        choices=("local", "slurm"),
        default="local",
        help="train here, or submit jobs to SLURM",
    )
    parser.add_argument("--slurm", metavar="NAME=VALUE,...", help="settings of the jobs")
    return parser


class Asked(NamedTuple):
    """A command line that was understood.

    Attributes:
        sweep: that it names.
        runs: of the sweep.
        given: the flags of the verb.
    """

    sweep: Sweep
    runs: Sequence[PlannedRun]
    given: argparse.Namespace


def asked(arguments: Sequence[str]) -> Asked:
    """Read a command line; nothing starts.

    Raises:
        UsageError: if the command line or the file cannot be understood.
        ValueError: if a value is out of range.
    """
    given, flags = parser().parse_known_args(arguments)
    for name in ("jobs", "n_runs"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    sweep = load_sweep(given.file)
    points = sweep.points(given.n_runs, given.seed)
    runs = plan(sweep, points, flags, name=given.name, join_lanes=given.join_lanes)
    return Asked(sweep, runs, given)


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    sweep, runs, given = asked(arguments)
    folder = runs[0].run.path.parent
    left = [each for each in runs if each.outcome is None]
    done = len(runs) - len(left)
    print(f"  sweep {sweep.name}: {len(runs)} runs in {folder}, {done} finished", flush=True)
    if given.launcher == "slurm":
        return _submit(left, given) if left else 0
    commands = [_command(each) for each in left]
    failed = 0

    def ended(number: int, status: int) -> None:
        nonlocal done, failed
        outcome = left[number].outcome
        done, failed = done + (outcome is not None), failed + (outcome is None)
        said = (
            f"[{done}/{len(runs)}] {_result(left[number], outcome)}"
            if outcome is not None
            else f"exit status {status}: {_last_line(commands[number].log)}"
        )
        print(f"  {left[number].run.path.name}: {said}", flush=True)

    stopped = run_commands(commands, given.jobs, ended, runs[0].config.run.stop_signals)
    if stopped is not None:
        what = f"{done} of {len(runs)} runs are finished, and the same command goes on from there"
        if stopped == signal.SIGINT:
            raise KeyboardInterrupt(what)
        raise PreemptedError(f"{stopped.name}; {what}")
    if failed:
        print(
            f"lru sweep: {failed} of {len(runs)} runs failed: see {folder / LOGS}; the same "
            "command starts these alone",
            file=sys.stderr,
        )
    if done:
        print(f"  one page on all of them: lru report {folder}")
    return 1 if failed else 0


def _submit(left: Sequence[PlannedRun], given: argparse.Namespace) -> int:
    """Submit the runs that are left; the exit status."""
    folder = left[0].run.path.parent
    for each in left:
        check_saves(each.config.run.stop_signals)
    jobs = submit([[*TRAIN, *e.words] for e in left], folder / JOBS, given.slurm, given.jobs)
    for each, job in zip(left, jobs, strict=True):
        print(f"  job {job.number} trains {each.run.path.name}; its log is {job.log}")
    print(f"  one page on all of them, at any time: lru report {folder}")
    return 0


def _command(planned: PlannedRun) -> Command:
    path = planned.run.path
    return Command([*TRAIN, *planned.words], path.parent / LOGS / f"{path.name}.log")


def _result(planned: PlannedRun, outcome: Mapping[str, Any]) -> str:
    """The objective of a run that has ended, of several lanes with its deviation."""
    objective = objective_of(task_of(planned.config))
    values = [best[objective] for best in outcome["best"] if objective in best]
    return f"{objective} {with_deviation(objective, values)}" if values else "not evaluated"


def _last_line(log: Path) -> str:
    """The last line that a command has printed."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
