"""Files outside the package that register models, data sets or tasks of their own."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path


def load_plugins(names: str | Sequence[str] | None) -> bool:
    """Run each plugin, unless it has been run before.

    Args:
        names: paths of `.py` files, or names of modules that Python finds; in a list, or separated
            by commas.

    Returns:
        Whether any of them had not been run before.

    Raises:
        ValueError: if there is no such file or module, or a file is no Python.
    """
    # Every one is run, whatever the first one gives.
    return any([_load(name) for name in _split(names)])


def load_saved_plugins(names: str | None, origin: str, trust: bool = False) -> bool:
    """Run the plugins that a run folder names, which may come from somebody else.

    Args:
        names: see `load_plugins`.
        origin: the file that names them.
        trust: run them; else only those that have been run before may be named.

    Returns:
        See `load_plugins`.

    Raises:
        ValueError: if one has not been run before; or as `load_plugins`.
    """
    new = [name for name in _split(names) if _module(name) not in sys.modules]
    if new and not trust:
        raise ValueError(
            f"{origin} names plugins, which are programs that would be run: {', '.join(new)}; if "
            f"you trust them, give --plugins {names} or --trust_plugins"
        )
    return load_plugins(names)


def _split(names: str | Sequence[str] | None) -> list[str]:
    given = [names] if isinstance(names, str) else names or ()
    return [name.strip() for each in given for name in each.split(",") if name.strip()]


def _module(name: str) -> str:
    """The key in `sys.modules`."""
    path = Path(name)
    return f"plugin {path.resolve()}" if path.suffix == ".py" else name


def _load(name: str) -> bool:
    path, module = Path(name), _module(name)
    if module in sys.modules:
        return False
    if path.suffix != ".py":
        _import(name)
    elif path.is_file():
        _run(module, path)
    else:
        raise ValueError(f"plugins: there is no file {name}")
    return True


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0] and error.name != name:
            raise
        raise ValueError(
            f"plugins: there is no module {name!r}; it must be a module on Python's path, or the "
            "path of a .py file"
        ) from None


def _run(module: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    # Dataclasses look their module up there.
    sys.modules[module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[module])
    except BaseException as error:
        del sys.modules[module]
        if isinstance(error, SyntaxError):
            where = f"{error.filename}, line {error.lineno}"
            raise ValueError(f"plugins: {where} is no Python: {error.msg}") from error
        raise
