import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lru.layers import initializers
from lru.layers.glorot import (
    EULER_GAMMA,
    RESCALED_SMALLEST_WIDTH,
    calibrated_glorot_divisor,
    length_glorot_divisor,
    log_glorot_energy,
    rescaled_glorot_divisor,
)
from lru.layers.initializers import EIGENVALUE_INITIALIZERS, MATRIX_INITIALIZERS, Ring, normal
from lru.registry import UnknownNameError

KEY = jax.random.key(7)
RANDOM_MATRICES = [name for name in MATRIX_INITIALIZERS if name != "identity"]
# Where a rule has radii that it cannot do without.
INSIDE = Ring(0.4, 0.9)
WIDTH = 192


def radii(rule: str, n: int, draws: int) -> np.ndarray:
    """Spectral radii of seeded draws of a dense rule."""
    keys = jax.random.split(jax.random.key(n), draws)
    matrices = jax.vmap(lambda key: MATRIX_INITIALIZERS[rule](key, n))(keys)
    return np.abs(np.linalg.eigvals(np.asarray(matrices, np.float64))).max(-1)


def correlation(x, y) -> float:
    return float(np.corrcoef(np.asarray(x, np.float64), np.asarray(y, np.float64))[0, 1])


def test_names_and_aliases():
    assert list(MATRIX_INITIALIZERS) == [
        "glorot",
        "halved_glorot",
        "rescaled_glorot",
        "calibrated_glorot",
        "length_glorot",
        "identity",
        "ring",
    ]
    assert list(EIGENVALUE_INITIALIZERS) == [*MATRIX_INITIALIZERS, "post"]
    assert MATRIX_INITIALIZERS.resolve("fixed") == "rescaled_glorot"
    assert EIGENVALUE_INITIALIZERS.resolve("fixed") == "rescaled_glorot"
    assert EIGENVALUE_INITIALIZERS.resolve("uniform") == "ring"
    with pytest.raises(UnknownNameError, match=r"unknown initialiser 'uniform'; known: .*glorot"):
        MATRIX_INITIALIZERS["uniform"]


@pytest.mark.parametrize("rule", RANDOM_MATRICES)
def test_matrices_follow_their_key(rule):
    draw = MATRIX_INITIALIZERS[rule]
    first = draw(KEY, WIDTH)
    assert first.shape == (WIDTH, WIDTH)
    assert first.dtype == jnp.float32
    np.testing.assert_array_equal(first, draw(KEY, WIDTH))
    other = draw(jax.random.key(8), WIDTH)
    assert abs(correlation(first.ravel(), other.ravel())) < 4 / WIDTH


@pytest.mark.parametrize("rule", EIGENVALUE_INITIALIZERS)
def test_eigenvalues_follow_their_key(rule):
    draw = partial(EIGENVALUE_INITIALIZERS[rule], ring=INSIDE)
    first = draw(KEY, WIDTH)
    assert first.shape == (WIDTH,)
    assert first.dtype == jnp.complex64
    np.testing.assert_array_equal(first, draw(KEY, WIDTH))
    if rule != "identity":
        assert float(jnp.abs(first - draw(jax.random.key(8), WIDTH)).mean()) > 0.01


@pytest.mark.parametrize("rule", ["glorot", "ring"])
def test_double_precision(rule):
    with jax.enable_x64(True):
        key = jax.random.key(7)
        assert EIGENVALUE_INITIALIZERS[rule](key, 16, dtype=jnp.complex128).dtype == "complex128"
        assert MATRIX_INITIALIZERS["glorot"](key, 16, jnp.float64).dtype == "float64"


@pytest.mark.parametrize(
    ("rule", "variance"),
    [
        ("glorot", 1 / WIDTH),
        ("halved_glorot", 1 / (2 * WIDTH)),
        ("rescaled_glorot", 0.817**2 / WIDTH),
        ("calibrated_glorot", 1 / (WIDTH * calibrated_glorot_divisor(WIDTH) ** 2)),
    ],
)
def test_variance(rule, variance):
    entries = np.asarray(MATRIX_INITIALIZERS[rule](KEY, WIDTH), np.float64)
    relative_error = math.sqrt(2 / entries.size)
    assert entries.var() == pytest.approx(variance, rel=4 * relative_error)
    assert abs(entries.mean()) < 4 * math.sqrt(variance / entries.size)


