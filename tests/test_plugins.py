"""Files outside the package: found, run once, kept with the run, named when they are missing."""

import sys
from pathlib import Path

import pytest

from lru.commands import main as verbs
from lru.commands import run_train as main
from lru.config import Config
from lru.dataloaders import DATASETS
from lru.experiment import load_model
from lru.flags import parse
from lru.layers import LAYERS
from lru.plugins import load_plugins
from lru.training.runs import Run

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_dataset.py"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    """What plugins register and import is gone after the test."""
    for registry in (DATASETS, LAYERS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path):
    """A file that counts how often it is run."""
    path = tmp_path / "counting.py"
    log = tmp_path / "log"
    path.write_text(f"with open({str(log)!r}, 'a') as log:\n    log.write('x')\n")
    return path, lambda: len(log.read_text())


def test_a_file_is_run_once_whatever_its_path_is_written_like(plugin, monkeypatch):
    path, runs = plugin
    assert load_plugins(str(path))
    monkeypatch.chdir(path.parent)
    assert not load_plugins(f"{path}, counting.py,./counting.py")
    assert not load_plugins([str(path), "counting.py"])
    assert runs() == 1


def test_a_module_is_imported_by_its_name(plugin, monkeypatch):
    path, runs = plugin
    monkeypatch.syspath_prepend(path.parent)
    assert load_plugins("counting")
    assert not load_plugins("counting")
    assert runs() == 1


def test_a_file_that_failed_is_run_again(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_plugins(str(path))


def test_a_file_that_is_no_python_is_named_with_the_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ndef (\n")
    with pytest.raises(ValueError, match=r"^plugins: .*broken\.py, line 2 is no Python: invalid"):
        load_plugins(str(path))


def test_missing_plugins_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"plugins: there is no file nowhere/x\.py"):
        load_plugins("nowhere/x.py")
    with pytest.raises(ValueError, match=r"plugins: there is no module 'nowhere\.x'"):
        load_plugins("nowhere.x")
    (tmp_path / "needs_more.py").write_text("import nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"):
        load_plugins("needs_more")


def test_a_plugin_brings_its_flags(tmp_path):
    path = tmp_path / "layer.py"
    path.write_text(
        "from lru.layers import LAYERS, LRU\n"
        "class Mine(LRU):\n"
        "    '''A layer of one's own.'''\n"
        "    def __init__(self, d_model, d_hidden, *, half_life: int = 3, rngs):\n"
        "        '''Draw.\n\n        Args:\n            half_life: of the memory.\n        '''\n"
        "LAYERS.register('mine')(Mine)\n"
    )
    typed = ["--plugins", str(path), "--model", "mine", "--half_life", "5", "--epochs", "2"]
    config = parse(typed)[1]
    assert config.model.options == {"half_life": 5}
    assert config.run.plugins == str(path)


def test_a_layer_without_docstrings_is_listed_and_has_flags(tmp_path, capsys):
    path = tmp_path / "bare.py"
    path.write_text(
        "from lru.layers import LAYERS, LRU\n"
        "@LAYERS.register('bare')\n"
        "class Bare(LRU):\n"
        "    def __init__(self, d_model, d_hidden, *, half_life: int = 3, rngs):\n"
        "        pass\n"
    )
    assert main(["--plugins", str(path), "--list"]) == 0
    assert "  bare" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["--plug", str(path), "--model", "bare", "--help"])
    assert caught.value.code == 0
    assert "--half_life" in capsys.readouterr().out


def test_a_run_remembers_where_its_data_set_is_and_runs_no_plugin_unasked(tmp_path, capsys):
    sizes = ["--model", "lru", "--n_layers", "1", "--d_model", "4", "--d_hidden", "4"]
    folders = ["--runs_dir", tmp_path, "--dir_name", tmp_path / "cache", "--name", "waves"]
    options = ["--data_options", "n_train=20", "--batch_size", "10", "--max_steps", "3"]
    more = ["--plots", "False", "--plugins", EXAMPLE]
    command = ["--dataset", "waves", *sizes, *folders, *options, *more]
    assert main(list(map(str, command))) == 0
    assert main(["--plugins", str(EXAMPLE), "--list"]) == 0
    assert "Tell the period of a noisy wave." in capsys.readouterr().out
    place = ["--runs_dir", str(tmp_path), "--name", "waves", "--eval_only"]

    def forget():
        """As in a new process."""
        sys.modules.pop(f"plugin {EXAMPLE}", None)
        DATASETS._entries.pop("waves", None)

    for allowed in (["--trust_plugins"], ["--plugins", str(EXAMPLE)]):
        forget()
        assert main(place) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert f"--plugins {EXAMPLE}" in error
        assert "--trust_plugins" in error
        assert "waves" not in DATASETS
        assert main([*place, *allowed]) == 0
        assert "test/accuracy" in capsys.readouterr().out
    folder = str(tmp_path / "waves")
    for allowed in (["--trust_plugins"], ["--plugins", str(EXAMPLE)]):
        forget()
        assert verbs(["export", folder]) == 2
        assert "--trust_plugins" in capsys.readouterr().err
        assert verbs(["export", folder, *allowed]) == 0
    forget()
    with pytest.raises(ValueError, match="plugins"):
        load_model(Run(tmp_path / "waves"))
    trained = load_model(Run(tmp_path / "waves"), plugins=str(EXAMPLE))
    assert trained.data.card.name == "waves"


def test_a_plugin_that_is_named_again_may_have_moved(plugin, tmp_path):
    path, runs = plugin
    folder = tmp_path / "old"
    (folder / "checkpoints" / "last" / "12").mkdir(parents=True)
    Config.from_flat({"epochs": 3, "plugins": "gone.py"}).save(folder / "config.yaml")
    config = parse(["--name", "old", "--runs_dir", str(tmp_path), "--plug", str(path)])[1]
    assert (config.train.epochs, config.run.plugins, runs()) == (3, str(path), 1)
