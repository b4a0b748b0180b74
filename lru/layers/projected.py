"""A recurrence of pairs of real numbers between two products: y_t = C h_t + D ⊙ x_t.

h_t = a h_{t-1} + B x_t, with complex factors a (pairs are real and imaginary parts) or real 2 x 2
matrices. With constant a all three run as one loop on a CPU (`lru.scan.projected_scan`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Inexact, Integer

from lru.layers.base import RecurrentParam, State
from lru.layers.chunks import ChunkedLayer, skip
from lru.scan import block_scan, paired_scan, parts, projected_scan
from lru.scan.products import product


class ProjectedLayer(ChunkedLayer):
    """Base of linear layers whose state is diagonal, or pairs of numbers.

    A subclass has `transition`, and `drive`, `output_weights`, `enter` and `leave` where those of a
    complex state [B, N] are not its own; with `TimedLayer` in front of this class it takes `dt`.

    Attributes:
        B: input weights [D, 2N], real parts left and imaginary parts right.
        C: output weights [2N, D], real parts above and negated imaginary parts below.
        D: skip weights [D].
    """

    splits_time = True

    B: RecurrentParam
    C: nnx.Param
    D: nnx.Param

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        *,
        scan_method: str = "auto",
        chunk_length: int = 4096,
        compute_dtype: str = "float32",
    ):
        """Check how the layer is computed.

        Args:
            d_model: width D of inputs and outputs.
            d_hidden: number N of complex states.
            scan_method: algorithm of the scan; auto picks the fastest one measured.
            chunk_length: longer sequences run in chunks of so many steps, and gradients run each
                chunk again instead of keeping all states; 0 keeps them, and so do scan methods that
                split time over devices.
            compute_dtype: type of matrix products, float32 or bfloat16; states, parameters and sums
                stay float32.
        """
        super().__init__(d_model, d_hidden, chunk_length, compute_dtype, scan_method)

    def transition(
        self, dt: Float[Array, "B T 1"] | None
    ) -> tuple[Inexact[Array, "*steps N"], Inexact[Array, "*steps N"] | None]:
        """Factors a, or matrices [*steps, 2, 2, N], and what inputs are multiplied by, if anything.

        They vary over time where durations of steps are given.
        """
        raise NotImplementedError

    def drive(
        self, u: Float[Array, "*rest M"], scale: Inexact[Array, "*steps N"] | None
    ) -> Float[Array, "*rest 2 N"]:
        """Inputs of the pairs, from B x or from B itself."""
        pairs = u.reshape(*u.shape[:-1], 2, self.d_hidden)
        return pairs if scale is None else parts.multiply(parts.split(scale), pairs)

    def output_weights(self) -> Float[Array, "M D"]:
        """The matrix that reads the pairs out."""
        return self.C[...]

    def enter(self, state: State) -> Inexact[Array, "B *pairs"]:
        """A state as the scan takes it."""
        return state

    def leave(self, h: Inexact[Array, "B *pairs"]) -> State:
        """The state that the scan leaves."""
        return h

    def whole(
        self,
        x: Float[Array, "B T D"],
        state: State,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        dt: Float[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B T D"], State]:
        """See `ChunkedLayer.whole`."""
        C = self.output_weights()
        if dt is None:
            a, scale = self.transition(None)
            B = self.drive(self.B[...], scale)
            y, h = projected_scan(
                a,
                x.astype(B.dtype),
                B.reshape(len(B), -1),
                C,
                None if state is None else self.enter(state),
                **self._options(x, lengths, resets, reverse),
            )
        else:
            pairs, h = self._scanned(x, state, lengths, resets, reverse, dt)
            y = product(pairs.reshape(*x.shape[:2], len(C)), C, self.compute_dtype)
        return (y + skip(self.D[...], x)).astype(x.dtype), self.leave(h)

    def states(
        self,
        x: Float[Array, "B T D"],
        state: State,
        lengths: Integer[Array, " B"] | None,
        resets: Bool[Array, "B T"] | None,
        reverse: bool,
        dt: Float[Array, "B T"] | None = None,
    ) -> Inexact[Array, "B T N"] | dict[str, Inexact[Array, "B T N"]]:
        """See `ChunkedLayer.states`."""
        h, _ = self._scanned(x, state, lengths, resets, reverse, dt)
        return jax.lax.complex(h[:, :, 0], h[:, :, 1])

    def _scanned(
        self,
        x: Array,
        state: State,
        lengths: Array | None,
        resets: Array | None,
        reverse: bool,
        dt: Array | None,
    ) -> tuple[Float[Array, "B T 2 N"], Inexact[Array, "B *pairs"]]:
        a, scale = self.transition(None if dt is None else dt[..., None])
        b = self.drive(product(x.astype(self.B[...].dtype), self.B[...], self.compute_dtype), scale)
        scan = paired_scan if jnp.iscomplexobj(a) else block_scan
        start = None if state is None else self.enter(state)
        return scan(a, b, start, donate=True, **self._options(x, lengths, resets, reverse))

    def _options(
        self, x: Array, lengths: Array | None, resets: Array | None, reverse: bool
    ) -> dict[str, Any]:
        fresh = self.reset_state(x.shape[0])
        return {
            "lengths": lengths,
            "resets": resets,
            "reverse": reverse,
            "reset_to": None if fresh is None else self.enter(fresh),
            "method": self.scan_method,
            "compute_dtype": self.compute_dtype,
        }
