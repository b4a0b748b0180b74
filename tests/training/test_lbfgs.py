"""L-BFGS beside torch.optim.LBFGS in double precision, in lanes, saved, and what is refused."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lru.training.lbfgs import LINE_SEARCHES, LBFGSState, lbfgs

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.standard_normal((12, 3)), RNG.standard_normal((12, 2))
ROTATION = np.linalg.qr(RNG.standard_normal((20, 20)))[0]
HESSIAN = ROTATION @ np.diag(np.geomspace(1, 1e3, 20)) @ ROTATION.T


def rosenbrock(xp, x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


def quadratic(xp, x):
    return x @ (xp.asarray(HESSIAN) @ x) / 2 - x.sum()


def network(xp, w, b, v):
    inputs, targets = xp.asarray(INPUTS), xp.asarray(TARGETS)
    return ((xp.tanh(inputs @ w + b) @ v - targets) ** 2).mean()


def waves(xp, x):
    return (xp.sin(3 * x) + x**2 / 10).sum()


def kinks(xp, x):
    return (abs(x) + xp.sin(3 * x) / 5).sum()


WEIGHTS = [RNG.standard_normal(shape) for shape in ((3, 5), (5,), (5, 2))]
PROBLEMS = {
    # Loss, first parameters, rate of each update, options.
    "rosenbrock": (rosenbrock, [np.array([-1.2, 1.0])], [0.2] * 6, {"max_iter": 5}),
    "quadratic": (quadratic, [np.zeros(20)], [1.0] * 5, {"max_eval": 7, "history_size": 3}),
    "network": (network, WEIGHTS, [0.5, 1.0, 0.7, 0.3, 0.1], {"max_iter": 6}),
    # The line search takes all its ways, to brackets that are too small to be divided.
    "kinks": (kinks, [np.array([2.0, 0.5, -1.0])], [0.5] * 3, {"max_eval": 40}),
    "flat gradient": (waves, [np.array([0.2])], [1.0] * 3, {"tolerance_grad": 0.1}),
    "small change": (waves, [np.array([0.2])], [1.0] * 3, {"tolerance_change": 0.3}),
    "short step": (rosenbrock, [np.array([-1.2, 1.0])], [0.2] * 2, {"tolerance_change": 0.25}),
    # Of the gradients, given and evaluated, some are longer and some are shorter than that.
    "clipped": (waves, [np.array([0.2, 1.0, -0.7])], [0.5] * 3, {"max_iter": 6, "clip_norm": 2.0}),
    # The line search has but one evaluation, beyond the minimum, and stays where it was.
    "overshoot": (waves, [np.array([0.2])], [9.0] * 2, {"max_iter": 1}),
}
each_search = pytest.mark.parametrize("line_search", LINE_SEARCHES)


def make_update(loss, optimizer):
    value_and_grad = jax.value_and_grad(lambda params: loss(jnp, *params))

    def update(params, state, rate):
        value, grads = value_and_grad(params)
        changes, state = optimizer.update(
            grads, state, params, value=value, value_and_grad=value_and_grad, rate=rate
        )
        return optax.apply_updates(params, changes), state

    return update


@pytest.mark.parametrize(
    ("problem", "line_search"),
    # Fixed steps across kinks are chaotic: the last digit decides where they end.
    [pair for pair in product(PROBLEMS, LINE_SEARCHES) if pair != ("kinks", "none")],
)
def test_equals_that_of_torch(problem, line_search):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    loss, first, rates, options = PROBLEMS[problem]
    others = {name: value for name, value in options.items() if name != "clip_norm"}
    tensors = [torch.tensor(leaf, requires_grad=True) for leaf in first]
    peer = torch.optim.LBFGS(
        tensors, line_search_fn=None if line_search == "none" else line_search, **others
    )

    def closure():
        peer.zero_grad()
        value = loss(torch, *tensors)
        value.backward()
        torch.nn.utils.clip_grad_norm_(tensors, options.get("clip_norm", np.inf))
        return value

    with jax.enable_x64(True):
        optimizer = lbfgs(line_search=line_search, **options)
        update, params = jax.jit(make_update(loss, optimizer)), jax.tree.map(jnp.asarray, first)
        state = optimizer.init(params)
        for rate in rates:
            peer.param_groups[0]["lr"] = rate
            peer.step(closure)
            params, state = update(params, state, rate)
            for mine, theirs in zip(params, tensors, strict=True):
                np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=0, atol=1e-8)
            counts = peer.state[tensors[0]]
            assert (state.n_iter, state.func_evals) == (counts["n_iter"], counts["func_evals"])


def run(update, optimizer, params, rates, state=None):
    state = optimizer.init(params) if state is None else state
    for rate in rates:
        params, state = update(params, state, rate)
    return params, state


@each_search
def test_lanes_equal_single_runs(line_search):
    optimizer = lbfgs(max_iter=4, history_size=3, line_search=line_search)
    with jax.enable_x64(True):
        update = make_update(network, optimizer)
        single, together = jax.jit(update), jax.jit(jax.vmap(update))
        params = [jnp.stack([leaf, -leaf / 2, leaf / 3]) for leaf in WEIGHTS]
        rates = jnp.array([0.1, 0.5, 1.0])
        alone = [
            run(single, optimizer, [leaf[k] for leaf in params], [rates[k]] * 3) for k in range(3)
        ]
        lanes = run(together, optimizer, params, [rates] * 3, jax.vmap(optimizer.init)(params))
    jax.tree.map(
        lambda lane, *each: np.testing.assert_allclose(lane, each, rtol=1e-8, atol=1e-8),
        lanes,
        *alone,
    )


@each_search
def test_a_saved_state_goes_on_as_if_it_had_not_been_saved(line_search):
    optimizer = lbfgs(max_iter=4, history_size=3, line_search=line_search)
    update = jax.jit(make_update(network, optimizer))
    first = [jnp.asarray(leaf, jnp.float32) for leaf in WEIGHTS]
    whole = run(update, optimizer, first, [0.5] * 4)
    params, state = run(update, optimizer, first, [0.5] * 2)
    saved = LBFGSState(*(np.array(field) for field in state))
    parts = run(update, optimizer, params, [0.5] * 2, saved)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


@each_search
def test_parameters_of_a_module_in_single_precision(line_search):
    graphdef, params = nnx.split(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Param)
    inputs, targets = jnp.asarray(INPUTS, jnp.float32), jnp.asarray(TARGETS, jnp.float32)

    @jax.value_and_grad
    def value_and_grad(params):
        return ((nnx.merge(graphdef, params)(inputs) - targets) ** 2).mean()

    optimizer = optax.chain(optax.identity(), lbfgs(line_search=line_search))
    value, grads = value_and_grad(params)
    updates, state = optimizer.update(
        *(grads, optimizer.init(params), params),
        **{"value": value, "value_and_grad": value_and_grad, "rate": 1.0},
    )
    best, *_ = np.linalg.lstsq(np.c_[INPUTS, np.ones(12)], TARGETS)
    moved = optax.apply_updates(params, updates)
    assert isinstance(moved, nnx.State)
    np.testing.assert_allclose(moved["kernel"][...], best[:3], atol=1e-3)
    np.testing.assert_allclose(moved["bias"][...], best[3], atol=1e-3)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32", "int32"}


def test_at_a_minimum_nothing_moves_and_the_evaluation_counts():
    optimizer = lbfgs()
    params = [jnp.ones(2)]
    state = optimizer.init(params)
    moved, after = make_update(rosenbrock, optimizer)(params, state, 1.0)
    np.testing.assert_array_equal(moved, params)
    jax.tree.map(np.testing.assert_array_equal, after, state._replace(func_evals=jnp.int32(1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iter": 0}, "max_iter must be at least 1, got 0"),
        ({"max_eval": 0}, "max_eval must be at least 1, got 0"),
        ({"history_size": -1}, "history_size must be at least 1, got -1"),
        ({"tolerance_grad": -1e-7}, "tolerance_grad must be at least 0 and finite, got -1e-07"),
        ({"tolerance_change": np.nan}, "tolerance_change must be at least 0 and finite, got nan"),
        ({"clip_norm": -0.5}, "clip_norm must be positive, got -0.5"),
        ({"line_search": "wolfe"}, "unknown line search 'wolfe'; known: none, strong_wolfe"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        lbfgs(**options)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "params must hold at least one number, got none"),
        ([jnp.ones(2), jnp.ones(2, complex)], "params must be float32 or float64, got complex64"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        lbfgs().init(params)


def test_the_state_of_other_parameters_is_refused():
    optimizer = lbfgs()
    message = "^state must be that of the 2 parameters in float32, but is of 3 in float32$"
    with pytest.raises(ValueError, match=message):
        make_update(rosenbrock, optimizer)([jnp.ones(2)], optimizer.init([jnp.ones(3)]), 1.0)
