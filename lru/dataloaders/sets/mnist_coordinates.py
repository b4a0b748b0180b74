"""MNIST as a few coordinates of each image, bit by bit: `mnist-pca`, `mnist-tsne`, `mnist-umap`.

The data of Bausch (NeurIPS 2020), table 1. A coordinate is a byte: the quantile of its value in a
normal distribution of the mean and deviation of all coordinates to train on.
"""

import hashlib
import importlib
import io
import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int64, UInt8

from lru.dataloaders.base import check_at_least, check_at_most, register
from lru.dataloaders.sets.bit_words import Sequences
from lru.dataloaders.sets.idx import SIDE
from lru.dataloaders.sets.mnist_words import N_DIGITS, ByDigit, MnistWords
from lru.files import make_folder, write_atomically

OWN = "mnist_quantum_own"
"""Folder under the raw folder that keeps coordinates which take minutes to compute."""

BITS = 8
"""Bits of a coordinate."""

MOST = 7
"""Most bits of a word here."""

PARAMETERS = {
    "tsne": {"perplexity": 40, "early_exaggeration_iter": 250, "n_iter": 500, "random_state": 42},
    "umap": {"n_neighbors": 40, "min_dist": 0.0, "n_epochs": 500, "random_state": 42},
}
"""Those of the original."""

Values = dict[str, Float[np.ndarray, "_ _"]]
"""Rows by split."""


@dataclass(frozen=True)
class MnistCoordinates(MnistWords):
    """Coordinates of each image, read together or in turn."""

    @property
    @abstractmethod
    def dimensions(self) -> int:
        """Coordinates of an image."""

    @abstractmethod
    def fitted(self, pixels: Values, labels: Int64[np.ndarray, " n"]) -> Values:
        """Coordinates, by a method that is fitted to train.

        Args:
            pixels: of the images, by split.
            labels: digits of train.
        """

    def own(self, raw_dir: Path, images: Mapping[str, ByDigit]) -> Mapping[str, ByDigit]:
        """See `MnistWords.own`."""
        coordinates = self.coordinates(raw_dir, images)
        return {
            split: np.split(coordinates[split], np.cumsum([len(rows) for rows in by_digit])[:-1])
            for split, by_digit in images.items()
        }

    def coordinates(
        self, raw_dir: Path, images: Mapping[str, ByDigit]
    ) -> dict[str, UInt8[np.ndarray, "_ _"]]:
        """Bytes of each split, digit after digit."""
        del raw_dir
        pixels = {
            split: np.concatenate(rows).reshape(-1, SIDE * SIDE).astype(np.float64)
            for split, rows in images.items()
        }
        labels = np.repeat(np.arange(N_DIGITS), [len(rows) for rows in images["train"]])
        return as_bytes(self.fitted(pixels, labels))

    @abstractmethod
    def words(self, codes: UInt8[np.ndarray, "n k"]) -> Int64[np.ndarray, "n L"]:
        """Words of the bits of coordinates."""

    def sequences(
        self, codes: UInt8[np.ndarray, "n k"], labels: Int64[np.ndarray, " n"]
    ) -> Sequences:
        """See `MnistWords.sequences`: zeros are read while a label goes on."""
        words = np.pad(self.words(codes), ((0, 0), (0, self.label_words - 1)))
        return self.labelled(words, labels)


@register
@dataclass(frozen=True)
class MnistPca(MnistCoordinates):
    """Recognise a digit from the principal components of its image, one at a time."""

    name: ClassVar[str] = "mnist-pca"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"mnist-pca-r{r}-p{p}": {"r": r, "p": p} for r in (2, 3, 4) for p in (2, 5, 8)
    }

    r: int = 3
    """bits of a component, which are a word"""
    p: int = 8
    """principal components, one a step"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, r=1, p=2)
        check_at_most(self, r=MOST, p=8)

    @property
    def n_bits(self) -> int:
        """Bits of a word: those of a component."""
        return self.r

    @property
    def dimensions(self) -> int:
        """Coordinates of an image, of which the first p are read."""
        return 8

    def fitted(self, pixels: Values, labels: Int64[np.ndarray, " n"]) -> Values:
        """See `MnistCoordinates.fitted`."""
        del labels
        return principal_components(pixels, self.dimensions)

    def words(self, codes: UInt8[np.ndarray, "n k"]) -> Int64[np.ndarray, "n L"]:
        """See `MnistCoordinates.words`."""
        return codes[:, : self.p].astype(np.int64) >> (BITS - self.r)


@dataclass(frozen=True)
class MnistEmbedding(MnistCoordinates):
    """Coordinates in parallel, a bit of each a step, the most significant first.

    Attributes:
        method: of the embedding.
        module: that computes it.
        most: coordinates that there can be.
    """

    method: ClassVar[str]
    module: ClassVar[str]
    most: ClassVar[int] = MOST

    d: int = 2
    """coordinates of an image, whose bits are a word"""
    r: int = 4
    """bits of each coordinate, one a step"""

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, d=2, r=2)
        check_at_most(self, d=self.most, r=BITS)

    @property
    def n_bits(self) -> int:
        """Bits of a word: one of each coordinate."""
        return self.d

    @property
    def dimensions(self) -> int:
        """Coordinates of an image."""
        return self.d

    def original_name(self) -> str | None:
        """See `MnistWords.original_name`."""
        return f"mnist-{self.method}-{self.d}-{{}}"

    def coordinates(
        self, raw_dir: Path, images: Mapping[str, ByDigit]
    ) -> dict[str, UInt8[np.ndarray, "_ _"]]:
        """See `MnistCoordinates.coordinates`; kept under `raw_dir`, for sets that share them."""
        facts = [self.method, self.d, PARAMETERS[self.method]]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for split, rows in images.items():
            for part in rows:
                digest.update(f"{split} {len(part)} ".encode() + np.ascontiguousarray(part).data)
        path = raw_dir / OWN / f"{self.method}-{self.d}-{digest.hexdigest()[:10]}.npy"
        if not path.exists():
            make_folder(path.parent, "raw_dir")
            computed, content = super().coordinates(raw_dir, images), io.BytesIO()
            np.save(content, np.concatenate([computed[split] for split in images]))
            write_atomically(path, content.getvalue())
        ends = np.cumsum([sum(map(len, rows)) for rows in images.values()])
        return dict(zip(images, np.split(np.load(path), ends[:-1]), strict=True))

    def library(self) -> Any:
        """The module that computes the embedding.

        Raises:
            ValueError: if it is not installed.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError:
            raise ValueError(
                f"{self.name} is prepared with {self.module}, which is not installed: "
                'pip install "lru-jax[quantum]"'
            ) from None

    def words(self, codes: UInt8[np.ndarray, "n k"]) -> Int64[np.ndarray, "n L"]:
        """See `MnistCoordinates.words`."""
        bits = codes[:, None, :] >> np.arange(BITS - 1, BITS - 1 - self.r, -1)[:, None] & 1
        return bits @ 2 ** np.arange(self.d)[::-1]


