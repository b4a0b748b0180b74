"""The configuration: ranges, flat names, files, differences."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lru.config import CHOICES, GROUPS, Config, own_fields
from lru.run_folders import differences

positive = st.floats(1e-9, 1e9)
texts = st.text("ab 1e-3:#'\"\n~yes", max_size=8)
values = st.fixed_dictionaries(
    {
        "n_layers": st.integers(1, 9),
        "norm": st.sampled_from(["batch", "layer"]),
        "p_dropout": st.floats(0, 0.99),
        "data_options": st.dictionaries(texts, st.one_of(texts, st.integers(), st.none())),
        "max_steps": st.none() | st.integers(1, 9),
        "lr_base": st.floats(1e-6, 1),
        "clip_norm": st.none() | positive,
        "jax_seed": st.integers(0, 2**32 - 1),
        "lanes": st.lists(texts).map(tuple),
        "runs_dir": texts,
        "restore": st.none() | texts,
        "plots": st.booleans(),
    },
    optional={"r_min": st.floats(0, 0.5), "gamma": st.booleans(), "pooling": st.just("last")},
)


@settings(deadline=None, max_examples=40)
@given(values)
def test_flat_and_its_inverse(values):
    config = Config.from_flat(values)
    assert config.flat().items() >= values.items()
    assert Config.from_flat(config.flat()) == config


@settings(deadline=None, max_examples=15)
@given(values)
def test_what_is_saved_is_loaded(tmp_path_factory, values):
    config = Config.from_flat(values)
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    config.save(path)
    assert Config.load(path) == config


def test_values_left_out_keep_their_defaults():
    config = Config.from_flat({"epochs": 3, "r_min": 0.1})
    assert config.train.epochs == 3
    assert config.model.options["r_min"] == 0.1
    plain = Config.from_flat({}).flat()
    assert Config.from_flat({"n_layers": 2}).flat() == plain | {"n_layers": 2}


def test_no_two_values_share_a_name():
    names = [name for group in GROUPS for name in own_fields(group)]
    assert len(names) == len(set(names))
    for choice in CHOICES:
        for entry in choice.registry:
            assert not choice.of(entry).keys() & set(names), entry


def test_a_file_of_an_earlier_format_is_read_without_what_nobody_has(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: lru\nr_min: 0.2\nblock_length: 8\nbptt: 70\nclip_norm: 1.0\nlr_patience: 5\n"
    )
    assert Config.load(path) == Config.from_flat(
        {"r_min": 0.2, "chunk_length": 8, "clip_norm": 1.0}
    )
    path.write_text(
        "format: 2\nmodel: {model: lstm, dataset: ptb-lm, body: auto, norm: batch, p_hidden: 0.2}\n"
    )
    assert Config.load(path) == Config.from_flat(
        {"model": "lstm", "dataset": "ptb-lm", "body": "cells", "p_hidden": 0.2}
    )
    path.write_text("format: 4\nmodel: {}\n")
    with pytest.raises(ValueError, match=r"config.yaml has format 4, but only 1 to 3 can be read"):
        Config.load(path)


def test_differences_name_what_changes_a_result():
    one = Config.from_flat({"model": "lru", "r_min": 0.1, "epochs": 3, "data_options": {"a": 1}})
    assert differences(one, one) == {}
    other = Config.from_flat({"model": "lru", "r_max": 0.1, "epochs": 4})
    assert differences(one, other) == {
        "data_options": ({"a": 1}, {}),
        "epochs": (3, 4),
        "r_max": (0.9, 0.1),
        "r_min": (0.1, 0.4),
    }


def test_folders_and_reports_are_no_differences_but_the_origin_is():
    changes = {
        "name": "b",
        "runs_dir": "x",
        "dir_name": "y",
        "raw_dir": "z",
        "reset": True,
        "checkpoint_every": 7,
        "tensorboard": True,
        "use_wandb": True,
        "wandb_project": "p",
        "wandb_entity": "e",
        "plots": False,
    }
    plain = Config.from_flat({})
    assert differences(plain, Config.from_flat(changes)) == {}
    restored = Config.from_flat({"restore": "runs/a"})
    assert differences(plain, restored) == {"restore": (None, "runs/a")}


STEPS = {"cosine_anneal": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"early_stop_patience": 0}, "early_stop_patience must be at least 1, got 0"),
        ({"lr_patience": -1}, "lr_patience must be at least 1, got -1"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"lr_min": 0.1}, "lr_min must lie between 0 and lr_base=0.001, got 0.1"),
        ({"lr_min": -0.1}, "lr_min must lie between 0 and lr_base=0.001, got -0.1"),
        ({"lr_base": float("nan")}, "lr_base must be a number that is not negative, got nan"),
        ({"lr_base": -1.0}, "lr_base must be a number that is not negative, got -1.0"),
        ({"lr_base": float("inf")}, "lr_base must be a number that is not negative, got inf"),
        ({"lr_factor": -1.0}, "lr_factor must not be negative, got -1.0"),
        ({"lr_factor": float("nan")}, "lr_factor must not be negative, got nan"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
        ({"warmup_end": -1}, "warmup_end must not be negative, got -1"),
        ({"lr_decay": 0.5}, "lr_decay has no effect without cosine_anneal False; got 0.5"),
        ({"lr_patience": 5}, "lr_patience has no effect without cosine_anneal F"),
        ({"reduce_factor": 0.5}, "reduce_factor has no effect without cosine_ann"),
        ({**STEPS, "lr_decay_from": 3}, "lr_decay_from has no effect without lr_decay; got 3"),
        ({**STEPS, "lr_patience": 3}, "lr_patience has no effect without reduce_factor; got 3"),
        ({**STEPS, "reduce_factor": 0.5}, "reduce_factor has no effect without lr_patience; got"),
        ({"lr_drops": "1,2"}, "lr_drops has no effect without cosine_anneal False; got 1,2"),
        ({"nonmono": 0}, "nonmono must be at least 1, got 0"),
        ({"average_from": -1}, "average_from must not be negative, got -1"),
        ({"finetune": True}, "finetune needs restore, the folder of the run to take weights from"),
        (
            {"load_pretrained": "a", "restore": "b"},
            "load_pretrained and restore exclude each",
        ),
        ({"average_decay": 1.0}, r"average_decay must be in \(0, 1\), got 1.0"),
        ({"warmup_steps": 3, "warmup_end": 1}, "warmup_steps and warmup_end exclude each other"),
        ({"noam": True, "cosine_anneal": False}, "noam needs warmup_steps or warmup_end"),
        (
            {"noam": True, "cosine_anneal": False, "warmup_steps": 5, "lr_drops": "1"},
            "noam excludes lr_decay and lr_drops, got lr_decay 1.0 and lr_drops '1'",
        ),
        ({"keep_every_hours": 0.0}, "keep_every_hours must be positive, got 0.0"),
        ({"jax_seed": -1}, "jax_seed must be from 0 to 4294967295, got -1"),
        ({"jax_seed": 2**32}, "jax_seed must be from 0 to 4294967295, got 4294967296"),
        ({"reduce_factor": 0.0}, r"reduce_factor must be in \(0, 1\], got 0.0"),
        ({"reduce_factor": 1.1}, r"reduce_factor must be in \(0, 1\], got 1.1"),
        ({"n_seeds": 0}, "n_seeds must be at least 1, got 0"),
        ({"n_seeds": 10**9}, "n_seeds must be from 1 to 4096, got 1000000000"),
        ({"n_seeds": 2, "jax_seed": 2**32 - 1}, "jax_seed must be from 0 to 4294967294, got 429"),
        ({"n_microbatch": 2, "per_device_batch_size": 4}, "exclude each other, got 2 and 4"),
        ({"optimizer": "lbfgs", "max_iter": 0}, "max_iter must be at least 1, got 0"),
        ({"bptt": 0, "dataset": "ptb-lm"}, "bptt must be at least 1, got 0"),
        ({"clip_norm": 0.0}, "clip_norm must be positive, got 0.0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0"),
        ({"steps_per_call": 0}, "steps_per_call must be at least 1, got 0"),
        (
            {"steps_per_call": 7, "on_device": False},
            "steps_per_call must be 1 with on_device False, .*; got 7",
        ),
        ({"name": ""}, "name must be a plain folder name, got ''"),
        ({"name": ".."}, r"name must be a plain folder name, got '\.\.'"),
        ({"name": "a/b"}, "name must be a plain folder name, got 'a/b'"),
        ({"eval_only": True, "reset": True}, "reset and eval_only exclude each other"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Config.from_flat(changes)
