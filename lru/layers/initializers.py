"""Recurrent weights at the start: dense matrices and diagonal eigenvalues, pure in a key.

Every dense rule draws A_ij ~ N(0, 1/(n d(n)^2)) and differs only in the divisor d(n); the diagonal
rules are the eigenvalues of such a draw, or a ring in the unit disk. `docs/initialization.md` says
when to use which and how wide the spectra are.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Complex, Float, Inexact, PRNGKeyArray

from lru.registry import Registry

EULER_GAMMA = 0.5772156649015329

# The smallest width at which gamma_n of rescaled_glorot is positive, as its square root needs.
RESCALED_SMALLEST_WIDTH = 164

# The fit (a, b, c) of calibrated_glorot_divisor to the mean plus three standard deviations of the
# spectral radius of N(0, 1/n) matrices, as measured by benchmarks/calibrate_glorot.py:
# 19 widths n from 1 (200,000 draws) to 512 (300) and 1024 (40), seed 0; largest misfit from n = 2
# on 0.11 standard deviations of the radius, which is the error of the measurement.
CALIBRATION = (4.249, 0.04092, 2.768)

# Steps over which length_glorot keeps the energy unless it is told otherwise.
LENGTH = 1000


@dataclass(frozen=True)
class Ring:
    """The part of the unit disk that eigenvalues are drawn from; by default all of it.

    Attributes:
        r_min: smallest modulus.
        r_max: largest modulus, at most 1.
        max_phase: phases lie in [0, max_phase), in radians.

    Raises:
        ValueError: if not 0 <= r_min < r_max <= 1 or not 0 < max_phase <= 2 pi.
    """

    r_min: float = 0.0
    r_max: float = 1.0
    max_phase: float = 2 * math.pi

    def __post_init__(self):
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(
                "r_min and r_max must satisfy 0 <= r_min < r_max <= 1, got "
                f"r_min = {self.r_min} and r_max = {self.r_max}"
            )
        if not 0 < self.max_phase <= 2 * math.pi:
            raise ValueError(f"max_phase must be above 0 and at most 2 pi, got {self.max_phase}")


@runtime_checkable
class MatrixInitializer(Protocol):
    """Initialiser of a dense recurrent matrix."""

    def __call__(
        self,
        key: PRNGKeyArray,
        n: int,
        dtype: DTypeLike = jnp.float32,
        *,
        ring: Ring = Ring(),
        length: int = LENGTH,
    ) -> Float[Array, "n n"]:
        """Draw a matrix of width n; ring has a use for `ring`, length_glorot for `length`."""
        ...


@runtime_checkable
class EigenvalueInitializer(Protocol):
    """Initialiser of the eigenvalues of a diagonal recurrence."""

    def __call__(
        self,
        key: PRNGKeyArray,
        n: int,
        *,
        ring: Ring = Ring(),
        length: int = LENGTH,
        dtype: DTypeLike = jnp.complex64,
    ) -> Complex[Array, " n"]:
        """Draw n eigenvalues: ring and post from `ring`, length_glorot for `length` steps."""
        ...


MATRIX_INITIALIZERS: Registry[MatrixInitializer] = Registry("initialiser")
EIGENVALUE_INITIALIZERS: Registry[EigenvalueInitializer] = Registry("initialiser")


def normal(
    key: PRNGKeyArray, shape: tuple[int, ...], variance: float, dtype: DTypeLike = jnp.float32
) -> Inexact[Array, "..."]:
    """Draw independent centred normal entries with E|x|^2 = variance.

    A complex dtype splits the variance evenly over the real and the imaginary part.
    """
    return math.sqrt(variance) * jax.random.normal(key, shape, dtype)


def rescaled_glorot_divisor(n: int) -> float:
    """Number by which rescaled_glorot divides glorot (arXiv 2505.19827).

    m = 1 + sqrt(gamma_n / 4n) + (gamma_E + pi/sqrt 6) / sqrt(4 gamma_n n), where
    gamma_n = ln(n / (2 pi ln^2 n)): the limiting edge of the spectrum, plus the mean and one
    standard deviation of its Gumbel fluctuation.

    Raises:
        ValueError: if gamma_n is not positive at width n.
    """
    _check_width(n)
    if n < RESCALED_SMALLEST_WIDTH:
        raise ValueError(
            f"rescaled_glorot (fixed) is not defined at width n = {n}: the smallest width that its "
            f"formula allows is {RESCALED_SMALLEST_WIDTH}; use calibrated_glorot, which is defined "
            "at every width"
        )
    gamma = math.log(n / (2 * math.pi * math.log(n) ** 2))
    fluctuation = EULER_GAMMA + math.pi / math.sqrt(6)
    return 1 + math.sqrt(gamma / (4 * n)) + fluctuation / math.sqrt(4 * gamma * n)


def calibrated_glorot_divisor(n: int) -> float:
    """Number by which calibrated_glorot divides glorot: mean plus three deviations of its radius.

    m = 1 + (sqrt L + c / sqrt L) / sqrt(4n) with L = ln(a + b n) and the measured constants
    `CALIBRATION`: the edge of the spectrum and its fluctuation as in `rescaled_glorot_divisor`,
    with an L in place of gamma_n that is positive at every width and has the same limit ln n.

    Raises:
        ValueError: if n is less than 1.
    """
    _check_width(n)
    a, b, c = CALIBRATION
    root = math.sqrt(math.log(a + b * n))
    return 1 + (root + c / root) / math.sqrt(4 * n)


def log_glorot_energy(n: int, steps: int) -> float:
    """Logarithm of the energy that n × n matrices of complex N(0, 1/n) keep over so many steps.

    Q_{n,k} = E |A^k x|^2 / |x|^2 after k steps (the setting of arXiv 2605.05113) is

        Q_{n,k} = [(n+k+1)! / (n-1)! - n! / (n-k-2)!] / ((k+1) (k+2) n^(k+1)),

    the second term being 0 from k = n - 1 on: 1 while k is far below sqrt n,
    sinh(c^2 / 2) / (c^2 / 2) at k = c sqrt n, and beyond that ever more the energy of the few draws
    that explode. Taken in logarithms, without a difference of large numbers.

    Args:
        n: width.
        steps: k, from 0 on.

    Raises:
        ValueError: if n is less than 1 or the number of steps negative.
    """
    _check_width(n)
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    # Both terms over n^(k+2) are products, of 1 + j/n and of 1 - j/n with j up to k + 1.
    j = np.arange(steps + 2) / n
    factor = math.log(n / ((steps + 1) * (steps + 2)))
    if steps + 1 >= n:
        return factor + float(np.log1p(j).sum())
    half = float(np.arctanh(j).sum())
    product = float(np.log1p(-(j**2)).sum()) / 2
    return factor + product + half + math.log(-math.expm1(-2 * half))


def length_glorot_divisor(n: int, length: int) -> float:
    """Number by which length_glorot divides glorot: m = Q_{n,T}^(1/2T), which makes Q_{n,T} one.

    Args:
        n: width.
        length: steps T, at least 1.

    Raises:
        ValueError: if n or the length is less than 1.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    return math.exp(log_glorot_energy(n, length) / (2 * length))


