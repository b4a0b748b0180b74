"""Networks of their own, which are no stack of recurrent layers, and the registry of all models."""

from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from lru.layers import LAYERS
from lru.registry import Joined, Registry


class Network(nnx.Module):
    """Base of networks that are a model by themselves.

    Every keyword-only argument of a subclass's constructor, `rngs` apart, is an option: the command
    line makes a flag of it, as of those of a `RecurrentLayer`.

    Attributes:
        task: the task that trains it, by its registered name.
        defaults: what the network takes for options of others unless they are given, by flag.
        of_draw: options that change nothing but the initial draw, so that lanes may differ in them.
    """

    task: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    of_draw: ClassVar[tuple[str, ...]] = ()


NETWORKS: Registry[type[Network]] = Registry("model")

MODELS: Joined[Any] = Joined("model", LAYERS, NETWORKS)
"""Recurrent layers and networks of their own, by the names that `--model` takes."""