def test_gaussian_rules_are_multiples_of_one_draw():
    glorot = MATRIX_INITIALIZERS["glorot"](KEY, WIDTH)
    divisors = {
        "halved_glorot": math.sqrt(2),
        "rescaled_glorot": rescaled_glorot_divisor(WIDTH),
        "calibrated_glorot": calibrated_glorot_divisor(WIDTH),
    }
    for rule, divisor in divisors.items():
        matrix = MATRIX_INITIALIZERS[rule](KEY, WIDTH)
        np.testing.assert_allclose(matrix, glorot / divisor, rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "scale"),
    [
        (164, 0.451),
        (170, 0.688),
        (192, 0.817),
        (256, 0.888),
        (384, 0.923),
        (512, 0.937),
        (1024, 0.958),
    ],
)
def test_rescaled_glorot_formula(n, scale):
    assert 1 / rescaled_glorot_divisor(n) == pytest.approx(scale, abs=6e-4)


def test_smallest_width_of_rescaled_glorot_is_where_gamma_turns_positive():
    def gamma(n):
        return math.log(n / (2 * math.pi * math.log(n) ** 2))

    assert gamma(RESCALED_SMALLEST_WIDTH) > 0
    assert all(gamma(n) < 0 for n in range(2, RESCALED_SMALLEST_WIDTH))


@pytest.mark.parametrize("registry", [MATRIX_INITIALIZERS, EIGENVALUE_INITIALIZERS])
def test_rescaled_glorot_refuses_narrow_widths(registry):
    with pytest.raises(ValueError, match=r"width n = 128.*is 164; use calibrated_glorot"):
        registry["fixed"](KEY, 128)


# Published and re-measured: mean radius of glorot and of rescaled_glorot over that many draws.
@pytest.mark.parametrize(
    ("n", "glorot_mean", "rescaled_mean", "their_draws", "draws"),
    [(192, 1.042, 0.852, 60, 40), (256, 1.040, 0.924, 40, 20), (384, 1.043, 0.963, 16, 8)],
)
def test_rescaled_glorot_radius(n, glorot_mean, rescaled_mean, their_draws, draws):
    glorot = radii("glorot", n, draws)
    rescaled = glorot / rescaled_glorot_divisor(n)
    tolerance = 4 * glorot.std(ddof=1) * math.sqrt(1 / draws + 1 / their_draws)
    assert glorot.mean() == pytest.approx(glorot_mean, abs=tolerance)
    assert rescaled.mean() == pytest.approx(rescaled_mean, abs=tolerance)
    assert np.mean(glorot > 1) > 0.85
    assert np.all(rescaled < 1)


@pytest.mark.parametrize(
    ("n", "draws"),
    [(1, 4000), (2, 4000), (3, 4000), (5, 4000), (8, 4000), (20, 2000), (64, 600), (128, 200)],
)
def test_calibrated_glorot_puts_the_radius_three_deviations_below_one(n, draws):
    r = radii("calibrated_glorot", n, draws)
    # Mean plus three deviations has about this error, beside the misfit of the curve.
    error = math.sqrt((1 + 3**2 / 2) / draws)
    misfit = 0.24 if n == 1 else 0.11
    assert r.mean() + 3 * r.std() == pytest.approx(1, abs=(4 * error + misfit) * r.std())


@pytest.mark.parametrize(("n", "draws"), [(2, 20_000), (8, 10_000), (16, 4_000)])
def test_calibrated_glorot_exceeds_one_once_in_a_hundred_draws(n, draws):
    share = np.mean(radii("calibrated_glorot", n, draws) > 1)
    # Between the 0.6 and 1 % of the calibration, and four standard errors to either side.
    assert 0.006 - 4 * math.sqrt(0.006 / draws) < share < 0.01 + 4 * math.sqrt(0.01 / draws)


@pytest.mark.parametrize("n", [2_000, 10_000, 1_000_000, 10**9, 10**12])
def test_calibrated_glorot_agrees_with_the_limit_law_beyond_what_was_measured(n):
    gamma = math.log(n / (2 * math.pi * math.log(n) ** 2))
    unit = 1 / math.sqrt(4 * gamma * n)
    # Of a real Gaussian matrix: P(X < x) = exp(-exp(-x)/2) for the fluctuation X of the edge.
    mean = 1 + math.sqrt(gamma / (4 * n)) + (EULER_GAMMA - math.log(2)) * unit
    deviation = math.pi / math.sqrt(6) * unit
    assert mean + 2 * deviation < calibrated_glorot_divisor(n) < mean + 4 * deviation


def test_calibrated_glorot_has_the_order_of_the_limit_law():
    ratios = []
    for n in (10**3, 10**6, 10**12, 10**20):
        ratios.append((calibrated_glorot_divisor(n) - 1) / math.sqrt(math.log(n) / (4 * n)))
    assert ratios == sorted(ratios, reverse=True)
    assert 1 < ratios[-1] < 1.03


