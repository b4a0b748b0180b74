"""The law of layers: whole = chunks = steps; resets, padding, rows apart; true gradients."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import lru.layers
from lru.layers import LAYERS, Bidirectional, Convolved, make_layer
from lru.layers.diagonal import PARAMETRIZATIONS
from lru.scan import DENSE_METHODS, LINEAR_METHODS, reference

D, N, B = 5, 6, 3
# A sequence and its halves: both are runs of as many steps, and so of one program.
T, CUT = 10, 5

# Every layer as it comes, sequences in chunks of time, and a wide window.
VARIANTS = [
    *((name, {}) for name in LAYERS),
    *((name, {"chunk_length": 3}) for name in ("lru", "rnn", "gated-deltanet", "mlstm", "mamba")),
    ("mamba2", {"chunk_length": 3, "n_heads": 2, "n_groups": 2}),
    ("qrnn", {"window": 4, "gates": "ifo", "zoneout": 0.3}),
    ("sru", {"version": 1}),
    *((name, {"conv_width": 3}) for name in ("mingru", "slstm")),
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


def build(variant, bidirectional=False, d_model=D):
    name, options = variant
    options = dict(options)
    width = options.pop("conv_width", None)

    def make(rngs):
        layer = make_layer(name, d_model, N, options, rngs=rngs)
        return layer if width is None else Convolved(layer, width, rngs=rngs)

    return Bidirectional(make, rngs=nnx.Rngs(0)) if bidirectional else make(nnx.Rngs(0))


def doubled(layer):
    graphdef, params = nnx.split(layer)
    wide = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, "float64")), params)
    return nnx.merge(graphdef, wide)


def build_double(variant, bidirectional=False):
    """That layer with parameters in double precision; its draw is compiled once for both types."""
    with jax.enable_x64(False):
        layer = build(variant, bidirectional)
    return doubled(layer)


@jax.jit
def run(layer, x, state=None, lengths=None, resets=None):
    return layer(x, state, lengths=lengths, resets=resets)


@jax.jit
def advance(layer, x_t, state):
    return layer.step(x_t, state)


@partial(jax.jit, static_argnames="reverse")
def pulled(layer, x, start, lengths, resets, weights, of_state, reverse=False):
    """A weighted sum of outputs and of the size of the last state: its value, both, its gradients.

    Gradients are of the layer, of x and of the start. Tests that call this alike share a program.
    """

    def loss(layer, x, start):
        y, state = layer(x, start, lengths=lengths, resets=resets, reverse=reverse)
        sizes = sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(state))
        return jnp.sum(y * weights) + of_state * sizes, (y, state)

    (value, results), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(layer, x, start)
    return value, results, gradients


def inputs(seed=0, rows=B, steps=T, dtype="float32"):
    draws = np.random.default_rng(seed).standard_normal((rows, steps, D), np.float32)
    return jnp.asarray(draws.astype(dtype))


# What follows is NumPy's where it is no layer's: each operation of JAX outside of a program is one.


def valid_steps(lengths):
    return (np.arange(T) < np.asarray(lengths)[:, None])[..., None]


def marks_at(step=slice(0), rows=slice(None)):
    marks = np.zeros((B, T), bool)
    marks[rows, step] = True
    return marks


def some_of(tree, rows):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], tree)


def another_start(layer):
    """States that are not the initial ones."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + 0.5), layer.initial_state(B))


def pull_arguments(layer, dtype, seed=0):
    """What `pulled` is called with, of rows that are padded and have a reset."""
    lengths = np.array([T, CUT, 1])
    weights = jnp.asarray(np.where(valid_steps(lengths), inputs(1), 0).astype(dtype))
    x, start = inputs(seed, dtype=dtype), another_start(layer)
    return layer, x, start, jnp.asarray(lengths), marks_at(CUT - 1), weights, 1.0


def close(actual, expected, tolerance=2e-5):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), actual, expected
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
    for x_t in np.swapaxes(x, 0, 1):
        y, state = advance(layer, x_t, state)
        steps.append(y)
    close(np.stack(steps, axis=1), whole)
    close(state, last)


@each_variant
def test_chunks_of_a_row_alone_equal_the_whole(variant):
    layer, x = build(variant), inputs()
    whole, last = run(layer, x)
    first, state = run(layer, x[1:2, :CUT], layer.initial_state(1))
    second, state = run(layer, x[1:2, CUT:], state)
    close(np.concatenate([first, second], axis=1), whole[1:2])
    close(state, some_of(last, [1]))


