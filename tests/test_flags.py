"""The command line: published commands, prefixes, recipes, existing runs, refusals."""

import contextlib
import dataclasses
import io
import re

import pytest
import yaml

from lru import origins
from lru.config import CHOICES, GROUPS, Config
from lru.flags import CommandConfig, parse
from lru.layers import LAYERS
from lru.models.encoder import BlockOptions
from lru.origins import load_recipe, recipe_names
from lru.tasks import TASKS
from lru.words import UsageError, expand


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """The folder of runs is empty, whatever has been trained in the checkout."""
    monkeypatch.chdir(tmp_path)


def read(line, *more):
    return parse([*line.split(), *more])[1]


def changed(config):
    """The values that are not defaults of what is chosen; the task follows from the data."""
    flat, plain = config.flat(), Config.from_flat({}).flat()
    picked = {name: flat[name] for name in ("model", "dataset", "task", "optimizer")}
    defaults = Config.from_flat(picked).flat() | {name: plain[name] for name in picked}
    return {k: v for k, v in flat.items() if v != defaults[k] and k != "task"}


# Published commands.

PUBLISHED = (
    "--model diag-rnn --n_layers 6 --dataset listops-classification --warmup 5 --d_model 256 "
    "--d_hidden 192 --epochs 50 --batch_size 32 --A_init fixed --lr_factor 0.05 --p_dropout 0 "
    "--use_wandb False"
)


def test_the_published_command():
    assert changed(read(PUBLISHED)) == {
        "model": "diag-rnn",
        "n_layers": 6,
        "warmup_end": 5,
        "d_hidden": 192,
        "epochs": 50,
        "batch_size": 32,
        "A_init": "fixed",
        "lr_factor": 0.05,
        "p_dropout": 0.0,
    }


def test_the_other_published_commands():
    assert changed(
        read(
            "--model diag-rnn --n_layers 6 --dataset cifar-classification --warmup 18 --epochs 180 "
            "--batch_size 50 --d_model 512 --d_hidden 384 --lr_factor 0.025 --A_init fixed"
        )
    ) == {
        "model": "diag-rnn",
        "n_layers": 6,
        "dataset": "cifar-classification",
        "warmup_end": 18,
        "epochs": 180,
        "batch_size": 50,
        "d_model": 512,
        "d_hidden": 384,
        "lr_factor": 0.025,
        "A_init": "fixed",
    }
    assert changed(
        read(
            "--model diag-rnn --n_layers 6 --dataset imdb-classification --warmup_end 7 "
            "--d_model 192 --d_hidden 256  --batch_size 32 --A_init fixed --epochs 65 "
            "--lr_factor 0.025"
        )
    ) == {
        "model": "diag-rnn",
        "n_layers": 6,
        "dataset": "imdb-classification",
        "warmup_end": 7,
        "d_model": 192,
        "d_hidden": 256,
        "batch_size": 32,
        "A_init": "fixed",
        "epochs": 65,
        "lr_factor": 0.025,
    }


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("warmup_end", "7", 7),
        ("lr_base", "1e-4", 1e-4),
        ("lr_min", "1e-8", 1e-8),
        ("cosine_anneal", "False", False),
        ("early_stop_patience", "9", 9),
        ("weight_decay", "0.1", 0.1),
        ("r_min", "0.1", 0.1),
        ("r_max", "0.99", 0.99),
        ("max_phase", "0.314", 0.314),
        ("norm", "layer", "layer"),
        ("prenorm", "False", False),
        ("pooling", "last", "last"),
        ("jax_seed", "3", 3),
        ("dir_name", "elsewhere", "elsewhere"),
        ("use_wandb", "True", True),
        ("wandb_project", "p", "p"),
        ("wandb_entity", "e", "e"),
        ("A_init", "halved_glorot", "halved_glorot"),
        ("bidirectional", "True", True),
        ("max_steps", "3", 3),
        ("log_every", "4", 4),
        ("checkpoint_every", "5", 5),
        ("name", "n", "n"),
        ("eval_only", "True", True),
        ("clip_norm", "1", 1.0),
    ],
)
def test_every_published_flag(flag, text, value):
    assert changed(parse([f"--{flag}", text])[1]) == {flag: value}


