"""Initial values for a length of memory: rules of layers, the flag, what the run's folder has."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx

import lru
from lru.config import Config
from lru.dataloaders import from_arrays
from lru.defaults import with_memory
from lru.flags import parse
from lru.layers import LAYERS, make_layer

RULES = [name for name, layer in LAYERS.items() if layer.remembering(2)]
ADDING = "--dataset adding-classification --data_options n_train=4 n_val=2 n_test=2 length=40"


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(line):
    return parse(line.split())[1]


@pytest.mark.parametrize("name", RULES)
def test_a_layer_forgets_later_the_longer_it_is_to_remember(name):
    def impulse(steps):
        """Energy of the states that an impulse leaves, beside that of a silent run, by step."""
        layer = make_layer(name, 4, 64, LAYERS[name].remembering(steps), rngs=nnx.Rngs(0))
        x = jnp.zeros((2, 129, 4)).at[0, 0].set(3.0)
        states = layer.observe(x)["state"]
        return np.square(np.abs(states[0] - states[1])).sum(-1)

    short, long = impulse(2), impulse(100)
    assert long[128] / long[0] > 100 * short[128] / short[0]
    assert long[100] / long[0] > 1e-3


@pytest.mark.parametrize("biases", [1, 2])
def test_chrono_biases_of_an_lstm_and_a_gru(biases):
    for name, forget, others in (("lstm", 1, {0: -1}), ("gru", 1, {})):
        options = {"chrono": 100, "biases": biases}
        layer: Any = make_layer(name, 4, 500, options, rngs=nnx.Rngs(0))
        plain: Any = make_layer(name, 4, 500, {"biases": biases}, rngs=nnx.Rngs(0))
        total: Any = sum(
            p[...].reshape(-1, 500) for p in (layer.bias_ih, layer.bias_hh) if p is not None
        )
        # U(1, 99), within four standard errors of its mean.
        steps = np.exp(total[forget])
        assert 0.999 <= steps.min() <= steps.max() <= 99.001
        assert steps.mean() == pytest.approx(50, abs=4 * 98 / math.sqrt(12 * 500))
        for gate, sign in others.items():
            np.testing.assert_array_equal(total[gate], sign * total[forget])
        np.testing.assert_array_equal(layer.weight_hh[...], plain.weight_hh[...])
        np.testing.assert_array_equal(layer.bias_ih[-500:], plain.bias_ih[-500:])


# Gates of an sLSTM are shown as its stabiliser scales them.
CHRONO = [n for n in RULES if "chrono" in LAYERS[n].remembering(2) and n != "slstm"]


@pytest.mark.parametrize("name", CHRONO)
def test_gates_that_keep_the_state_are_drawn_by_chrono(name):
    layer = make_layer(name, 4, 512, LAYERS[name].remembering(100), rngs=nnx.Rngs(0))
    first = {gate: value[0, 0] for gate, value in layer.observe(jnp.zeros((1, 1, 4))).items()}
    gate = first["forget_gate"] if "forget_gate" in first else first["update_gate"]
    odds = np.asarray((1 - gate) / gate if name == "para-gru" else gate / (1 - gate))
    assert 0.999 <= odds.min() < odds.max() <= 99.001


def test_chrono_without_what_it_sets_is_refused():
    for name, options, message in (
        ("lstm", {"biases": 0}, "chrono must be None without biases, got 5"),
        ("qrnn", {"biases": 0}, "chrono must be None without biases, got 5"),
        ("hgrn", {"lower_bound": 0.5}, "chrono must be None with a lower_bound, got 5"),
        ("mingru", {}, "chrono must be None without biases, got 5"),
        ("gru", {"use_update": False}, "chrono must be None without an update gate, got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            make_layer(name, 3, 4, {"chrono": 5, **options}, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="chrono must be None or at least 2 steps, got 1"):
        make_layer("lstm", 3, 4, {"chrono": 1}, rngs=nnx.Rngs(0))


def test_the_flag_sets_options_of_the_layer_but_those_that_are_given():
    rule = LAYERS["lru"].remembering(500)
    assert read("--memory 500").model.options == {**read("").model.options, **rule}
    assert read("--memory 500 --r_max 0.9999").model.options["r_max"] == 0.9999
    assert read("--memory 500 --model lstm").model.options["chrono"] == 500
    assert read("--memory None") == read("")


def test_it_wins_over_a_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text("config: {model: lru, r_min: 0.1, r_max: 0.2}")
    options = read("--recipe mine.yaml --memory 500").model.options
    assert options["r_max"] == LAYERS["lru"].remembering(500)["r_max"]


def test_auto_is_the_length_of_the_data():
    assert read(f"{ADDING} --memory auto") == read(f"{ADDING} --memory 40")
    rows = [np.ones((length, 1)) for length in (2, 4, 9)]
    data = from_arrays("rows", (rows, [0, 1, 0]), (rows, [0, 1, 0]), (rows, [0, 1, 0]))
    config = Config.from_flat({"model": "gru"})
    assert with_memory(config, "auto", card=data.card).model.options["chrono"] == 5


def test_what_is_no_memory_is_refused():
    for memory in ("1", "-5", "long", "2.5"):
        with pytest.raises(ValueError, match=rf"memory must be auto or a number.*got '{memory}'"):
            with_memory(Config(), memory)
    with pytest.raises(ValueError, match=r"memory is for model .*lru.*got .*'elman'"):
        read("--model elman --memory 30")
    with pytest.raises(ValueError, match=r"memory is for .*got model 'quantum-rnn'"):
        read("--model quantum-rnn --dataset mnist01 --memory 30")


def test_a_run_keeps_the_values_and_goes_on_with_and_without_the_flag(tmp_path):
    x = np.asarray(jax.random.normal(jax.random.key(0), (12, 7)))
    data = from_arrays("noise", (x, np.arange(12) % 2))
    flags: dict[str, Any] = {
        "n_layers": 1,
        "d_model": 4,
        "d_hidden": 4,
        "plots": False,
        "name": "one",
    }
    flags |= {"runs_dir": str(tmp_path), "max_steps": 1}
    lru.fit(data, **flags, memory="auto")
    saved = yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())
    assert all("memory" not in group for group in saved.values() if isinstance(group, dict))
    assert saved["layer"]["r_max"] == LAYERS["lru"].remembering(7)["r_max"]
    for line in (
        f"--name one --runs_dir {tmp_path}",
        f"--name one --runs_dir {tmp_path} --memory 7",
    ):
        assert read(line).model.options == saved["layer"]
