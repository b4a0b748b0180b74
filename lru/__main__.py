"""What can be done with runs: `python -m lru VERB --help`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from lru.cli import show_messages
from lru.dataloaders.files.fetch import DownloadError
from lru.dataloaders.store.cache import CacheError
from lru.export.runs import export_run
from lru.models.cache_pointer import CachePointer
from lru.models.sampling import Sampler
from lru.text import draw_gates, with_pointer, write
from lru.text.trained import load_text
from lru.training.report import format_table, metric_rows
from lru.training.runs import find_run


def export(arguments: argparse.Namespace) -> None:
    """Write the model of a run as StableHLO, to be called without its code."""
    run = find_run(arguments.run)
    folder = Path(arguments.out) if arguments.out else run.path / "export"
    card = export_run(run, folder)
    rows = {name: f"{(folder / name).stat().st_size:,} bytes" for name in card["sha256"]}
    rows["platforms"] = ", ".join(card["platforms"])
    if "no_step" in card:
        rows["no step"] = card["no_step"]
    print(format_table(rows))
    print(f"  {folder}")


def generate(arguments: argparse.Namespace) -> None:
    """Write a text with the language model of a run."""
    sampler = Sampler(arguments.temperature, arguments.top_k, arguments.top_p)
    run = find_run(arguments.run)
    loaded = load_text(run)
    written = write(loaded, arguments.prompt, arguments.n_tokens, sampler, arguments.seed)
    print(written.text)
    if arguments.plot_gates:
        for picture in draw_gates(loaded, written.tokens, run.path / "plots"):
            print(f"  {picture}", file=sys.stderr)


def pointer(arguments: argparse.Namespace) -> None:
    """Evaluate the language model of a run with a continuous cache of what it has read."""
    mixture = CachePointer(arguments.window, arguments.theta, arguments.weight)
    loaded = load_text(find_run(arguments.run))
    metrics = with_pointer(loaded, mixture, "val") | with_pointer(loaded, mixture, "test")
    print(format_table(metric_rows(metrics)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lru", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(do: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            do.__name__,
            help=do.__doc__,
            description=do.__doc__,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        verb.add_argument("run", metavar="RUN", help="name of a run, or its folder")
        verb.set_defaults(do=do)
        return verb

    verb = add(export)
    verb.add_argument(
        "--out", metavar="DIR", help="where to; export/ in the run's folder if not given"
    )
    verb = add(generate)
    verb.add_argument("--prompt", default="", help="what the text begins with")
    verb.add_argument("--n_tokens", type=int, default=200, help="tokens to draw")
    verb.add_argument(
        "--temperature",
        type=float,
        default=Sampler.temperature,
        help="divides the logits; 0 takes the most probable token",
    )
    verb.add_argument("--top_k", type=int, help="draw from so many most probable tokens")
    verb.add_argument(
        "--top_p",
        type=float,
        default=Sampler.top_p,
        help="draw from the fewest most probable tokens with so much probability",
    )
    verb.add_argument("--seed", type=int, default=0, help="of the draws")
    verb.add_argument(
        "--plot_gates",
        action="store_true",
        help="draw the gates of a qrnn against the text, into plots/ in the run's folder",
    )
    verb = add(pointer)
    verb.add_argument("--window", type=int, default=500, help="tokens in the cache")
    verb.add_argument(
        "--theta", type=float, default=1.0, help="how much the cache prefers like features"
    )
    verb.add_argument("--weight", type=float, default=0.1, help="share of the cache")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status."""
    parsed = _parser().parse_args(arguments)
    show_messages()
    try:
        parsed.do(parsed)
        return 0
    except (ValueError, OSError, CacheError, DownloadError) as error:
        print(f"python -m lru: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
