"""What the network is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


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
    norm: Literal["batch", "layer"] = "batch"
    """Normalisation of each block; batch statistics leave padding out."""
    prenorm: bool = True
    """Normalise before the recurrence; else after the residual sum."""
    pooling: Literal["auto", "mean", "last", "none"] = "auto"
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
        if self.n_layers < 1:
            raise ValueError(f"n_layers must be at least 1, got {self.n_layers}")
        if not 0 <= self.p_dropout < 1:
            raise ValueError(f"p_dropout must be in [0, 1), got {self.p_dropout}")
