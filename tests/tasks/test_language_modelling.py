import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.batches import DataConfig, Streams
from lru.dataloaders import Card, Prepared, Ragged
from lru.models import ModelConfig
from lru.tasks import Mean
from lru.tasks.language_modelling import LanguageModelling, LanguageModellingOptions

V, TOTAL = 7, 61
CARD = Card(name="text", version=1, kind="text", n_classes=V, targets="tokens", max_length=TOTAL)
CONFIG = ModelConfig("qrnn", n_layers=1, d_model=4, d_hidden=4, p_dropout=0.0)
VALUES = np.random.default_rng(0).integers(V, size=TOTAL).astype(np.uint8)
TEXT = Ragged(VALUES, np.array([0, TOTAL]), np.array([-1], np.int32))


def built(**options):
    task = LanguageModelling(CARD, CONFIG, LanguageModellingOptions(**options))
    return task, task.build_model(nnx.Rngs(0))


def batches(rows: int, bptt: int):
    return [jax.tree.map(jnp.asarray, b) for b in Streams(TEXT, rows, bptt, boundary=0).epoch()]


@partial(jax.jit, static_argnums=0, static_argnames="train")
def loss_of(task, model, batch, carry, key=None, *, train=False):
    return task.loss(model, batch, carry, key, train=train)


def nll_of(task, model, batch, carry=None):
    """Sum over a batch in evaluation."""
    carry = task.initial_carry(model, len(batch.inputs)) if carry is None else carry
    return loss_of(task, model, batch, carry).loss.total


def evaluate(task, model, rows, bptt):
    """Sum of the losses, sum of the weights."""
    carry, total, weights = task.initial_carry(model, rows), 0.0, 0.0
    for batch in batches(rows, bptt):
        loss, metrics, carry, _ = loss_of(task, model, batch, carry)
        assert metrics == {"nll": loss}
        total, weights = total + float(loss.total), weights + float(loss.weight)
    return total, weights


@pytest.mark.parametrize("bptt", [61, 7, 1])
def test_one_stream_gives_the_loss_of_the_whole_text_whatever_the_chunks(bptt):
    task, model = built()
    inputs = jnp.concatenate([jnp.zeros(1, int), VALUES[:-1].astype(int)])
    scores, _ = jax.jit(lambda inputs: model(inputs))(inputs[None])
    expected = -scores[0, jnp.arange(TOTAL), VALUES].sum()
    total, weights = evaluate(task, model, 1, bptt)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert weights == TOTAL


def test_all_tokens_count_with_uneven_streams():
    task, model = built()
    assert evaluate(task, model, 8, 5)[1] == TOTAL


def test_a_first_batch_forgets_the_carry():
    task, model = built()
    batch = batches(2, 10)[0]
    carry = jax.tree.map(jnp.ones_like, task.initial_carry(model, 2))
    fresh = nll_of(task, model, batch, carry)
    np.testing.assert_allclose(fresh, nll_of(task, model, batch))
    later = nll_of(task, model, batch._replace(first=jnp.array(False)), carry)
    assert abs(float(later - fresh)) > 1e-3


def test_what_evaluation_knows_of_each_token():
    task, model = built()
    batch = batches(2, 10)[0]
    found = task.evaluated(model, batch, task.initial_carry(model, 2))
    total = (found.nll * batch.weights).sum()
    np.testing.assert_allclose(total, nll_of(task, model, batch), rtol=1e-6)
    assert found.hidden.shape == (2, 10, 4)
    predicted = model.head.nll(found.hidden, batch.targets.astype(int))
    np.testing.assert_allclose(predicted, found.nll, rtol=1e-6)


def test_penalties_are_means_over_valid_steps_in_training_and_not_in_the_metric():
    task, model = built(ar=2.0, tar=3.0)
    batch = batches(1, 70)[0]
    padded = batches(1, 50)[1]
    assert padded.lengths.tolist() == [11]
    for one, valid in ((batch, 61), (padded, 11)):
        state, key = task.initial_carry(model, 1), jax.random.key(0)
        loss, metrics, *_ = loss_of(task, model, one, state, key, train=True)
        features = jax.jit(lambda ids, state: model.features(ids, state)[0].raw)
        h = features(one.inputs.astype(int), state)[0, :valid]
        expected = 2 * (h**2).mean() + 3 * (jnp.diff(h, axis=0) ** 2).mean()
        penalty = (loss.total - metrics["nll"].total) / loss.weight
        np.testing.assert_allclose(penalty, expected, rtol=1e-4)
        evaluated = loss_of(task, model, one, state, key)
        assert evaluated.metrics["nll"] == evaluated.loss


def test_perplexity_and_bits():
    task, _ = built()
    found = task.report({"nll": Mean(5 * math.log(8), 5.0)})
    expected = {"nll": math.log(8), "perplexity": 8.0, "bits": 3.0, "tokens": 5.0}
    assert found == pytest.approx(expected)
    assert math.isfinite(task.report({"nll": Mean(1e6, 1.0)})["perplexity"])


def test_training_and_evaluation_have_streams_of_their_own():
    task, _ = built(variable_bptt=True, bptt=10, eval_batch_size=2)
    data, config = Prepared(CARD, {"train": TEXT, "val": TEXT}), DataConfig(batch_size=3)
    sources = task.sources(data, config, seed=0, on_device=None)
    train, val = (next(sources[name].epoch()).batch for name in ("train", "val"))
    assert (sources["train"].rows, sources["val"].rows) == (3, 2)
    assert (train.inputs.shape[0], val.inputs.shape) == (3, (2, 10))
    assert train.rate != 1
    assert val.rate == 1
    with pytest.raises(ValueError, match=r"on_device must be False for text.* got True"):
        task.sources(data, config, seed=0, on_device=True)


def test_other_data_is_refused():
    with pytest.raises(ValueError, match="must be text, but those of text are tokens"):
        LanguageModelling(dataclasses.replace(CARD, kind="tokens"), CONFIG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tar": -1.0}, "tar must not be negative, got -1.0"),
        ({"bptt": 0}, "bptt must be at least 1, got 0"),
        ({"eval_batch_size": 0}, "eval_batch_size must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LanguageModellingOptions(**options)
