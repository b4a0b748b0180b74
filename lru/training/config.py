"""The whole configuration of a run: one dataclass a concern, flat names, YAML on disk."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lru.devices import mesh_sizes
from lru.models.config import check_not_negative
from lru.training.interrupts import STOP_SIGNALS, check_signals

# JAX keeps 32 bits of a seed: larger ones would silently repeat the draws of smaller ones.
LARGEST_SEED = 2**32 - 1
# Lanes are listed, and trained, one by one.
MOST_SEEDS = 2**12

NEEDS = {
    "lr_patience": "reduce_factor",
    "reduce_factor": "lr_patience",
    "lr_decay": "cosine_anneal",
    "lr_decay_from": "lr_decay",
    "lr_drops": "cosine_anneal",
    "noam": "cosine_anneal",
}
"""Options that have no effect under the cosine, each with another that must have been changed."""


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation."""

    epochs: int = 100
    """Passes over the training examples."""
    max_steps: int | None = None
    """Stop after this many updates instead; the schedule ends there too."""
    lr_base: float = 1e-3
    """Learning rate after warm-up."""
    lr_min: float = 1e-7
    """Learning rate at the start of warm-up and at the last step of the cosine."""
    warmup_end: int = 0
    """Epochs of linear warm-up."""
    warmup_steps: int | None = None
    """Updates of linear warm-up, in place of warmup_end."""
    cosine_anneal: bool = True
    """Anneal by a cosine after warm-up; else reduce on a plateau."""
    lr_patience: int = 1_000_000
    """Without the cosine: evaluations without a better validation metric before the rate is
    reduced."""
    reduce_factor: float = 1.0
    """Without the cosine: multiply the rate by this on a plateau, down to lr_min."""
    lr_decay: float = 1.0
    """Without the cosine: multiply the rate by this after each epoch from lr_decay_from on."""
    lr_decay_from: int = 1
    """Without the cosine: epochs after warm-up before lr_decay."""
    lr_drops: str | None = None
    """Without the cosine: epochs after warm-up at which to divide by ten; separated by commas."""
    noam: bool = False
    """Without the cosine: after warm-up the rate falls from lr_base as one over the root of the
    update."""
    eval_every: int | None = None
    """Updates between two evaluations; unset: an epoch."""
    early_stop_patience: int = 1000
    """Stop after this many evaluations without a better validation metric."""
    stop_at_loss: float | None = None
    """Stop after an evaluation with a lower validation loss than this."""
    nonmono: int | None = None
    """NT-ASGD: average the weights once validation is worse than its best of more than this many
    evaluations ago; evaluations and the best checkpoint use the average."""
    average_from: int | None = None
    """Average the weights from the end of this epoch on at the latest; 0: from the first update."""
    average_decay: float | None = None
    """Decay of an exponential average of the weights; without nonmono and average_from it begins
    at the first update."""
    finetune: bool = False
    """Take only the best weights of the run named by restore, and start training anew."""
    load_pretrained: str | None = None
    """Start from the weights of a run, its best, or of a .safetensors file, and from nothing else
    of it."""
    n_microbatch: int = 1
    """Accumulate the gradient of a batch over this many parts, to save memory."""
    per_device_batch_size: int | None = None
    """Number of examples in such a part, in place of n_microbatch; the last may be smaller."""
    jax_seed: int = 1919
    """Seed of the parameters, the dropout and, without data_seed, the order of the examples."""
    data_seed: int | None = None
    """Seed of the order of the examples, for all lanes."""
    n_seeds: int = 1
    """Train so many runs (lanes) as one program, with the seeds jax_seed, jax_seed + 1, ..."""
    lanes: tuple[str, ...] = ()
    """Train lanes with several values, OPTION=VALUE,VALUE of lr_base, lr_factor, weight_decay or
    what a network is drawn by: n_seeds lanes for every combination."""
    log_every: int = 50
    """Updates between two lines of training metrics."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        for name in (
            *("epochs", "log_every", "early_stop_patience", "lr_patience", "lr_decay_from"),
            *("n_microbatch", "n_seeds"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("max_steps", "per_device_batch_size", "eval_every", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.n_microbatch > 1 and self.per_device_batch_size is not None:
            raise ValueError(
                "n_microbatch and per_device_batch_size exclude each other, got "
                f"{self.n_microbatch} and {self.per_device_batch_size}"
            )
        if not 0 <= self.lr_base < math.inf:
            raise ValueError(f"lr_base must be a number that is not negative, got {self.lr_base}")
        if not 0 <= self.lr_min <= self.lr_base:
            raise ValueError(
                f"lr_min must lie between 0 and lr_base={self.lr_base}, got {self.lr_min}"
            )
        check_not_negative(self, "warmup_end")
        if self.n_seeds > MOST_SEEDS:
            raise ValueError(f"n_seeds must be from 1 to {MOST_SEEDS}, got {self.n_seeds}")
        largest = LARGEST_SEED - self.n_seeds + 1
        if not 0 <= self.jax_seed <= largest:
            raise ValueError(f"jax_seed must be from 0 to {largest}, got {self.jax_seed}")
        if self.data_seed is not None and not 0 <= self.data_seed <= LARGEST_SEED:
            raise ValueError(f"data_seed must be from 0 to {LARGEST_SEED}, got {self.data_seed}")
        for name in ("reduce_factor", "lr_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        for name, needed in without_effect(vars(self)).items():
            raise ValueError(f"{name} has no effect without {needed}; got {getattr(self, name)}")
        if any(not part.strip().isdigit() for part in (self.lr_drops or "0").split(",")):
            raise ValueError(f"lr_drops must be epochs separated by commas, got {self.lr_drops!r}")
        if self.nonmono is not None and self.nonmono < 1:
            raise ValueError(f"nonmono must be at least 1, got {self.nonmono}")
        if self.average_from is not None and self.average_from < 0:
            raise ValueError(f"average_from must not be negative, got {self.average_from}")

        if self.average_decay is not None and not 0 < self.average_decay < 1:
            raise ValueError(f"average_decay must be in (0, 1), got {self.average_decay}")
        if self.warmup_steps is not None and self.warmup_end:
            raise ValueError(
                "warmup_steps and warmup_end exclude each other, got "
                f"{self.warmup_steps} and {self.warmup_end}"
            )
        if self.noam and not (self.warmup_steps or self.warmup_end):
            raise ValueError("noam needs warmup_steps or warmup_end; got neither")
        if self.noam and (self.lr_decay != 1 or self.lr_drops):
            raise ValueError(
                "noam excludes lr_decay and lr_drops, got "
                f"lr_decay {self.lr_decay} and lr_drops {self.lr_drops!r}"
            )

    @property
    def averages(self) -> bool:
        """True if the weights are averaged, sooner or later."""
        return (self.nonmono, self.average_from, self.average_decay) != (None, None, None)

    @property
    def averages_from_start(self) -> bool:
        """True if they are averaged from the first update on."""
        return self.average_from == 0 or (self.nonmono, self.average_from) == (None, None)

    @property
    def least_weight(self) -> float:
        """Least weight of the last iterate in the average."""
        return 0.0 if self.average_decay is None else 1 - self.average_decay

    @property
    def order_seed(self) -> int:
        """Seed of the order of the examples."""
        return self.jax_seed if self.data_seed is None else self.data_seed


def without_effect(values: Mapping[str, Any]) -> dict[str, str]:
    """Options of the rate that have no effect beside the others, and what they need.

    Args:
        values: of `TrainConfig`, by name; those left out have their defaults.
    """

    def changed(name: str) -> bool:
        default = getattr(TrainConfig, name)
        return values.get(name, default) != default

    given = [name for name in NEEDS if changed(name)]
    if not changed("cosine_anneal"):
        return dict.fromkeys(given, "cosine_anneal False")
    return {name: NEEDS[name] for name in given if not changed(NEEDS[name])}


@dataclass(frozen=True)
class RunConfig:
    """Folders, devices, checkpoints and reports; none but `restore` changes a result."""

    name: str | None = None
    """Name of the run; an existing one is resumed. Default: data, model, seed and a hash."""
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
    """Name or folder of another run whose last checkpoint this one continues from."""
    eval_only: bool = False
    """Evaluate the best checkpoint of the run and stop."""
    on_device: bool | None = None
    """Keep the data on the device and gather batches there; unset: if it takes little memory."""
    steps_per_call: int = 1
    """Most updates in one call of the compiled program, for data that lives on the device."""
    mesh: str | None = None
    """Train on all devices: data=N splits the rows of each batch, seq=M its time. Unset: one
    device; of several processes, data=all."""
    coordinator: str | None = None
    """HOST:PORT of process 0, to train in several processes; those of a step of SLURM find it."""
    num_processes: int | None = None
    """Number of processes that train together; 1 keeps tasks of SLURM apart."""
    process_id: int | None = None
    """Number of this process, counted from 0."""
    checkpoint_every: int = 1000
    """Updates between two checkpoints; one follows each evaluation as well."""
    keep_last: int = 2
    """Number of the last checkpoints that stay; if one is damaged, the one before is resumed."""
    keep_every_hours: float | None = None
    """Keep one checkpoint of every so many hours as well."""
    stop_signals: tuple[str, ...] = STOP_SIGNALS
    """Signals beside Ctrl-C that save and stop the run, with exit status 75: run it again."""
    log_memory: bool = False
    """Log the peak of memory beside the speed: of the device, of the process on a CPU."""
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
        for name in ("steps_per_call", "checkpoint_every", "keep_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.keep_every_hours is not None and not 0 < self.keep_every_hours < math.inf:
            raise ValueError(f"keep_every_hours must be positive, got {self.keep_every_hours}")
        check_signals(self.stop_signals)
        if self.steps_per_call > 1 and self.on_device is False:
            raise ValueError(
                "steps_per_call must be 1 with on_device False, as several updates in a call need "
                f"the data on the device; got {self.steps_per_call}"
            )
        if self.name is not None and (self.name in ("", ".", "..") or os.sep in self.name):
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        if self.mesh is not None:
            mesh_sizes(self.mesh)
        together = (self.coordinator, self.num_processes, self.process_id)
        alone = (self.coordinator, self.process_id) == (None, None)
        if None in together and not (alone and self.num_processes in (None, 1)):
            raise ValueError(
                "coordinator, num_processes and process_id must be given together, got "
                f"{self.coordinator}, {self.num_processes} and {self.process_id}"
            )
        if self.process_id is not None and not 0 <= self.process_id < (self.num_processes or 0):
            raise ValueError(
                f"process_id must be from 0 to num_processes - 1, got {self.process_id} of "
                f"{self.num_processes}"
            )
        if self.reset and self.eval_only:
            raise ValueError("reset and eval_only exclude each other: there is nothing to evaluate")
