"""The verbs of the command line, one a file: `lru VERB`, `python -m lru VERB`.

A verb is a module with a line of documentation, `parser()`, which is its command line (of all but
`train`, whose flags depend on what is chosen), and `run(arguments) -> exit status`.
"""

import argparse
import atexit
import importlib
import io
import logging
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

import jax
from tqdm import tqdm

from lru.config import read_values
from lru.dataloaders.files.fetch import DownloadError
from lru.dataloaders.files.unpack import ArchiveError
from lru.dataloaders.store.cache import CacheError
from lru.options import first_line
from lru.registry import known_names
from lru.training.hooks import NonFiniteError
from lru.training.interrupts import REQUEUE, PreemptedError
from lru.training.runs import Run
from lru.version import __version__

logger = logging.getLogger("lru")

EXPECTED = (ValueError, OSError, ArchiveError, CacheError, DownloadError, NonFiniteError)
"""Errors that are the user's to mend, and said in a sentence."""


class _AboveTheBar(logging.Handler):
    """Prints messages bare, without breaking the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def show_messages() -> None:
    """Print what the library logs; other libraries keep their own settings.

    A terminal without a character that is printed shows its number instead.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not logger.handlers:
        logger.addHandler(_AboveTheBar())
        # Orbax narrates every save.
        logging.getLogger("absl").setLevel(logging.ERROR)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add what every verb that opens a run takes."""
    parser.add_argument("run", metavar="RUN", help="name of a run, or its folder")
    parser.add_argument("--lane", type=int, default=0, help="which of several lanes")
    add_plugins(parser)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes that reads several runs."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="name of a run or of a sweep, or its folder"
    )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Add what every verb takes that reads the configuration of a run."""
    parser.add_argument(
        "--plugins",
        action="append",
        help="file or module to run first, as in training; may be repeated",
    )
    parser.add_argument(
        "--trust_plugins", action="store_true", help="run the plugins that the run names"
    )


def plugins_of(given: argparse.Namespace, run: Run) -> str | Sequence[str] | None:
    """The plugins that may be run."""
    if given.plugins is None and given.trust_plugins:
        return read_values(run.config_file)[0].get("plugins")
    return given.plugins


def verbs() -> dict[str, ModuleType]:
    """The modules of all verbs, by name."""
    found = pkgutil.iter_modules(__path__)
    return {
        module.name.replace("_", "-"): importlib.import_module(f"{__name__}.{module.name}")
        for module in found
    }


def call(verb: str, arguments: Sequence[str], program: str) -> int:
    """Run a verb; its exit status, 2 after a mistake, which is said in a sentence.

    Args:
        verb: its name.
        arguments: that follow it.
        program: what to call it in messages.
    """
    show_messages()
    try:
        module = f"{__name__}.{verb.replace('-', '_')}"
        return importlib.import_module(module).run(arguments)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EXPECTED as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "Out of memory" not in str(error):
            raise
        print(
            f"{program}: there is not enough memory; choose less of --batch_size, --n_layers, "
            f"--d_model, --d_hidden or --workspace ({' '.join(str(error).split())})",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt as interrupt:
        print("; ".join([f"{program}: interrupted", *interrupt.args]), file=sys.stderr)
        return 130
    except PreemptedError as error:
        print(f"{program}: stopped by {error}", file=sys.stderr)
        return REQUEUE


def run_process(command: Callable[[], int]) -> NoReturn:
    """Run a command as all that this process does, and end with its status.

    Threads, and the handlers of `atexit` that the command has registered, end as always, but C++
    libraries clear nothing away: a thread that XLA has made for a compilation, and that has not run
    yet when a signal stops this process, would meet what is gone, and a segmentation fault would
    stand for the status.
    """
    statuses = []

    def leave() -> None:
        if statuses:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(statuses[0])

    # The handler that is first there is called last.
    atexit.register(leave)
    statuses.append(command())
    sys.exit(statuses[0])


def run_train(arguments: Sequence[str] | None = None) -> int:
    """Run `train`, as `run_train.py` does; the exit status."""
    return call("train", sys.argv[1:] if arguments is None else arguments, "run_train.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that is named first; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    known = verbs()
    if words and words[0] in known:
        return call(words[0], words[1:], f"lru {words[0]}")
    if words[:1] == ["--version"]:
        print(f"lru {__version__}")
        return 0
    width = max(map(len, known))
    lines = [f"  {name:{width}} {first_line(module)}" for name, module in known.items()]
    print("usage: lru VERB ...; lru VERB --help; lru --version\n\n" + "\n".join(lines))
    if not words or words[0] in ("-h", "--help"):
        return 0
    print(f"lru: unknown verb {words[0]!r}; {known_names(words[0], known)}", file=sys.stderr)
    return 2