def test_published_flags_of_plateaus():
    line = "--cosine_anneal False --lr_patience 5 --reduce_factor 0.5"
    values = {"cosine_anneal": False, "lr_patience": 5, "reduce_factor": 0.5}
    assert changed(read(line)) == values


def test_no_arguments_give_the_defaults():
    command, config = parse([])
    assert config == Config.from_flat({})
    assert command == CommandConfig()


# Spelling.

KNOWN = {"name": False, "n_layers": False, "n_buckets": False, "reset": True, "gamma": True}


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("--n_l 3", "--n_layers 3"),
        ("--na x", "--name x"),
        ("--rese", "--rese"),
        ("--n-layers 3", "--n_layers 3"),
        ("--n_layers=3", "--n_layers 3"),
        ("--name=a=b", "--name a=b"),
        ("--name=", "--name "),
        ("--reset", "--reset True"),
        ("--reset --name a", "--reset True --name a"),
        ("--reset true", "--reset True"),
        ("--reset 0", "--reset False"),
        ("--reset=no", "--reset False"),
        ("--reset=False --gamma", "--reset False --gamma True"),
        ("--gamma None", "--gamma None"),
        ("--gamma=none", "--gamma None"),
        ("--name 1", "--name 1"),
        ("--n_layers -3", "--n_layers -3"),
        ("--unknown 3", "--unknown 3"),
        ("--plugins a.py b.py --reset --plugins=c.py", "--reset True --plugins a.py,b.py,c.py"),
        ("--help", "--help"),
        ("-h", "-h"),
    ],
)
def test_flags_are_written_out(typed, written):
    assert expand(typed.split(), KNOWN) == written.split(" ")


@pytest.mark.parametrize("form", ["args", "args_no_equals"])
def test_what_an_agent_of_wandb_makes_of_a_sweep_is_understood(form):
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    values = {
        "model": "gru",
        "lr_base": "3e-3",
        "plots": False,
        "tensorboard": True,
        "on_device": None,
        "max_steps": None,
        "clip_norm": None,
        "name": None,
        "epochs": 7,
        "lr_decay": 1.0,
        "lanes": ["lr_base=1e-3,1e-2", "weight_decay=0,0.1"],
        "data_options": {"n_train": 24, "source": "a b"},
        "data_options.delay": 3,
    }
    command = {"args": {name: {"value": value} for name, value in values.items()}}
    config = parse(utils.create_sweep_command_args(command)[form])[1].flat()
    expected = values | {
        "lr_base": 3e-3,
        "lanes": tuple(values["lanes"]),
        "data_options": {"n_train": "24", "source": "a b", "delay": "3"},
    }
    del expected["data_options.delay"]
    assert {name: config[name] for name in expected} == expected
    assert utils.create_sweep_command(None)[-1] == "${args}"


@pytest.mark.parametrize(
    ("words", "lanes"),
    [
        (["--lanes=None"], ()),
        (["--lanes=[]"], ()),
        (["--lanes={'lr_base': [0.1, 0.2]}"], ("lr_base=0.1,0.2",)),
        (
            ["--lanes.lr_base=[0.1, 0.2]", "--lanes.lr_factor", "1"],
            ("lr_base=0.1,0.2", "lr_factor=1"),
        ),
        (["--lanes=[lr_base"], ("[lr_base",)),
    ],
)
def test_lists_are_taken_as_python_writes_them(words, lanes):
    assert parse(words)[1].train.lanes == lanes


def test_an_ambiguous_prefix_lists_what_it_fits():
    with pytest.raises(UsageError, match=r"--n_ is short for several flags: n_buckets, n_layers$"):
        expand(["--n_", "3"], KNOWN)
    with pytest.raises(UsageError, match="--lr_ is short for several flags: lr_base, lr_decay, "):
        read("--lr_ 3")


def test_a_whole_name_is_no_prefix():
    assert changed(read("--model rnn --norm layer")) == {"model": "rnn", "norm": "layer"}


@pytest.mark.parametrize("flag", ["bidirectional", "gamma", "reset", "eval_only", "plots"])
def test_bare_booleans_are_true(flag):
    assert read(f"--{flag} --epochs 3").flat()[flag] is True


