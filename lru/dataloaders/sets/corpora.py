"""Texts to be continued: each token is predicted from those before it, across lines.

A corpus of words has three files with words between blanks and one `<eos>` a line; a corpus of
characters has one file that is cut in three. The vocabulary is that of the training part, by
falling frequency, without padding: ids start at 0. What is read can be written again: `split` cuts
a text into tokens, `join` puts tokens together.
"""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, Integer

from lru.dataloaders.base import Dataset, Description, check_at_least
from lru.dataloaders.store.arrays import NO_TARGET
from lru.dataloaders.store.writers import RaggedWriter

END, UNKNOWN = "<eos>", "<unk>"

NEWLINE = "\n"
BLANK = "_"
"""The blank in texts of characters between blanks."""
LINE_LENGTH = 1_000
"""Characters of a line of a text that has none."""

_LINES_AT_ONCE = 20_000


def boundary(vocabulary: Sequence[str]) -> int:
    """The id of what ends a line, which stands before the first token of a text.

    It is that of `<eos>`, else of the newline, else of the most frequent token.
    """
    known = [vocabulary.index(token) for token in (END, NEWLINE) if token in vocabulary]
    return [*known, 0][0]


@dataclass(frozen=True)
class Corpus(Dataset):
    """A text in three splits, whose rows are its lines.

    Attributes:
        published: tokens of each split in published results; empty where there are none.
        compares: what the card says if the splits have these sizes.
    """

    task: ClassVar[str] = "language_modelling"
    published: ClassVar[Mapping[str, int]] = {}
    compares: ClassVar[str] = "The text, its splits and its tokens are the published ones."

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """The tokens of a text, of the vocabulary or not."""

    @abstractmethod
    def join(self, tokens: Sequence[str]) -> str:
        """The text of tokens."""

    def described(
        self, files: Sequence[Path], vocabulary: Sequence[str], sizes: Mapping[str, int]
    ) -> Description:
        """Facts of the card."""
        return Description(
            kind="text",
            n_classes=len(vocabulary),
            targets="tokens",
            vocabulary=tuple(vocabulary),
            provenance=f"Read from {', '.join(path.name for path in files)}.",
            comparable=(
                "Comparable with results on the same text, cut alike."
                if not self.published
                else self.compares
                if sizes == self.published
                else "The splits have not the published sizes: numbers do not compare."
            ),
        )


@dataclass(frozen=True)
class Words(Corpus):
    """Words between blanks, and the end of every line.

    Attributes:
        places: folders in which the three files are looked for, first to last.
        file_names: of the three files, by split.
    """

    places: ClassVar[tuple[str, ...]]
    file_names: ClassVar[Mapping[str, str]]

    def split(self, text: str) -> list[str]:
        """Tokens between blanks, and an end for each newline."""
        return text.replace(NEWLINE, f" {END} ").split()

    def join(self, tokens: Sequence[str]) -> str:
        """Words with blanks between them, ends as newlines."""
        lines = [[]]
        for token in tokens:
            lines.append([]) if token == END else lines[-1].append(token)
        return NEWLINE.join(self.separator.join(line) for line in lines)

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The three files, from the first place that has them all."""
        for place in self.places:
            files = tuple(raw_dir / place / self.file_names[split] for split in self.split_names)
            if all(path.is_file() for path in files):
                return files
        return ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Make the vocabulary of the training part, and encode all."""
        files = dict(zip(self.split_names, self.raw_files(raw_dir), strict=True))
        counts: Counter[str] = Counter()
        for line in read_lines(files["train"]):
            counts.update(line)
        vocabulary = sorted(counts, key=lambda word: (-counts[word], word))
        ids = {word: number for number, word in enumerate(vocabulary)}
        sizes = {
            split: self._encode(path, ids, folder, split, np.min_scalar_type(len(ids) - 1))
            for split, path in files.items()
        }
        return self.described(list(files.values()), vocabulary, sizes)

    def _encode(
        self, path: Path, ids: Mapping[str, int], folder: Path, split: str, dtype: np.dtype
    ) -> int:
        """Write one split; the number of its tokens."""
        lines, total, number = read_lines(path), 0, 0
        with RaggedWriter(folder, split, dtype) as writer:
            while chunk := list(islice(lines, _LINES_AT_ONCE)):
                try:
                    tokens = [ids[word] for line in chunk for word in line]
                except KeyError:
                    tokens = [
                        self._id(word, ids, f"{path}, line {number + i}")
                        for i, line in enumerate(chunk, 1)
                        for word in line
                    ]
                lengths = np.array([len(line) for line in chunk], np.int64)
                writer.append(np.array(tokens, dtype), lengths, unlabelled(len(chunk)))
                total += len(tokens)
                number += len(chunk)
        return total

    def _id(self, word: str, ids: Mapping[str, int], where: str) -> int:
        found = ids.get(word, ids.get(UNKNOWN))
        if found is None:
            raise ValueError(
                f"{where}: {word!r} is not in the training part, and neither is {UNKNOWN}, which "
                "would stand for it"
            )
        return found


