"""A run of a small QRNN on a short play."""

import pytest

from lru.commands import run_train
from lru.text.loading import load_text
from lru.training.runs import Run

PLAY = "to be or not to be\nthat is the question\n" * 60


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Trains a model on the play for a few updates; the folder of its run."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "raw" / "tinyshakespeare").mkdir(parents=True)
    (folder / "raw" / "tinyshakespeare" / "input.txt").write_text(PLAY)

    def make(name, *arguments):
        flags = [
            *("--dataset", "shakespeare-lm", "--data_options", "n_val=90", "n_test=93"),
            *("--n_layers", "2", "--d_model", "8", "--d_hidden", "12", "--p_dropout", "0"),
            *("--batch_size", "4", "--bptt", "16", "--eval_batch_size", "2", "--name", name),
            *("--lr_base", "0.03", "--lr_factor", "1", "--plots", "False"),
            *("--runs_dir", folder, "--dir_name", folder / "cache", "--raw_dir", folder / "raw"),
        ]
        assert run_train([str(word) for word in (*flags, *arguments)]) == 0
        return folder / name

    return make


@pytest.fixture(scope="session")
def qrnn_run(make_run):
    """The folder of a run whose model has learned the play by heart, nearly."""
    return make_run("qrnn", "--model", "qrnn", "--epochs", "6")


@pytest.fixture(scope="session")
def loaded(qrnn_run):
    """Its model."""
    return load_text(Run(qrnn_run))
