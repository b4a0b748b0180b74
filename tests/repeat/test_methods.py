"""Interventions and probes against numbers recorded from the published code, in float64."""

import re
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lru.analysis.methods import Opened
from lru.analysis.methods.linear import (
    Exchange,
    LinearIntervention,
    LinearInterventionOptions,
    replaced_in_windows,
    swapped,
    windows_with,
)
from lru.analysis.methods.onion import OnionIntervention, OnionInterventionOptions, Replaced
from lru.analysis.methods.probes import (
    GRUProbe,
    GRUProbeOptions,
    LinearProbe,
    MLPProbe,
    OnionProbe,
)
from lru.analysis.methods.repetition import encoded
from lru.tasks.repeat import scored
from lru.training.optimizer import AdamW
from tests.repeat.cases import (
    analysis,
    batch,
    batch_of,
    case,
    compiled,
    exported,
    gradients,
    in_double,
    loaded,
    recorded,
    starting_with,
    task,
    valid,
)

pytestmark = pytest.mark.usefixtures("x64")


class Built(NamedTuple):
    """An analysis of a case, its module with the recorded weights, and the batch."""

    task: object
    model: object
    rows: object
    symbols: object


def built(given, kind, options=None, prefix="p_", rows=None):
    task = analysis(given, kind, options)
    model = loaded(in_double(task.build_model(nnx.Rngs(0))), starting_with(prefix, given.arrays))
    rows = batch_of(given) if rows is None else rows
    return Built(task, model, rows, task.prepare(rows.inputs))


def close(found, expected, tolerance=1e-12, name=""):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)


def check(given, found, inside, restored, pull=lambda model: 0.0):
    """What is inside, scores, loss and gradients are the recorded ones.

    Args:
        given: the case.
        found: the analysis.
        inside: arrays of a model by their recorded names.
        restored: scores of a model.
        pull: regulariser of a model.
    """
    arrays = given.arrays

    def losses(model):
        scores = restored(model)
        outcome = scored(scores, found.symbols, found.rows, ())
        loss = outcome.loss.total / outcome.loss.weight
        return loss + pull(model), ({**inside(model), "loss": loss}, scores)

    (total, (named, scores)), grads = gradients(losses, found.model)
    close(total, arrays.get("total", arrays["loss"]), name="total")
    for name, value in named.items():
        close(value, arrays[name], name=name)
    real = valid(arrays["in"], given.lens)
    scores = np.asarray(scores)
    close(scores[real], arrays["logits"].swapaxes(0, 1)[real], name="logits")
    expected = starting_with("g_", arrays)
    assert expected
    for name, gradient in expected.items():
        close(grads[name], gradient, 1e-10, name)
    right = (scores.argmax(-1) == np.asarray(found.symbols)) | ~real
    assert right.all(axis=1).tolist() == arrays["ok"].tolist()


@pytest.mark.parametrize("name", ["onion/scale", "onion/noscale", "onion/init"])
def test_onion_intervention_is_the_recorded_one(name):
    given = case(name)
    arrays = given.arrays
    found = built(given, OnionIntervention, OnionInterventionOptions(no_scale=not given.scale))
    replaced = Replaced(jnp.asarray(arrays["pos"]), jnp.asarray(arrays["tok_corrupt"]))
    modified, right = (jnp.asarray(arrays[n]) for n in ("modified_in", "tok_orig"))

    def inside(model):
        h, _ = encoded(model.subject, modified.T, found.rows.lengths)
        return {"h": h, "h_new": model(h, right, *replaced[::-1])}

    check(
        *(given, found, inside),
        lambda model: found.task.restored(model, found.symbols, found.rows, replaced),
    )


def linear(name):
    """A linear intervention of a case, and its recorded exchange and noise."""
    given = case(name)
    arrays = {n: jnp.asarray(v) for n, v in given.arrays.items()}
    kind = {"auto": "learned", "fixed": "fixed"}[given.kind]
    options = LinearInterventionOptions(ngram=given.ngram, assignment=kind)
    found = built(given, LinearIntervention, options)
    if given.ngram == 1:
        where = arrays["swap_mask"].T
        exchange = swapped(found.symbols, found.rows.lengths, arrays["pairing"], where)
    else:
        others = arrays["rand_in"].T
        exchange = replaced_in_windows(
            found.symbols, found.rows.lengths, arrays["pos"], others, given.ngram
        )
    return given, found, exchange, arrays.get("gumbel") if given.train else None


