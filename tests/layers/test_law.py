"""The law of layers: whole = chunks = steps; resets, padding, rows apart; true gradients."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

import lru.layers
from lru.layers import LAYERS, Bidirectional, make_layer
from lru.layers.diagonal import PARAMETRIZATIONS
from lru.scan import DENSE_METHODS, LINEAR_METHODS, reference

D, N, B, T = 5, 6, 3, 11
CUT = 4

# Every layer as it comes, sequences in chunks of time, and a wide window.
VARIANTS = [
    *((name, {}) for name in LAYERS),
    *((name, {"chunk_length": 3}) for name in ("lru", "rnn", "gated-deltanet", "mlstm", "mamba")),
    ("mamba2", {"chunk_length": 3, "n_heads": 2, "n_groups": 2}),
    ("qrnn", {"window": 4, "gates": "ifo", "zoneout": 0.3}),
    ("sru", {"version": 1}),
]
# What differs in the call of a scan or in the parameters alone: a layer that equals itself on the
# oracle keeps the rest of the law as the oracle does, since scan methods keep theirs.
OF_THE_SCAN = [
    *(("lru", {"scan_method": method}) for method in LINEAR_METHODS),
    *(("rnn", {"scan_method": method}) for method in DENSE_METHODS),
    *(
        ("lru", {"parametrization": name, "gamma": gamma})
        for name, gamma in zip(PARAMETRIZATIONS, (True, False, False), strict=True)
    ),
    ("hgrn", {"lower_bound": 0.5}),
    ("indrnn", {"activation": "tanh", "u_max": 0.5}),
    ("rg-lru", {"n_heads": 2}),
    ("sru", {"skip": False, "activation": "tanh"}),
    ("gru", {"use_reset": False}),
    ("gru", {"use_update": False}),
    ("gru", {"use_reset": False, "use_update": False}),
    *(
        (name, {"time_method": method})
        for name in ("gru", "lstm", "elman")
        for method in ("newton", "quasi_newton")
    ),
    *((name, {"time_method": "newton"}) for name in ("para-gru", "para-lstm")),
]
# What needs no more than every kind of layer.
FEW = [*((name, {}) for name in LAYERS), ("lru", {"chunk_length": 3})]
# What a layer's state takes its type from.
WIDENING = {"lru": {"nu_log", "theta_log", "gamma_log", "B", "C"}, "rnn": {"A", "B"}}


def build(variant, bidirectional=False):
    name, options = variant
    if bidirectional:
        return Bidirectional(
            lambda rngs: make_layer(name, D, N, options, rngs=rngs), rngs=nnx.Rngs(0)
        )
    return make_layer(name, D, N, options, rngs=nnx.Rngs(0))


def doubled(layer):
    graphdef, params = nnx.split(layer)
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params))


@jax.jit
def run(layer, x, state=None, lengths=None, resets=None):
    return layer(x, state, lengths=lengths, resets=resets)


@jax.jit
def advance(layer, x_t, state):
    return layer.step(x_t, state)


def inputs(seed=0, rows=B, steps=T):
    return jax.random.normal(jax.random.key(seed), (rows, steps, D))


def close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5), actual, expected
    )


def named(value):
    if isinstance(value, bool):
        return "both" if value else "forward"
    name, options = value
    values = (key if value is False else value for key, value in options.items())
    return "-".join(map(str, (name, *values)))


def each_case(variants):
    """Each in one direction, and a few in both: that wrapper knows nothing of what is in it."""
    both = [("lru", {}), ("lstm", {}), ("qrnn", {"window": 4, "gates": "f"})]
    cases = [*((variant, False) for variant in variants), *((variant, True) for variant in both)]
    return pytest.mark.parametrize(("variant", "bidirectional"), cases, ids=named)


each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=named)


@each_variant
def test_steps_equal_the_whole(variant):
    layer, x = build(variant), inputs()
    whole, last = run(layer, x)
    state, steps = layer.initial_state(B), []
    for t in range(T):
        y, state = advance(layer, x[:, t], state)
        steps.append(y)
    close(jnp.stack(steps, axis=1), whole)
    close(state, last)


@each_variant
def test_chunks_equal_the_whole(variant):
    layer, x = build(variant), inputs()
    whole, last = run(layer, x)
    first, state = run(layer, x[:, :CUT])
    second, state = run(layer, x[:, CUT:], state)
    close(jnp.concatenate([first, second], axis=1), whole)
    close(state, last)


@pytest.mark.parametrize(
    ("variant", "bidirectional"),
    [*((variant, False) for variant in FEW), (("lru", {}), True)],
    ids=named,
)
def test_calls_outside_of_jit_compile_nothing_after_the_first(variant, bidirectional):
    layer, x = build(variant, bidirectional), inputs()
    lengths, resets = jnp.array([T, CUT, 1]), jnp.zeros((B, T), bool)
    graphdef, params = nnx.split(layer)

    def use():
        y, state = layer(x, lengths=lengths, resets=resets)
        jax.grad(lambda params: jnp.sum(nnx.merge(graphdef, params)(x)[0]))(params)
        return state if bidirectional else layer.step(y[:, 0], state)

    events = []
    for _ in range(2):
        use()

    def listen(name, *_, **__):
        events.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        use()
        # What is counted is known by this name.
        assert not any("compile" in name for name in events), events
        jax.jit(lambda: 0)()
        assert any("compile" in name for name in events)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@each_case(VARIANTS)
def test_a_reset_is_a_fresh_start(variant, bidirectional):
    layer, x = build(variant, bidirectional), inputs()
    resets = jnp.zeros((B, T), bool).at[:, CUT].set(True)
    before, _ = run(layer, x[:, :CUT])
    after, last = run(layer, x[:, CUT:])
    packed, state = run(layer, x, resets=resets)
    close(packed, jnp.concatenate([before, after], axis=1))
    close(state[0] if bidirectional else state, last[0] if bidirectional else last)


def learned(name, options):
    """The layer with an initial state that is learned, and not zero."""

    class Learned(LAYERS[name]):
        def initial_state(self, batch_size):
            zeros = LAYERS[name].initial_state(self, batch_size)
            return jax.tree.map(lambda leaf: leaf + 0.5 * self.initial[...], zeros)

    layer = Learned(D, N, **options, rngs=nnx.Rngs(0))
    layer.initial = nnx.Param(jnp.ones(()))
    return layer


LEARNED = [
    *FEW,
    ("qrnn", {"window": 4, "gates": "f"}),
    ("lru", {"scan_method": "associative"}),
    ("rg-lru", {"complex_units": True}),
]


@each_case(LEARNED)
def test_a_reset_returns_to_the_initial_state_though_it_is_learned(variant, bidirectional):
    layer, x = learned(*variant), inputs()
    layer = Bidirectional(lambda _: layer, rngs=nnx.Rngs(0)) if bidirectional else layer
    graphdef, params = nnx.split(layer)
    lengths = jnp.array([T, T - 1, CUT + 1])
    # The one beyond the end of a row counts for nothing.
    resets = jnp.zeros((B, T), bool).at[:, CUT].set(True).at[2, CUT + 1].set(True)
    weights = inputs(seed=1)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def packed(params):
        y, state = nnx.merge(graphdef, params)(x, lengths=lengths, resets=resets)
        y = jnp.where(jnp.arange(T)[:, None] < lengths[:, None, None], y, 0)
        last = state[0] if bidirectional else state
        ends = sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(last))
        return jnp.sum(y * weights) + ends, (y, last)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def apart(params):
        layer = nnx.merge(graphdef, params)
        first, _ = layer(x[:, :CUT])
        second, state = layer(x[:, CUT:], lengths=lengths - CUT)
        y = jnp.concatenate([first, second], axis=1)
        y = jnp.where(jnp.arange(T)[:, None] < lengths[:, None, None], y, 0)
        last = state[0] if bidirectional else state
        ends = sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(last))
        return jnp.sum(y * weights) + ends, (y, last)

    result, expected = packed(params), apart(params)
    close(result[0][1], expected[0][1])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), result[1], expected[1])


def flipped(x, lengths):
    """The valid steps of each row from the last to the first."""
    time, last = jnp.arange(T), lengths[:, None] - 1
    source = jnp.where(time <= last, last - time, time)
    return jnp.take_along_axis(x, source.reshape(source.shape + (1,) * (x.ndim - 2)), axis=1)


@pytest.mark.parametrize(
    ("variant", "packed"),
    [*((variant, True) for variant in VARIANTS), (("lru", {}), False), (("qrnn", {}), False)],
    ids=lambda value: named(value) if isinstance(value, tuple) else f"packed={value}",
)
def test_reverse_is_the_run_over_flipped_rows(variant, packed):
    # In float64, so that the order of sums, which differs, does not count.
    with jax.enable_x64(True):
        reverse_is_the_run_over_flipped_rows(variant, packed)


def reverse_is_the_run_over_flipped_rows(variant, packed):
    layer, x = doubled(build(variant)), inputs().astype(jnp.float64)
    state = jax.tree.map(lambda leaf: leaf + 0.5, layer.initial_state(B)) if packed else None
    lengths = jnp.array([T, CUT, 0]) if packed else jnp.full(B, T)
    # A document is entered at the step before the next reset, of which the one at the start of a
    # row and one at its end say nothing.
    resets = jnp.zeros((B, T), bool).at[:, 0].set(True).at[:, 2].set(True).at[1, CUT].set(True)
    entered = jnp.zeros((B, T), bool).at[:2, 1].set(True)
    marks = ({"resets": resets}, {"resets": flipped(entered, lengths)}) if packed else ({}, {})
    weights = inputs(seed=1)

    def pull(way, x):
        y, vjp = jax.vjp(lambda x, state: way(layer, x, state), x, state)
        return y, vjp((jnp.where(valid, weights, 0), jax.tree.map(jnp.ones_like, y[1])))

    valid = (jnp.arange(T) < lengths[:, None])[..., None]
    given = {"lengths": lengths} if packed else {}

    def natively(layer, x, state):
        return layer(x, state, reverse=True, **given, **marks[0])

    def by_copies(layer, x, state):
        y, last = layer(flipped(x, lengths), state, **given, **marks[1])
        return flipped(y, lengths), last

    results, expected = (jax.jit(partial(pull, way))(x) for way in (natively, by_copies))
    ((y, *rest), (expected_y, *expected_rest)) = (
        (r[0][0], r[0][1], r[1]) for r in (results, expected)
    )
    close(jnp.where(valid, y, 0), jnp.where(valid, expected_y, 0))
    close(rest, expected_rest)


@each_variant
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_observed_is_what_a_call_does(variant, reverse):
    layer, x = build(variant), inputs()
    resets = jnp.zeros((B, T), bool).at[:, 2].set(True)
    start = jax.tree.map(lambda leaf: leaf + 0.5, layer.initial_state(B))
    lengths = jnp.array([T, CUT, 1])
    options = {"lengths": lengths, "resets": resets, "reverse": reverse}
    found, (_, last) = jax.jit(
        lambda layer, x: (layer.observe(x, start, **options), layer(x, start, **options))
    )(layer, x)
    assert {values.shape[:2] for values in found.values()} == {(B, T)}
    assert {values.ndim for values in found.values()} == {3}
    ends = found["state"][jnp.arange(B), 0 if reverse else lengths - 1]
    # The state of a layer has more fields than that, or is it.
    returned = next((getattr(last, name) for name in "chq" if hasattr(last, name)), last)
    # All numbers of a row, whatever their axes.
    close(ends, returned.reshape(ends.shape))


@pytest.mark.parametrize("variant", FEW, ids=named)
def test_a_batch_of_no_rows_has_gradients_of_zero(variant):
    graphdef, params = nnx.split(build(variant))
    run = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x)[0])
    y, pull = jax.vjp(run, params, inputs(rows=0))
    assert y.shape == inputs(rows=0).shape
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(pull(y)))


@each_case(VARIANTS)
def test_padding_changes_neither_values_nor_gradients(variant, bidirectional):
    layer = build(variant, bidirectional)
    lengths = jnp.array([T, 4, 1])
    x = inputs()
    mask = (jnp.arange(T) < lengths[:, None])[..., None]
    other = jnp.where(mask, x, jnp.nan)
    graphdef, params = nnx.split(layer)

    @jax.jit
    def values_and_gradients(params, x, at_padding):
        run = lambda params, x: nnx.merge(graphdef, params)(x, lengths=lengths)  # noqa: E731
        (y, state), pull = jax.vjp(run, params, x)
        weights = jnp.where(mask, jnp.sin(y), at_padding)
        return (jnp.where(mask, y, 0), state), pull((weights, state))

    values, (params_grad, x_grad) = values_and_gradients(params, x, 0.0)
    found = values_and_gradients(params, other, jnp.nan)
    values_other, (params_grad_other, x_grad_other) = found
    close(values_other, values)
    close(params_grad_other, params_grad)
    close(x_grad_other, x_grad)
    assert not np.any(x_grad[1, 4:])


# Of other types by the law of scans.
@each_case(FEW)
def test_lengths_may_be_of_a_narrow_type_of_integers(variant, bidirectional):
    layer, x = build(variant, bidirectional), inputs(steps=300)
    lengths = jnp.array([255, 4, 0], "uint8")
    y, state = run(layer, x, lengths=lengths)
    expected, expected_state = run(layer, x, lengths=lengths.astype("int32"))
    valid = (jnp.arange(300) < lengths.astype("int32")[:, None])[..., None]
    close(jnp.where(valid, y, 0), jnp.where(valid, expected, 0))
    close(state, expected_state)


@each_case(VARIANTS)
def test_a_row_alone_equals_the_row_in_a_batch(variant, bidirectional):
    layer, x = build(variant, bidirectional), inputs()
    together, _ = run(layer, x, lengths=jnp.array([T, CUT, 1]))
    alone, _ = run(layer, x[1:2, :CUT])
    close(together[1, :CUT], alone[0])


# Of what the scans make by those of the oracle below.
@pytest.mark.parametrize("variant", FEW, ids=named)
def test_gradients_equal_finite_differences(variant):
    with jax.enable_x64(True):
        layer = build(variant)
        graphdef, params = nnx.split(layer)
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        x = inputs(rows=2, steps=5).astype(jnp.float64)

        @jax.jit
        def outputs(params, x):
            y, state = nnx.merge(graphdef, params)(x, lengths=jnp.array([5, 3]))
            return y[0], y[1, :3], [jnp.abs(leaf) ** 2 for leaf in jax.tree.leaves(state)]

        # A step at which what third derivatives add to the differences is less than that.
        near = {"atol": 1e-6, "rtol": 1e-6, "eps": 1e-5}
        check_grads(outputs, (params, x), order=1, modes=["rev"], **near)


@each_case(VARIANTS)
def test_outputs_keep_the_type_of_inputs_and_states_stay_float32(variant, bidirectional):
    layer, x = build(variant, bidirectional), inputs().astype(jnp.bfloat16)
    y, state = run(layer, x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} <= {"float32", "complex64"}
    # Nothing is rounded to the narrow type between the input and the output.
    expected, expected_state = run(layer, x.astype(jnp.float32))
    close(state, expected_state)
    tolerance = float(jnp.finfo(y.dtype).eps) * jnp.max(jnp.abs(expected))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0, atol=tolerance)


@each_case(VARIANTS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_an_initial_state_is_zero_and_like_the_states_that_follow(variant, bidirectional, dtype):
    with jax.enable_x64(True):
        graphdef, params = nnx.split(build(variant, bidirectional))
        layer = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf.astype(dtype), params))
        _, state = jax.eval_shape(run, layer, inputs().astype(dtype))
        start = layer.initial_state(B)
        assert jax.eval_shape(lambda: start) == state
        leaves = jax.tree.leaves(start)
        assert not any(np.any(leaf) for leaf in leaves)
        # So that the first state may be donated to a step, as those that follow may.
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_drawn_under_64_bits_is_the_one_drawn_under_32(name):
    layer, x = build((name, {})), inputs()
    expected = jax.tree.map(np.asarray, (nnx.state(layer), run(layer, x)))
    with jax.enable_x64(True):
        layer = build((name, {}))
        result = jax.tree.map(np.asarray, (nnx.state(layer), run(layer, x)))
        assert run(layer, x.astype("float64"))[0].dtype == "float64"
    types = [[leaf.dtype for leaf in jax.tree.leaves(tree)] for tree in (result, expected)]
    assert types[0] == types[1]
    close(result, expected)


@pytest.mark.parametrize("name", WIDENING)
def test_one_wide_parameter_widens_the_state_and_all_of_the_recurrence(name):
    layer = build((name, {"chunk_length": CUT}))
    x = inputs().astype("float32")
    expected = np.asarray(run(layer, x)[0])
    graphdef, params = nnx.split(layer)
    with jax.enable_x64(True):
        for path in params:
            wide = {**params, path: jax.tree.map(lambda z: z.astype("float64"), params[path])}
            layer = nnx.merge(graphdef, nnx.State(wide))
            start = layer.initial_state(B)
            y, state = run(layer, x)
            assert y.dtype == "float32"
            assert state.dtype == start.dtype
            assert (state.dtype in ("float64", "complex128")) == (path in WIDENING[name])
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
            assert run(layer, x, start)[1].dtype == start.dtype


@pytest.mark.parametrize("given", ["wide", "real"])
@pytest.mark.parametrize("name", WIDENING)
def test_a_state_of_another_type_is_taken_alike_with_and_without_chunks(name, given):
    x = inputs()
    with jax.enable_x64(True):
        own = build((name, {})).initial_state(B).dtype
        dtype = jnp.promote_types(own, "float64") if given == "wide" else jnp.dtype("float32")
        start = 0.5 * jnp.ones((B, N), dtype)

        @partial(jax.jit, static_argnums=2)
        def evaluated(x, start, chunk_length):
            layer = build((name, {"chunk_length": chunk_length}))

            def loss(x, start):
                y, state = layer(x, start)
                return jnp.sum(y**2) + jnp.sum(jnp.abs(state) ** 2), (y, state)

            return jax.grad(loss, (0, 1), has_aux=True)(x, start)

        results = [evaluated(x, start, length) for length in (0, CUT)]
        for (dx, dstart), (y, state) in results:
            assert (dx.dtype, y.dtype) == (x.dtype, x.dtype)
            assert dstart.dtype == start.dtype
            assert state.dtype == (dtype if given == "wide" else own)
        close(*results)


def test_a_complex_state_is_refused_by_a_real_layer():
    with pytest.raises(ValueError, match=r"^state has dtype complex64, but float32 or a wider"):
        build(("rnn", {}))(inputs(), jnp.ones((B, N), "complex64"))


@each_case(VARIANTS)
def test_rows_without_a_valid_step_hand_their_state_on(variant, bidirectional):
    layer = build(variant, bidirectional)
    _, state = run(layer, inputs(seed=1))
    y, after = run(layer, inputs(), state, lengths=jnp.array([T, 0, 0]))
    assert np.all(np.isfinite(y))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:], b[1:]), after, state)


@pytest.mark.parametrize("variant", FEW, ids=named)
def test_products_may_be_made_in_bfloat16(variant):
    name, options = variant
    # By the first seed rounding moves a candidate of minlstm past 0, where its slope jumps.
    layer, x = build(variant), inputs(seed=2)
    narrow = build((name, options | {"compute_dtype": "bfloat16"}))

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(layer, x):
        y, state = layer(x)
        return jnp.sum(y**2), (y, state)

    (_, outputs), gradients = loss(narrow, x)
    (_, expected), expected_gradients = loss(layer, x)
    leaves = [
        jax.tree.leaves(tree) for tree in ((outputs, gradients), (expected, expected_gradients))
    ]
    for values, wanted in zip(*leaves, strict=True):
        assert values.dtype == wanted.dtype
        size = np.abs(wanted).max()
        # Not the same, and no farther than the rounding of a few factors.
        np.testing.assert_allclose(values, wanted, rtol=0, atol=0.05 * size)
    assert not np.array_equal(outputs[0], expected[0])
    products = str(jax.make_jaxpr(lambda layer, x: layer(x))(narrow, x))
    assert "preferred_element_type=float32" in products
    with pytest.raises(ValueError, match="compute_dtype must be float32 or bfloat16, got 'half'"):
        build((name, options | {"compute_dtype": "half"}))


@each_variant
def test_parameters_are_real(variant):
    leaves = jax.tree.leaves(nnx.state(build(variant), nnx.Param))
    assert leaves
    assert not any(jnp.iscomplexobj(leaf) for leaf in leaves)


def test_a_bidirectional_layer_has_no_step():
    layer = build(("lru", {}), bidirectional=True)
    with pytest.raises(ValueError, match="no step mode"):
        layer.step(inputs()[:, 0], layer.initial_state(B))


def projected_oracle(a, x, B, C, h0, **options):
    """The products around a scan written out, for `lru.scan.projected_scan`."""
    scan = paired_oracle if a.ndim == 1 else reference.block_scan
    h, h_last = scan(a, (x @ B).reshape(*x.shape[:2], 2, -1), h0, **options)
    return h.reshape(*x.shape[:2], -1) @ C, h_last


def paired_oracle(a, b, h0=None, **options):
    h, h_last = reference.linear_scan(a, jax.lax.complex(b[:, :, 0], b[:, :, 1]), h0, **options)
    return jnp.stack([h.real, h.imag], axis=2), h_last


def forgetting_oracle(f, x, h0=None, **options):
    return reference.linear_scan(1 - f, f * x, h0, **options)


def nonlinear_oracle(*arguments, limit=None, damping=None, **options):
    return reference.nonlinear_scan(*arguments, **options)


ORACLES = {
    "forget_mult": forgetting_oracle,
    "linear_scan": reference.linear_scan,
    "paired_scan": paired_oracle,
    "block_scan": reference.block_scan,
    "dense_scan": reference.dense_scan,
    "gated_scan": reference.gated_scan,
    "nonlinear_scan": nonlinear_oracle,
    "delta_scan": reference.delta_scan,
    "mlstm_scan": reference.mlstm_scan,
    "pooled_scan": reference.pooled_scan,
    "projected_scan": projected_oracle,
    "selective_scan": reference.selective_scan,
    "ssd_scan": reference.ssd_scan,
}


def counted(scan, calls):
    def run(*arguments, method=None, compute_dtype=None, chunk_length=None, donate=None, **options):
        calls.append(scan)
        return scan(*arguments, **options)

    return run


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        *((variant, jnp.float64) for variant in [*VARIANTS, *OF_THE_SCAN]),
        *((variant, jnp.float32) for variant in FEW),
    ],
    ids=lambda value: named(value) if isinstance(value, tuple) else jnp.dtype(value).name,
)
def test_equals_itself_on_the_oracle(variant, dtype, monkeypatch, request):
    """The same layer on `lru.scan.reference`: outputs, states and all gradients."""
    with jax.enable_x64(dtype == jnp.float64):
        graphdef, params = nnx.split(build(variant))
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        x = inputs().astype(dtype)
        zeros = nnx.merge(graphdef, params).initial_state(B)
        start = jax.tree.map(lambda leaf: leaf + 0.5, zeros)
        lengths = jnp.array([T, CUT, 1])
        resets = jnp.zeros((B, T), bool).at[:, CUT - 1].set(True)
        mask = (jnp.arange(T) < lengths[:, None])[..., None]

        def evaluated():
            @jax.jit
            @partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
            def loss(params, x, start):
                layer = nnx.merge(graphdef, params)
                y, state = layer(x, start, lengths=lengths, resets=resets)
                y = jnp.where(mask, y, 0)
                sizes = [jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(state)]
                return jnp.sum(y**2) + sum(sizes), (y, state)

            return loss(params, x, start)

        result = evaluated()
        calls = []
        # Those of the package, and that of a plugin.
        modules = [*vars(lru.layers).values(), sys.modules[LAYERS[variant[0]].__module__]]
        for module in modules:
            for name, scan in ORACLES.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, counted(scan, calls))
        if "chunk_length" in variant[1]:
            # Chunks are traced once for all calls alike.
            request.getfixturevalue("_traced_anew")
        expected = evaluated()
        assert calls, f"the layer called none of {', '.join(ORACLES)}"
    tolerance = 2e-5 if dtype == jnp.float32 else 1e-11
    if (variant[0], dtype) == ("mlstm", jnp.float32):
        # Its norm takes out of h all that n does, so that gradients of n are those of rounding.
        tolerance = 1e-4
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, np.abs(y).max())
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * scale)
