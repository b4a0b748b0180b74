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
    p_dropout: float = 0.1
    """Dropout rate inside blocks, and, with cells or texts, of what the head reads."""
    locked_dropout: bool = True
    """One mask of features for all steps of a sequence; else one for each."""
    body: str = "auto"
    """Residual blocks, or plain cells one on another; auto: blocks, but in language models cells
    where the model has them."""
    body_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the body by name; those left out keep their defaults."""
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
        check_rates(self, "p_dropout")
