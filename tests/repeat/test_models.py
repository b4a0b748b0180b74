"""Networks that repeat against numbers recorded from the published code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.models import VectorSum
from lru.tasks.metrics import merged
from lru.tasks.repeat import scored
from lru.training.optimizer import AdamW
from tests.repeat.cases import (
    batch,
    batch_of,
    case,
    compiled,
    exported,
    gradients,
    in_double,
    loaded,
    network,
    starting_with,
    task,
    valid,
)

pytestmark = pytest.mark.usefixtures("x64")


def mean_loss(task, model, batch, train=True):
    found = task.loss(model, batch, (), None, train=train)
    return found.loss.total / found.loss.weight


def check(given, model, vectors):
    """States, scores, loss and gradients of a network are the recorded ones.

    Args:
        given: the case.
        model: with the recorded weights.
        vectors: from the state of the network to [B, N].
    """
    arrays, rows, repeat = given.arrays, batch_of(given), task(given)
    symbols = repeat.prepare(rows.inputs)

    def losses(model):
        state = model.encode(symbols, lengths=rows.lengths)
        scores = model(symbols, lengths=rows.lengths)
        return mean_loss(repeat, model, rows), (vectors(state), scores)

    (loss, (h, scores)), found = gradients(losses, model)
    np.testing.assert_allclose(h, arrays["h"], rtol=0, atol=1e-12)
    real = valid(arrays["in"], given.lens)
    expected = arrays["logits"].swapaxes(0, 1)
    np.testing.assert_allclose(np.asarray(scores)[real], expected[real], rtol=0, atol=1e-12)
    np.testing.assert_allclose(loss, arrays["loss"], rtol=0, atol=1e-12)
    for key, gradient in starting_with("g_", arrays).items():
        own = found[key][tuple(map(slice, gradient.shape))]
        np.testing.assert_allclose(own, gradient, rtol=0, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", ["repeat/ar", "repeat/noinput", "repeat/emb"])
def test_network_is_the_recorded_one(name):
    given = case(name)
    check(given, network(given, starting_with("p_", given.arrays)), lambda state: state[0].h)


@pytest.mark.parametrize("name", ["repeat/ar", "repeat/noinput", "repeat/trained"])
def test_decoding_its_own_symbols_matches_exactly_where_the_true_ones_do(name):
    given = case(name)
    part = "a_" if name == "repeat/trained" else ""
    given.lens = given.arrays.get("a_len", given.arrays.get("in_len")).tolist()
    model = network(given, starting_with("p_", given.arrays))
    rows = batch(given.arrays[f"{part}in"], given.lens)
    symbols = task(given).prepare(rows.inputs)
    real = valid(given.arrays[f"{part}in"], given.lens)

    @compiled
    def answers(symbols, lengths):
        state = model.encode(symbols, lengths=lengths)
        free = model.generate(state, symbols.shape[1])
        return free, model(symbols, lengths=lengths).argmax(-1)

    free, forced = map(np.asarray, answers(symbols, rows.lengths))
    right = [((found == symbols) | ~real).all(axis=1).tolist() for found in (free, forced)]
    assert right[0] == right[1]
    if name == "repeat/trained":
        assert 0 < sum(right[0]) < len(right[0])
        assert right[0] == given.arrays["ok"][: len(right[0])].tolist()


def test_scores_count_rows_and_symbols():
    given = case("repeat/ar")
    said, out = (given.arrays[f"crafted_{k}"] for k in ("pred", "out"))
    lengths = given.arrays["crafted_len"]
    rows = batch(out, lengths)
    scores = jax.nn.one_hot(jnp.asarray(said).T, given.V)
    found = scored(scores, task(given).prepare(rows.inputs), rows, ())
    assert found.metrics["exact_match"].weight == len(lengths)
    assert found.metrics["exact_match"].result() == pytest.approx(given.arrays["crafted_acc"])
    assert found.metrics["token_accuracy"].weight == found.loss.weight == lengths.sum()
    # One symbol of the third quarter of rows is wrong, and all of the fourth.
    quarter = len(lengths) // 4
    wrong = quarter + lengths[3 * quarter :].sum()
    assert found.metrics["token_accuracy"].total == lengths.sum() - wrong


def test_evaluation_weighs_batches_by_their_symbols():
    given = case("repeat/trained")
    arrays = given.arrays
    model, sums = network(given, starting_with("p_", arrays)), None
    given.lens = arrays["a_len"].tolist()
    repeat = task(given)
    evaluated = compiled(lambda rows: repeat.loss(model, rows, (), None, train=False))
    for part in "ab":
        found = evaluated(batch(arrays[f"{part}_in"], arrays[f"{part}_len"]))
        np.testing.assert_allclose(found.loss.result(), arrays[f"{part}_loss"], rtol=1e-7)
        sums = found.sums if sums is None else merged(sums, found.sums)
    assert sums["exact_match"].result() == pytest.approx(float(arrays["val_acc"]))
    symbols = [arrays[f"{part}_len"].sum() for part in "ab"]
    expected = np.average([arrays["a_loss"], arrays["b_loss"]], weights=symbols)
    np.testing.assert_allclose(sums["loss"].result(), expected, rtol=1e-7)


def test_five_updates_are_the_recorded_ones():
    given = case("adamw/gru")
    arrays = given.arrays
    model = network(given, starting_with("p0_", arrays))
    optimizer = AdamW(lr_factor=1.0, weight_decay=0.1, decay_recurrent=True)
    rule = optimizer.build(lambda count: 1e-3)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    state = rule.init(params)

    @compiled
    def update(params, state, rows):
        loss, grads = jax.value_and_grad(
            lambda p: mean_loss(task(given), nnx.merge(graphdef, p, rest), rows)
        )(params)
        updates, state = rule.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state, loss

    losses = []
    for symbols, lengths in zip(arrays["ins"], arrays["lens"], strict=True):
        last = params
        params, state, loss = update(params, state, batch(symbols, lengths))
        losses.append(loss)
    np.testing.assert_allclose(losses, arrays["losses"], rtol=0, atol=1e-10)
    found = exported(nnx.merge(graphdef, last, rest))
    for key, value in starting_with("p5_", arrays).items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", ["vecsum/base", "vecsum/gamma"])
def test_vector_sum_is_the_recorded_one(name):
    given = case(name)
    model = in_double(VectorSum(given.V, width=given.N, ratio=given.gamma, rngs=nnx.Rngs(0)))
    check(given, loaded(model, starting_with("p_", given.arrays)), lambda state: state)