@dataclass(frozen=True)
class Characters(Corpus):
    """Characters or bytes of one file: the last ones to test, those before them to validate.

    Attributes:
        candidates: names under which the file is looked for, first to last.
        as_bytes: bytes in place of characters; all 256 are then in the vocabulary.
    """

    candidates: ClassVar[tuple[str, ...]]
    as_bytes: ClassVar[bool] = False
    separator: ClassVar[str] = ""

    n_val: int = 5_000_000
    """characters to validate on, before those to test on"""
    n_test: int = 5_000_000
    """characters to test on, the last of the file"""

    def __post_init__(self):
        check_at_least(self, n_val=1, n_test=1)

    def split(self, text: str) -> list[str]:
        """Characters, or the names of bytes."""
        return [self._text(byte) for byte in text.encode()] if self.as_bytes else list(text)

    def join(self, tokens: Sequence[str]) -> str:
        """The text; of bytes that are no UTF-8, with a mark in their place."""
        if not self.as_bytes:
            return "".join(tokens)
        names = {self._text(byte): byte for byte in range(256)}
        return bytes(names[token] for token in tokens).decode(errors="replace")

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The file, by the first name under which there is one."""
        for name in self.candidates:
            if (raw_dir / name).is_file():
                return (raw_dir / name,)
        return ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Cut the file, make the vocabulary of the training part, and encode all."""
        (path,) = self.raw_files(raw_dir)
        codes = self._codes(path)
        n_train = len(codes) - self.n_val - self.n_test
        if n_train < 1:
            raise ValueError(
                f"{path} has {len(codes):,} characters, but must have more than n_val + n_test = "
                f"{self.n_val + self.n_test:,}"
            )
        kinds = 256 if self.as_bytes else int(codes.max()) + 1
        counts = np.bincount(codes[:n_train], minlength=kinds)
        known = np.flatnonzero(counts >= (0 if self.as_bytes else 1))
        known = known[np.argsort(-counts[known], kind="stable")]
        missing = np.setdiff1d(np.flatnonzero(np.bincount(codes[n_train:])), known)
        if len(missing):
            raise ValueError(f"{path}: {chr(missing[0])!r} is not in the training part")
        ids = np.zeros(kinds, np.min_scalar_type(len(known) - 1))
        ids[known] = np.arange(len(known))
        ends = np.cumsum([n_train, self.n_val, self.n_test])
        for split, part in zip(self.split_names, np.split(codes, ends[:-1]), strict=True):
            with RaggedWriter(folder, split, ids.dtype) as writer:
                lengths = line_lengths(part)
                writer.append(ids[part], lengths, unlabelled(len(lengths)))
        sizes: dict[str, int] = dict(
            zip(self.split_names, [n_train, self.n_val, self.n_test], strict=True)
        )
        return self.described([path], [self._text(code) for code in known.tolist()], sizes)

    def _codes(self, path: Path) -> Integer[np.ndarray, " n"]:
        content = path.read_bytes()
        if self.as_bytes:
            return np.frombuffer(content, np.uint8)
        return np.frombuffer(decoded(path, content).encode("utf-32-le"), "<u4")

    def _text(self, code: int) -> str:
        return chr(code) if code < 128 or not self.as_bytes else f"<{code:#04x}>"


@dataclass(frozen=True)
class SpacedCharacters(Words):
    """Characters between blanks, `_` for a blank: the files are read as those of words."""

    separator: ClassVar[str] = ""

    def split(self, text: str) -> list[str]:
        """Characters, a rare word as one, and an end for each newline."""
        characters: list[str] = re.findall(f"{UNKNOWN}|.", text, re.DOTALL)
        return [{" ": BLANK, NEWLINE: END}.get(character, character) for character in characters]

    def join(self, tokens: Sequence[str]) -> str:
        """Characters, ends as newlines."""
        return super().join(tokens).replace(BLANK, " ")


def read_lines(path: Path) -> Iterator[list[str]]:
    """The words of each line of a file, and its end.

    Raises:
        ValueError: naming the file that has no words, or is no UTF-8.
    """
    empty = True
    with path.open("rb") as file:
        for line in file:
            words = decoded(path, line).split()
            empty = empty and not words
            yield [*words, END]
    if empty:
        raise ValueError(f"{path} is empty: it has no words")


def decoded(path: Path, content: bytes) -> str:
    """The text of UTF-8.

    Raises:
        ValueError: naming the file if it is something else.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error})") from None


def line_lengths(codes: Integer[np.ndarray, " n"]) -> Int64[np.ndarray, " lines"]:
    """Characters of each line, its newline included; a text without newlines is cut evenly."""
    ends = np.flatnonzero(codes == ord(NEWLINE)) + 1
    if not len(ends):
        ends = np.arange(LINE_LENGTH, len(codes), LINE_LENGTH)
    if not len(ends) or ends[-1] < len(codes):
        ends = np.append(ends, len(codes))
    return np.diff(ends, prepend=0)


def unlabelled(rows: int) -> Int64[np.ndarray, " rows"]:
    """The labels of lines."""
    return np.full(rows, NO_TARGET, np.int64)
