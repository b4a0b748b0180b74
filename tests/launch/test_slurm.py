"""Jobs of SLURM, beside programs that stand for those of a cluster."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lru.commands import main
from lru.launch.slurm import Restarting, parsed, submit
from lru.words import UsageError

SCRIPT = Path(__file__).parents[2] / "bin" / "slurm" / "train.sbatch"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Programs of SLURM that note how they are called; the number of a job is 7.

    `scontrol` shows what is in the file `job`.
    """
    (tmp_path / "job").write_text("JobId=7 JobName=lru\n   JobState=RUNNING Reason=None")
    programs = tmp_path / "bin"
    programs.mkdir()
    answers = {"srun": "", "sbatch": "Submitted batch job 7", "scontrol": '"$(cat job)"'}
    for name, answer in answers.items():
        lines = ["#!/bin/sh", f'echo {name} "$@" >>{tmp_path}/calls', f"echo {answer}"]
        (programs / name).write_text("\n".join(lines))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_are_read():
    assert parsed(None) == parsed("") == {}
    assert parsed("partition=gpu,time=60,mem=8GB") == {"partition": "gpu", "time": 60, "mem": "8GB"}
    with pytest.raises(UsageError, match="slurm takes NAME=VALUE,NAME=VALUE, got 'gpu'"):
        parsed("gpu")
    with pytest.raises(UsageError, match="time in slurm must be a number of minutes, got '1:00'"):
        parsed("time=1:00")


