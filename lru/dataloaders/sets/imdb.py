"""IMDb reviews (Maas et al. 2011): is a film praised or panned? Read by characters or by words.

By characters the task "Text" of the Long Range Arena (Tay et al. 2021, section 2.2.2).
"""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.held_out import HeldOut
from lru.dataloaders.sets.vocabulary import CharacterCoder, Coder, WordCoder
from lru.dataloaders.store.writers import RaggedWriter

PLACES = ("aclImdb", "imdb/aclImdb")
"""Folders under the raw folder in which the official ones are looked for, first to last."""

PARTS = ("train", "test")
OPINIONS = ("neg", "pos")
"""Folders of the reviews of each class."""

PUBLISHED_SIZES = {"train": 25_000, "test": 25_000}

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Reviews(HeldOut):
    """The reviews, in the units of a subclass."""

    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
            "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
            "aclImdb_v1.tar.gz",
            unpacked=PLACES[0],
            member="aclImdb",
        ),
    )
    class_names: ClassVar[tuple[str, ...]] = ("negative", "positive")

    n_val: int = 2_500
    """reviews cut from train to validate on, under the standard protocol"""
    min_frequency: int = 15
    """tokens that are rarer in the published training part become <unk>"""
    max_length: int = 4_096
    """most tokens of a review, its end included; the rest is cut off"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, min_frequency=1, max_length=1)

    @abstractmethod
    def coder(self) -> Coder:
        """Tokenizer of the texts."""

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The four folders of reviews, from the first place that has them all."""
        for place in PLACES:
            folders = tuple(
                raw_dir / place / part / opinion for part in PARTS for opinion in OPINIONS
            )
            if all(folder.is_dir() for folder in folders):
                return folders
        return ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Read the reviews, make the vocabulary of the training part, and encode all."""
        folders = self.raw_files(raw_dir)
        texts: dict[str, list[str]] = {}
        labels: dict[str, np.ndarray] = {}
        for part, halves in zip(PARTS, (folders[:2], folders[2:]), strict=True):
            by_label = [read_texts(half) for half in halves]
            texts[part] = [text for half in by_label for text in half]
            labels[part] = np.repeat(np.arange(2), [len(half) for half in by_label])
        coder = self.coder()
        coder.count(texts["train"])
        coder.freeze(self.min_frequency)
        sizes = {part: len(texts[part]) for part in PARTS}
        for split, (part, rows) in self.parts(sizes["train"], sizes["test"]).items():
            with RaggedWriter(folder, split, coder.dtype) as writer:
                for start in range(0, len(rows), _ROWS_AT_ONCE):
                    chosen = rows[start : start + _ROWS_AT_ONCE]
                    writer.append(
                        *coder.encode([texts[part][row] for row in chosen]), labels[part][chosen]
                    )
        return Description(
            kind="tokens",
            n_classes=len(OPINIONS),
            targets="class",
            vocabulary=coder.vocabulary,
            provenance=f"Read from the reviews in {folders[0].parents[1].name}.",
            comparable=(
                f"The test set is the published one. {self.validated_on(sizes['train'])}"
                if sizes == PUBLISHED_SIZES
                else "The folders have not the published sizes: numbers do not compare."
            ),
        )


@register
@dataclass(frozen=True)
class Imdb(Reviews):
    """Tell praise of a film from a pan by the characters of the review."""

    name: ClassVar[str] = "imdb-classification"
    separator: ClassVar[str] = ""

    unit: Literal["characters", "bytes"] = "characters"
    """what a token is"""

    def coder(self) -> Coder:
        """Tokenizer of the texts."""
        return CharacterCoder(self.max_length, as_bytes=self.unit == "bytes")


@register
@dataclass(frozen=True)
class ImdbWords(Reviews):
    """Tell praise of a film from a pan by the words of the review."""

    name: ClassVar[str] = "imdb-word-classification"

    def coder(self) -> Coder:
        """Tokenizer of the texts."""
        return WordCoder(self.max_length)


def read_texts(folder: Path) -> list[str]:
    """The reviews in a folder of text files, by file name.

    Raises:
        ValueError: naming the folder without reviews, or the file that is no UTF-8.
    """
    texts = []
    for path in sorted(folder.glob("*.txt")):
        try:
            texts.append(path.read_bytes().decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 ({error})") from None
    if not texts:
        raise ValueError(f"{folder} has no reviews (*.txt)")
    return texts
