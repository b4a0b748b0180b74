"""Files of sweeps: the points that they ask for, and one sentence for what is wrong in them."""

import math

import pytest
import yaml

from lru.launch.sweep_files import load_sweep, read_sweep
from lru.words import UsageError


def sweep(text):
    return read_sweep(yaml.safe_load(text), "toy", "toy.yaml")


GRID = """
method: grid
command: ["${env}", python, run_train.py, --use_wandb=True, "${args}", --plots, "False"]
parameters:
  model: {values: [lru, gru]}
  epochs: {value: 3}
  clip_norm: {values: [null, 1.0]}
  tied: {value: true}
  data_options:
    parameters:
      n_train: {value: 24}
      delay: {values: [2, 3], distribution: categorical}
"""


def test_a_grid_has_every_combination_with_groups_nested():
    found = sweep(GRID)
    points = found.points()
    assert len(points) == 8
    assert points[0] == {
        "model": "lru",
        "epochs": 3,
        "clip_norm": None,
        "tied": True,
        "data_options": {"n_train": 24, "delay": 2},
    }
    assert points[-1] == points[0] | {
        "model": "gru",
        "clip_norm": 1.0,
        "data_options": {"n_train": 24, "delay": 3},
    }
    assert found.varied == ["model", "clip_norm", "data_options"]
    assert list(found.flags) == ["--use_wandb=True", "--plots", "False"]
    assert found.points(n_runs=3) == points[:3]
    assert sweep(GRID + "run_cap: 2").points() == points[:2]
    assert (found.name, sweep(GRID + "name: other").name) == ("toy", "other")


RANDOM = """
method: random
run_cap: 40
parameters:
  lr_base: {min: 1.0e-4, max: 1.0e-1, distribution: log_uniform_values}
  weight_decay: {min: 0.0, max: 0.1}
  n_layers: {min: 1, max: 3}
  d_hidden: {min: 8, max: 64, q: 8, distribution: q_log_uniform_values}
  p_dropout: {min: 0, max: 0.5, q: 0.1, distribution: q_uniform}
  norm: {values: [layer, batch], probabilities: [1, 0]}
  epochs: {value: 3}
"""


def test_random_points_keep_to_their_ranges_and_follow_the_seed():
    found = sweep(RANDOM)
    points = found.points()
    assert len(points) == 40
    assert found.points() == points != found.points(seed=1)
    assert found.points(n_runs=7) == points[:7]
    for point in points:
        assert 1e-4 <= point["lr_base"] <= 1e-1
        assert 0 <= point["weight_decay"] <= 0.1
        assert point["d_hidden"] % 8 == 0
        assert type(point["d_hidden"]) is int
        assert point["p_dropout"] in (0, 0.1, 0.2, 0.3, 0.4, 0.5)
        assert (point["norm"], point["epochs"]) == ("layer", 3)
    assert {point["n_layers"] for point in points} == {1, 2, 3}
    small = sum(math.log10(point["lr_base"]) < -2.5 for point in points)
    assert 8 <= small <= 32, "half of them, as the logarithm is uniform"


def test_random_points_differ():
    found = sweep("{method: random, parameters: {n_layers: {min: 1, max: 3}}}")
    assert sorted(point["n_layers"] for point in found.points(n_runs=10)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "the file must be a mapping with method and parameters"),
        ("{metod: grid}", "unknown key 'metod'; known: name, .*; did you mean 'method'"),
        ("{parameters: {}}", "method must be grid or random, got None"),
        ("{method: bayes}", "method bayes needs an account: start it by wandb agent"),
        ("{method: grid}", "parameters must be a mapping from flags to their values, got None"),
        (
            "{method: grid, parameters: {a: 3}}",
            "a must have value, values or a distribution, got 3",
        ),
        ("{method: grid, parameters: {a: {}}}", "a must have one of value, values, and min with"),
        ("{method: grid, parameters: {a: {values: []}}}", "values of a must be a list that is not"),
        ("{method: grid, parameters: {a: {values: 3}}}", "values of a must be a list .*, got 3"),
        ("{method: grid, parameters: {a: {value: 1, values: [1]}}}", "a must have one of value, "),
        ("{method: grid, parameters: {a: {vales: [1]}}}", "a has an unknown key 'vales'; known: "),
        ("{method: grid, parameters: {a: {min: 0, max: 1}}}", "a needs values, as method is grid"),
        ("{method: grid, run_cap: 0, parameters: {a: {value: 1}}}", "run_cap must be above 0"),
        ("{method: grid, command: x, parameters: {a: {value: 1}}}", "command must be a list of"),
        ("{method: random, parameters: {a: {value: 1}}}", "method random needs a number of runs"),
        ("{method: random, parameters: {a: {distribution: uniform}}}", "min of a must be a number"),
        ("{method: random, parameters: {a: {min: 1}}}", "max of a must be a number, got None"),
        ("{method: random, parameters: {a: {min: 1e-4, max: 1.0}}}", "got '1e-4', as YAML reads"),
        ("{method: random, parameters: {a: {min: 2, max: 1}}}", "a must have min up to max, and q"),
        ("{method: random, parameters: {a: {distribution: log_uniform}}}", "unknown distribution"),
        (
            "{method: random, parameters: {a: {min: 0.5, max: 2, distribution: int_uniform}}}",
            "min and max of a must be whole numbers, got 0.5 and 2",
        ),
        (
            "{method: random, parameters: {a: {min: 0, max: 1, distribution: log_uniform_values}}}",
            "min of a must be above 0 for log_uniform_values, got 0",
        ),
        (
            "{method: random, parameters: {a: {values: [1, 2], probabilities: [1]}}}",
            "probabilities of a must be a number for each value",
        ),
        (
            "{method: grid, parameters: {data_options: {parameters: {}}}}",
            "data_options.parameters must be a mapping from flags to their values, got {}",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_a_sentence(text, sentence):
    with pytest.raises(UsageError, match=f"^sweep toy.yaml: .*{sentence}"):
        sweep(text).points()


def test_a_file_that_is_not_there_or_no_yaml_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"there is no sweep 'copy-recurrence'; known: .*did"):
        load_sweep("copy-recurrence")
    (tmp_path / "broken.yaml").write_text("{method: grid")
    with pytest.raises(UsageError, match="no YAML"):
        load_sweep(str(tmp_path / "broken.yaml"))
