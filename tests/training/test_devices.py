"""Runs on several devices, of one process and of two: the losses of one device, and checkpoints.

The devices are those that the processor is divided into for tests.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lru import load_model
from lru.batches import Batch, Streams
from lru.commands import run_train
from lru.dataloaders import Card, Ragged
from lru.devices import Devices
from lru.experiment import open_experiment
from lru.flags import parse
from lru.models import ModelConfig
from lru.tasks import TASKS
from lru.tasks.base import no_counts
from lru.training.config import TrainConfig
from lru.training.hooks import Hook
from lru.training.interrupts import REQUEUE
from lru.training.optimizer import LBFGS, AdamW, make_optimizer
from lru.training.progress import Stopwatch
from lru.training.trackers import read_jsonl
from lru.training.update import CompiledByShape, Evaluation, Weights, init_state, make_functions
from lru.training.update import rows_of as axes

ROOT = Path(__file__).parents[2]
ROWS, T, LONG = 16, 11, 1024
UPDATES = 50


def building(rule):
    def build(values):
        schedule = optax.constant_schedule(1e-2)
        return make_optimizer(rule, TrainConfig(), schedule), schedule

    return build


def classified(model, **body):
    """A classifier, and batches of rows of uneven lengths of which the last is a filler."""
    card = Card(
        name="toy",
        version=1,
        kind="values",
        n_classes=3,
        n_features=2,
        targets="class",
        max_length=T,
    )
    rng = np.random.default_rng(0)

    def batch():
        return Batch(
            inputs=rng.normal(size=(ROWS, T, 2)),
            labels=rng.integers(3, size=ROWS).astype(np.int32),
            weights=np.float32([1] * (ROWS - 1) + [0]),
            lengths=np.int32([T, 3, 1, T, 2, 4, 6, 0] * 2),
        )

    config = ModelConfig(model, n_layers=1, d_model=4, d_hidden=3, p_dropout=0.0, body_options=body)
    return TASKS["classification"](card, config), [batch() for _ in range(3)]


def text(model):
    """A language model, and the chunks of streams of which the last is short."""
    tokens = np.random.default_rng(0).integers(5, size=ROWS * 3 * T - 5).astype(np.uint8)
    lines = Ragged(tokens, np.array([0, len(tokens)]), np.array([-1], np.int32))
    card = Card(name="text", version=1, kind="text", n_classes=5, targets="tokens", max_length=T)
    config = ModelConfig(model, n_layers=1, d_model=4, d_hidden=3, p_dropout=0.0)
    chunks = [
        c._replace(lengths=np.full(ROWS, T, np.int32))
        for c in Streams(lines, ROWS, T, boundary=0).epoch()
    ]
    return TASKS["language_modelling"](card, config), chunks


class Trained(NamedTuple):
    """Sums of the loss after each update, the last parameters, and sums of an evaluation."""

    losses: list
    params: np.ndarray
    evaluated: list


def trained(task, batches, devices, dtype, updates, rule=None, microbatch=None):
    """The outcome of updates on batches in turn."""

    def in_type(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    build = building(rule or AdamW())
    graphdef, state = init_state(task, build, 0, ROWS)
    state, batches = jax.tree.map(in_type, (state, batches))
    functions = make_functions(task, graphdef, build, microbatch, devices.axis)
    update = CompiledByShape(devices.on_each(functions.train, axes), Stopwatch())
    state = devices.put(state, axes)
    found = []
    for number in range(updates):
        state = update(state, devices.put(batches[number % len(batches)], axes))
        found.append(float(state.sums["loss"].total))
    weights = Weights(state.params, state.stats, state.seed)
    empty = jax.tree.map(jnp.zeros_like, state.sums)
    before = devices.put(Evaluation(empty, state.carry, jnp.int32(0), no_counts(task)), axes)
    evaluate = jax.jit(devices.on_each(functions.evaluate, axes))
    sums = evaluate(before, weights, devices.put(batches[-1], axes)).sums
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, sums))} == {np.dtype(dtype)}
    params = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)])
    return Trained(found, params, [float(leaf) for leaf in jax.tree.leaves(sums)])


CASES = {
    "batch norm": (lambda: classified("lru"), {}),
    "carry": (lambda: text("qrnn"), {}),
    "both directions": (lambda: classified("diag-rnn", norm="layer", bidirectional=True), {}),
    "microbatches": (lambda: classified("diag-rnn", norm="layer"), {"microbatch": 1}),
    "lbfgs": (lambda: classified("lstm"), {"rule": LBFGS(max_iter=3)}),
}


def trained_in_double(case, devices):
    """The outcome of a case in double precision."""
    make, more = CASES[case]
    with jax.enable_x64(True):
        return trained(*make(), devices, np.float64, UPDATES, **more)


@cache
def trained_on_one(case):
    """The outcome of a case in double precision on one device, which several tests compare with."""
    return trained_in_double(case, Devices())


@pytest.mark.parametrize(
    ("case", "mesh"),
    [
        ("batch norm", "data=8"),
        ("batch norm", "data=2,seq=4"),
        ("carry", "data=2,seq=4"),
        ("both directions", "data=2,seq=4"),
        ("microbatches", "data=8"),
        ("lbfgs", "data=8"),
    ],
)
def test_updates_and_losses_are_those_of_one_device(case, mesh):
    one, several = trained_on_one(case), trained_in_double(case, Devices.named(mesh))
    # Sums over microbatches are kept in single precision.
    compared = one._fields if case != "microbatches" else ["params"]
    for name in compared:
        np.testing.assert_allclose(getattr(several, name), getattr(one, name), rtol=1e-9, atol=1e-9)


def test_in_single_precision_an_update_differs_by_rounding():
    task, batches = classified("lru")
    one, several = (
        trained(task, batches, devices, np.float32, 1)
        for devices in (Devices(), Devices.named("data=2,seq=4"))
    )
    np.testing.assert_allclose(several.losses, one.losses, rtol=1e-5)
    np.testing.assert_allclose(several.evaluated, one.evaluated, rtol=1e-5)


# What the programs send and hold.


def program(devices, model, method):
    """The compiled update of long sequences, as text."""
    task, (batch, *_) = classified(model, norm="layer")
    task.model.options["scan_method"] = method
    long = batch._replace(inputs=np.zeros((ROWS, LONG, 2), np.float32), lengths=None)
    build = building(AdamW())
    graphdef, state = init_state(task, build, 0, ROWS)
    functions = make_functions(task, graphdef, build, None, devices.axis)
    update = CompiledByShape(devices.on_each(functions.train, axes), Stopwatch())
    return update.program(devices.put(state, axes), devices.put(long, axes)).as_text()


def sizes(text, kind):
    """Numbers in the results of operations of a kind."""
    found = re.findall(rf"= (.*?) (?:{kind})(?:-start)?\(", text)
    shapes = [re.findall(r"\[([\d,]*)\]", results) for results in found]
    return [int(np.prod([int(n) for n in s.split(",") if n])) for each in shapes for s in each]


SENDING = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"


def test_native_scans_run_on_the_rows_of_each_device_and_no_row_is_sent():
    text = program(Devices.named("data=8"), "lru", "native")
    assert "lru_projected_forward" in text
    assert max(sizes(text, "custom-call")) == ROWS // 8 * LONG * 6, "states of a device"
    assert max(sizes(text, SENDING)) < LONG


def test_no_device_holds_all_of_the_time_that_is_split():
    text = program(Devices.named("data=2,seq=4"), "lru", "auto")
    assert max(sizes(text, SENDING)) < LONG
    assert max(sizes(text, "fusion|dot|custom-call|exponential")) < ROWS // 2 * LONG * 4


# Runs.


class Stop(Hook):
    """Stops a run after so many updates."""

    name = "stop"

    def __init__(self, after):
        self.after = after

    def stops(self, run):
        return run.step >= self.after


def of_run(flags, *more):
    return [*flags, "--p_dropout", "0", "--log_every", "1", *more]


def run(arguments, until=None):
    """The log of a run, which goes on to its end or until so many updates."""
    with open_experiment(parse(arguments)[1]) as experiment:
        if until is not None:
            experiment.trainer.hooks.append(Stop(until))
        with suppress(KeyboardInterrupt):
            experiment.fit()
    return read_jsonl(experiment.run.metrics_file)


def assert_near(log, expected, tolerance):
    assert [line.keys() for line in log] == [line.keys() for line in expected]
    for name in ("train/loss", "val/loss", "test/loss"):
        values = [[line[name] for line in lines if name in line] for lines in (log, expected)]
        np.testing.assert_allclose(*values, rtol=tolerance)


def test_a_run_goes_on_on_other_devices(flags):
    alone = run(of_run(flags, "--name", "alone"))
    moved = of_run(flags, "--name", "moved")
    run([*moved, "--mesh", "data=8"], until=4)
    run([*moved, "--mesh", "data=2,seq=4"], until=8)
    run(moved, until=11)
    log = run([*moved, "--mesh", "data=8", "--steps_per_call", "3", "--on_device", "True"])
    assert_near(log, alone, 1e-5)
    assert load_model(Path(flags[flags.index("--runs_dir") + 1]) / "moved").update == 5


class Together(NamedTuple):
    """Two processes that were asked to stop a run, and trained a case after that."""

    flags: list
    stopped_after: int
    statuses: list
    said: list


@pytest.fixture(scope="module")
def two_processes(shared_flags):
    """They have 4 devices each, and meet at an address where the first one listens."""
    flags = [*of_run(shared_flags, "--epochs", "40"), "--name", "together"]
    metrics = Path(flags[flags.index("--runs_dir") + 1]) / "together" / "metrics.jsonl"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    joined = ("--coordinator", address, "--num_processes", "2", "--process_id")
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, *flags, *joined, number],
            env={**os.environ, "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in ("0", "1")
    ]
    try:
        while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 7:
            assert all(process.poll() is None for process in processes), processes[0].communicate()
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=300)[0] for process in processes]
        statuses = [process.returncode for process in processes]
        return Together(flags, len(read_jsonl(metrics)), statuses, said)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_two_processes_have_the_losses_of_one_device(two_processes):
    for said in two_processes.said:
        found = re.search("^losses (.*)$", said, re.MULTILINE)
        assert found, said
        one = trained_on_one("batch norm")
        np.testing.assert_allclose(json.loads(found[1]), one.losses, rtol=1e-9)


def test_two_processes_stop_together_and_their_run_goes_on_in_one(two_processes):
    flags, stopped_after, statuses, said = two_processes
    assert statuses == [REQUEUE] * 2, said
    assert "data=8 seq=1 in 2 processes" in said[0]
    assert "data=8" not in said[1], "the first process speaks for all"
    assert 6 < stopped_after < 200
    assert_near(run(flags), run([*flags, "--name", "alone"]), 1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--mesh", "data=3"], "mesh must be of all devices, data times seq = 8, got 'data=3'"),
        (["--mesh", "time=8"], "mesh must be data=N, seq=N or data=N,seq=N, .*, got 'time=8'"),
        (
            ["--mesh", "data=8", "--batch_size", "12"],
            "batch_size must be a multiple of the 8 parts of data of the mesh, got 12 for train",
        ),
        (
            ["--mesh", "data=8", "--n_seeds", "2"],
            "n_seeds and lanes must be of one lane on .*, got 2",
        ),
        (
            ["--mesh", "seq=8", "--model", "lstm"],
            "mesh must have seq=1 for model lstm, .* in time: .*lru.*; got 8",
        ),
        (
            ["--mesh", "seq=8", "--scan_method", "native"],
            "scan_method must be auto or one that splits time with seq=8 of the mesh, got 'native'",
        ),
        (
            ["--coordinator", "here:1"],
            "coordinator, num_processes and process_id must be .*together",
        ),
        (
            ["--coordinator", "here:1", "--num_processes", "2", "--process_id", "2"],
            "process_id must be from 0 to num_processes - 1, got 2 of 2",
        ),
    ],
)
def test_devices_that_do_not_fit_are_refused_in_a_sentence(flags, given, message, capsys):
    assert run_train([*flags, *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


def main():
    """Train as one process of two: a run until it is stopped, and then a case."""
    status = run_train(sys.argv[1:])
    jax.config.update("jax_enable_x64", True)
    make, more = CASES["batch norm"]
    found = trained(*make(), Devices.named("data=8"), np.float64, UPDATES, **more)
    sys.stdout.write(f"losses {json.dumps(found.losses)}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
