"""Imports go down: no module needs one of a room above its own, or of another room beside it."""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# From top to bottom, as in docs/architecture.md; rooms of one line stand side by side. A room is a
# folder or a module of `lru`, or several that belong together.
ORDER = [
    # The doors: `import lru`, `python -m lru`.
    [("__init__", "__main__")],
    [("commands",)],
    [("launch",)],
    [("flags",)],
    [("origins",)],
    [("export",), ("text",), ("interop",), ("reports",)],
    [("analysis_runs",), ("matching",)],
    [("experiment",)],
    [("defaults",), ("run_folders",)],
    [("config",)],
    [("training",)],
    [("analysis",)],
    [("tasks",)],
    [("models",), ("batches",)],
    [("layers",), ("dataloaders",)],
    [("scan",)],
    [("registry",), ("plugins",), ("files",), ("options",), ("words",), ("version",), ("devices",)],
]
ROOMS = {name: (line, room) for line, rooms in enumerate(ORDER) for room in rooms for name in room}

# (module, module that it imports) that go up or sideways all the same, each with its reason.
EXCEPTIONS: set[tuple[str, str]] = set()


class Import(NamedTuple):
    """One module needs another."""

    importer: str
    imported: str


def room_of(module):
    """The line and the room of a module, by its dotted name; a function of `lru` is of its door."""
    _, _, inside = module.partition(".")
    return ROOMS.get(inside.partition(".")[0], ROOMS["__init__"])


def wrong(found):
    """Whether an import goes up, or to another room of the same line."""
    (line, room), (other_line, other_room) = room_of(found.importer), room_of(found.imported)
    return other_line < line or (other_line == line and other_room != room)


def imports_of(module, source):
    """The modules of the package that a module imports, anywhere but under TYPE_CHECKING."""
    tree = ast.parse(source)
    for_types = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for part in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            # What is taken from the package itself may be a module.
            inside = node.module == "lru"
            names = [f"lru.{alias.name}" if inside else node.module for alias in node.names]
        yield from (Import(module, name) for name in names if name.split(".")[0] == "lru")


def modules():
    """The source of every module, by its dotted name."""
    paths = sorted((ROOT / "lru").rglob("*.py"))
    named = {path: path.relative_to(ROOT).with_suffix("").parts for path in paths}
    return {
        ".".join(part for part in parts if part != "__init__"): path.read_text()
        for path, parts in named.items()
    }


def test_every_module_has_a_room_and_every_room_a_module():
    found = {module.split(".")[1] for module in modules() if "." in module}
    assert {"__init__", *found} == ROOMS.keys()


def test_imports_go_down_only():
    found = {each for module, source in modules().items() for each in imports_of(module, source)}
    assert {tuple(each) for each in found if wrong(each)} == EXCEPTIONS


@pytest.mark.parametrize(
    ("module", "source", "is_wrong"),
    [
        ("lru.layers.base", "from lru.scan import linear_scan", False),
        ("lru.layers.base", "from lru.layers.lru import LRU", False),
        ("lru.layers.base", "from lru.models import Encoder", True),
        ("lru.layers.base", "import lru.dataloaders.card", True),
        ("lru.layers.base", "from lru import training", True),
        ("lru.scan.linear", "def late():\n    import lru.layers", True),
        ("lru.batches.text", "from lru.batches.feed import Source", False),
        ("lru.batches.text", "from lru.models import Encoder", True),
        ("lru.registry", "from lru.files import write_atomically", True),
        ("lru", "from lru.experiment import fit", False),
        ("lru.tasks.base", "from lru import fit", True),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_seen(module, source, is_wrong):
    (found,) = imports_of(module, source)
    assert wrong(found) == is_wrong


def test_imports_for_types_are_not_imports():
    source = (
        "if TYPE_CHECKING:\n    from lru.training.loop import Trainer\nelse:\n    import lru.scan"
    )
    assert list(imports_of("lru.layers.base", source)) == [Import("lru.layers.base", "lru.scan")]
