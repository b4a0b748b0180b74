"""Checkpoints that one process reads and another one replaces them."""

import shutil

import jax.numpy as jnp
import pytest

from lru.training.checkpoints import Checkpoints
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
