"""A long stream through an encoder: one program, memory that does not grow, outputs of the whole.

`benchmarks/streaming.py` runs it for a million steps.
"""

import collections
import gc
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
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
BLOCK, WARM_UP, CALLS = 4, 500, 1_500
# A stream that leaks grows in each window. The states after the calls of one take 3 MiB.
WINDOWS = 4
BOUND = 2**20

SIGNAL = np.random.default_rng(0).standard_normal((1, 1_000, D), np.float32)


def make_encoder():
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


def growth(maxlen, donate):
    """By how many bytes the process and the arrays grow in each window, and the programs."""
    encoder, kept = make_encoder(), collections.deque(maxlen=maxlen)

    def advance(x, state):
        def step(state, x_t):
            y, state = encoder.step(x_t, state)
            return state, y

        state, y = jax.lax.scan(step, state, x.swapaxes(0, 1))
        return y, state

    call = jax.jit(advance, donate_argnums=donate)
    *_, state = stream(call, encoder.initial_state(1), WARM_UP)
    readings = []
    for _ in range(WINDOWS + 1):
        gc.collect()
        readings.append((resident_bytes(), array_bytes()))
        for after in stream(call, state, CALLS):
            kept.append(after)
            state = after
        del after
    process, arrays = np.diff(readings, axis=0).T
    return process, arrays, call._cache_size()


@pytest.fixture
def growth_alone():
    """`growth` in a process in which nothing else asks for memory."""
    if not STATM.exists():
        pytest.skip("resident memory is read from /proc, which only Linux has")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda *arguments: pool.submit(growth, *arguments).result()


def test_a_long_stream_is_one_program_in_constant_memory(growth_alone):
    process, arrays, programs = growth_alone(1, 1)
    assert programs == 1
    np.testing.assert_array_equal(arrays, 0)
    assert min(process) < BOUND


def test_the_measurement_sees_states_that_are_kept(growth_alone):
    process, arrays, _ = growth_alone(None, ())
    np.testing.assert_array_equal(arrays[1:], CALLS * BYTES_OF_A_STATE)
    assert min(process) > BOUND


def test_a_stream_gives_the_outputs_of_the_whole():
    encoder, traced = make_encoder(), []

    def traced_step(x_t, state):
        traced.append(x_t.shape)
        return encoder.step(x_t, state)

    step = jax.jit(traced_step, donate_argnums=1)
    state, outputs = encoder.initial_state(1), []
    for t in range(SIGNAL.shape[1]):
        y, state = step(SIGNAL[:, t], state)
        outputs.append(y)
    assert len(traced) == 1
    whole, last = jax.jit(lambda x: encoder(x))(SIGNAL)
    for streamed, expected in [(np.stack(outputs, axis=1), whole), *zip(state, last, strict=True)]:
        allowed = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(streamed, expected, rtol=0, atol=allowed)
