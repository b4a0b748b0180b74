"""Time series as in the UEA and UCR archives (Bagnall et al. 2018, arXiv 1811.00075).

`NAME_TRAIN` and `NAME_TEST`, as `.ts` or `.arff`, in a folder of that name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float32, Int64

from lru.dataloaders.base import Dataset, Description, check_at_least, check_at_most, register
from lru.dataloaders.files.series import Series, read_series
from lru.dataloaders.store.writers import RaggedWriter

UEA = (
    "EigenWorms",
    "EthanolConcentration",
    "Heartbeat",
    "MotorImagery",
    "SelfRegulationSCP1",
    "SelfRegulationSCP2",
)
"""The sets on which state space models are compared."""

Rows = Int64[np.ndarray, " _"]


@register
@dataclass(frozen=True)
class TimeSeries(Dataset):
    """Tell the class of a series of several channels, of any length."""

    name: ClassVar[str] = "timeseries-classification"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"uea-{name.lower()}": {"path": name} for name in UEA
    }

    path: str = ""
    """folder in the raw folder with NAME_TRAIN and NAME_TEST, NAME being its own"""
    split: Literal["official", "random"] = "official"
    """official: validate on rows held out of train; random: 70 / 15 / 15 % of all different rows"""
    held_out: float = 0.15
    """share of each class of train to validate on, in the official split"""
    missing: Literal["refuse", "mask"] = "refuse"
    """values that are missing: refuse them, or read zeros and a mark of them as a channel more"""
    seed: int = 0
    """of the choice of rows"""

    def __post_init__(self):
        check_at_least(self, seed=0, held_out=0.01)
        check_at_most(self, held_out=0.5)

    def raw_files(self, raw_dir: Path) -> tuple[Path, ...]:
        """Both files, of the first form that there is."""
        if not self.path:
            return ()
        place = raw_dir / self.path
        for suffix in (".ts", ".arff"):
            files = tuple(place / f"{place.name}_{part}{suffix}" for part in ("TRAIN", "TEST"))
            if all(path.exists() for path in files):
                return files
        return ()

    def obtain(self, raw_dir: Path, mirror: str | None = None) -> tuple[Path, ...]:
        """Both files, which nobody else fetches.

        Raises:
            FileNotFoundError: if they are not there.
            ValueError: if there is no path to them.
        """
        del mirror
        if not self.path:
            raise ValueError(f"{self.name}: path must name a folder in {raw_dir}")
        files = self.raw_files(raw_dir)
        if not files:
            name = Path(self.path).name
            raise FileNotFoundError(
                f"{self.name}: {raw_dir / self.path} must have {name}_TRAIN and {name}_TEST, both "
                ".ts or both .arff"
            )
        return files

    def build(self, raw_dir: Path, folder: Path) -> Description:
        """Deal the rows out to the splits."""
        files = self.raw_files(raw_dir)
        parts = [read_series(path) for path in files]
        width, other = (part[0].values.shape[1] for part in parts)
        if other != width:
            raise ValueError(f"{files[1]}: {other} channels, but {files[0].name} has {width}")
        rows = [row for part in parts for row in part]
        classes = sorted({row.label for row in rows})
        labels = np.array([classes.index(row.label) for row in rows])
        gaps = any(np.isnan(row.values).any() for row in rows)
        if gaps and self.missing == "refuse":
            raise ValueError(
                f"{self.name}: {self.path} has missing values; missing=mask reads zeros and marks"
            )
        for split, chosen in self._deal(rows, labels, len(parts[0])).items():
            with RaggedWriter(folder, split, np.float32, n_features=width * (1 + gaps)) as writer:
                for row in chosen:
                    steps = marked(rows[row].values) if gaps else rows[row].values
                    writer.append(steps, np.array([len(steps)]), labels[row : row + 1])
        names = ", ".join(classes)
        return Description(
            kind="values",
            n_classes=len(classes),
            targets="class",
            provenance=f"Read from {files[0].name} and {files[1].name}; the classes are {names}.",
            comparable=(
                "The published rows to test on; validation rows are held out of train."
                if self.split == "official"
                else "Splits of these sizes as in Walker et al. 2024 and Rusch and Rus 2024, by "
                "other draws."
            ),
        )

    def _deal(self, rows: list[Series], labels: Rows, n_train: int) -> dict[str, Rows]:
        """Rows of each split, by their places among all, those to train on first."""
        rng = np.random.default_rng(self.seed)
        if self.split == "random":
            once = {(row.values.tobytes(), row.label): i for i, row in enumerate(rows)}
            order = rng.permutation(sorted(once.values()))
            ends = [round(share * len(order)) for share in (0.7, 0.85)]
            return dict(zip(self.split_names, np.split(order, ends), strict=True))
        validate = np.zeros(len(rows), bool)
        for label in np.unique(labels[:n_train]):
            own = rng.permutation(np.flatnonzero(labels[:n_train] == label))
            # One of each class at least, but never all of it.
            size = min(max(round(self.held_out * len(own)), 1), len(own) - 1)
            validate[own[:size]] = True
        return {
            "train": np.flatnonzero(~validate[:n_train]),
            "val": np.flatnonzero(validate),
            "test": np.arange(n_train, len(rows)),
        }


def marked(values: Float32[np.ndarray, "T F"]) -> Float32[np.ndarray, "T G"]:
    """Values with zeros for those that are missing, and beside them ones where they are."""
    gaps = np.isnan(values)
    return np.concatenate([np.where(gaps, 0, values), gaps], axis=1, dtype=np.float32)
