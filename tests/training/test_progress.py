"""The bar: what counts as training, and the time that is left."""

import time

import jax
import numpy as np
import pytest

from lru.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def pass_time(seconds):
        now[0] += seconds

    return pass_time


def test_compiling_and_evaluating_are_not_counted_in_the_time_left(clock):
    progress = Progress(total=100, done=60)
    with progress.paused.running():
        clock(1000.0)
    for _ in range(10):
        with progress.waiting.running():
            clock(0.5)
        clock(1.5)
        progress.step(examples=4)
    assert progress.seconds_left() == pytest.approx(30 * 2.0)
    assert progress.timing() == pytest.approx({"examples_per_second": 2.0, "data_wait_share": 0.25})
    progress.close()


def test_speed_is_of_what_came_since_it_was_last_asked(clock):
    progress = Progress(total=100, done=60)
    clock(2.0)
    progress.step(examples=4, tokens=20)
    first = progress.counted
    with progress.waiting.running():
        clock(1.0)
    with progress.paused.running():
        clock(1000.0)
    clock(1.0)
    # The end of this update is not known of yet.
    progress.step(examples=6, updates=2, tokens=30)
    speed = progress.speed(first)
    assert (speed["steps_per_second"], speed["tokens_per_second"]) == (1 / 4, 20 / 4)
    clock(6.0)
    speed = progress.speed(progress.counted)
    assert speed["steps_per_second"] == 2 / 6
    assert speed["examples_per_second"] == 6 / 6
    assert speed["data_wait_share"] == 0
    before = speed["compilations"]
    jax.jit(lambda x: x * 0.73).lower(np.float32(1)).compile()
    speed = progress.speed(progress.counted)
    assert "tokens_per_second" not in speed
    assert speed["compilations"] == before + 1
    progress.close()


def test_the_bar_shows_metrics_speed_and_time_left_as_time_goes_by(clock, capsys):
    progress = Progress(total=10, done=0)
    progress.show({"train/loss": 1.25, "val/accuracy": 0.5, "lr": 1e-5})
    for _ in range(5):
        clock(3.0)
        progress.step(examples=6)
    progress.close()
    shown = capsys.readouterr().err
    assert " loss=1.25" in shown
    assert "val/accuracy=0.5" in shown
    assert "lr=1e-5" in shown or "lr=1e-05" in shown
    assert "examples/s=2" in shown
    assert "left=00:15" in shown


def test_a_file_is_not_filled_with_bars(clock, capsys):
    progress = Progress(total=1000, done=0)
    for _ in range(1000):
        clock(0.5)
        progress.step(examples=1)
        progress.show({"train/loss": 1.25})
    progress.close()
    assert capsys.readouterr().err.count("left=") <= 10
