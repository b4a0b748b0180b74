"""Lanes: each is the run of its seed and values; logged, stopped, saved and loaded by itself."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru import experiment
from lru.batches import DataConfig
from lru.commands import run_train
from lru.dataloaders import Card, Prepared, Ragged
from lru.experiment import load_model
from lru.flags import parse
from lru.models import ModelConfig
from lru.tasks import TASKS
from lru.training import lanes as lanes_module
from lru.training.checkpoints import Checkpoints
from lru.training.config import TrainConfig
from lru.training.lanes import lanes_of, method_for
from lru.training.loop import Trainer
from lru.training.optimizer import LBFGS, SGD, AdamW
from lru.training.report import report_rows
from lru.training.trackers import JsonLinesTracker, Trackers, read_jsonl

SMALL = ModelConfig("lru", n_layers=1, d_model=4, d_hidden=3, p_dropout=0.2)


def wide(name):
    """A task whose parameters and statistics are in double precision."""

    class Wide(TASKS[name]):
        def build_model(self, rngs):
            model = super().build_model(rngs)
            graphdef, state = nnx.split(model)
            return nnx.merge(graphdef, jax.tree.map(lambda x: x.astype(jnp.float64), state))

    return Wide


def split_of(lengths, seed, labels):
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths])
    values = rng.integers(1, 6, offsets[-1]).astype(np.uint8)
    return Ragged(values, offsets, rng.integers(3, size=len(lengths)).astype(np.int32) * labels)


def data_of(text, times):
    lengths = times * ([40] * 9 if text else [3, 5, 4, 2, 5, 5, 4, 3, 5])
    splits = {s: split_of(lengths, n, not text) for n, s in enumerate(("train", "val", "test"))}
    card = Card(
        name="toy",
        version=1,
        kind="text" if text else "tokens",
        n_classes=6 if text else 3,
        vocab_size=6,
        vocabulary=[*"?abcd", "<eos>"],
        targets="tokens" if text else "class",
        max_length=40,
    )
    return Prepared(card, splits)


def trainer_of(task, tmp_path, train, optimizer=None, model=SMALL, method=None, times=1):
    data = data_of(issubclass(task, TASKS["language_modelling"]), times)
    made = task(data.card, model)
    sources = made.sources(
        data, DataConfig(batch_size=4, n_buckets=1), seed=train.order_seed, on_device=False
    )
    optimizer = AdamW(lr_factor=0.5) if optimizer is None else optimizer
    trainer = Trainer(made, sources, train, optimizer, Checkpoints(tmp_path / "checkpoints"))
    trainer._programs.method = method
    return trainer


def trained(*arguments, **more):
    trainer = trainer_of(*arguments, **more)
    try:
        trainer.fit(Trackers())
    finally:
        trainer.close()
    return trainer


def assert_lanes_are_single_runs(tmp_path, task, rtol, *, singles, methods, steps, **common):
    """Compare the parameters and statistics of every lane with those of its own run."""
    together = {"n_seeds": 2, "lanes": ("lr_base=0.01,0.03",), "data_seed": 7, "max_steps": steps}
    joined = []
    for method in methods:
        train = TrainConfig(**together, **common)
        joined.append(trained(task, tmp_path / method, train, method=method, times=4))
    assert [str(lane) for lane in joined[0].lanes][1:3] == [
        "seed=1920 lr_base=0.01",
        "seed=1919 lr_base=0.03",
    ]
    for lane in singles:
        own = {"jax_seed": 1919 + lane % 2, "lr_base": (0.01, 0.03)[lane // 2]}
        alone = {"data_seed": 7, "max_steps": steps, **own, **common}
        single = trained(task, tmp_path / f"single{lane}", TrainConfig(**alone), times=4)
        for lanes, name in itertools.product(joined, ("params", "stats", "lr_scale")):
            for mine, its in zip(
                *(jax.tree.leaves(getattr(t.state, name)) for t in (lanes, single)), strict=True
            ):
                scale = np.abs(its).max() + 1e-30
                np.testing.assert_allclose(mine[lane] / scale, its / scale, atol=rtol, rtol=0)
    return joined


# In turn, lanes differ in nothing that a task knows: one with a state between batches is enough.
@pytest.mark.parametrize(
    ("name", "methods"),
    [("classification", ["vmap"]), ("language_modelling", ["vmap", "map"])],
    ids=["classification", "language_modelling"],
)
def test_a_lane_is_the_run_of_its_seed_and_values(tmp_path, name, methods):
    with jax.enable_x64(True):
        joined = assert_lanes_are_single_runs(
            tmp_path,
            wide(name),
            1e-9,
            singles=[0, 3],
            methods=methods,
            steps=45,
            # Rates fall on plateaus, each lane's on its own.
            cosine_anneal=False,
            lr_patience=1,
            reduce_factor=0.5,
            early_stop_patience=100,
        )
    assert len(set(np.asarray(joined[0].state.lr_scale))) > 1


def test_in_single_precision_an_update_differs_by_rounding(tmp_path):
    task = TASKS["classification"]
    assert_lanes_are_single_runs(tmp_path, task, 1e-5, singles=[1], methods=["vmap"], steps=1)


def test_lanes_of_l_bfgs(tmp_path):
    with jax.enable_x64(True):
        task, model = (
            wide("classification"),
            dataclasses.replace(SMALL, p_dropout=0.0, body_options={"norm": "layer"}),
        )
        more = {"optimizer": LBFGS(max_iter=3, history_size=4), "model": model}
        lanes = trained(
            task,
            tmp_path / "a",
            TrainConfig(n_seeds=2, max_steps=3, data_seed=1, lr_base=0.5),
            **more,
        )
        single = trained(
            task,
            tmp_path / "b",
            TrainConfig(jax_seed=1920, max_steps=3, data_seed=1, lr_base=0.5),
            **more,
        )
        for mine, its in zip(
            *(jax.tree.leaves(t.state.params) for t in (lanes, single)), strict=True
        ):
            np.testing.assert_allclose(mine[1], its, rtol=1e-9, atol=1e-12)


def fit(arguments, kill_after=None):
    config = experiment.resolved(parse(arguments)[1])

    class Dying(Trackers):
        lines = 0

        def log(self, step, metrics):
            if self.lines == kill_after:
                raise InterruptedError
            self.lines += 1
            super().log(step, metrics)

    with experiment.open_experiment(config) as opened:
        tracker = JsonLinesTracker(opened.run.metrics_file)
        try:
            summary = opened.trainer.fit(Dying(tracker))
        finally:
            tracker.close()
        return summary, read_jsonl(opened.run.metrics_file), opened.run


LANES = ["--n_seeds", "2", "--lanes", "lr_base=1e-3,1e-1", "--data_seed", "3"]


def test_lanes_killed_and_resumed_log_the_same(flags):
    common = [*flags, *LANES, "--checkpoint_every", "3", "--average_from", "1"]
    _, undisturbed, _ = fit([*common, "--name", "undisturbed"])
    killed = [*common, "--name", "killed"]
    for lines in (4, 4):
        with pytest.raises(InterruptedError):
            fit(killed, lines)
    assert fit(killed)[1] == undisturbed


def test_each_lane_is_logged_selected_and_loaded_by_itself(flags, capsys, tmp_path):
    summary, records, run = fit([*flags, *LANES, "--name", "four"])
    last = records[-1]
    each = [last[f"lane{lane}/val/accuracy"] for lane in range(4)]
    assert last["val/accuracy"] == pytest.approx(np.mean(each))
    assert last["val/accuracy/sd"] == pytest.approx(np.std(each, ddof=1))
    assert len(set(summary.best_step)) > 1, "lanes that are best at different epochs"
    assert run_train(["--name", "four", "--runs_dir", str(tmp_path), "--eval_only"]) == 0
    row = next(s for s in capsys.readouterr().out.splitlines() if "val/accuracy" in s)
    best = [found["val/accuracy"] for found in summary.best]
    listed = ", ".join(f"{value:.4f}" for value in best)
    assert f"{np.mean(best):.4f} ± {np.std(best, ddof=1):.4f}  ({listed})" in row
    for lane in (0, 3):
        assert load_model(run, lane).update == summary.best_step[lane]
    with pytest.raises(ValueError, match="lane must be from 0 to 3, got 4"):
        load_model(run, 4)


def test_a_lane_that_is_not_finite_ends_alone(flags, caplog):
    arguments = [*flags, "--lanes", "lr_base=1e-3,1e30", "--optimizer", "sgd", "--log_every", "1"]
    with caplog.at_level("WARNING", "lru.training.saved_run"):
        summary, records, _ = fit([*arguments, "--lr_min", "0"])
    assert any("is not finite (lane 1, seed=1919 lr_base=1e+30)" in m for m in caplog.messages)
    assert summary.steps == 15
    assert "lane0/val/loss" in records[-1]
    assert "lane1/val/loss" not in records[-1]
    assert np.isfinite(records[-1]["val/loss"])


def test_a_lane_without_an_evaluation_has_a_dash_in_the_table():
    rows = report_rows([{}, {"val/loss": 1.0}, {"val/loss": 3.0}])
    assert rows == {"val/loss": "2.0000 ± 1.4142  (-, 1.0000, 3.0000)"}


def test_a_lane_that_stops_early_keeps_its_state(tmp_path):
    train = TrainConfig(n_seeds=2, epochs=6, early_stop_patience=2, data_seed=0)
    trainer = trainer_of(TASKS["classification"], tmp_path, train)
    scripted = iter([(0.1, 0.1), (0.0, 0.2), (0.0, 0.3), (0.9, 0.2), (0.9, 0.1), (0.9, 0.0)])
    states = []

    def evaluate():
        states.append(jax.device_get(jax.tree.leaves(trainer.state.params)[0]))
        return [{"val/accuracy": value} for value in next(scripted)]

    trainer.evaluate = evaluate
    summary = trainer.fit(Trackers())
    trainer.close()
    assert summary.best_step == [3, 9]
    assert (summary.steps, summary.stopped_early) == (15, True)
    np.testing.assert_array_equal(states[2][0], states[4][0])
    assert (states[2][1] != states[4][1]).any()


def test_lanes_are_every_combination_with_every_seed():
    config = TrainConfig(jax_seed=5, n_seeds=2, lanes=("lr_base=0.1,1", "weight_decay=0,1"))
    found = [str(lane) for lane in lanes_of(config, SGD())]
    assert len(found) == 8
    assert found[3] == "seed=6 lr_base=0.1 weight_decay=1"
    assert lanes_of(config, SGD())[7].optimizer(SGD()).weight_decay == 1


@pytest.mark.parametrize(
    ("item", "optimizer", "message"),
    [
        ("lr_base", SGD(), "lanes must be OPTION=VALUE,VALUE with .*got 'lr_base'"),
        ("epochs=1,2", SGD(), "with an option of lr_base, lr_factor, weight_decay once, got"),
        ("weight_decay=1,2", LBFGS(), "with an option of lr_base once, got 'weight_decay=1,2'"),
        ("lr_base=a,b", SGD(), "lanes must have numbers as values, got 'lr_base=a,b'"),
        ("lr_base=-1", SGD(), "lr_base must be a number that is not negative, got -1.0"),
        ("weight_decay=-1", SGD(), "weight_decay must not be negative, got -1.0"),
    ],
)
def test_lanes_that_cannot_be_are_refused(item, optimizer, message):
    with pytest.raises(ValueError, match=message):
        lanes_of(TrainConfig(lanes=(item,)), optimizer)


def test_the_method_follows_from_shapes_and_platform_and_is_kept(flags, monkeypatch):
    batch = jnp.zeros((32, 40, 1))
    assert method_for(1, 10**9, batch, "cpu") == "single"
    assert method_for(8, 500, batch, "cpu") == "vmap"
    assert method_for(8, 9_000, batch, "cpu") == "map"
    assert method_for(8, 10**6, batch, "cuda") == "vmap"
    common = [*flags, *LANES, "--name", "one", "--checkpoint_every", "3"]
    with pytest.raises(InterruptedError):
        fit(common, 4)
    monkeypatch.setattr(lanes_module, "LARGEST_JOINED", 0)
    with experiment.open_experiment(experiment.resolved(parse(common)[1])) as opened:
        assert opened.trainer._programs.method == "vmap"
