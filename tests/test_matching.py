"""Widths by numbers of parameters: the nearest, stored as if it had been typed."""

import json

import pytest
import yaml
from flax import nnx

from lru.commands.train import run
from lru.flags import parse
from lru.matching import nearest
from lru.models import ModelConfig, make_body
from lru.models.sizes import sizes
from lru.words import UsageError

DATA = ("--dataset", "parity", "--data_options", "n_train=64", "n_val=8", "n_test=8")
SMALL = ("--n_layers", "1", "--d_model", "8", "--norm", "layer", "--match_params", "3000")


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_nearest_number_is_found():
    refused: list[int] = []

    def count(width: int) -> int:
        # Heads that do not divide the width.
        if width % 6:
            refused.append(width)
            raise ValueError("width")
        return 10 + width**2

    for wanted, width in ((46, 6), (99, 6), (101, 12), (3000, 54), (3300, 60), (10**6, 1002)):
        assert nearest(count, wanted) == width
    assert refused
    assert nearest(lambda width: 7, 7) is None
    with pytest.raises(ValueError, match="at least 46 for this model, got 45"):
        nearest(count, 45)


def test_the_chosen_width_is_stored_and_shown(capsys):
    words = ["--model", "lstm", *DATA, *SMALL, "--name", "one", "--batch_size", "8"]
    assert run([*words, "--max_steps", "1", "--plots", "False"]) == 0
    printed = capsys.readouterr().out
    with open("runs/one/config.yaml") as file:
        width = yaml.safe_load(file)["model"]["d_hidden"]
    with open("runs/one/summary.json") as file:
        outcome = json.load(file)
    # Gates read D + N numbers and a bias; the read-out has none.
    own = 4 * width * (8 + width + 1)
    assert abs(outcome["n_parameters"] - 3000) < 4 * (2 * width + 10)
    assert own < outcome["n_parameters"] < own + 600
    assert outcome["state_size"] == 2 * width
    assert f"{outcome['n_parameters']:,} parameters, state of {2 * width} numbers" in printed
    # The same command goes on.
    assert run([*words, "--max_steps", "1", "--plots", "False"]) == 0


def test_d_model_is_chosen_where_d_hidden_changes_nothing():
    words = ["--model", "lstm", "--body", "cells", *DATA, "--n_layers", "1"]
    model = parse([*words, "--match_params", "5000"])[1].model
    assert model.d_hidden == ModelConfig.d_hidden
    assert 20 <= model.d_model <= 30


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("--d_hidden", "8"), UsageError, "match_params chooses d_hidden: leave out --d_hidden"),
        (("--d_model", "900"), ValueError, "match_params must be at least .*, got 3000"),
    ],
)
def test_what_cannot_be_matched_is_said(words, error, message):
    with pytest.raises(error, match=message):
        parse(["--model", "gru", *DATA, *SMALL, *words])


@pytest.mark.parametrize(("model", "numbers"), [("lru", 2 * 6), ("gru", 6), ("lstm", 2 * 6)])
def test_complex_states_count_twice(model, numbers):
    config = ModelConfig(model, n_layers=3, d_model=4, d_hidden=6)
    assert sizes(lambda: make_body(config, rngs=nnx.Rngs(0))).state_size == 3 * numbers
