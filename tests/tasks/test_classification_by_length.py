"""Accuracy by length: every label is counted once, at the length at which it is predicted."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lru.batches import Batch
from lru.dataloaders import Card
from lru.models import ModelConfig
from lru.tasks import Curves, Table
from lru.tasks.classification_by_length import ClassificationByLength

C, V = 3, 6


def task_of(targets, max_length):
    card = Card(
        name="toy",
        version=1,
        kind="tokens",
        n_classes=C,
        vocab_size=V,
        targets=targets,
        max_length=max_length,
    )
    config = ModelConfig("gru", n_layers=1, d_model=4, d_hidden=3, p_dropout=0.0)
    return ClassificationByLength(card, config)


def counted(task, labels):
    """What a batch counts by length, its last row being a filler, and its predictions."""
    rng = np.random.default_rng(0)
    lengths = np.array([5, 3, 5, 2, 0], np.int32)
    inputs = np.where(np.arange(5) < lengths[:, None], rng.integers(1, V, (5, 5)), 0)
    weights = np.array([1, 1, 1, 1, 0], np.float32)
    batch = jax.tree.map(jnp.asarray, Batch(inputs, labels, weights, lengths))
    model = task.build_model(nnx.Rngs(0))
    found = task.loss(model, batch, (), None, train=False).counts["by_length"]
    scores = task.scores(model, batch, None, train=False)
    assert not task.loss(model, batch, (), None, train=True).counts
    return np.asarray(found), np.asarray(scores.argmax(axis=-1))


def test_rows_are_counted_at_their_length():
    task = task_of("class", 5)
    assert task.pooling == "last"
    labels = np.array([0, 1, 2, 0, 0], np.int32)
    (right, total), said = counted(task, labels)
    assert total.tolist() == [0, 0, 1, 1, 0, 2]
    hit = said == labels
    assert right.tolist() == [0, 0, int(hit[3]), int(hit[1]), 0, int(hit[0]) + int(hit[2])]


def test_steps_are_counted_at_their_number():
    task = task_of("class_per_step", 200)
    labels = np.full((5, 5), -1, np.int32)
    labels[0], labels[1, 2], labels[4] = [0, 1, 2, 0, 1], 2, 0
    (right, total), said = counted(task, labels)
    # Four lengths of at most 200 in each of at most 64 ranges.
    assert total.tolist() == [3 + 1, 2] + [0] * 49
    hits = (said == labels) & (np.arange(5)[:, None] < 4)
    assert right[:2].tolist() == [hits[:, :3].sum(), hits[:, 3:].sum()]


def test_accuracy_is_shown():
    task = task_of("class", 5)
    counts = {"by_length": np.array([[0, 0, 1, 1, 0, 1], [0, 0, 1, 2, 0, 4]])}
    found = task.findings(nnx.Module(), {}, counts)
    table, curves = found["by_length"], found["accuracy_by_length"]
    assert isinstance(table, Table)
    assert isinstance(curves, Curves)
    # Whole numbers are shown as such.
    assert str(table.rows) == "[(2, 1, 1.0), (3, 2, 0.5), (5, 4, 0.25)]"
    assert np.asarray(curves.curves["accuracy"]).tolist() == [[2, 3, 5], [1.0, 0.5, 0.25]]
