"""Names: registration, aliases, refusals."""

import sys
import types

import pytest

from lru.dataloaders import DATASETS
from lru.layers import LAYERS
from lru.registry import Joined, Registry, UnknownNameError, import_submodules
from lru.tasks import TASKS


@pytest.fixture
def colours():
    registry: Registry[int] = Registry("colour")
    registry.register("red", "rouge", "rot")(1)
    registry.register("blue")(2)
    return registry


def test_entries_are_listed_in_order_and_aliases_are_not(colours):
    assert dict(colours) == {"red": 1, "blue": 2}
    assert len(colours) == 2


def test_an_alias_gives_the_entry_and_resolves_to_its_name(colours):
    assert colours["rouge"] == colours["red"] == 1
    assert colours.resolve("rot") == "red"
    assert "rouge" in colours


def test_an_unknown_name_lists_names_and_aliases(colours):
    with pytest.raises(UnknownNameError) as caught:
        colours["green"]
    assert str(caught.value) == "unknown colour 'green'; known: blue, red, rot, rouge"
    assert "green" not in colours


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mnist", "mnist-classification"),
        ("MNIST", "mnist-classification"),
        ("pmnist", "pmnist-classification"),
        ("cifar10", "cifar-classification"),
        ("seq-mnist", "mnist-classification"),
        ("ptb-chars-lm", "ptb-char-lm"),
        ("xyz", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_suggested(name, nearest):
    with pytest.raises(UnknownNameError) as caught:
        DATASETS[name]
    _, asked, suggested = str(caught.value).partition("; did you mean ")
    assert suggested == (f"{nearest!r}?" if nearest else "")
    assert bool(asked) == bool(nearest)


def test_an_unknown_name_is_a_missing_key_to_mappings(colours):
    assert colours.get("green") is None
    assert colours.get("green", 3) == 3


@pytest.mark.parametrize("names", [("red",), ("rot",), ("green", "blue"), ("green", "rouge")])
def test_a_name_is_taken_once_and_a_refusal_changes_nothing(colours, names):
    with pytest.raises(ValueError, match=r"colour '\w+' is registered twice"):
        colours.register(*names)(3)
    assert dict(colours) == {"red": 1, "blue": 2}
    assert "green" not in colours


def test_the_decorator_returns_what_it_files(colours):
    @colours.register("green")
    class Green:
        pass

    assert colours["green"] is Green


def test_importing_submodules_imports_public_modules_only(tmp_path, monkeypatch):
    folder = tmp_path / "herbarium"
    folder.mkdir()
    for name in ("__init__", "rose", "_thorn"):
        (folder / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    package = types.ModuleType("herbarium")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "herbarium", package)
    import_submodules(package)
    assert "herbarium.rose" in sys.modules
    assert "herbarium._thorn" not in sys.modules
    monkeypatch.delitem(sys.modules, "herbarium.rose")


def test_the_rooms_have_filled_their_registries():
    assert {"lru", "rnn", "diag-rnn"} <= set(LAYERS)
    assert {"listops-classification", "copy-classification", "mnist-classification"} <= set(
        DATASETS
    )
    assert "classification" in TASKS


def test_registries_are_looked_up_as_one():
    one, other = Registry("model"), Registry("model")
    joined = Joined("model", one, other)
    one.register("lstm", "long")("an LSTM")
    other.register("quantum-rnn")("a network")
    assert list(joined) == ["lstm", "quantum-rnn"]
    assert len(joined) == 2
    assert joined["quantum-rnn"] == "a network"
    assert (joined.resolve("long"), joined["long"]) == ("lstm", "an LSTM")
    assert "long" in joined
    assert "gru" not in joined
    with pytest.raises(
        UnknownNameError, match=r"^unknown model 'quantum'; known: lstm, quantum-rnn"
    ):
        joined["quantum"]
