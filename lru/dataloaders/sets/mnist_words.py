"""MNIST in words of bits: files, splits and labels of the data of Bausch (NeurIPS 2020).

A digit is read as some words and then named: its label is a number of one or more words, most
significant first, at the end of an output sequence that is zero elsewhere. Outputs before the
label are given.
"""

import gzip
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int, Int64, UInt8

from lru.dataloaders.base import Description, check_at_least
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.bit_words import BitWords, Sequences
from lru.dataloaders.sets.idx import SIDE
from lru.dataloaders.sets.mnist import Mnist

ORIGINAL = "mnist_quantum"
"""Folder of the original's files under the raw folder."""

_PARTS = {"train": "train", "val": "validate", "test": "test"}
"""Splits as the names of these files call them."""

N_DIGITS = 10

ByDigit = list[UInt8[np.ndarray, "_ ..."]]
"""Rows of each digit, from 0 on."""


@dataclass(frozen=True)
class MnistWords(BitWords):
    """Rows of digits, which are the groups of train.

    Our own preparation follows that of the original, from the images of MNIST: of each digit,
    `n_val` rows validate and the others train; all images to test on test. (In the original's
    files one image of each digit is in both train and validation.)
    """

    sources: ClassVar[tuple[Source, ...]] = Mnist.sources

    n_val: int = 500
    """images of each digit that are cut from train to validate on; of our own preparation"""
    seed: int = 0
    """of their choice"""
    files: Literal["auto", "own", "original"] = "auto"
    """own: prepared from MNIST; original: files of the paper's author; auto: these if they exist"""

    def __post_init__(self):
        check_at_least(self, n_val=1, seed=0)

    @property
    def numerals(self) -> Sequence[int]:
        """Digits that there are: all, unless stated."""
        return range(N_DIGITS)

    @property
    def labels(self) -> Sequence[int]:
        """Label of each of them: its place, unless stated."""
        return range(len(self.numerals))

    @property
    def label_words(self) -> int:
        """Words of a label."""
        return -(-max(self.labels).bit_length() // self.n_bits)

    def original_name(self) -> str | None:
        """Start of the names of the original's files, `{}` for the digit; None if it has none."""
        return None

    @abstractmethod
    def own(self, raw_dir: Path, images: Mapping[str, ByDigit]) -> Mapping[str, ByDigit]:
        """Codes `[n, k]` of images `[n, 28, 28]`, by split and digit, as the original's files have.

        Args:
            raw_dir: where files may be kept.
            images: of the digits that there are, by split.
        """

    @abstractmethod
    def sequences(
        self, codes: UInt8[np.ndarray, "n k"], labels: Int64[np.ndarray, " n"]
    ) -> Sequences:
        """Words of codes and labels."""

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The original's files if they are wanted and there, else those of MNIST."""
        if self.files != "own":
            paths = self._original_files(raw_dir)
            if paths and all(path.exists() for path in paths.values()):
                return tuple(paths.values())
        return Mnist().raw_files(raw_dir) if self.files != "original" else ()

    def obtain(self, raw_dir: Path, mirror: str | None = None) -> tuple[Path, ...]:
        """See `Dataset.obtain`.

        Raises:
            FileNotFoundError: naming one of the original's files that is wanted and missing.
        """
        if self.files == "original" and not self.raw_files(raw_dir):
            paths = self._original_files(raw_dir).values()
            missing = next((f"{path} is missing" for path in paths if not path.exists()), None)
            raise FileNotFoundError(
                f"{self.name}: files is 'original', but "
                f"{missing or 'the original has none for these options'}; own prepares MNIST anew"
            )
        return super().obtain(raw_dir, mirror)

    def _original_files(self, raw_dir: Path) -> dict[tuple[str, int], Path]:
        """The original's files by split and digit; of an optional split only if all are there."""
        name, found = self.original_name(), {}
        if name is None:
            return {}
        for split, part in _PARTS.items():
            paths = {
                (split, digit): raw_dir / ORIGINAL / f"{name.format(digit)}-{part}.csv.gz"
                for digit in self.numerals
            }
            if split not in self.optional_splits or all(path.exists() for path in paths.values()):
                found |= paths
        return found

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Write the words of the original's codes, or of our own."""
        original = self._original_files(raw_dir)
        if original and self.raw_files(raw_dir) == tuple(original.values()):
            codes: dict[str, ByDigit] = {split: [] for split, _ in original}
            for (split, _), path in original.items():
                codes[split].append(read_codes(path))
            provenance = f"Read from the original's files in {ORIGINAL}."
            comparable = "The rows are those of the original."
        else:
            images, read = self._images(raw_dir)
            codes = dict(self.own(raw_dir, images))
            provenance = f"Prepared by ourselves. {read}"
            comparable = "Prepared as the original's rows are, but not the same bit for bit."
        for split, by_digit in codes.items():
            labels = np.repeat(np.array(self.labels), [len(rows) for rows in by_digit])
            part = self.sequences(np.concatenate(by_digit), labels)
            self.write(folder, split, part.inputs.shape[1] - 1, [part])
        return self.described(
            provenance,
            f"{comparable} Published results score random batches, each word of a label by itself.",
            groups=tuple(len(rows) for rows in codes["train"]),
        )

    def _images(self, raw_dir: Path) -> tuple[dict[str, ByDigit], str]:
        """Images of the digits by split, and where they are from."""
        parts, provenance, _ = Mnist().read(raw_dir)
        images: dict[str, ByDigit] = {split: [] for split in _PARTS}
        pixels, of = parts["train"]
        order = np.random.default_rng(self.seed).permutation(len(of))
        for digit in self.numerals:
            rows = order[of[order] == digit]
            if len(rows) <= self.n_val:
                raise ValueError(
                    f"{self.name}: n_val is {self.n_val}, but must be less than the {len(rows)} "
                    f"images of digit {digit} to train on"
                )
            images["val"].append(pixels[rows[: self.n_val]])
            images["train"].append(pixels[rows[self.n_val :]])
            images["test"].append(parts["test"][0][parts["test"][1] == digit])
        squares = {
            split: [rows.reshape(-1, SIDE, SIDE) for rows in by_digit]
            for split, by_digit in images.items()
        }
        return squares, provenance

    def named(self, labels: Int[np.ndarray, " n"]) -> Int64[np.ndarray, "n words"]:
        """The words of labels, most significant first."""
        shifts = self.n_bits * np.arange(self.label_words)[::-1]
        return labels[:, None] >> shifts & (2**self.n_bits - 1)

    def labelled(self, words: Int[np.ndarray, "n L"], labels: Int64[np.ndarray, " n"]) -> Sequences:
        """Words that are read, with those of labels at the end of the outputs."""
        outputs = np.zeros(words.shape, np.int64)
        outputs[:, -self.label_words :] = self.named(labels)
        scored = np.arange(words.shape[1]) >= words.shape[1] - self.label_words
        return Sequences(words, outputs, scored[None])


def read_codes(path: Path) -> UInt8[np.ndarray, "n k"]:
    """Rows of bytes in a compressed file, a line each, with commas between them.

    Raises:
        ValueError: naming the file if it is something else.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        codes = np.array([line.split(",") for line in lines], np.int64)
        if codes.ndim != 2 or codes.min() < 0 or codes.max() > 255:
            raise ValueError("they must be 0 to 255")
        return codes.astype(np.uint8)
    except (EOFError, OSError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is no compressed file of rows of bytes ({error})") from None