@pytest.mark.parametrize(
    ("variant", "bidirectional"),
    [*((variant, False) for variant in FEW), (("lru", {}), True)],
    ids=named,
)
def test_calls_outside_of_jit_compile_nothing_after_the_first(variant, bidirectional, compilations):
    # Arrays of one width, and a gradient of x alone, through all that has steps in time.
    layer = build(variant, bidirectional, d_model=N)
    x = jnp.ones((B, T, N))
    marks = {"lengths": jnp.array([T, CUT, 1]), "resets": jnp.zeros((B, T), bool)}

    def use():
        (y, state), pull = jax.vjp(lambda x: layer(x, **marks), x)
        pull((y, state))
        return state if bidirectional else layer.step(y[:, 0], state)

    for _ in range(2):
        use()
    compilations.clear()
    use()
    assert not compilations
    # What is counted is known by this name.
    jax.jit(lambda: 0)()
    assert compilations


@each_case(VARIANTS)
def test_a_reset_of_a_row_is_a_fresh_start(variant, bidirectional):
    layer, x = build(variant, bidirectional), inputs()
    whole, _ = run(layer, x)
    before, _ = run(layer, x[1:2, :CUT], layer.initial_state(1))
    after, last = run(layer, x[1:2, CUT:], layer.initial_state(1))
    packed, state = run(layer, x, layer.initial_state(B), np.full(B, T), marks_at(CUT, 1))
    close(packed[1:2], np.concatenate([before, after], axis=1))
    close(packed[::2], whole[::2])
    close(*((some_of(state[0], [1]), last[0]) if bidirectional else (some_of(state, [1]), last)))


def learned(name, options, rngs):
    """The layer with an initial state that is learned, and not zero."""

    class Learned(LAYERS[name]):
        def initial_state(self, batch_size):
            zeros = LAYERS[name].initial_state(self, batch_size)
            return jax.tree.map(lambda leaf: leaf + 0.5 * self.initial[...], zeros)

    layer = Learned(D, N, **options, rngs=rngs)
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
    make = partial(learned, *variant)
    layer = Bidirectional(make, rngs=nnx.Rngs(0)) if bidirectional else make(nnx.Rngs(0))
    with jax.enable_x64(True):
        equals_its_documents_alone(doubled(layer), bidirectional)


def equals_its_documents_alone(layer, bidirectional):
    """Two documents of each row, packed, and each from the start of a row."""
    x, lengths = inputs(dtype="float64"), np.array([T, T - 1, CUT + 1])
    # The one beyond the end of a row counts for nothing.
    resets = marks_at(CUT) | marks_at(CUT + 1, 2)
    # The last states of two directions are of two documents.
    of_state = 0.0 if bidirectional else 1.0
    weights = inputs(1, dtype="float64")

    def document(begin, lengths, resets, of_state):
        here, said = (np.roll(values, -begin, axis=1) for values in (x, weights))
        said = np.where(valid_steps(lengths), said, 0)
        _, (y, last), (of_layer, dx, _) = pulled(layer, here, None, lengths, resets, said, of_state)
        return np.asarray(y), np.asarray(dx), last, jax.tree.leaves(of_layer)

    *packed, state, gradients = document(0, lengths, resets, of_state)
    *first, _, of_first = document(0, np.minimum(lengths, CUT), marks_at(), 0.0)
    *second, last, of_second = document(CUT, lengths - CUT, marks_at(), of_state)
    for whole, *parts in zip(packed, first, second, strict=True):
        apart = np.concatenate([part[:, :CUT] for part in parts], axis=1)
        close(*(np.where(valid_steps(lengths), values, 0) for values in (whole, apart)))
    close(*((state[0], last[0]) if bidirectional else (state, last)))
    close(gradients, list(map(np.add, of_first, of_second)))


def flipped(x, lengths):
    """The valid steps of each row from the last to the first."""
    time, last = np.arange(T), lengths[:, None] - 1
    source = np.where(time <= last, last - time, time)
    return np.take_along_axis(x, source.reshape(source.shape + (1,) * (x.ndim - 2)), axis=1)


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
    layer = build_double(variant)
    lengths = np.array([T, CUT, 0]) if packed else np.full(B, T)
    # A document is entered at the step before the next reset, of which the one at the start of a
    # row and one at its end say nothing.
    resets = marks_at([0, 2]) | marks_at(CUT, 1)
    entered = marks_at(1, slice(2))
    x, weights = (np.asarray(inputs(seed, dtype="float64")) for seed in (0, 1))
    weights = np.where(valid_steps(lengths), weights, 0)
    start = another_start(layer) if packed else None

    def both_ways(marks, x, weights, reverse=False):
        given = (lengths, marks) if packed else (None, None)
        _, (y, last), (of_layer, dx, dstart) = pulled(
            layer, x, start, *given, weights, 1.0, reverse=reverse
        )
        return np.where(valid_steps(lengths), y, 0), np.asarray(dx), (last, of_layer, dstart)

    y, dx, rest = both_ways(resets, x, weights, reverse=True)
    x, marks, weights = (flipped(values, lengths) for values in (x, entered, weights))
    flipped_y, flipped_dx, expected = both_ways(marks, x, weights)
    close((y, dx), (flipped(flipped_y, lengths), flipped(flipped_dx, lengths)))
    close(*map(jax.tree.leaves, (rest, expected)))