def energy_by_factorials(n, k):
    """Q_{n,k} in whole numbers, and its logarithm."""
    rising = Fraction(math.factorial(n + k + 1), math.factorial(n - 1))
    falling = Fraction(math.factorial(n), math.factorial(n - k - 2)) if n >= k + 2 else 0
    energy = (rising - falling) / ((k + 1) * (k + 2) * n ** (k + 1))
    return math.log(energy.numerator) - math.log(energy.denominator)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 64, 192])
def test_energy_is_the_formula(n):
    for k in (0, 1, 2, 5, 14, n - 2, n - 1, 300):
        if k >= 0:
            expected = energy_by_factorials(n, k)
            assert log_glorot_energy(n, k) == pytest.approx(expected, rel=1e-11, abs=1e-14)


def test_energy_of_wide_matrices_and_long_runs_has_the_critical_profile():
    c = 2.0
    profile = math.log(math.sinh(c**2 / 2) / (c**2 / 2))
    assert log_glorot_energy(10**8, 20_000) == pytest.approx(profile, abs=1e-3)
    assert log_glorot_energy(10**6, 1) == pytest.approx(0, abs=1e-12)
    assert math.isfinite(log_glorot_energy(2, 10_000))


# As in a benchmark with 10,000 draws and more, benchmarks/glorot_energy.py.
@pytest.mark.parametrize(("n", "draws"), [(64, 1000), (192, 250), (384, 60)])
def test_energy_of_complex_draws(n, draws):
    rng, most = np.random.default_rng(n), int(2 * math.sqrt(n))
    energies = np.empty((most, draws))
    for draw in range(draws):
        A = rng.standard_normal((2, n, n), np.float32) / np.float32(math.sqrt(2 * n))
        A = A[0] + 1j * A[1]
        # Of several vectors, as of the basis all at once: a mean over the sphere.
        x = rng.standard_normal((n, 8)) + 1j * rng.standard_normal((n, 8))
        x = (x / np.linalg.norm(x, axis=0)).astype(np.complex64)
        for k in range(most):
            x = A @ x
            energies[k, draw] = (np.abs(x) ** 2).sum(0).mean()
    theory = np.exp([log_glorot_energy(n, k) for k in range(1, most + 1)])
    error = energies.std(1, ddof=1) / math.sqrt(draws)
    assert np.all(np.abs(energies.mean(1) - theory) < 3 * error)
    # Few draws have most of the energy of late steps; before them the test is a sharp one.
    assert np.all((error / theory)[: most // 2] < 0.05)


@pytest.mark.parametrize(("n", "length"), [(1, 1), (8, 100), (163, 50), (192, 196), (64, 10_000)])
def test_length_glorot_has_the_energy_one_at_its_length(n, length):
    m = length_glorot_divisor(n, length)
    assert log_glorot_energy(n, length) == pytest.approx(2 * length * math.log(m), abs=1e-9)
    glorot = MATRIX_INITIALIZERS["glorot"](KEY, n)
    drawn = MATRIX_INITIALIZERS["length_glorot"](KEY, n, length=length)
    np.testing.assert_allclose(drawn, glorot / m, rtol=1e-5)


def test_energies_refuse_what_is_no_number_of_steps():
    with pytest.raises(ValueError, match="steps must not be negative, got -1"):
        log_glorot_energy(8, -1)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        MATRIX_INITIALIZERS["length_glorot"](KEY, 8, length=0)


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_ring_matrix_is_normal_with_the_eigenvalues_of_a_ring(n):
    matrix = np.asarray(MATRIX_INITIALIZERS["ring"](KEY, n, ring=INSIDE), np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, matrix.T @ matrix, atol=1e-6)
    moduli = np.abs(np.linalg.eigvals(matrix))
    assert np.all((moduli > INSIDE.r_min) & (moduli < INSIDE.r_max))
    assert len(np.unique(moduli.round(5))) == (n + 1) // 2


def test_post_spaces_decays_geometrically():
    values = np.asarray(EIGENVALUE_INITIALIZERS["post"](KEY, 64, ring=INSIDE), complex)
    decays = -np.log(np.abs(values))
    assert np.exp(-decays[[0, -1]]) == pytest.approx([INSIDE.r_max, INSIDE.r_min], rel=1e-5)
    np.testing.assert_allclose(decays[1:] / decays[:-1], decays[1] / decays[0], rtol=1e-4)
    phases = np.angle(EIGENVALUE_INITIALIZERS["ring"](KEY, 64, ring=INSIDE))
    np.testing.assert_allclose(np.angle(values), phases, atol=1e-4)
    with pytest.raises(ValueError, match=r"post needs 0 < r_min < r_max < 1.*got r_min = 0\.0"):
        EIGENVALUE_INITIALIZERS["post"](KEY, 8)


def test_identity():
    np.testing.assert_array_equal(MATRIX_INITIALIZERS["identity"](KEY, 3), np.eye(3))
    np.testing.assert_array_equal(EIGENVALUE_INITIALIZERS["identity"](KEY, 3), np.ones(3))


@pytest.mark.parametrize("rule", [name for name in MATRIX_INITIALIZERS if name != "ring"])
def test_eigenvalues_are_those_of_the_dense_draw(rule):
    matrix = np.asarray(MATRIX_INITIALIZERS[rule](KEY, WIDTH), np.float64)
    expected = np.sort(np.linalg.eigvals(matrix).astype(complex))
    drawn = EIGENVALUE_INITIALIZERS[rule](KEY, WIDTH)
    np.testing.assert_allclose(drawn, expected, atol=1e-4)


def test_eigenvalues_under_transformations():
    def draw(key):
        return EIGENVALUE_INITIALIZERS["glorot"](key, 24)

    keys = jax.random.split(KEY, 3)
    one_by_one = np.stack([draw(key) for key in keys])
    np.testing.assert_allclose(jax.jit(jax.vmap(draw))(keys), one_by_one, atol=1e-4)
    assert jax.eval_shape(draw, KEY) == jax.ShapeDtypeStruct((24,), jnp.complex64)


def test_eigenvalues_from_the_host_are_the_same():
    matrix = MATRIX_INITIALIZERS["glorot"](KEY, 24)
    on_host = jnp.sort(initializers._eigenvalues_on_host(matrix))
    np.testing.assert_allclose(on_host, initializers.matrix_eigenvalues(matrix), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    bounds=st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True),
    max_phase=st.floats(0.01, 2 * math.pi),
    seed=st.integers(0, 2**31 - 1),
)
def test_ring_stays_within_its_bounds(bounds, max_phase, seed):
    r_min, r_max = sorted(bounds)
    ring = Ring(r_min, r_max, max_phase)
    values = np.asarray(EIGENVALUE_INITIALIZERS["ring"](jax.random.key(seed), 64, ring=ring))
    modulus = np.abs(values)
    assert np.all(modulus > r_min - 1e-6)
    assert np.all(modulus < r_max + 1e-6)
    visible = modulus > 1e-6
    phase = np.mod(np.angle(values[visible]) + 1e-5, 2 * math.pi) - 1e-5
    assert np.all(phase <= max_phase + 1e-5)


@pytest.mark.parametrize("ring", [Ring(), Ring(0.4, 0.9, 3.14)])
def test_ring_is_uniform_by_area_with_independent_phase(ring):
    n = 4096
    values = np.asarray(EIGENVALUE_INITIALIZERS["uniform"](KEY, n, ring=ring), complex)
    area = (np.abs(values) ** 2 - ring.r_min**2) / (ring.r_max**2 - ring.r_min**2)
    phase = np.mod(np.angle(values), 2 * math.pi) / ring.max_phase
    # The 99.9 % quantile of the Kolmogorov-Smirnov distance of n uniform draws is 1.95 / sqrt n.
    grid = (np.arange(n) + 0.5) / n
    assert np.abs(np.sort(area) - grid).max() < 1.95 / math.sqrt(n)
    assert np.abs(np.sort(phase) - grid).max() < 1.95 / math.sqrt(n)
    assert abs(correlation(area, phase)) < 4 / math.sqrt(n)


@pytest.mark.parametrize(("r_min", "r_max"), [(-0.1, 0.5), (0.5, 0.5), (0.9, 0.4), (0.5, 1.1)])
def test_ring_refuses_radii(r_min, r_max):
    with pytest.raises(ValueError, match=rf"<= 1, got r_min = {r_min} and r_max = {r_max}$"):
        Ring(r_min, r_max)


@pytest.mark.parametrize("max_phase", [0.0, -1.0, 6.3, math.nan])
def test_ring_refuses_phases(max_phase):
    with pytest.raises(ValueError, match=f"max_phase must be above 0 .*, got {max_phase}"):
        Ring(max_phase=max_phase)


@pytest.mark.parametrize("registry", [MATRIX_INITIALIZERS, EIGENVALUE_INITIALIZERS])
@pytest.mark.parametrize("n", [0, -3])
def test_every_rule_refuses_widths_below_one(registry, n):
    for draw in registry.values():
        with pytest.raises(ValueError, match=f"width n = {n} is not allowed"):
            draw(KEY, n, ring=INSIDE)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_normal_variance(dtype):
    x = np.asarray(normal(KEY, (64, 64), 0.25, dtype))
    assert x.dtype == dtype
    assert np.mean(np.abs(x) ** 2) == pytest.approx(0.25, rel=4 * math.sqrt(2 / x.size))
    if dtype == jnp.complex64:
        assert x.real.var() == pytest.approx(0.125, rel=4 * math.sqrt(2 / x.size))
        assert abs(correlation(x.real.ravel(), x.imag.ravel())) < 4 / 64
