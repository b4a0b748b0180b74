"""Data sets from the shell: `python -m lru.dataloaders list | download | prepare | …`."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lru.dataloaders import DATASETS, Dataset, Prepared, dataset_from_options, views
from lru.dataloaders.store.card import CARD_NAME, Targets, check_contents
from lru.options import first_line
from lru.plugins import load_plugins

Lines = Iterator[str]

_TARGETS: Mapping[Targets, str] = {
    "class": "{} classes, one target a row",
    "class_per_step": "{} classes, one target a step",
    "values": "targets of size {}, one a row",
    "values_per_step": "targets of size {}, one a step",
    "tokens": "{} tokens, themselves the targets",
}


def list_all(arguments: argparse.Namespace) -> Lines:
    """Each data set's name, what it is, its options and what can be downloaded."""
    del arguments
    for name, kind in DATASETS.items():
        yield f"{', '.join((name, *kind.aliases))}: {first_line(kind)}"
        options = vars(kind())
        yield "    options: " + " ".join(f"{key}={value}" for key, value in options.items())
        if kind.variants:
            yield "    by options: " + ", ".join(kind.variants)
        if kind.sources:
            yield "    download: " + ", ".join(source.filename for source in kind.sources)


def download(arguments: argparse.Namespace) -> Lines:
    """Fetch the files of the named data sets, or of all that have any; go on after failures."""
    names = arguments.names or [name for name, kind in DATASETS.items() if kind.sources]
    datasets = {name: dataset_from_options(name) for name in names}
    failed = []
    for name, dataset in datasets.items():
        try:
            files = dataset.download(arguments.raw_dir, arguments.mirror)
        except (RuntimeError, OSError) as error:
            failed.append(name)
            yield f"{name}: {error}"
            continue
        yield f"{name}: " + (", ".join(map(str, files)) or "nothing to download")
    if failed:
        raise SystemExit(f"not downloaded: {', '.join(failed)}")


def prepare(arguments: argparse.Namespace) -> Lines:
    """Put the named data sets into the cache, verify them, and describe them."""
    for dataset in _datasets(arguments):
        prepared = _loaded(dataset, arguments, verify=True)
        yield f"{dataset.name}: {dataset.folder(arguments.cache_dir)}"
        yield from (f"    {line}" for line in _described(prepared))


def verify(arguments: argparse.Namespace) -> Lines:
    """Check the named data sets in the cache, without making them: checksums, ids, labels."""
    for dataset in _datasets(arguments):
        folder = dataset.folder(arguments.cache_dir)
        if not (folder / CARD_NAME).exists():
            raise ValueError(f"{dataset.name} is not prepared: there is no {folder / CARD_NAME}")
        prepared = dataset.stored(arguments.cache_dir, verify=True)
        check_contents(prepared.card, prepared.splits)
        yield f"{dataset.name}: {folder} is what its card says"


def stats(arguments: argparse.Namespace) -> Lines:
    """Sizes, classes and lengths of the named data sets; the lengths as a picture, too."""
    for dataset in _datasets(arguments):
        prepared = _loaded(dataset, arguments)
        yield f"{dataset.name}"
        yield from (f"    {line}" for line in _described(prepared))
        card = prepared.card
        if card.vocabulary:
            yield f"    {views.vocabulary_text(card.vocabulary)}"
        for of, mean, std in (
            ("", card.mean, card.std),
            (" of targets", card.target_mean, card.target_std),
        ):
            if mean is not None and std is not None:
                yield f"    mean{of} " + " ".join(f"{value:.4f}" for value in mean)
                yield f"    standard deviation{of} " + " ".join(f"{value:.4f}" for value in std)
        for split, figures in card.splits.items():
            counts = figures["class_counts"]
            if not counts:
                continue
            shares = (
                f"{views.class_name(dataset, label)} {count:,}"
                for label, count in enumerate(counts)
            )
            yield f"    {split} by class: {', '.join(shares)}"
        yield "    train by steps:"
        yield from (f"    {line}" for line in views.histogram_text(prepared.train.lengths))
        picture = Path(arguments.cache_dir, f"{dataset.folder('').name}.lengths.png")
        views.histogram_picture(prepared, picture)
        yield f"    {picture}"


