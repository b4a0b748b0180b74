"""A data set of your own, read from files: sounds of any lengths, called LABEL_anything.wav.

A step is the spectrum of a few milliseconds. With the files in raw_datasets/recordings/:

lru train --plugins examples/own_recordings.py --dataset recordings --model lru --norm layer \
    --n_layers 2 --d_model 32 --d_hidden 32 --batch_size 16 --epochs 20
"""

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lru.dataloaders import Dataset, Description, RaggedWriter, register


@register
@dataclass(frozen=True)
class Recordings(Dataset):
    """Tell the label of a recording, which stands in the name of its file."""

    name: ClassVar[str] = "recordings"

    directory: str = "recordings"
    """folder of the files, in the raw folder"""
    samples_per_step: int = 128
    """samples whose spectrum makes one step"""
    held_out: float = 0.2
    """share of the files to validate on, and as many to test on"""
    seed: int = 0
    """of the choice of these files"""

    def __post_init__(self):
        if self.samples_per_step < 1 or not 0 < self.held_out < 0.5:
            raise ValueError(
                "samples_per_step must be at least 1, and held_out in (0, 0.5); got "
                f"{self.samples_per_step} and {self.held_out}"
            )

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """See `Dataset.raw_files`: the folder, of which any changed file counts."""
        folder = raw_dir / self.directory
        return (folder,) if folder.is_dir() else ()

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """See `Dataset.build`."""
        paths = sorted((raw_dir / self.directory).glob("*_*.wav"))
        classes = sorted({label_of(path) for path in paths})
        size = round(self.held_out * len(paths))
        if not size:
            raise FileNotFoundError(
                f"{raw_dir / self.directory} has {len(paths)} files LABEL_anything.wav, too few to "
                f"hold out a share of {self.held_out}"
            )
        n_features = self.samples_per_step // 2 + 1
        order = np.random.default_rng(self.seed).permutation(len(paths))
        parts = {"val": order[:size], "test": order[size : 2 * size], "train": order[2 * size :]}
        for split, rows in parts.items():
            with RaggedWriter(folder, split, np.float32, n_features=n_features) as writer:
                for row in rows:
                    steps = self._read(paths[row])
                    label = classes.index(label_of(paths[row]))
                    writer.append(steps, np.array([len(steps)]), np.array([label]))
        return Description(
            kind="values",
            n_classes=len(classes),
            targets="class",
            provenance=f"{len(paths)} files; the classes are {', '.join(classes)}.",
            comparable="With itself, by the same seed.",
        )

    def _read(self, path: Path) -> np.ndarray:
        """The steps [T, F] of a file; what is left of the last one is dropped."""
        with wave.open(str(path)) as file:
            if (file.getnchannels(), file.getsampwidth()) != (1, 2):
                raise ValueError(f"{path} is not of one channel of 16 bits")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        whole = len(samples) - len(samples) % self.samples_per_step
        return np.log1p(np.abs(np.fft.rfft(samples[:whole].reshape(-1, self.samples_per_step))))


def label_of(path: Path) -> str:
    """What stands before the first underscore of the name."""
    return path.name.partition("_")[0]
