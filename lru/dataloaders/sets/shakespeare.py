"""Tiny Shakespeare (Karpathy 2015): 40,000 lines of the plays, character by character.

There is no official split: nine tenths are for training, and the rest is shared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lru.dataloaders.base import register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.corpora import Characters

FILE = "tinyshakespeare/input.txt"


@register
@dataclass(frozen=True)
class Shakespeare(Characters):
    """Predict the next character of Shakespeare's plays."""

    name: ClassVar[str] = "shakespeare-lm"
    candidates: ClassVar[tuple[str, ...]] = (FILE, "tinyshakespeare.txt")
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/" + FILE,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            FILE,
        ),
    )
    published: ClassVar[Mapping[str, int]] = {"train": 1_003_854, "val": 55_770, "test": 55_770}
    compares: ClassVar[str] = "There are no official splits: published ones differ from these."

    n_val: int = 55_770
    """characters to validate on, before those to test on"""
    n_test: int = 55_770
    """characters to test on, the last of the file"""
