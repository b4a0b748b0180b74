"""The pages say what is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lru.dataloaders import DATASETS
from lru.flags import load_recipe, parse, recipe_names
from lru.layers import LAYERS
from lru.layers.initializers import EIGENVALUE_INITIALIZERS

ROOT = Path(__file__).parents[1]


def test_the_table_of_the_readme_is_that_of_the_registries():
    done = subprocess.run([sys.executable, "docs/make_tables.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run python docs/make_tables.py"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("models.md", LAYERS),
        ("data.md", DATASETS),
        ("initialization.md", EIGENVALUE_INITIALIZERS),
    ],
)
def test_every_name_is_described(page, names):
    text = (ROOT / "docs" / page).read_text()
    assert [name for name in names if f"`{name}`" not in text] == []


def test_links_and_pictures_of_the_pages_exist():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_whole_and_their_values_are_flags(name):
    recipe = load_recipe(name)
    assert {"title", "source", "expected", "config"} <= set(recipe)
    _, config = parse(["--recipe", name])
    assert {"model", "dataset"} <= set(recipe["config"])
    assert config.data.dataset in DATASETS
    values = {name: config.flat()[name] for name in recipe["config"] if name != "data_options"}
    assert values == {name: recipe["config"][name] for name in values}
