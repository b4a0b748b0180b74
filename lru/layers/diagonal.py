"""Diagonal linear recurrence: h_t = λ ⊙ h_{t-1} + γ ⊙ (B x_t), y_t = Re(C h_t) + D ⊙ x_t.

λ and h are complex; Orvieto et al. 2023 (arXiv 2303.06349), section 3. The three ways to hold λ
are rows of their table 1: as it is (Re + Im), exponential (section 3.2), stable (section 3.3).
Parameters are real: B is kept as [B_re | B_im] and C as [C_re ; -C_im], so that the products with
the real x and y are real matrix products.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Complex, Float

from lru.layers.base import LAYERS, RecurrentParam, zeros
from lru.layers.initializers import EIGENVALUE_INITIALIZERS, LENGTH, Ring, ring_for
from lru.layers.projected import ProjectedLayer
from lru.registry import Registry

# The closest to 0 and to 1 that a modulus may lie where a parametrisation takes logarithms of it.
SMALLEST_MODULUS = 1e-6
LARGEST_MODULUS = 1.0 - 1e-6
# Smallest phase: theta_log is a logarithm, and the real eigenvalues of a Glorot draw have phase 0.
SMALLEST_PHASE = 1e-6

Pair = tuple[Float[Array, " N"], Float[Array, " N"]]


class Parametrization(NamedTuple):
    """Map from two real vectors to eigenvalues.

    Attributes:
        names: of the two parameters, which become attributes of a layer.
        encode: complex eigenvalues [N] to the two parameters [N].
        decode: the two parameters [N] to real and imaginary parts [N].
    """

    names: tuple[str, str]
    encode: Callable[[Complex[Array, " N"]], Pair]
    decode: Callable[[Float[Array, " N"], Float[Array, " N"]], Pair]


PARAMETRIZATIONS: Registry[Parametrization] = Registry("parametrization")

PARAMETRIZATIONS.register("cartesian")(
    Parametrization(
        ("lambda_re", "lambda_im"),
        lambda eigenvalues: (eigenvalues.real, eigenvalues.imag),
        lambda re, im: (re, im),
    )
)


def _log_modulus(eigenvalues: Complex[Array, " N"], largest: float) -> Float[Array, " N"]:
    return jnp.log(jnp.clip(jnp.abs(eigenvalues), SMALLEST_MODULUS, largest))


def _from_log_modulus(log_modulus: Float[Array, " N"], phase: Float[Array, " N"]) -> Pair:
    modulus = jnp.exp(log_modulus)
    return modulus * jnp.cos(phase), modulus * jnp.sin(phase)


# λ = exp(-ν + iθ)
PARAMETRIZATIONS.register("polar")(
    Parametrization(
        ("nu", "theta"),
        lambda eigenvalues: (-_log_modulus(eigenvalues, np.inf), jnp.angle(eigenvalues)),
        lambda nu, theta: _from_log_modulus(-nu, theta),
    )
)

# λ = exp(-exp(ν) + i exp(θ)): never outside the unit disk (but for rounding), whatever the
# parameters. A draw outside is moved to just below one, and phases are taken in (0, 2π).
PARAMETRIZATIONS.register("stable_exp")(
    Parametrization(
        ("nu_log", "theta_log"),
        lambda eigenvalues: (
            jnp.log(-_log_modulus(eigenvalues, LARGEST_MODULUS)),
            jnp.log(jnp.maximum(jnp.angle(eigenvalues) % (2 * jnp.pi), SMALLEST_PHASE)),
        ),
        lambda nu_log, theta_log: _from_log_modulus(-jnp.exp(nu_log), jnp.exp(theta_log)),
    )
)


@LAYERS.register("diag-rnn")
class DiagonalRNN(ProjectedLayer):
    """Linear RNN with a complex diagonal recurrence, its eigenvalues drawn from a dense matrix.

    Attributes:
        lambda_re, lambda_im, or nu, theta, or nu_log, theta_log: the two vectors [N] that hold the
            eigenvalues, named by the parametrisation.
        gamma_log: logarithm of the input normalisation [N]; None without it.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        A_init: str = "calibrated_glorot",
        parametrization: str = "cartesian",
        gamma: bool = False,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * np.pi,
        A_length: int = LENGTH,
        scan_method: str = "auto",
        chunk_length: int = 4096,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; options without a sentence here are those of `ProjectedLayer`.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of complex eigenvalues.
            A_init: rule of the initial recurrence.
            parametrization: how eigenvalues are held; stable_exp keeps them in the unit disk.
            gamma: scale the input of each eigenvalue by a learned factor, sqrt(1 - |lambda|^2) at
                first.
            r_min: smallest initial modulus, for the ring, uniform and post rules.
            r_max: largest initial modulus, for the ring, uniform and post rules.
            max_phase: largest initial phase in radians, for the ring, uniform and post rules.
            A_length: steps over which the rule length_glorot keeps the energy of a state.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            scan_method=scan_method,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
        )
        self.parametrization = PARAMETRIZATIONS.resolve(parametrization)
        draw = EIGENVALUE_INITIALIZERS[A_init]
        ring = Ring(r_min, r_max, max_phase)
        eigenvalues = draw(rngs.params(), d_hidden, ring=ring, length=A_length)
        rule = PARAMETRIZATIONS[self.parametrization]
        for name, value in zip(rule.names, rule.encode(eigenvalues), strict=True):
            setattr(self, name, RecurrentParam(value))
        # On and beyond the unit circle no factor would do; such modes get the smallest one.
        modulus = jnp.minimum(jnp.abs(jax.lax.complex(*self._lambda())), LARGEST_MODULUS)
        self.gamma_log = RecurrentParam(0.5 * jnp.log1p(-(modulus**2))) if gamma else None
        # Variances of LRU, appendix A: 1 / (2 D) for each part of B, 1 / N for each part of C.
        width = (d_model, 2 * d_hidden)
        normal = partial(jax.random.normal, dtype=jnp.float32)
        self.B = RecurrentParam(normal(rngs.params(), width) / math.sqrt(2 * d_model))
        self.C = nnx.Param(normal(rngs.params(), width[::-1]) / math.sqrt(d_hidden))
        self.D = nnx.Param(normal(rngs.params(), (d_model,)))

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """A ring, with inputs scaled to it."""
        return {"A_init": "ring", "gamma": True, **ring_for(steps)}

    def _lambda(self) -> Pair:
        rule = PARAMETRIZATIONS[self.parametrization]
        first, second = (getattr(self, name)[...] for name in rule.names)
        return rule.decode(first, second)

    def eigenvalues(self) -> dict[str, Complex[Array, " N"]]:
        """The eigenvalues λ [N]."""
        return {"": jax.lax.complex(*self._lambda())}

    @zeros
    def initial_state(self, batch_size: int) -> Complex[Array, "B N"]:
        """Zeros."""
        names = (*PARAMETRIZATIONS[self.parametrization].names, "gamma_log", "B", "C")
        parameters = [p[...] for name in names if (p := getattr(self, name)) is not None]
        dtype = jnp.result_type(jnp.complex64, *parameters)
        return jnp.zeros((batch_size, self.d_hidden), dtype)

    def transition(self, dt: None = None) -> tuple[Complex[Array, " N"], Float[Array, " N"] | None]:
        """See `ProjectedLayer.transition`; all steps are alike."""
        gamma_log = self.gamma_log
        return self.eigenvalues()[""], None if gamma_log is None else jnp.exp(gamma_log[...])
