"""The diagonal recurrence: parametrisations, normalisation, and descent in the complex plane."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lru.layers import LRU, DiagonalRNN, RecurrentParam
from lru.layers.diagonal import PARAMETRIZATIONS


def eigenvalues(layer):
    return np.asarray(layer.eigenvalues()[""])


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_every_parametrisation_gives_back_what_it_was_given(name):
    modulus = np.linspace(0.05, 0.999, 40)
    given = (modulus * np.exp(1j * np.linspace(0.01, 6.27, 40))).astype(np.complex64)
    rule = PARAMETRIZATIONS[name]
    re, im = rule.decode(*rule.encode(jnp.asarray(given)))
    np.testing.assert_allclose(re + 1j * im, given, atol=2e-6)


EDGES = np.array([0, 1, -1, 1j, -1j, 1.5, -1.5j, 1e-9, 0.5 - 1e-9j, -0.5 - 1e-9j, 0.3 - 0.4j])


@pytest.mark.parametrize(("name", "largest"), [("polar", np.inf), ("stable_exp", 1)])
def test_parametrisations_at_their_edges_change_a_modulus_as_little_as_they_must(name, largest):
    rule = PARAMETRIZATIONS[name]
    encoded = rule.encode(jnp.asarray(EDGES, jnp.complex64))
    re, im = rule.decode(*encoded)
    gradient = jax.grad(lambda pair: jnp.sum(sum(rule.decode(*pair))))(encoded)
    modulus = np.abs(EDGES)
    phase = np.where(modulus > 0, EDGES / np.maximum(modulus, 1e-30), 1)
    expected = np.clip(modulus, 1e-6, largest - 1e-6) * phase
    np.testing.assert_allclose(re + 1j * im, expected, atol=2e-6)
    assert all(np.all(np.isfinite(part)) for part in gradient)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("rule", ["identity", "ring", "glorot"])
def test_gamma_at_and_beyond_the_unit_circle_is_small_and_never_zero(parametrization, rule):
    options = {"A_init": rule, "parametrization": parametrization, "r_min": 0.999, "r_max": 1.0}
    layer = LRU(3, 64, **options, rngs=nnx.Rngs(0))
    modulus = np.abs(eigenvalues(layer).astype(complex))
    gamma = np.exp(layer.gamma_log[...])
    expected = np.sqrt(np.maximum(1 - modulus**2, 2e-6))
    np.testing.assert_allclose(gamma, expected, rtol=0.05)


def test_stable_exp_moves_a_draw_into_the_disk_and_keeps_it_there():
    rule = PARAMETRIZATIONS["stable_exp"]
    re, im = rule.decode(*rule.encode(jnp.array([1.2 + 0.1j, -1.01 + 0j], jnp.complex64)))
    assert np.all(np.hypot(re, im) < 1)
    re, im = rule.decode(jnp.array([-9.0, 0.0, 3.0]), jnp.array([-9.0, 0.0, 3.0]))
    assert np.all(np.hypot(re, im) < 1)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("rule", ["glorot", "identity", "ring"])
def test_all_rules_work_in_all_parametrisations(parametrization, rule):
    layer = LRU(3, 8, A_init=rule, parametrization=parametrization, rngs=nnx.Rngs(0))
    y, _ = layer(jnp.ones((1, 4, 3)))
    assert np.all(np.isfinite(y))


def test_the_ring_is_drawn_as_asked():
    layer = LRU(3, 500, r_min=0.8, r_max=0.95, max_phase=0.5, rngs=nnx.Rngs(0))
    drawn = eigenvalues(layer)
    assert 0.8 - 1e-5 <= np.abs(drawn).min() < 0.82
    assert 0.93 < np.abs(drawn).max() <= 0.95 + 1e-5
    assert np.angle(drawn).min() >= 0
    assert 0.45 < np.angle(drawn).max() <= 0.5 + 1e-5


def test_gamma_gives_every_mode_the_variance_of_its_input():
    # White noise of unit variance through h = λ h + γ u settles at |γ|² / (1 - |λ|²) = 1.
    layer = LRU(4, 16, r_min=0.3, r_max=0.9, max_phase=2 * np.pi, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (64, 300, 4))
    _, h = layer(x)
    B = layer.B[...]
    expected = jnp.sum(B**2, axis=0).reshape(2, 16).sum(axis=0)
    np.testing.assert_allclose(jnp.mean(jnp.abs(h) ** 2, axis=0) / expected, 1.0, atol=0.6)
    np.testing.assert_allclose(
        jnp.mean(jnp.mean(jnp.abs(h) ** 2, axis=0) / expected), 1.0, atol=0.1
    )


def test_equals_the_equations_written_out():
    layer = LRU(3, 4, rngs=nnx.Rngs(0))
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 6, 3)))
    B = np.asarray(layer.B[...][:, :4] + 1j * layer.B[...][:, 4:])
    C = np.asarray(layer.C[...][:4] - 1j * layer.C[...][4:])
    gamma, lam, D = np.exp(layer.gamma_log[...]), eigenvalues(layer), np.asarray(layer.D[...])
    h, rows = np.zeros(4, complex), []
    for x_t in x[0]:
        h = lam * h + gamma * (x_t @ B)
        rows.append((h @ C).real + D * x_t)
    np.testing.assert_allclose(layer(jnp.asarray(x))[0][0], rows, atol=1e-5)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_complex_eigenvalues_descend_to_their_target(parametrization):
    # Adam on the eigenvalue of one mode must find the impulse response of a known one; gradients
    # that are not conjugated drive the imaginary part away instead.
    target = DiagonalRNN(1, 1, parametrization="cartesian", rngs=nnx.Rngs(0))
    target.lambda_re[...] = jnp.array([0.3])
    target.lambda_im[...] = jnp.array([0.7])
    target.B[...], target.C[...] = jnp.array([[1.0, 0.5]]), jnp.array([[0.7], [-0.4]])
    student = DiagonalRNN(1, 1, parametrization=parametrization, rngs=nnx.Rngs(0))
    rule = PARAMETRIZATIONS[parametrization]
    for name, value in zip(
        rule.names, rule.encode(jnp.array([0.5 + 0.5j], jnp.complex64)), strict=True
    ):
        getattr(student, name)[...] = value
    student.B[...], student.C[...] = target.B[...], target.C[...]
    student.D[...] = target.D[...]
    impulse = jnp.zeros((1, 20, 1)).at[0, 0, 0].set(1.0)
    expected, _ = target(impulse)
    graphdef, spectrum, rest = nnx.split(student, lambda path, leaf: path[-1] in rule.names, ...)

    @jax.jit
    def descend(spectrum, opt_state):
        def loss(spectrum):
            return jnp.sum((nnx.merge(graphdef, spectrum, rest)(impulse)[0] - expected) ** 2)

        updates, opt_state = optimizer.update(jax.grad(loss)(spectrum), opt_state)
        return optax.apply_updates(spectrum, updates), opt_state

    optimizer = optax.adam(0.02)
    opt_state = optimizer.init(spectrum)
    for _ in range(400):
        spectrum, opt_state = descend(spectrum, opt_state)
    found = eigenvalues(nnx.merge(graphdef, spectrum, rest))[0]
    np.testing.assert_allclose(found, 0.3 + 0.7j, atol=2e-2)


def test_recurrent_parameters_are_marked_by_type():
    recurrent = set(nnx.state(LRU(3, 4, rngs=nnx.Rngs(0)), RecurrentParam))
    assert recurrent == {"nu_log", "theta_log", "gamma_log", "B"}


def test_seeds_decide_the_parameters():
    one, same, other = (
        nnx.state(DiagonalRNN(3, 8, rngs=nnx.Rngs(seed)), nnx.Param) for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one["lambda_re"][...], other["lambda_re"][...])


@pytest.mark.parametrize(("shape", "axes"), [((8,), ("seq",)), ((2, 4), ("batch", "seq"))])
def test_a_layer_with_time_split_over_devices_is_the_layer_on_one(shape, axes):
    mesh = jax.make_mesh(shape, axes, (AxisType.Auto,) * len(axes))
    split = NamedSharding(mesh, PartitionSpec("batch" if "batch" in axes else None, "seq"))
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (4, 32, 3))
    state = jax.random.normal(keys[1], (4, 5), jnp.complex64)
    marks = {
        "lengths": jnp.array([32, 20, 0, 7]),
        "resets": jax.random.bernoulli(keys[2], 0.1, (4, 32)),
    }

    @jax.jit
    def gradients(layer, x, state):
        def loss(layer, x, state):
            y, last = layer(x, state, **marks)
            y = jnp.where((jnp.arange(32) < marks["lengths"][:, None])[..., None], y, 0)
            return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.abs(last - 1) ** 2), (y, last)

        return jax.grad(loss, (0, 1, 2), has_aux=True)(layer, x, state)

    one = gradients(LRU(3, 5, rngs=nnx.Rngs(0)), x, state)
    layer = LRU(3, 5, scan_method="sharded", chunk_length=8, rngs=nnx.Rngs(0))
    assert layer.chunk_length == 0
    with jax.set_mesh(mesh):
        many = gradients(layer, jax.device_put(x, split), state)
    assert many[0][1].sharding.is_equivalent_to(split, 3)
    for actual, expected in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
