"""WikiText (Merity et al. 2016, arXiv 1609.07843): good articles of Wikipedia, rare words unknown.

The texts are CC BY-SA.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lru.dataloaders.base import register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.corpora import Words


def _source(folder: str, sha256: str) -> Source:
    archive = f"{folder}-v1.zip"
    return Source(f"https://wikitext.smerity.com/{archive}", sha256, archive, folder, folder)


@dataclass(frozen=True)
class WikiText(Words):
    """Either size."""

    file_names: ClassVar[Mapping[str, str]] = {
        "train": "wiki.train.tokens",
        "val": "wiki.valid.tokens",
        "test": "wiki.test.tokens",
    }


@register
@dataclass(frozen=True)
class WikiText2(WikiText):
    """Predict the next word of Wikipedia: 2 million words to train on, a vocabulary of 33,278."""

    name: ClassVar[str] = "wikitext2-lm"
    places: ClassVar[tuple[str, ...]] = ("wikitext-2",)
    sources: ClassVar[tuple[Source, ...]] = (
        _source("wikitext-2", "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c"),
    )
    published: ClassVar[Mapping[str, int]] = {"train": 2_088_628, "val": 217_646, "test": 245_569}


@register
@dataclass(frozen=True)
class WikiText103(WikiText):
    """Predict the next word of Wikipedia: 103 million words, a vocabulary of 267,735."""

    name: ClassVar[str] = "wikitext103-lm"
    places: ClassVar[tuple[str, ...]] = ("wikitext-103",)
    sources: ClassVar[tuple[Source, ...]] = (
        _source("wikitext-103", "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590"),
    )
    published: ClassVar[Mapping[str, int]] = {
        "train": 103_227_021,
        "val": 217_646,
        "test": 245_569,
    }
