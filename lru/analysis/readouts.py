"""Read-outs of any quantity from states, trained to see what the states hold (probes).

Alain & Bengio 2016 (arXiv 1610.01644). A score is always that of rows that were held out.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from lru.analysis.states import flatten_states

KINDS = ("linear", "mlp")


class Readout(nnx.Module):
    """Linear map, or one with a hidden layer of ReLU, from standardised states.

    Attributes:
        mean, scale: of the M numbers of a state.
        target_mean, target_scale: of the K values; 0 and 1 for classes.
        hidden: first map of an MLP; None in a linear read-out.
        out: last map.
        shape: of what is read from one state: [K] or none, and C if they are classes.
    """

    def __init__(
        self,
        vectors: Float[Array, "n M"],
        targets: Float[Array, "n ..."] | None,
        shape: tuple[int, ...],
        width: int | None,
        *,
        rngs: nnx.Rngs,
    ):
        """Draw the parameters, and standardise by the rows to train on.

        Args:
            vectors: states.
            targets: their values; None for classes.
            shape: of what is read from one state.
            width: of the hidden layer; None for a linear read-out.
            rngs: source of the initial parameters.
        """
        self.shape = shape
        self.mean, self.scale = _moments(vectors)
        self.target_mean, self.target_scale = (
            (nnx.Variable(jnp.zeros(())), nnx.Variable(jnp.ones(())))
            if targets is None
            else _moments(targets)
        )
        d_in, dtype = vectors.shape[1], vectors.dtype
        self.hidden = (
            None if width is None else nnx.Linear(d_in, width, param_dtype=dtype, rngs=rngs)
        )
        self.out = nnx.Linear(width or d_in, math.prod(shape), param_dtype=dtype, rngs=rngs)

    def __call__(self, states: Any) -> Float[Array, "n ..."]:
        """Logits [n, C] or [n, K, C] of classes, or values [n] or [n, K].

        Args:
            states: a tree as that which the read-out was trained on.
        """
        y = self.standardised(flatten_states(states)[0])
        return y * self.target_scale[...] + self.target_mean[...]

    def standardised(self, vectors: Float[Array, "n M"]) -> Float[Array, "n ..."]:
        """The same of states as vectors, and of values in units of their standard deviation."""
        x = (vectors - self.mean[...]) / self.scale[...]
        if self.hidden is not None:
            x = nnx.relu(self.hidden(x))
        return self.out(x).reshape(-1, *self.shape)


class Probe(NamedTuple):
    """A trained read-out and how well it reads.

    Attributes:
        score: accuracy, or R², of the rows that were held out.
        train_score: the same of those that it was trained on.
        measure: the name of the score: accuracy or r2.
        readout: from states to logits or values.
    """

    score: float
    train_score: float
    measure: str
    readout: Readout


def probe(
    states: Any,
    targets: Array | np.ndarray,
    *,
    kind: str = "linear",
    width: int = 128,
    held_out: float | tuple[Any, Any] = 0.2,
    updates: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
) -> Probe:
    """Train a read-out with AdamW, and score it on rows that it has not seen.

    Args:
        states: n rows: an array [n, M], or a tree of arrays [n, ...] such as the state of a layer;
            complex numbers are read as their real and imaginary parts.
        targets: what to read: classes as integers from 0 on or as booleans, [n] or K a row [n, K];
            or real values as floats [n] or [n, K].
        kind: linear; or mlp, with one hidden layer of ReLU.
        width: of the hidden layer of an mlp.
        held_out: share of the rows to score on, drawn by the seed; or other states and targets,
            which is right where rows belong together, as the steps of a sequence do.
        updates: number of updates.
        batch_size: rows of an update, drawn with replacement.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        seed: of the held out rows, the parameters and the batches.

    Returns:
        The scores, accuracy over all targets or R² over all values; and the read-out.

    Raises:
        ValueError: if an argument does not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be {' or '.join(KINDS)}, got {kind!r}")
    for name, value in (("width", width), ("updates", updates), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    vectors, _ = flatten_states(states)
    rows = _rows(vectors, targets)
    if isinstance(held_out, tuple):
        train, test = rows, _rows(flatten_states(held_out[0])[0], held_out[1])
    else:
        n, n_test = len(vectors), round(held_out * len(vectors))
        if not 0 < n_test < n:
            raise ValueError(
                f"held_out must leave at least one of the {n} rows on either side, got {held_out}"
            )
        order = np.random.default_rng(seed).permutation(n)
        test, train = (tuple(a[part] for a in rows) for part in (order[:n_test], order[n_test:]))
    classes = jnp.issubdtype(rows[1].dtype, jnp.integer)
    shape = rows[1].shape[1:]
    if classes:
        shape = (*shape, int(max(train[1].max(), test[1].max())) + 1)
    readout = Readout(
        train[0],
        None if classes else train[1],
        shape,
        width if kind == "mlp" else None,
        rngs=nnx.Rngs(seed),
    )
    graphdef, params, rest = nnx.split(readout, nnx.Param, ...)
    rule = optax.adamw(learning_rate, weight_decay=weight_decay)

    @jax.jit
    def fit(params: nnx.State, vectors: Array, targets: Array) -> nnx.State:
        def loss(params: nnx.State, picked: Array) -> Array:
            model = nnx.merge(graphdef, params, rest)
            y, wanted = model.standardised(vectors[picked]), targets[picked]
            if classes:
                return optax.softmax_cross_entropy_with_integer_labels(y, wanted).mean()
            return jnp.mean((y - (wanted - model.target_mean[...]) / model.target_scale[...]) ** 2)

        def update(carry: tuple, key: Array) -> tuple[tuple, None]:
            params, moments = carry
            picked = jax.random.randint(key, (batch_size,), 0, len(vectors))
            change, moments = rule.update(jax.grad(loss)(params, picked), moments, params)
            return (optax.apply_updates(params, change), moments), None

        keys = jax.random.split(jax.random.key(seed), updates)
        return lax.scan(update, (params, rule.init(params)), keys)[0][0]

    nnx.update(readout, fit(params, *train))
    score = _accuracy if classes else _r2
    found, of_train = (float(score(readout(part[0]), part[1])) for part in (test, train))
    return Probe(found, of_train, "accuracy" if classes else "r2", readout)


def _rows(vectors: Float[Array, "n M"], targets: Any) -> tuple[Array, Array]:
    """States and targets, which fit each other."""
    targets = jnp.asarray(targets)
    targets = targets.astype(jnp.int32) if targets.dtype == bool else targets
    if targets.ndim not in (1, 2) or len(targets) != len(vectors):
        raise ValueError(
            f"targets have shape {targets.shape}, but the states allow [n] or [n, K] with n = "
            f"{len(vectors)}"
        )
    if jnp.issubdtype(targets.dtype, jnp.floating):
        return vectors, targets.astype(vectors.dtype)
    if not jnp.issubdtype(targets.dtype, jnp.integer) or targets.min() < 0:
        raise ValueError(
            "targets must be classes from 0 on as integers, or real values as floats, got "
            f"{targets.dtype} from {targets.min()} on"
        )
    return vectors, targets


def _moments(x: Float[Array, "n ..."]) -> tuple[nnx.Variable, nnx.Variable]:
    """Mean and standard deviation over rows, or 1 where there is none."""
    deviation = x.std(axis=0)
    return nnx.Variable(x.mean(axis=0)), nnx.Variable(jnp.where(deviation > 0, deviation, 1))


def _accuracy(logits: Float[Array, "n ... C"], targets: Array) -> Array:
    return jnp.mean(logits.argmax(axis=-1) == targets)


def _r2(values: Float[Array, "n ..."], targets: Float[Array, "n ..."]) -> Array:
    spread = jnp.sum((targets - targets.mean(axis=0)) ** 2)
    if not spread > 0:
        raise ValueError(
            f"targets must differ from row to row for R², got the same in all {len(targets)} rows"
        )
    return 1 - jnp.sum((targets - values) ** 2) / spread