@pytest.mark.parametrize(
    "name",
    [
        *("unigram/train", "unigram/train_len", "unigram/eval", "fixed/unigram"),
        *("bigram/train", "bigram/eval", "trigram/right_windows"),
    ],
)
def test_linear_intervention_is_the_recorded_one(name):
    given, found, exchange, gumbel = linear(name)
    arrays = given.arrays
    real = valid(arrays["enc_in"], arrays["enc_len"])
    assert np.array_equal(np.asarray(exchange.symbols)[real], arrays["enc_in"].T[real])
    if name == "trigram/right_windows":
        assert np.array_equal(exchange.moved, arrays["window_mask_used"].T.astype(bool))

    def inside(model):
        h, _ = encoded(model.subject, exchange.symbols, exchange.lengths)
        new = model(h[: len(found.symbols)], h[exchange.source], exchange.moved, gumbel)
        sample = {"sample": model.assignment(gumbel)} if "sample" in arrays else {}
        return {"Q": model.rotation, "u": h @ model.rotation.T, "h_new": new, **sample}

    check(
        *(given, found, inside),
        lambda model: found.task.restored(model, found.symbols, found.rows, exchange, gumbel),
        lambda model: model.pull() if given.train else 0.0,
    )


def test_rows_are_not_paired_with_those_that_fill_up_a_batch():
    given = case("unigram/train")
    found = built(given, LinearIntervention)
    symbols = jnp.tile(found.symbols, (4, 1))
    rows = found.rows._replace(
        weights=(jnp.arange(16) < 6).astype(float), lengths=jnp.where(jnp.arange(16) < 6, 4, 0)
    )
    partners = [found.task.draw(symbols, rows, jax.random.key(k)).source for k in range(5)]
    assert all({*partner[:6].tolist()} == {*range(6)} for partner in partners)
    assert len({tuple(partner.tolist()) for partner in partners}) > 1


@pytest.mark.parametrize("name", ["n2_L9", "n3_L9", "n2_L5", "n3_L5", "n4_L9"])
def test_windows_that_move_are_those_with_the_changed_place(name):
    given = case(f"ngram_ranges/{name}")
    n, steps, places = given.n, given.L, jnp.arange(given.L)
    moved = np.asarray(windows_with(places, n, steps))
    every = [[first <= t < first + n for first in range(steps - n + 1)] for t in range(steps)]
    assert moved.tolist() == every
    assert np.array_equal(moved, given.arrays["contains_t"])
    assert np.array_equal(moved, given.arrays["copied_asrun"]) == (n == 2)
    # Symbols 1 are those of the row, and 2 the others.
    exchange: Exchange = replaced_in_windows(
        jnp.ones((steps, steps), int),
        jnp.full(steps, steps),
        places,
        jnp.full((steps, steps), 2),
        n,
    )
    assert np.array_equal(exchange.symbols[:steps] == 2, given.arrays["corrupted_at"])
    assert np.array_equal(exchange.symbols[exchange.source] == 1, given.arrays["source_keeps"])


def free_running(scores, rows, steps):
    """The likeliest symbols, each read before the next is said; `scores` are of all symbols."""

    def say(step, said):
        return said.at[:, step].set(scores(said)[:, step].argmax(axis=-1))

    return jax.lax.fori_loop(0, steps, say, jnp.zeros((rows, steps), int))


PROBES = {
    "probe/linear": (LinearProbe, None),
    "probe/mlp": (MLPProbe, None),
    "probe/onion": (OnionProbe, None),
    "probe/gru_ar": (GRUProbe, None),
    "probe/gru_noinput": (GRUProbe, GRUProbeOptions(no_input=True)),
}


