"""What a process runs on, as recorded at its start."""

import json
import subprocess

import pytest

from lru.training import environment
from lru.training.environment import record_environment


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A working directory and a package in no work tree."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    run = tmp_path / "run"
    run.mkdir()
    return run


def lines(run):
    return [json.loads(line) for line in (run / "environment.jsonl").read_text().splitlines()]


def test_every_start_is_a_line(outside, monkeypatch, caplog):
    monkeypatch.setattr("sys.orig_argv", ["lru", "train", "--name", "a b"])
    first, second = record_environment(outside), record_environment(outside)
    assert lines(outside) == [first, second]
    assert first["packages"].keys() >= {"jax", "jaxlib", "flax", "optax", "numpy"}
    assert first["command"] == "lru train --name 'a b'"
    assert all("(cpu)" in device for device in first["devices"])
    assert first["git"] is None
    assert not caplog.records


def test_without_git_there_is_no_state_of_it(outside, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    assert record_environment(outside)["git"] is None
    assert not caplog.records


def test_commit_changes_and_untracked_files_of_a_work_tree(outside, tmp_path, monkeypatch):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *who, *arguments], check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "--quiet")
    (tmp_path / "model.py").write_text("width = 1\n")
    (tmp_path / ".gitignore").write_text("run\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = git("rev-parse", "HEAD")
    clean = record_environment(outside)["git"]
    assert (clean["commit"], clean["dirty"], clean["diff"]) == (commit, False, None)
    (tmp_path / "model.py").write_text("width = 2\n")
    (tmp_path / "new.py").write_text("")
    found = record_environment(outside)["git"]
    assert (found["dirty"], found["untracked"]) == (True, ["new.py"])
    diff = (outside / found["diff"]).read_text()
    assert "-width = 1\n+width = 2\n" in diff
    monkeypatch.setattr(environment, "LARGEST_DIFF", 10)
    cut = (outside / record_environment(outside)["git"]["diff"]).read_text()
    assert cut == f"{diff[:10]}\n(cut after 10 of {len(diff)} bytes)\n"


def test_a_folder_that_cannot_be_written_to_is_warned_of(outside, caplog):
    found = record_environment(outside / "missing")
    assert found["python"]
    (record,) = caplog.records
    assert "the environment could not be recorded" in record.message
