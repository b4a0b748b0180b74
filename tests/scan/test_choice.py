"""What `auto` stands for: rows of a table, this machine's methods, and one line in the log."""

import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from lru import scan
from lru.scan import DENSE_METHODS, LINEAR_METHODS, choice, cpu, native


@pytest.fixture(autouse=True)
def _fresh_choices():
    choice.automatic.cache_clear()
    yield
    choice.automatic.cache_clear()


def choose(**changes) -> str:
    arguments = {"platform": "cpu", "problem": "linear", "varying": False, "is_complex": True}
    return choice.automatic(**{**arguments, "steps": 1000, "lanes": 64, **changes})


def test_every_method_of_the_table_is_registered() -> None:
    table = choice.table()
    for row in table["measured"]:
        known = LINEAR_METHODS if row["problem"] == "linear" else DENSE_METHODS
        assert set(row["methods"]) <= set(known)
    for methods in table["not_measured"].values():
        assert set(methods) <= set(LINEAR_METHODS) & set(DENSE_METHODS)


def test_the_table_says_where_it_was_measured() -> None:
    table = choice.table()
    kinds = {f"{row['platform']}-{row['problem']}-{row['factor']}" for row in table["measured"]}
    assert set(table["provenance"]) == kinds
    for provenance in table["provenance"].values():
        assert {"command", "date", "jax", "machine"} <= set(provenance)


def test_every_problem_has_a_row_for_every_number_of_steps() -> None:
    least: dict = {}
    for row in choice.table()["measured"]:
        kind = (row["platform"], row["problem"], row["factor"], row["number"])
        least[kind] = min(row["least_steps"], least.get(kind, row["least_steps"]))
    assert set(least.values()) == {1}
    assert len(least) == 6 + 4  # a GPU: linear problems alone


def test_the_row_with_the_most_steps_not_above_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"platform": "cpu", "problem": "linear", "factor": "constant", "number": "complex"}
    rows = [
        {**row, "least_steps": 1, "methods": ["sequential"]},
        {**row, "least_steps": 64, "methods": ["associative"]},
    ]
    monkeypatch.setattr(choice, "table", lambda: {"measured": rows, "not_measured": {}})
    chosen = [choose(steps=steps) for steps in (1, 63, 64, 9999)]
    assert chosen == ["sequential", "sequential", "associative", "associative"]


def test_without_a_compiler_the_next_method_is_taken_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "problem", lambda: "no compiler for a choice")
    assert [choose(steps=steps) for steps in (20, 30)] == ["sequential"] * 2
    assert not native.has_one_pass("lstm without a compiler", "cpu")
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warnings == ["no compiler for a choice; slower methods take its place"]


def test_platforms_that_were_not_measured_have_a_method() -> None:
    assert choose(platform="tpu") in LINEAR_METHODS
    assert choose(platform="gpu", problem="dense") in DENSE_METHODS
    assert choose(platform="metal", problem="dense") in DENSE_METHODS


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
    monkeypatch: pytest.MonkeyPatch, capabilities: list[str], lanes: int, method: str
) -> None:
    devices = [SimpleNamespace(compute_capability=capability) for capability in capabilities]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    assert choose(platform="gpu", lanes=lanes) == method


def test_a_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lru.scan.choice"):
        for _ in range(2):
            jax.eval_shape(scan.linear_scan, jnp.ones(4), jnp.ones((2, 5, 4)))
    (record,) = caplog.records
    assert record.getMessage().startswith("scan method on cpu, real linear problem")
