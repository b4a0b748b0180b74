"""Perplexity of the model of a run, alone and with a continuous cache (arXiv 1612.04426)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lru.batches import StreamFeed, TextBatch
from lru.models.cache_pointer import NO_WORD, Cache, CachePointer
from lru.tasks import Mean
from lru.text.loading import TrainedText


class _Progress(NamedTuple):
    """State of an evaluation: that of the model, its cache, and sums over the tokens so far."""

    carry: list
    cache: Cache
    weight: jax.Array
    alone: jax.Array
    mixed: jax.Array


def with_pointer(loaded: TrainedText, pointer: CachePointer, split: str) -> dict[str, float]:
    """Metrics of one split, of the model alone and of its mixture with the cache.

    The text is read in as many streams as evaluations of the run do, each with a cache of its own.

    Args:
        loaded: the model.
        pointer: the mixture.
        split: train, val or test.

    Returns:
        `split/nll` [nats], `split/perplexity`, `split/bits` and `split/tokens` of the model alone,
        and the same of the mixture as `split/pointer/nll` and so on.
    """
    model, task, data = loaded.model, loaded.task, loaded.trained.data
    streams = task.streams(data.splits[split], loaded.trained.config.data)
    graphdef, weights = nnx.split(model)

    @jax.jit
    def advance(weights: nnx.State, before: _Progress, batch: TextBatch) -> _Progress:
        found = task.evaluated(nnx.merge(graphdef, weights), batch, before.carry)
        words = jnp.where(batch.weights > 0, task.prepare(batch.targets), NO_WORD)
        mixed, cache = pointer(found.hidden, words, -found.nll, before.cache)
        return _Progress(
            found.carry,
            cache,
            before.weight + jnp.sum(batch.weights),
            before.alone + jnp.sum(found.nll * batch.weights),
            before.mixed - jnp.sum(mixed * batch.weights),
        )

    zero = jnp.float32(0)
    d_model = model.embedding.shape[1]
    done = _Progress(
        task.initial_carry(model, streams.rows), pointer.empty(streams.rows, d_model), *[zero] * 3
    )
    for fed in StreamFeed(streams).epoch():
        done = advance(weights, done, fed.batch)
    metrics = {}
    for name, total in ((split, done.alone), (f"{split}/pointer", done.mixed)):
        report = task.report({"nll": Mean(total, done.weight)})
        metrics |= {f"{name}/{metric}": value for metric, value in report.items()}
    return metrics
