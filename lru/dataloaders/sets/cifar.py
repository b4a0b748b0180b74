"""CIFAR-10 as sequences: 32 × 32 images read one pixel at a time, in colour or in grey.

Krizhevsky (2009); as a sequence in the Long Range Arena (Tay et al. 2021, section 2.2.4).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int32, UInt8

from lru.dataloaders.base import Description, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.files.pickles import load_plain
from lru.dataloaders.sets.held_out import HeldOut
from lru.dataloaders.store.cache import write_dense

PLACES = ("cifar-10-batches-py", "cifar10/cifar-10-batches-py", "cifar/cifar-10-batches-py")
"""Folders under the raw folder in which the official files are looked for, first to last."""

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
PUBLISHED_SIZES = {"train": 50_000, "test": 10_000}
SIDE = 32
PIXELS = SIDE * SIDE

Colours = UInt8[np.ndarray, "n 1024 3"]
Classes = Int32[np.ndarray, " n"]


@register
@dataclass(frozen=True)
class Cifar(HeldOut):
    """Recognise what a colour image shows from its 1,024 pixels, one at a time."""

    name: ClassVar[str] = "cifar-classification"
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            "cifar-10-python.tar.gz",
            unpacked=PLACES[0],
            member="cifar-10-batches-py",
        ),
    )
    class_names: ClassVar[tuple[str, ...]] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    picture: ClassVar[tuple[int, int] | None] = (SIDE, SIDE)

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The six python batches, from the first place that has them all."""
        for place in PLACES:
            files = tuple(raw_dir / place / name for name in (*TRAIN_BATCHES, TEST_BATCH))
            if all(path.exists() for path in files):
                return files
        return ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Read the batches and put validation apart."""
        *train_files, test_file = self.raw_files(raw_dir)
        batches = [read_batch(path) for path in train_files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        published = {"train": (images, labels), "test": read_batch(test_file)}
        sizes = {part: len(labels) for part, (_, labels) in published.items()}
        for split, (part, rows) in self.parts(sizes["train"], sizes["test"]).items():
            images, labels = published[part]
            write_dense(folder, split, self.features(images[rows]), labels[rows])
        return Description(
            kind="values",
            n_classes=len(self.class_names),
            targets="class",
            provenance=f"Read from the six python batches in {test_file.parent.name}.",
            comparable=(
                f"The test set is the published one. {self.validated_on(sizes['train'])}"
                if sizes == PUBLISHED_SIZES
                else "The batches have not the published sizes: numbers do not compare."
            ),
        )

    def features(self, images: Colours) -> UInt8[np.ndarray, "n 1024 F"]:
        """Values that are read of each pixel."""
        return images


@register
@dataclass(frozen=True)
class GreyCifar(Cifar):
    """Recognise what a grey image shows from its 1,024 pixels, one at a time."""

    name: ClassVar[str] = "lra-cifar-classification"
    aliases: ClassVar[tuple[str, ...]] = ("cifar-lra-classification",)

    def features(self, images: Colours) -> UInt8[np.ndarray, "n 1024 1"]:
        """Values that are read of each pixel."""
        return grey(images)


def grey(images: Colours) -> UInt8[np.ndarray, "n 1024 1"]:
    """Luma of ITU-R 601-2, 0.299 R + 0.587 G + 0.114 B, in 16-bit fixed point and rounded.

    As Pillow converts to "L", and so torchvision's Grayscale.
    """
    weights = np.array([19_595, 38_470, 7_471], np.uint32)
    luma = np.empty((*images.shape[:2], 1), np.uint8)
    # A few at a time: the products take 16 times the memory of the result.
    for start in range(0, len(images), 1000):
        part = images[start : start + 1000]
        luma[start : start + 1000, :, 0] = (part @ weights + (1 << 15)) >> 16
    return luma


def read_batch(path: Path) -> tuple[Colours, Classes]:
    """Images and labels of an official python batch.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    batch = load_plain(path)
    entries = batch if isinstance(batch, dict) else {}
    pixels, labels = entries.get(b"data"), entries.get(b"labels")
    if not (isinstance(pixels, np.ndarray) and isinstance(labels, list)):
        raise ValueError(f"{path} is no batch with data and labels")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3 * PIXELS):
        raise ValueError(
            f"{path} holds {pixels.dtype} {pixels.shape}, but {len(labels)} labels need uint8 "
            f"{(len(labels), 3 * PIXELS)}"
        )
    if not all(label in range(len(Cifar.class_names)) for label in labels):
        raise ValueError(f"{path} holds a label that is not 0 to {len(Cifar.class_names) - 1}")
    # Stored plane by plane: red, green, blue.
    images = pixels.reshape(-1, 3, PIXELS).transpose(0, 2, 1)
    return np.ascontiguousarray(images), np.array(labels, np.int32)
