"""A run on a text: state carried over batches, over interruptions, and not over epochs."""

import re

import jax
import numpy as np
import pytest

from lru import experiment, run_folders
from lru.commands import run_train as main
from lru.flags import parse
from lru.training.runs import open_trackers
from lru.training.trackers import Trackers, read_jsonl

PLAY = "to be or not to be\nthat is the question\n" * 60


class KilledError(Exception):
    """Stands in for the end of the process."""


class Dying(Trackers):
    """Ends the process after some lines."""

    def __init__(self, trackers, lines):
        super().__init__()
        self.trackers, self.left = trackers, lines

    def log(self, step, metrics):
        if self.left == 0:
            raise KilledError
        self.left -= 1
        self.trackers.log(step, metrics)

    def flush(self):
        self.trackers.flush()


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "raw" / "tinyshakespeare").mkdir(parents=True)
    (tmp_path / "raw" / "tinyshakespeare" / "input.txt").write_text(PLAY)
    return [
        *("--dataset", "shakespeare-lm", "--data_options", "n_val=90", "n_test=93"),
        *("--model", "qrnn", "--n_layers", "1", "--d_model", "4", "--d_hidden", "4"),
        *("--batch_size", "2", "--bptt", "16", "--variable_bptt", "--n_buckets", "2"),
        *("--eval_batch_size", "4", "--p_hidden", "0.2", "--max_steps", "150"),
        *("--log_every", "1", "--checkpoint_every", "25"),
        *("--runs_dir", str(tmp_path), "--dir_name", str(tmp_path / "cache")),
        *("--raw_dir", str(tmp_path / "raw"), "--plots", "False"),
    ]


def make_trainer(arguments):
    config = experiment.resolved(parse(arguments)[1])
    data = experiment.load_data(config)
    run = run_folders.open_run(config)
    trainer = experiment.make_trainer(config, data, experiment.make_task(config, data), run)
    run_folders.start(trainer, config)
    return config, trainer


def fit(arguments, kill_after=-1):
    config, trainer = make_trainer(arguments)
    run = run_folders.open_run(config)
    try:
        with open_trackers(run, config.run, trainer.step, {}) as trackers:
            trainer.fit(Dying(trackers, kill_after))
    finally:
        trainer.close()
        run.close()
    return trainer, read_jsonl(run.metrics_file)


def test_a_run_killed_within_an_epoch_goes_on_with_its_stream_and_state(flags):
    whole_trainer, whole = fit([*flags, "--name", "whole"])
    per_epoch = whole_trainer.sources["train"].steps_per_epoch
    assert 50 < per_epoch < 150
    with pytest.raises(KilledError):
        fit([*flags, "--name", "killed"], kill_after=40)
    _, resumed_trainer = make_trainer([*flags, "--name", "killed"])
    assert resumed_trainer.step == 25
    carry = jax.tree.leaves(resumed_trainer.state.carry)
    assert all(np.abs(leaf).max() > 0 for leaf in carry)
    resumed_trainer.close()
    _, resumed = fit([*flags, "--name", "killed"])
    losses = [line["train/loss"] for line in whole if "train/loss" in line]
    assert len(losses) == 150
    assert [line["train/loss"] for line in resumed if "train/loss" in line] == losses
    assert resumed == whole


def test_the_number_of_evaluated_tokens_is_logged_and_printed(flags, capsys):
    assert main([*flags, "--name", "one", "--max_steps", "2"]) == 0
    printed = capsys.readouterr().out
    for row in ("val/tokens +90\n", "test/tokens +93\n"):
        assert re.search(row, printed)
    assert "test/perplexity" in printed
    assert "majority" not in printed


@pytest.mark.parametrize("given", [("--on_device", "True"), ("--steps_per_call", "7")])
def test_a_text_does_not_live_on_the_device(flags, capsys, given):
    assert main([*flags, "--name", "two", *given]) == 2
    error = capsys.readouterr().err
    assert "on_device must be False for shakespeare-lm" in error
    assert "and so steps_per_call 1" in error
    assert len(error.splitlines()) == 1
