"""Recorded cases of the quantum recurrent network; see `tests/fixtures/README.md`."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from lru.scan.quantum import Activation, Weights

FIXTURE = Path(__file__).parents[1] / "fixtures" / "quantum_reference.json"


@cache
def recorded():
    """All that was recorded."""
    return json.loads(FIXTURE.read_text())


def names():
    """The recorded cases by name."""
    return [setting["config"]["name"] for setting in recorded()["settings"]]


def case(name):
    """One of them: numbers of lanes, words of its steps, weights and what comes out."""
    setting = next(s for s in recorded()["settings"] if s["config"]["name"] == name)
    config = setting["config"]
    place_values = 2 ** np.arange(config["i"])[::-1]
    return SimpleNamespace(
        setting=setting,
        options={
            "workspace": config["w"],
            "stages": config["s"],
            "order": config["o"],
            "degree": config["d"],
            "initial_bias": np.pi / 2,
        },
        n_words=2 ** config["i"],
        activation=Activation(config["o"], config["d"], np.pi / 2),
        # A step reads a word and is measured against the target after it.
        words=jnp.asarray(np.array(setting["inputs"]) @ place_values)[:, :-1],
        targets=jnp.asarray(np.array(setting["targets"]) @ place_values)[:, 1:],
        weights=stacked(setting["params"], config),
        gradients=stacked(setting["float64"]["grads"], config),
        probabilities=np.array(setting["float64"]["probs"]).transpose(0, 2, 1),
    )


def stacked(values, config):
    """Weights from arrays by the recorded names."""
    w, i, stages = (config[name] for name in "wis")
    neurons = [[f"input/{k}" for k in range(w)]]
    neurons += [[f"kernel/{s}/{k + 1}" for k in range(w)] for s in range(stages)]
    return Weights(
        phi=np.array([[values[f"{name}/phi"] for name in row] for row in neurons]),
        theta=np.array([[values[f"{name}/theta"] for name in row] for row in neurons]),
        rotations=np.array([values[f"kernel/{s}/0/thetas"] for s in range(stages)]),
        output_phi=np.array([values[f"output/{k}/phi"] for k in range(i)]),
        output_theta=np.array([values[f"output/{k}/theta"] for k in range(i)]),
    )


def as_type(weights, dtype):
    """Weights in a type."""
    return Weights(*(jnp.asarray(array, dtype) for array in weights))


def start(rows, workspace, dtype):
    """Amplitudes of |0...0>."""
    return jnp.zeros((rows, 2**workspace), dtype).at[:, 0].set(1)
