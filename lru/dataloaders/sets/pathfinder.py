"""Pathfinder of the Long Range Arena (Tay et al. 2021, section 2.2.5), at four sizes of picture.

Are two markers the ends of one dashed contour? Read from the official files, or drawn by the same
rules (`pathfinder_contours`). Path-X is the task at 128 × 128.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image
from tqdm import tqdm

from lru.dataloaders.base import Description, check_at_least, register
from lru.dataloaders.files.fetch import Source
from lru.dataloaders.sets.lra import lra_compares, lra_places, lra_source
from lru.dataloaders.sets.official import OfficialOrGenerated
from lru.dataloaders.sets.pathfinder_contours import draw
from lru.dataloaders.sets.pathfinder_drawing import STYLES, render
from lru.dataloaders.store.writers import DenseWriter

LENGTHS = {"curv_baseline": 6, "curv_contour_length_9": 9, "curv_contour_length_14": 14}
"""Dashes of the contours with markers, by level of difficulty."""

PUBLISHED_SIZES = {"train": 160_000, "val": 20_000, "test": 20_000}

EMPTY_IN_RELEASE = "pathfinder32/curv_baseline/imgs/0/sample_172.png"
"""The one picture of the release that has no content; published work leaves it out, too."""

FRUITLESS_BATCHES = 20
"""Batches without one picture after which there are taken to be none."""

_BAR = {"unit": " pictures", "leave": False, "disable": None}
_PIXELS_AT_ONCE = 1 << 22
ROWS_AT_ONCE = 1024


@register
@dataclass(frozen=True)
class Pathfinder(OfficialOrGenerated):
    """Tell from 32 × 32 pixels whether a dashed contour joins two markers."""

    name: ClassVar[str] = "pathfinder-classification"
    aliases: ClassVar[tuple[str, ...]] = ("pathfinder32-classification",)
    class_names: ClassVar[tuple[str, ...]] = ("apart", "joined")
    side: ClassVar[int] = 32
    picture: ClassVar[tuple[int, int] | None] = (32, 32)
    sources: ClassVar[tuple[Source, ...]] = (lra_source("pathfinder32"),)
    options_of_files: ClassVar[tuple[str, ...]] = ("source", "level", "seed")

    level: Literal["curv_baseline", "curv_contour_length_9", "curv_contour_length_14"] = (
        "curv_contour_length_14"
    )
    """difficulty: contours of 6, 9 or 14 dashes; published numbers are of 14"""
    n_train: int = PUBLISHED_SIZES["train"]
    """pictures to train on, if generated"""
    n_val: int = PUBLISHED_SIZES["val"]
    """pictures to validate on, if generated"""
    n_test: int = PUBLISHED_SIZES["test"]
    """pictures to test on, if generated"""
    continuity: float | None = None
    """how straight contours are, if generated; None: as published for the size"""
    distractors: int | None = None
    """contours to distract, if generated; None: as published for the size"""
    seed: int = 0
    """of the cut of the official files into splits, or of the generator"""

    def __post_init__(self):
        check_at_least(self, n_train=1, n_val=1, n_test=1, seed=0)
        # Sharper turns than of 150 degrees would fold a contour onto itself.
        if self.continuity is not None:
            check_at_least(self, continuity=0.6)
        if self.distractors is not None:
            check_at_least(self, distractors=0)
        super().__post_init__()

    def candidates(self, raw_dir: Path) -> list[tuple[Path, ...]]:
        """In each of the places, the folder of pictures and the files that list them."""
        found = []
        for place in lra_places(f"pathfinder{self.side}"):
            folder = raw_dir / place / self.level
            lists = sorted(
                (folder / "metadata").glob("*.npy"), key=lambda path: (len(path.name), path.name)
            )
            found.append((folder / "imgs", *(lists or [folder / "metadata"])))
        return found

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Convert the official files, or generate."""
        files = self.raw_files(raw_dir)
        if files:
            sizes = self._convert(files[0].parent, list(files[1:]), folder)
            where = files[0].parent.relative_to(raw_dir).as_posix()
            provenance = (
                f"Read from the pictures in {where}; the release has no splits: a tenth each, "
                f"drawn with seed {self.seed}, is for validation and for the test."
            )
            comparable = (
                "Published works cut the same pictures into splits of these sizes, by other draws."
                if sizes == PUBLISHED_SIZES
                else lra_compares(sizes, PUBLISHED_SIZES, "pictures")
            )
        else:
            for stream, split in enumerate(self.split_names):
                self._generate(np.random.default_rng([self.seed, stream]), folder, split)
            provenance = self.generated_from(self.seed)
            comparable = self.generated_compares()
        return Description(
            kind="values",
            n_classes=2,
            targets="class",
            provenance=provenance,
            comparable=comparable,
        )

    def _writer(self, folder: Path, split: str) -> DenseWriter:
        return DenseWriter(folder, split, np.uint8, (self.side**2, 1))

    def _convert(self, level: Path, lists: list[Path], folder: Path) -> dict[str, int]:
        """Deal the pictures out to the splits, and store them; how many each got."""
        samples = [sample for path in lists for sample in read_list(path)]
        empty = PurePosixPath(level.parent.name, level.name)
        samples = [
            (name, label) for name, label in samples if str(empty / name) != EMPTY_IN_RELEASE
        ]
        tenth = len(samples) // 10
        if not tenth:
            raise ValueError(f"{level} has {len(samples)} pictures, but three splits need 10")
        dealt = np.repeat(np.array(self.split_names), [len(samples) - 2 * tenth, tenth, tenth])
        dealt = np.random.default_rng(self.seed).permutation(dealt)
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(self._writer(folder, split))
                for split in self.split_names
            }
            for (name, label), split in zip(
                tqdm(samples, desc=self.name, **_BAR), dealt, strict=True
            ):
                image = read_picture(level / name, self.side)
                writers[split].append(image.reshape(1, -1, 1), np.array([label]))
        return {split: int((dealt == split).sum()) for split in self.split_names}

    def _generate(self, rng: np.random.Generator, folder: Path, split: str) -> None:
        left = getattr(self, f"n_{split}")
        with (
            self._writer(folder, split) as writer,
            tqdm(total=left, desc=f"{self.name} {split}", **_BAR) as bar,
        ):
            for images, labels in self.pictures(rng):
                images, labels = images[:left], labels[:left]
                writer.append(images.reshape(len(images), self.side**2, 1), labels)
                bar.update(len(labels))
                left -= len(labels)
                if not left:
                    return

    def pictures(
        self, rng: np.random.Generator
    ) -> Iterator[tuple[UInt8[np.ndarray, "n side side"], Int64[np.ndarray, " n"]]]:
        """Endless batches.

        Raises:
            ValueError: if the options leave contours no way.
        """
        style, length = STYLES[self.side], LENGTHS[self.level]
        if self.continuity is not None:
            style = dataclasses.replace(style, continuity=self.continuity)
        distractors = self.distractors
        if distractors is None:
            distractors = style.distracting // (length // 3)
        batch = min(_PIXELS_AT_ONCE // self.side**2, ROWS_AT_ONCE)
        fruitless = 0
        while fruitless < FRUITLESS_BATCHES:
            drawing = draw(rng, batch, style, length=length, distractors=distractors)
            fruitless = 0 if len(drawing.labels) else fruitless + 1
            yield render(drawing, style), drawing.labels
        raise ValueError(
            f"{self.name}: contours of {length} dashes do not fit into {self.side} by {self.side} "
            f"pixels with continuity={style.continuity}"
        )


@register
@dataclass(frozen=True)
class Pathfinder64(Pathfinder):
    """Tell from 64 × 64 pixels whether a dashed contour joins two markers."""

    name: ClassVar[str] = "pathfinder64-classification"
    aliases: ClassVar[tuple[str, ...]] = ()
    side: ClassVar[int] = 64
    picture: ClassVar[tuple[int, int] | None] = (64, 64)
    sources: ClassVar[tuple[Source, ...]] = (lra_source("pathfinder64"),)


@register
@dataclass(frozen=True)
class Pathfinder128(Pathfinder):
    """Tell from 128 × 128 pixels whether a dashed contour joins two markers: Path-X."""

    name: ClassVar[str] = "pathfinder128-classification"
    aliases: ClassVar[tuple[str, ...]] = ("pathx-classification",)
    side: ClassVar[int] = 128
    picture: ClassVar[tuple[int, int] | None] = (128, 128)
    sources: ClassVar[tuple[Source, ...]] = (lra_source("pathfinder128"),)


@register
@dataclass(frozen=True)
class Pathfinder256(Pathfinder):
    """Tell from 256 × 256 pixels whether a dashed contour joins two markers."""

    name: ClassVar[str] = "pathfinder256-classification"
    aliases: ClassVar[tuple[str, ...]] = ()
    side: ClassVar[int] = 256
    picture: ClassVar[tuple[int, int] | None] = (256, 256)
    sources: ClassVar[tuple[Source, ...]] = (lra_source("pathfinder256"),)


def read_list(path: Path) -> list[tuple[str, int]]:
    """Name and label of each picture in an official list, which is text in spite of its name.

    Raises:
        ValueError: naming the file, the line and what is wrong with it.
    """
    samples = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        fields = line.decode(errors="replace").split()
        if len(fields) < 4:
            raise ValueError(
                f"{path}, line {number}: {len(fields)} fields, not a folder, a file, a number and "
                "a label"
            )
        folder, name, _, label = fields[:4]
        if label not in ("0", "1"):
            raise ValueError(f"{path}, line {number}: the label is {label[:40]!r}, not 0 or 1")
        relative = PurePosixPath(folder, name)
        if relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"{path}, line {number}: {str(relative)[:80]!r} lies elsewhere")
        samples.append((str(relative), int(label)))
    return samples


def read_picture(path: Path, side: int) -> UInt8[np.ndarray, "side side"]:
    """A grey PNG picture of the stated size.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.size != (side, side):
                raise ValueError(f"{path} has {image.size} pixels, not {side} by {side}")
            return np.asarray(image.convert("L"))
    # A damaged PNG raises any of these.
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no whole PNG picture ({error})") from error
