"""ListOps of the Long Range Arena (Tay et al. 2021, section 2.2.1): evaluate a nested expression.

Read from the official files, or generated from the same grammar (`listops_grammar`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.listops_grammar import (
    CLOSE,
    FIRST_OPERATOR,
    OPERATORS,
    VOCABULARY,
    Sequences,
    sequences,
)
from lru.dataloaders.sets.lra import lra_compares, lra_places, lra_source
from lru.dataloaders.sets.official import OfficialOrGenerated
from lru.dataloaders.store.writers import RaggedWriter

PLACES = lra_places("listops-1000")

PUBLISHED_SIZES = {"train": 96_000, "val": 2_000, "test": 2_000}

HEADER = b"Source\tTarget"
LINES_AT_ONCE = 1024
FRUITLESS_BATCHES = 200
"""Batches without one new sequence after which there are taken to be no more."""

_IDS = {text.encode(): token for token, text in enumerate(VOCABULARY) if token > 0}
_TARGETS = {str(digit).encode(): digit for digit in range(10)}


@register
@dataclass(frozen=True)
class ListOps(OfficialOrGenerated):
    """Evaluate nested MIN, MAX, MED, SUM-mod-10 of digits; the official files, or generated."""

    name: ClassVar[str] = "listops-classification"
    sources: ClassVar[tuple[Source, ...]] = (lra_source("listops-1000"),)

    n_train: int = PUBLISHED_SIZES["train"]
    """sequences to train on, if generated"""
    n_val: int = PUBLISHED_SIZES["val"]
    """sequences to validate on, if generated"""
    n_test: int = PUBLISHED_SIZES["test"]
    """sequences to test on, if generated"""
    min_length: int = 500
    """generated sequences are longer, in tokens"""
    max_length: int = 2000
    """generated sequences are shorter, in tokens"""
    max_depth: int = 10
    """depth of the deepest digit, if generated"""
    max_args: int = 10
    """most arguments of an operator, if generated"""
    seed: int = 0
    """of the generator"""

    def __post_init__(self):
        check_at_least(
            self, n_train=1, n_val=1, n_test=1, min_length=1, max_depth=2, max_args=2, seed=0
        )
        check_at_least(self, max_length=self.min_length + 2)
        super().__post_init__()

    def candidates(self, raw_dir: Path) -> list[tuple[Path, ...]]:
        """The three official files in each of the places."""
        return [
            tuple(raw_dir / place / f"basic_{split}.tsv" for split in self.split_names)
            for place in PLACES
        ]

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Convert the official files, or generate."""
        files = self.raw_files(raw_dir)
        if files:
            sizes = {
                split: self._convert(path, folder, split)
                for split, path in zip(self.split_names, files, strict=True)
            }
            provenance = f"Read from {files[0].parent.name}/basic_{{train,val,test}}.tsv."
            comparable = lra_compares(sizes, PUBLISHED_SIZES, "examples")
        else:
            self._generate(folder)
            provenance = self.generated_from(self.seed)
            comparable = self.generated_compares()
        return Description(
            kind="tokens",
            n_classes=10,
            targets="class",
            vocabulary=VOCABULARY,
            provenance=provenance,
            comparable=comparable,
        )

    def _convert(self, path: Path, folder: Path, split: str) -> int:
        rows = 0
        with RaggedWriter(folder, split, np.uint8) as writer:
            for chunk in read_tsv(path):
                writer.append(chunk.tokens, chunk.lengths, chunk.values)
                rows += len(chunk.lengths)
        return rows

    def _generate(self, folder: Path) -> None:
        """Write distinct sequences; train last, so that the others do not depend on n_train."""
        batches = _distinct(
            sequences(
                np.random.default_rng(self.seed),
                min_length=self.min_length,
                max_length=self.max_length,
                max_depth=self.max_depth,
                max_args=self.max_args,
            )
        )
        batch = next(batches)
        for split in ("test", "val", "train"):
            left = getattr(self, f"n_{split}")
            with RaggedWriter(folder, split, np.uint8) as writer:
                while left:
                    if not len(batch.lengths):
                        batch = _next_batch(batches, self)
                    taken, batch = _cut(batch, left)
                    writer.append(taken.tokens, taken.lengths, taken.values)
                    left -= len(taken.lengths)


