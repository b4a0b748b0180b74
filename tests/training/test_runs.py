"""Run folders: fresh, resumed, mismatched, kept aside, evaluated."""

import re

import pytest

from lru.config import Config
from lru.run_folders import RunMismatchError, open_run, run_path
from lru.training import runs
from lru.training.runs import open_trackers


@pytest.fixture
def configure(tmp_path):
    def config(**changes):
        values = {"name": "one", "runs_dir": str(tmp_path / "runs")}
        return Config.from_flat(values | changes)

    return config


def checkpoint(run, name="12"):
    """Pretend that the run has been saved."""
    folder = run.checkpoints / "last" / name
    folder.mkdir(parents=True)
    return folder


def names(run):
    return sorted(path.name for path in run.path.parent.iterdir())


def test_a_fresh_run_is_a_folder_with_its_configuration(configure, tmp_path):
    run = open_run(configure())
    assert run.path == tmp_path / "runs" / "one"
    assert run.metrics_file == run.path / "metrics.jsonl"
    assert Config.load(run.path / "config.yaml") == configure()


def test_the_default_name_tells_data_model_and_seed_and_differs_with_the_result(configure):
    values = {"name": None, "model": "rnn", "dataset": "copy-classification", "jax_seed": 3}
    name = run_path(configure(**values)).name
    assert re.fullmatch(r"copy-rnn-seed3-[0-9a-f]{6}", name)
    assert run_path(configure(**values, use_wandb=True)).name == name
    assert run_path(configure(**values, lr_base=0.5)).name != name


def test_the_same_configuration_resumes(configure):
    run = open_run(configure())
    saved = checkpoint(run)
    assert open_run(configure(plots=False, checkpoint_every=9)) == run
    assert saved.exists()
    assert not Config.load(run.path / "config.yaml").run.plots


def test_another_configuration_is_refused_with_what_differs_and_what_to_do(configure):
    run = open_run(configure())
    checkpoint(run)
    with pytest.raises(RunMismatchError) as caught:
        open_run(configure(lr_base=0.01, r_min=0.5))
    message = str(caught.value)
    assert str(run.path) in message
    assert "lr_base: 0.001 there, 0.01 now" in message
    assert "r_min: 0.4 there, 0.5 now" in message
    assert "epochs" not in message
    assert "--name" in message
    assert "--reset" in message
    assert Config.load(run.path / "config.yaml") == configure()


def test_a_run_that_never_saved_may_be_started_anew(configure):
    run = open_run(configure())
    checkpoint(run, "7.orbax-checkpoint-tmp")
    assert open_run(configure(lr_base=0.01)) == run
    assert Config.load(run.path / "config.yaml").train.lr_base == 0.01


def test_reset_keeps_every_older_run_aside(configure):
    contents = []
    for lr in (0.1, 0.2, 0.3):
        run = open_run(configure(lr_base=lr, reset=True))
        checkpoint(run)
        contents.append(lr)
    assert names(run) == ["one", "one.old1", "one.old2"]
    rates = [
        Config.load(run.path.parent / name / "config.yaml").train.lr_base for name in names(run)
    ]
    assert rates == [0.3, 0.1, 0.2]
    assert (run.path.parent / "one.old1" / "checkpoints" / "last" / "12").is_dir()


def test_reset_and_eval_only_are_not_remembered(configure):
    run = open_run(configure(reset=True))
    assert not Config.load(run.path / "config.yaml").run.reset
    open_run(configure(eval_only=True))
    assert not Config.load(run.path / "config.yaml").run.eval_only


def test_evaluation_needs_a_run_and_makes_none(configure, tmp_path):
    with pytest.raises(FileNotFoundError, match="eval_only needs a run, but there is none in"):
        open_run(configure(eval_only=True))
    assert not list(tmp_path.iterdir())


def test_a_run_cannot_be_restored_from_itself(configure):
    run = open_run(configure())
    saved = checkpoint(run)
    with pytest.raises(ValueError, match=r"restore names the folder of this run itself.*--name"):
        open_run(configure(restore=str(run.path), reset=True))
    assert saved.exists()
    assert names(run) == ["one"]


def test_resuming_from_another_origin_is_refused(configure):
    run = open_run(configure(restore="runs/a"))
    checkpoint(run)
    assert open_run(configure(restore="runs/a")) == run
    with pytest.raises(RunMismatchError, match="restore: runs/a there, runs/b now"):
        open_run(configure(restore="runs/b"))


def test_metrics_are_always_written(configure):
    run = open_run(configure())
    with open_trackers(run, configure().run, 0, {}) as trackers:
        trackers.log(1, {"loss": 0.5})
    assert '"loss": 0.5' in run.metrics_file.read_text()


def test_trackers_are_closed_when_training_fails(configure):
    run = open_run(configure())

    def fail():
        with open_trackers(run, configure().run, 0, {}) as trackers:
            trackers.log(1, {"loss": 0.5})
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert run.metrics_file.read_text().count("\n") == 1


def test_tensorboard_is_written_on_request(configure):
    config = configure(tensorboard=True)
    run = open_run(config)
    with open_trackers(run, config.run, 0, config.flat()) as trackers:
        trackers.log(1, {"loss": 0.5})
    assert list((run.path / "tensorboard").iterdir())


def test_runs_of_an_agent_of_wandb_are_logged_there(configure, monkeypatch):
    run, opened = open_run(configure()), []

    class Tracker:
        def __init__(self, *arguments):
            opened.append(arguments[0])

        def close(self):
            opened.append("closed")

    monkeypatch.setattr(runs, "WandbTracker", Tracker)
    for sweep in (None, "abc"):
        if sweep is not None:
            monkeypatch.setenv("WANDB_SWEEP_ID", sweep)
        with open_trackers(run, configure().run, 0, {}):
            assert opened == ([] if sweep is None else [run.path])
    assert opened == [run.path, "closed"]