def _matrix_rule(name: str, *aliases: str):
    """File a dense rule under its name, and the eigenvalues of its draws under the same name."""

    def decorate(matrix: MatrixInitializer) -> MatrixInitializer:
        def eigenvalues(
            key: PRNGKeyArray,
            n: int,
            *,
            dtype: DTypeLike = jnp.complex64,
            **options: Any,
        ) -> Complex[Array, " n"]:
            real = jnp.finfo(dtype).dtype
            return matrix_eigenvalues(matrix(key, n, real, **options)).astype(dtype)

        eigenvalues.__name__ = f"{name}_eigenvalues"
        eigenvalues.__doc__ = f"Draw the eigenvalues of a dense {name} matrix."
        EIGENVALUE_INITIALIZERS.register(name, *aliases)(eigenvalues)
        return MATRIX_INITIALIZERS.register(name, *aliases)(matrix)

    return decorate


@_matrix_rule("glorot")
def glorot(
    key: PRNGKeyArray, n: int, dtype: DTypeLike = jnp.float32, **_: Any
) -> Float[Array, "n n"]:
    """A_ij ~ N(0, 1/n): the bulk of the spectrum fills the unit disk, its edge exceeds it."""
    _check_width(n)
    return normal(key, (n, n), 1 / n, dtype)


@_matrix_rule("halved_glorot")
def halved_glorot(
    key: PRNGKeyArray, n: int, dtype: DTypeLike = jnp.float32, **_: Any
) -> Float[Array, "n n"]:
    """A_ij ~ N(0, 1/2n): half of glorot's variance, a spectral radius of about 0.71."""
    _check_width(n)
    return normal(key, (n, n), 1 / (2 * n), dtype)


