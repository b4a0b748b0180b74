"""Checkpoints: read while they are replaced, kept, damaged, and written to a slow or full disk."""

import errno
import shutil
from functools import partial
from threading import Event
from unittest.mock import Mock

import jax.numpy as jnp
import pytest

from lru.training.checkpoints import Checkpoints, Retention, UnreadableError
from lru.training.first_form import FORMAT
from lru.training.update import TrainState


def state_of(value):
    return TrainState(**{name: {"x": jnp.full(3, value)} for name in TrainState._fields})


def save(checkpoints, step):
    checkpoints.save("best", step, state_of(float(step)), {"format": FORMAT, "epoch": step})
    checkpoints.wait()


@pytest.fixture
def writer(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    yield checkpoints
    checkpoints.close()


def read(checkpoints):
    state, progress = checkpoints.restore("best", state_of(0.0))
    assert set(state.params["x"].tolist()) == {float(progress["step"])}
    assert progress["epoch"] == progress["step"]
    return progress["step"]


@pytest.mark.parametrize("left", [[], ["state"], ["progress"], ["_METADATA", "_sharding"]], ids=str)
def test_a_checkpoint_that_was_replaced_since_the_folder_was_opened_gives_way(writer, left):
    save(writer, 1)
    reader = Checkpoints(writer.folder, read_only=True)
    old = writer.folder / "best" / "1"
    kept = writer.folder / "kept"
    shutil.copytree(old, kept)
    save(writer, 2)
    # Orbax removes a checkpoint file by file.
    for path in (path for path in kept.rglob("*") if path.is_file()):
        if {*path.relative_to(kept).parts} & {*left}:
            target = old / path.relative_to(kept)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    assert read(reader) == 2


def test_a_missing_checkpoint_is_named(writer):
    reader = Checkpoints(writer.folder, read_only=True)
    with pytest.raises(FileNotFoundError, match=r"no best checkpoint in .*best"):
        read(reader)


def steps(checkpoints, kind):
    return sorted(int(path.name) for path in (checkpoints.folder / kind).iterdir())


def save_last(checkpoints, *steps):
    for step in steps:
        checkpoints.save("last", step, state_of(float(step)), {"format": FORMAT})
        checkpoints.wait()


def test_the_last_ones_stay_and_one_of_every_window_of_time(tmp_path):
    for retention, kept in [(Retention(2), [3, 4]), (Retention(1, hours=1), [1, 4])]:
        checkpoints = Checkpoints(tmp_path / str(retention.last), retention=retention)
        save_last(checkpoints, 1, 2, 3, 4)
        assert steps(checkpoints, "last") == kept
        checkpoints.close()
        again = Checkpoints(tmp_path / str(retention.last), retention=retention)
        save_last(again, 5, 6)
        assert steps(again, "last") == ([5, 6] if retention.hours is None else [1, 6])
        again.close()


def test_checkpoints_after_the_one_that_a_run_went_on_from_give_way(writer):
    save(writer, 100)
    save(writer, 60)
    assert (steps(writer, "best"), read(writer)) == ([60], 60)


@pytest.fixture
def slow_disk(monkeypatch):
    """Nothing is written until this is set."""
    free, write = Event(), Checkpoints._write

    def slow(*args):
        assert free.wait(60)
        write(*args)

    monkeypatch.setattr(Checkpoints, "_write", slow)
    return free


def test_nobody_waits_for_the_disk_and_what_is_superseded_is_not_written(writer, slow_disk):
    order = []
    for step in (1, 2, 3):
        writer.save("best", step, state_of(float(step)), {"format": FORMAT})
        before = partial(order.append, step)
        writer.save("last", step, state_of(float(step)), {"format": FORMAT}, before)
    slow_disk.set()
    writer.wait()
    # The first was being written when the others came.
    assert order == [3]
    assert (steps(writer, "best"), steps(writer, "last")) == ([3], [3])


def test_training_goes_on_without_a_checkpoint_that_cannot_be_written(writer, monkeypatch, caplog):
    save_last(writer, 1)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: Mock(free=5))
        save(writer, 2)
        save_last(writer, 2)
    assert "the best checkpoint of update 2 could not be written" in caplog.text
    assert "No space left on device: 120 bytes to write, 5 free" in caplog.text
    assert steps(writer, "last") == [1]
    assert writer.failure.errno == errno.ENOSPC
    save_last(writer, 3)
    assert (steps(writer, "last"), writer.failure) == ([3], None)
    assert steps(writer, "best") == [2], "what the newer one builds on was owed"


@pytest.mark.parametrize("file", ["state/manifest.ocdbt", "state/d/*", "progress/metadata"])
def test_a_damaged_checkpoint_is_told_from_one_of_another_model(writer, file):
    save_last(writer, 1)
    for path in (writer.folder / "last" / "1").glob(file):
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableError, match=r"the checkpoint of update 1 in .* is damaged"):
        writer.restore("last", state_of(0.0))
    assert writer.set_aside("last") == writer.folder / "damaged" / "last-1-0"
    assert writer.to_resume() is None
