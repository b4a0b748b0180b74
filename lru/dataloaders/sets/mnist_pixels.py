"""MNIST as scans of black and white images: `mnist-pixels`, with the published names of its forms.

The data of Bausch (NeurIPS 2020). The bits of a word are the pixels that several scans of one image
meet at the same step: along its rows, along its columns, and along the rows of the image turned by
135 degrees. A 1 is the background.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from lru.dataloaders.base import register
from lru.dataloaders.sets.bit_words import Sequences
from lru.dataloaders.sets.mnist_words import ByDigit, MnistWords

SCANS = 3
"""Scans in the original's files, the first in the most significant bit."""

_SIDES = (10, 20)
_MARGIN = 4
"""Rows and columns around the 20 by 20 pixels in which MNIST has its digits."""

_DESKEWED: Mapping[str, Any] = {"deskew": True}
_LARGE: Mapping[str, Any] = {"deskew": True, "side": 20}
_EIGHT: Mapping[str, Any] = {"digits": "01234567", "scans": 3}

Images = UInt8[np.ndarray, "n rows columns"]


@register
@dataclass(frozen=True)
class MnistPixels(MnistWords):
    """Recognise a digit from scans of its black and white image, or draw one."""

    name: ClassVar[str] = "mnist-pixels"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist01": {"digits": "01"},
        "mnist01-ds": {"digits": "01", **_DESKEWED},
        "mnist01-ds-lrg": {"digits": "01", **_LARGE},
        "mnist36": {"digits": "36"},
        "mnist36-ds": {"digits": "36", **_DESKEWED},
        "mnist36-ds-lrg": {"digits": "36", **_LARGE},
        "mnist8": {"digits": "012345678", "scans": 3},
        "mnist8-ds": {**_EIGHT, **_DESKEWED},
        "mnist8-ds-lrg": {**_EIGHT, **_LARGE},
        "mnist-even-odd": {"digits": "0123456789", "label": "parity"},
        "mnist01-gen": {"digits": "01", **_DESKEWED, "label": "image"},
    }

    digits: str = "01"
    """those to tell from each other"""
    scans: int = 2
    """scans that are read at once, 2 or 3: bits of a word"""
    deskew: bool = False
    """straighten slanted digits"""
    side: int = 10
    """rows and columns of an image, 10 or 20"""
    label: Literal["digit", "parity", "image"] = "digit"
    """digit: its place in digits; parity: 1 if it is odd; image: read the label, predict pixels"""

    def __post_init__(self):
        super().__post_init__()
        in_turn = "".join(sorted(set(self.digits) & set("0123456789")))
        if self.digits != in_turn or len(in_turn) < 2:
            raise ValueError(
                f"{self.name}: digits is {self.digits!r}, but must be two or more digits in "
                "ascending order, such as 36"
            )
        for option, allowed in (("scans", (2, SCANS)), ("side", _SIDES)):
            value = getattr(self, option)
            if value not in allowed:
                raise ValueError(
                    f"{self.name}: {option} is {value}, but must be {allowed[0]} or {allowed[1]}"
                )
        if self.label == "image" and self.label_words > 1:
            raise ValueError(
                f"{self.name}: label is 'image', but digits has {len(self.digits)}, and only "
                f"{2**self.scans} labels fit into a word of {self.scans} scans"
            )

    @property
    def n_bits(self) -> int:
        """Bits of a word: one of each scan."""
        return self.scans

    @property
    def numerals(self) -> Sequence[int]:
        """See `MnistWords.numerals`."""
        return [int(digit) for digit in self.digits]

    @property
    def labels(self) -> Sequence[int]:
        """See `MnistWords.labels`."""
        if self.label == "parity":
            return [numeral % 2 for numeral in self.numerals]
        return super().labels

    def original_name(self) -> str | None:
        """See `MnistWords.original_name`: those of small images alone."""
        if self.side != _SIDES[0]:
            return None
        return f"mnist-simple-{{}}{'-deskewed' if self.deskew else ''}"

    def own(self, raw_dir: Path, images: Mapping[str, ByDigit]) -> Mapping[str, ByDigit]:
        """See `MnistWords.own`."""
        del raw_dir
        return {
            split: [scanned(rows, self.side, deskew=self.deskew) for rows in by_digit]
            for split, by_digit in images.items()
        }

    def sequences(
        self, codes: UInt8[np.ndarray, "n k"], labels: Int64[np.ndarray, " n"]
    ) -> Sequences:
        """See `MnistWords.sequences`: words of the scans, and the label after or before them."""
        words = codes.astype(np.int64) >> (SCANS - self.scans)
        if self.label != "image":
            return self.labelled(words, labels)
        words[:, 0] = labels
        return Sequences(words, words, np.ones((1, 1), bool))


def scanned(images: Images, side: int, *, deskew: bool) -> UInt8[np.ndarray, "n pixels"]:
    """Pixels of three scans as the bits of numbers, as in the original's files.

    Args:
        images: grey, of MNIST.
        side: rows and columns of the black and white images.
        deskew: straighten slanted digits first.
    """
    if deskew:
        images = _each(images, straightened)
    turned = _each(images, lambda image: image.rotate(135, Image.Resampling.BILINEAR))
    upright = background(images, side)
    scans = (upright, upright.transpose(0, 2, 1), background(turned, side))
    bits = [scan.reshape(len(images), -1) << place for place, scan in enumerate(reversed(scans))]
    return np.bitwise_or.reduce(bits).astype(np.uint8)


def straightened(image: Image.Image) -> Image.Image:
    """A digit without its slant: sheared about the middle so that its columns do not lean.

    The shear undoes the regression of the column on the row, by the moments of the image.
    """
    ink = np.asarray(image, np.float64)
    rows, columns = np.indices(ink.shape)
    total = max(ink.sum(), 1)
    rows, columns = rows - (ink * rows).sum() / total, columns - (ink * columns).sum() / total
    slant = (ink * rows * columns).sum() / max((ink * rows * rows).sum(), 1)
    shear = (1, slant, -slant * image.height / 2, 0, 1, 0)
    return image.transform(image.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR)


def background(images: Images, side: int) -> Bool[np.ndarray, "n side side"]:
    """The middle of grey images, shrunk to `side`: True where it is dark, by Otsu's threshold."""
    middle = images[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    by = middle.shape[1] // side
    blocks = middle.reshape(len(images), side, by, side, by)
    grey = blocks.sum((2, 4), dtype=np.int64) // by**2
    return grey <= otsu(grey.reshape(len(grey), -1))[:, None, None]


def otsu(grey: Int64[np.ndarray, "n pixels"]) -> Int64[np.ndarray, " n"]:
    """The largest dark value of each image, so that dark and light differ most (Otsu 1979).

    Of all cuts of the values it is that with the largest variance between the two classes.
    """
    places = grey + 256 * np.arange(len(grey))[:, None]
    counts = np.bincount(places.ravel(), minlength=256 * len(grey)).reshape(len(grey), 256)
    dark, sums = counts.cumsum(axis=1), (counts * np.arange(256)).cumsum(axis=1)
    total = grey.shape[1]
    apart = (sums[:, -1:] * dark / total - sums) ** 2
    between = apart / np.maximum(dark * (total - dark), 1)
    return between.argmax(axis=1)


def _each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    """Images, each changed by itself."""
    changed = [np.asarray(change(Image.fromarray(image))) for image in images]
    return np.stack(changed) if changed else images