@_matrix_rule("rescaled_glorot", "fixed")
def rescaled_glorot(
    key: PRNGKeyArray, n: int, dtype: DTypeLike = jnp.float32, **_: Any
) -> Float[Array, "n n"]:
    """A_ij ~ N(0, 1/(n m^2)) with m of `rescaled_glorot_divisor`, for n >= 164 only."""
    return normal(key, (n, n), 1 / (n * rescaled_glorot_divisor(n) ** 2), dtype)


@_matrix_rule("calibrated_glorot")
def calibrated_glorot(
    key: PRNGKeyArray, n: int, dtype: DTypeLike = jnp.float32, **_: Any
) -> Float[Array, "n n"]:
    """A_ij ~ N(0, 1/(n m^2)) with m of `calibrated_glorot_divisor`: a radius safely below one."""
    return normal(key, (n, n), 1 / (n * calibrated_glorot_divisor(n) ** 2), dtype)


@_matrix_rule("length_glorot")
def length_glorot(
    key: PRNGKeyArray, n: int, dtype: DTypeLike = jnp.float32, *, length: int = LENGTH, **_: Any
) -> Float[Array, "n n"]:
    """A_ij ~ N(0, 1/(n m^2)) with m of `length_glorot_divisor`: energy one after so many steps."""
    return normal(key, (n, n), 1 / (n * length_glorot_divisor(n, length) ** 2), dtype)


@_matrix_rule("identity")
def identity(
    key: PRNGKeyArray, n: int, dtype: DTypeLike = jnp.float32, **_: Any
) -> Float[Array, "n n"]:
    """Build the identity, whatever the key: every mode starts as an integrator."""
    _check_width(n)
    return jnp.eye(n, dtype=dtype)


@EIGENVALUE_INITIALIZERS.register("ring", "uniform")
def ring(
    key: PRNGKeyArray,
    n: int,
    *,
    ring: Ring = Ring(),
    dtype: DTypeLike = jnp.complex64,
    **_: Any,
) -> Complex[Array, " n"]:
    """Draw eigenvalues uniformly by area from a ring (arXiv 2303.06349, Lemma 3.2).

    |lambda| = sqrt(u (r_max^2 - r_min^2) + r_min^2) with u ~ U(0, 1), and independently
    arg lambda ~ U[0, max_phase).
    """
    _check_width(n)
    real = jnp.finfo(dtype).dtype
    radius_key, phase_key = jax.random.split(key)
    # The open interval keeps zero and r_max out, whose logarithms a polar layer cannot hold.
    eps = float(jnp.finfo(real).eps)
    u = jax.random.uniform(radius_key, (n,), real, minval=eps, maxval=1 - eps)
    radius = jnp.sqrt(u * (ring.r_max**2 - ring.r_min**2) + ring.r_min**2)
    phase = ring.max_phase * jax.random.uniform(phase_key, (n,), real)
    return jax.lax.complex(radius * jnp.cos(phase), radius * jnp.sin(phase))


@EIGENVALUE_INITIALIZERS.register("post")
def post(
    key: PRNGKeyArray,
    n: int,
    *,
    ring: Ring = Ring(),
    dtype: DTypeLike = jnp.complex64,
    **_: Any,
) -> Complex[Array, " n"]:
    """Space decays geometrically over a ring, so that every scale of time has as many modes.

    -ln |lambda_j| = (-ln r_max) q^j, from r_max at j = 0 to r_min at j = n - 1 (PoST,
    arXiv 2604.07658: random decays leave gaps between scales); the phases are those of `ring`.

    Raises:
        ValueError: if the radii are 0 or 1, whose logarithms have no geometric spacing.
    """
    if not 0 < ring.r_min < ring.r_max < 1:
        raise ValueError(
            "post needs 0 < r_min < r_max < 1, as it spaces logarithms of decays, got "
            f"r_min = {ring.r_min} and r_max = {ring.r_max}"
        )
    eigenvalues = EIGENVALUE_INITIALIZERS["ring"](key, n, ring=ring, dtype=dtype)
    decay = np.geomspace(-math.log(ring.r_max), -math.log(ring.r_min), n)
    modulus = jnp.asarray(np.exp(-decay), eigenvalues.real.dtype)
    return modulus * eigenvalues / jnp.abs(eigenvalues)


def ring_for(steps: int) -> dict[str, float]:
    """Radii of a ring that remembers so many steps T: exp(-20 / T) and exp(-1 / 5T).

    A mode of modulus exp(-1 / t) loses all but 1/e in t steps: these do in T / 20 to 5T.
    """
    return {"r_min": math.exp(-20 / steps), "r_max": math.exp(-0.2 / steps)}