def test_none_and_negative_values():
    assert changed(read("--max_steps None --gamma None --max_phase -1 --clip_norm None")) == {
        "max_phase": -1.0
    }
    with pytest.raises(ValueError, match="lr_min must lie between"):
        read("--lr_min -1e-3")


def test_options_of_the_data_set():
    assert read("--data_options a=1 b=x=y --epochs 3").data.data_options == {"a": "1", "b": "x=y"}
    assert read("--data_options").data.data_options == {}
    assert read("--protocol lra --data_options n_val=5").data.data_options == {
        "n_val": "5",
        "protocol": "lra",
    }
    assert read("--data_options a=1 b=2 --epochs 3 --data_options b=3 --data_o=c=4").flat() == {
        **read("--epochs 3").flat(),
        "data_options": {"a": "1", "b": "3", "c": "4"},
    }
    with pytest.raises(UsageError, match="data_options takes NAME=VALUE, got 'a'"):
        read("--data_options a")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--rate_of_learning 1", "--rate_of_learning"),
        ("--n_layers three", "three"),
        ("--n_layers", "n_layers"),
        ("--norm group", "group"),
        ("--reset maybe", "maybe"),
        ("stray", "stray"),
    ],
)
def test_what_cannot_be_read_ends_the_command(line, told, capsys):
    with pytest.raises(SystemExit) as caught:
        read(line)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="n_layers must be at least 1, got 0"):
        read("--n_layers 0")


# Where values come from.


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(origins, "RECIPES", tmp_path)

    def write(text, name="toy"):
        (tmp_path / f"{name}.yaml").write_text(f"title: Toy\nconfig:\n{text}")

    return write


def test_flags_override_a_recipe(recipe):
    recipe("  {model: lru, r_min: 0.2, r_max: 0.8, epochs: 3, norm: layer, reset: true}\n")
    config = read("--recipe toy --r_min 0.5 --norm batch --reset False")
    assert changed(config) == {"r_min": 0.5, "r_max": 0.8, "epochs": 3}


def test_another_model_drops_the_recurrence_of_a_recipe(recipe):
    recipe("  {model: lru, r_min: 0.2, epochs: 3}\n")
    assert changed(read("--recipe toy --model rnn --A_init glorot")) == {
        "model": "rnn",
        "A_init": "glorot",
        "epochs": 3,
    }
    assert read("--recipe toy --model lru").model.options["r_min"] == 0.2


def test_another_model_or_body_drops_what_its_body_has_no_use_for(recipe):
    recipe("  {dataset: ptb-lm, model: lstm, p_hidden: 0.2, tied: false}\n")
    for line in ("--model lru", "--body blocks"):
        model = read(f"--recipe toy {line}").model
        assert model.body == "blocks"
        assert model.body_options == dataclasses.asdict(BlockOptions())


def test_another_optimiser_keeps_what_it_shares_with_that_of_a_recipe(recipe):
    recipe("  {optimizer: sgd, weight_decay: 0.2, clip_norm: 0.5}\n")
    config = read("--recipe toy --optimizer rmsprop")
    assert changed(config) == {"optimizer": "rmsprop", "weight_decay": 0.2, "clip_norm": 0.5}
    config = read("--recipe toy --optimizer lbfgs")
    assert changed(config) == {"optimizer": "lbfgs", "clip_norm": 0.5}


def test_options_of_the_data_set_in_a_recipe(recipe):
    recipe("  data_options: {n_train: 5, deep: true, limit: null}\n")
    assert read("--recipe toy").data.data_options == {
        "n_train": "5",
        "deep": "True",
        "limit": "None",
    }
    overridden = read("--recipe toy --data_options n_train=6").data.data_options
    assert overridden == {"n_train": "6", "deep": "True", "limit": "None"}
    assert read("--recipe toy --dataset mnist-classification").data.data_options == {}


