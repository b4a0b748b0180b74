"""Squared errors beside a loop over targets: what counts, in which units."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.batches import Batches, DataConfig
from lru.dataloaders import Card, Ragged
from lru.models import ModelConfig
from lru.tasks import TASKS

K, N, T = 2, 7, 5
MEAN, STD = [3.0, -1.0], [2.0, 0.0]
CONFIG = ModelConfig(
    n_layers=1, d_model=4, d_hidden=3, body_options={"norm": "layer"}, p_dropout=0.0
)


def built(per_step):
    card = Card(
        name="toy",
        version=1,
        kind="values",
        n_features=1,
        n_classes=0,
        targets="values_per_step" if per_step else "values",
        n_targets=K,
        target_mean=MEAN,
        target_std=STD,
        max_length=T,
    )
    task = TASKS["regression"](card, CONFIG)
    return task, task.build_model(nnx.Rngs(0))


def examples(per_step):
    """Rows of 1 to T steps; one target is not there, one in part."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, T + 1, N)
    lengths[0] = T
    targets = rng.normal(size=(N, T, K) if per_step else (N, K)).astype(np.float32)
    targets[0], targets[1, ..., 0] = np.nan, np.nan
    if per_step:
        for row, length in enumerate(lengths):
            targets[row, length:] = np.nan
    values = rng.normal(size=(lengths.sum(), 1)).astype(np.float32)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]), targets)


def written_out(model, split):
    """Loss, number of values, and squared and absolute errors, row by row and step by step."""
    loss = count = squares = absolutes = 0.0
    evaluate = jax.jit(lambda inputs: model(inputs)[0])
    for row, targets in enumerate(split.labels):
        steps = int(split.lengths[row])
        outputs = np.asarray(evaluate(split.padded([row], steps))).reshape(-1, K)
        for output, target in zip(outputs, targets.reshape(-1, K), strict=False):
            for k in np.flatnonzero(~np.isnan(target)):
                count += 1
                scale = STD[k] or 1.0
                error = output[k] - (target[k] - MEAN[k]) / scale
                loss += error**2
                squares += (scale * error) ** 2
                absolutes += abs(scale * error)
    return [loss, count, squares, count, absolutes, count]


def sums(outcome):
    return np.array([*outcome.loss, *outcome.metrics["mse"], *outcome.metrics["mae"]])


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("batch_size", [4, 7])
def test_loss_and_metrics_beside_a_loop(per_step, batch_size):
    (task, model), split = built(per_step), examples(per_step)
    expected = written_out(model, split)
    assert 0 < expected[1] < K * (split.lengths.sum() if per_step else N)
    batches = Batches(split, DataConfig(batch_size=batch_size, n_buckets=2)).epoch()
    loss = jax.jit(lambda batch: task.loss(model, batch, (), None, train=False))
    found = [loss(batch) for batch in batches]
    np.testing.assert_allclose(sum(map(sums, found)), expected, rtol=1e-5)
    report = task.report(found[0].metrics | {"loss": found[0].loss})
    assert report.keys() == {"loss", "mse", "mae"}


@pytest.mark.parametrize("per_step", [False, True])
def test_padding_counts_neither_in_the_loss_nor_in_gradients_whatever_the_outputs(per_step):
    (task, model), split = built(per_step), examples(per_step)
    (batch,) = Batches(split, DataConfig(batch_size=8, n_buckets=1)).epoch()
    batch = jax.tree.map(jnp.asarray, batch)
    rows = batch.weights.reshape(-1, *[1] * (batch.labels.ndim - 1)) > 0
    given = ~np.isnan(batch.labels) & rows
    outputs = jax.jit(lambda batch: task.scores(model, batch, None, train=False))(batch)

    def loss(outputs):
        task.scores = lambda *_, **__: outputs
        outcome = task.loss(model, batch, (), None, train=False)
        return outcome.loss.total, outcome

    (_, expected), gradient = jax.value_and_grad(loss, has_aux=True)(outputs)
    broken = jnp.where(given, outputs, jnp.nan)
    (_, found), same = jax.value_and_grad(loss, has_aux=True)(broken)
    np.testing.assert_array_equal(sums(found), sums(expected))
    np.testing.assert_array_equal(same, gradient)
    assert not gradient[~given].any()
    assert gradient[given].all()


def test_classes_are_refused():
    task, _ = built(per_step=False)
    card = dataclasses.replace(task.card, targets="class", n_classes=2)
    with pytest.raises(ValueError, match=r"must be values or values_per_step .*of toy is class"):
        TASKS["regression"](card, CONFIG)
