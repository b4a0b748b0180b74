"""Text to token ids: characters, bytes or words that are frequent enough in the training texts."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64, UInt

SPECIALS = ("<pad>", "<unk>", "<eos>")
"""The first ids: padding, what is too rare, and the end of every text."""

PADDING, UNKNOWN, END = range(len(SPECIALS))

_CODE_POINTS = 0x110000
_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")
"""Letters and digits with apostrophes within, or one other sign."""
_MARK_UP = re.compile(r"<br\s*/?>")

Rows = tuple[UInt[np.ndarray, " total"], Int64[np.ndarray, " n"]]


class Coder(ABC):
    """First counts the training texts, then encodes any.

    Attributes:
        vocabulary: the text of each id: the specials, then tokens by falling frequency.
        dtype: the smallest type that holds all ids.
    """

    vocabulary: tuple[str, ...]
    dtype: np.dtype

    def __init__(self, max_length: int):
        """Start with nothing counted.

        Args:
            max_length: most tokens of an encoded text, its end included; what is longer is cut.
        """
        self._kept = max_length - 1

    @abstractmethod
    def count(self, texts: Iterable[str]) -> None:
        """Count the tokens of more texts."""

    def freeze(self, min_frequency: int) -> None:
        """Make the vocabulary: tokens that were counted at least so often."""
        tokens = self._frequent(min_frequency)
        self.vocabulary = (*SPECIALS, *tokens)
        self.dtype = np.min_scalar_type(len(self.vocabulary) - 1)

    @abstractmethod
    def _frequent(self, min_frequency: int) -> Sequence[str]:
        """Tokens by falling frequency; among equals in the order of their texts."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Rows:
        """Ids of all texts one after the other, each with its end, and their lengths."""


class CharacterCoder(Coder):
    """Characters, or the bytes of their UTF-8."""

    def __init__(self, max_length: int, *, as_bytes: bool = False):
        """Start with nothing counted.

        Args:
            max_length: most tokens of an encoded text, its end included; what is longer is cut.
            as_bytes: bytes in place of characters.
        """
        super().__init__(max_length)
        self._as_bytes = as_bytes
        self._counts = np.zeros(256 if as_bytes else _CODE_POINTS, np.int64)
        self._ids = np.zeros(0, np.uint8)

    def _codes(self, text: str) -> bytes:
        """The tokens of a text, four bytes a character or one a byte."""
        if self._as_bytes:
            return text.encode()[: self._kept]
        return text[: self._kept].encode("utf-32-le")

    def _unit(self) -> np.dtype:
        return np.dtype(np.uint8 if self._as_bytes else "<u4")

    def count(self, texts: Iterable[str]) -> None:
        """Count the tokens of more texts."""
        codes = np.frombuffer(b"".join(map(self._codes, texts)), self._unit())
        self._counts += np.bincount(codes, minlength=len(self._counts))

    def _frequent(self, min_frequency: int) -> Sequence[str]:
        codes = np.flatnonzero(self._counts >= max(min_frequency, 1))
        codes = codes[np.argsort(-self._counts[codes], kind="stable")]
        size = len(SPECIALS) + len(codes)
        self._ids = np.full(len(self._counts), UNKNOWN, np.min_scalar_type(size - 1))
        self._ids[codes] = np.arange(len(SPECIALS), size)
        plain = 128 if self._as_bytes else _CODE_POINTS
        return [chr(code) if code < plain else f"<{code:#04x}>" for code in codes.tolist()]

    def encode(self, texts: Sequence[str]) -> Rows:
        """Ids of all texts one after the other, each with its end, and their lengths."""
        rows = [np.frombuffer(self._codes(text), self._unit()) for text in texts]
        lengths = np.array([len(row) + 1 for row in rows], np.int64)
        values = np.full(lengths.sum(), END, self.dtype)
        inside = np.ones(len(values), bool)
        inside[np.cumsum(lengths) - 1] = False
        if rows:
            values[inside] = self._ids[np.concatenate(rows)]
        return values, lengths


class WordCoder(Coder):
    """Words in lower case and signs; line breaks of HTML are spaces."""

    def __init__(self, max_length: int):
        """Start with nothing counted.

        Args:
            max_length: most tokens of an encoded text, its end included; what is longer is cut.
        """
        super().__init__(max_length)
        self._counts: Counter[str] = Counter()
        self._ids: dict[str, int] = {}

    def _words(self, text: str) -> list[str]:
        return _WORDS.findall(_MARK_UP.sub(" ", text).lower())[: self._kept]

    def count(self, texts: Iterable[str]) -> None:
        """Count the tokens of more texts."""
        for text in texts:
            self._counts.update(self._words(text))

    def _frequent(self, min_frequency: int) -> Sequence[str]:
        words = [word for word, count in self._counts.items() if count >= min_frequency]
        words.sort(key=lambda word: (-self._counts[word], word))
        self._ids = {word: token for token, word in enumerate(words, len(SPECIALS))}
        return words

    def encode(self, texts: Sequence[str]) -> Rows:
        """Ids of all texts one after the other, each with its end, and their lengths."""
        rows = [[self._ids.get(word, UNKNOWN) for word in self._words(text)] for text in texts]
        lengths = np.array([len(row) + 1 for row in rows], np.int64)
        return np.array([token for row in rows for token in (*row, END)], self.dtype), lengths
