"""The contract of a body, the recurrent layers of a network, and the registry of bodies."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers import LAYERS
from lru.layers.base import State
from lru.models.config import ModelConfig, one_of
from lru.options import build
from lru.registry import Registry

Dtype = Literal["float32", "bfloat16"]


class Body(nnx.Module):
    """Base of all bodies: `n_layers` of `config.model`, between features of width D.

    Attributes:
        Options: a frozen dataclass of the body's own options, which become flags.
    """

    Options: ClassVar[type]

    def __init__(self, config: ModelConfig, options: Any = None, *, rngs: nnx.Rngs):
        """Build the layers.

        Args:
            config: the network.
            options: an instance of `Options`; None for the defaults.
            rngs: source of the initial parameters.

        Raises:
            ValueError: if they do not fit.
        """
        raise NotImplementedError

    @classmethod
    def suits(cls, model: str) -> bool:
        """True if the recurrent layer of this name can be part of such a body."""
        del model
        return True

    @property
    def causal(self) -> bool:
        """True if outputs depend on their own step and those before alone."""
        return True

    def initial_state(self, batch_size: int) -> list[State]:
        """The state of every layer before the first step."""
        raise NotImplementedError

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        train: bool = False,
        key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B T D"], list[State]]:
        """Run all layers.

        Args:
            x: features.
            state: one state a layer; None to start afresh.
            lengths: number of valid steps of each row; None if all are valid.
            resets: True where a row starts afresh.
            train: normalise by the statistics of this batch and update the running ones.
            key: source of the dropout masks and of noise; None for none.

        Returns:
            Features, and the state of every layer after the last valid step.
        """
        raise NotImplementedError

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: list[State] | None = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
    ) -> list[dict[str, Inexact[Array, "B T N"]]]:
        """Record by name what happens inside each layer during a call in evaluation mode.

        Args:
            x: features.
            state: one state a layer; None to start afresh.
            lengths: number of valid steps of each row; at padding nothing has a meaning.
            resets: True where a row starts afresh.

        Returns:
            What `RecurrentLayer.observe` gives, of each layer.
        """
        raise NotImplementedError

    def drop_outputs(
        self, x: Float[Array, "B T D"], key: Key[Array, ""] | None
    ) -> Float[Array, "B T D"]:
        """Dropout of the features that a classifier reads, if a call has not applied it yet."""
        del key
        return x

    def step(
        self, x_t: Float[Array, "B D"], state: list[State]
    ) -> tuple[Float[Array, "B D"], list[State]]:
        """Advance all layers one step in evaluation mode: what the whole sequence gives there.

        Raises:
            NoStepError: if the recurrences have no step mode.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class BodyOptions:
    """Options of every body."""

    dtype: Dtype = "float32"
    """Type of the features between layers and of all products; bfloat16 takes half of the memory.
    Parameters, states, the statistics of norms and losses stay float32."""

    def __post_init__(self):
        """Check the values.

        Raises:
            ValueError: if there is no such type.
        """
        one_of("dtype", self.dtype, Dtype)

    @property
    def narrow(self) -> str | None:
        """The type of features and products if it is not that of the parameters."""
        return None if self.dtype == "float32" else self.dtype

    def of_layer(self, config: ModelConfig) -> dict[str, Any]:
        """Options of the layer, whose products are of `dtype`."""
        return {**config.options, **({"compute_dtype": self.narrow} if self.narrow else {})}


def narrowed(x: Float[Array, "*rows D"], dtype: str | None) -> Float[Array, "*rows D"]:
    """Features in a narrow type; as they are if that is None."""
    return x if dtype is None else x.astype(dtype)


BODIES: Registry[type[Body]] = Registry("body")


def resolve_body(body: str, model: str, preferred: str) -> str:
    """The name of a body for a recurrent layer.

    Args:
        body: a name, or auto.
        model: name of the layer.
        preferred: body that `auto` means where it suits the layer; else blocks.

    Raises:
        UnknownNameError: if there is no such body.
        ValueError: if the body does not suit the layer.
    """
    if body == "auto":
        return preferred if BODIES[preferred].suits(model) else "blocks"
    if not BODIES[body].suits(model):
        known = ", ".join(name for name in LAYERS if BODIES[body].suits(name))
        raise ValueError(f"body {body} is for model {known}, got model {model!r}")
    return BODIES.resolve(body)


def make_body(config: ModelConfig, *, preferred: str = "blocks", rngs: nnx.Rngs) -> Body:
    """Build the body of a network.

    Args:
        config: the network.
        preferred: body that `auto` means; see `resolve_body`.
        rngs: source of the initial parameters.

    Raises:
        UnknownNameError: if there is no such body.
        ValueError: if it does not suit the layer, or has no such option.
    """
    name = resolve_body(config.body, config.model, preferred)
    options = build(f"body {name!r}", BODIES[name].Options, config.body_options)
    return BODIES[name](config, options, rngs=rngs)
