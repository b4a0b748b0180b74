"""Sequential MNIST: 28 × 28 grey images read one pixel at a time (Le, Jaitly & Hinton 2015).

`pmnist-classification` reads the pixels in another order, the same for all images;
`mnist14-classification` reads images of 14 × 14 pixels, for experiments that are to take minutes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int64, UInt8

from lru.dataloaders.base import register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.idx import SIDE, IdxImages, Published, idx_sources

PLACES = ("MNIST/raw", "mnist", ".")

_PUBLISHED = {
    "train-images-idx3-ubyte": Published(
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": Published(
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": Published(
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": Published(
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


@register
@dataclass(frozen=True)
class Mnist(IdxImages):
    """Recognise a handwritten digit from its 784 pixels, one at a time."""

    name: ClassVar[str] = "mnist-classification"
    places: ClassVar[tuple[str, ...]] = PLACES
    published: ClassVar[Mapping[str, Published]] = _PUBLISHED
    sources: ClassVar[tuple[Source, ...]] = idx_sources(
        "https://ossci-datasets.s3.amazonaws.com/mnist", PLACES[0], _PUBLISHED
    )


@register
@dataclass(frozen=True)
class PooledMnist(Mnist):
    """Recognise a handwritten digit from 196 pixels, the means of squares of four."""

    name: ClassVar[str] = "mnist14-classification"
    picture: ClassVar[tuple[int, int] | None] = (SIDE // 2, SIDE // 2)

    def arranged(self, images: UInt8[np.ndarray, "n T 1"]) -> UInt8[np.ndarray, "n 196 1"]:
        """The pooled pixels, row by row."""
        squares = images.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2)
        return squares.mean((2, 4)).round().astype(np.uint8).reshape(len(images), -1, 1)


@register
@dataclass(frozen=True)
class PermutedMnist(Mnist):
    """Recognise a handwritten digit from its 784 pixels in a fixed scrambled order."""

    name: ClassVar[str] = "pmnist-classification"
    picture: ClassVar[tuple[int, int] | None] = None

    order: Literal["random", "bit-reversed"] = "random"
    """random: drawn by permutation_seed; bit-reversed: by the reversed bits of the position"""
    permutation_seed: int = 92_916
    """of the random order; the default gives the order that most published works share"""

    def arranged(self, images: UInt8[np.ndarray, "n T 1"]) -> UInt8[np.ndarray, "n T 1"]:
        """The pixels in the order in which they are read."""
        return images[:, pixel_order(self)]


def pixel_order(options: PermutedMnist) -> Int64[np.ndarray, "784"]:
    """Pixel that is read at each step.

    Published works share the permutation that NumPy's legacy generator, whose stream never changes,
    draws from seed 92916; the state-space models of the S4 line use the bit-reversed order.
    """
    pixels = SIDE * SIDE
    if options.order == "random":
        return np.random.RandomState(options.permutation_seed).permutation(pixels)
    bits = pixels.bit_length()
    reversed_bits = [int(f"{pixel:0{bits}b}"[::-1], 2) for pixel in range(pixels)]
    return np.argsort(reversed_bits)
