"""The training state and the compiled functions that change it.

An update: sums of losses over microbatches, one gradient of their mean, one call of the optimiser.
All are pure functions of the state of one lane; `lru.training.lanes` runs them for several.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from lru.batches import Series, row_axes
from lru.devices import no_rows, rows_first
from lru.layers.newton import NewtonReport
from lru.tasks import Mean, Metrics, Outcome, Task
from lru.tasks.base import no_counts, no_metrics
from lru.tasks.metrics import Maximum, merged, over_axis
from lru.training.memory import compiler_options
from lru.training.optimizer import Transformation
from lru.training.progress import Stopwatch

NEVER = -1


class TrainState(NamedTuple):
    """All that an update reads and writes.

    Attributes:
        step: updates made so far.
        seed: of dropout and of all else that is random.
        params: parameters.
        stats: running statistics of the norms.
        opt_state: of the optimiser.
        carry: what the next batch starts from; empty if none goes on.
        lr_scale: factor on the learning rate, lowered on plateaus.
        sums: loss and metrics since the last log line.
        first_bad_step: first update whose loss or gradient was not finite; `NEVER` if none.
        lane: of several lanes, the values of options that are its own, and whether it is `active`:
            updates leave others as they are. Empty of one.
    """

    step: jax.Array
    seed: jax.Array
    params: nnx.State
    stats: nnx.State
    opt_state: Any
    carry: Any
    lr_scale: jax.Array
    sums: Metrics
    first_bad_step: jax.Array
    lane: dict[str, jax.Array]


class Weights(NamedTuple):
    """Parts of a state that an evaluation reads.

    Attributes:
        params: parameters, or their average.
        stats: running statistics of the norms.
        seed: of what is random.
    """

    params: nnx.State
    stats: nnx.State
    seed: jax.Array


class Evaluation(NamedTuple):
    """State of an evaluation.

    Attributes:
        sums: loss and metrics so far.
        carry: what the next batch starts from.
        batch: batches so far.
        counts: those that the task declares, so far.
    """

    sums: Metrics
    carry: Any
    batch: jax.Array
    counts: dict[str, jax.Array]


class Functions(NamedTuple):
    """The functions of a lane, to be compiled.

    Attributes:
        train: (state, batch) -> state.
        evaluate: (evaluation so far, weights, batch) -> evaluation so far.
        take_sums: state -> (state with empty sums, sums).
    """

    train: Callable[[TrainState, Any], TrainState]
    evaluate: Callable[[Evaluation, Weights, Any], Evaluation]
    take_sums: Callable[[TrainState], tuple[TrainState, Metrics]]


BuildOptimizer = Callable[[Mapping[str, Any]], tuple[Transformation, optax.Schedule]]
"""From the values of a lane to the optimiser and its schedule."""


def initial_carry(task: Task, model: nnx.Module, batch_size: int) -> Any:
    """Carry that the first batch of so many rows starts from."""
    # Copies: each update takes the buffers over, and two leaves may share one of zeros.
    return jax.tree.map(jnp.copy, task.initial_carry(model, batch_size))


def init_state(
    task: Task,
    build: BuildOptimizer,
    seed: int,
    batch_size: int = 1,
    lane: Mapping[str, Any] | None = None,
) -> tuple[nnx.GraphDef, TrainState]:
    """The structure of the task's model, and the state before the first update.

    Args:
        task: gives the model.
        build: gives the optimiser.
        seed: of the parameters and the dropout masks.
        batch_size: rows of a batch.
        lane: values of its own, of one of several lanes.
    """
    model = task.build_model(nnx.Rngs(seed))
    graphdef, params, stats = nnx.split(model, nnx.Param, ...)
    return graphdef, TrainState(
        step=jnp.int32(0),
        seed=jnp.uint32(seed),
        params=params,
        stats=stats,
        opt_state=build({})[0].init(params),
        carry=initial_carry(task, model, batch_size),
        lr_scale=jnp.float32(1),
        sums=no_metrics(task),
        first_bad_step=jnp.int32(NEVER),
        lane={} if lane is None else {"active": jnp.bool_(True), **jax.tree.map(jnp.asarray, lane)},
    )


def start_evaluation(task: Task, model: nnx.Module, batch_size: int) -> Evaluation:
    """An evaluation before its first batch."""
    carry = initial_carry(task, model, batch_size)
    return Evaluation(no_metrics(task), carry, jnp.int32(0), no_counts(task))


def make_functions(
    task: Task,
    graphdef: nnx.GraphDef,
    build: BuildOptimizer,
    microbatch: int | None = None,
    axis: str | None = None,
) -> Functions:
    """Join a task, the structure of its model and an optimiser.

    Args:
        task: what is learned.
        graphdef: of its model.
        build: gives the optimiser.
        microbatch: rows that are evaluated at once; None for the whole batch.
        axis: name of the mapped axis over which the rows of a batch are split, if they are. Every
            device has the loss and the gradient of its own rows; their sums are those of the batch.
    """

    def merge(params: nnx.State, stats: nnx.State) -> nnx.Module:
        model = nnx.merge(graphdef, params, stats, copy=True)
        if axis is not None:
            own = {"axis_name": axis, "raise_if_not_found": False}
            model.set_attributes(nnx.BatchNorm, **own)
        return model

    def outcome(params: nnx.State, stats: nnx.State, batch: Any, carry: Any, key: Any) -> tuple:
        model = merge(params, stats)
        found = task.loss(model, batch, carry, key, train=True)
        mean = found.loss.total / over_axis(found.loss, axis).divisor
        return mean, (found, nnx.state(model, nnx.Param, ...)[1])

    def whole(params: nnx.State, stats: nnx.State, batch: Any, carry: Any, key: Any) -> tuple:
        """Mean loss, its gradient, the outcome and the statistics, of a batch at once."""
        (mean, (found, stats)), grads = jax.value_and_grad(outcome, has_aux=True)(
            params, stats, batch, carry, key
        )
        return mean, grads, found, stats

    def in_parts(params: nnx.State, stats: nnx.State, batch: Any, carry: Any, key: Any) -> tuple:
        """The same, of its microbatches: sums of losses and of their gradients."""

        def part(total: tuple, rows: tuple, number: Any) -> tuple:
            grads, stats, before = total
            batch, carry = rows
            own = jax.random.fold_in(key, number)
            _, more, found, stats = whole(params, stats, batch, carry, own)
            weight = over_axis(found.loss, axis).divisor
            grads = jax.tree.map(lambda sum, new: sum + weight * new, grads, more)
            return (grads, stats, merged(before, found.sums)), found.carry

        total = (jax.tree.map(jnp.zeros_like, params), stats, no_metrics(task))
        (grads, stats, metrics), carry = _over_parts(part, total, (batch, carry), microbatch or 1)
        loss = metrics.pop("loss")
        assert isinstance(loss, Mean)
        weight = over_axis(loss, axis).divisor
        grads = jax.tree.map(lambda sum: sum / weight, grads)
        return loss.total / weight, grads, Outcome(loss, metrics, carry), stats

    def of_all_rows(gradient: Callable) -> Callable:
        """Loss, gradient and metrics of a batch, of whose rows each device has some."""

        def summed(*arguments: Any) -> tuple:
            mean, grads, found, stats = gradient(*arguments)
            mean, grads = jax.lax.psum((mean, grads), axis)
            sums = over_axis(found.sums, axis)
            stats = _of_newton(lambda report: jax.lax.pmax(report, axis), stats)
            return mean, grads, Outcome(sums.pop("loss"), sums, found.carry), stats

        return gradient if axis is None else summed

    def draw(seed: jax.Array, number: jax.Array) -> jax.Array:
        """The key of an update, or of a batch of an evaluation, for these rows."""
        key = jax.random.fold_in(jax.random.key(seed), number)
        return key if axis is None else jax.random.fold_in(key, jax.lax.axis_index(axis))

    def train(state: TrainState, batch: Any) -> TrainState:
        key = draw(state.seed, state.step)
        rows = max((leaf.shape[0] for leaf in jax.tree.leaves(batch) if leaf.ndim), default=1)
        gradient = of_all_rows(whole if microbatch is None or rows <= microbatch else in_parts)
        values = {name: value for name, value in state.lane.items() if name != "active"}
        optimizer, schedule = build(values)
        loss, grads, found, stats = gradient(state.params, state.stats, batch, state.carry, key)
        factor = state.lr_scale * task.rate(batch)

        def value_and_grad(params: nnx.State) -> tuple[jax.Array, nnx.State]:
            return gradient(params, state.stats, batch, state.carry, key)[:2]

        updates, opt_state = optimizer.update(
            grads,
            state.opt_state,
            state.params,
            value=loss,
            value_and_grad=value_and_grad,
            rate=factor * schedule(state.step),
            factor=factor,
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        first_bad = (state.first_bad_step == NEVER) & ~finite
        after = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            stats=stats,
            opt_state=opt_state,
            carry=found.carry,
            sums=merged(state.sums, found.sums),
            first_bad_step=jnp.where(first_bad, state.step, state.first_bad_step),
        )
        if not state.lane:
            return after
        active = state.lane["active"]
        return jax.tree.map(lambda new, old: jnp.where(active, new, old), after, state)

    def evaluate(before: Evaluation, weights: Weights, batch: Any) -> Evaluation:
        model = merge(weights.params, weights.stats)
        key = draw(weights.seed, before.batch)
        found = task.loss(model, batch, before.carry, key, train=False)
        more = found.counts if axis is None else jax.lax.psum(found.counts, axis)
        counts = {name: before.counts[name] + count for name, count in more.items()}
        sums = merged(before.sums, over_axis(found.sums, axis))
        return Evaluation(sums, found.carry, before.batch + 1, before.counts | counts)

    def take_sums(state: TrainState) -> tuple[TrainState, Metrics]:
        # Not zeros: the least and the greatest of nothing are infinite.
        fresh = state._replace(sums=no_metrics(task))
        return fresh, state.sums | newton_metrics(state.stats)

    return Functions(train, evaluate, take_sums)


def newton_metrics(stats: nnx.State) -> Metrics:
    """The reports of layers that run by Newton's method: most iterations, failures of all."""
    reports = []
    _of_newton(reports.append, stats)
    if not reports:
        return {}
    iterations, residuals, failures = jnp.stack([report[...] for report in reports], axis=1)
    return {
        "newton_iterations": Maximum(jnp.max(iterations)),
        "newton_residual": Maximum(jnp.max(residuals)),
        "newton_failures": Maximum(jnp.sum(failures)),
    }


