"""Configuration of the network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Norm = Literal["batch", "layer"]
Body = Literal["auto", "cells", "blocks"]


def one_of(name: str, value: Any, kind: Any) -> None:
    """Refuse what is not among the values of a Literal.

    Raises:
        ValueError: naming the argument, what was given and what is allowed.
    """
    if value not in get_args(kind):
        *others, last = get_args(kind)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")


def check_rates(options: Any, *names: str) -> None:
    """Refuse dropout rates outside [0, 1).

    Raises:
        ValueError: naming the argument and what was given.
    """
    for name in names:
        if not 0 <= getattr(options, name) < 1:
            raise ValueError(f"{name} must be in [0, 1), got {getattr(options, name)}")


def check_not_negative(options: Any, *names: str) -> None:
    """Refuse negative numbers, and what is none.

    Raises:
        ValueError: naming the argument and what was given.
    """
    for name in names:
        if not getattr(options, name) >= 0:
            raise ValueError(f"{name} must not be negative, got {getattr(options, name)}")


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
    p_dropout: float = 0.1
    """Dropout rate inside blocks, and, with cells or texts, of what the head reads."""
    body: Body = "auto"
    """Plain cells one on another, or residual blocks; auto: blocks, but of texts cells where the
    model is one."""
    dense: bool = False
    """Of cells: each also reads what the one below it read."""
    p_hidden: float = 0.0
    """Of cells: dropout rate between them."""
    p_weight: float = 0.0
    """Of cells: dropout rate of weights from state to gates, or of the kernels of a qrnn."""
    locked_dropout: bool = True
    """One mask of features for all steps of a sequence; else one for each."""
    first_window: int | None = None
    """Of cells: window of the first one of a qrnn, if it is not that of the others."""
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
        one_of("norm", self.norm, Norm)
        one_of("body", self.body, Body)
        check_rates(self, "p_dropout", "p_hidden", "p_weight")

    def changed(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the fields that have not their defaults."""
        defaults = type(self)()
        values = {name: getattr(self, name) for name in names}
        return {name: v for name, v in values.items() if v != getattr(defaults, name)}
