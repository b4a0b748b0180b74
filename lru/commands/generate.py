"""Write a text with the language model of a run."""

import argparse
import sys
from collections.abc import Sequence

from lru.commands import add_run, plugins_of
from lru.models.sampling import Sampler
from lru.text import draw_gates, write
from lru.text.loading import load_text
from lru.training.runs import find_run


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = parser().parse_args(arguments)
    sampler = Sampler(given.temperature, given.top_k, given.top_p)
    found = find_run(given.run)
    loaded = load_text(found, given.lane, plugins_of(given, found))
    written = write(loaded, given.prompt, given.n_tokens, sampler, given.seed)
    print(written.text)
    if given.plot_gates:
        for picture in draw_gates(loaded, written.tokens, found.path / "plots"):
            print(f"  {picture}", file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(
        prog="lru generate",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_run(parser)
    parser.add_argument("--prompt", default="", help="what the text begins with")
    parser.add_argument("--n_tokens", type=int, default=200, help="tokens to draw")
    parser.add_argument(
        "--temperature",
        type=float,
        default=Sampler.temperature,
        help="divides the logits; 0 takes the most probable token",
    )
    parser.add_argument("--top_k", type=int, help="draw from so many most probable tokens")
    parser.add_argument(
        "--top_p",
        type=float,
        default=Sampler.top_p,
        help="draw from the fewest most probable tokens with so much probability",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument(
        "--plot_gates",
        action="store_true",
        help="draw states and gates of every layer against the text, into plots/ in its folder",
    )
    return parser
