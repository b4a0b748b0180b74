import errno
import json
import logging
import math
import os
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lru.tasks import Findings, Table
from lru.training import trackers
from lru.training.trackers import (
    JsonLinesTracker,
    TensorBoardTracker,
    Tracker,
    Trackers,
    WandbTracker,
    read_jsonl,
    truncate,
)


class Recorder:
    """A tracker that remembers its calls and fails from a given call on."""

    def __init__(self, fail_after: float = math.inf):
        self.calls: list[tuple] = []
        self.fail_after = fail_after

    def _call(self, *call):
        if len(self.calls) >= self.fail_after:
            raise ConnectionError("the line is dead")
        self.calls.append(call)

    def log(self, step, metrics):
        self._call("log", step, dict(metrics))

    def show(self, step, findings):
        self._call("show", step, findings)

    def flush(self):
        self._call("flush")

    def close(self):
        self._call("close")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "metrics.jsonl"


def write(path, *steps):
    tracker = JsonLinesTracker(path)
    for step in steps:
        tracker.log(step, {"loss": step / 2})
    tracker.close()


def test_json_lines_are_plain_json_with_the_step_first(path):
    tracker = JsonLinesTracker(path)
    tracker.log(10, {"epoch": 1, "train/loss": 0.5})
    tracker.log(20, {"train/loss": jnp.float32(0.25), "examples": np.int64(640)})
    assert path.read_text() == (
        '{"step": 10, "epoch": 1, "train/loss": 0.5}\n'
        '{"step": 20, "train/loss": 0.25, "examples": 640}\n'
    )
    tracker.close()
    tracker.close()


def test_non_finite_values_stay_valid_json_and_come_back(path):
    tracker = JsonLinesTracker(path)
    tracker.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": np.float32(-np.nan)})
    tracker.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    (record,) = read_jsonl(path)
    assert math.isnan(record["a"])
    assert math.isnan(record["d"])
    assert (record["b"], record["c"]) == (math.inf, -math.inf)


def test_floats_come_back_bit_for_bit(path):
    values = {"a": 0.1, "b": 1e-300, "c": float(np.float32(0.1)), "d": -0.0}
    tracker = JsonLinesTracker(path)
    tracker.log(1, values)
    tracker.close()
    (record,) = read_jsonl(path)
    assert {name: repr(value) for name, value in values.items()} == {
        name: repr(record[name]) for name in values
    }


def test_reopening_appends_and_drops_a_torn_line(path):
    write(path, 1, 2)
    with path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [record["step"] for record in read_jsonl(path)] == [1, 2]
    write(path, 3)
    assert [record["step"] for record in read_jsonl(path)] == [1, 2, 3]


def test_flush_reaches_the_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    tracker = JsonLinesTracker(path)
    tracker.flush()
    assert len(synced) == 1
    tracker.close()


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", '{"loss": 1}'])
def test_reading_names_the_bad_line(path, line):
    write(path, 1)
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not"):
        read_jsonl(path)


def test_truncate_keeps_lines_up_to_the_step(path):
    write(path, 1, 2, 2, 3)
    first = path.read_bytes().splitlines(keepends=True)
    with path.open("a") as file:
        file.write('{"step": 2, "torn')
    truncate(path, 2)
    assert path.read_bytes() == b"".join(first[:3])
    assert list(path.parent.iterdir()) == [path]
    truncate(path, 0)
    assert path.read_bytes() == b""


def test_truncate_drops_an_evaluation_that_is_not_over(path):
    tracker = JsonLinesTracker(path)
    for metrics in ({"train/loss": 1.0}, {"train/score": 1.0}, {"val/loss": 1.0}):
        tracker.log(2, metrics)
    tracker.close()
    truncate(path, 2, evaluated=False)
    assert [record.keys() - {"step"} for record in read_jsonl(path)] == [
        {"train/loss"},
        {"train/score"},
    ]


def test_truncate_without_a_file_does_nothing(tmp_path):
    truncate(tmp_path / "metrics.jsonl", 5)
    assert list(tmp_path.iterdir()) == []


def test_a_truncation_that_is_interrupted_leaves_the_old_file(path, monkeypatch):
    write(path, 1, 2)
    before = path.read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        truncate(path, 1)
    assert path.read_bytes() == before


def test_trackers_log_to_all(path):
    recorder = Recorder()
    both = Trackers([JsonLinesTracker(path), recorder])
    assert isinstance(both, Tracker)
    both.log(1, {"loss": 2.0})
    both.flush()
    both.close()
    assert recorder.calls == [("log", 1, {"loss": 2.0}), ("flush",), ("close",)]
    assert read_jsonl(path) == [{"step": 1, "loss": 2.0}]


def test_a_failing_tracker_is_switched_off_after_one_warning(path, caplog):
    failing, sound = Recorder(fail_after=1), Recorder()
    several = Trackers([failing, JsonLinesTracker(path), sound])
    for step in range(4):
        several.log(step, {"loss": 1.0})
    several.close()
    assert len(failing.calls) == 1
    assert len(sound.calls) == 5
    assert len(read_jsonl(path)) == 4
    assert [record.message for record in caplog.records] == [
        "Recorder failed and is switched off: ConnectionError: the line is dead"
    ]


