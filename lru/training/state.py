"""The training state and the compiled steps that change it.

Steps are pure functions of whole states, so several states (seeds, learning rates) can be stacked
and trained as one program by `jax.vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lru.dataloading import Batch
from lru.tasks import Task
from lru.tasks.base import Sums

NEVER = -1


class TrainState(NamedTuple):
    """All that an update reads and writes.

    Attributes:
        step: updates made so far.
        seed: of the dropout masks.
        params: parameters.
        stats: running statistics of the norms.
        opt_state: of the optimiser.
        lr_scale: factor on the updates, lowered on plateaus.
        sums: of losses, weights and metrics since the last log line.
        first_bad_step: first update whose loss or gradient was not finite; `NEVER` if none.
    """

    step: jax.Array
    seed: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: optax.OptState
    lr_scale: jax.Array
    sums: Sums
    first_bad_step: jax.Array


class Steps(NamedTuple):
    """The functions of a run, to be compiled.

    Attributes:
        train: (state, batch) -> state.
        evaluate: (params, stats, sums, batch) -> sums.
        take_sums: state -> (state with zero sums, sums).
    """

    train: Callable[[TrainState, Batch], TrainState]
    evaluate: Callable[[nnx.State, nnx.State, Sums, Batch], Sums]
    take_sums: Callable[[TrainState], tuple[TrainState, Sums]]


def add_sums(sums: Sums, loss: jax.Array, weight: jax.Array, metrics: Sums) -> Sums:
    """Add those of one batch."""
    batch = {"loss": loss, "weight": weight, **metrics}
    return {name: total + batch[name] for name, total in sums.items()}


def zero_sums(task: Task) -> Sums:
    """The sums before any batch."""
    return {name: jnp.float32(0) for name in ("loss", "weight", *task.metrics)}


def init_state(
    task: Task, optimizer: optax.GradientTransformationExtraArgs, seed: int
) -> tuple[nnx.GraphDef, TrainState]:
    """The structure of the task's model, and the state before the first update.

    Args:
        task: gives the model.
        optimizer: over the parameters' `nnx.State`.
        seed: of the parameters and the dropout masks.
    """
    graphdef, params, stats = nnx.split(task.build_model(nnx.Rngs(seed)), nnx.Param, ...)
    return graphdef, TrainState(
        step=jnp.int32(0),
        seed=jnp.uint32(seed),
        params=params,
        stats=stats,
        opt_state=optimizer.init(params),
        lr_scale=jnp.float32(1),
        sums=zero_sums(task),
        first_bad_step=jnp.int32(NEVER),
    )


def make_steps(
    task: Task, graphdef: nnx.GraphDef, optimizer: optax.GradientTransformationExtraArgs
) -> Steps:
    """Join a task, the structure of its model and an optimiser."""

    def train(state: TrainState, batch: Batch) -> TrainState:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)

        def mean_loss(params: nnx.State) -> tuple[jax.Array, Any]:
            model = nnx.merge(graphdef, params, state.stats, copy=True)
            loss, weight, metrics = task.loss_and_metrics(model, batch, key)
            sums = add_sums(state.sums, loss, weight, metrics)
            return loss / jnp.maximum(weight, 1), (nnx.state(model, nnx.Param, ...)[1], sums)

        (loss, (stats, sums)), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: state.lr_scale * update, updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        first_bad = (state.first_bad_step == NEVER) & ~finite
        return state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            stats=stats,
            opt_state=opt_state,
            sums=sums,
            first_bad_step=jnp.where(first_bad, state.step, state.first_bad_step),
        )

    def evaluate(params: nnx.State, stats: nnx.State, sums: Sums, batch: Batch) -> Sums:
        model = nnx.merge(graphdef, params, stats, copy=True)
        return add_sums(sums, *task.loss_and_metrics(model, batch, None))

    def take_sums(state: TrainState) -> tuple[TrainState, Sums]:
        return state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums)), state.sums

    return Steps(train, evaluate, take_sums)
