"""Images in the idx format of MNIST: four files with images and labels to train and to test on."""

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int32, UInt8

from lru.dataloaders.base import Description
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.held_out import HeldOut
from lru.dataloaders.store.cache import write_dense

SIDE = 28
N_CLASSES = 10
_UNSIGNED_BYTE = 8

Part = tuple[UInt8[np.ndarray, "n T 1"], Int32[np.ndarray, " n"]]
"""Images, one pixel after the other, and their labels."""


@dataclass(frozen=True)
class Published:
    """The hex sha256 of a published file.

    Attributes:
        compressed: of the `.gz` file.
        inflated: of its content.
    """

    compressed: str
    inflated: str


def idx_sources(url: str, folder: str, published: Mapping[str, Published]) -> tuple[Source, ...]:
    """The `.gz` files below `url`, which go into `folder`."""
    return tuple(
        Source(f"{url}/{name}.gz", file.compressed, f"{folder}/{name}.gz")
        for name, file in published.items()
    )


@dataclass(frozen=True)
class IdxImages(HeldOut):
    """28 × 28 grey images of ten classes, read one pixel at a time, row by row.

    Attributes:
        places: folders under the raw folder in which the four files are looked for, first to last.
        published: the files by name: images and labels of train, then of test.
    """

    places: ClassVar[tuple[str, ...]]
    published: ClassVar[Mapping[str, Published]]
    picture: ClassVar[tuple[int, int] | None] = (SIDE, SIDE)

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The four idx files, inflated or `.gz`, from the first place that has them all."""
        for place in self.places:
            files = [
                next((path for path in candidates if path.exists()), None)
                for candidates in (
                    (raw_dir / place / name, raw_dir / place / f"{name}.gz")
                    for name in self.published
                )
            ]
            found = tuple(path for path in files if path is not None)
            if len(found) == len(files):
                return found
        return ()

    def read(self, raw_dir: Path) -> tuple[dict[str, Part], str, bool]:
        """The published parts, "train" and "test", from the four files.

        Returns:
            Images and labels of both parts; a sentence that says which files they are from; and
            whether these are the published bytes.
        """
        files = self.raw_files(raw_dir)
        contents = [_inflated(path) for path in files]
        official = all(
            hashlib.sha256(content).hexdigest() == published.inflated
            for content, published in zip(contents, self.published.values(), strict=True)
        )
        arrays = [parse_idx(content, path) for content, path in zip(contents, files, strict=True)]
        parts = {
            part: _checked(arrays[first], arrays[first + 1], files[first], files[first + 1])
            for part, first in (("train", 0), ("test", 2))
        }
        where = files[0].parent.relative_to(raw_dir).as_posix()
        state = "the published bytes" if official else "NOT the published bytes"
        return parts, f"Read from the four idx files in {where}; their sha256: {state}.", official

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Read the four files and put validation apart."""
        published_parts, provenance, official = self.read(raw_dir)
        sizes = {part: len(labels) for part, (_, labels) in published_parts.items()}
        for split, (part, rows) in self.parts(sizes["train"], sizes["test"]).items():
            images, labels = published_parts[part]
            write_dense(folder, split, self.arranged(images[rows]), labels[rows])
        return Description(
            kind="values",
            n_classes=N_CLASSES,
            targets="class",
            provenance=provenance,
            comparable=(
                f"The test set is the published one. {self.validated_on(sizes['train'])}"
                if official
                else "Numbers compare only with those from the same files."
            ),
        )

    def arranged(self, images: UInt8[np.ndarray, "n T 1"]) -> UInt8[np.ndarray, "n T 1"]:
        """The pixels in the order in which they are read."""
        return images


def parse_idx(content: bytes, path: Path) -> UInt8[np.ndarray, "..."]:
    """The array in an idx file of unsigned bytes.

    The format: two zero bytes, the type, the number of axes, each axis' size as a big-endian
    32-bit number, then the entries with the last axis fastest.

    Args:
        content: the inflated file.
        path: what it is called in errors.

    Raises:
        ValueError: if it is no such file, or its size is not what its header says.
    """
    if len(content) < 4 or content[:3] != bytes((0, 0, _UNSIGNED_BYTE)):
        raise ValueError(f"{path} is no idx file of bytes: it starts with {content[:4].hex(' ')}")
    axes = content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{path} ends within its header, after {len(content)} bytes")
    shape = np.frombuffer(content, ">u4", axes, 4).tolist()
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise ValueError(
            f"{path} has {len(content)} bytes, but its header {shape} says {expected}; "
            "it is truncated or damaged"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _inflated(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error})") from error


def _checked(images: np.ndarray, labels: np.ndarray, images_path: Path, labels_path: Path) -> Part:
    """Images as `[n, 784, 1]` and labels as `[n]` int32."""
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"{images_path} holds {images.shape}, not images of {SIDE} by {SIDE}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{labels_path} holds {labels.shape}, not a label for {len(images)} images"
        )
    if labels.max(initial=0) >= N_CLASSES:
        raise ValueError(f"{labels_path} holds label {labels.max()}, but labels go from 0 to 9")
    return images.reshape(len(images), SIDE * SIDE, 1), labels.astype(np.int32)
