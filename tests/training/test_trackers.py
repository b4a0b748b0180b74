"""JSON lines, and trackers in the background, which never slow or stop a run."""

import errno
import json
import math
import os
import time
from threading import Event
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import pytest

from lru.training.trackers import JsonLinesTracker, Trackers, read_jsonl, truncate


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


class Stuck(Recorder):
    """A tracker whose calls take ten seconds, unless it is let go."""

    def __init__(self):
        super().__init__()
        self.let_go = Event()

    def _call(self, *call):
        self.let_go.wait(10)
        super()._call(*call)


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


def test_all_trackers_are_told_and_the_speed_is_not_in_the_lines(path):
    recorder = Recorder()
    both = Trackers(JsonLinesTracker(path))
    both.add("recorder", lambda: recorder)
    both.log(1, {"loss": 2.0})
    both.log_speed(1, {"steps_per_second": 30.0})
    both.show(1, {})
    both.flush()
    both.close()
    assert recorder.calls == [
        ("log", 1, {"loss": 2.0}),
        ("log", 1, {"speed/steps_per_second": 30.0}),
        ("show", 1, {}),
        ("flush",),
        ("close",),
    ]
    assert read_jsonl(path) == [{"step": 1, "loss": 2.0}]


def test_a_failing_tracker_is_left_after_one_warning(path, caplog):
    failing, sound = Recorder(fail_after=1), Recorder()
    several = Trackers(JsonLinesTracker(path))
    several.add("one that fails", lambda: failing)
    several.add("one that works", lambda: sound)
    for step in range(4):
        several.log(step, {"loss": 1.0})
    several.close()
    assert len(failing.calls) == 1
    assert len(sound.calls) == 5
    assert len(read_jsonl(path)) == 4
    assert [record.message for record in caplog.records] == [
        "Training goes on without one that fails: ConnectionError: the line is dead"
    ]


def test_a_tracker_that_does_not_open_is_left_out_with_a_warning(caplog):
    def open_broken():
        raise ImportError("no such package")

    several = Trackers()
    several.add("wishes", open_broken)
    several.log(1, {"loss": 1.0})
    several.close()
    assert [record.message for record in caplog.records] == [
        "Training goes on without wishes: ImportError: no such package"
    ]


def test_nobody_waits_for_a_tracker_that_sleeps_ten_seconds_a_call(path, caplog):
    stuck, sound = Stuck(), Recorder()
    several = Trackers(JsonLinesTracker(path), patience=0.1)
    several.add("one that sleeps", lambda: stuck, capacity=5)
    several.add("one that works", lambda: sound)
    start = time.perf_counter()
    for step in range(20):
        several.log(step, {"loss": 1.0})
        several.flush()
    told = time.perf_counter()
    several.close()
    closed = time.perf_counter()
    assert told - start < 1, "a few milliseconds, but the machine may be busy"
    assert 0.1 <= closed - told < 1
    assert len(read_jsonl(path)) == 20
    assert len(sound.calls) == 41
    first, last = (record.message for record in caplog.records)
    assert first == "one that sleeps is slower than the run: old records are dropped"
    assert "has not ended and is waited for no longer" in last
    assert "of 40 records are lost" in last
    stuck.let_go.set()


def test_a_slow_tracker_gets_the_latest_and_says_how_many_it_missed(caplog):
    slow = Stuck()
    several = Trackers()
    several.add("a slow one", lambda: slow, capacity=2)
    several.log(0, {})
    give_up = time.monotonic() + 10
    while several._others[0]._calls and time.monotonic() < give_up:
        time.sleep(0.001)
    for step in range(1, 6):
        several.log(step, {})
    slow.let_go.set()
    several.close()
    assert [call[1:2] for call in slow.calls] == [(0,), (4,), (5,), ()]
    assert caplog.records[-1].message == "a slow one has dropped 3 of 6 records"


def test_lines_that_a_full_disk_refuses_are_written_later(path, caplog):
    tracker = JsonLinesTracker(path)
    file, room = tracker._file, [5]

    def write(content):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= (written := file.write(content[: room[0]]))
        return written

    tracker._file = Mock(wraps=file, write=write)
    for step in (1, 2):
        tracker.log(step, {"loss": 0.5})
    with pytest.raises(OSError, match="No space left"):
        tracker.flush()
    assert [record.message for record in caplog.records] == [
        f"{path} cannot be written, and is tried again: [Errno 28] No space left on device"
    ]
    room[0] = 1000
    tracker.log(3, {"loss": 0.5})
    tracker.flush()
    assert [line["step"] for line in read_jsonl(path)] == [1, 2, 3]
    file.close()


def test_a_full_disk_surfaces_and_the_others_are_closed(path, monkeypatch):
    recorder = Recorder()
    several = Trackers(JsonLinesTracker(path))
    several.add("recorder", lambda: recorder)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            several.close()
    several.close()
    assert recorder.calls == [("close",)]