def _of_newton(change: Callable, stats: nnx.State) -> nnx.State:
    """The statistics with every report of Newton's method changed."""
    return jax.tree.map(
        lambda variable: change(variable) if isinstance(variable, NewtonReport) else variable,
        stats,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )


def rows_of(tree: Any) -> Any:
    """The axes of the rows of all that the functions read and write; see `lru.devices`."""
    if isinstance(tree, TrainState | Evaluation):
        return no_rows(tree)._replace(carry=rows_first(tree.carry))
    return no_rows(tree) if isinstance(tree, Weights) else row_axes(tree)


def _over_parts(part: Callable, total: Any, rows: Any, size: int) -> tuple[Any, Any]:
    """Go through the rows of a tree in parts of `size`, and a last one with what is left.

    Args:
        part: (total, rows of this part, its number) -> (total, output rows).
        total: before the first.
        rows: arrays with rows along their first axis; scalars go to every part.
        size: rows of a part.

    Returns:
        The total after the last, and the outputs of all rows.
    """
    leaves, structure = jax.tree.flatten(rows)
    count, rest = divmod(next(leaf.shape[0] for leaf in leaves if leaf.ndim), size)

    def chosen(take: Callable[[jax.Array], jax.Array]) -> Any:
        return structure.unflatten([take(leaf) if leaf.ndim else leaf for leaf in leaves])

    def step(total: Any, number: jax.Array) -> tuple[Any, Any]:
        start = number * size
        return part(total, chosen(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size)), number)

    total, outputs = jax.lax.scan(step, total, jnp.arange(count))
    outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)
    if rest:
        total, last = part(total, chosen(lambda x: x[count * size :]), jnp.int32(count))
        outputs = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), outputs, last)
    return total, outputs


