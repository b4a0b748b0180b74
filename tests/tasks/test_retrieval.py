"""Pairs of documents: what is summed, what does not count, and that matching is learned."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lru.batches import Batches, DataConfig
from lru.dataloaders import Card, Pairs, Ragged
from lru.models import ModelConfig
from lru.tasks import TASKS
from lru.tasks.classification import ClassificationOptions

V, T = 6, 5
TINY = ModelConfig(n_layers=1, d_model=8, d_hidden=4, p_dropout=0.0)
CARD = Card(
    name="toy",
    version=1,
    kind="token_pairs",
    n_classes=2,
    vocab_size=V,
    targets="class",
    max_length=T,
)


def task(pooling="auto", **changes):
    config = dataclasses.replace(TINY, **changes)
    return TASKS["retrieval"](CARD, config, ClassificationOptions(pooling))


def pairs(n):
    """Documents that repeat one token; a pair matches if both repeat the same one."""
    random = np.random.default_rng(0)
    labels = random.integers(2, size=n).astype(np.int32)
    first = random.integers(1, V, n)
    second = np.where(labels, first, (first + random.integers(1, V - 1, n) - 1) % (V - 1) + 1)
    documents = []
    for tokens in (first, second):
        lengths = random.integers(1, T + 1, n)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        documents.append(Ragged(np.repeat(tokens, lengths).astype(np.uint8), offsets, labels))
    return Pairs(*documents)


def sums_of(task):
    graphdef, state = nnx.split(task.build_model(nnx.Rngs(0)))

    @jax.jit
    def sums(batch):
        loss, metrics, *_ = task.loss(nnx.merge(graphdef, state), batch, (), None, train=False)
        return jnp.stack([*loss, metrics["accuracy"].total])

    return lambda split, size: sum(map(sums, Batches(split, DataConfig(batch_size=size)).epoch()))


def test_any_batch_size_gives_the_same_sums():
    split, sums = pairs(7), sums_of(task(body_options={"norm": "layer"}))
    found = sums(split, 7)
    assert found[1] == 7
    np.testing.assert_allclose(sums(split, 4), found, rtol=1e-4)


def test_rows_without_weight_change_neither_statistics_nor_gradients():
    one, split = task(), pairs(3)
    graphdef, params, rest = nnx.split(one.build_model(nnx.Rngs(0)), nnx.Param, ...)

    @jax.jit
    def update(batch):
        def loss(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            found = one.loss(model, batch, (), jax.random.key(0), train=True)
            return found.loss.total, nnx.state(model)

        return jax.grad(loss, has_aux=True)(params)

    exact, filled = (
        update(next(Batches(split, DataConfig(batch_size=size, n_buckets=1)).epoch()))
        for size in (3, 5)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), exact, filled)


def test_learns_to_match_documents():
    one, split = task(), pairs(64)
    (batch,) = Batches(split, DataConfig(batch_size=64)).epoch()
    batch = jax.tree.map(jnp.asarray, batch)
    graphdef, params, rest = nnx.split(one.build_model(nnx.Rngs(0)), nnx.Param, ...)
    optimizer = optax.adam(0.02)

    @jax.jit
    def update(carry, _):
        params, state = carry

        def loss(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            loss, metrics, *_ = one.loss(model, batch, (), jax.random.key(0), train=True)
            return loss.total / loss.weight, metrics["accuracy"].total / loss.weight

        grads, accuracy = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state), accuracy

    start = (params, optimizer.init(params))
    accuracies = jax.jit(lambda start: jax.lax.scan(update, start, length=200)[1])(start)
    assert accuracies[0] < 0.75
    assert accuracies[-1] > 0.95


def test_data_and_pooling_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"pooling must be mean or last for toy.*got 'none'"):
        task(pooling="none")
    with pytest.raises(ValueError, match=r"must be token_pairs .*but that of toy is tokens"):
        TASKS["retrieval"](dataclasses.replace(CARD, kind="tokens"), TINY)
    with pytest.raises(ValueError, match=r"must be tokens or values .*but that of toy is token_p"):
        TASKS["classification"](CARD, TINY)
