"""Runs of a sweep: names, command lines, lanes, and refusals before anything starts."""

import re

import pytest
import yaml

from lru.commands.sweep import asked
from lru.defaults import resolved
from lru.flags import parse
from lru.launch.planning import plan
from lru.launch.sweep_files import load_sweep, read_sweep, sweep_names
from lru.run_folders import result_hash
from lru.words import UsageError


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sweep(parameters, more="method: grid"):
    return read_sweep(
        yaml.safe_load(f"{{{more}, parameters: {{{parameters}}}}}"), "toy", "toy.yaml"
    )


def planned(parameters, *flags, more="method: grid", **options):
    found = sweep(parameters, more)
    return plan(found, found.points(), flags, **options)


BASE = (
    "dataset: {value: copy-classification}, data_options: {parameters: {delay: {value: 2}}}, "
    "model: {value: gru}, plots: {value: false}, lr_drops: {value: null}"
)


def test_a_run_has_the_values_of_its_point_and_a_name_that_tells_them():
    runs = planned(
        f"{BASE}, lr_base: {{values: [0.001, 3e-3]}}, cosine_anneal: {{values: [true, false]}}",
        "--epochs",
        "2",
        "--data_o",
        "n_train=7",
        "--model",
        "qrnn",
    )
    assert [each.run.path.name[:-7] for each in runs] == [
        *("lr_base=0.001,cosine_anneal=True", "lr_base=0.001,cosine_anneal=False"),
        *("lr_base=3e-3,cosine_anneal=True", "lr_base=3e-3,cosine_anneal=False"),
    ]
    for each in runs:
        config = parse(each.words)[1]
        values = config.flat()
        assert (values["model"], values["epochs"], values["plots"]) == ("qrnn", 2, False)
        assert values["data_options"] == {"delay": "2", "n_train": "7"}
        assert values["runs_dir"] == "runs/toy"
        assert values["name"] == each.run.path.name
        assert each.run.path.parent.as_posix() == "runs/toy"
        assert config.train == each.config.train
        assert each.outcome is None
    assert [each.config.train.lr_base for each in runs] == [1e-3, 1e-3, 3e-3, 3e-3]


def test_points_that_are_added_leave_the_names_of_others():
    def names(values, *flags, **options):
        found = planned(f"{BASE}, jax_seed: {{values: {values}}}", *flags, **options)
        return [str(each.run.path) for each in found]

    assert names([1, 2, 3])[:2] == names([1, 2]) == names([1, 2, 2])
    assert names([1, 2], "--checkpoint_every", "7") == names([1, 2])
    assert not {*names([1, 2], "--epochs", "7")} & {*names([1, 2])}
    (first, _) = names([1, 2], "--runs_dir", "there", name="here")
    assert re.fullmatch("there/here/jax_seed=1-......", first)
    assert names([1], "--epochs", "7")[0].startswith("runs/toy/only-")


@pytest.mark.parametrize(
    ("parameters", "flags", "sentence"),
    [
        (
            "lr_bsae: {values: [1, 2]}",
            [],
            "values that no flag has: lr_bsae; did you mean 'lr_base'",
        ),
        ("lr_base: {values: [high]}", [], "toy.yaml: lr_base is 'high', but must be a number"),
        ("lr_base: {values: [1, -2]}", [], "lr_base must be a number that is not negative, got -2"),
        ("lr_base: {values: [1, 2]}", ["--lr_b", "3"], "lr_base has several values in sweep toy"),
        (
            "learning_rate: {value: 1}, lr_b: {values: [1, 2]}",
            [],
            "sweep toy.yaml: learning_rate, lr_b are one flag, lr_base: leave one",
        ),
        (
            "epochs: {value: 1}",
            ["--epoks", "3"],
            "the command line has values .*: epoks",
        ),
        ("name: {values: [a, b]}", [], "name has no place in a sweep"),
        ("epochs: {value: 1}", ["--reset"], "reset has no place in a sweep"),
        ("r_min: {value: 1}, model: {values: [lru, gru]}", [], "r_min is an option of model"),
        ("recipe: {values: [quick]}", [], "unknown recipe 'quick'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_starts(parameters, flags, sentence):
    with pytest.raises(ValueError, match=sentence):
        planned(parameters, *flags)


@pytest.mark.parametrize("name", sweep_names())
def test_a_sweep_of_the_package_has_the_runs_that_an_agent_of_wandb_starts(name):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    found = load_sweep(name)
    points = found.points()[:2]
    for point, each in zip(points, plan(found, points), strict=True):
        command = {"args": {flag: {"value": value} for flag, value in point.items()}}
        config = parse(utils.create_sweep_command_args(command)["args"])[1]
        assert each.run.path.name.endswith(f"-{result_hash(resolved(config))}")
    assert len(found.points()) > 10


# Lanes.

RATES = "lr_base: {values: [0.001, 0.01]}, weight_decay: {values: [0, 0.1]}"


def joined(parameters, *flags, **options):
    """The label of each run, and the lanes and seeds that it trains."""
    found = planned(f"{BASE}, {parameters}", *flags, join_lanes=True, **options)
    trains = [(each.run.path.name[:-7], each.config.train) for each in found]
    return {name: (t.lanes, t.jax_seed, t.n_seeds) for name, t in trains}


def test_points_that_lanes_can_be_are_joined():
    lanes = ("lr_base=0.001,0.01", "weight_decay=0,0.1")
    label = "lanes=lr_base=0.001,0.01+weight_decay=0,0.1"
    assert joined(RATES) == {label: (lanes, 1919, 1)}
    assert joined(f"d_model: {{values: [4, 8]}}, {RATES}") == {
        f"d_model={width},{label}": (lanes, 1919, 1) for width in (4, 8)
    }
    seeds = "jax_seed: {values: [6, 5, 7]}"
    assert joined(f"{seeds}, lr_base: {{values: [0.1, 1]}}", "--data_seed", "3") == {
        "jax_seed=5,n_seeds=3,lanes=lr_base=0.1,1": (("lr_base=0.1,1",), 5, 3)
    }


def test_names_are_made_whole_before_points_are_joined():
    seeds = "jax-s: {values: [6, 5]}, learning_rate: {values: [0.1, 1]}"
    assert joined(seeds, "--data_seed", "3") == {
        "jax_seed=5,n_seeds=2,lanes=lr_base=0.1,1": (("lr_base=0.1,1",), 5, 2)
    }


@pytest.mark.parametrize(
    ("parameters", "flags", "count"),
    [
        ("jax_seed: {values: [5, 6]}", [], 2),  # each has an order of its own
        ("jax_seed: {values: [5, 7]}", ["--data_seed", "3"], 2),  # not one after the other
        ("lr_base: {values: [0.1, 1]}", ["--n_seeds", "2"], 2),  # lanes already
        ("weight_decay: {values: [0]}, d_model: {values: [4, 8]}", [], 2),
    ],
)
def test_other_points_stay_runs_of_their_own(parameters, flags, count):
    assert len(joined(parameters, *flags)) == count


def test_points_that_are_no_product_stay_runs_of_their_own():
    assert len(joined(RATES, more="method: grid, run_cap: 3")) == 3


def test_numbers_of_jobs_and_runs_are_checked():
    for flag in ("jobs", "n_runs"):
        with pytest.raises(UsageError, match=f"{flag} must be at least 1, got 0"):
            asked(["copy-recurrences", f"--{flag}", "0"])
