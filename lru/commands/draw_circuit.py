"""Draw the circuit of a quantum recurrent cell, or of one of its neurons, as SVG and PNG."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lru.analysis.circuit_drawing import plot_circuit
from lru.files import make_folder

SUFFIXES = (".svg", ".png")


def parser() -> argparse.ArgumentParser:
    """Command line of the verb."""
    parser = argparse.ArgumentParser(prog="lru draw-circuit", description=__doc__)
    for flag, default, sentence in (
        ("workspace", 3, "lanes of the cell's state"),
        ("input_width", 2, "in/out lanes, the bits of a word"),
        ("stages", 2, "work stages"),
        ("order", 2, "levels of the recursion in a neuron"),
        ("degree", 2, "the most lanes that a weight of a neuron is for"),
    ):
        parser.add_argument(
            f"--{flag}", type=int, default=default, help=f"{sentence} (default: {default})"
        )
    parser.add_argument(
        "--neuron", action="store_true", help="draw all gates of one neuron instead of the cell"
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        default=".",
        help="folder that is there, or path of the pictures without a suffix",
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the verb."""
    given = parser().parse_args(arguments)
    detail = "neuron" if given.neuron else "cell"
    sizes = (given.workspace, given.input_width, given.stages, given.order, given.degree)
    out = Path(given.out)
    if out.suffix in SUFFIXES:
        out = out.with_suffix("")
    if out.is_dir():
        letters = zip("wisod", sizes, strict=True)
        out /= "-".join([detail, *(f"{letter}{size}" for letter, size in letters)])
    make_folder(out.parent, "--out")
    for suffix in SUFFIXES:
        path = out.with_name(out.name + suffix)
        plot_circuit(path, *sizes, detail)
        print(f"  {path}")
    return 0
