"""The best checkpoint of a run, exported: its scores on the test split are those of the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.batches import Batches
from lru.commands import main, run_train
from lru.experiment import load_model, open_experiment
from lru.export import load
from lru.flags import parse
from lru.training.runs import find_run
from lru.training.trackers import read_jsonl

SIZES = ["--model", "lru", "--n_layers", "1", "--d_model", "4", "--d_hidden", "4"]
SIZES += ["--batch_size", "8", "--plots", "False"]
COPY = ["n_train=24", "n_val=8", "n_test=8", "n_symbols=3", "pattern_length=2", "delay=3"]
FLAGS = [*SIZES, "--dataset", "copy-classification", "--data_options", *COPY]


def train(tmp_path, *arguments):
    folders = ["--runs_dir", tmp_path / "runs", "--dir_name", tmp_path / "cache", "--name", "one"]
    return run_train([str(word) for word in (*arguments, *SIZES, *folders)])


@pytest.fixture
def copy_run(tmp_path):
    """Two epochs on a small copy task, whose labels are one a step."""
    assert train(tmp_path, *FLAGS, "--epochs", "2", "--lr_base", "0.01") == 0
    return tmp_path / "runs" / "one"


def logged_accuracy(folder, update):
    lines = read_jsonl(folder / "metrics.jsonl")
    (accuracy,) = (
        line["test/accuracy"]
        for line in lines
        if line["step"] == update and "test/accuracy" in line
    )
    return accuracy


def accuracy(exported, trained):
    """Of an exported model on the test split."""
    right = weight = 0
    for batch in Batches(trained.data.test, trained.config.data).epoch():
        lengths = batch.lengths
        if lengths is None:
            lengths = np.full(len(batch.inputs), batch.inputs.shape[1])
        kind = exported.card["whole"]["inputs"]["dtype"]
        scores = exported.whole(batch.inputs.astype(kind), lengths.astype(np.int32))
        counted = (batch.labels >= 0) * batch.weights.reshape(-1, *[1] * (batch.labels.ndim - 1))
        right += np.sum((np.argmax(scores, -1) == batch.labels) * counted)
        weight += np.sum(counted)
    return right / weight


def test_a_run_of_tokens(copy_run, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    assert main(["export", str(copy_run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "step.jax_export" in printed
    assert str(out) in printed
    exported, trained = load(out), load_model(find_run(str(copy_run)))
    card = exported.card
    assert (card["run"], card["update"]) == ("one", trained.update)
    assert len(card["vocabulary"]) == trained.data.card.vocab_size
    assert card["whole"]["inputs"] == {"shape": ["batch", "time"], "dtype": "int32"}
    assert accuracy(exported, trained) == pytest.approx(logged_accuracy(copy_run, trained.update))


def test_a_run_of_bytes_takes_bytes(few_files, tmp_path):
    data = ["--dataset", "mnist-classification", "--data_options", "n_val=8"]
    assert train(tmp_path, *data, "--raw_dir", few_files, "--max_steps", "2") == 0
    folder = tmp_path / "runs" / "one"
    assert main(["export", str(folder)]) == 0
    exported, trained = load(folder / "export"), load_model(find_run(str(folder)))
    assert exported.card["whole"]["inputs"]["dtype"] == "uint8"
    for name in ("mean", "std", "target_mean", "target_std"):
        assert exported.card[name] == getattr(trained.data.card, name)
    assert accuracy(exported, trained) == pytest.approx(logged_accuracy(folder, trained.update))
    pixels = jnp.asarray(trained.data.test.inputs[:2, :3])
    state = exported.initial_state(2)
    for t in range(3):
        scores, state = exported.step(pixels[:, t], state)
    np.testing.assert_allclose(scores, exported.whole(pixels, jnp.full(2, 3)), rtol=1e-3, atol=1e-4)


def test_runs_are_found_by_name_or_folder_and_others_are_named(copy_run, monkeypatch, capsys):
    monkeypatch.chdir(copy_run.parents[1])
    assert find_run("one").path.resolve() == find_run(str(copy_run)).path == copy_run
    assert main(["export", "two"]) == 2
    error = capsys.readouterr().err
    assert error == "lru export: there is no run 'two': runs/two and two have no config.yaml\n"


def test_a_run_without_a_checkpoint_is_one_clear_sentence(copy_run, capsys):
    (copy_run / "checkpoints" / "best").rename(copy_run / "checkpoints" / "lost")
    assert main(["export", str(copy_run)]) == 2
    error = capsys.readouterr().err
    assert "no best checkpoint in" in error
    assert len(error.splitlines()) == 1


def test_weights_start_another_run_in_every_lane(copy_run, capsys):
    assert main(["export", str(copy_run), "--weights"]) == 0
    weights = copy_run / "export" / "model.safetensors"
    flags = [*FLAGS, "--n_seeds", "2", "--max_steps", "1", "--load_pretrained", str(weights)]
    values = ["--runs_dir", str(copy_run.parent), "--dir_name", str(copy_run.parents[1] / "cache")]
    with open_experiment(parse([*flags, *values, "--name", "two"])[1]) as experiment:
        expected = jax.tree.leaves(nnx.state(load_model(copy_run).model))
        for lane in range(2):
            found = jax.tree.leaves(nnx.state(experiment.trainer.model(lane)))
            for mine, theirs in zip(found, expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    capsys.readouterr()
    assert run_train([*flags, *values, "--d_model", "6", "--name", "three"]) == 2
    assert "model.safetensors is of another model: " in capsys.readouterr().err
    weights.write_bytes(weights.read_bytes()[:50])
    assert run_train([*flags, *values, "--name", "three"]) == 2
    assert "model.safetensors is no safetensors file" in capsys.readouterr().err
    assert not (copy_run.parent / "three").exists()
