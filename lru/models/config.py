"""What the network is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Norm = Literal["batch", "layer"]
Pooling = Literal["auto", "mean", "last", "none"]


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    model: str = "lru"
    """Recurrent layer in every block."""
    n_layers: int = 4
    """Number of blocks."""
    d_model: int = 256
    """Width between the blocks."""
    d_hidden: int = 128
    """Width of the recurrent state."""
    bidirectional: bool = False
    """Run each layer in both directions of time."""
    norm: Norm = "batch"
    """Normalisation of each block; batch statistics leave padding out."""
    prenorm: bool = True
    """Normalise before the recurrence; else after the residual sum."""
    pooling: Pooling = "auto"
    """How a sequence becomes one vector; none keeps one prediction a step, auto fits the data."""
    p_dropout: float = 0.1
    """Dropout rate; one mask serves all steps of a sequence."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the recurrent layer by name; those left out keep the layer's defaults."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        for name in ("n_layers", "d_model", "d_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, kind in (("norm", Norm), ("pooling", Pooling)):
            if getattr(self, name) not in get_args(kind):
                *others, last = get_args(kind)
                raise ValueError(
                    f"{name} must be {', '.join(others)} or {last}, got {getattr(self, name)!r}"
                )
        if not 0 <= self.p_dropout < 1:
            raise ValueError(f"p_dropout must be in [0, 1), got {self.p_dropout}")
