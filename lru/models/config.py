"""Configuration of the network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args


def one_of(name: str, value: Any, kind: Any) -> None:
    """Refuse what is not among the values of a Literal.

    Raises:
        ValueError: naming the argument, what was given and what is allowed.
    """
    if value not in get_args(kind):
        *others, last = get_args(kind)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")


def check_rates(options: Any, *names: str) -> None:
    """Refuse rates outside [0, 1).

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
    """Recurrent layer, or network of its own."""
    n_layers: int = 4
    """Number of layers."""
    d_model: int = 256
    """Width of the features between layers."""
    d_hidden: int = 128
    """Width of the recurrent state; in a body of cells the last layer has d_model."""
    p_dropout: float = 0.1
    """Dropout rate inside blocks, and of the last features with cells or in language models."""
    locked_dropout: bool = True
    """Use the same dropout mask at all steps of a sequence (variational dropout)."""
    body: str = "auto"
    """Stack of the layers: blocks (residual) or cells (plain, as in AWD-LSTM); auto: cells in
    language models whose layer has them, else blocks."""
    body_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the body by name; those left out keep their defaults."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model by name; those left out keep its defaults."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ValueError: if a value is out of range.
        """
        for name in ("n_layers", "d_model", "d_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        check_rates(self, "p_dropout")