def step_sizes_for(steps: int, rate: float = 1.0) -> dict[str, float]:
    """Step sizes by which a mode that decays as exp(-rate t) remembers as those of `ring_for`."""
    return {"dt_min": 0.2 / (rate * steps), "dt_max": 20 / (rate * steps)}


@MATRIX_INITIALIZERS.register("ring")
def ring_matrix(
    key: PRNGKeyArray,
    n: int,
    dtype: DTypeLike = jnp.float32,
    *,
    ring: Ring = Ring(),
    **_: Any,
) -> Float[Array, "n n"]:
    """Draw a normal matrix, whose eigenvalues are those of `ring` and their conjugates.

    A = Q R Q^T with a random orthogonal Q and R of 2 × 2 blocks, rotations times moduli; of an odd
    width one block is a modulus alone. So no direction grows, as that of a Glorot draw may.
    """
    _check_width(n)
    basis_key, ring_key = jax.random.split(key)
    pairs, odd = divmod(n, 2)
    basis = jnp.linalg.qr(jax.random.normal(basis_key, (n, n), dtype))[0]
    first, second, last = jnp.split(basis, (pairs, 2 * pairs), axis=1)
    values = EIGENVALUE_INITIALIZERS["ring"](
        ring_key, pairs + odd, ring=ring, dtype=jnp.result_type(dtype, jnp.complex64)
    )
    re, im = values[:pairs].real, values[:pairs].imag
    turned = first * im @ second.T
    even = first * re @ first.T + second * re @ second.T + turned - turned.T
    return even + last * jnp.abs(values[pairs:]) @ last.T


def hippo_legs(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [n] and unitary eigenvectors [n, n] of the normal part of HiPPO-LegS.

    S = A + p p^T with A_ij = -sqrt((2i+1)(2j+1)) below the diagonal, -(i+1) on it and 0 above it,
    and p_i = sqrt(i + 1/2), i from 0: -1/2 plus a skew-symmetric matrix, so that every real part is
    -1/2. By imaginary part, from the smallest on. Smith et al. 2023 (arXiv 2208.04933), section 3.3
    and appendix B.
    """
    _check_width(n)
    order = np.arange(n)
    root = np.sqrt(2 * order + 1)
    skew = np.outer(root, root) / 2
    skew = np.triu(skew, 1) - np.tril(skew, -1)
    imaginary, vectors = np.linalg.eigh(-1j * skew)
    return -0.5 + 1j * imaginary, vectors


def log_step_sizes(
    key: PRNGKeyArray, shape: tuple[int, ...], dt_min: float, dt_max: float
) -> Float[Array, "..."]:
    """Draw logarithms of step sizes uniformly between those of two.

    Raises:
        ValueError: if not 0 < dt_min <= dt_max.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(
            f"dt_min and dt_max must satisfy 0 < dt_min <= dt_max, got {dt_min} and {dt_max}"
        )
    low, high = math.log(dt_min), math.log(dt_max)
    return jax.random.uniform(key, shape, jnp.float32, minval=low, maxval=high)


def _check_width(n: int) -> None:
    if n < 1:
        raise ValueError(f"width n = {n} is not allowed: at least 1 is needed")


def matrix_eigenvalues(matrix: Float[Array, "n n"]) -> Complex[Array, " n"]:
    """Compute eigenvalues on any platform, sorted by real then imaginary part.

    XLA has them on a CPU only; elsewhere a callback asks the host. On a CPU a callback would wait
    for a thread that it occupies itself. Sorted, since rounding decides the order otherwise.
    """
    values = jax.lax.platform_dependent(
        matrix, cpu=jnp.linalg.eigvals, default=_eigenvalues_on_host
    )
    return jnp.sort(values)


def _eigenvalues_on_host(matrix: Float[Array, "n n"]) -> Complex[Array, " n"]:
    shape = jax.ShapeDtypeStruct((2, matrix.shape[-1]), matrix.dtype)

    def on_host(matrix: Array) -> np.ndarray:
        values = np.linalg.eigvals(np.asarray(matrix, np.float64))
        return np.stack([values.real, values.imag], axis=-2).astype(shape.dtype)

    real, imaginary = jax.pure_callback(on_host, shape, matrix, vmap_method="expand_dims")
    return jax.lax.complex(real, imaginary)
