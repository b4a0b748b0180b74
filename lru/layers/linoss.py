"""LinOSS: forced harmonic oscillators, their velocities z and positions q one linear recurrence.

z' = -A q - G z + u, q' = z with u = B x, discretised with steps Δ, and y_t = Re(C q_t) + D ⊙ x_t.
Rusch, Rus 2025 (arXiv 2410.03943), section 3: implicit (IM) or implicit-explicit (IMEX), G = 0;
Boyer, Rusch, Rus 2025 (arXiv 2505.12171): the latter damped, D-LinOSS. A state of an oscillator
is the next one's by a real 2 x 2 matrix; u, z and q are complex, and the real and the imaginary
parts do not meet: each is a pair of real numbers of `lru.scan.block_scan`.
"""

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Complex, Float, Integer

from lru.layers.base import LAYERS, RecurrentParam, State, zeros
from lru.layers.cell import uniform
from lru.layers.initializers import Ring, ring
from lru.layers.projected import ProjectedLayer
from lru.layers.timed import TimedLayer

# Where the damped form divides by the square of a step, as published.
SMALLEST_SQUARE = 1e-6

# Matrix M as ((M11, M12), (M21, M22)) and what the input adds to z and to q.
Discrete = tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]


class OscillatorState(NamedTuple):
    """Velocities z and positions q of oscillators, [B, N] complex."""

    z: Complex[Array, "B N"]
    q: Complex[Array, "B N"]


