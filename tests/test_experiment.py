"""Training by one call on data in memory."""

import dataclasses

import jaxtyping
import numpy as np
import pytest

import lru
from lru.batches import DataConfig
from lru.config import Config, TaskConfig
from lru.dataloaders import from_arrays
from lru.models import Classifier, ModelConfig
from lru.training.config import RunConfig, TrainConfig
from lru.training.trackers import read_jsonl

rng = np.random.default_rng(0)
SIGNS = rng.integers(2, size=100)
DATA = from_arrays("signs", (rng.normal(size=(100, 6)) + 2 * SIGNS[:, None] - 1, SIGNS))


@pytest.fixture
def config(tmp_path):
    return Config(
        ModelConfig("lru", n_layers=1, d_model=4, d_hidden=4, p_dropout=0.0),
        DataConfig(batch_size=20),
        train=TrainConfig(epochs=15, lr_base=0.02),
        run=RunConfig(name="one", runs_dir=str(tmp_path)),
    )


def test_learns_from_arrays_and_leaves_a_run_that_is_not_made_twice(config, tmp_path):
    model, summary = lru.fit(DATA, config)
    assert isinstance(model, Classifier)
    assert summary.steps == 60
    assert summary.best[0]["test/accuracy"] >= 0.8
    records = read_jsonl(tmp_path / "one" / "metrics.jsonl")
    again, same = lru.fit(DATA, config)
    assert same.best == summary.best
    assert read_jsonl(tmp_path / "one" / "metrics.jsonl") == records
    np.testing.assert_array_equal(again.head.kernel[...], model.head.kernel[...])


def test_learns_from_rows_of_values_of_several_lengths(config):
    lengths = rng.integers(1, 12, len(SIGNS))
    rows = [rng.normal(size=(n, 2)) + 2 * s - 1 for n, s in zip(lengths, SIGNS, strict=True)]
    data = from_arrays("sounds", (rows, SIGNS))
    _, summary = lru.fit(data, config)
    assert summary.best[0]["test/accuracy"] >= 0.8
    on_device = dataclasses.replace(config.run, name="other", on_device=True)
    plain = dataclasses.replace(config.data, bucketing=False)
    _, other = lru.fit(data, dataclasses.replace(config, run=on_device, data=plain))
    assert other.best[0]["test/accuracy"] >= 0.8


def test_what_does_not_fit_is_refused(config):
    retrieval = dataclasses.replace(config, task=TaskConfig("retrieval"))
    with pytest.raises(ValueError, match=r"must be token_pairs .*but that of signs is values"):
        lru.fit(DATA, retrieval)
    wrong = dataclasses.replace(config.model, options={"half_life": 3})
    with pytest.raises(ValueError, match=r"no option half_life; this run has model .lru"):
        lru.fit(DATA, dataclasses.replace(config, model=wrong))


def test_data_that_was_not_prepared_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match=r"data must be that of .*from_arrays .*, got a ndarray"):
        lru.fit(np.zeros((3, 4)))


def test_the_task_follows_from_the_targets_where_none_is_named(tmp_path):
    inputs = rng.normal(size=(60, 6))
    data = from_arrays("sums", (inputs, inputs.sum(axis=1)))
    sizes = {"model": "lru", "n_layers": 1, "d_model": 4, "d_hidden": 4, "max_steps": 2}
    _, summary = lru.fit(data, **sizes, runs_dir=tmp_path)
    assert {"val/mse", "test/mae"} <= set(summary.best[0])
    (run,) = tmp_path.iterdir()
    assert lru.load_model(run, data=data).update == summary.best_step[0]
