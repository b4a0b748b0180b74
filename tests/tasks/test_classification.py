"""Sums over examples: what counts, what does not, and what enters the network."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

from lru.batches import Batch, Batches, DataConfig
from lru.dataloaders import Card, Dense, Ragged
from lru.models import ModelConfig
from lru.tasks import TASKS
from lru.tasks.classification import ClassificationOptions

C, V = 3, 6
TINY = ModelConfig(n_layers=1, d_model=4, d_hidden=3, p_dropout=0.0)


def card(**facts) -> Card:
    defaults = dict(
        name="toy",
        version=1,
        kind="tokens",
        n_classes=C,
        vocab_size=V,
        targets="class",
        max_length=5,
    )
    return Card(**(defaults | facts))


def values_card(**facts) -> Card:
    return card(kind="values", vocab_size=None, n_features=1, **facts)


def task(facts=None, pooling="auto", **changes):
    config = dataclasses.replace(TINY, **changes)
    return TASKS["classification"](facts or card(), config, ClassificationOptions(pooling))


@pytest.fixture(scope="module")
def by_sequence():
    return task(body_options={"norm": "layer"})


@pytest.fixture(scope="module")
def by_step():
    return task(card(targets="class_per_step"), body_options={"norm": "layer"})


@pytest.fixture(scope="module")
def evaluate():
    """Loss, weight and accuracy sums of a batch, compiled once for each task and shape."""

    def sums(task, batch):
        if task not in compiled:
            graphdef, state = nnx.split(task.build_model(nnx.Rngs(0)))
            compiled[task] = jax.jit(
                lambda batch: task.loss(nnx.merge(graphdef, state), batch, (), None, train=False)
            )
        loss, metrics, carry, counts = compiled[task](jax.tree.map(jnp.asarray, batch))
        assert metrics.keys() == task.metrics.keys()
        assert metrics["accuracy"].weight == loss.weight
        assert carry == ()
        # Those on the diagonal are right.
        assert np.trace(counts["confusion"]) == metrics["accuracy"].total
        assert counts["confusion"].sum() == loss.weight
        return np.array([*loss, metrics["accuracy"].total])

    compiled = {}
    return sums


def split_of(n, per_step=False, seed=0):
    rng = np.random.default_rng(seed)
    steps = 5
    labels = rng.integers(C, size=(n, steps) if per_step else n).astype(np.int32)
    values = rng.integers(1, V, n * steps).astype(np.uint8)
    return Ragged(values, steps * np.arange(n + 1), labels)


def written_out(task, split):
    """Loss and accuracy of each label, row by row and without batches."""
    model = task.build_model(nnx.Rngs(0))
    inputs = jnp.asarray(split.padded(range(len(split)), 5), jnp.int32)
    scores = np.asarray(nnx.jit(lambda m, x: m(x)[0])(model, inputs), np.float64)
    log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    loss = -np.take_along_axis(log_p, np.maximum(split.labels, 0)[..., None], -1)[..., 0]
    return loss, scores.argmax(-1) == split.labels


def test_means_are_over_examples_and_not_over_batches(by_sequence, evaluate):
    split = split_of(7)
    loss, correct = written_out(by_sequence, split)
    batches = Batches(split, DataConfig(batch_size=4))
    per_batch = [evaluate(by_sequence, batch) for batch in batches.epoch()]
    total = sum(per_batch)
    np.testing.assert_allclose(total, [loss.sum(), 7, correct.sum()], rtol=1e-4)
    mean_of_means = np.mean([sums[0] / sums[1] for sums in per_batch])
    assert abs(mean_of_means - loss.mean()) > 1e-3


def test_any_batch_size_gives_the_same_sums(by_sequence, evaluate):
    split = split_of(7)
    totals = [
        sum(evaluate(by_sequence, b) for b in Batches(split, DataConfig(batch_size=n)).epoch())
        for n in (4, 7)
    ]
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-4)


def test_rows_without_weight_do_not_count_whatever_they_hold(by_sequence, evaluate):
    batch = next(Batches(split_of(2), DataConfig(batch_size=4)).epoch())
    assert batch.weights.tolist() == [1, 1, 0, 0]
    expected = evaluate(by_sequence, batch)
    batch.inputs[2:], batch.labels[2:] = 3, 2
    np.testing.assert_allclose(evaluate(by_sequence, batch), expected, rtol=1e-6)


def test_scores_that_are_not_finite_are_not_correct(by_step):
    batch = next(Batches(split_of(2, per_step=True), DataConfig(batch_size=2)).epoch())
    graphdef, state = nnx.split(by_step.build_model(nnx.Rngs(0)))
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state)
    batch.labels[:] = 0
    batch = jax.tree.map(jnp.asarray, batch)
    found = by_step.loss(nnx.merge(graphdef, broken), batch, (), None, train=False)
    assert found.metrics["accuracy"].total == 0


def test_steps_without_label_do_not_count(by_step, evaluate):
    split = split_of(3, per_step=True)
    split.labels[:, :2] = -1
    loss, correct = written_out(by_step, split)
    labelled = split.labels >= 0
    assert labelled.sum() == 9
    found = evaluate(by_step, next(Batches(split, DataConfig(batch_size=3)).epoch()))
    np.testing.assert_allclose(found, [loss[labelled].sum(), 9, correct[labelled].sum()], rtol=1e-4)


@pytest.mark.parametrize("filler_label", [0, -1])
def test_rows_that_fill_up_a_batch_of_steps_do_not_count(by_step, evaluate, filler_label):
    split = split_of(2, per_step=True)
    loss, correct = written_out(by_step, split)
    batch = next(Batches(split, DataConfig(batch_size=3)).epoch())
    batch.labels[2] = filler_label
    np.testing.assert_allclose(evaluate(by_step, batch), [loss.sum(), 10, correct.sum()], rtol=1e-4)


def test_gradients_ignore_rows_without_weight():
    one = task()
    split = split_of(2)
    grads = []
    for size in (2, 4):
        batch = jax.tree.map(jnp.asarray, next(Batches(split, DataConfig(batch_size=size)).epoch()))
        graphdef, params, rest = nnx.split(one.build_model(nnx.Rngs(0)), nnx.Param, ...)

        @jax.jit
        @jax.grad
        def gradient(params, rest, batch, graphdef=graphdef):
            model = nnx.merge(graphdef, params, rest, copy=True)
            return one.loss(model, batch, (), jax.random.key(0), train=True).loss.total

        grads.append(gradient(params, rest, batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *grads)


def test_training_updates_statistics_and_evaluation_does_not():
    one = task()
    model = one.build_model(nnx.Rngs(0))
    batch = jax.tree.map(jnp.asarray, next(Batches(split_of(3), DataConfig(batch_size=3)).epoch()))

    def mean():
        return np.array(model.encoder.blocks[0].norm.mean[...])

    one.loss(model, batch, (), None, train=False)
    assert not mean().any()
    one.loss(model, batch, (), jax.random.key(0), train=True)
    assert mean().all()


@pytest.mark.parametrize(
    ("pooling", "targets", "resolved"),
    [
        ("auto", "class", "mean"),
        ("last", "class", "last"),
        ("auto", "class_per_step", "none"),
        ("none", "class_per_step", "none"),
    ],
)
def test_pooling_fits_the_labels(pooling, targets, resolved):
    model = task(card(targets=targets), pooling=pooling).build_model(nnx.Rngs(0))
    assert model.pooling == resolved


@pytest.mark.parametrize(
    ("pooling", "targets", "wanted"),
    [
        ("none", "class", "mean or last"),
        ("mean", "class_per_step", "none"),
        ("last", "class_per_step", "none"),
    ],
)
def test_pooling_that_does_not_fit_is_refused(pooling, targets, wanted):
    with pytest.raises(ValueError, match=f"pooling must be {wanted} for toy.*got '{pooling}'"):
        task(card(targets=targets), pooling=pooling)


def test_targets_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match=r"must be class or class_per_step .*but that of toy is"):
        task(card(targets="values"))


def test_an_unknown_pooling_is_refused(monkeypatch):
    # The runtime types of the tests would refuse unknown names first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="pooling must be auto, mean, last or none, got 'max'"):
        ClassificationOptions("max")


def test_results_are_read_against_the_share_of_the_most_frequent_class():
    figures = dict(examples=4, min_length=1, mean_length=2.0, max_length=3)
    counts = {"train": [4, 0, 0], "val": [1, 2, 1], "test": [3, 1, 0]}
    splits = {name: {**figures, "class_counts": found} for name, found in counts.items()}
    assert task(card(splits=splits)).context() == {
        "val majority class": "0.5000",
        "test majority class": "0.7500",
    }


def test_bytes_are_scaled_and_normalised_by_the_card():
    one = task(values_card(mean=[0.5], std=[0.25]))
    inputs = one.prepare(jnp.array([0, 51, 255], jnp.uint8)[None, :, None])
    np.testing.assert_allclose(inputs[0, :, 0], [-2, -1.2, 2], rtol=1e-5)
    floats = one.prepare(jnp.array([0.0, 1.0])[None, :, None])
    np.testing.assert_allclose(floats[0, :, 0], [-2, 2])


def test_a_feature_that_never_changes_stays_finite():
    one = task(values_card(mean=[0.5], std=[0.0]))
    assert np.isfinite(one.prepare(jnp.full((1, 2, 1), 0.5))).all()


@pytest.mark.parametrize("one_hot", [True, False])
@pytest.mark.parametrize(
    ("name", "kind"), [("classification", "tokens"), ("retrieval", "token_pairs")]
)
def test_tokens_are_read_as_one_hot_vectors_if_asked(name, kind, one_hot):
    config, options = dataclasses.replace(TINY, d_model=V), ClassificationOptions(one_hot=one_hot)
    one = TASKS[name](card(kind=kind), config, options)
    params = nnx.state(one.build_model(nnx.Rngs(0)), nnx.Param)
    assert ("encode" in params) == (not one_hot)


def test_tokens_stay_integers_and_values_are_read():
    assert task().prepare(jnp.ones((1, 2), jnp.uint8)).dtype == jnp.int32
    one = task(values_card(mean=[0.0], std=[1.0]))
    split = Dense(np.ones((2, 5, 1), np.float32), np.zeros(2, np.int32))
    batch = jax.tree.map(jnp.asarray, next(Batches(split, DataConfig(batch_size=2)).epoch()))
    assert isinstance(batch, Batch)
    loss = one.loss(one.build_model(nnx.Rngs(0)), batch, (), None, train=False).loss
    assert np.isfinite(loss.total)
    assert loss.weight == 2