def over_series(step: Callable) -> Callable:
    """A function of a state and a batch, for a `Series` of batches too: one after the other.

    Args:
        step: (state, batch) -> state.
    """

    def steps(state: Any, batch: Any) -> Any:
        if not isinstance(batch, Series):
            return step(state, batch)

        def body(k: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            state, this = carry
            return step(state, this), batch.batch(k + 1)

        # A step reads its batch from what the loop carries, so that it is the program of a batch
        # that was sent, and rounds as that. One program serves any count, as it is an argument.
        return jax.lax.fori_loop(0, batch.count, body, (state, batch.batch(0)))[0]

    return steps


class CompiledByShape:
    """A function compiled ahead of time for every shape of batch, so that compiling is timed."""

    def __init__(self, function: Callable, stopwatch: Stopwatch):
        """Prepare to compile.

        Args:
            function: of (state, ..., batch or series); the buffers of the state are taken over.
            stopwatch: runs while it is compiled.
        """
        self._function = jax.jit(function, donate_argnums=0, compiler_options=compiler_options())
        self._stopwatch = stopwatch
        self._compiled = {}

    def __call__(self, *args: Any) -> Any:
        """Call it, compiled before if this is a new shape."""
        return self.program(*args)(*args)

    def program(self, *args: Any) -> Callable:
        """The program for arguments of these shapes, compiled if it is new."""
        leaves, structure = jax.tree.flatten(args[-1])
        key = structure, *((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._compiled:
            with self._stopwatch.running():
                self._compiled[key] = self._function.lower(*args).compile()
        return self._compiled[key]