def test_numbers_in_a_recipe_are_read_as_on_the_command_line(recipe):
    # YAML takes 1e-2, which has no point, for text.
    recipe("  {lr_base: 1e-2, p_dropout: 0, max_steps: 5, r_min: 0}\n")
    config = read("--recipe toy")
    assert changed(config) == {"lr_base": 0.01, "p_dropout": 0.0, "max_steps": 5, "r_min": 0.0}
    assert isinstance(config.model.p_dropout, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  epoch: 3\n", "toy has values that no flag has: epoch; did you mean 'epochs'"),
        ("  recipe: b\n", "recipe toy has values that no flag has: recipe$"),
        ("  epochs: 2.5\n", "recipe toy: epochs is 2.5, but must be a whole number"),
        ("  norm: group\n", "recipe toy: norm is 'group', but must be one of batch, layer"),
        ("  reset: 'maybe'\n", "recipe toy: reset is 'maybe', but must be True or False"),
    ],
)
def test_a_recipe_with_a_slip_is_refused(recipe, text, message):
    recipe(text)
    with pytest.raises(ValueError, match=message):
        read("--recipe toy")


def test_two_recipes_are_refused(recipe):
    recipe("  {}\n", "one")
    with pytest.raises(UsageError, match="recipe must be given once"):
        read("--recipe one --rec one")


def test_an_unknown_recipe_lists_the_known_ones(recipe):
    recipe("  {}\n", "one")
    recipe("  {}\n", "two")
    assert recipe_names() == ["one", "two"]
    with pytest.raises(UsageError, match=r"unknown recipe 'three'; known: one, two$"):
        read("--recipe three")


