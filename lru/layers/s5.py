"""S5: a diagonal state space with many inputs and outputs, from the HiPPO-LegS matrix.

h_t = λ̄ ⊙ h_{t-1} + B̄ x_t, y_t = 2 Re(C h_t) + D ⊙ x_t, with λ̄ and B̄ of the continuous λ and B and
step sizes Δ: λ̄ = exp(λΔ), B̄ = (λ̄ - 1)/λ B (zero-order hold), or λ̄ = (1 + λΔ/2)/(1 - λΔ/2),
B̄ = Δ/(1 - λΔ/2) B (bilinear). Smith, Warrington, Linderman 2023 (arXiv 2208.04933), section 3.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Complex, Float

from lru.layers.base import LAYERS, RecurrentParam, zeros
from lru.layers.projected import ProjectedLayer
from lru.layers.state_spaces import hippo_legs, log_step_sizes, step_sizes_for
from lru.layers.timed import TimedLayer

# Where `clip_eigs` keeps real parts of eigenvalues.
LARGEST_REAL_PART = -1e-4


@LAYERS.register("s5")
class S5(TimedLayer, ProjectedLayer):
    """S5: a diagonal state space whose eigenvalues are those of HiPPO-LegS at first.

    Attributes:
        lambda_re, lambda_im: continuous eigenvalues [N].
        log_step: logarithms of step sizes [N].
        B: input weights [D, 2N] before they are discretised, real parts left.
        C: output weights [2N, D], real parts above and negated imaginary parts below.
        D: skip weights [D].
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        discretization: str = "zoh",
        blocks: int = 1,
        conj_sym: bool = True,
        clip_eigs: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        scan_method: str = "auto",
        chunk_length: int = 4096,
        compute_dtype: str = "float32",
        rngs: nnx.Rngs,
    ):
        """Draw the parameters; options without a sentence here are those of `ProjectedLayer`.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of complex states.
            discretization: from continuous to discrete time: zoh, by zero-order hold, or bilinear.
            blocks: HiPPO matrices side by side from which the eigenvalues are; a divisor of N.
            conj_sym: hold one of each pair of conjugate states, so that the matrices have 2N rows,
                and read it out twice.
            clip_eigs: keep real parts of eigenvalues below -0.0001, where states decay.
            dt_min: smallest initial step size.
            dt_max: largest initial step size.
            rngs: source of the initial parameters.
        """
        super().__init__(
            d_model,
            d_hidden,
            scan_method=scan_method,
            chunk_length=chunk_length,
            compute_dtype=compute_dtype,
        )
        if discretization not in ("zoh", "bilinear"):
            raise ValueError(f"discretization must be zoh or bilinear, got {discretization!r}")
        if blocks < 1 or d_hidden % blocks:
            raise ValueError(f"blocks must divide d_hidden = {d_hidden}, got {blocks}")
        self.discretization, self.conj_sym, self.clip_eigs = discretization, conj_sym, clip_eigs
        kept = d_hidden // blocks
        rows = 2 * kept if conj_sym else kept
        eigenvalues, vectors = hippo_legs(rows)
        vectors, own = vectors[:, :kept], jnp.asarray(eigenvalues[:kept], jnp.complex64)
        self.lambda_re, self.lambda_im = (
            RecurrentParam(jnp.tile(part, blocks)) for part in (own.real, own.imag)
        )
        self.log_step = RecurrentParam(log_step_sizes(rngs.params(), (d_hidden,), dt_min, dt_max))
        # As published, both have the variance of a fan-in of all rows before they enter the basis.
        draw = jax.nn.initializers.lecun_normal(dtype=jnp.float32)
        basis = jnp.asarray(np.kron(np.eye(blocks), vectors), jnp.complex64)
        into = basis.conj().T @ draw(rngs.params(), (blocks * rows, d_model))
        self.B = RecurrentParam(jnp.concatenate([into.real, into.imag]).T)
        drawn = draw(rngs.params(), (blocks * rows, 2 * d_model)).reshape(-1, d_model, 2)
        out = basis.T @ jax.lax.complex(drawn[..., 0], drawn[..., 1])
        self.C = nnx.Param(jnp.concatenate([out.real, -out.imag]))
        self.D = nnx.Param(jax.random.normal(rngs.params(), (d_model,), jnp.float32))

    @classmethod
    def remembering(cls, steps: int) -> dict[str, Any]:
        """Step sizes for eigenvalues of real part -1/2."""
        return step_sizes_for(steps, rate=0.5)

    def transition(
        self, dt: Float[Array, "B T 1"] | None
    ) -> tuple[Complex[Array, "*steps N"], Complex[Array, "*steps N"]]:
        """See `ProjectedLayer.transition`."""
        real = self.lambda_re[...]
        real = jnp.minimum(real, LARGEST_REAL_PART) if self.clip_eigs else real
        eigenvalues = real + 1j * self.lambda_im[...]
        step = jnp.exp(self.log_step[...])
        step = step if dt is None else step * dt
        if self.discretization == "bilinear":
            half = step * eigenvalues / 2
            return (1 + half) / (1 - half), step / (1 - half)
        return jnp.exp(eigenvalues * step), jnp.expm1(eigenvalues * step) / eigenvalues

    def output_weights(self) -> Float[Array, "M D"]:
        """See `ProjectedLayer.output_weights`."""
        return 2 * self.C[...] if self.conj_sym else self.C[...]

    def eigenvalues(self) -> dict[str, Complex[Array, " N"]]:
        """The discrete eigenvalues λ̄ [N]."""
        return {"": self.transition(None)[0]}

    @zeros
    def initial_state(self, batch_size: int) -> Complex[Array, "B N"]:
        """Zeros."""
        held = (self.lambda_re, self.lambda_im, self.log_step, self.B, self.C)
        dtype = jnp.result_type(jnp.complex64, *(p[...] for p in held))
        return jnp.zeros((batch_size, self.d_hidden), dtype)
