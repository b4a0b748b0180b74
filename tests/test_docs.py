"""The pages say what is so."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from lru.commands import main, verbs
from lru.config import Config
from lru.dataloaders import DATASETS
from lru.flags import parse
from lru.layers import LAYERS
from lru.layers.initializers import EIGENVALUE_INITIALIZERS
from lru.models import MODELS
from lru.origins import load_recipe, recipe_names
from lru.tasks import TASKS
from lru.training.optimizer import OPTIMIZERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_blocks(page):
    """The blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands_of(page):
    """The command lines of a page that begin with lru, as words."""
    blocks = re.findall(r"^```bash\n([^`]*)^```|((?:^    .*\n)+)", page.read_text(), re.MULTILINE)
    lines = "".join(a + b for a, b in blocks).replace("\\\n", "").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.strip().startswith("lru ")]
    return [each for each in words if "…" not in each]


COMMANDS = {shlex.join(words): words for page in PAGES for words in commands_of(page)}


def test_the_table_of_the_readme_is_that_of_the_registries():
    done = subprocess.run([sys.executable, "docs/make_tables.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run python docs/make_tables.py"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("models.md", MODELS),
        ("data.md", DATASETS),
        ("initialization.md", EIGENVALUE_INITIALIZERS),
    ],
)
def test_every_name_is_described(page, names):
    text = (ROOT / "docs" / page).read_text()
    assert [name for name in names if f"`{name}`" not in text] == []


def test_links_and_pictures_of_the_pages_exist():
    for page in PAGES:
        for snippet in re.findall(r'^--8<-- "(.*)"', page.read_text(), re.MULTILINE):
            assert (ROOT / snippet).exists(), f"{page.name} shows {snippet}"
        prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            if not target.startswith("http"):
                path = page.parent / target
                assert path.exists(), f"{page.name} links to {target}"
                # The site has nothing else.
                assert page.parent == ROOT or path.resolve().is_relative_to(ROOT / "docs"), target


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("zensical", reason="the documentation site needs zensical: the extra docs")
    pytest.importorskip("mkdocstrings_handlers.python", reason="the extra docs is needed")
    # Copies, as the site is made beside the file that a link leads to.
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    for name in ("examples", "lru"):
        (tmp_path / name).symlink_to(ROOT / name)
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    said = done.stdout + done.stderr
    # Of some errors it says more than its exit status.
    assert done.returncode == 0, said
    assert not re.search("warning|error", said, re.IGNORECASE), said
    for page in PAGES[1:]:
        name = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        assert (tmp_path / "site" / name).exists()


@pytest.fixture
def _as_before(monkeypatch):
    """What is registered is gone after the test."""
    for registry in (DATASETS, LAYERS, OPTIMIZERS, TASKS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("plugin "):
            del sys.modules[name]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with the run that the pages call NAME, and its export."""
    folder = tmp_path_factory.mktemp("runs")
    sizes = "--n_layers 1 --d_model 4 --d_hidden 4 --batch_size 10 --norm layer --max_steps 2"
    data = "--dataset copy-classification --data_options n_train=10 n_val=10 n_test=10 delay=2"
    places = ["--runs_dir", folder, "--dir_name", folder / "cache", "--plots", "False"]
    train = [*sizes.split(), *data.split(), *places, "--name", "NAME"]
    assert main(["train", *map(str, train)]) == 0
    assert main(["export", str(folder / "NAME")]) == 0
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """The folder in which the pages are followed."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_blocks(page)], ids=lambda page: page.stem
)
def test_code_of_a_page_runs_from_its_first_block_to_its_last(page, workplace, request):
    blocks = code_blocks(page)
    if "NAME" in "".join(blocks):
        (workplace / "runs").symlink_to(request.getfixturevalue("runs"))
    recordings = workplace / "raw_datasets" / "recordings"
    recordings.mkdir(parents=True)
    for number in range(10):
        with wave.open(str(recordings / f"{number % 2}_{number}.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", None))
            sound.writeframes(np.full(200 + 64 * number, number, "<i2").tobytes())
    space = {"__name__": "__main__"}
    for block in blocks:
        try:
            exec(compile(block, page.name, "exec"), space)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            pytest.skip("PyTorch is needed")


class UnderstoodError(Exception):
    """A command line was understood, and is not run."""


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_is_understood(command, workplace, monkeypatch):
    _, verb, *words = COMMANDS[command]
    # The run that a page restores.
    (workplace / "runs" / "awd").mkdir(parents=True)
    Config.from_flat({}).save(workplace / "runs" / "awd" / "config.yaml")
    if verb == "train":
        if "--help" in words:
            with pytest.raises(SystemExit, match="0"):
                parse(words)
        else:
            parse(words)
        return
    if verb == "analyse":
        (workplace / "runs" / words[0]).mkdir(parents=True)
        config = Config.from_flat({"dataset": "repeat", "model": "gru"})
        config.save(workplace / "runs" / words[0] / "config.yaml")
        verbs()[verb].configuration(words)
        return
    if verb == "sweep":
        verbs()[verb].asked(words)
        return
    understand = argparse.ArgumentParser.parse_args

    def parse_args(*arguments):
        understand(*arguments)
        raise UnderstoodError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    with pytest.raises(UnderstoodError):
        verbs()[verb].run(words)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_whole_and_their_values_are_flags(name):
    recipe = load_recipe(name)
    assert {"title", "source", "expected", "config"} <= set(recipe)
    _, config = parse(["--recipe", name])
    assert {"model", "dataset"} <= set(recipe["config"])
    assert config.data.dataset in DATASETS
    values = {name: config.flat()[name] for name in recipe["config"] if name != "data_options"}
    assert values == {name: recipe["config"][name] for name in values}