class Oscillators(TimedLayer, ProjectedLayer):
    """Base of the layers of oscillators, which have `discrete`.

    Attributes:
        A: stiffness [N] before it is made admissible.
        steps: step sizes [N], before the logistic function.
        B: input weights [D, 2N], real parts left and imaginary parts right.
        C: output weights [2N, D], real parts above and negated imaginary parts below.
        D: skip weights [D].
    """

    recurrent: ClassVar[tuple[str, ...]] = ("A", "steps", "B")

    A: RecurrentParam
    steps: RecurrentParam

    def draw_weights(self, rngs: nnx.Rngs) -> None:
        """Draw B, C and D."""
        width = (self.d_model, 2 * self.d_hidden)
        self.B = RecurrentParam(uniform(rngs.params(), width, self.d_model))
        self.C = nnx.Param(uniform(rngs.params(), width[::-1], self.d_hidden))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (self.d_model,), jnp.float32))

    def discrete(self, step: Float[Array, "*steps N"]) -> Discrete:
        """The recurrence with steps of these sizes."""
        raise NotImplementedError

    def transition(
        self, dt: Float[Array, "B T 1"] | None
    ) -> tuple[Float[Array, "*steps 2 2 M"], Float[Array, "*steps 2 M"]]:
        """See `ProjectedLayer.transition`; M = 2N, as for real and for imaginary parts."""
        step = jax.nn.sigmoid(self.steps[...])
        *M, force = self.discrete(step if dt is None else step * dt)
        twice = lambda pair: jnp.concatenate([jnp.stack(pair, axis=-2)] * 2, axis=-1)  # noqa: E731
        return jnp.stack([twice(row) for row in M], axis=-3), twice(force)

    def drive(self, u: Float[Array, "*rest M"], scale: Any) -> Float[Array, "*rest 2 M"]:
        """See `ProjectedLayer.drive`."""
        return scale * u[..., None, :]

    def output_weights(self) -> Float[Array, "M D"]:
        """See `ProjectedLayer.output_weights`: velocities are not read."""
        return jnp.concatenate([jnp.zeros_like(self.C[...]), self.C[...]])

    def enter(self, state: OscillatorState) -> Float[Array, "B 2 M"]:
        """See `ProjectedLayer.enter`."""
        return jnp.stack([jnp.concatenate([s.real, s.imag], axis=-1) for s in state], axis=1)

    def leave(self, h: Float[Array, "B 2 M"]) -> OscillatorState:
        """See `ProjectedLayer.leave`."""
        return OscillatorState(*jnp.moveaxis(self._complex(h), -2, 0))

    def _complex(self, h: Float[Array, "*rest 2 M"]) -> Complex[Array, "*rest 2 N"]:
        return jax.lax.complex(*jnp.split(h, 2, axis=-1))

    def states(
        self,
        x: Float[Array, "B T D"],
        state: State,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        dt: Float[Array, "B T"] | None = None,
    ) -> dict[str, Complex[Array, "B T N"]]:
        """The positions under "state", and the velocities under "velocity"."""
        h = self._complex(self._scanned(x, state, lengths, resets, reverse, dt)[0])
        return {"state": h[:, :, 1], "velocity": h[:, :, 0]}

    def eigenvalues(self) -> dict[str, Complex[Array, " M"]]:
        """Both eigenvalues of the matrix of each oscillator, [2N]."""
        (a, b), (c, d), _ = self.discrete(jax.nn.sigmoid(self.steps[...]))
        root = jnp.sqrt(((a - d) / 2) ** 2 + b * c + 0j)
        return {"": jnp.concatenate([(a + d) / 2 + root, (a + d) / 2 - root])}

    @zeros
    def initial_state(self, batch_size: int) -> OscillatorState:
        """Zeros."""
        held = (*(getattr(self, name)[...] for name in self.recurrent), self.C[...])
        shape = (batch_size, self.d_hidden)
        dtype = jnp.result_type(jnp.complex64, *held)
        return OscillatorState(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


@LAYERS.register("linoss")
class LinOSS(Oscillators):
    """LinOSS: undamped oscillators, discretised so that they forget (IM) or do not (IMEX).

    Attributes:
        A: stiffness [N], of which what is below 0 counts as 0.
        steps: step sizes [N], before the logistic function.
        B: input weights [D, 2N], real parts left and imaginary parts right.
        C: output weights [2N, D], real parts above and negated imaginary parts below.
        D: skip weights [D].
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        discretization: str = "im",
        A_max: float = 1.0,
        scan_method: str = "auto",
        chunk_length: int = 4096,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; options without a sentence here are those of `ProjectedLayer`.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of oscillators, each of a complex velocity and position.
            discretization: im, implicit, or imex, implicit for velocities and explicit for
                positions, which conserves energy.
            A_max: largest initial stiffness; imex is stable below 4, as steps are below 1.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            scan_method=scan_method,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
        )
        if discretization not in ("im", "imex"):
            raise ValueError(f"discretization must be im or imex, got {discretization!r}")
        if not 0 < A_max <= (4 if discretization == "imex" else math.inf):
            raise ValueError(
                "A_max must be above 0, and at most 4 with imex, which is unstable beyond, got "
                f"{A_max} with {discretization}"
            )
        self.discretization = discretization
        self.A, self.steps = (
            RecurrentParam(jax.random.uniform(rngs.params(), (d_hidden,), jnp.float32, maxval=most))
            for most in (A_max, 1.0)
        )
        self.draw_weights(rngs)

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """The stiffness whose mode forgets first, by IM in T / 20 steps of size 0.62."""
        return {"A_max": 100 / steps}

    def discrete(self, step: Float[Array, "*steps N"]) -> Discrete:
        """See `Oscillators.discrete`."""
        A = jax.nn.relu(self.A[...])
        if self.discretization == "imex":
            one = jnp.ones_like(step)
            return (one, -step * A), (step, 1 - step**2 * A), (step, step**2)
        # 1 - Δ²A S of the paper is S itself.
        S = 1 / (1 + step**2 * A)
        return (S, -step * A * S), (step * S, S), (step * S, step**2 * S)


@LAYERS.register("d-linoss")
class DLinOSS(Oscillators):
    """D-LinOSS: damped oscillators, whose eigenvalues start in a ring and stay complex.

    Attributes:
        A: stiffness [N], clipped to where eigenvalues are complex.
        G: damping [N], of which what is below 0 counts as 0.
        steps: step sizes [N], before the logistic function.
        B: input weights [D, 2N], real parts left and imaginary parts right.
        C: output weights [2N, D], real parts above and negated imaginary parts below.
        D: skip weights [D].
    """

    recurrent = ("A", "G", "steps", "B")

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        r_min: float = 0.9,
        r_max: float = 1.0,
        max_phase: float = math.pi,
        dt_std: float = 0.5,
        scan_method: str = "auto",
        chunk_length: int = 4096,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; options without a sentence here are those of `ProjectedLayer`.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of oscillators, each of a complex velocity and position.
            r_min: smallest initial modulus.
            r_max: largest initial modulus.
            max_phase: largest initial phase in radians, at most pi.
            dt_std: standard deviation of initial step sizes, before the logistic function.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            scan_method=scan_method,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
        )
        if r_min == 0 or max_phase > math.pi:
            raise ValueError(
                "r_min must be above 0 and max_phase at most pi, got "
                f"r_min = {r_min} and max_phase = {max_phase}"
            )
        if dt_std < 0:
            raise ValueError(f"dt_std must be at least 0, got {dt_std}")
        eigenvalues = ring(rngs.params(), d_hidden, ring=Ring(r_min, r_max, max_phase))
        draws = jax.random.normal(rngs.params(), (d_hidden,), jnp.float32)
        self.steps = RecurrentParam(dt_std * draws)
        step, inverse = jax.nn.sigmoid(self.steps[...]), 1 / jnp.abs(eigenvalues)
        # The determinant |λ|² and the trace 2 Re λ of the matrix, solved for G and A.
        self.G = RecurrentParam((inverse**2 - 1) / step)
        angle = jnp.angle(eigenvalues)
        self.A = RecurrentParam((1 + inverse**2 - 2 * jnp.cos(angle) * inverse) / step**2)
        self.draw_weights(rngs)

    def discrete(self, step: Float[Array, "*steps N"]) -> Discrete:
        """See `Oscillators.discrete`; the bounds of A belong to each step."""
        S = 1 + step * jax.nn.relu(self.G[...])
        square = jnp.maximum(step**2, SMALLEST_SQUARE)
        # (√S - 1)² and (√S + 1)², without the difference.
        root = jnp.sqrt(S)
        low, high = ((S - 1) / (root + 1)) ** 2 / square, (root + 1) ** 2 / square
        A = low + jax.nn.relu(self.A[...] - low) - jax.nn.relu(self.A[...] - high)
        one = jnp.ones_like(step)
        return (one / S, -step * A / S), (step / S, 1 - step**2 * A / S), (step / S, step**2 / S)
