"""A long stream through an encoder: one program, memory that does not grow, outputs of the whole.

`benchmarks/streaming.py` runs it for a million steps.
"""

import collections
import gc
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from lru.models import Encoder, ModelConfig

STATM = Path("/proc/self/statm")
D, N, LAYERS = 64, 64, 4
BYTES_OF_A_STATE = LAYERS * N * np.dtype(np.complex64).itemsize
# Steps of one call, calls before memory is read, and calls until it is read again.
BLOCK, WARM_UP, CALLS = 4, 500, 5_000
# The states after all calls take 10 MiB.
BOUND = 2 * 2**20

SIGNAL = np.random.default_rng(0).standard_normal((1, 1_000, D), np.float32)


@pytest.fixture(scope="module")
def encoder():
    options = {"r_min": 0.9, "r_max": 0.999}
    config = ModelConfig(n_layers=LAYERS, d_model=D, d_hidden=N, options=options)
    return Encoder(config, rngs=nnx.Rngs(0))


def resident_bytes():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def array_bytes():
    return sum(array.nbytes for array in jax.live_arrays())


def stream(call, state, calls):
    """The state after every call, over a signal that repeats itself."""
    for i in range(calls):
        start = i * BLOCK % SIGNAL.shape[1]
        _, state = call(SIGNAL[:, start : start + BLOCK], state)
        yield state


def growth(encoder, calls, keep, donate):
    """By how many bytes the process and the arrays grow, and how many programs were compiled."""

    def advance(x, state):
        def step(state, x_t):
            y, state = encoder.step(x_t, state)
            return state, y

        state, y = jax.lax.scan(step, state, x.swapaxes(0, 1))
        return y, state

    call = jax.jit(advance, donate_argnums=donate)
    *_, state = stream(call, encoder.initial_state(1), WARM_UP)
    gc.collect()
    before = resident_bytes(), array_bytes()
    for after in stream(call, state, calls):
        keep(after)
    del state, after
    gc.collect()
    return resident_bytes() - before[0], array_bytes() - before[1], call._cache_size()


on_linux = pytest.mark.skipif(
    not STATM.exists(), reason="resident memory is read from /proc, which only Linux has"
)


@on_linux
def test_a_long_stream_is_one_program_in_constant_memory(encoder):
    last = collections.deque(maxlen=1)
    process, arrays, programs = growth(encoder, CALLS, last.append, donate=1)
    assert programs == 1
    assert arrays == 0
    assert process < BOUND


@on_linux
def test_the_measurement_sees_states_that_are_kept(encoder):
    kept = []
    process, arrays, _ = growth(encoder, CALLS // 2, kept.append, donate=())
    assert arrays == (len(kept) - 1) * BYTES_OF_A_STATE
    assert process > BOUND


def test_a_stream_gives_the_outputs_of_the_whole(encoder):
    step = jax.jit(encoder.step, donate_argnums=1)
    state, outputs = encoder.initial_state(1), []
    for t in range(SIGNAL.shape[1]):
        y, state = step(SIGNAL[:, t], state)
        outputs.append(y)
    assert step._cache_size() == 1
    whole, last = jax.jit(lambda x: encoder(x))(SIGNAL)
    for streamed, expected in [(np.stack(outputs, axis=1), whole), *zip(state, last, strict=True)]:
        allowed = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(streamed, expected, rtol=0, atol=allowed)
