"""Metrics over batches: each with its own weight, or the least and the greatest."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.dataloaders import Card
from lru.models import ModelConfig
from lru.tasks import Maximum, Mean, Minimum, Outcome, Task
from lru.tasks.base import no_metrics
from lru.tasks.classification import Classification
from lru.tasks.metrics import merged
from lru.training.update import Weights, make_functions, start_evaluation

BATCHES = np.random.default_rng(0).normal(1, size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "one", "other", "result"),
    [
        (Mean, (6.0, 2.0), (3.0, 4.0), 1.5),
        (Mean, (0.5, 0.125), (0.25, 0.125), 3.0),
        (Minimum, (2.0,), (-1.0,), -1.0),
        (Maximum, (2.0,), (-1.0,), 2.0),
    ],
)
def test_merged_metrics_are_those_of_both(kind, one, other, result):
    left, right = (kind(*map(jnp.float32, parts)) for parts in (one, other))
    for both in (left.merge(right), right.merge(left), kind.empty().merge(left).merge(right)):
        assert isinstance(both, kind)
        assert both.result() == result
    np.testing.assert_array_equal(kind.empty().merge(left), left)


def test_results_of_nothing():
    empty = [kind.empty().result() for kind in (Mean, Minimum, Maximum)]
    assert empty == [0, np.inf, -np.inf]


def test_sums_keep_their_type_where_a_batch_has_half_of_it():
    half = Mean(jnp.bfloat16(0.5), jnp.bfloat16(1))
    found = merged({"loss": Mean(jnp.float32(4096), jnp.float32(1))}, {"loss": half})["loss"]
    assert {part.dtype.name for part in found} == {"float32"}
    assert found == (4096.5, 2)


@pytest.mark.parametrize("batch", [{}, {"least": Maximum(1.0)}, {"more": Minimum(1.0)}])
def test_metrics_that_are_not_declared_are_refused(batch):
    with pytest.raises(ValueError, match=r"those that the task declares, least \(Minimum\); got"):
        merged({"least": Minimum(1.0)}, batch)


class Statistics(Task):
    """Mean of all values, mean of the positive ones, and the least, times a parameter."""

    metrics = {"positive": Mean, "least": Minimum}  # noqa: RUF012

    def build_model(self, rngs):
        return nnx.Linear(1, 1, rngs=rngs)

    def loss(self, model, batch, carry, key, *, train):
        positive = batch > 0
        found = {
            "positive": Mean(jnp.sum(batch * positive), jnp.sum(positive)),
            "least": Minimum(batch.min()),
        }
        return Outcome(Mean(batch.sum(), jnp.float32(batch.size)), found, carry)


def test_a_task_has_means_of_different_weights_and_a_minimum():
    card = Card(name="toy", version=1, kind="values", n_classes=0, targets="values", max_length=1)
    task = Statistics(card, ModelConfig())
    model = task.build_model(nnx.Rngs(0))
    graphdef, params, stats = nnx.split(model, nnx.Param, ...)
    functions = make_functions(task, graphdef, lambda values: pytest.fail("nothing is trained"))
    done = start_evaluation(task, model, 4)
    for batch in BATCHES:
        done = jax.jit(functions.evaluate)(
            done, Weights(params, stats, jnp.uint32(0)), jnp.array(batch)
        )
    assert done.sums.keys() == no_metrics(task).keys()
    expected = {
        "loss": BATCHES.mean(),
        "positive": BATCHES[BATCHES > 0].mean(),
        "least": BATCHES.min(),
    }
    assert task.report(done.sums) == pytest.approx(expected, rel=1e-6)


def test_options_of_a_task_extend_those_of_its_base():
    @dataclass(frozen=True)
    class Alone:
        smoothing: float = 0.1

    with pytest.raises(TypeError, match=r"Smoothed.Options must .* Alone\(Classification.Op"):

        class Smoothed(Classification):
            Options = Alone