def test_a_tracker_that_does_not_open_is_left_out_with_a_warning(caplog):
    several = Trackers()
    recorder = Recorder()

    def open_broken():
        raise ImportError("no such package")

    several.add(open_broken)
    several.add(lambda: recorder)
    several.log(1, {"loss": 1.0})
    assert recorder.calls == [("log", 1, {"loss": 1.0})]
    assert [record.message for record in caplog.records] == [
        "Training goes on without a tracker that did not start: no such package"
    ]


def test_a_full_disk_surfaces_after_the_others_had_their_turn(path, monkeypatch):
    recorder = Recorder()
    several = Trackers([JsonLinesTracker(path), recorder])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            several.flush()
    assert recorder.calls == [("flush",)]
    several.close()


@pytest.mark.parametrize(
    ("package", "extra", "open_tracker"),
    [
        ("tensorboardX", "tensorboard", lambda folder: TensorBoardTracker(folder)),
        ("wandb", "wandb", lambda folder: WandbTracker(folder, "p", None, "n", {})),
    ],
)
def test_a_missing_package_names_its_extra(package, extra, open_tracker, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'pip install "lru-jax\[{extra}\]"'):
        open_tracker(tmp_path)


PICTURE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
FINDINGS = Findings({"mistakes": Table(("given", "loss"), [("a, b", 0.5)])}, {"map": PICTURE})


def test_tables_and_pictures_are_files_beside_the_lines(path):
    tracker = Trackers([JsonLinesTracker(path)])
    for _ in range(2):
        tracker.show(3, FINDINGS)
    tracker.close()
    assert (path.parent / "tables" / "mistakes.csv").read_text() == 'given,loss\n"a, b",0.5\n'
    with Image.open(path.parent / "pictures" / "map.png") as picture:
        np.testing.assert_array_equal(picture, PICTURE)
    assert path.read_bytes() == b""


def test_tensorboard_writes_event_files(tmp_path):
    pytest.importorskip("tensorboardX")
    tracker = TensorBoardTracker(tmp_path, purge_step=3)
    tracker.log(3, {"train/loss": 0.5, "epoch": 1})
    tracker.show(3, FINDINGS)
    tracker.flush()
    tracker.close()
    (events,) = tmp_path.iterdir()
    for part in (b"train/loss", b"| a, b | 0.5 |", b"map"):
        assert part in events.read_bytes()


@pytest.fixture
def no_login(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module `wandb` whose runs remember their calls."""
    module = types.ModuleType("wandb")
    module.started = []

    def init(**settings):
        run = types.SimpleNamespace(settings=settings, logged=[], finished=False)
        run.log = lambda metrics, step: run.logged.append((step, metrics))
        run.finish = lambda: setattr(run, "finished", True)
        module.started.append(run)
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_reattaches_to_its_run(tmp_path, fake_wandb, no_login):
    for step in (1, 2):
        tracker = WandbTracker(tmp_path / "run", "lru", "team", "first", {"seed": 3})
        tracker.log(step, {"train/loss": jnp.float32(0.5)})
        tracker.flush()
        tracker.close()
    first, second = fake_wandb.started
    assert first.settings == second.settings
    run_id = (tmp_path / "run" / "wandb_id").read_text()
    assert first.settings == {
        "dir": str(tmp_path / "run"),
        "project": "lru",
        "entity": "team",
        "name": "first",
        "config": {"seed": 3},
        "id": run_id,
        "resume": "allow",
        "mode": "offline",
    }
    assert len(run_id) == 8
    assert second.logged == [(2, {"train/loss": 0.5})]
    assert second.finished
    WandbTracker(tmp_path / "another", "lru", None, "second", {})
    assert fake_wandb.started[-1].settings["id"] != run_id


def test_wandb_without_a_login_is_offline_and_says_so(no_login, caplog):
    assert trackers._wandb_mode() == "offline"
    assert [(record.levelno, "logging offline" in record.message) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


def test_wandb_is_online_with_a_key(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert trackers._wandb_mode() == "online"


def test_wandb_is_online_with_a_netrc_login(no_login):
    no_login.write_text("machine another.host login user password secret\n")
    assert trackers._wandb_mode() == "offline"
    no_login.write_text("machine api.wandb.ai login user password secret\n")
    assert trackers._wandb_mode() == "online"


def test_wandb_mode_of_the_environment_wins(no_login, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert trackers._wandb_mode() == os.environ["WANDB_MODE"]


@pytest.mark.filterwarnings("default")
def test_real_wandb_offline(tmp_path, no_login, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    tracker = WandbTracker(tmp_path, "lru", None, "offline", {"seed": 0})
    tracker.log(1, {"train/loss": 0.5})
    tracker.show(1, FINDINGS)
    tracker.close()
    run_id = (tmp_path / "wandb_id").read_text()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith(run_id)
    file = folder / f"run-{run_id}.wandb"
    # wandb's service process may write a moment after the run has finished.
    give_up = time.monotonic() + 20
    while b"train/loss" not in file.read_bytes() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert b"train/loss" in file.read_bytes()
    assert list(folder.rglob("mistakes*.table.json"))
    assert list(folder.rglob("map*.png"))