def show(arguments: argparse.Namespace) -> Lines:
    """Rows of a data set as text; images as PNG files in the cache folder."""
    (dataset,) = _datasets(arguments)
    prepared = _loaded(dataset, arguments)
    if arguments.split not in prepared.splits:
        raise ValueError(
            f"--split is {arguments.split!r}, but {dataset.name} has {', '.join(prepared.splits)}"
        )
    split = prepared.splits[arguments.split]
    for index in arguments.index:
        if not 0 <= index < len(split):
            raise ValueError(
                f"--index is {index}, but {arguments.split} has rows 0 to {len(split) - 1}"
            )
        yield f"{dataset.name}, {arguments.split} {index}"
        image = views.row_picture(dataset, split, index)
        if image is None:
            yield from views.row_text(dataset, prepared.card, split, index)
            continue
        name = f"{dataset.folder('').name}.{arguments.split}.{index}.png"
        image.save(Path(arguments.cache_dir, name))
        yield views.label_text(dataset, split, index)
        yield f"{Path(arguments.cache_dir, name)}"


def command_line(program: str = "python -m lru.dataloaders") -> argparse.ArgumentParser:
    """Parser of the verbs.

    Args:
        program: what precedes the verb.
    """
    parser = argparse.ArgumentParser(
        prog=program, description="List, download, prepare, verify, describe and show data sets."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _verb(verbs, "list", list_all)
    fetch = _verb(verbs, "download", download)
    fetch.add_argument("names", nargs="*", metavar="NAME", help="data sets; all if none is given")
    _add_raw_dir(fetch)
    _add_mirror(fetch)
    for verb in (prepare, verify, stats):
        several = _verb(verbs, verb.__name__, verb)
        several.add_argument("names", nargs="+", metavar="NAME", help="data sets")
        _add_places(several)
        if verb is not verify:
            _add_mirror(several)
    one = _verb(verbs, "show", show)
    one.add_argument("names", nargs=1, metavar="NAME", help="data set")
    one.add_argument("--index", nargs="+", type=int, default=[0], metavar="I", help="rows, from 0")
    one.add_argument("--split", default="train", metavar="SPLIT", help="of which split")
    _add_places(one)
    _add_mirror(one)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb.

    Raises:
        SystemExit: with a sentence, after a mistake of the user.
    """
    try:
        run(command_line().parse_args(arguments))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


def run(parsed: argparse.Namespace) -> None:
    """Run the verb of a parsed command line, and print its lines."""
    load_plugins(parsed.plugins)
    for line in parsed.run(parsed):
        print(line, flush=True)


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], Lines],
) -> argparse.ArgumentParser:
    """Add a verb whose help is the docstring of what it runs."""
    parser = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--plugins",
        action="append",
        help="file or module with data sets of your own; several separated by commas, or repeated",
    )
    return parser


def _add_raw_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw_dir", default="raw_datasets", help="where raw files lie")


def _add_mirror(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mirror", help="base URL, or folder, to fetch from instead of the published ones"
    )


def _add_places(parser: argparse.ArgumentParser) -> None:
    _add_raw_dir(parser)
    parser.add_argument("--cache_dir", default="cache_dir", help="where prepared data sets go")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the data sets, as `list` shows them; may be repeated",
    )


def _datasets(arguments: argparse.Namespace) -> list[Dataset]:
    """The named data sets with the options, which all of them must have."""
    options = dict(_pair(text) for text in arguments.option)
    return [dataset_from_options(name, options) for name in arguments.names]


def _loaded(dataset: Dataset, arguments: argparse.Namespace, *, verify: bool = False) -> Prepared:
    return dataset.load(
        arguments.raw_dir, arguments.cache_dir, verify=verify, mirror=arguments.mirror
    )


def _described(prepared: Prepared) -> Lines:
    card = prepared.card
    size = f"{card.vocab_size} ids" if card.vocab_size else f"{card.n_features} features"
    count = card.n_targets or card.n_classes
    yield f"{card.kind} ({size}), {_TARGETS[card.targets].format(count)}"
    for split, figures in card.splits.items():
        count = figures["examples"]
        shortest, longest = figures["min_length"], figures["max_length"]
        steps = f"{shortest} to {longest} steps, mean {figures['mean_length']:.1f}"
        total = round(count * figures["mean_length"])
        yield (
            f"{split}: {count:,} {card.unit}{'s' * (count != 1)} of "
            + (steps if shortest < longest else f"{longest} steps")
            + (f", {total:,} tokens" if card.kind == "text" else "")
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
