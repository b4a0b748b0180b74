"""What the network is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Norm = Literal["batch", "layer"]
Pooling = Literal["auto", "mean", "last", "none"]
Body = Literal["auto", "cells", "blocks"]

RATES = ("p_dropout", "p_embedding", "p_input", "p_hidden", "p_weight")
OF_TEXTS = ("tied", "cutoffs", "p_embedding", "p_input", "init_range", "ar", "tar")
"""Fields that nothing but a language model has a use for."""


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
    """Width of the recurrent state; of cells, of all but the last, which has d_model."""
    bidirectional: bool = False
    """Run each layer in both directions of time."""
    norm: Norm = "batch"
    """Normalisation of each block; batch statistics leave padding out."""
    prenorm: bool = True
    """Normalise before the recurrence; else after the residual sum."""
    pooling: Pooling = "auto"
    """How a sequence becomes one vector; none keeps one prediction a step, auto fits the data."""
    p_dropout: float = 0.1
    """Dropout rate inside blocks, and, with cells or texts, of what the head reads."""
    body: Body = "auto"
    """Plain cells one on another, or residual blocks; auto: blocks, but of texts cells where the
    model is one."""
    dense: bool = False
    """Of cells: each also reads what the one below it read."""
    tied: bool = True
    """Of texts: read out by the embedding; else by weights of their own."""
    cutoffs: str | None = None
    """Of texts: read out by an adaptive softmax whose clusters of rarer words start at these ids;
    separated by commas."""
    p_embedding: float = 0.0
    """Of texts: dropout rate of whole words."""
    p_input: float = 0.0
    """Of texts: dropout rate of the embedded words."""
    p_hidden: float = 0.0
    """Of cells: dropout rate between them."""
    p_weight: float = 0.0
    """Of cells: dropout rate of weights from state to gates, or of the kernels of a qrnn."""
    locked_dropout: bool = True
    """One mask of features for all steps of a sequence; else one for each."""
    first_window: int | None = None
    """Of cells: window of the first one of a qrnn, if it is not that of the others."""
    init_range: float = 0.1
    """Of texts: initial embeddings are uniform between plus and minus this."""
    ar: float = 0.0
    """Of texts: weight of the mean square of what the head reads, in training."""
    tar: float = 0.0
    """Of texts: weight of the mean square of its changes from step to step, in training."""
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
        for name, kind in (("norm", Norm), ("pooling", Pooling), ("body", Body)):
            if getattr(self, name) not in get_args(kind):
                *others, last = get_args(kind)
                raise ValueError(
                    f"{name} must be {', '.join(others)} or {last}, got {getattr(self, name)!r}"
                )
        for name in RATES:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("init_range", "ar", "tar"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if any(not part.strip().isdigit() for part in (self.cutoffs or "0").split(",")):
            raise ValueError(f"cutoffs must be ids separated by commas, got {self.cutoffs!r}")

    def changed(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the fields that have not their defaults."""
        defaults = type(self)()
        values = {name: getattr(self, name) for name in names}
        return {name: v for name, v in values.items() if v != getattr(defaults, name)}

    @property
    def cutoff_ids(self) -> list[int]:
        """The first ids of the clusters of an adaptive softmax."""
        return [int(part) for part in self.cutoffs.split(",")] if self.cutoffs else []
