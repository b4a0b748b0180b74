"""Write the table of results into README.md, from the recipes.

python docs/make_tables.py          rewrites the table
python docs/make_tables.py --check  fails if it is out of date
"""

import itertools
import sys
from pathlib import Path

from lru.dataloaders import DATASETS
from lru.files import write_atomically
from lru.models import MODELS
from lru.origins import load_recipe, recipe_names

README = Path(__file__).parents[1] / "README.md"
MARKS = ("<!-- table: made by docs/make_tables.py -->\n", "<!-- end of table -->\n")


def table() -> str:
    """Measured results of the recipes on the test splits, in the order of data sets and models."""
    recipes = {name: load_recipe(name) for name in recipe_names()}
    rows = []
    for dataset, model in itertools.product(DATASETS, MODELS):
        for name, recipe in recipes.items():
            config = recipe["config"]
            if (config["dataset"], config["model"]) != (dataset, model):
                continue
            for result in recipe.get("results", []):
                score = (
                    f"{100 * result['test_accuracy']:.1f} %"
                    if "test_accuracy" in result
                    else f"perplexity {result['test_perplexity']:.1f}"
                )
                how = (
                    f"{result['data']}; seed {result['seed']}, {result['steps']:,} updates, "
                    f"{result['minutes']:g} min, {result['machine']}"
                )
                rows.append(f"| `{dataset}` | `{model}` | **{score}** | `{name}` | {how} |")
    head = [
        "| data set | model | test split | recipe | data, length of training |",
        "| --- " * 5 + "|",
    ]
    return "\n".join([*head, *rows]) + "\n"


def with_table(page: str) -> str:
    """The page with a fresh table between the marks."""
    before, rest = page.split(MARKS[0])
    return before + MARKS[0] + table() + MARKS[1] + rest.split(MARKS[1])[1]


def main() -> int:
    """Rewrite the page, or check it; the exit status."""
    page = README.read_text()
    fresh = with_table(page)
    if "--check" in sys.argv[1:]:
        return int(fresh != page)
    write_atomically(README, fresh.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
