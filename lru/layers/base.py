"""The contract of a recurrent layer, its variable types and the registry of layers.

A layer maps a sequence to a sequence and hands its state on::

    y, state = layer(x, state=None, lengths=None, resets=None)   # x, y [B, T, D]
    y_t, state = layer.step(x_t, state)                          # x_t, y_t [B, D]

Running a whole sequence, any split of it into chunks, or one step after another gives the same.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer, Key

from lru.layers.initializers import ring_for
from lru.registry import Registry
from lru.scan.methods import masked, step_counts, valid_steps
from lru.scan.products import COMPUTE_DTYPES

State = Any


class NoStepError(ValueError):
    """A layer cannot advance one step at a time."""


class RecurrentParam(nnx.Param):
    """A parameter of the recurrence itself, grouped by type: lower rate and no weight decay."""


class RecurrentLayer(nnx.Module):
    """Base of all recurrent layers.

    Every keyword-only argument of a subclass's constructor, `rngs` apart, is an option of the
    layer: the command line makes a flag of it, with the type of its annotation and the sentence
    of the docstring's `Args` section.

    Attributes:
        d_model: width D of inputs and outputs.
        d_hidden: width N of the state.
        noisy: whether training adds noise. Then `__call__` takes a `key` too, None for none.
        defaults: what the layer takes for options of others unless they are given, by flag.
        of_draw: options that change nothing but the initial draw, so that lanes may differ in them.
        splits_time: whether devices can each run some of the steps: with `linear_scan` by `auto`.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    of_draw: ClassVar[tuple[str, ...]] = ()
    splits_time: ClassVar[bool] = False

    noisy: bool = False

    def __init__(self, d_model: int, d_hidden: int):
        for name, value in (("d_model", d_model), ("d_hidden", d_hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.d_model = d_model
        self.d_hidden = d_hidden

    def __call__(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> tuple[Float[Array, "B T D"], State]:
        """Run the layer over a sequence.

        Args:
            x: inputs.
            state: where to start; None for `initial_state`.
            lengths: number of valid steps of each right-padded row, from 0 to T; None if all are
                valid. Outputs on padding carry no meaning, the state is that of the last valid
                step.
            resets: True at the first step of each document of a row, which starts from
                `initial_state`. Backwards it is entered at its last step, that before the next
                reset.
            reverse: run from the last valid step to the first, with `state` behind the last.

        Returns:
            Outputs of the dtype of x, and the state after the last valid step, the first one
            backwards. It has the dtype of `initial_state`, float32 or complex64 at least, or that
            of a wider `state`.

        Raises:
            ValueError: if an argument has the wrong shape or dtype.
        """
        raise NotImplementedError

    def observe(
        self,
        x: Float[Array, "B T D"],
        state: State = None,
        *,
        lengths: Integer[Array, " B"] | None = None,
        resets: Bool[Array, "B T"] | None = None,
        reverse: bool = False,
    ) -> dict[str, Inexact[Array, "B T N"]]:
        """Record by name what happens inside at every step of a run in evaluation mode.

        Args:
            x: inputs, as all arguments those of a call.
            state: where to start.
            lengths: number of valid steps of each row; at padding nothing has a meaning.
            resets: True where a row starts afresh.
            reverse: run from the last valid step to the first.

        Returns:
            The states under "state", and the gates, where there are some, by their names.

        Raises:
            ValueError: if an argument has the wrong shape or dtype.
        """
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step, for `batch_size` rows along the first axis of leaves."""
        raise NotImplementedError

    def initial_rows(self, rows: Any) -> State:
        """The initial state of as many rows, whose number may be symbolic."""
        one = self.initial_state(1)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows, *leaf.shape[1:])), one)

    def reset_state(self, rows: Any) -> State | None:
        """State after a reset; None for zeros, which cost nothing."""
        declared = getattr(type(self).initial_state, "is_zero", False)
        return None if declared else self.initial_rows(rows)

    def check_inputs(self, x: Float[Array, "B T D"], state: State) -> None:
        """Refuse what does not fit the layer; for `__call__` to begin with.

        Raises:
            TypeError: if x is no array.
            ValueError: if x is not a sequence of width D of real floats, or if the state is not
                one of this layer for as many rows.
        """
        if not hasattr(x, "ndim"):
            raise TypeError(f"x must be an array [B, T, D], got a {type(x).__name__}")
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != self.d_model:
            raise ValueError(
                f"x has shape {x.shape}, but [B, T, D] with T of at least 1 and "
                f"D = d_model = {self.d_model} is allowed"
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"x has dtype {x.dtype}, but only real floats are allowed")
        if state is not None:
            given = jax.tree.map(jnp.shape, state)
            # From one row: the number of rows may be symbolic.
            one = self.initial_state(1)
            allowed = jax.tree.map(lambda leaf: (x.shape[0], *leaf.shape[1:]), one)
            if given != allowed:
                raise ValueError(
                    f"state has shape {given}, but x {x.shape} and d_hidden = {self.d_hidden} "
                    f"allow {allowed}"
                )

    def prepared(
        self, x: Float[Array, "B T D"], state: State, lengths: Any, resets: Any, reverse: bool
    ) -> tuple[Float[Array, "B T D"], State, dict[str, Any]]:
        """Check the arguments of a call, and make of them those of a scan.

        Returns:
            The inputs without padding, the state to start from, and options by name: `lengths`,
            `resets` of `reset_marks`, `reverse` and `reset_to`, the state after a reset; None is 0.

        Raises:
            TypeError: if an argument is no array.
            ValueError: if an argument has the wrong shape or dtype.
        """
        self.check_inputs(x, state)
        lengths = step_counts(lengths, x.shape[1])
        start = self.initial_rows(x.shape[0]) if state is None else state
        return (
            without_padding(x, lengths),
            start,
            {
                "lengths": lengths,
                "resets": reset_marks(resets, lengths, reverse),
                "reverse": reverse,
                "reset_to": self.reset_state(x.shape[0]),
            },
        )

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """Options by which a draw remembers so many steps, at least 2; empty without a rule.

        `--memory` sets them. Here those of a ring and `chrono`, where the layer has them.
        """
        rule = {**ring_for(steps), "chrono": steps}
        return {name: rule[name] for name in layer_options(cls) if name in rule}

    def step(self, x_t: Float[Array, "B D"], state: State) -> tuple[Float[Array, "B D"], State]:
        """Advance one step: the layer on a sequence of length one."""
        y, state = self(x_t[:, None], state)
        return y[:, 0], state

    def eigenvalues(self) -> Mapping[str, jax.Array]:
        """Spectra [N] of the constant recurrences inside, by name; empty if there are none.

        The only spectrum of a layer has the empty name.
        """
        return {}


def zeros(initial_state: Callable[..., State]) -> Callable[..., State]:
    """Declare that an `initial_state` is zero, whatever the parameters."""
    initial_state.is_zero = True  # pyright: ignore[reportFunctionMemberAccess]
    return initial_state


def without_padding(
    x: Float[Array, "B T D"], lengths: Integer[Array, " B"] | None
) -> Float[Array, "B T D"]:
    """X with zeros at padding, by selection: not a number there would reach the gradients."""
    return masked(valid_steps(x, lengths), x)


def reset_marks(
    resets: Bool[Array, "B T"] | None, lengths: Integer[Array, " B"] | None, reverse: bool
) -> Bool[Array, "B T"] | None:
    """Steps at which a scan in either direction leaves its state behind.

    Args:
        resets: True at the first step of each document.
        lengths: number of valid steps of each row.
        reverse: whether the scan runs backwards, and so enters a document at its last step.

    Raises:
        TypeError: if the resets are no array.
    """
    if resets is not None and not hasattr(resets, "dtype"):
        kind = type(resets).__name__
        raise TypeError(f"resets must be an array of booleans [B, T], got a {kind}")
    if resets is None or not reverse:
        return resets
    steps = resets.shape[1]
    counts = step_counts(lengths, steps)
    last = steps - 1 if counts is None else counts[:, None] - 1
    return jnp.roll(resets, -1, axis=1) & (jnp.arange(steps) < last)


LAYERS: Registry[type[RecurrentLayer]] = Registry("model")


def noise(layer: RecurrentLayer, key: Key[Array, ""] | None) -> dict[str, Any]:
    """The key as an argument for the layer, if there is one and the layer has a use for it."""
    return {"key": key} if layer.noisy and key is not None else {}


def known_scan_method(name: str, methods: Registry) -> str:
    """The listed name of a scan method, or "auto" as it is.

    Raises:
        UnknownNameError: if there is no such method.
    """
    return name if name == "auto" else methods.resolve(name)


def known_compute_dtype(name: str) -> str:
    """The type of matrix products as it is.

    Raises:
        ValueError: if products cannot be made in it.
    """
    if name not in COMPUTE_DTYPES:
        raise ValueError(f"compute_dtype must be {' or '.join(COMPUTE_DTYPES)}, got {name!r}")
    return name


def layer_options(layer: type[RecurrentLayer]) -> dict[str, inspect.Parameter]:
    """The options of a layer class: its keyword-only constructor arguments but `rngs`."""
    parameters = inspect.signature(layer.__init__).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "rngs"}


def resolve_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the layer registered as `name`: those given, and the defaults of the rest.

    Raises:
        ValueError: if the layer is unknown or has no such option.
    """
    known = {option: p.default for option, p in layer_options(LAYERS[name]).items()}
    for option in options:
        if option not in known:
            owners = [other for other, layer in LAYERS.items() if option in layer_options(layer)]
            raise ValueError(
                f"{option} is not an option of model {name!r}, which has: {', '.join(known)}"
                + (f"; models with {option}: {', '.join(owners)}" if owners else "")
            )
    return known | dict(options)


def make_layer(
    name: str, d_model: int, d_hidden: int, options: Mapping[str, Any], *, rngs: nnx.Rngs
) -> RecurrentLayer:
    """Build the layer registered as `name`.

    Args:
        name: a key of `LAYERS`.
        d_model: width D of inputs and outputs.
        d_hidden: width N of the state.
        options: values for some of the layer's options; the others keep their defaults.
        rngs: source of the initial parameters (`params`).

    Raises:
        ValueError: if the layer is unknown, has no such option, or refuses a value.
    """
    layer: Any = LAYERS[name]
    return layer(d_model, d_hidden, **resolve_options(name, options), rngs=rngs)