def read_tsv(path: Path) -> Iterator[Sequences]:
    """The examples of a file in the official format, with or without parentheses, in chunks.

    Raises:
        ValueError: naming the file, the line and what is wrong with it.
    """
    rows: list[bytes] = []
    targets: list[int] = []
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip(b"\r\n")
            if number == 1 and line == HEADER:
                continue
            try:
                row, target = _parsed(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            rows.append(row)
            targets.append(target)
            if len(rows) == LINES_AT_ONCE:
                yield _chunk(rows, targets)
                rows, targets = [], []
    if rows:
        yield _chunk(rows, targets)
    elif number < 2:
        raise ValueError(f"{path} has no examples")


def _parsed(line: bytes) -> tuple[bytes, int]:
    """Token ids, a byte each, and the target of a line."""
    columns = line.split(b"\t")
    if len(columns) != 2:
        raise ValueError(f"{len(columns)} columns, not source and target with a tab between them")
    source, target = columns
    try:
        row = bytes(map(_IDS.__getitem__, source.translate(None, b"()").split()))
    except KeyError as error:
        word = error.args[0][:40].decode(errors="replace")
        raise ValueError(f"unknown token {word!r}; known: {' '.join(VOCABULARY[1:])} ( )") from None
    if not row:
        raise ValueError("the source is empty")
    _check_nesting(np.frombuffer(row, np.uint8))
    if target not in _TARGETS:
        raise ValueError(f"the target is {target[:40].decode(errors='replace')!r}, not 0 to 9")
    return row, _TARGETS[target]


def _check_nesting(tokens: UInt8[np.ndarray, " T"]) -> None:
    """Refuse what is not one expression.

    Raises:
        ValueError: saying how it is not.
    """
    opens = (tokens >= FIRST_OPERATOR) & (tokens < FIRST_OPERATOR + len(OPERATORS))
    closes = tokens == CLOSE
    if opens.sum() != closes.sum():
        raise ValueError(f"{opens.sum()} operators, but {closes.sum()} closing brackets")
    depth = np.cumsum(opens.astype(np.int32) - closes)
    if (depth < 0).any() or (depth[:-1] == 0).any():
        raise ValueError("the source is not one expression from its first token to its last")
    if (opens[:-1] & closes[1:]).any():
        raise ValueError("an operator has no arguments")


def _chunk(rows: list[bytes], targets: list[int]) -> Sequences:
    return Sequences(
        np.frombuffer(b"".join(rows), np.uint8),
        np.array([len(row) for row in rows], np.int64),
        np.array(targets, np.uint8),
    )


def _distinct(batches: Iterator[Sequences]) -> Iterator[Sequences]:
    """The batches without any sequence that came before."""
    seen: set[bytes] = set()
    for batch in batches:
        ends = np.cumsum(batch.lengths)
        starts = ends - batch.lengths
        new = np.zeros(len(ends), bool)
        tokens = batch.tokens.tobytes()
        for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            digest = blake2b(tokens[start:end], digest_size=16).digest()
            new[row] = digest not in seen
            seen.add(digest)
        yield Sequences(
            batch.tokens[np.repeat(new, batch.lengths)], batch.lengths[new], batch.values[new]
        )


def _next_batch(batches: Iterator[Sequences], options: ListOps) -> Sequences:
    """The next batch that is not empty.

    Raises:
        ValueError: if none comes.
    """
    for _ in range(FRUITLESS_BATCHES):
        batch = next(batches)
        if len(batch.lengths):
            return batch
    raise ValueError(
        f"{options.name}: there are too few different sequences for n_train={options.n_train}, "
        f"n_val={options.n_val}, n_test={options.n_test} with min_length={options.min_length}, "
        f"max_length={options.max_length}, max_depth={options.max_depth}, "
        f"max_args={options.max_args}"
    )


def _cut(batch: Sequences, rows: int) -> tuple[Sequences, Sequences]:
    """The first rows, at most `rows`, and the rest."""
    end = int(batch.lengths[:rows].sum())
    return (
        Sequences(batch.tokens[:end], batch.lengths[:rows], batch.values[:rows]),
        Sequences(batch.tokens[end:], batch.lengths[rows:], batch.values[rows:]),
    )
