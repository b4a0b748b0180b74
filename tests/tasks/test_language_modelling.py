import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.dataloaders import Card, Ragged
from lru.dataloading import DataConfig
from lru.models import ModelConfig
from lru.streams import Streams
from lru.tasks import TASKS, Carries, Derives, Predicts, Task
from lru.tasks.language_modelling import LanguageModelling

V, TOTAL = 7, 61
CARD = Card(name="text", version=1, kind="text", n_classes=V, targets="tokens", max_length=TOTAL)
CONFIG = ModelConfig("qrnn", n_layers=1, d_model=4, d_hidden=4, p_dropout=0.0)
VALUES = np.random.default_rng(0).integers(V, size=TOTAL).astype(np.uint8)
TEXT = Ragged(VALUES, np.array([0, TOTAL]), np.array([-1], np.int32))


def built(**changes):
    task = LanguageModelling(CARD, dataclasses.replace(CONFIG, **changes))
    return task, task.build_model(nnx.Rngs(0))


def batches(rows: int, bptt: int):
    config = DataConfig(eval_batch_size=rows, bptt=bptt)
    return [jax.tree.map(jnp.asarray, b) for b in Streams(TEXT, config, 0).epoch()]


def evaluate(task, model, rows, bptt):
    """Sum of the losses, sum of the weights."""
    carry, total, weights = task.initial_carry(model, rows), 0.0, 0.0
    for batch in batches(rows, bptt):
        loss, weight, sums, carry = task.continued(model, batch, carry, None)
        assert sums["nll"] == loss
        total, weights = total + float(loss), weights + float(weight)
    return total, weights


def test_it_is_a_task_that_goes_on_and_answers_to_inputs():
    task, _ = built()
    assert TASKS["language_modelling"] is LanguageModelling
    for contract in (Task, Carries, Derives, Predicts):
        assert isinstance(task, contract)


@pytest.mark.parametrize("bptt", [61, 7, 1])
def test_one_stream_gives_the_loss_of_the_whole_text_whatever_the_chunks(bptt):
    task, model = built()
    inputs = jnp.concatenate([jnp.zeros(1, int), VALUES[:-1].astype(int)])
    scores, _ = model(inputs[None])
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
    fresh, *_ = task.continued(model, batch, carry, None)
    np.testing.assert_allclose(fresh, task.loss_and_metrics(model, batch, None)[0])
    later, *_ = task.continued(model, batch._replace(first=jnp.array(False)), carry, None)
    assert abs(float(later - fresh)) > 1e-3


def test_what_evaluation_knows_of_each_token():
    task, model = built()
    batch = batches(2, 10)[0]
    found = task.evaluated(model, batch, task.initial_carry(model, 2))
    np.testing.assert_allclose(
        (found.nll * batch.weights).sum(), task.loss_and_metrics(model, batch, None)[0], rtol=1e-6
    )
    assert found.hidden.shape == (2, 10, 4)
    predicted = model.head.nll(found.hidden, batch.targets.astype(int))
    np.testing.assert_allclose(predicted, found.nll, rtol=1e-6)


def test_penalties_are_means_over_valid_steps_in_training_and_not_in_the_metric():
    task, model = built(ar=2.0, tar=3.0)
    batch = batches(1, 70)[0]
    padded = batches(1, 50)[1]
    assert padded.lengths.tolist() == [11]
    for one, valid in ((batch, 61), (padded, 11)):
        loss, weight, sums, _ = task.continued(
            model, one, task.initial_carry(model, 1), jax.random.key(0)
        )
        state = task.initial_carry(model, 1)
        h = model.features(one.inputs.astype(int), state)[0].raw[0, :valid]
        expected = 2 * (h**2).mean() + 3 * (jnp.diff(h, axis=0) ** 2).mean()
        np.testing.assert_allclose((loss - sums["nll"]) / weight, expected, rtol=1e-4)
        evaluated = task.loss_and_metrics(model, one, None)
        assert evaluated[0] == evaluated[2]["nll"]


def test_perplexity_and_bits():
    task, _ = built()
    derived = task.derived({"nll": math.log(8)}, 5.0)
    assert derived == pytest.approx({"perplexity": 8.0, "bits": 3.0, "tokens": 5.0})
    assert math.isfinite(task.derived({"nll": 1e6}, 1.0)["perplexity"])


def test_other_data_is_refused():
    with pytest.raises(ValueError, match="must be text, but those of text are tokens"):
        LanguageModelling(dataclasses.replace(CARD, kind="tokens"), CONFIG)


def test_pooling_is_refused():
    with pytest.raises(ValueError, match=r"pooling must be none for text, .*got 'last'"):
        built(pooling="last")
