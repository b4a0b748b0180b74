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

from lru.streams import TextBatch
from lru.tasks import Carries, Task
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
        carry: what the next batch starts from, of tasks whose batches go on; else empty.
        lr_scale: factor on the updates, lowered on plateaus.
        sums: of losses, weights and metrics since the last log line.
        first_bad_step: first update whose loss or gradient was not finite; `NEVER` if none.
    """

    step: jax.Array
    seed: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: optax.OptState
    carry: Any
    lr_scale: jax.Array
    sums: Sums
    first_bad_step: jax.Array


class Evaluation(NamedTuple):
    """Where an evaluation is.

    Attributes:
        sums: of losses, weights and metrics so far.
        carry: as in `TrainState`.
    """

    sums: Sums
    carry: Any


class Steps(NamedTuple):
    """The functions of a run, to be compiled.

    Attributes:
        train: (state, batch) -> state.
        evaluate: (params, stats, evaluation so far, batch) -> evaluation so far.
        take_sums: state -> (state with zero sums, sums).
    """

    train: Callable[[TrainState, Any], TrainState]
    evaluate: Callable[[nnx.State, nnx.State, Evaluation, Any], Evaluation]
    take_sums: Callable[[TrainState], tuple[TrainState, Sums]]


def add_sums(sums: Sums, loss: jax.Array, weight: jax.Array, metrics: Sums) -> Sums:
    """Add those of one batch."""
    batch = {"loss": loss, "weight": weight, **metrics}
    return {name: total + batch[name] for name, total in sums.items()}


def zero_sums(task: Task) -> Sums:
    """The sums before any batch."""
    return {name: jnp.float32(0) for name in ("loss", "weight", *task.metrics)}


def initial_carry(task: Task, model: nnx.Module, batch_size: int) -> Any:
    """What the first batch of so many rows starts from; empty if batches do not go on."""
    if not isinstance(task, Carries):
        return ()
    # Copies: each update takes the buffers over, and two leaves may share one of zeros.
    return jax.tree.map(jnp.copy, task.initial_carry(model, batch_size))


def init_state(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    seed: int,
    batch_size: int = 1,
) -> tuple[nnx.GraphDef, TrainState]:
    """The structure of the task's model, and the state before the first update.

    Args:
        task: gives the model.
        optimizer: over the parameters' `nnx.State`.
        seed: of the parameters and the dropout masks.
        batch_size: rows of a batch, for tasks whose batches go on.
    """
    model = task.build_model(nnx.Rngs(seed))
    graphdef, params, stats = nnx.split(model, nnx.Param, ...)
    return graphdef, TrainState(
        step=jnp.int32(0),
        seed=jnp.uint32(seed),
        params=params,
        stats=stats,
        opt_state=optimizer.init(params),
        carry=initial_carry(task, model, batch_size),
        lr_scale=jnp.float32(1),
        sums=zero_sums(task),
        first_bad_step=jnp.int32(NEVER),
    )


def make_steps(
    task: Task, graphdef: nnx.GraphDef, optimizer: optax.GradientTransformationExtraArgs
) -> Steps:
    """Join a task, the structure of its model and an optimiser."""

    def losses(
        model: nnx.Module, batch: Any, carry: Any, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, Sums, Any]:
        if isinstance(task, Carries):
            return task.continued(model, batch, carry, key)
        return *task.loss_and_metrics(model, batch, key), carry

    def train(state: TrainState, batch: Any) -> TrainState:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)

        def mean_loss(params: nnx.State) -> tuple[jax.Array, Any]:
            model = nnx.merge(graphdef, params, state.stats, copy=True)
            loss, weight, metrics, carry = losses(model, batch, state.carry, key)
            sums = add_sums(state.sums, loss, weight, metrics)
            stats = nnx.state(model, nnx.Param, ...)[1]
            return loss / jnp.maximum(weight, 1), (stats, sums, carry)

        (loss, (stats, sums, carry)), grads = jax.value_and_grad(mean_loss, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        scale = state.lr_scale * (batch.rate if isinstance(batch, TextBatch) else 1)
        updates = jax.tree.map(lambda update: scale * update, updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        first_bad = (state.first_bad_step == NEVER) & ~finite
        return state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            stats=stats,
            opt_state=opt_state,
            carry=carry,
            sums=sums,
            first_bad_step=jnp.where(first_bad, state.step, state.first_bad_step),
        )

    def evaluate(params: nnx.State, stats: nnx.State, before: Evaluation, batch: Any) -> Evaluation:
        model = nnx.merge(graphdef, params, stats, copy=True)
        loss, weight, metrics, carry = losses(model, batch, before.carry, None)
        return Evaluation(add_sums(before.sums, loss, weight, metrics), carry)

    def take_sums(state: TrainState) -> tuple[TrainState, Sums]:
        return state._replace(sums=jax.tree.map(jnp.zeros_like, state.sums)), state.sums

    return Steps(train, evaluate, take_sums)