def test_a_command_that_asks_for_it_is_requeued_and_one_that_fails_fails(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    Restarting([sys.executable, "-S", "-c", ""])()
    with pytest.raises(subprocess.CalledProcessError):
        Restarting([sys.executable, "-S", "-c", "raise SystemExit(2)"])()
    assert not (cluster / "calls").exists()
    with pytest.raises(SystemExit, match="75"):
        Restarting([sys.executable, "-S", "-c", "raise SystemExit(75)"])()
    monkeypatch.setenv("SLURM_PROCID", "1")  # another process of the same run
    with pytest.raises(SystemExit, match="75"):
        Restarting([sys.executable, "-S", "-c", "raise SystemExit(75)"])()
    assert (cluster / "calls").read_text() == "scontrol show job 7\nscontrol requeue 7\n"


@pytest.mark.parametrize(
    ("facts", "again"),
    [
        ("JobState=RUNNING Reason=None PreemptTime=None", True),
        ("JobState=COMPLETING Reason=TimeLimit PreemptTime=None", True),
        ("JobState=COMPLETING Reason=None PreemptTime=2026-11-28T22:46:43", True),
        ("JobState=COMPLETING Reason=None PreemptTime=None", False),
    ],
)
@pytest.mark.parametrize("way", ["submitit", "train.sbatch"])
def test_a_job_that_somebody_cancels_stays_cancelled(cluster, monkeypatch, facts, again, way):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    (cluster / "job").write_text(f"JobId=7 JobName=lru\n   {facts}")
    if way == "submitit":
        with pytest.raises(SystemExit, match="75"):
            Restarting([sys.executable, "-S", "-c", "raise SystemExit(75)"])()
    else:
        (cluster / "bin" / "python").write_text("#!/bin/sh\nexit 75")
        (cluster / "bin" / "python").chmod(0o755)
        assert subprocess.run(["bash", SCRIPT], stdout=subprocess.DEVNULL).returncode == 75
    calls = ["scontrol show job 7_2", *(["scontrol requeue 7_2"] if again else [])]
    assert (cluster / "calls").read_text().splitlines() == calls


@pytest.mark.parametrize("way", ["submitit", "train.sbatch"])
def test_a_command_that_a_signal_ends_before_it_handles_it_is_requeued(cluster, monkeypatch, way):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    program = "kill -s TERM $PPID\nsleep 0.1\nkill -s SEGV $$"
    if way == "submitit":
        before = signal.signal(signal.SIGTERM, lambda *_: None)  # as submitit does
        try:
            with pytest.raises(SystemExit, match="75"):
                Restarting(["sh", "-c", program])()
        finally:
            signal.signal(signal.SIGTERM, before)
    else:
        (cluster / "bin" / "python").write_text(f"#!/bin/sh\n{program}")
        (cluster / "bin" / "python").chmod(0o755)
        subprocess.run(["bash", SCRIPT], check=False, stdout=subprocess.DEVNULL)
    assert (cluster / "calls").read_text() == "scontrol show job 7\nscontrol requeue 7\n"


def test_a_signal_of_submitit_waits_until_the_command_has_saved(cluster, monkeypatch):
    helpers = pytest.importorskip("submitit.helpers", reason="the extra slurm is needed")
    program = (
        "import pathlib, signal, sys, time; "
        "signal.signal(signal.SIGUSR2, lambda *_: (pathlib.Path('saved').touch(), sys.exit(0))); "
        "pathlib.Path('ready').touch(); time.sleep(60)"
    )
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    command, found = Restarting([sys.executable, "-S", "-c", program]), []

    def interrupt():
        while not (cluster / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    def checkpoint(number, frame):
        found.append(command.checkpoint())
        assert (cluster / "saved").exists()

    before = signal.signal(signal.SIGUSR2, checkpoint)
    try:
        threading.Thread(target=interrupt).start()
        command()
    finally:
        signal.signal(signal.SIGUSR2, before)
    (again,) = found
    again.dump(cluster / "kept")
    assert helpers.DelayedSubmission.load(cluster / "kept").function.words == command.words
    (cluster / "job").write_text("JobState=COMPLETING Reason=None PreemptTime=None")
    with pytest.raises(SystemExit, match="75"):
        command.checkpoint()


def test_commands_are_submitted_as_one_array(cluster):
    pytest.importorskip("submitit", reason="the extra slurm is needed")
    jobs = submit([["a"], ["b"], ["c"]], cluster / "jobs", "partition=gpu,time=60", at_once=2)
    assert [job.number for job in jobs] == ["7_0", "7_1", "7_2"]
    assert jobs[1].log == cluster / "jobs" / "7_1_0_log.out"
    script = (cluster / "jobs" / "7_submission.sh").read_text()
    for line in ("--array=0-2%2", "--partition=gpu", "--time=60", "--open-mode=append"):
        assert f"#SBATCH {line}\n" in script
    with pytest.raises(UsageError, match=r"^slurm: Unavailable parameter.*'tim'.* partition "):
        submit([["a"]], cluster / "jobs", "tim=3")


@pytest.mark.usefixtures("cluster")
def test_a_training_and_a_sweep_are_submitted(capsys):
    pytest.importorskip("submitit", reason="the extra slurm is needed")
    slurm = ["--launcher", "slurm", "--slurm", "time=60"]
    assert main(["train", "--name", "one", *slurm]) == 0
    said = capsys.readouterr().out
    assert said.startswith("  job 7 trains runs/one; its log is ")
    assert said.endswith("/runs/slurm/7_0_log.out\n")
    assert main(["sweep", "copy-recurrences", "--jobs", "3", *slurm, "--epochs", "1"]) == 0
    assert "job 7_11 trains model=lstm,lr_base=0.03-" in capsys.readouterr().out


def test_what_is_missing_or_makes_no_sense_is_said(capsys, monkeypatch):
    for words in (["--reset"], ["--slurm", "gpu"]):
        assert main(["train", "--launcher", "slurm", *words]) == 2
    signals = ["--stop_signals", "SIGTERM", "SIGUSR1"]
    for verb in (["train"], ["sweep", "copy-recurrences"]):
        assert main([*verb, "--launcher", "slurm", *signals]) == 2
    error = capsys.readouterr().err
    sentence = "stop_signals must have SIGUSR2, which launcher slurm sends, got SIGTERM, SIGUSR1"
    assert error.count(sentence) == 2
    assert "launcher slurm excludes reset" in error
    assert "slurm takes NAME=VALUE" in error
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(["train", "--launcher", "slurm"]) == 2
    assert 'needs submitit: pip install "lru-jax[slurm]"' in capsys.readouterr().err