# In a narrow type of integers, which does not count to the end; others by the law of scans.
@each_variant
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_observed_is_what_a_call_does(variant, reverse):
    layer, x = build(variant), inputs(steps=300)
    resets = np.arange(300) == np.full((B, 1), 2)
    lengths = np.array([255, CUT, 1], "uint8")

    @jax.jit
    def both(layer, x, start):
        marks = {"lengths": jnp.array(lengths), "resets": jnp.array(resets)}
        options = {"reverse": reverse, **marks}
        return layer.observe(x, start, **options), layer(x, start, **options)[1]

    found, last = both(layer, x, another_start(layer))
    assert {values.shape[:2] for values in found.values()} == {(B, 300)}
    assert {values.ndim for values in found.values()} == {3}
    ends = np.asarray(found["state"])[np.arange(B), 0 if reverse else lengths - 1]
    # The state of a layer has more fields than that, or is it.
    last = getattr(last, "layer", last)
    returned = next((getattr(last, name) for name in "chq" if hasattr(last, name)), last)
    # All numbers of a row, whatever their axes.
    close(ends, returned.reshape(ends.shape))


@pytest.mark.parametrize("variant", FEW, ids=named)
def test_a_batch_of_no_rows_has_gradients_of_zero(variant):
    layer, x = build(variant), inputs(rows=0)
    lengths, resets = np.zeros(0, int), np.zeros((0, T), bool)
    _, (y, _), gradients = pulled(layer, x, None, lengths, resets, x, 1.0)
    assert y.shape == x.shape
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


@each_case(VARIANTS)
def test_padding_changes_neither_values_nor_gradients(variant, bidirectional):
    with jax.enable_x64(True):
        layer, x, start, lengths, resets, weights, _ = pull_arguments(
            build_double(variant, bidirectional), "float64"
        )
        mask, found = valid_steps(lengths), []
        for at_padding in (0.0, jnp.nan):
            filled = [np.where(mask, values, at_padding) for values in (x, weights)]
            _, (y, state), gradients = pulled(
                layer, filled[0], start, lengths, resets, filled[1], 1.0
            )
            found.append((np.where(mask, y, 0), state, jax.tree.leaves(gradients)))
            assert not np.any(gradients[1][1, CUT:])
        close(*found)


@each_case([])
def test_lengths_of_both_directions_may_be_of_a_narrow_type(variant, bidirectional):
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
    together, state = run(layer, x, layer.initial_state(B), np.array([T, CUT, 1]), marks_at())
    alone, last = run(layer, x[1:2, :CUT], layer.initial_state(1))
    close(together[1:2, :CUT], alone)
    close(some_of(state, [1]), last)


@each_case(VARIANTS)
def test_gradients_equal_finite_differences(variant, bidirectional):
    """Along one direction of parameters, inputs and start together."""
    with jax.enable_x64(True):
        arguments = pull_arguments(build_double(variant, bidirectional), "float64")
        (layer, x, start), others = arguments[:3], arguments[3:]
        graphdef, params = nnx.split(layer)
        leaves, structure = jax.tree.flatten((params, x, start))
        rng = np.random.default_rng(0)

        def direction(leaf):
            values = rng.standard_normal((2, *leaf.shape))
            return values[0] + 1j * values[1] if np.iscomplexobj(leaf) else values[0]

        directions = [direction(leaf) for leaf in leaves]
        pairs = list(zip(leaves, directions, strict=True))

        def moved(step):
            there = [jnp.asarray(leaf + step * d) for leaf, d in pairs]
            params, x, start = jax.tree.unflatten(structure, there)
            return pulled(nnx.merge(graphdef, params), x, start, *others)[0]

        gradients = jax.tree.leaves(pulled(*arguments)[2])
        change = sum(np.sum(g * d).real for g, d in zip(gradients, directions, strict=True))
        # A step at which what third derivatives add to the differences is less than that.
        differences = (moved(1e-5) - moved(-1e-5)) / 2e-5
        np.testing.assert_allclose(change, differences, rtol=1e-6, atol=1e-6)


