"""Sequential MNIST: 28 × 28 grey images read one pixel at a time (Le, Jaitly & Hinton 2015)."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from lru.dataloaders.base import Dataset, Description, check_at_least, register
from lru.dataloaders.cache import write_dense
from lru.dataloaders.fetch import Source

PLACES = ("MNIST/raw", "mnist", ".")
"""Folders under the raw folder in which the four files are looked for, first to last."""

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"
# Digests of the files as published, compressed and inflated.
_PUBLISHED = {
    "train-images-idx3-ubyte": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_SIDE = 28
_N_CLASSES = 10
_UNSIGNED_BYTE = 8


@register
@dataclass(frozen=True)
class Mnist(Dataset):
    """Recognise a handwritten digit from its 784 pixels, one at a time."""

    name: ClassVar[str] = "mnist-classification"
    sources: ClassVar[tuple[Source, ...]] = tuple(
        Source(f"{_MIRROR}/{name}.gz", compressed, f"{PLACES[0]}/{name}.gz")
        for name, (compressed, _) in _PUBLISHED.items()
    )

    n_val: int = 5_000
    """images cut from train to validate on"""
    seed: int = 0
    """of the choice of these images"""

    def __post_init__(self):
        check_at_least(self, n_val=1, seed=0)

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """The four idx files, inflated or `.gz`, from the first place that has them all."""
        for place in PLACES:
            files = [
                next((path for path in candidates if path.exists()), None)
                for candidates in (
                    (raw_dir / place / name, raw_dir / place / f"{name}.gz") for name in _PUBLISHED
                )
            ]
            found = tuple(path for path in files if path is not None)
            if len(found) == len(files):
                return found
        return ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Read the four files and cut validation images from train."""
        files = self.raw_files(raw_dir)
        contents = [_inflated(path) for path in files]
        official = all(
            hashlib.sha256(content).hexdigest() == inflated
            for content, (_, inflated) in zip(contents, _PUBLISHED.values(), strict=True)
        )
        arrays = [parse_idx(content, path) for content, path in zip(contents, files, strict=True)]
        images, labels = _checked(arrays[0], arrays[1], files[0], files[1])
        test_images, test_labels = _checked(arrays[2], arrays[3], files[2], files[3])
        if self.n_val >= len(images):
            raise ValueError(
                f"{self.name}: n_val is {self.n_val}, but must be less than the {len(images)} "
                "images to train on"
            )
        chosen = np.zeros(len(images), bool)
        chosen[np.random.default_rng(self.seed).permutation(len(images))[: self.n_val]] = True
        write_dense(folder, "train", images[~chosen], labels[~chosen])
        write_dense(folder, "val", images[chosen], labels[chosen])
        write_dense(folder, "test", test_images, test_labels)
        where = files[0].parent.relative_to(raw_dir).as_posix()
        state = "the published bytes" if official else "NOT the published bytes"
        return Description(
            kind="values",
            n_classes=_N_CLASSES,
            targets="sequence",
            provenance=f"Read from the four idx files in {where}; their sha256: {state}.",
            comparable=(
                f"The test set is the published one; {self.n_val:,} of the {len(images):,} images "
                f"to train on, drawn with seed {self.seed}, are kept for validation."
                if official
                else "Numbers compare only with those from the same files."
            ),
        )


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


def _checked(
    images: np.ndarray, labels: np.ndarray, images_path: Path, labels_path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Images as `[n, 784, 1]` and labels as `[n]` int32."""
    if images.shape[1:] != (_SIDE, _SIDE):
        raise ValueError(f"{images_path} holds {images.shape}, not images of {_SIDE} by {_SIDE}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{labels_path} holds {labels.shape}, not a label for {len(images)} images"
        )
    if labels.max(initial=0) >= _N_CLASSES:
        raise ValueError(f"{labels_path} holds label {labels.max()}, but labels go from 0 to 9")
    return images.reshape(len(images), _SIDE * _SIDE, 1), labels.astype(np.int32)
