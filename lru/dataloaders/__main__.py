"""Data sets from the shell: `python -m lru.dataloaders list | download | prepare`."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from lru.dataloaders import DATASETS, Prepared, dataset_from_options
from lru.dataloaders.cache import SPLITS


def list_all(arguments: argparse.Namespace) -> Iterator[str]:
    """Each data set's name, what it is, whether it can be downloaded, and its options."""
    del arguments
    for name, kind in DATASETS.items():
        summary = (kind.__doc__ or "").splitlines()[0]
        yield f"{name}: {summary}"
        options = vars(kind())
        yield "    options: " + " ".join(f"{key}={value}" for key, value in options.items())
        if kind.sources:
            yield f"    download: {len(kind.sources)} files"


def download(arguments: argparse.Namespace) -> Iterator[str]:
    """Fetch the files of the named data sets, or of all that have any; go on after failures."""
    names = arguments.names or [name for name, kind in DATASETS.items() if kind.sources]
    datasets = {name: dataset_from_options(name) for name in names}
    failed = []
    for name, dataset in datasets.items():
        try:
            files = dataset.download(arguments.raw_dir)
        except (RuntimeError, OSError) as error:
            failed.append(name)
            yield f"{name}: {error}"
            continue
        yield f"{name}: " + (", ".join(map(str, files)) or "nothing to download")
    if failed:
        raise SystemExit(f"not downloaded: {', '.join(failed)}")


def prepare(arguments: argparse.Namespace) -> Iterator[str]:
    """Put the named data sets into the cache, verify them, and describe them."""
    options = dict(_pair(text) for text in arguments.option)
    datasets = [dataset_from_options(name, options) for name in arguments.names]
    for dataset in datasets:
        prepared = dataset.load(arguments.raw_dir, arguments.cache_dir, verify=True)
        yield f"{dataset.name}: {dataset.folder(arguments.cache_dir)}"
        yield from (f"    {line}" for line in _described(prepared))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb."""
    parser = argparse.ArgumentParser(prog="python -m lru.dataloaders", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verb(verbs, "list", list_all)
    fetch = verb(verbs, "download", download)
    fetch.add_argument("names", nargs="*", metavar="NAME", help="data sets; all if none is given")
    build = verb(verbs, "prepare", prepare)
    build.add_argument("names", nargs="+", metavar="NAME", help="data sets")
    build.add_argument("--cache_dir", default="cache_dir", help="where prepared data sets go")
    build.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the data sets, as `list` shows them; may be repeated",
    )
    for command in (fetch, build):
        command.add_argument("--raw_dir", default="raw_datasets", help="where raw files lie")
    parsed = parser.parse_args(arguments)
    try:
        for line in parsed.run(parsed):
            print(line, flush=True)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], Iterator[str]],
) -> argparse.ArgumentParser:
    """Add a verb whose help is the docstring of what it runs."""
    parser = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
    parser.set_defaults(run=run)
    return parser


def _described(prepared: Prepared) -> Iterator[str]:
    card = prepared.card
    size = f"{card.vocab_size} ids" if card.vocab_size else f"{card.n_features} features"
    yield f"{card.kind} ({size}), {card.n_classes} classes, one target a {card.targets}"
    for split in SPLITS:
        figures = card.splits[split]
        shortest, longest = figures["min_length"], figures["max_length"]
        steps = f"{shortest} to {longest} steps, mean {figures['mean_length']:.1f}"
        yield f"{split}: {figures['examples']:,} rows of " + (
            steps if shortest < longest else f"{longest} steps"
        )
    yield card.provenance
    yield card.comparable


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option {text!r} is not KEY=VALUE")
    return key, value


if __name__ == "__main__":
    main()