@pytest.mark.parametrize("name", PROBES)
def test_probe_is_the_recorded_one(name):
    given = case(name)
    arrays = given.arrays
    found = built(given, *PROBES[name])
    rows = len(found.symbols)

    def inside(model):
        h, _ = encoded(model.subject, found.symbols, found.rows.lengths)
        if "logits_all" in arrays:
            everything = model(h, jnp.zeros((rows, given.L), int))
            return {"h": h, "logits_all": everything.swapaxes(0, 1)}
        said = free_running(lambda symbols: model(h, symbols), rows, given.L)
        return {"h": h, "logits_free": model(h, said).swapaxes(0, 1)}

    def scores(model):
        return found.task.scores(model, found.symbols, found.rows, None, train=True)

    check(given, found, inside, scores)


class Drawn(NamedTuple):
    """What was drawn for an update."""

    rows: object
    how: tuple


def five_updates(given, found, draws):
    """Losses without regulariser, and the module after five updates of its parameters."""
    rule = AdamW(weight_decay=0.1).build(lambda count: 1e-3)
    graphdef, params, rest = nnx.split(found.model, nnx.Param, ...)
    state = rule.init(params)

    @compiled
    def update(params, state, drawn):
        def loss(params):
            model = nnx.merge(graphdef, params, rest)
            symbols = found.task.prepare(drawn.rows.inputs)
            scores = found.task.restored(model, symbols, drawn.rows, *drawn.how)
            outcome = scored(scores, symbols, drawn.rows, ()).loss
            mean = outcome.total / outcome.weight
            return mean + (model.pull() if hasattr(model, "pull") else 0), mean

        (_, mean), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = rule.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state, mean

    losses = []
    for drawn in draws:
        params, state, loss = update(params, state, drawn)
        losses.append(loss)
    close(losses, given.arrays["losses"], 1e-10)
    after = exported(nnx.merge(graphdef, params, rest))
    for name, value in starting_with("p5_", given.arrays).items():
        close(after[name], value, 1e-10, name)


def test_five_updates_of_the_onion_intervention_are_the_recorded_ones():
    given = case("adamw/onion")
    arrays = {n: jnp.asarray(v) for n, v in given.arrays.items()}
    rows = [batch(i, n) for i, n in zip(given.arrays["ins"], given.arrays["lens"], strict=True)]
    found = built(given, OnionIntervention, prefix="p0_", rows=rows[0])
    replaced = map(Replaced, arrays["pos"], arrays["tok_corrupt"])
    five_updates(given, found, [Drawn(r, (x,)) for r, x in zip(rows, replaced, strict=True)])


def test_five_updates_of_the_linear_intervention_are_the_recorded_ones():
    given = case("adamw/unigram")
    given.arrays["base"] = recorded()["adamw/unigram/p_base"]
    arrays = {n: jnp.asarray(v) for n, v in given.arrays.items()}
    full = np.full(given.B, given.L)
    rows = [batch(symbols, full) for symbols in given.arrays["ins"]]
    given.arrays["p0_base"] = given.arrays["p_base"]
    found = built(given, LinearIntervention, prefix="p0_", rows=rows[0])
    draws = [
        Drawn(
            r,
            (
                swapped(found.task.prepare(r.inputs), r.lengths, partner, where.T),
                gumbel,
            ),
        )
        for r, partner, where, gumbel in zip(
            rows, arrays["pairing"], arrays["swap_mask"], arrays["gumbel"], strict=True
        )
    ]
    five_updates(given, found, draws)


def test_a_state_must_have_a_number_for_every_window():
    given = SimpleNamespace(V=4, N=3, L=4)
    subject = task(given).build_model(nnx.Rngs(0))
    message = (
        "a state must have at least 4 real numbers, one for each window of ngram = 1 of 4 symbols, "
        "but that of the run has 3"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        task(given, LinearIntervention, LinearInterventionOptions(), Opened(task(given), [subject]))


def test_a_model_that_does_not_repeat_is_refused():
    given = SimpleNamespace(V=4, N=3, L=4)
    subject = task(given).build_model(nnx.Rngs(0))
    probe = task(given, OnionProbe, None, Opened(task(given), [subject]))
    message = "method must fit the task of the run: this one looks at models of task repeat, not "
    with pytest.raises(ValueError, match=f"^{message}of OnionProbe$"):
        task(given, OnionProbe, None, Opened(probe, [probe.build_model(nnx.Rngs(0))]))
