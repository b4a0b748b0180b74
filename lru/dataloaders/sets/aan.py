"""Retrieval of the Long Range Arena (Tay et al. 2021, section 2.2.3): does one paper cite another?

Pairs of papers of the ACL Anthology Network (Radev et al. 2013), read by characters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lru.dataloaders.base import Dataset, Description, check_at_least, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.lra import lra_compares, lra_places, lra_source
from lru.dataloaders.sets.vocabulary import CharacterCoder
from lru.dataloaders.store.writers import PairWriter

PLACES = lra_places("tsv_data")
FILES = {"train": "train", "val": "eval", "test": "test"}
"""Name of each split in that of its file."""

PUBLISHED_SIZES = {"train": 147_086, "val": 18_090, "test": 17_437}

LINES_AT_ONCE = 256
"""Of up to some hundred thousand bytes each."""

_COLUMNS = 5
_LABELS = {b"0": 0, b"0.0": 0, b"1": 1, b"1.0": 1}

Pair = tuple[str, str, int]


@register
@dataclass(frozen=True)
class Aan(Dataset):
    """Tell from the characters of two papers whether one cites the other."""

    name: ClassVar[str] = "aan-classification"
    task: ClassVar[str] = "retrieval"
    sources: ClassVar[tuple[Source, ...]] = (lra_source("tsv_data"),)
    class_names: ClassVar[tuple[str, ...]] = ("unrelated", "cites")
    separator: ClassVar[str] = ""

    unit: Literal["characters", "bytes"] = "characters"
    """what a token is"""
    min_frequency: int = 1
    """tokens that are rarer in the training pairs become <unk>"""
    max_length: int = 4_000
    """most tokens of a paper, its end included; the rest is cut off"""

    def __post_init__(self):
        check_at_least(self, min_frequency=1, max_length=1)

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The three official files, from the first place that has them all."""
        for place in PLACES:
            files = tuple(raw_dir / place / f"new_aan_pairs.{part}.tsv" for part in FILES.values())
            if all(path.exists() for path in files):
                return files
        return ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Make the vocabulary of the training pairs, and encode all pairs."""
        files = dict(zip(FILES, self.raw_files(raw_dir), strict=True))
        coder = CharacterCoder(self.max_length, as_bytes=self.unit == "bytes")
        for chunk in read_pairs(files["train"]):
            coder.count(text for pair in chunk for text in pair[:2])
        coder.freeze(self.min_frequency)
        sizes = dict.fromkeys(files, 0)
        for split, path in files.items():
            with PairWriter(folder, split, coder.dtype) as writer:
                for chunk in read_pairs(path):
                    first, second, labels = zip(*chunk, strict=True)
                    writer.append(coder.encode(first), coder.encode(second), np.array(labels))
                    sizes[split] += len(chunk)
        return Description(
            kind="token_pairs",
            n_classes=len(self.class_names),
            targets="class",
            vocabulary=coder.vocabulary,
            provenance=f"Read from {files['train'].parent.name}/new_aan_pairs.*.tsv.",
            comparable=lra_compares(sizes, PUBLISHED_SIZES, "pairs"),
        )


def read_pairs(path: Path) -> Iterator[list[Pair]]:
    """Both texts and the label of each line of an official file, in chunks.

    Columns are separated by tabs and never quoted: label, name of each paper, text of each paper.

    Raises:
        ValueError: naming the file, the line and what is wrong with it.
    """
    with path.open("rb") as file:
        lines = enumerate(file, 1)
        empty = True
        while chunk := [_parsed(path, *line) for line in islice(lines, LINES_AT_ONCE)]:
            empty = False
            yield chunk
    if empty:
        raise ValueError(f"{path} has no pairs")


def _parsed(path: Path, number: int, line: bytes) -> Pair:
    columns = line.rstrip(b"\r\n").split(b"\t")
    if len(columns) != _COLUMNS:
        raise ValueError(
            f"{path}, line {number}: {len(columns)} columns, not a label, two names and two texts "
            "with tabs between them"
        )
    label, _, _, first, second = columns
    if label not in _LABELS:
        shown = label[:40].decode(errors="replace")
        raise ValueError(f"{path}, line {number}: the label is {shown!r}, not 0 or 1")
    try:
        return first.decode(), second.decode(), _LABELS[label]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: a text is not UTF-8 ({error})") from None
