"""Write the table of models and data sets into README.md, from the registries and the recipes.

python docs/make_tables.py          rewrites the table
python docs/make_tables.py --check  fails if it is out of date
"""

import sys
from pathlib import Path

from lru.dataloaders import DATASETS
from lru.files import write_atomically
from lru.flags import load_recipe, recipe_names
from lru.layers import LAYERS

README = Path(__file__).parents[1] / "README.md"
MARKS = ("<!-- table: made by docs/make_tables.py -->\n", "<!-- end of table -->\n")


def results() -> dict[tuple[str, str], list[str]]:
    """Measured results of the recipes on the test splits, by data set and model."""
    cells: dict[tuple[str, str], list[str]] = {}
    for name in recipe_names():
        recipe = load_recipe(name)
        cell = cells.setdefault((recipe["config"]["dataset"], recipe["config"]["model"]), [])
        for result in recipe.get("results", []):
            score = (
                f"{100 * result['test_accuracy']:.1f} %"
                if "test_accuracy" in result
                else f"perplexity {result['test_perplexity']:.1f}"
            )
            cell.append(
                f"**{score}** (`{name}`: {result['data']}; "
                f"seed {result['seed']}, {result['steps']:,} updates, {result['minutes']:g} min, "
                f"{result['machine']})"
            )
    return cells


def table() -> str:
    """Data sets down, models across."""
    cells = results()
    lines = [
        "| data set | " + " | ".join(f"`{model}`" for model in LAYERS) + " |",
        "| --- |" + " --- |" * len(LAYERS),
    ]
    for dataset in DATASETS:
        row = ["<br>".join(cells.get((dataset, model), [])) or "runs" for model in LAYERS]
        lines.append(f"| `{dataset}` | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


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
