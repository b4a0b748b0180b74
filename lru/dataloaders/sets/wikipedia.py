"""The first 10^8 bytes of a dump of Wikipedia, raw (enwik8) or as letters and blanks (text8).

Mahoney (2006); the splits are the usual ones, 90, 5 and 5 million.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lru.dataloaders.base import register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.corpora import Characters

_PUBLISHED = {"train": 90_000_000, "val": 5_000_000, "test": 5_000_000}


def _source(name: str, sha256: str) -> Source:
    return Source(f"http://mattmahoney.net/dc/{name}.zip", sha256, f"{name}.zip", unpacked=name)


@register
@dataclass(frozen=True)
class Enwik8(Characters):
    """Predict the next byte of a dump of Wikipedia with its mark-up."""

    name: ClassVar[str] = "enwik8-lm"
    candidates: ClassVar[tuple[str, ...]] = ("enwik8/enwik8", "enwik8")
    as_bytes: ClassVar[bool] = True
    sources: ClassVar[tuple[Source, ...]] = (
        _source("enwik8", "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc"),
    )
    published: ClassVar[Mapping[str, int]] = _PUBLISHED


@register
@dataclass(frozen=True)
class Text8(Characters):
    """Predict the next of 26 letters and the blank of Wikipedia."""

    name: ClassVar[str] = "text8-lm"
    candidates: ClassVar[tuple[str, ...]] = ("text8/text8", "text8")
    sources: ClassVar[tuple[Source, ...]] = (
        _source("text8", "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232"),
    )
    published: ClassVar[Mapping[str, int]] = _PUBLISHED