def test_a_recipe_may_be_a_file_whose_plugins_are_not_trusted(recipe, tmp_path):
    (tmp_path / "mine").mkdir()
    recipe("  {epochs: 3}\n", "mine/own")
    assert changed(read("--recipe mine/own.yaml")) == {"epochs": 3}
    recipe("  {plugins: nowhere.py}\n", "mine/own")
    with pytest.raises(ValueError, match=r"recipe mine/own.yaml names plugins.*--trust_plugins"):
        read("--recipe mine/own.yaml")
    with pytest.raises(
        UsageError, match=r"must name a recipe of the package or a file, got 'other.yaml'"
    ):
        read("--recipe other.yaml")
    (tmp_path / "config.yaml").write_text("format: 3\n")
    with pytest.raises(UsageError, match=r"'config\.yaml' must have its values, by flag, under"):
        read("--recipe config.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_read(name):
    recipe = load_recipe(name)
    assert {"title", "source", "expected", "config"} <= set(recipe)
    flat = read(f"--recipe {name}").flat()
    assert all(
        str(flat[key]) == str(value) or flat[key] == value
        for key, value in recipe["config"].items()
        if key != "data_options"
    )


def save(config, folder):
    """Pretend that a run of this configuration has a checkpoint."""
    (folder / "checkpoints" / "last" / "12").mkdir(parents=True)
    config.save(folder / "config.yaml")


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "runs" / "old"
    config = Config.from_flat(
        {
            "name": "old",
            "runs_dir": str(tmp_path / "runs"),
            "r_min": 0.2,
            "epochs": 3,
            "data_options": {"n_train": 5},
        }
    )
    save(config, folder)
    return config


def test_an_existing_name_continues_with_its_values(saved):
    runs = saved.run.runs_dir
    config = read("--name old --runs_dir", runs)
    assert config.flat() == saved.flat() | {"data_options": {"n_train": "5"}}
    assert read("--epochs 4 --name old --runs_dir", runs).train.epochs == 4


def test_reset_or_a_new_name_starts_from_the_defaults(saved):
    runs = saved.run.runs_dir
    assert read("--name old --reset --runs_dir", runs).train.epochs == 100
    assert read("--name new --runs_dir", runs).train.epochs == 100


def test_a_run_that_never_saved_lends_no_values(saved, tmp_path):
    (tmp_path / "runs" / "old" / "checkpoints" / "last" / "12").rmdir()
    assert read("--name old --runs_dir", saved.run.runs_dir).train.epochs == 100


def test_restore_continues_another_run_under_another_name(saved, tmp_path):
    path = str(tmp_path / "runs" / "old")
    config = read("--lr_base 1e-4 --name new --restore", path)
    assert config.run.name == "new"
    assert config.run.restore == path
    assert config.train.epochs == 3
    assert config.train.lr_base == 1e-4
    assert read("--restore", path).run.name is None


def test_a_run_is_restored_by_its_name(saved):
    config = read("--name new --restore old --runs_dir", saved.run.runs_dir)
    assert (config.run.restore, config.train.epochs) == ("old", 3)


def test_resume_needs_something_to_resume(saved):
    runs = saved.run.runs_dir
    assert read("--name old --resume --runs_dir", runs) == read("--name old --runs_dir", runs)
    with pytest.raises(UsageError, match=r"resume: there is no checkpoint in .*runs/new; .*--name"):
        read("--name new --resume --runs_dir", runs)
    with pytest.raises(UsageError, match="resume and reset exclude each other"):
        read("--name old --resume --reset --runs_dir", runs)


def test_a_fine_tuned_run_is_restored_as_any_other(saved, tmp_path):
    path = str(tmp_path / "runs" / "old")
    tuned = read("--name tuned --finetune --average_from 0 --restore", path)
    assert tuned.train.finetune
    save(tuned, tmp_path / "runs" / "tuned")
    again = read("--name again --restore", str(tmp_path / "runs" / "tuned"))
    assert not again.train.finetune
    assert again.train.average_from == 0


@pytest.mark.parametrize("name", ["--name new", "", "--finetune"])
def test_a_restored_run_resumes_without_the_run_it_came_from(saved, tmp_path, name):
    line = f"{name} --epochs 4 --runs_dir {saved.run.runs_dir} --restore {tmp_path / 'gone'}"
    (tmp_path / "runs" / "old").rename(tmp_path / "gone")
    first = read(line)
    save(first, tmp_path / "runs" / "new")
    (tmp_path / "gone").rename(tmp_path / "elsewhere")
    assert read(line) == first
    if not name:
        save(first, tmp_path / "runs" / "newer")
        with pytest.raises(UsageError, match=r"gone does not exist; .*: new, newer; --name the on"):
            read(line)


def test_restore_needs_a_run(tmp_path):
    with pytest.raises(
        UsageError, match="restore must be the name or the folder of a run: there is"
    ):
        read("--restore", str(tmp_path))


# One place for each fact.


@pytest.fixture(scope="module")
def helped():
    """The help text, its lines joined."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    return re.sub(r"[\s│]+", " ", out.getvalue())


SENTENCE = r"[A-Z]((?! --).)+?\. \("


def test_the_help_has_what_applies_and_a_sentence_for_each(helped):
    groups = (CommandConfig, *GROUPS.values())
    names = {part.name for group in groups for part in dataclasses.fields(group)}
    names -= {choice.field for choice in CHOICES}
    for choice, chosen in zip(CHOICES, ("lru", "blocks", "classification", "adamw"), strict=True):
        names |= choice.of(chosen).keys()
    for name in names:
        assert re.search(rf"--{name} (\S+|\[.*?\]\]) {SENTENCE}", helped), name
    assert "--bptt" not in helped
    assert "--r_max {None}|FLOAT Largest initial modulus" in helped
    assert "n_train=96000" in helped, "the options of the data set"


def test_the_help_has_the_options_that_the_name_of_a_data_set_stands_for(capsys):
    with pytest.raises(SystemExit):
        parse(["--dataset", "mnist-tsne-d3-r5", "--help"])
    printed = " ".join(re.sub("[│╭╮╰╯─]", "", capsys.readouterr().out).split())
    assert re.search("Those of mnist-tsne-d3-r5: .* d=3: .* r=5: ", printed)


def test_the_whole_help_has_the_options_of_all_with_their_owners(capsys):
    with pytest.raises(SystemExit):
        parse(["--help_all", "--model", "qrnn"])
    printed = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    names = {n for choice in CHOICES for entry in choice.registry for n in choice.of(entry)}
    for name in names:
        assert f"--{name} " in printed, name
    owners = "diag-rnn, indrnn, rnn, d-linoss, lru, rg-lru"
    assert re.search(rf"--r_max \S+ Largest initial modulus.*?\(of {owners}\)", printed)


def test_classes_of_a_kind_agree_on_the_types_of_their_options():
    for choice in CHOICES:
        kinds = {}
        for entry in choice.registry:
            for name, option in choice.of(entry).items():
                assert kinds.setdefault(name, option.kind) == option.kind, name


# Options and their owners.


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--model qrnn --r_min 0.5",
            r"r_min is an option of model 'diag-rnn', model 'indrnn', model 'rnn', "
            r"model 'd-linoss', model 'lru', model 'rg-lru', but",
        ),
        ("--p_hidden 0", r"p_hidden is an option of body 'cells', but this run has .*'blocks'"),
        ("--model gru --dataset ptb-lm --norm batch", r"norm is an option of body 'blocks', but"),
        (
            "--body cells",
            r"body cells is for model elman, gru, indrnn, lstm, mingru, minlstm, qrnn, rg-lru, "
            r"sru, got model 'lru'",
        ),
        ("--ar 2", r"ar is an option of task 'language_modelling', but this run has .*'classifi"),
        ("--history_size 3", r"history_size is an option of optimizer 'lbfgs', but .*'adamw'"),
        ("--optimizer lbfgs --lr_factor 1", r"lr_factor is an option of optimizer 'adamw', "),
        (
            "--optimizer adamm",
            r"unknown optimizer 'adamm'; known: adagrad, adam, adamw, lbfgs, lion, muon, rms",
        ),
        ("--task guess", r"unknown task 'guess'; known: classification, "),
    ],
)
def test_options_of_nobody_chosen_are_refused_with_their_owners(line, message):
    with pytest.raises(ValueError, match=message):
        read(line)


def test_published_options_without_effect_are_taken_with_a_warning(caplog):
    with caplog.at_level("WARNING", "lru.flags"):
        assert changed(read("--bptt 35 --epochs 3")) == {"epochs": 3}
    (message,) = caplog.messages
    assert "--bptt has no effect here" in message


def test_a_model_and_a_task_declare_defaults_for_others_and_flags_win(monkeypatch):
    layer, task = LAYERS["lru"], TASKS["classification"]
    monkeypatch.setattr(layer, "defaults", {"lr_base": 0.1})
    monkeypatch.setattr(task, "defaults", {"optimizer": "sgd", "lr_base": 0.2, "lr_factor": 1.0})
    config = read("--epochs 3")
    assert (config.optimizer.optimizer, config.train.lr_base) == ("sgd", 0.1)
    assert config.optimizer.options["lr_factor"] == 1.0
    config = read("--optimizer adam --lr_base 0.3 --lr_factor 0.5")
    assert (config.optimizer.optimizer, config.train.lr_base) == ("adamw", 0.3)
    assert config.optimizer.options["lr_factor"] == 0.5
    assert read("--model rnn").train.lr_base == 0.2
    # It knows no recurrent parameters.
    assert read("--optimizer lbfgs").optimizer.optimizer == "lbfgs"
    monkeypatch.setattr(task, "defaults", {"clip_nrom": 1.0})
    with pytest.raises(ValueError, match="there is no option clip_nrom"):
        read("--epochs 3")


def test_an_option_of_a_plugin_with_deferred_annotations_may_be_none(tmp_path, monkeypatch):
    path = tmp_path / "cut.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from lru.layers import LAYERS, LSTM\n"
        "@LAYERS.register('cut')\n"
        "class Cut(LSTM):\n"
        "    def __init__(self, d_model, d_hidden, *, cut: int | None = 5, rngs):\n"
        "        super().__init__(d_model, d_hidden, rngs=rngs)\n"
    )
    monkeypatch.setattr(LAYERS, "_entries", dict(LAYERS._entries))
    command = f"--plugins {path} --model cut"
    assert read(command).model.options == {"cut": 5}
    assert read(f"{command} --cut None").model.options == {"cut": None}


def test_published_prefixes_stay_what_they_are(monkeypatch):
    both = {"warmup_end": False, "warmup_shape": False}
    assert expand(["--warmup", "3"], both) == ["--warmup_end", "3"]


def test_former_names_of_flags_are_understood():
    assert read("--model lru --block_length 8") == read("--model lru --chunk_length 8")


def test_a_saved_command_reads_back_as_itself(tmp_path):
    config = read(f"{PUBLISHED} --name a --runs_dir {tmp_path}")
    folder = tmp_path / "a"
    save(config, folder)
    assert read(f"--name a --runs_dir {tmp_path}") == config
    assert yaml.safe_load((folder / "config.yaml").read_text())["layer"]["A_init"] == "fixed"
