"""A data set of your own, in a file of your own: waves of one of three periods, under noise.

lru train --plugins examples/own_dataset.py --dataset waves --model lru \
    --n_layers 1 --d_model 16 --d_hidden 16 --epochs 5
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lru.dataloaders import Dataset, Description, register, write_dense

PERIODS = np.array([8, 12, 16])


@register
@dataclass(frozen=True)
class Waves(Dataset):
    """Tell the period of a noisy wave."""

    name: ClassVar[str] = "waves"

    n_train: int = 2_000
    """examples to train on"""
    noise: float = 0.5
    """standard deviation of the noise; the wave has amplitude 1"""

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """See `Dataset.build`."""
        rng = np.random.default_rng(0)
        for split, n in (("train", self.n_train), ("val", 500), ("test", 500)):
            labels = rng.integers(len(PERIODS), size=n).astype(np.int32)
            phases = rng.uniform(0, 2 * np.pi, (n, 1))
            waves = np.sin(2 * np.pi * np.arange(64) / PERIODS[labels, None] + phases)
            values = waves + self.noise * rng.normal(size=waves.shape)
            write_dense(folder, split, values[..., None].astype(np.float32), labels)
        return Description("values", len(PERIODS), "class", "Drawn with seed 0.", "With itself.")
