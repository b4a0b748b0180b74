"""The task of measured words: the recorded losses and updates, metrics, what fits it, lanes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lru.batches import Batch
from lru.config import Config
from lru.dataloaders import Card, from_arrays
from lru.dataloaders.store.arrays import given
from lru.flags import parse
from lru.models import ModelConfig
from lru.scan.quantum import Weights
from lru.tasks.measurement import Measurement, MeasurementOptions
from lru.training.config import TrainConfig
from lru.training.optimizer import LBFGS, SGD, AdamW, RMSProp, make_optimizer, make_schedule
from lru.training.update import init_state, make_functions

from .cases import case, names


def card_of(n_words, **changes):
    facts = {
        "name": "words",
        "version": 1,
        "kind": "tokens",
        "n_classes": n_words,
        "vocab_size": n_words + 1,
        "targets": "class_per_step",
        "max_length": 9,
    }
    return Card(**facts | changes)


def batch_of(words, labels, weights=None, lengths=None):
    rows = len(words)
    return Batch(
        jnp.asarray(words + 1, jnp.uint8),
        jnp.asarray(labels, jnp.int32),
        jnp.ones(rows, jnp.float32) if weights is None else jnp.asarray(weights),
        lengths,
    )


def small_task(**options):
    model = ModelConfig("quantum-rnn", options={"workspace": 2, "stages": 1})
    return Measurement(card_of(4), model, MeasurementOptions(**options))


RULES = {
    "adamw_lr0.01_wd0": (0.01, AdamW(weight_decay=0.0, clip_norm=0.5)),
    "adamw_lr0.01_wd0.1": (0.01, AdamW(weight_decay=0.1, clip_norm=0.5)),
    "rmsprop_lr0.01": (0.01, RMSProp(decay=0.99, weight_decay=0.0, clip_norm=0.5)),
    "sgd_lr0.5": (0.5, SGD(weight_decay=0.0, clip_norm=0.5)),
    "lbfgs_lr0.1_hist40": (0.1, LBFGS(history_size=40, clip_norm=0.5)),
}


def started(known):
    """The task of a recorded case, and the way to a rule of its updates."""
    options = {**known.options, "dtype": "float64"}
    task = Measurement(card_of(known.n_words), ModelConfig("quantum-rnn", options=options))

    def build_of(rule):
        rate, optimizer = RULES[rule]
        train = TrainConfig(lr_base=rate, lr_min=0.0, cosine_anneal=False)
        schedule = make_schedule(train, 1, 100)
        return make_optimizer(optimizer, train, schedule), schedule

    return task, build_of


def with_recorded(params, known):
    recorded = known.weights._asdict()
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(recorded[path[0].key], leaf.dtype), params
    )


def assert_ends_as_recorded(params, trace):
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    found = {"params_sum_after": flat.sum(), "params_l2_after": np.linalg.norm(flat)}
    for name, value in found.items():
        np.testing.assert_allclose(value, trace[name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", names())
def test_updates_are_the_recorded_ones(name):
    with jax.enable_x64(True):
        known = case(name)
        task, build_of = started(known)
        graphdef, params = nnx.split(task.build_model(nnx.Rngs(0)))
        batch = batch_of(known.words, known.targets)

        @jax.jit
        @jax.value_and_grad
        def loss(params):
            outcome = task.loss(nnx.merge(graphdef, params), batch, (), None, train=True)
            return outcome.loss.total / outcome.loss.weight

        for rule in [rule for rule in RULES if not rule.startswith("lbfgs")]:
            trace, optimizer = known.setting["train_trace_float64"][rule], build_of(rule)[0]
            params = with_recorded(params, known)
            state, values, norms = jax.jit(optimizer.init)(params), [], []

            @jax.jit
            def update(params, state, value, gradient, optimizer=optimizer):
                updates, state = optimizer.update(gradient, state, params, value=value)
                return optax.apply_updates(params, updates), state, optax.tree.norm(gradient)

            for _ in range(4):
                value, gradient = loss(params)
                params, state, norm = update(params, state, value, gradient)
                values.append(value)
                norms.append(norm)
            for found, of in (
                (values, "loss_at_first_closure_call_per_step"),
                (norms, "grad_norm_before_clip_per_step"),
            ):
                np.testing.assert_allclose(np.array(found), trace[of], rtol=0, atol=1e-8)
            assert_ends_as_recorded(params, trace)


def test_updates_of_lbfgs_are_the_recorded_ones():
    """In the smallest case: in others a rounding error grows to 1e-5 within the first update."""
    with jax.enable_x64(True):
        known = case(names()[0])
        trace = known.setting["train_trace_float64"]["lbfgs_lr0.1_hist40"]
        task, build_of = started(known)

        def build(_):
            return build_of("lbfgs_lr0.1_hist40")

        graphdef, state = init_state(task, build, 0)
        state = state._replace(params=with_recorded(state.params, known))
        update = jax.jit(make_functions(task, graphdef, build).train)
        batch = batch_of(known.words, known.targets)
        for _ in range(4):
            state = update(state, batch)
        assert_ends_as_recorded(state.params, trace)
        assert state.opt_state.rule.func_evals == trace["closure_calls_total"]


@pytest.mark.parametrize("name", names())
def test_losses_are_the_recorded_ones(name):
    with jax.enable_x64(True):
        known = case(name)
        options = {**known.options, "dtype": "float64"}
        found = known.setting["float64"]
        batch = batch_of(known.words, known.targets)
        model_config = ModelConfig("quantum-rnn", options=options)
        for loss, expected in (
            ("double_softmax", found["loss_shifted"]),
            ("nll", -np.mean(np.log(_at(known.probabilities, known.targets)))),
        ):
            task = Measurement(card_of(known.n_words), model_config, MeasurementOptions(loss))
            model = task.build_model(nnx.Rngs(0))
            for field, array in known.weights._asdict().items():
                getattr(model, field)[...] = jnp.asarray(array)

            def mean(model, task=task):
                outcome = task.loss(model, batch, (), None, train=True)
                return outcome.loss.total / outcome.loss.weight, outcome

            (value, outcome), gradient = nnx.jit(nnx.value_and_grad(mean, has_aux=True))(model)
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
            if loss == "double_softmax":
                least = outcome.metrics["min_postselection"].value
                np.testing.assert_allclose(least, found["min_postsel_prob"], rtol=0, atol=1e-12)
                norm = optax.tree.norm(gradient)
                np.testing.assert_allclose(norm, found["grad_norm_l2_all"], rtol=0, atol=1e-11)


def _at(probabilities, targets):
    return np.take_along_axis(probabilities, np.asarray(targets)[..., None], axis=-1)[..., 0]


def test_metrics_count_words_and_rows():
    task = small_task()
    model = task.build_model(nnx.Rngs(0))
    words = np.array([[0, 1, 2], [3, 3, 0], [1, 2, 3]])
    free, _ = model(jnp.asarray(words))
    # Given in the first step, measured in the second and the third: right, wrong in one, padding.
    labels = np.array([[given(2), 0, 0], [given(1), 0, 0], [0, 0, 0]])
    wanted = jnp.where(jnp.arange(3) == 0, jnp.asarray([[2], [1], [0]]), -1)
    labels[:2, 1:] = np.asarray(model(jnp.asarray(words), wanted)[0].words)[:2, 1:]
    labels[1, 2] ^= 1
    batch = batch_of(words, labels, weights=np.array([1, 1, 0], np.float32))
    evaluate = jax.jit(partial(task.loss, train=False))
    outcome = evaluate(model, batch, (), jax.random.key(0))
    report = task.report(outcome.sums)
    assert report["argmax_error"] == 1 / 4
    assert report["argmax_accuracy"] == 1 / 2
    p = free.probabilities[:2, 0]
    expected = float(jnp.minimum(p[0, 2], p[1, 1]))
    np.testing.assert_allclose(report["min_postselection"], expected, rtol=1e-5)
    # Sampled: the shares of rows and words of many draws are those of the probabilities.
    alone = jnp.zeros((2000, 1), int)
    p = np.asarray(model(alone[:1])[0].probabilities[0, 0])
    many = batch_of(np.zeros((2000, 1), int), np.full((2000, 1), 3))
    report = task.report(evaluate(model, many, (), jax.random.key(1)).sums)
    assert abs(report["accuracy"] - p[3]) < 5 * np.sqrt(p[3] * (1 - p[3]) / 2000)
    np.testing.assert_allclose(report["error"], 1 - report["accuracy"], atol=1e-6)


def test_rows_that_fill_up_and_padding_change_nothing():
    task = small_task(loss="nll")
    model = task.build_model(nnx.Rngs(0))
    words, labels = np.array([[0, 1, 2], [3, 3, 0]]), np.array([[1, 2, 3], [given(0), 3, 1]])

    def sums(batch):
        @nnx.jit
        @partial(nnx.value_and_grad, has_aux=True)
        def mean(model):
            outcome = task.loss(model, batch, (), None, train=True)
            return outcome.loss.total, outcome.sums

        (_, found), gradient = mean(model)
        return jax.tree.leaves((found, gradient))

    alone = sums(batch_of(words, labels))
    padded_words, padded_labels = np.full((3, 4), -1), np.full((3, 4), -1)
    padded_words[:2, :3], padded_labels[:2, :3] = words, labels
    padded_labels[2] = 0
    lengths, weights = jnp.array([3, 3, 0]), np.array([1, 1, 0], np.float32)
    padded = sums(batch_of(padded_words, padded_labels, weights, lengths))
    for ours, theirs in zip(padded, alone, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "values", "vocab_size": None}, "are values with targets class_per_step"),
        ({"targets": "class"}, "are tokens with targets class, 5 ids and 4 classes"),
        ({"n_classes": 6, "vocab_size": 7}, "7 ids and 6 classes"),
        ({"vocab_size": 9}, "9 ids and 4 classes"),
    ],
)
def test_data_that_are_no_words_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Measurement(card_of(4, **changes), ModelConfig("quantum-rnn"))


def test_the_network_and_the_task_need_each_other():
    with pytest.raises(ValueError, match="model must be quantum-rnn for this task, got lstm"):
        Measurement(card_of(4), ModelConfig("lstm"))
    with pytest.raises(ValueError, match="task must be measurement for model 'quantum-rnn', got"):
        Config.from_flat({"model": "quantum-rnn", "task": "classification"})


def test_the_network_brings_its_task_and_defaults_and_has_no_layers():
    config = Config.from_flat({"model": "quantum-rnn", "workspace": 4})
    assert config.task.task == "measurement"
    assert (config.train.lr_base, config.train.cosine_anneal) == (0.003, False)
    assert config.optimizer.options["clip_norm"] == 0.5
    flat = config.flat()
    assert not {"n_layers", "d_model", "body", "norm"} & flat.keys()
    assert flat["workspace"] == 4
    assert Config.from_flat(flat) == config
    rmsprop = Config.from_flat({"model": "quantum-rnn", "optimizer": "rmsprop"})
    assert rmsprop.optimizer.options["decay"] == 0.99
    lbfgs = Config.from_flat({"model": "quantum-rnn", "optimizer": "lbfgs"})
    assert lbfgs.optimizer.options["history_size"] == 40
    with pytest.raises(ValueError, match="d_model is an option of stacks of recurrent layers, but"):
        Config.from_flat({"model": "quantum-rnn", "d_model": 4})
    with pytest.raises(ValueError, match="norm is an option of body 'blocks', but this run has"):
        Config.from_flat({"model": "quantum-rnn", "norm": "layer"})


def test_published_flags_are_understood():
    line = "--model quantum-rnn --workspace 6 --stages 2 --order 2 --degree 3 --optimizer adam"
    _, config = parse([*line.split(), "--learning-rate", "0.005", "--initial-bias", "1.5"])
    assert (config.train.lr_base, config.optimizer.optimizer) == (0.005, "adamw")
    assert config.model.options["initial_bias"] == 1.5


def test_help_has_the_options_of_the_network_alone(capsys):
    with pytest.raises(SystemExit):
        parse(["--model", "quantum-rnn", "--help"])
    told = capsys.readouterr().out
    assert "--workspace" in told
    assert "--loss" in told
    assert "--d_model" not in told


def test_a_model_can_be_changed_into_a_network_and_back(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("config: {model: lstm, d_model: 8, n_layers: 1, norm: layer, biases: 1}")
    _, config = parse(["--recipe", str(recipe), "--model", "quantum-rnn"])
    assert config.task.task == "measurement"
    recipe.write_text("config: {model: quantum-rnn, task: measurement, workspace: 4, loss: nll}")
    _, config = parse(["--recipe", str(recipe), "--model", "lstm"])
    assert config.task.task != "measurement"


def words_data(n=24):
    rng = np.random.default_rng(0)
    words = rng.integers(4, size=(n, 5))
    return from_arrays(
        "words",
        *[(words + 1, words)] * 3,
        vocabulary=("", *map(str, range(4))),
        n_classes=4,
    )


FIT = {"model": "quantum-rnn", "workspace": 2, "stages": 1, "batch_size": 8}


def test_lanes_may_differ_in_the_draw(tmp_path):
    import lru

    common = {**FIT, "max_steps": 3, "runs_dir": str(tmp_path), "data_seed": 5, "plots": False}
    data = words_data()
    models, _ = lru.fit(data, **common, lanes=("initial_bias_spread=0,0.7",), n_seeds=2)
    for lane, spread, seed in ((0, 0.0, 1919), (3, 0.7, 1920)):
        own = {"initial_bias_spread": spread, "jax_seed": seed}
        single, _ = lru.fit(data, **common, **own, name=f"single{lane}")
        for mine, its in zip(models[lane].weights, single.weights, strict=True):
            np.testing.assert_allclose(mine, its, atol=2e-5)
    with pytest.raises(ValueError, match=r"lanes must be .* initial_bias_spread"):
        lru.fit(data, **common, lanes=("workspace=2,3",), name="other")


def test_runs_evaluate_at_intervals_and_end_at_a_loss(tmp_path):
    import lru

    data = words_data()
    common = {**FIT, "max_steps": 20, "runs_dir": str(tmp_path), "eval_every": 2, "plots": False}
    _, summary = lru.fit(data, **common, stop_at_loss=10.0, name="first")
    assert (summary.steps, summary.stopped_early) == (2, True)
    # It has ended, and stays so.
    _, again = lru.fit(data, **common, stop_at_loss=10.0, name="first")
    assert again.steps == 2
    _, whole = lru.fit(data, **common, stop_at_loss=-10.0, name="second")
    assert whole.steps == 20


def test_weights_have_the_names_of_the_recurrence():
    model = small_task().build_model(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    assert set(state) == set(Weights._fields)