@each_case(VARIANTS)
def test_outputs_keep_the_type_of_inputs_and_states_stay_float32(variant, bidirectional):
    layer, x = build(variant, bidirectional), inputs(dtype=jnp.bfloat16)
    y, state = run(layer, x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} <= {"float32", "complex64"}
    # Nothing is rounded to the narrow type between the input and the output.
    expected, expected_state = run(layer, jnp.asarray(np.asarray(x, "float32")))
    close(state, expected_state)
    tolerance = float(jnp.finfo(y.dtype).eps) * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(y, "float32"), expected, rtol=0, atol=tolerance)


@each_case(VARIANTS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_an_initial_state_is_zero_and_like_the_states_that_follow(variant, bidirectional, dtype):
    with jax.enable_x64(True):
        make = build_double if dtype == jnp.float64 else build
        layer = make(variant, bidirectional)
        _, state = jax.eval_shape(run, layer, inputs(dtype=dtype))
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
        assert jax.eval_shape(run, layer, inputs(dtype="float64"))[0].dtype == "float64"
    types = [[leaf.dtype for leaf in jax.tree.leaves(tree)] for tree in (result, expected)]
    assert types[0] == types[1]
    close(result, expected)


@pytest.mark.parametrize("name", WIDENING)
def test_one_wide_parameter_widens_the_state_and_all_of_the_recurrence(name):
    layer = build((name, {"chunk_length": CUT}))
    x = inputs()
    expected = np.asarray(run(layer, x)[0])
    graphdef, params = nnx.split(layer)
    with jax.enable_x64(True):
        for path in params:
            wide = {
                **params,
                path: jax.tree.map(lambda z: jnp.asarray(np.asarray(z, "float64")), params[path]),
            }
            layer = nnx.merge(graphdef, nnx.State(wide))
            start = layer.initial_state(B)
            y, state = run(layer, x)
            assert y.dtype == "float32"
            assert state.dtype == start.dtype
            assert (state.dtype in ("float64", "complex128")) == (path in WIDENING[name])
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
            assert jax.eval_shape(run, layer, x, start)[1].dtype == start.dtype


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
    _, state = run(layer, inputs(1))
    y, after = run(layer, inputs(), state, np.array([T, 0, 0]), marks_at())
    assert np.all(np.isfinite(y))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:], b[1:]), after, state)


@pytest.mark.parametrize("variant", FEW, ids=named)
def test_products_may_be_made_in_bfloat16(variant):
    name, options = variant
    # By other draws rounding moves a candidate of minlstm past 0, where its slope jumps.
    layer, narrow = build(variant), build((name, options | {"compute_dtype": "bfloat16"}))
    results, expected = (
        jax.tree.leaves(pulled(*pull_arguments(each, "float32", seed=7))[1:])
        for each in (narrow, layer)
    )
    for values, wanted in zip(results, expected, strict=True):
        assert values.dtype == wanted.dtype
        size = np.abs(wanted).max()
        # Not the same, and no farther than the rounding of a few factors.
        np.testing.assert_allclose(values, wanted, rtol=0, atol=0.05 * size)
    assert not np.array_equal(results[0], expected[0])
    products = str(jax.make_jaxpr(lambda layer, x: layer(x))(narrow, inputs()))
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


def assert_near(results, expected, tolerance):
    for x, y in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, np.abs(y).max())
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("variant", [*VARIANTS, *OF_THE_SCAN], ids=named)
def test_equals_itself_on_the_oracle(variant, monkeypatch):
    """The same layer on `lru.scan.reference`: outputs, states and all gradients."""
    calls = []
    with jax.enable_x64(True):
        layer, *others = pull_arguments(build_double(variant), "float64")
        results = pulled(layer, *others)[1:]
        # Those of the package, and that of a plugin.
        modules = [*vars(lru.layers).values(), sys.modules[LAYERS[variant[0]].__module__]]
        for module in modules:
            for name, scan in ORACLES.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, counted(scan, calls))
        # A layer of another definition, which nothing is kept for that was traced before.
        layer.on_the_oracle = True
        expected = pulled(layer, *others)[1:]
    assert calls, f"the layer called none of {', '.join(ORACLES)}"
    assert_near(jax.tree.leaves(results), jax.tree.leaves(expected), 1e-11)


@pytest.mark.parametrize("variant", FEW, ids=named)
def test_in_single_precision_it_is_itself_in_double(variant):
    """As near as rounding lets it, in outputs, states and all gradients."""
    layer = build(variant)
    results = pulled(*pull_arguments(layer, "float32"))[1:]
    with jax.enable_x64(True):
        expected = pulled(*pull_arguments(doubled(layer), "float64"))[1:]
    assert_near(results, expected, 2e-5)
