"""What `auto` stands for: by steps, sizes, devices and compiler, and one line in the log."""

import inspect
import logging
from types import SimpleNamespace
from typing import get_args

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from lru import scan
from lru.registry import UnknownNameError
from lru.scan import DENSE_METHODS, LINEAR_METHODS, cpu
from lru.scan import select as module

OPERATIONS = get_args(module.Operation)
ROWS, WIDTH = 1000, 64

select = inspect.unwrap(module.select)


def choose(operation, steps=1000, *, platform="cpu", rows=ROWS, width=WIDTH, **options):
    return select(operation, (rows, steps, width), platform=platform, **options)


@pytest.fixture
def _cores(monkeypatch, request):
    """As many cores as the parameter says for this process."""
    monkeypatch.setattr(
        cpu.os, "sched_getaffinity", lambda _: set(range(request.param)), raising=False
    )
    cpu.n_cores.cache_clear()
    yield
    cpu.n_cores.cache_clear()


@pytest.mark.parametrize(
    ("operation", "least", "method"),
    [
        ("linear", 16, "native"),
        ("shard", 16, "native"),
        ("dense", 256, "native"),
        ("projected", 16, "fused"),
    ],
)
def test_loops_in_cpp_need_steps(operation, least, method):
    chosen = [choose(operation, steps) for steps in (1, least - 1, least, 9999)]
    assert chosen == ["sequential", "sequential", method, method]


@pytest.mark.parametrize("operation", ["gated", "pooling"])
def test_gates_run_in_cpp_from_one_step_on(operation):
    assert choose(operation, 1) == module.FUSED


@pytest.mark.parametrize("_cores", [2], indirect=True)
@pytest.mark.parametrize(
    ("rows", "largest"),
    [(7, module.LARGEST_MATRIX), (8, module.LARGEST_MATRIX_OF_MANY_ROWS)],
)
@pytest.mark.usefixtures("_cores")
def test_a_recurrent_matrix_too_large_for_the_rows_of_a_core_is_left_to_xla(rows, largest):
    chosen = [choose("gated", rows=rows, elements=elements) for elements in (largest, largest + 1)]
    assert chosen == ["fused", "sequential"]


def test_what_the_compiler_splits_is_not_left_to_loops_that_it_cannot_split():
    assert choose("shard", split=True) == "sequential"


def test_without_a_compiler_the_plain_loop_takes_its_place_which_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(cpu, "problem", lambda loops: "no compiler for a choice")
    assert {choose(operation) for operation in OPERATIONS} == {"sequential"}
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warnings == ["no compiler for a choice; slower methods take its place"]


def test_what_is_not_worth_it_asks_for_no_compiler(monkeypatch):
    monkeypatch.setattr(cpu, "problem", lambda loops: pytest.fail(f"compiled {loops}"))
    assert choose("linear", 1) == "sequential"
    assert choose("gated", elements=2 * module.LARGEST_MATRIX_OF_MANY_ROWS) == "sequential"


@pytest.mark.parametrize(
    ("capabilities", "lanes", "method"),
    [
        (["9.0"], 6144, "pallas"),
        (["9.0"], 6143, "associative"),
        (["7.5"], 6144, "associative"),
        (["gfx90a"], 6144, "associative"),
        (["9.0", "9.0"], 6144, "associative"),
    ],
)
def test_the_kernel_of_a_gpu_needs_lanes_and_one_recent_device(
    capabilities, lanes, method, monkeypatch
):
    devices = [SimpleNamespace(compute_capability=capability) for capability in capabilities]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    chosen = {o: choose(o, platform="gpu", rows=1, width=lanes) for o in OPERATIONS}
    linear = dict.fromkeys(("linear", "shard", "pooling", "projected"), method)
    nonlinear = dict.fromkeys(("gated", "elementwise"), "sequential")
    assert chosen == {**linear, "dense": "associative", **nonlinear}


def test_without_its_compiler_the_kernel_of_a_gpu_is_not_chosen(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability="9.0")])
    for there, method in ((True, "pallas"), (False, "associative")):
        monkeypatch.setattr(module, "has_triton", lambda there=there: there)
        assert choose("linear", platform="gpu") == method


@pytest.mark.parametrize("platform", ["tpu", "metal"])
def test_other_platforms_take_all_steps_at_once(platform):
    others = dict.fromkeys(OPERATIONS, "associative")
    chosen = {operation: choose(operation, platform=platform) for operation in OPERATIONS}
    assert chosen == {**others, "gated": "sequential", "elementwise": "sequential"}


def test_time_that_a_mesh_splits_stays_split():
    with jax.set_mesh(jax.make_mesh((8,), ("seq",), (AxisType.Auto,))):
        chosen = {operation: choose(operation) for operation in OPERATIONS}
        assert choose("linear", method="native") == "native"
    split = dict.fromkeys(("linear", "pooling", "projected"), "sharded")
    inside = {"shard": "native", "dense": "native", "gated": "fused", "elementwise": "fused"}
    assert chosen == {**split, **inside}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_method_that_is_named_is_taken(operation):
    known = DENSE_METHODS if operation == "dense" else LINEAR_METHODS
    native = "fused" if operation in ("gated", "elementwise", "pooling", "projected") else "native"
    chosen = {name: choose(operation, 1, method=name) for name in known}
    assert chosen == {**{name: name for name in known}, "native": native}
    with pytest.raises(UnknownNameError, match=r"known: .*sequential"):
        choose(operation, method="sequentail")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_portable_programs_and_empty_arrays_have_the_plain_loop(operation):
    names = ("auto", *(DENSE_METHODS if operation == "dense" else LINEAR_METHODS))
    with scan.portable():
        assert {choose(operation, method=name) for name in names} == {"sequential"}
    for empty in ({"rows": 0}, {"width": 0}):
        assert {choose(operation, method=name, **empty) for name in names} == {"sequential"}


def test_a_choice_is_logged_once(caplog):
    module._log.cache_clear()
    with caplog.at_level(logging.INFO, logger=module.__name__):
        for _ in range(2):
            jax.eval_shape(scan.linear_scan, jnp.ones(4), jnp.ones((2, 5, 4)))
            choose("projected")
            choose("linear", method="associative")
    assert [record.getMessage() for record in caplog.records] == [
        "scan method on cpu, linear problem, 5 steps, 8 lanes: sequential",
        "scan method on cpu, projected problem, 1000 steps, 64000 lanes: fused",
    ]
