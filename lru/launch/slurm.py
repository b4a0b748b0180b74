"""Commands as jobs of SLURM, submitted by submitit, that start again until they are done."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lru.training.interrupts import REQUEUE
from lru.words import UsageError

MOST_TIMEOUTS = 1000
"""Limits of time that a job may meet before it is given up: long runs take many."""

SAVE = signal.SIGUSR2
"""Signal on which submitit asks for a checkpoint, and that the command gets then."""


class Job(NamedTuple):
    """A job that was submitted.

    Attributes:
        number: of SLURM.
        log: file with its output; SLURM makes it when the job starts.
    """

    number: str
    log: Path


class Restarting:
    """A command that is requeued when it asks for it, and by submitit when its time is up.

    It asks by its status, or by any but 0 after SIGTERM, which may have come before it could handle
    that; what SLURM sends at a preemption reaches both.

    Submitit stores it in a file for the job, so it holds words alone.

    Args:
        words: of the command line.
    """

    def __init__(self, words: Sequence[str]):
        self.words = list(words)

    def __call__(self) -> None:
        """Run the command in the job.

        Raises:
            CalledProcessError: if it fails.
            SystemExit: if the job starts again.
        """
        asked: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
        try:
            self._process = subprocess.Popen(self.words)
            self._wait()
            status = self._process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
        if status == REQUEUE or (asked and status):
            if os.environ.get("SLURM_PROCID", "0") == "0" and is_wanted():
                subprocess.run(["scontrol", "requeue", _job_id()], check=True)
            sys.exit(REQUEUE)
        if status:
            raise subprocess.CalledProcessError(status, self.words)

    def checkpoint(self) -> Any:
        """Let the command save; what submitit is to start next time.

        Raises:
            SystemExit: if the job has been cancelled, and is not to start again.
        """
        from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports]

        self._process.send_signal(SAVE)
        self._wait()
        if not is_wanted():
            sys.exit(REQUEUE)
        return DelayedSubmission(Restarting(self.words))

    def _wait(self) -> None:
        """Return once the command has ended.

        Submitit asks for a checkpoint in a handler of signals, which may interrupt `Popen.wait`,
        whose lock would keep another from returning.
        """
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)


def is_wanted() -> bool:
    """True unless this process is of a job that has been cancelled, or that SLURM requeues itself.

    Such a job is no longer running, as is one that is late in saving at the limit of its time, or
    when another takes its place.
    """
    shown = subprocess.run(
        ["scontrol", "show", "job", _job_id()], check=True, capture_output=True, text=True
    ).stdout
    return re.search(r"\b(JobState=RUNNING|Reason=TimeLimit|PreemptTime=\d)", shown) is not None


def _job_id() -> str:
    """The job of this process; the number alone of one of an array may stand for all of them."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def check_saves(stop_signals: Sequence[str]) -> None:
    """Refuse a run that would not save when its time is up.

    Raises:
        UsageError: if the signal of that moment does not stop it.
    """
    if SAVE.name not in stop_signals:
        raise UsageError(
            f"stop_signals must have {SAVE.name}, which launcher slurm sends, got "
            f"{', '.join(stop_signals) or 'none'}"
        )


def submit(
    commands: Sequence[Sequence[str]],
    folder: Path,
    settings: str | None = None,
    at_once: int | None = None,
) -> list[Job]:
    """Submit commands, several as one array.

    Args:
        commands: words of each.
        folder: for logs, and for what submitit keeps of each job.
        settings: of the jobs, NAME=VALUE,NAME=VALUE, by the names of sbatch.
        at_once: most that run at a time; None for no limit.

    Raises:
        UsageError: if there is no SLURM or no submitit, or a setting is unknown.
    """
    executor = make_executor(
        folder, parsed(settings) | ({"array_parallelism": at_once} if at_once else {})
    )
    with executor.batch():
        jobs = [executor.submit(Restarting(words)) for words in commands]
    return [Job(job.job_id, Path(job.paths.stdout)) for job in jobs]


def make_executor(folder: Path, settings: Mapping[str, Any]) -> Any:
    """The executor that submits jobs.

    Args:
        folder: see `submit`.
        settings: of the jobs, by name.

    Raises:
        UsageError: see `submit`.
    """
    try:
        import submitit  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError('launcher slurm needs submitit: pip install "lru-jax[slurm]"') from None
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=MOST_TIMEOUTS)
    except RuntimeError:
        raise UsageError("launcher slurm needs SLURM, but there is no srun here") from None
    try:
        executor.update_parameters(job_name="lru", **settings)
    except ValueError as error:
        raise UsageError(f"slurm: {' '.join(str(error).split())}") from None
    return executor


def parsed(settings: str | None) -> dict[str, str | int]:
    """Settings by name, whole numbers as such.

    Raises:
        UsageError: if one is no NAME=VALUE, or the time is no number of minutes.
    """
    found: dict[str, str | int] = {}
    for item in settings.split(",") if settings else []:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise UsageError(f"slurm takes NAME=VALUE,NAME=VALUE, got {item!r}")
        found[name] = int(value) if value.isdigit() else value
    if not isinstance(found.get("time", 0), int):
        raise UsageError(f"time in slurm must be a number of minutes, got {found['time']!r}")
    return found
