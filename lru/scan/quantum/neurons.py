"""Quantum neurons as tables: the cosine and sine by which each turns, for every pattern it reads.

    alpha(x) = bias + theta + sum of phi_S over the subsets S of the sources that are all set in x
    a0' = c(x) a0 - s(x) a1,  a1' = c(x) a1 + s(x) a0,  c, s = cos, sin(alpha / 2)^(2^order)

for the amplitudes a0, a1 of the target lane; then the whole state is normalised. This is the
circuit of Bausch 2020 (arXiv 2006.14619), section 3, with its post-selections. As the powers are
even, all amplitudes are real. Letters: w lanes of the workspace, i of input and output, S work
stages, m sources of a neuron, P subsets of them, R rows.
"""

import itertools
from math import comb
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float


class Weights(NamedTuple):
    """Parameters of a cell; the first of the stages is the input stage.

    Attributes:
        phi: weights of subsets of the sources, by size, then in lexicographic order [1 + S, w, P].
        theta: biases [1 + S, w].
        rotations: angles by which lanes turn before the neurons of each work stage [S, w].
        output_phi: weights of the output neurons [i, P].
        output_theta: their biases [i].
    """

    phi: Float[Array, "stages w P"]
    theta: Float[Array, "stages w"]
    rotations: Float[Array, "S w"]
    output_phi: Float[Array, "i P"]
    output_theta: Float[Array, " i"]

    @property
    def lanes(self) -> tuple[int, int]:
        """Numbers w and i of lanes."""
        return self.theta.shape[1], len(self.output_theta)


class Activation(NamedTuple):
    """Constants of all neurons.

    Attributes:
        order: c and s are powers by 2^order, order of at least 1.
        degree: largest subset of sources with a weight of its own.
        bias: added to theta.
    """

    order: int
    degree: int
    bias: float


def n_subsets(n_sources: int, degree: int) -> int:
    """Number P of subsets of at most `degree` sources, the empty one left out."""
    return sum(comb(n_sources, size) for size in range(1, min(degree, n_sources) + 1))


def subsets(n_sources: int, degree: int) -> Float[np.ndarray, "patterns P"]:
    """1 where a pattern sets all sources of a subset, else 0.

    Patterns count from 0 to 2^m - 1, and the first source is their most significant bit.
    """
    patterns = np.arange(2**n_sources)[:, None]
    bits = patterns >> np.arange(n_sources)[::-1] & 1
    columns = [
        bits[:, chosen].all(axis=1)
        for size in range(1, min(degree, n_sources) + 1)
        for chosen in map(list, itertools.combinations(range(n_sources), size))
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def tables(
    phi: Float[Array, "*neurons P"],
    theta: Float[Array, "*neurons"],
    n_sources: int,
    activation: Activation,
) -> tuple[Float[Array, "*neurons patterns"], Float[Array, "*neurons patterns"]]:
    """Cosines c and sines s of neurons, for all patterns of their sources, each up to a factor.

    The factor brings the longest pair (c, s) of a neuron to length 1. States are normalised, so it
    is of no account, and has no gradient.
    """
    members = jnp.asarray(subsets(n_sources, activation.degree), phi.dtype)
    sums = jnp.einsum("...p,xp->...x", phi, members, precision=lax.Precision.HIGHEST)
    half = (activation.bias + theta[..., None] + sums) / 2
    power = 2**activation.order
    c, s = jnp.cos(half) ** power, jnp.sin(half) ** power
    scale = lax.stop_gradient(jnp.sqrt(jnp.max(c**2 + s**2, axis=-1, keepdims=True)))
    return c / scale, s / scale


def turned(
    h: Float[Array, "states *rest"],
    lane: int,
    c: Float[Array, "others *#rest"],
    s: Float[Array, "others *#rest"],
) -> Float[Array, "states *rest"]:
    """States after one lane has turned by tables over the other lanes.

    Args:
        h: amplitudes, the first lane the most significant bit of their index.
        lane: the one that turns.
        c: cosines over the other lanes, or of length 1 for all; other axes may broadcast.
        s: sines.
    """
    before = 2**lane if c.shape[0] > 1 else 1
    c, s = (x.reshape(before, -1, *x.shape[1:]) for x in (c, s))
    pairs = h.reshape(2**lane, 2, -1, *h.shape[1:])
    a0, a1 = pairs[:, 0], pairs[:, 1]
    return jnp.stack([c * a0 - s * a1, c * a1 + s * a0], axis=1).reshape(h.shape)