@register
@dataclass(frozen=True)
class MnistTsne(MnistEmbedding):
    """Recognise a digit from its coordinates in an embedding by t-SNE, bit by bit."""

    name: ClassVar[str] = "mnist-tsne"
    method: ClassVar[str] = "tsne"
    module: ClassVar[str] = "openTSNE"
    most: ClassVar[int] = 3
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"mnist-tsne-d{d}-r{r}": {"d": d, "r": r} for d in (2, 3) for r in (2, 3, 4, 5, 8)
    }

    def fitted(self, pixels: Values, labels: Int64[np.ndarray, " n"]) -> Values:
        """See `MnistCoordinates.fitted`: from 30 principal components, without the labels."""
        del labels
        tsne = self.library().TSNE(
            n_components=self.d,
            initialization="pca",
            metric="euclidean",
            negative_gradient_method="bh",
            n_jobs=-1,
            **PARAMETERS[self.method],
        )
        components = principal_components(pixels, 30)
        found = tsne.fit(components["train"])
        others = {name: rows for name, rows in components.items() if name != "train"}
        return {"train": np.asarray(found)} | {
            name: np.asarray(found.transform(rows)) for name, rows in others.items()
        }


@register
@dataclass(frozen=True)
class MnistUmap(MnistEmbedding):
    """Recognise a digit from its coordinates in an embedding by UMAP that knew the labels of train.

    Where the original's files are read and those to test on are missing, there is no test split.
    """

    name: ClassVar[str] = "mnist-umap"
    method: ClassVar[str] = "umap"
    module: ClassVar[str] = "umap"
    optional_splits: ClassVar[tuple[str, ...]] = ("test",)
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"mnist-umap-d{d}-r{r}": {"d": d, "r": r} for d in (2, 3, 4) for r in (2, 3, 4, 5, 8)
    }

    def fitted(self, pixels: Values, labels: Int64[np.ndarray, " n"]) -> Values:
        """See `MnistCoordinates.fitted`: from the pixels themselves, with the labels."""
        # With a seed it takes one thread, and warns of it unless that is asked for.
        umap = self.library().UMAP(n_components=self.d, n_jobs=1, **PARAMETERS[self.method])
        found = {"train": umap.fit_transform(pixels["train"], labels)}
        others = {name: rows for name, rows in pixels.items() if name != "train"}
        return found | {name: umap.transform(rows) for name, rows in others.items()}


def principal_components(pixels: Values, n: int) -> Values:
    """Projections on the first principal components of the pixels of train, less their mean.

    Args:
        pixels: by split.
        n: how many components.
    """
    mean = pixels["train"].mean(axis=0)
    # Not divided by each pixel's deviation: that lifts the noise of the rim, and neighbours in the
    # original's coordinates are more of one digit than would come of it.
    centred = {split: rows - mean for split, rows in pixels.items()}
    _, vectors = np.linalg.eigh(centred["train"].T @ centred["train"])
    leading = vectors[:, : -n - 1 : -1]
    # The sign of an eigenvector is free: here its largest entry is positive.
    leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(n)])
    return {split: rows @ leading for split, rows in centred.items()}


def as_bytes(values: Values) -> dict[str, UInt8[np.ndarray, "_ _"]]:
    """Values as quantiles of a normal distribution that is fitted to all of train, 0 to 255."""
    train = values["train"]
    least, most = train.min(), train.max()
    quantile = np.vectorize(NormalDist(train.mean(), train.std()).cdf, otypes=[np.float64])
    return {
        split: np.rint(255.998 * quantile(np.clip(rows, least, most)) - 0.499).astype(np.uint8)
        for split, rows in values.items()
    }
