"""The whole configuration of a run: one dataclass a concern, flat names, YAML on disk."""

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lru.dataloading import DataConfig
from lru.files import write_atomically
from lru.models import ModelConfig

# JAX keeps 32 bits of a seed: larger ones would silently repeat the draws of smaller ones.
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation."""

    epochs: int = 100
    """Passes over the training examples."""
    max_steps: int | None = None
    """Stop after this many updates instead; the schedule ends there too."""
    optimizer: str = "adamw"
    """Rule of the updates: adamw, rmsprop, or sgd without momentum."""
    lr_base: float = 1e-3
    """Learning rate after warm-up."""
    lr_factor: float = 0.25
    """Learning rate of the recurrent parameters, as a multiple; adamw does not decay them."""
    lr_min: float = 1e-7
    """Learning rate at the start of warm-up and at the last step of the cosine."""
    warmup_end: int = 0
    """Epochs of linear warm-up."""
    cosine_anneal: bool = True
    """Anneal by a cosine after warm-up; else reduce on a plateau."""
    lr_patience: int = 1_000_000
    """Without the cosine: epochs without a better validation metric before the rate is reduced."""
    reduce_factor: float = 1.0
    """Without the cosine: multiply the rate by this on a plateau, down to lr_min."""
    lr_decay: float = 1.0
    """Without the cosine: multiply the rate by this after each epoch from lr_decay_from on."""
    lr_decay_from: int = 1
    """Without the cosine: epochs after warm-up before lr_decay."""
    lr_drops: str | None = None
    """Without the cosine: epochs after warm-up at which to divide by ten; separated by commas."""
    early_stop_patience: int = 1000
    """Stop after this many epochs without a better validation metric."""
    weight_decay: float = 0.05
    """Weight decay: with adamw decoupled, of the other parameters; else of all, as L2."""
    clip_norm: float | None = None
    """Clip the gradient to this global norm."""
    nonmono: int | None = None
    """Average the weights from when a validation is worse than the best of those more than this
    many before it, as NT-ASGD does; evaluations and the best checkpoint have the average."""
    average_from: int | None = None
    """Average the weights from the end of this epoch at the latest; 0: from the first update."""
    finetune: bool = False
    """Take nothing but the best weights from the run that is restored, and train them anew."""
    jax_seed: int = 1919
    """Seed of the parameters, the order of the examples and the dropout."""
    log_every: int = 50
    """Updates between two lines of training metrics."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        for name in ("epochs", "log_every", "early_stop_patience", "lr_patience", "lr_decay_from"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if not 0 <= self.lr_min <= self.lr_base:
            raise ValueError(
                f"lr_min must lie between 0 and lr_base={self.lr_base}, got {self.lr_min}"
            )
        if not math.isfinite(self.lr_base):
            raise ValueError(f"lr_base must be finite, got {self.lr_base}")
        for name in ("lr_factor", "weight_decay", "warmup_end"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.jax_seed <= LARGEST_SEED:
            raise ValueError(f"jax_seed must be from 0 to {LARGEST_SEED}, got {self.jax_seed}")
        for name in ("reduce_factor", "lr_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        for name, given in (("lr_decay", self.lr_decay < 1), ("lr_drops", self.lr_drops)):
            if given and self.cosine_anneal:
                raise ValueError(
                    f"{name} is for cosine_anneal False, but that is True; "
                    f"got {getattr(self, name)}"
                )
        if any(not part.strip().isdigit() for part in (self.lr_drops or "0").split(",")):
            raise ValueError(f"lr_drops must be epochs separated by commas, got {self.lr_drops!r}")
        if self.nonmono is not None and self.nonmono < 1:
            raise ValueError(f"nonmono must be at least 1, got {self.nonmono}")
        if self.average_from is not None and self.average_from < 0:
            raise ValueError(f"average_from must not be negative, got {self.average_from}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive, got {self.clip_norm}")

    @property
    def averages(self) -> bool:
        """Whether the weights are averaged, sooner or later."""
        return self.nonmono is not None or self.average_from is not None


@dataclass(frozen=True)
class RunConfig:
    """Folders, checkpoints and reports; none but `restore` changes a result."""

    name: str | None = None
    """Name of the run; an existing one is resumed. Default: made from all that changes a result."""
    runs_dir: str = "runs"
    """Folder of the runs."""
    dir_name: str = "cache_dir"
    """Folder of the prepared data."""
    raw_dir: str = "raw_datasets"
    """Folder of the data as downloaded."""
    plugins: str | None = None
    """Files or modules that define more models, data sets or tasks; separated by commas."""
    reset: bool = False
    """Start the run over; the old folder is kept aside."""
    restore: str | None = None
    """Folder of another run whose last checkpoint this one continues from."""
    eval_only: bool = False
    """Evaluate the best checkpoint of the run and stop."""
    on_device: bool | None = None
    """Keep the data on the device and gather batches there; unset: if it takes little memory."""
    checkpoint_every: int = 1000
    """Updates between two checkpoints; one is also written after each epoch."""
    tensorboard: bool = False
    """Log to TensorBoard, in the run's folder."""
    use_wandb: bool = False
    """Log to Weights & Biases; offline without an account."""
    wandb_project: str = "lru"
    """Project on Weights & Biases."""
    wandb_entity: str | None = None
    """Team or user on Weights & Biases."""
    plots: bool = True
    """Draw curves and eigenvalues at the end."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        if self.checkpoint_every < 1:
            raise ValueError(f"checkpoint_every must be at least 1, got {self.checkpoint_every}")
        if self.name is not None and (self.name in ("", ".", "..") or os.sep in self.name):
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        if self.reset and self.eval_only:
            raise ValueError("reset and eval_only exclude each other: there is nothing to evaluate")


@dataclass(frozen=True)
class Config:
    """Everything that one run is made of."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self):
        """Check what concerns several groups.

        Raises:
            ValueError: if values of different groups do not fit.
        """
        if self.train.finetune and self.run.restore is None:
            raise ValueError("finetune needs restore, the folder of the run to take weights from")

    def flat(self) -> dict[str, Any]:
        """All values by the name of their flag; options of the model stand beside the others."""
        values = {
            part.name: getattr(group, part.name)
            for group in (self.model, self.data, self.train, self.run)
            for part in dataclasses.fields(group)
        }
        values["data_options"] = dict(values["data_options"])
        options = values.pop("options")
        return values | dict(options)

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> "Config":
        """The inverse of `flat`; names of no group are options of the model."""
        left = dict(values)
        groups = {}
        for group in dataclasses.fields(cls):
            kind: Any = group.default_factory
            names = [part.name for part in dataclasses.fields(kind)]
            groups[group.name] = (kind, {name: left.pop(name) for name in names if name in left})
        groups["model"][1]["options"] = left
        return cls(**{name: kind(**chosen) for name, (kind, chosen) in groups.items()})

    def result_values(self) -> dict[str, Any]:
        """The values that change a result, by name."""
        values = self.flat()
        for part in dataclasses.fields(RunConfig):
            if part.name != "restore":
                del values[part.name]
        return values

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Values that change a result and differ between the two, by name."""
        mine, theirs = self.result_values(), other.result_values()
        return {
            name: (mine.get(name), theirs.get(name))
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        }

    def save(self, path: Path) -> None:
        """Write as YAML."""
        write_atomically(path, yaml.safe_dump(self.flat(), sort_keys=False).encode())

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Read what `save` wrote."""
        return cls.from_flat(yaml.safe_load(path.read_text()))
